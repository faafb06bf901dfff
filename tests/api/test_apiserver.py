"""The CRDs in a real API server: what it refuses, with which words, and what it fills in."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from bottleneck_operator.api.policy import BottleneckPolicy
from bottleneck_operator.api.policy_status import PolicyStatus
from bottleneck_operator.api.report import BottleneckReport, ReportStatus
from bottleneck_operator.api.signals import SIGNALS

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds")]

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "crds"

Object = dict[str, Any]


class Cluster(Protocol):
    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str: ...


def policy(**spec: Any) -> Object:
    """A good policy, with parts of its spec replaced; ``None`` takes a part away."""
    whole = {
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker"},
        "objectives": {"latency": {"target": "250ms"}},
    } | spec
    return {
        "apiVersion": "bottleneck.dev/v1alpha1",
        "kind": "BottleneckPolicy",
        "metadata": {"name": "ranker"},
        "spec": {key: value for key, value in whole.items() if value is not None},
    }


def prometheus(**parts: Any) -> Object:
    """A good policy that names a Prometheus server."""
    server = {"url": "http://prometheus.monitoring:9090"} | parts
    return policy(telemetry={"prometheus": server})


def target(**parts: str) -> Object:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker"} | parts


def variant(**parts: str | None) -> Object:
    """A good variant, with parts replaced; ``None`` takes a part away."""
    whole = {"name": "int8", "image": "registry.example:5000/ranker:int8", "accuracyLoss": "0.4%"}
    return {key: value for key, value in (whole | parts).items() if value is not None}


def report(**action: Any) -> Object:
    """A good report of an action that adds a replica."""
    evidence = {"signal": "latency", "window": "15s", "statistic": "p95", "value": 0.4}
    return {
        "apiVersion": "bottleneck.dev/v1alpha1",
        "kind": "BottleneckReport",
        "metadata": {"name": "ranker-1", "labels": {"bottleneck.dev/policy": "ranker"}},
        "spec": {
            "policy": "ranker",
            "target": target(),
            "breachedAt": "2026-01-31T12:00:00Z",
            "decidedAt": "2026-01-31T12:00:01Z",
            "symptom": {"objective": "latency", "text": "too slow", "evidence": evidence},
            "metric": {"name": "latency p95", "unit": "s", "lowerIsBetter": True},
            "action": {
                "type": "Replicas",
                "summary": "replicas 1 → 2",
                "cause": "queueing",
                "replicas": {"desired": 2, "replaces": 1},
            }
            | action,
        },
    }


@pytest.fixture
def create(cluster: Cluster, namespace: str) -> Callable[[Object], Object]:
    """Creates an object in the test's namespace and gives it as the API server made it."""

    def create(document: Object) -> Object:
        arguments = ("-n", namespace, "create", "-f", "-", "-o", "json")
        made: Object = json.loads(cluster.kubectl(*arguments, input=json.dumps(document)))
        return made

    return create


@pytest.fixture
def refused(cluster: Cluster, namespace: str) -> Callable[[Object], str]:
    """Tries to create an object and gives the words with which it is refused."""

    def refused(document: Object) -> str:
        arguments = ("-n", namespace, "create", "-f", "-")
        return cluster.kubectl(*arguments, input=json.dumps(document), check=False)

    return refused


Create = Callable[[Object], Object]
Refused = Callable[[Object], str]


