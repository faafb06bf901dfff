"""The chart with the real Helm: installed, upgraded, uninstalled, installed again."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
CHART = str(ROOT / "charts" / "bottleneck-operator")
RELEASE = "chart-test"
SYSTEM = "chart-test-system"
OPERATOR = f"{RELEASE}-bottleneck-operator"
INJECTOR = f"{OPERATOR}-injector"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"

Object = dict[str, Any]


class Cluster(Protocol):
    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str: ...

    def helm(self, *args: str, check: bool = True) -> str: ...


def install(cluster: Cluster, *more: str, chart: str = CHART) -> None:
    """Installs or upgrades the release with this tree's images, and waits until it is ready."""
    values = ("--set", "image.tag=dev,sidecar.image.tag=dev", "--namespace", SYSTEM)
    # Other tests have applied the CRDs with kubectl.
    owner = ("--take-ownership", "--force-conflicts")
    wait = ("--wait", "--timeout=180s")
    cluster.helm("upgrade", "--install", RELEASE, chart, *values, *owner, *wait, *more)


def get(cluster: Cluster, *arguments: str) -> Object:
    found: Object = json.loads(cluster.kubectl("get", *arguments, "-o", "json"))
    return found


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[None]:
    """The release in a namespace that accepts restricted pods only."""
    cluster.kubectl("create", "namespace", SYSTEM)
    cluster.kubectl("label", "namespace", SYSTEM, RESTRICTED)
    try:
        install(cluster)
        yield
    finally:
        gone = ("--namespace", SYSTEM, "--ignore-not-found", "--wait", "--timeout=180s")
        cluster.helm("uninstall", RELEASE, *gone, check=False)
        cluster.kubectl("delete", "namespace", SYSTEM, "--wait=false")


# --- values and templates ------------------------------------------------------------------------


def rendered(cluster: Cluster, *settings: str) -> list[Object]:
    arguments = [part for setting in settings for part in ("--set", setting)]
    text = cluster.helm("template", RELEASE, CHART, "--namespace", SYSTEM, *arguments)
    return [document for document in yaml.safe_load_all(text) if document]


def kinds(documents: list[Object]) -> set[str]:
    return {document["kind"] for document in documents}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("operator.replicas=4", "at '/operator/replicas': maximum: got 4, want 3"),
        ("operater.replicas=1", "additional properties 'operater' not allowed"),
        ("operator.logLevel=loud", "at '/operator/logLevel': value must be one of 'debug'"),
        ("image.pullPolicy=Sometimes", "at '/image/pullPolicy': value must be one of 'Always'"),
        ("image.repository=", "at '/image/repository': minLength: got 0, want 1"),
        ("injector.enabled=maybe", "at '/injector/enabled': got string, want boolean"),
        ("injector.timeoutSeconds=60", "at '/injector/timeoutSeconds': maximum: got 60, want 30"),
        ("sidecar.resources.memoryLimit=lots", "'lots' does not match pattern"),
        ("prometheus.allowedUrls={ftp://a}", "'ftp://a' does not match pattern"),
        ("injector.certificate.source=magic", "value must be one of 'generated'"),
        ("injector.certificate.source=secret", "write the name of your TLS Secret"),
        (
            "injector.certificate.source=secret,injector.certificate.secretName=mine",
            "write the PEM text of your CA into injector.certificate.caBundle",
        ),
    ],
)
def test_a_bad_value_is_refused_with_its_place(
    cluster: Cluster, setting: str, message: str
) -> None:
    said = cluster.helm("template", RELEASE, CHART, "--set", setting, check=False)
    assert message in said


def test_the_chart_lints(cluster: Cluster) -> None:
    cluster.helm("lint", "--strict", CHART)


def test_parts_can_be_left_out(cluster: Cluster) -> None:
    assert {"MutatingWebhookConfiguration", "CustomResourceDefinition", "ClusterRole"} <= kinds(
        rendered(cluster)
    )
    assert not {"MutatingWebhookConfiguration", "Secret"} & kinds(
        rendered(cluster, "injector.enabled=false")
    )
    assert "CustomResourceDefinition" not in kinds(rendered(cluster, "crds.install=false"))
    without = rendered(cluster, "rbac.create=false")
    hooks = [d for d in without if "helm.sh/hook" in d["metadata"].get("annotations", {})]
    assert "ClusterRole" not in kinds([d for d in without if d not in hooks])


