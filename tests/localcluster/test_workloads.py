"""What this product needs of a node: pods, Services, exec, logs, annotations, Pod security."""

import http.server
import json
import threading
import urllib.request

import pytest

pytestmark = pytest.mark.cluster

IMAGE = "bottleneck/sidecar:dev"
SERVER = """
apiVersion: v1
kind: Pod
metadata:
  name: server
  labels: {app: server}
  annotations: {note: "first"}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: server
      image: IMAGE
      imagePullPolicy: Never
      command: [sh, -c, "echo started; cd /notes && exec python3 -m http.server 8080"]
      volumeMounts: [{name: notes, mountPath: /notes}]
      readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
  volumes:
    - name: notes
      downwardAPI:
        items: [{path: note, fieldRef: {fieldPath: "metadata.annotations['note']"}}]
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports: [{port: 80, targetPort: 8080}]
""".replace("IMAGE", IMAGE)

PRIVILEGED = """
apiVersion: v1
kind: Pod
metadata: {name: bad}
spec:
  containers: [{name: bad, image: IMAGE, securityContext: {privileged: true}}]
""".replace("IMAGE", IMAGE)

# Dials a Service from a pod, also the pod behind it (which then dials itself).
FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"


def test_a_pod_its_service_its_annotation_exec_and_logs(cluster, namespace):
    def kubectl(*arguments: str, **options) -> str:
        return cluster.kubectl("-n", namespace, *arguments, **options)

    kubectl("apply", "-f", "-", input=SERVER)
    kubectl("run", "client", f"--image={IMAGE}", "--image-pull-policy=Never",
            "--command", "--", "sleep", "600")  # fmt: skip
    kubectl("wait", "pod/server", "pod/client", "--for=condition=Ready", "--timeout=90s")
    assert kubectl("logs", "server").startswith("started")

    service = json.loads(kubectl("get", "service", "server", "-o", "json"))["spec"]["clusterIP"]
    url = f"http://{service}/note"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        assert answer.read() == b"first"
    for pod in ("client", "server"):
        assert kubectl("exec", pod, "--", "python3", "-c", FETCH, url).strip() == "first"

    kubectl("annotate", "--overwrite", "pod/server", "note=second")
    wait = "until grep -q second /notes/note; do sleep 0.1; done"
    kubectl("exec", "server", "--", "timeout", "60", "sh", "-c", wait)


def test_a_pod_reaches_the_host_and_the_api_server(cluster, namespace):
    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    host = json.loads(cluster.run("ip", "-json", "-4", "route", "get", _node(cluster)))[0][
        "prefsrc"
    ]
    server = http.server.HTTPServer((host, 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fetch = (
        "import os, ssl, urllib.request as u;"
        f"print(u.urlopen('http://{host}:{server.server_port}/', timeout=10).read());"
        "api = os.environ['KUBERNETES_SERVICE_HOST'];"
        "ca = ssl.create_default_context("
        "cafile='/var/run/secrets/kubernetes.io/serviceaccount/ca.crt');"
        "print(u.urlopen(f'https://{api}/version', context=ca, timeout=10).status)"
    )
    try:
        said = cluster.kubectl(
            "-n", namespace, "run", "asks", f"--image={IMAGE}", "--image-pull-policy=Never",
            "--restart=Never", "--rm", "--attach", "--quiet", "--command", "--",
            "python3", "-c", fetch,
        )  # fmt: skip
    finally:
        server.shutdown()
    assert "hello" in said
    assert "200" in said


def test_pod_security_refuses_a_privileged_pod(cluster, namespace):
    cluster.kubectl(
        "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"
    )
    said = cluster.kubectl("-n", namespace, "apply", "-f", "-", input=PRIVILEGED, check=False)
    assert 'violates PodSecurity "restricted' in said


def _node(cluster) -> str:
    nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    return next(a["address"] for a in nodes[0]["status"]["addresses"] if a["type"] == "InternalIP")