INVALID: dict[str, tuple[Object, str]] = {
    "no objective": (
        policy(objectives={}),
        "spec.objectives: Invalid value: write at least one objective: latency or errorRate",
    ),
    "objectives left out": (policy(objectives=None), "spec.objectives: Required value"),
    "no target": (policy(targetRef=None), "spec.targetRef: Required value"),
    "target without a name": (
        policy(targetRef={"apiVersion": "apps/v1", "kind": "Deployment"}),
        "spec.targetRef.name: Required value",
    ),
    "group without a version": (
        policy(targetRef=target(apiVersion="apps")),
        "spec.targetRef.apiVersion: Invalid value: write the group and version of the workload,"
        " such as apps/v1",
    ),
    "plural in place of the kind": (
        policy(targetRef=target(kind="deployments")),
        "spec.targetRef.kind: Invalid value: write the kind in the singular, such as Deployment",
    ),
    "a name that no object has": (
        policy(targetRef=target(name="Ranker_1")),
        "spec.targetRef.name: Invalid value: write the name of an object: lower-case letters",
    ),
    "a duration without a unit": (
        policy(objectives={"latency": {"target": "250"}}),
        'spec.objectives.latency.target: Invalid value: "250": write a duration with its unit'
        ' (ms, s, m or h), such as "250ms"',
    ),
    "a duration that is a number": (
        policy(objectives={"latency": {"target": 250}}),
        "spec.objectives.latency.target in body must be of type string",
    ),
    "a latency of nothing": (
        policy(objectives={"latency": {"target": "0s"}}),
        "spec.objectives.latency.target: Invalid value: write a duration longer than zero",
    ),
    "a duration beyond all bounds": (
        policy(objectives={"latency": {"target": "99999999999999999h"}}),
        "spec.objectives.latency",
    ),
    "a percentile that is none": (
        policy(objectives={"latency": {"target": "1s", "percentile": 100}}),
        "spec.objectives.latency.percentile in body should be less than or equal to 99",
    ),
    "a share without its sign": (
        policy(objectives={"errorRate": {"max": "0.01"}}),
        'spec.objectives.errorRate.max: Invalid value: "0.01": write a percentage from 0 to 100,'
        ' such as "1%"',
    ),
    "a share of more than all": (
        policy(objectives={"dataWait": {"max": "120%"}}),
        'spec.objectives.dataWait.max: Invalid value: "120%": write a percentage from 0 to 100',
    ),
    "a regression without its sign": (
        policy(objectives={"stepTime": {"maxRegression": "20"}}),
        'spec.objectives.stepTime.maxRegression: Invalid value: "20": write a percentage',
    ),
    "a utilization without bounds": (
        policy(objectives={"utilization": {"device": "GPU"}}),
        "spec.objectives.utilization: Invalid value: write min, max or both, as whole percent",
    ),
    "a utilization upside down": (
        policy(objectives={"utilization": {"device": "GPU", "min": 90, "max": 40}}),
        "spec.objectives.utilization.min: Invalid value: write a min that is below max",
    ),
    "a utilization of what there is not": (
        policy(objectives={"utilization": {"device": "TPU", "min": 40}}),
        'spec.objectives.utilization.device: Unsupported value: "TPU"',
    ),
    "a figure with a unit": (
        policy(objectives={"goodput": {"min": "500/s"}}),
        'spec.objectives.goodput.min: Invalid value: "500/s": write a number above zero in quotes,'
        " without a unit",
    ),
    "a figure of nothing": (
        policy(objectives={"goodput": {"min": "0"}}),
        'spec.objectives.goodput.min: Invalid value: "0": write a number above zero',
    ),
    "an objective that does not exist": (
        policy(objectives={"latency": {"target": "1s"}, "throughput": {"min": "1"}}),
        'unknown field "spec.objectives.throughput"',
    ),
    "min above max": (
        policy(actions={"replicas": {"min": 4, "max": 2}}),
        "spec.actions.replicas.min: Invalid value: write a min that is not above max",
    ),
    "growth without its bounds": (
        policy(actions={"batchSize": {"max": 64, "globalBatch": "Grow"}}),
        "spec.actions.batchSize: Invalid value: write maxGlobal (samples of an optimizer step, over"
        " all ranks) and learningRate",
    ),
    "bounds of growth without growth": (
        policy(actions={"batchSize": {"max": 64, "maxGlobal": 4096}}),
        "spec.actions.batchSize: Invalid value: write globalBatch: Grow beside maxGlobal and"
        " learningRate, or remove both",
    ),
    "a learning rate rule that is none": (
        policy(
            actions={
                "batchSize": {
                    "max": 64,
                    "globalBatch": "Grow",
                    "maxGlobal": 4096,
                    "learningRate": "Cubic",
                }
            }
        ),
        'spec.actions.batchSize.learningRate: Unsupported value: "Cubic"',
    ),
    "growth to less than one batch": (
        policy(
            actions={
                "batchSize": {
                    "min": 16,
                    "max": 64,
                    "globalBatch": "Grow",
                    "maxGlobal": 8,
                    "learningRate": "Linear",
                }
            }
        ),
        "spec.actions.batchSize.maxGlobal: Invalid value: write a maxGlobal that is not below min",
    ),
    "less than nothing": (
        policy(actions={"replicas": {"min": -1, "max": 2}}),
        "spec.actions.replicas.min in body should be greater than or equal to 0",
    ),
    "idle for no time": (
        policy(actions={"replicas": {"min": 0, "max": 2, "idle": "5s"}}),
        'spec.actions.replicas.idle: Invalid value: write an idle of at least "10s"',
    ),
    "idle without a unit": (
        policy(actions={"replicas": {"min": 0, "max": 2, "idle": "300"}}),
        'spec.actions.replicas.idle: Invalid value: "300": write a duration with its unit',
    ),
    "no upper bound": (
        policy(actions={"replicas": {"min": 1}}),
        "spec.actions.replicas.max: Required value",
    ),
    "a worker group of a Deployment": (
        policy(actions={"replicas": {"max": 2, "group": "gpu"}}),
        "spec.actions: Invalid value: only a RayCluster or RayService has worker groups:"
        " remove actions.replicas.group",
    ),
    "another way with an autoscaler": (
        policy(actions={"replicas": {"max": 2, "hpa": "Delete"}}),
        'spec.actions.replicas.hpa: Unsupported value: "Delete": supported values: "Respect",'
        ' "AdjustBounds"',
    ),
    "replicas of a DaemonSet": (
        policy(
            targetRef=target(kind="DaemonSet"),
            objectives={"goodput": {"min": "500"}},
            actions={"replicas": {"max": 2}},
        ),
        "spec.actions: Invalid value: a workload of this kind has no number of replicas to change:"
        " remove actions.replicas",
    ),
    "too many workers": (
        policy(actions={"dataLoader": {"maxWorkers": 65}}),
        "spec.actions.dataLoader.maxWorkers in body should be less than or equal to 64",
    ),
    "a batch upside down": (
        policy(actions={"batchSize": {"min": 64, "max": 8}}),
        "spec.actions.batchSize.min: Invalid value: write a min that is not above max",
    ),
    "a format that nobody knows": (
        policy(actions={"precision": {"allowed": ["fp8"]}}),
        'spec.actions.precision.allowed[0]: Unsupported value: "fp8": supported values: "bf16",'
        ' "fp16"',
    ),
    "no format at all": (
        policy(actions={"precision": {"allowed": []}}),
        "spec.actions.precision.allowed in body should have at least 1 items",
    ),
    "the same format twice": (
        policy(actions={"precision": {"allowed": ["bf16", "bf16"]}}),
        'spec.actions.precision.allowed[1]: Duplicate value: "bf16"',
    ),
    "resources of nothing": (
        policy(actions={"resources": {"container": "main"}}),
        "spec.actions.resources: Invalid value: write cpu, memory or both",
    ),
    "memory in words": (
        policy(actions={"resources": {"memory": {"max": "8 GB"}}}),
        'spec.actions.resources.memory.max: Invalid value: "8 GB": write a quantity above zero',
    ),
    "a CPU of nothing": (
        policy(actions={"resources": {"cpu": {"max": "0"}}}),
        'spec.actions.resources.cpu.max: Invalid value: "0": write a quantity above zero',
    ),
    "a variant whose image moves": (
        policy(actions={"variants": [variant(image="registry.example/ranker:latest")]}),
        "spec.actions.variants[0].image: Invalid value: write the image with its digest",
    ),
    "a variant without tag": (
        policy(actions={"variants": [variant(image="registry.example:5000/ranker")]}),
        "spec.actions.variants[0].image: Invalid value: write the image with its digest",
    ),
    "a variant with half a digest": (
        policy(actions={"variants": [variant(image="ranker@sha256:0123")]}),
        "spec.actions.variants[0].image: Invalid value: write the image with its digest",
    ),
    "a variant that nobody measured": (
        policy(actions={"variants": [variant(accuracyLoss=None)]}),
        "spec.actions.variants[0].accuracyLoss: Required value",
    ),
    "a variant's loss in points": (
        policy(actions={"variants": [variant(accuracyLoss="0.4")]}),
        'spec.actions.variants[0].accuracyLoss: Invalid value: "0.4": write a percentage',
    ),
    "a variant named in capitals": (
        policy(actions={"variants": [variant(name="INT8")]}),
        "spec.actions.variants[0].name: Invalid value: write a name of lower-case letters",
    ),
    "two variants of one name": (
        policy(actions={"variants": [variant(), variant(image="ranker:pruned")]}),
        "spec.actions.variants: Invalid value: write another name for one of the variants",
    ),
    "no variant at all": (
        policy(actions={"variants": []}),
        "spec.actions.variants in body should have at least 1 items",
    ),
    "a variant of a Job": (
        policy(
            targetRef=target(apiVersion="batch/v1", kind="Job"),
            actions={"variants": [variant()]},
        ),
        "spec.actions: Invalid value: a variant needs a rolling update that can be held at one"
        " pod: remove actions.variants",
    ),
    "a budget in points": (
        policy(limits={"accuracyLoss": "1"}),
        'spec.limits.accuracyLoss: Invalid value: "1": write a percentage',
    ),
    "means that nobody knows": (
        policy(limits={"disruption": "Restart"}),
        'spec.limits.disruption: Unsupported value: "Restart": supported values: "HotOnly",'
        ' "InPlace"',
    ),
    "a mode in lower case": (
        policy(mode="auto"),
        'spec.mode: Unsupported value: "auto": supported values: "Observe", "Recommend", "Auto"',
    ),
    "a cooldown in words": (
        policy(limits={"cooldown": "1 minute"}),
        'spec.limits.cooldown: Invalid value: "1 minute": write a duration with its unit',
    ),
    "no action in an hour": (
        policy(limits={"actionsPerHour": 0}),
        "spec.limits.actionsPerHour in body should be greater than or equal to 1",
    ),
    "an address without its scheme": (
        policy(telemetry={"prometheus": {"url": "prometheus:9090"}}),
        'spec.telemetry.prometheus.url: Invalid value: "prometheus:9090": write the address of the'
        " Prometheus server with http:// or https://",
    ),
    "a password in an address": (
        policy(telemetry={"prometheus": {"url": "http://me:secret@prometheus:9090"}}),
        "spec.telemetry.prometheus.url: Invalid value",
    ),
    "a signal that nobody knows": (
        prometheus(queries={"inference.latencyP95": "up"}),
        "spec.telemetry.prometheus.queries: Invalid value: write the name of a signal, such as"
        " inference.latency (docs/signals.md lists them), or begin a name of your own with custom.",
    ),
    "a fact that the API server knows better": (
        prometheus(queries={"replicas.desired": "up"}),
        "spec.telemetry.prometheus.queries: Invalid value: write the name of a signal",
    ),
    "a query of nothing": (
        prometheus(queries={"custom.depth": " "}),
        "write a PromQL expression, such as",
    ),
    "a label with a dash": (
        prometheus(selector={"my-label": "x"}),
        "spec.telemetry.prometheus.selector: Invalid value: write names of Prometheus labels",
    ),
    "an interval without a unit": (
        prometheus(interval="15"),
        'spec.telemetry.prometheus.interval: Invalid value: "15": write a duration with its unit',
    ),
    "an interval of nothing": (
        prometheus(interval="10ms"),
        "spec.telemetry.prometheus.interval: Invalid value: write an interval from",
    ),
    "a pool with a name that no object has": (
        policy(capacity={"pool": "GPU_A100"}),
        "spec.capacity.pool: Invalid value: write the name of a pool: lower-case letters, digits"
        " and '-', such as gpu-a100",
    ),
    "a place in no pool": (policy(capacity={"priority": 5}), "spec.capacity.pool: Required value"),
    "a priority below all": (
        policy(capacity={"pool": "gpus", "priority": -1}),
        "spec.capacity.priority in body should be greater than or equal to 0",
    ),
    "a pool of what may not be scaled": (
        policy(capacity={"pool": "gpus"}, actions={"dataLoader": {"maxWorkers": 4}}),
        "spec.capacity: Invalid value: policies of a pool give and take replicas: add actions:"
        " {replicas: {min: 1, max: 4}}, or remove capacity",
    ),
    "a name too long for a label": (
        policy() | {"metadata": {"name": "a" * 64}},
        "write a metadata.name of at most 63 characters",
    ),
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_policy_is_refused_with_words_that_help(refused: Refused, case: str) -> None:
    document, message = INVALID[case]
    assert message in refused(document)


def test_the_policies_of_the_documentation_are_accepted(cluster: Cluster, namespace: str) -> None:
    text = (ROOT / "docs" / "policy.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        cluster.kubectl("-n", namespace, "create", "-f", "-", input=block)


def test_the_policies_of_the_page_about_pools_are_accepted(
    cluster: Cluster, namespace: str
) -> None:
    text = (ROOT / "docs" / "pools.md").read_text()
    blocks = re.findall(r"^```yaml\n(apiVersion.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        cluster.kubectl("-n", namespace, "create", "-f", "-", input=block)


def test_the_policy_of_the_page_about_variants_is_accepted(create: Create) -> None:
    text = (ROOT / "docs" / "variants.md").read_text()
    (page,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    made = create(yaml.safe_load(page))["spec"]
    assert made["actions"]["variants"][0]["accuracyLoss"] == "0.4%"
    assert made["limits"]["accuracyLoss"] == "1%"


def test_the_policy_of_the_page_about_prometheus_is_accepted(create: Create) -> None:
    text = (ROOT / "docs" / "prometheus.md").read_text()
    (page,) = re.findall(r"^```yaml\n(apiVersion.*?)^```$", text, re.MULTILINE | re.DOTALL)
    made = create(yaml.safe_load(page))["spec"]["telemetry"]["prometheus"]
    assert made == {"url": "http://prometheus-server.monitoring:80", "interval": "15s"}


def test_every_signal_may_have_a_query(create: Create) -> None:
    names = [*SIGNALS, "custom.depth", "custom.feed.depth", "inference.dependency.feature-store"]
    for number, start in enumerate(range(0, len(names), 32)):
        queries = dict.fromkeys(names[start : start + 32], "x" * 4096)
        document = prometheus(queries=queries, selector={"cluster": 'a"b'})
        document["metadata"]["name"] = f"ranker-{number}"
        made = BottleneckPolicy.model_validate(create(document))
        assert made.spec.telemetry is not None
        assert made.spec.telemetry.prometheus is not None
        assert made.spec.telemetry.prometheus.queries == queries


def test_defaults_are_filled_in(create: Create) -> None:
    made = create(policy(actions={"replicas": {"max": 8}, "dataLoader": {"maxWorkers": 8}}))
    assert made["spec"] == {
        "targetRef": target(),
        "mode": "Recommend",
        "objectives": {"latency": {"percentile": 95, "target": "250ms"}},
        "actions": {
            "replicas": {
                "min": 1,
                "max": 8,
                "idle": "5m",
                "group": "",
                "hpa": "Respect",
                "stabilization": "10m",
            },
            "dataLoader": {
                "maxWorkers": 8,
                "maxPrefetch": 4,
                "persistentWorkers": False,
                "pinMemory": False,
            },
        },
        "limits": {"cooldown": "60s", "actionsPerHour": 10, "disruption": "InPlace"},
        "reports": {"keep": 30, "maxAge": "720h"},
        "paused": False,
    }
    assert "status" not in made


def test_the_models_have_the_same_defaults(create: Create) -> None:
    document = policy()
    made = BottleneckPolicy.model_validate(create(document))
    assert made.spec == BottleneckPolicy.model_validate(document).spec


def test_a_target_cannot_be_changed(cluster: Cluster, namespace: str, create: Create) -> None:
    create(policy())
    patch = json.dumps({"spec": {"targetRef": {"name": "other"}}})
    arguments = ("-n", namespace, "patch", "bnp", "ranker", "--type=merge", "-p")
    said = cluster.kubectl(*arguments, patch, check=False)
    assert "targetRef cannot be changed: create a new policy for the other workload" in said
    cluster.kubectl(*arguments, json.dumps({"spec": {"mode": "Auto"}}))


def test_the_spec_of_a_report_cannot_be_changed(
    cluster: Cluster, namespace: str, create: Create
) -> None:
    create(report())
    arguments = ("-n", namespace, "patch", "bnr", "ranker-1", "--type=merge", "-p")
    for patch in ({"before": [1.0]}, {"action": None}, {"action": {"replicas": {"desired": 9}}}):
        said = cluster.kubectl(*arguments, json.dumps({"spec": patch}), check=False)
        assert "record of an intent and cannot be changed" in said
    annotation = {"metadata": {"annotations": {"bottleneck.dev/approved": "true"}}}
    cluster.kubectl(*arguments, json.dumps(annotation))


@pytest.mark.parametrize(
    "changes",
    [
        {"knobs": {"generation": 1, "desired": {}, "replaces": {}}},
        {"replicas": None},
    ],
    ids=["both", "neither"],
)
def test_an_action_is_exactly_one_change(refused: Refused, changes: Object) -> None:
    document = report(**changes)
    action = document["spec"]["action"]
    document["spec"]["action"] = {key: value for key, value in action.items() if value is not None}
    said = "write exactly one change: knobs, replicas, resources, image or hpa"
    assert said in refused(document)


def status_of_a_policy() -> Object:
    """A status with every field set."""
    time = "2026-01-31T12:00:00Z"
    return PolicyStatus.model_validate(
        {
            "observedGeneration": 1,
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Accepted",
                    "message": "",
                    "lastTransitionTime": time,
                    "observedGeneration": 1,
                }
            ],
            "replicas": 2,
            "streaming": 2,
            "objectives": [
                {"name": "latency p95", "current": "412 ms", "target": "250 ms", "met": False}
            ],
            "bottleneck": {"id": "queueing", "title": "Requests queue", "share": 0.61},
            "why": "Requests wait for a free worker.",
            "knobs": {"generation": 3, "desired": {"dataLoader.workers": 2}, "acknowledged": 3},
            "lastAction": {
                "report": "ranker-1",
                "summary": "replicas 1 → 2",
                "verdict": "Improved",
                "time": time,
            },
            "nextReport": 2,
        }
    ).dump()


def write_status(cluster: Cluster, namespace: str, name: str, status: Object) -> None:
    patch = json.dumps({"status": status})
    arguments = ("-n", namespace, "patch", *name.split("/"), "--subresource=status")
    cluster.kubectl(*arguments, "--type=merge", "-p", patch)


def read(cluster: Cluster, namespace: str, name: str) -> Object:
    found: Object = json.loads(cluster.kubectl("-n", namespace, "get", name, "-o", "json"))
    return found


def test_a_policy_survives_the_way_there_and_back(
    cluster: Cluster, namespace: str, create: Create
) -> None:
    create(policy(actions={"replicas": {"max": 8}}))
    status = status_of_a_policy()
    write_status(cluster, namespace, "bnp/ranker", status)
    found = read(cluster, namespace, "bnp/ranker")
    assert found["status"] == status
    model = BottleneckPolicy.model_validate(found)
    assert model.spec.dump() == found["spec"]
    assert model.status.dump() == status


def test_a_report_survives_the_way_there_and_back(
    cluster: Cluster, namespace: str, create: Create
) -> None:
    whole = BottleneckReport.model_validate(
        report(prediction={"before": 0.4, "after": 0.2, "basis": "half of the requests each"})
    )
    create(report() | {"spec": whole.dump()["spec"]})
    told = {
        "phase": "Kept",
        "appliedAt": "2026-01-31T12:00:02Z",
        "judgedAt": "2026-01-31T12:01:00Z",
        "after": [0.2, 0.21],
        "verdict": {
            "result": "Improved",
            "before": 0.4,
            "after": 0.2,
            "effect": -0.5,
            "interval": [-0.55, -0.45],
            "pValue": 0.0001,
            "bins": [10, 10],
            "control": False,
            "reason": "",
        },
        "timeline": [{"time": "2026-01-31T12:00:02Z", "what": "Applied", "message": ""}],
        "next": "",
    }
    status = ReportStatus.model_validate(told).dump()
    write_status(cluster, namespace, "bnr/ranker-1", status)
    found = read(cluster, namespace, "bnr/ranker-1")
    model = BottleneckReport.model_validate(found)
    assert model.spec == whole.spec
    assert model.dump()["spec"] == found["spec"]
    assert model.status.dump() == status


def test_spec_and_status_are_written_apart(
    cluster: Cluster, namespace: str, create: Create
) -> None:
    document = policy()
    document["status"] = status_of_a_policy()
    assert "status" not in create(document)
    changed = copy.deepcopy(document)
    changed["spec"]["paused"] = True
    cluster.kubectl("-n", namespace, "apply", "-f", "-", input=json.dumps(changed))
    assert "status" not in read(cluster, namespace, "bnp/ranker")
    patch = json.dumps({"spec": {"paused": False}, "status": {"why": "Because."}})
    arguments = ("-n", namespace, "patch", "bnp", "ranker", "--subresource=status")
    cluster.kubectl(*arguments, "--type=merge", "-p", patch)
    found = read(cluster, namespace, "bnp/ranker")
    assert found["spec"]["paused"] is True
    assert found["status"] == {"why": "Because."}


def table(text: str) -> list[dict[str, str]]:
    """kubectl's table by column, cut where the headings begin."""
    heading, *rows = text.rstrip("\n").split("\n")
    starts = [
        index
        for index, letter in enumerate(heading)
        if letter != " " and (index == 0 or heading[index - 1] == " ")
    ]
    ends = [*starts[1:], None]
    columns = [
        (heading[start:end].strip(), start, end) for start, end in zip(starts, ends, strict=True)
    ]
    return [{name: row[start:end].strip() for name, start, end in columns} for row in rows]


def test_kubectl_get_answers_the_first_question(
    cluster: Cluster, namespace: str, create: Create
) -> None:
    create(policy())
    write_status(cluster, namespace, "bnp/ranker", status_of_a_policy())
    (row,) = table(cluster.kubectl("-n", namespace, "get", "bnp"))
    assert row.pop("AGE")
    assert row == {
        "NAME": "ranker",
        "TARGET": "ranker",
        "MODE": "Recommend",
        "BOTTLENECK": "queueing",
        "ACTION": "replicas 1 → 2",
        "VERDICT": "Improved",
    }
    (row,) = table(cluster.kubectl("-n", namespace, "get", "bottleneckpolicies", "-o", "wide"))
    assert row["KIND"] == "Deployment"
    assert (row["OBJECTIVE"], row["CURRENT"], row["WANTED"]) == ("latency p95", "412 ms", "250 ms")
    assert row["KNOBS"] == '{"dataLoader.workers":2}'


def test_kubectl_get_shows_what_became_of_an_action(
    cluster: Cluster, namespace: str, create: Create
) -> None:
    create(report())
    status = {"phase": "Kept", "verdict": {"result": "Improved", "effect": -0.5}}
    write_status(cluster, namespace, "bnr/ranker-1", status)
    (row,) = table(cluster.kubectl("-n", namespace, "get", "bnr"))
    assert row.pop("AGE")
    assert row == {
        "NAME": "ranker-1",
        "POLICY": "ranker",
        "PHASE": "Kept",
        "ACTION": "replicas 1 → 2",
        "VERDICT": "Improved",
        "EFFECT": "-0.5",
    }


def test_both_resources_are_in_one_category(
    cluster: Cluster, namespace: str, create: Create
) -> None:
    create(policy())
    create(report())
    names = cluster.kubectl("-n", namespace, "get", "bottleneck", "-o", "name").split()
    assert names == [
        "bottleneckpolicy.bottleneck.dev/ranker",
        "bottleneckreport.bottleneck.dev/ranker-1",
    ]


def test_kubectl_explains_a_field(cluster: Cluster) -> None:
    said = cluster.kubectl("explain", "bnp.spec.objectives.latency.target")
    assert "250ms" in said
