"""``explain``: one look at a running workload, what was done about it, and what a report holds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from .conftest import GROUP, Said, StandIn, line, pod, policy
from .documents import starved

Run = Callable[..., Said]
Object = dict[str, Any]


def condition(kind: str, status: str, reason: str, message: str) -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-31T12:00:00Z",
    }


def report(name: str = "trainer-1", **changes: Any) -> Object:
    """A report of an action that was kept, with the diagnosis at its time."""
    kept = ("causes", "ruledOut", "whys", "runnerUp", "fishbone", "faultTree", "symptom")
    return {
        "apiVersion": "bottleneck.dev/v1alpha1",
        "kind": "BottleneckReport",
        "metadata": {"name": name, "namespace": "ml", "labels": {"bottleneck.dev/policy": "p"}},
        "spec": {
            "policy": "trainer",
            "target": {"apiVersion": "batch/v1", "kind": "Job", "name": "trainer"},
            "breachedAt": "2026-01-31T12:00:00Z",
            "decidedAt": "2026-01-31T12:00:03Z",
            "metric": {"name": "goodput", "unit": "samples/s"},
            "before": [355.0],
            "action": {
                "type": "DataLoader",
                "summary": "dataLoader.workers 0 → 2",
                "cause": "loader-without-workers",
                "knobs": {
                    "generation": 1,
                    "desired": {"dataLoader.workers": 2},
                    "replaces": {"dataLoader.workers": 0},
                },
                "prediction": {"before": 355, "after": 551, "basis": "loading then overlaps"},
            },
            **{key: value for key, value in starved().items() if key in kept},
        },
        "status": {
            "phase": "Kept",
            "next": "compute-bound",
            "verdict": {
                "result": "Improved",
                "before": 355,
                "after": 540,
                "effect": 0.52,
                "interval": [0.41, 0.63],
                "bins": [20, 18],
            },
            "timeline": [
                {"time": "2026-01-31T12:00:03Z", "what": "Planned"},
                {"time": "2026-01-31T12:01:00Z", "what": "ActionKept", "message": "it helped"},
            ],
        },
    } | changes


@pytest.fixture
def world(api: StandIn) -> StandIn:
    """A starved trainer with its policy and two reports, the older of which is not the last."""
    api.pods(pod("trainer-0"))
    limited = condition("Limited", "True", "ActionsPerHour", "10 actions in the last hour")
    ready = condition("Ready", "True", "Accepted", "looks after Job/trainer")
    api.policies(policy() | {"status": {"conditions": [ready, limited]}})
    older = copy.deepcopy(report("trainer-1"))
    older["spec"]["decidedAt"] = "2026-01-30T12:00:00Z"
    older["spec"]["action"]["summary"] = "an older action"
    api.reports(report("trainer-2"), older)
    api.streams["trainer-0"] = lambda n: line("trainer-0", n)
    api.interval = 0.5
    return api


def test_it_tells_what_is_wrong_what_was_done_and_what_is_refused(world: StandIn, run: Run) -> None:
    said = run("explain", "trainer", "-n", "ml", "--seconds", "8")
    assert said.code == 0, said.err
    for wanted in (
        "Policy trainer (Job/trainer in namespace ml) · 8 s of telemetry of 1 of 1 pods",
        "Waiting for input is 80%, over its objective of at most 20%",
        "loader-without-workers (data-loading / Data)",
        "dataLoader.workers",
        "DataWait 80%, wanted ≤ 20%: missed",
        "2026-01-31 12:00:03 UTC trainer-2: dataLoader.workers 0 → 2, against"
        " loader-without-workers.",
        "Predicted goodput: 355 samples/s → 551 samples/s (loading then overlaps).",
        "Measured: 355 samples/s → 540 samples/s, +52% (95% interval +41% to +63%), 20 figures",
        "Verdict: Improved, so it was kept.",
        "What limits it now: compute-bound",
        "ActionsPerHour: 10 actions in the last hour.",
    ):
        assert wanted in " ".join(said.out.split()), said.out
    assert "an older action" not in said.out
    assert "looks after" not in said.out, "what is well is not told"
    assert "\x1b" not in said.out


def test_json_has_the_diagnosis_at_the_top_and_the_rest_beside_it(world: StandIn, run: Run) -> None:
    said = run("explain", "trainer", "-n", "ml", "--seconds", "8", "-o", "json")
    document = said.json
    assert document["causes"][0]["id"] == "loader-without-workers"
    assert {"symptom", "ruledOut", "whys", "runnerUp", "fishbone", "faultTree"} <= set(document)
    assert document["lastReport"]["name"] == "trainer-2"
    assert document["lastReport"]["status"]["verdict"]["result"] == "Improved"
    assert document["target"]["name"] == "trainer"
    assert document["conditions"][1]["reason"] == "ActionsPerHour"


def test_a_report_is_shown_as_it_was_without_listening(world: StandIn, run: Run) -> None:
    said = run("explain", "--report", "trainer-2", "-n", "ml")
    assert said.code == 0, said.err
    for wanted in (
        "Report trainer-2 of Job/trainer in namespace ml · as it was at 2026-01-31 12:00:03 UTC",
        "Removing it would return about 63% of the step.",
        "cpu-throttled (cpu / Infrastructure)",
        "✘ drift:",
        "✔ AND loader-without-workers",
        "Verdict: Improved, so it was kept.",
        "2026-01-31 12:01:00 UTC ActionKept: it helped",
    ):
        assert wanted in said.out, said.out
    assert not [path for path in world.asked if "proxy" in path]


@pytest.mark.parametrize(("aim", "said"), [("Save", "less should do"), ("Wake", "somebody waited")])
def test_an_action_that_no_cause_asked_for_says_what_it_was_for(
    world: StandIn, run: Run, aim: str, said: str
) -> None:
    rest = report("trainer-2")
    rest["spec"]["action"]["aim"] = aim
    rest["spec"] = {key: value for key, value in rest["spec"].items() if key != "causes"}
    world.reports(rest)
    shown = " ".join(run("explain", "--report", "trainer-2", "-n", "ml").out.split())
    assert said in shown
    assert "No known cause" not in shown


@pytest.mark.parametrize("picture", ["all", "fishbone", "fault-tree", "whys"])
def test_a_report_is_drawn(world: StandIn, run: Run, picture: str) -> None:
    said = run("explain", "--report", "trainer-2", "-n", "ml", "-o", "svg", "--picture", picture)
    assert said.code == 0
    assert ElementTree.fromstring(said.out).tag.endswith("svg")  # noqa: S314


def test_a_report_becomes_a_page_and_a_document(world: StandIn, run: Run) -> None:
    page = run("explain", "--report", "trainer-2", "-n", "ml", "-o", "html").out
    assert page.startswith("<!DOCTYPE html>")
    assert "dataLoader.workers 0 → 2, against loader-without-workers." in page
    document = run("explain", "--report", "trainer-2", "-n", "ml", "-o", "json").json
    assert [each | {"explainedBy": ""} for each in starved()["causes"]] == document["causes"]
    assert document["action"]["knobs"]["desired"] == {"dataLoader.workers": 2}


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        ({"phase": "Recommended"}, "kubectl bottleneck approve trainer-2 -n ml"),
        ({"phase": "Verifying"}, "It is under way (Verifying)."),
        (
            {"phase": "Abandoned", "timeline": [{"time": "2026-01-31T12:00:00Z", "what": "x",
             "message": "the target is gone"}]},
            "There is no verdict: it was given up (the target is gone).",
        ),
        (
            {"phase": "Reverted", "verdict": {"result": "NoData", "reason": "all pods were new"}},
            "Verdict: NoData, so it was taken back (all pods were new).",
        ),
    ],
)  # fmt: skip
def test_it_tells_how_far_an_action_has_got(
    world: StandIn, run: Run, status: Object, wanted: str
) -> None:
    world.reports(report("trainer-2", status=status))
    assert wanted in run("explain", "--report", "trainer-2", "-n", "ml").out


def test_a_report_tells_of_the_trade_that_it_is_in(world: StandIn, run: Run) -> None:
    traded = report("trainer-4")
    traded["spec"]["trade"] = {
        "pool": "gpus",
        "role": "Gives",
        "policy": "ranker",
        "devices": 1,
        "resource": "nvidia.com/gpu",
        "ready": 2,
        "reason": "gives 1 of 4 replicas (1 nvidia.com/gpu) to ranker",
    }
    world.reports(traded)
    text = run("explain", "--report", "trainer-4", "-n", "ml").out
    assert "Trade in pool gpus: gives 1 of 4 replicas (1 nvidia.com/gpu) to ranker." in " ".join(
        text.split()
    )


def test_an_observed_report_tells_what_it_refused(world: StandIn, run: Run) -> None:
    observed = report("trainer-3", status={"phase": "Observed"})
    observed["spec"]["refusal"] = "the policy has no action against it"
    del observed["spec"]["action"]
    world.reports(observed)
    text = run("explain", "--report", "trainer-3", "-n", "ml").out
    assert "the policy has no action against it" in text
    assert "What the operator did" not in text


CANNOT_GET = (
    'bottleneckpolicies.bottleneck.dev "trainer" is forbidden: User "jo" cannot get resource'
    ' "bottleneckpolicies" in API group "bottleneck.dev" in the namespace "ml"'
)


@pytest.mark.parametrize(
    ("name", "objects", "message"),
    [
        ("trainr", {}, "there is no policy trainr in namespace ml; did you mean trainer?"),
        (
            "quite-another",
            {},
            "there is no policy quite-another in namespace ml; there are trainer",
        ),
        (
            "ranker",
            {
                f"{GROUP}/bottleneckpolicies": {
                    "items": [{"metadata": {"name": "ranker", "namespace": "prod"}}]
                }
            },
            "there is no policy ranker in namespace ml, but in prod: add -n prod",
        ),
        (
            "trainer",
            {f"{GROUP}/namespaces/ml/bottleneckpolicies/trainer": (403, CANNOT_GET)},
            "it needs the verb get on bottleneck.dev/bottleneckpolicies in namespace ml",
        ),
        (
            "trainer",
            {
                f"{GROUP}/namespaces/ml/bottleneckpolicies": (404, "not found"),
                f"{GROUP}/namespaces/ml/bottleneckpolicies/trainer": (404, "not found"),
            },
            "this cluster does not know BottleneckPolicies; install the operator first",
        ),
        (
            "trainer",
            {"/apis/batch/v1/namespaces/ml/jobs/trainer": (404, "not found")},
            "Job/trainer does not exist in namespace ml",
        ),
        (
            "trainer",
            {f"{GROUP}/namespaces/ml/bottleneckpolicies/trainer": policy(mode="Sometimes")},
            "policy trainer was written by another version (spec.mode:",
        ),
        (
            "trainer",
            {"/api/v1/namespaces/ml/pods": {"items": []}},
            "Job/trainer has no running pod",
        ),
    ],
)
def test_what_cannot_be_explained_is_said_in_a_sentence(
    world: StandIn, run: Run, name: str, objects: Object, message: str
) -> None:
    world.objects |= objects
    said = run("explain", name, "-n", "ml", "--seconds", "1")
    assert said.code == 1
    assert said.out == ""
    assert message in said.err
    assert said.err.startswith("kubectl bottleneck explain: ")
    assert said.err.count("\n") == 1


def test_a_report_that_is_not_there_suggests_the_nearest(world: StandIn, run: Run) -> None:
    said = run("explain", "--report", "trainer-22", "-n", "ml")
    assert (said.code, "did you mean trainer-2?" in said.err) == (1, True)


def test_policy_and_report_exclude_each_other(run: Run) -> None:
    assert run("explain").code == 2
    assert run("explain", "trainer", "--report", "trainer-1").code == 2


def test_a_workload_that_finds_no_node_is_explained_without_telemetry(
    world: StandIn, run: Run
) -> None:
    waiting = pod("trainer-0", phase="Pending")
    waiting["status"]["conditions"] = [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
            "lastTransitionTime": "2026-01-31T12:00:00Z",
        }
    ]
    world.pods(waiting)
    said = run("explain", "trainer", "-n", "ml", "--seconds", "1")
    assert said.code == 0, said.err
    text = " ".join(said.out.split())
    assert "no telemetry, only what the API server tells" in text
    assert "unschedulable (capacity / Infrastructure)" in text
    assert "Insufficient nvidia.com/gpu" in text
    assert "Job/trainer has no running pod" in text


def test_what_is_usual_comes_from_the_policy(world: StandIn, run: Run) -> None:
    learnt = {
        "signal": "training.stepSeconds",
        "load": "32 samples × 1 ranks, 0 workers",
        "median": 0.1,
        "spread": 0.001,
        "count": 100,
        "since": "2026-01-01T00:00:00Z",
        "updatedAt": "2026-01-31T12:00:00Z",
    }
    objectives = {"stepTime": {"maxRegression": "20%"}}
    known = policy(objectives=objectives) | {"status": {"baselines": [learnt]}}
    world.policies(known)
    document = run("explain", "trainer", "-n", "ml", "--seconds", "8", "-o", "json").json
    assert document["symptom"]["objective"] == "StepTime"
    assert document["symptom"]["evidence"]["value"] == pytest.approx(5, rel=0.2)


def test_what_only_the_operator_can_see_is_told_in_its_words(world: StandIn, run: Run) -> None:
    world.pods(pod("trainer-0", injected=False))
    telemetry = {"prometheus": {"url": "http://prometheus.monitoring:9090"}}
    seen = {
        "bottleneck": {"id": "queueing", "title": "Requests queue", "share": 0.6},
        "why": "Latency p95 is 900 ms. Because requests wait",
    }
    world.policies(policy(telemetry=telemetry) | {"status": seen})
    said = run("explain", "trainer", "-n", "ml", "--seconds", "1")
    assert said.code == 0, said.err
    text = " ".join(said.out.split())
    assert "It cannot be told what is wrong." in text
    assert "Requests queue (queueing, 60%). Latency p95 is 900 ms." in text
    assert "What Prometheus at http://prometheus.monitoring:9090 has is not in this look." in text


def test_of_too_many_pods_some_are_listened_to(world: StandIn, run: Run) -> None:
    world.pods(*(pod(f"trainer-{number}") for number in range(3)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bottleneck_operator.cli.tap.MOST_PODS", 1)
        said = run("explain", "trainer", "-n", "ml", "--seconds", "8")
    assert said.code == 0, said.err
    assert "8 s of telemetry of 1 of 1 pods" in said.out
    assert "only the first 1 of 3 pods are listened to" in " ".join(said.out.split())
