"""etcd, the API server, the controller manager and the scheduler."""

import json
from pathlib import Path

from localcluster import api, files
from localcluster.cluster import Cluster
from localcluster.processes import Component

# Everything but the request's arrival, without bodies: enough to tell who did what, and when.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


# Of a control plane alone, which is there to see what somebody writes: the whole of each write.
WRITES_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "omitManagedFields": True,
    "rules": [
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {"level": "None", "resources": [{"group": "", "resources": ["events"]}]},
        {"level": "RequestResponse"},
    ],
}


def components(cluster: Cluster, binaries: dict[str, Path]) -> list[Component]:
    """The control plane, in the order in which it starts."""
    least = [_etcd(cluster), _apiserver(cluster, binaries["kube-apiserver"])]
    if cluster.control_plane_only:
        return least
    return [
        *least,
        _controller_manager(cluster, binaries["kube-controller-manager"]),
        _scheduler(cluster, binaries["kube-scheduler"]),
    ]


def _etcd(cluster: Cluster) -> Component:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return Component(
        "etcd",
        (
            "etcd",
            f"--data-dir={cluster.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            # A power cut may cost the cluster its state, which nobody would miss.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ),
        # The API server waits for etcd and says so; asking etcd itself would mean entering the
        # namespace again and again.
        is_ready=lambda: True,
    )


def _apiserver(cluster: Cluster, binary: Path) -> Component:
    pki = cluster.directory / "pki"
    audit_policy = cluster.directory / "audit-policy.json"
    policy = WRITES_POLICY if cluster.control_plane_only else AUDIT_POLICY
    files.write_atomically(audit_policy, json.dumps(policy, indent=2))
    return Component(
        "kube-apiserver",
        (
            str(binary),
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=0.0.0.0",
            f"--advertise-address={cluster.node_address}",
            "--secure-port=6443",
            f"--service-cluster-ip-range={cluster.services}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--tls-cert-file={pki / 'kube-apiserver.crt'}",
            f"--tls-private-key-file={pki / 'kube-apiserver.key'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki / 'service-account.key'}",
            f"--service-account-signing-key-file={pki / 'service-account.key'}",
            # For exec and logs; there is no DNS that knows the node's name.
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
            f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
            # For aggregated API servers (metrics adapters).
            f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
            f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
            f"--audit-policy-file={audit_policy}",
            f"--audit-log-path={cluster.log('audit')}",
            "--audit-log-maxsize=100",
            "--audit-log-maxbackup=1",
        ),
        is_ready=lambda: api.is_ready(cluster),
    )


def _controller_manager(cluster: Cluster, binary: Path) -> Component:
    pki = cluster.directory / "pki"
    return Component(
        "kube-controller-manager",
        (
            str(binary),
            f"--kubeconfig={cluster.directory / 'kube-controller-manager.kubeconfig'}",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={pki / 'service-account.key'}",
            f"--root-ca-file={pki / 'ca.crt'}",
            f"--cluster-signing-cert-file={pki / 'ca.crt'}",
            f"--cluster-signing-key-file={pki / 'ca.key'}",
            *_LONE_CLIENT,
        ),
        is_ready=lambda: api.has_default_service_account(cluster),
    )


def _scheduler(cluster: Cluster, binary: Path) -> Component:
    return Component(
        "kube-scheduler",
        (
            str(binary),
            f"--kubeconfig={cluster.directory / 'kube-scheduler.kubeconfig'}",
            *_LONE_CLIENT,
        ),
        # It serves nothing that the host could ask; the first pod that runs shows it.
        is_ready=lambda: True,
    )


# There is no second one to elect, and fleets of fake pods want more than 20 requests a second.
_LONE_CLIENT = ("--leader-elect=false", "--kube-api-qps=400", "--kube-api-burst=800")