def test_a_second_replica_is_spread_and_guarded(cluster: Cluster) -> None:
    def pods(*settings: str) -> tuple[Object, set[str]]:
        documents = rendered(cluster, *settings)
        (found,) = [
            d for d in documents if d["kind"] == "Deployment" and d["metadata"]["name"] == OPERATOR
        ]
        return found["spec"]["template"]["spec"], kinds(documents)

    one, without = pods()
    two, beside = pods("operator.replicas=2")
    assert "--leader-elect" in one["containers"][0]["args"]
    assert beside - without == {"PodDisruptionBudget"}
    assert "topologySpreadConstraints" not in one
    (spread,) = two["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"  # a cluster may have one node


def test_templates_are_patched_only_where_somebody_asked_for_it(cluster: Cluster) -> None:
    def rules(*settings: str) -> list[Any]:
        roles = [d for d in rendered(cluster, *settings) if d["kind"] == "ClusterRole"]
        return [rule for role in roles for rule in role["rules"]]

    rule = {
        "apiGroups": ["apps"],
        "resources": ["deployments", "statefulsets"],
        "verbs": ["patch"],
    }
    assert rule not in rules()
    assert rule in rules("rbac.variants=true")


def test_cert_manager_can_make_the_certificate(cluster: Cluster) -> None:
    documents = rendered(cluster, "injector.certificate.source=certManager")
    assert {"Issuer", "Certificate"} <= kinds(documents)
    assert "Secret" not in kinds(documents)
    (webhook,) = [d for d in documents if d["kind"] == "MutatingWebhookConfiguration"]
    assert webhook["metadata"]["annotations"]["cert-manager.io/inject-ca-from"] == (
        f"{SYSTEM}/{INJECTOR}"
    )
    assert "caBundle" not in webhook["webhooks"][0]["clientConfig"]


def test_the_webhook_fails_open(cluster: Cluster) -> None:
    (document,) = [d for d in rendered(cluster) if d["kind"] == "MutatingWebhookConfiguration"]
    (webhook,) = document["webhooks"]
    assert webhook["failurePolicy"] == "Ignore"
    assert webhook["timeoutSeconds"] <= 5
    assert webhook["objectSelector"] == {"matchLabels": {"bottleneck.dev/inject": "true"}}


def test_every_pod_is_restricted_and_has_a_token_only_to_use_it(cluster: Cluster) -> None:
    """The restricted profile, and beyond it a root file system that nobody writes to."""
    found = [d for d in rendered(cluster) if "template" in d.get("spec", {})]
    assert {d["metadata"]["name"] for d in found} == {OPERATOR, INJECTOR, f"{OPERATOR}-release"}
    for document in found:
        spec = document["spec"]["template"]["spec"]
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
        volumes = [set(volume) - {"name"} for volume in spec.get("volumes", [])]
        assert all(kinds <= {"secret", "emptyDir"} for kinds in volumes)
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert not {"privileged", "procMount"} & set(own)
            assert not any("hostPort" in port for port in container.get("ports", []))
            assert "memory" in container["resources"]["limits"]
        # Each of the three asks the API server, by an account of its own.
        assert spec["serviceAccountName"] == document["metadata"]["name"]
        assert spec.get("automountServiceAccountToken", True)


def test_no_role_has_a_wildcard_and_people_may_only_approve(cluster: Cluster) -> None:
    roles = {d["metadata"]["name"]: d for d in rendered(cluster) if d["kind"] == "ClusterRole"}
    for role in roles.values():
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
    # A report is an instruction: whoever could write one could have the operator act.
    for part in ("edit", "view"):
        (role,) = [r for name, r in roles.items() if name.endswith(f".{part}")]
        for rule in role["rules"]:
            if "bottleneckreports" in rule["resources"]:
                assert set(rule["verbs"]) <= {"get", "list", "watch", "patch"}
            assert not any(resource.endswith("/status") for resource in rule["resources"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ((), None),
        (("prometheus.allowedUrls={http://a.b:9090,https://c/d}",), "http://a.b:9090 https://c/d"),
    ],
)
def test_the_prometheus_servers_that_policies_may_name(
    cluster: Cluster, settings: tuple[str, ...], told: str | None
) -> None:
    (operator,) = [
        d
        for d in rendered(cluster, *settings)
        if d["kind"] == "Deployment" and d["metadata"]["name"] == OPERATOR
    ]
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert env.get("BOTTLENECK_PROMETHEUS_URLS") == told


# --- the running release -------------------------------------------------------------------------


def pod(name: str, *, inject: bool) -> str:
    """A pod that a restricted namespace accepts."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {"bottleneck.dev/inject": "true"} if inject else {},
            },
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 1000,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "main",
                        "image": "bottleneck/pause:dev",
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }
                ],
            },
        }
    )


@pytest.fixture
def started(cluster: Cluster, namespace: str) -> Callable[..., Object]:
    """Creates a pod in a restricted namespace, waits until it is ready and gives it."""
    cluster.kubectl("label", "namespace", namespace, RESTRICTED)

    def started(name: str, *, inject: bool) -> Object:
        here = ("--namespace", namespace)
        injectors = get(cluster, "--namespace", SYSTEM, "deployment", INJECTOR)
        if injectors["spec"]["replicas"]:
            wait_for_agent(cluster, namespace)
        cluster.kubectl(*here, "create", "-f", "-", input=pod(name, inject=inject))
        cluster.kubectl(*here, "wait", "--for=condition=Ready", "--timeout=120s", f"pod/{name}")
        return get(cluster, *here, "pod", name)

    return started


def wait_for_agent(cluster: Cluster, namespace: str, memory: str = "") -> None:
    """Until a pod would get the sidecar (with that memory limit): kube-proxy hears of a new webhook
    a moment after it is ready."""
    asked = ("--namespace", namespace, "create", "--dry-run=server", "-o", "json", "-f", "-")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        would = json.loads(cluster.kubectl(*asked, input=pod("probe", inject=True)))
        for container in would["spec"].get("initContainers", []):
            if memory in ("", container["resources"]["limits"]["memory"]):
                return
        time.sleep(0.2)
    pytest.fail(f"no pod got the sidecar {memory}")


def sidecars(found: Object) -> list[str]:
    return [container["name"] for container in found["spec"].get("initContainers", [])]


@pytest.mark.usefixtures("release")
def test_both_deployments_run_under_the_restricted_profile(cluster: Cluster) -> None:
    for name in (OPERATOR, INJECTOR):
        cluster.kubectl(
            *("--namespace", SYSTEM, "rollout", "status", f"deployment/{name}", "--timeout=60s")
        )


@pytest.mark.usefixtures("release")
def test_only_a_pod_that_asks_gets_the_sidecar(started: Callable[..., Object]) -> None:
    assert sidecars(started("asks", inject=True)) == ["bottleneck-agent"]
    assert sidecars(started("silent", inject=False)) == []


SIZED = {
    "apiVersion": "bottleneck.dev/v1alpha1",
    "kind": "BottleneckPolicy",
    "metadata": {"name": "sized"},
    "spec": {
        "mode": "Observe",
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "sized"},
        "objectives": {"goodput": {"min": "1"}},
    },
}
KEPT = {
    "apiVersion": "bottleneck.dev/v1alpha1",
    "kind": "BottleneckReport",
    "metadata": {"name": "sized-1", "labels": {"bottleneck.dev/policy": "sized"}},
    "spec": {
        "policy": "sized",
        "target": SIZED["spec"]["targetRef"],  # type: ignore[index]
        "breachedAt": "2026-01-01T00:00:00Z",
        "decidedAt": "2026-01-01T00:00:00Z",
        "symptom": {
            "objective": "Goodput",
            "text": "slow",
            "evidence": {"signal": "s", "window": "15s", "statistic": "mean", "value": 1},
        },
        "metric": {"name": "goodput", "unit": "samples/s"},
        "action": {
            "type": "Resources",
            "summary": "main: cpu limit 50m → 70m",
            "cause": "cpu-throttled",
            "resources": {
                "container": "main",
                "desired": {"cpuRequest": "10m", "cpuLimit": "70m"},
                "replaces": {"cpuRequest": "10m", "cpuLimit": "50m"},
            },
        },
    },
}
"""The record of a resize that helped, as the operator writes it."""


@pytest.mark.usefixtures("release")
def test_a_pod_that_comes_later_is_created_with_the_size_that_was_kept(
    cluster: Cluster, namespace: str
) -> None:
    here = ("--namespace", namespace)
    wait_for_agent(cluster, namespace)
    cluster.kubectl(*here, "apply", "-f", "-", input=json.dumps(SIZED))
    owner = {
        **{key: SIZED[key] for key in ("apiVersion", "kind")},
        "name": "sized",
        "uid": get(cluster, *here, "bnp", "sized")["metadata"]["uid"],
    }
    metadata = {**KEPT["metadata"], "ownerReferences": [owner]}  # type: ignore[dict-item]
    cluster.kubectl(*here, "apply", "-f", "-", input=json.dumps({**KEPT, "metadata": metadata}))
    kept = json.dumps({"status": {"phase": "Kept"}})
    cluster.kubectl(
        *(*here, "patch", "bnr", "sized-1", "--subresource=status", "--type=merge", "-p", kept)
    )
    shown = "jsonpath={.status.sizes[*].desired.cpuLimit}=70m"
    cluster.kubectl(*here, "wait", f"--for={shown}", "bnp/sized", "--timeout=60s")

    template = json.loads(pod("sized", inject=True))
    labels = {"app": "sized", "bottleneck.dev/inject": "true"}
    (main,) = template["spec"]["containers"]
    main["resources"] = {"requests": {"cpu": "10m"}, "limits": {"cpu": "50m"}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "sized"},
        "spec": {
            "selector": {"matchLabels": {"app": "sized"}},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
        },
    }
    cluster.kubectl(*here, "apply", "-f", "-", input=json.dumps(deployment))
    cluster.kubectl(*here, "wait", "--for=create", "pod", "--selector=app=sized", "--timeout=60s")
    (found,) = get(cluster, *here, "pods", "--selector=app=sized")["items"]
    assert found["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "70m"
    # The template is as its author wrote it: nothing else restarts.
    written = get(cluster, *here, "deployment", "sized")["spec"]["template"]["spec"]
    assert written["containers"][0]["resources"]["limits"]["cpu"] == "50m"


@pytest.mark.usefixtures("release")
def test_without_its_webhook_a_pod_starts_all_the_same(
    cluster: Cluster, started: Callable[..., Object]
) -> None:
    here = ("--namespace", SYSTEM)
    selector = "--selector=app.kubernetes.io/component=injector"
    cluster.kubectl(*here, "scale", f"deployment/{INJECTOR}", "--replicas=0")
    cluster.kubectl(*here, "wait", "--for=delete", "pod", selector, "--timeout=60s")
    try:
        found = started("asks", inject=True)
        assert sidecars(found) == []
    finally:
        cluster.kubectl(*here, "scale", f"deployment/{INJECTOR}", "--replicas=1")
        cluster.kubectl(*here, "rollout", "status", f"deployment/{INJECTOR}", "--timeout=120s")


@pytest.mark.usefixtures("release")
def test_an_upgrade_changes_what_it_is_told_and_keeps_the_certificate(
    cluster: Cluster, namespace: str, started: Callable[..., Object]
) -> None:
    def state() -> tuple[Object, str]:
        secret = get(cluster, "--namespace", SYSTEM, "secret", f"{INJECTOR}-tls")["data"]
        name = f"{SYSTEM}.{OPERATOR}"
        webhook = get(cluster, "mutatingwebhookconfiguration", name)["webhooks"][0]
        return secret, webhook["clientConfig"]["caBundle"]

    before = state()
    install(cluster, "--set", "sidecar.resources.memoryLimit=80Mi")
    assert state() == before
    assert state()[1] == before[0]["ca.crt"]
    wait_for_agent(cluster, namespace, memory="80Mi")
    agent = started("asks", inject=True)["spec"]["initContainers"][0]
    assert agent["resources"]["limits"]["memory"] == "80Mi"


@pytest.mark.usefixtures("release")
def test_an_upgrade_brings_the_crds_along(cluster: Cluster, tmp_path: Path) -> None:
    older = tmp_path / "chart"
    shutil.copytree(CHART, older)
    crd = older / "templates" / "crds" / "bottleneck.dev_bottleneckpolicies.yaml"
    crd.write_text(crd.read_text().replace("- name: Verdict", "- name: Outcome"))

    def columns() -> set[str]:
        found = get(cluster, "crd", "bottleneckpolicies.bottleneck.dev")
        return {c["name"] for c in found["spec"]["versions"][0]["additionalPrinterColumns"]}

    install(cluster, chart=str(older))
    assert "Outcome" in columns()
    install(cluster)
    assert "Verdict" in columns()


def allowed(cluster: Cluster, account: str, *question: str) -> bool:
    who = f"--as=system:serviceaccount:{SYSTEM}:{account}"
    said = cluster.kubectl("auth", "can-i", *question, who, "--all-namespaces", check=False)
    return said.split()[-1] == "yes"


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize(
    "question",
    [
        "get secrets",
        "list configmaps",
        "create pods",
        "delete pods",
        "create pods/exec",
        "patch deployments.apps",
        "update deployments.apps",
        "delete deployments.apps",
        "delete jobs.batch",
        "create jobs.batch",
        "delete horizontalpodautoscalers.autoscaling",
        "create horizontalpodautoscalers.autoscaling",
        "create bottleneckpolicies.bottleneck.dev",
        "delete bottleneckpolicies.bottleneck.dev",
        "update replicasets.apps",
        "watch events",
        "delete events",
        "patch events",
        "get bottleneckpolicies.bottleneck.dev",
        "patch bottleneckreports.bottleneck.dev",
        "update bottleneckpolicies.bottleneck.dev/finalizers",
        "patch nodes",
        "create clusterrolebindings.rbac.authorization.k8s.io",
        "impersonate users",
        "* *",
    ],
)
def test_nobody_has_rights_that_the_loop_does_not_need(cluster: Cluster, question: str) -> None:
    assert not allowed(cluster, OPERATOR, *question.split())
    assert not allowed(cluster, INJECTOR, *question.split())


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize(
    "question",
    [
        "list replicasets.apps",
        "list controllerrevisions.apps",
        "list events",
        "list pods",
        "list horizontalpodautoscalers.autoscaling",
    ],
)
def test_the_operator_may_ask_what_is_wrong(cluster: Cluster, question: str) -> None:
    assert allowed(cluster, OPERATOR, *question.split())
    assert not allowed(cluster, INJECTOR, *question.split())


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize(
    "question", ["patch jobs.batch", "patch horizontalpodautoscalers.autoscaling"]
)
def test_the_operator_may_set_what_a_policy_can_allow(cluster: Cluster, question: str) -> None:
    assert allowed(cluster, OPERATOR, *question.split())
    assert not allowed(cluster, INJECTOR, *question.split())


def policy(name: str) -> str:
    """A policy for a workload of the same name, which does not exist."""
    return json.dumps(
        {
            "apiVersion": "bottleneck.dev/v1alpha1",
            "kind": "BottleneckPolicy",
            "metadata": {"name": name},
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "objectives": {"latency": {"target": "250ms"}},
            },
        }
    )


def seen(cluster: Cluster, namespace: str, name: str) -> None:
    """Waits until the operator has said that the policy's target is missing."""
    reason = '{.status.conditions[?(@.type=="Ready")].reason}'
    cluster.kubectl(
        *("--namespace", namespace, "wait", f"bottleneckpolicy/{name}", "--timeout=120s"),
        f"--for=jsonpath={reason}=TargetNotFound",
    )


@pytest.mark.usefixtures("release")
def test_the_operator_does_its_work_with_the_rights_it_has(
    cluster: Cluster, namespace: str
) -> None:
    cluster.kubectl("--namespace", namespace, "create", "-f", "-", input=policy("lonely"))
    seen(cluster, namespace, "lonely")
    cluster.kubectl("--namespace", namespace, "delete", "bottleneckpolicy", "lonely")
    log = cluster.kubectl("--namespace", SYSTEM, "logs", f"deployment/{OPERATOR}")
    assert "forbidden" not in log.lower()
    assert "not enough permissions" not in log.lower()


@pytest.mark.usefixtures("release")
def test_uninstall_leaves_only_the_policies_and_a_reinstall_finds_them(
    cluster: Cluster, namespace: str
) -> None:
    here = ("--namespace", namespace)
    for name in ("kept", "deleted"):
        cluster.kubectl(*here, "create", "-f", "-", input=policy(name))
        seen(cluster, namespace, name)

    cluster.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout=180s")

    mine = f"--selector=app.kubernetes.io/instance={RELEASE}"
    everywhere = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations"
    assert cluster.kubectl("get", everywhere, mine, "-o", "name").split() == []
    inside = "deployments,replicasets,services,secrets,serviceaccounts,jobs,endpointslices,leases"
    left = cluster.kubectl("--namespace", SYSTEM, "get", inside, "-o", "name").split()
    assert left == ["serviceaccount/default"]
    assert cluster.kubectl("get", "crd", "bottleneckreports.bottleneck.dev")

    # Nobody is there to take a finalizer off: the policy can be deleted all the same.
    cluster.kubectl(*here, "delete", "bottleneckpolicy", "deleted", "--timeout=30s")
    before = get(cluster, *here, "bottleneckpolicy", "kept")

    install(cluster)
    after = get(cluster, *here, "bottleneckpolicy", "kept")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"] == before["spec"]
    # The new operator does its work, too.
    cluster.kubectl(*here, "create", "-f", "-", input=policy("new"))
    seen(cluster, namespace, "new")
