"""Facts of the cluster, from API objects as they really look."""

from __future__ import annotations

from typing import Any

import pytest
from bottleneck_operator.observe.changes import (
    Change,
    Revision,
    difference,
    newest_change,
    precedes,
    revisions_of,
)
from bottleneck_operator.observe.documents import TEXT_LENGTH, clean, seconds_of
from bottleneck_operator.observe.facts import (
    Answers,
    ClusterFacts,
    Moments,
    Refused,
    Topic,
    facts_of,
)
from bottleneck_operator.observe.inquiry import newest_refusal
from bottleneck_operator.observe.observation import NoData, Reading
from bottleneck_operator.observe.pods import Pod, PodStore, pod_of
from bottleneck_operator.observe.troubles import Trouble, trouble_of
from bottleneck_operator.observe.workload import Workload, touch_of, workload_of
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, NOW
from .objects import (
    QUOTA,
    SCHEDULER,
    at,
    container,
    controller_revision,
    deployment,
    ended,
    failed_create,
    job,
    looping,
    managed,
    pod,
    replica_set,
    running,
    template,
    unschedulable,
)

RANKER = workload_of(deployment(), 2)


def facts(
    *pods: dict[str, Any],
    workload: Workload = RANKER,
    answers: Answers | None = None,
    **moments: float,
) -> ClusterFacts:
    known = [pod_of(each) for each in pods]
    return facts_of(workload, 2, known, answers or Answers(), Moments(now=NOW, **moments))


def value(found: ClusterFacts, name: str) -> float | None:
    """A fact's figure; None without data."""
    signal = found.signals[name]
    return signal.value if isinstance(signal, Reading) else None


# -- words of others -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0/1 nodes", "0/1 nodes"),
        ("two\nlines\tand  gaps ", "two lines and gaps"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("turned \u202eround", "turned round"),
        ("", ""),
        (None, ""),
        (5, ""),
        ("x" * 10_000_000, "x" * (TEXT_LENGTH - 1) + "…"),
    ],
    ids=["plain", "white space", "escapes", "bidi", "empty", "absent", "no text", "endless"],
)
def test_words_of_others_are_made_safe_and_short(text: object, shown: str) -> None:
    assert clean(text) == shown


@CASES
@given(st.text())
def test_no_control_character_and_no_length_survives(text: str) -> None:
    shown = clean(text)
    assert len(shown) <= TEXT_LENGTH
    assert shown.isprintable()
    assert clean(shown) == shown


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        (at(0), NOW),
        ("2027-01-15T08:00:00.500000Z", 1_800_000_000.5),
        ("2027-01-15T10:00:00+02:00", NOW),
        ("2027-01-15T08:00:00", NOW),
        ("soon", None),
        (None, None),
        (5, None),
    ],
)
def test_moments(moment: object, seconds: float | None) -> None:
    assert seconds_of(moment) == seconds


# -- pods ------------------------------------------------------------------------------------------


def test_of_a_healthy_pod_nothing_is_kept() -> None:
    assert trouble_of(pod()) is None
    young = {"reason": "ContainerCreating"}
    assert (
        trouble_of(pod(containerStatuses=[{"name": "main", "state": {"waiting": young}}])) is None
    )
    gated = [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]
    assert trouble_of(pod(phase="Pending", conditions=gated, containerStatuses=[])) is None


def test_healthy_pods_give_zeros_and_no_words() -> None:
    found = facts(pod("a"), pod("b"))
    names = ("unschedulable", "unschedulableSeconds", "oomKilled", "restarts", "crashLooping")
    assert {value(found, f"pods.{name}") for name in (*names, "notReady")} == {0}
    assert value(found, "replicas.desired") == 2
    assert [key for key in found.texts if key != "pods.unpinnedImage"] == []


def test_a_pod_that_no_node_takes_is_counted_with_the_schedulers_words() -> None:
    found = facts(unschedulable("ranker-1", since=-40), unschedulable("ranker-0"), pod("ranker-2"))
    assert value(found, "pods.unschedulable") == 2
    assert value(found, "pods.unschedulableSeconds") == 90
    assert value(found, "pods.notReady") == 2
    words = found.texts["pods.unschedulable"]
    assert words == f"ranker-1: {SCHEDULER}"


def test_a_pod_that_is_being_deleted_waits_for_no_node() -> None:
    going = unschedulable()
    going["metadata"]["deletionTimestamp"] = at(-1)
    found = facts(going)
    assert (value(found, "pods.unschedulable"), value(found, "pods.notReady")) == (0, 0)


@pytest.mark.parametrize(
    ("status", "oom", "restarts", "loops", "unready"),
    [
        (looping(), 1, 4, 1, 1),
        (pod(containerStatuses=[running("main", 1, ended(-100))]), 1, 1, 0, 0),
        (pod(containerStatuses=[running("main", 9, ended(-601))]), 0, 0, 0, 0),
        (pod(containerStatuses=[running("main", 9, ended(-100, "Error", 1))]), 0, 1, 0, 0),
        (pod(created=-50, containerStatuses=[running("main", 3, ended(-9))]), 1, 3, 0, 0),
        (
            pod(
                containerStatuses=[running("a", 1, ended(-9)), running("b", 1, ended(-8))],
                created=-50,
            ),
            *(2, 2, 0, 0),
        ),
        (
            pod(
                phase="Failed",
                conditions=[],
                containerStatuses=[
                    {"name": "main", "restartCount": 0, "state": {"terminated": ended(-60)}}
                ],
            ),
            *(1, 1, 0, 0),
        ),
        (
            pod(
                phase="Succeeded",
                conditions=[],
                containerStatuses=[
                    {
                        "name": "main",
                        "restartCount": 0,
                        "state": {"terminated": ended(-60, "Completed", 0)},
                    }
                ],
            ),
            *(0, 0, 0, 0),
        ),
        (pod(initContainerStatuses=[running("bottleneck-agent", 5, ended(-9))]), 0, 0, 0, 0),
        (pod(initContainerStatuses=[running("migrate", 1, ended(-9))]), 1, 1, 0, 0),
    ],
    ids=[
        "killed in a loop",
        "killed once, long after its start",
        "killed too long ago",
        "crashed, not killed",
        "a young pod: every restart is recent",
        "two containers",
        "a Job's pod that is not started again",
        "a Job's pod that has done its work",
        "the sidecar is not the workload",
        "an init container",
    ],
)
def test_ends_of_containers(
    status: dict[str, Any], oom: int, restarts: int, loops: int, unready: int
) -> None:
    found = facts(status)
    names = ("oomKilled", "restarts", "crashLooping", "notReady")
    assert [value(found, f"pods.{name}") for name in names] == [oom, restarts, loops, unready]
    assert ("pods.oomKilled" in found.texts) is bool(oom)


def test_words_about_an_end_name_the_container_its_limit_and_the_moment() -> None:
    words = facts(looping()).texts
    assert words["pods.oomKilled"] == (
        "ranker-0: container main was ended by the kernel for its memory (OOMKilled), end 4, at "
        "2027-01-15 07:59:45Z; its memory limit is 2Gi"
    )
    assert words["pods.crashLooping"].startswith("ranker-0: CrashLoopBackOff: back-off 40s")
    assert words["pods.restarts"].endswith("OOMKilled, exit code 137")
    assert words["pods.notReady"].startswith("ranker-0 (CrashLoopBackOff: back-off 40s")


def test_an_image_that_cannot_be_pulled_is_why_a_pod_is_not_ready() -> None:
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "ranker:v9"'}
    status = [{"name": "main", "restartCount": 0, "state": {"waiting": waiting}}]
    found = facts(pod(phase="Pending", conditions=[], containerStatuses=status))
    assert value(found, "pods.notReady") == 1
    assert 'Back-off pulling image "ranker:v9"' in found.texts["pods.notReady"]


def test_without_any_known_pod_nothing_is_said_of_pods_unless_none_is_wanted() -> None:
    assert isinstance(facts().signals["pods.oomKilled"], NoData)
    assert value(facts(workload=workload_of(deployment(0, 0), 0)), "pods.oomKilled") == 0
    asked = Answers(pods=(pod_of(unschedulable()),), asked=frozenset({Topic.PODS}))
    assert value(facts(answers=asked), "pods.unschedulable") == 1
    refused = Answers(failed={Topic.PODS: "the API server answered 500"})
    assert facts(answers=refused).signals["pods.oomKilled"] == NoData("the API server answered 500")


def _seen(*documents: dict[str, Any]) -> Pod:
    store = PodStore()
    for document in documents:
        store.update(document)
    (found,) = store.of("ml", {"matchLabels": {"app": "ranker"}})
    return found


def test_ends_that_the_pod_object_no_longer_shows_are_remembered() -> None:
    def life(restarts: int, last: float) -> dict[str, Any]:
        return pod(containerStatuses=[running("main", restarts, ended(last))])

    trouble = _seen(life(5, -900), life(6, -400), life(6, -400), life(8, -10)).trouble
    assert trouble is not None
    # Of the four ends in sight three are in the last ten minutes, one of them never shown.
    assert trouble.restarts(NOW) == 3
    recovered = _seen(life(6, -400), pod()).trouble
    assert recovered is not None
    assert recovered.restarts(NOW) == 1
    assert recovered.restarts(NOW + 700) == 0
    assert _seen(unschedulable("ranker-0"), pod("ranker-0")).trouble is None


def test_a_pod_that_restarts_for_years_is_kept_small() -> None:
    trouble = _seen(
        *(pod(containerStatuses=[running("main", n, ended(n - 500))]) for n in range(1, 400))
    ).trouble
    assert trouble is not None
    assert len(trouble.ends) == 12
    assert trouble.restarts(NOW) == 12


ODD: list[Any] = [
    {},
    {"status": None},
    {"status": {"conditions": "none", "containerStatuses": {"name": "main"}}},
    {"status": {"containerStatuses": [None, 5, {"state": 5, "lastState": {"terminated": []}}]}},
    {"metadata": 5, "status": {"containerStatuses": [{"lastState": {"terminated": {}}}]}},
]


@pytest.mark.parametrize("document", ODD)
def test_an_odd_pod_is_no_trouble(document: dict[str, Any]) -> None:
    assert trouble_of(document) is None


def test_a_trouble_without_ends_has_no_restarts() -> None:
    assert Trouble(unschedulable="no node").restarts(NOW) == 0


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workload", "answers", "count"),
    [
        (workload_of(deployment(2, 2), 2), Answers(), 0),
        (workload_of(deployment(3, 1), 3), Answers(), None),
        (workload_of(deployment(3, 1), 3), Answers(asked=frozenset({Topic.REFUSAL})), 0),
        (workload_of(deployment(3, 1), 3), Answers(refused=Refused(QUOTA)), 2),
        (workload_of(deployment(3, 1), 3), Answers(refused=Refused("violates PodSecurity")), 0),
        (workload_of(job(active=0)), Answers(refused=Refused(QUOTA)), 1),
    ],
    ids=["none missing", "not asked", "no such event", "by a quota", "by another", "a Job"],
)
def test_pods_that_a_quota_refused(workload: Workload, answers: Answers, count: int | None) -> None:
    found = facts(pod(), workload=workload, answers=answers)
    assert value(found, "pods.quotaRefused") == count
    assert found.texts.get("pods.quotaRefused") == (clean(QUOTA) if count else None)


def test_a_deployment_says_itself_what_its_pods_were_refused_for() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
    told = deployment(3, 3, status={"conditions": [{**failure, "message": QUOTA}]})
    found = facts(pod(), workload=workload_of(told, 3))
    # A rollout that may not go below its replicas lacks none, and is refused all the same.
    assert value(found, "pods.quotaRefused") == 1
    over = {**failure, "status": "False", "message": QUOTA}
    told = deployment(3, 3, status={"conditions": [over]})
    assert value(facts(pod(), workload=workload_of(told, 3)), "pods.quotaRefused") == 0


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], None),
        ([failed_create(-700)], None),
        ([failed_create(-30, "older"), failed_create(-10, "newer"), failed_create(-20)], "newer"),
        ([failed_create(0, lastTimestamp=None, eventTime=at(-5))], QUOTA),
        ([failed_create(-900, series={"lastObservedTime": at(-5)})], QUOTA),
        ([failed_create(0, lastTimestamp=None)], None),
    ],
    ids=["none", "too old", "the newest", "an event time", "a series", "without a time"],
)
def test_the_newest_refusal(events: list[Any], message: str | None) -> None:
    found = newest_refusal(events, NOW)
    assert (found.message if found else None) == (clean(message) if message else None)


@pytest.mark.parametrize(
    ("target", "replicas", "wanted", "missing"),
    [
        (deployment(3, 3), 3, 3, 0),
        (deployment(3, 1), 3, 3, 2),
        (deployment(3, 4), 3, 3, 0),
        (deployment(2, status={"replicas": None}), 2, 2, 2),
        (job(active=1), None, 1, 0),
        (job(active=0), None, 1, 1),
        (job(active=0, succeeded=1), None, 0, 0),
        (job(active=1, succeeded=2, parallelism=4, completions=5), None, 3, 2),
        (job(active=0, suspend=True), None, 0, 0),
        (job(active=2, parallelism=2, completions=None), None, 2, 0),
        ({"kind": "PyTorchJob", "spec": {}}, None, None, None),
    ],
)
def test_how_many_pods_are_wanted_and_how_many_of_them_do_not_exist(
    target: dict[str, Any], replicas: int | None, wanted: int | None, missing: int | None
) -> None:
    found = workload_of(target, replicas)
    assert (found.wanted, found.missing) == (wanted, missing)


def test_a_finished_job_wants_no_pod() -> None:
    over = job(active=0)
    over["status"]["conditions"] = [{"type": "Failed", "status": "True"}]
    assert (workload_of(over).wanted, workload_of(over).missing) == (0, 0)


# -- changes ---------------------------------------------------------------------------------------

ROLLED_OUT = [
    replica_set(2, -300),
    replica_set(1, -86400, container(image="registry.example/ranker:v1")),
    replica_set(9, -10, owner="uid-of-another"),
]


def change(target: dict[str, Any], revisions: list[dict[str, Any]] | None) -> Change | None:
    known = None if revisions is None else revisions_of(revisions, target["metadata"]["uid"])
    return newest_change("Deployment/ranker", workload_of(target), known)


def test_a_rollout_is_told_with_its_time_its_manager_and_what_it_changed() -> None:
    found = change(deployment(annotations={"kubernetes.io/change-cause": "v2"}), ROLLED_OUT)
    assert found is not None
    assert found.at == NOW - 300
    assert found.text == (
        "revision 2 of Deployment/ranker was rolled out at 2027-01-15 07:55:00Z; the template was "
        "last written by kubectl-client-side-apply; it changed the image of main "
        '(registry.example/ranker:v1 → registry.example/ranker:v2); its change-cause is "v2"'
    )


@pytest.mark.parametrize(
    ("target", "revisions", "expected", "words"),
    [
        (deployment(revision=1), [replica_set(1, -600)], -600, "was created"),
        (deployment(revision=3), [replica_set(3, -9000), replica_set(2, -400)], -300, "went back"),
        (
            deployment(revision=3, managedFields=[managed("helm", -900, "template")]),
            [replica_set(3, -9000), replica_set(2, -400)],
            *(None, ""),
        ),
        (deployment(revision=7), [replica_set(2, -300), replica_set(1, -500)], -300, "revision 2"),
        (deployment(), [], -300, "the pod template of"),
        (deployment(managedFields=None), None, -86400, "the pod template of"),
        (job(), None, -400, "written by kubectl-create"),
        ({"kind": "Odd", "metadata": {"uid": "u"}}, None, None, ""),
    ],
    ids=[
        "the first revision",
        "a rollback",
        "a rollback of which nobody knows when",
        "the newest revision is not there yet",
        "no revisions are kept",
        "nobody manages it",
        "a Job",
        "nothing is known",
    ],
)
def test_when_the_template_changed_last(
    target: dict[str, Any],
    revisions: list[dict[str, Any]] | None,
    expected: float | None,
    words: str,
) -> None:
    found = change(target, revisions)
    assert (found.at - NOW if found else None) == expected
    assert words in (found.text if found else "")


def test_a_stateful_set_has_controller_revisions() -> None:
    target = deployment(uid="uid-set", status={"updateRevision": "ranker-b"})
    revisions = [
        controller_revision("ranker-a", 1, -9000, container(args=["--threads", "1"])),
        controller_revision("ranker-b", 2, -300),
    ]
    found = change(target, revisions)
    assert found is not None
    assert found.at == NOW - 300
    assert "it changed args of main" in found.text


def test_neither_scaling_nor_a_status_is_a_change_of_the_template() -> None:
    fields = [
        managed("kubectl", -100, "template"),
        managed("bottleneck-operator", -20, "replicas", subresource="scale"),
        managed("horizontal-pod-autoscaler", -10, "replicas"),
        managed("kube-controller-manager", -5, "template", subresource="status"),
    ]
    found = touch_of({"managedFields": fields})
    assert found is not None
    assert (found.manager, found.at) == ("kubectl", NOW - 100)
    assert touch_of({"managedFields": fields[1:]}) is None


def test_a_manager_that_wrote_only_before_the_rollout_is_not_named() -> None:
    earlier = deployment(managedFields=[managed("helm", -900, "template")])
    found = change(earlier, ROLLED_OUT)
    assert found is not None
    assert "written by" not in found.text


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (template(), template(), []),
        (template(), template(container(image="b:2")), ["the image of main"]),
        (template(), template(container(env=[{"name": "TOKEN", "value": "new"}])), ["env of main"]),
        (template(), template(container(args=None)), ["args of main"]),
        (template(), template(container(), container(name="proxy")), ["container proxy (new)"]),
        (template(container(name="old")), template(), ["container main", "container old (removed"]),
        (template(), template(nodeSelector={"disk": "ssd"}), ["nodeSelector of the pod"]),
        (
            template(),
            {**template(), "metadata": {"labels": {"app": "ranker", "v": "2"}}},
            ["labels of the pod"],
        ),
        ({}, {}, []),
    ],
)
def test_what_differs_between_two_templates(old: Any, new: Any, expected: list[str]) -> None:
    found = difference(old, new)
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True))


def test_values_that_may_be_secret_are_never_shown() -> None:
    new = template(container(env=[{"name": "TOKEN", "value": "s3cret"}], args=["--key=s3cret"]))
    text = " ".join(difference(template(), new))
    assert "env of main" in text
    assert "s3cret" not in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("changed", "onset", "learnt", "suspected"),
    [
        (-300, -280, -900, True),
        (-300, -300, -900, True),
        (-300, -303, -900, True),
        (-300, -310, -900, False),
        (-900, -290, -2000, False),
        (-300, -280, -330, False),
        (-300, -280, -100, False),
    ],
    ids=[
        "just before",
        "at once",
        "clocks differ",
        "it was slow before",
        "long before",
        "hardly anything was learnt",
        "learnt only since",
    ],
)
def test_a_change_is_suspected_only_where_it_lies_between_the_usual_and_the_onset(
    changed: float, onset: float, learnt: float, suspected: bool
) -> None:
    assert precedes(NOW + changed, NOW + onset, NOW + learnt) is suspected


CHANGED = Answers(change=Change(NOW - 300, "v2 was rolled out"), asked=frozenset({Topic.CHANGE}))


@pytest.mark.parametrize(
    ("answers", "moments", "age", "precedes"),
    [
        (CHANGED, {"onset": NOW - 280, "learnt_since": NOW - 900}, 300, 1),
        (CHANGED, {"onset": NOW - 900, "learnt_since": NOW - 2000}, 300, 0),
        (CHANGED, {"learnt_since": NOW - 900}, 300, None),
        (CHANGED, {"onset": NOW - 280}, 300, None),
        (Answers(), {"onset": NOW - 280, "learnt_since": NOW - 900}, None, None),
        (Answers(asked=frozenset({Topic.CHANGE})), {"onset": NOW - 280}, None, None),
    ],
    ids=["suspected", "not suspected", "nothing is slow", "no baseline", "not asked", "untold"],
)
def test_facts_about_a_change(
    answers: Answers, moments: dict[str, float], age: float | None, precedes: float | None
) -> None:
    found = facts(pod(), answers=answers, **moments)
    assert (value(found, "change.ageSeconds"), value(found, "change.precedes")) == (age, precedes)
    assert found.texts.get("change.ageSeconds") == ("v2 was rolled out" if age else None)
    assert found.texts.get("change.precedes") == (None if precedes is None else "v2 was rolled out")


# -- what people left out --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("containers", "spec", "expected"),
    [
        ([container()], {}, (0, 0, 1, 0)),
        ([container(image="ranker@sha256:0f3c")], {}, (0, 0, 0, 0)),
        ([container(resources=None)], {}, (1, 1, 1, 0)),
        ([container(resources={"limits": {"cpu": "1", "memory": "1Gi"}})], {}, (0, 0, 1, 0)),
        ([container(resources={"requests": {"cpu": "1", "memory": "1Gi"}})], {}, (0, 1, 1, 0)),
        ([container(resources={"requests": {"cpu": "1"}})], {}, (1, 1, 1, 0)),
        (
            [container(resources=None)],
            {"resources": {"limits": {"cpu": "4", "memory": "8Gi"}}},
            (0, 0, 1, 0),
        ),
        ([container(readinessProbe=None)], {}, (0, 0, 1, 1)),
        ([container(), container(name="bottleneck-agent", resources=None)], {}, (0, 0, 1, 0)),
        ([container(name="a", resources=None), container(name="b")], {}, (1, 1, 2, 0)),
    ],
    ids=[
        "only the digest",
        "nothing",
        "no resources",
        "limits count as requests",
        "requests only",
        "half of the requests",
        "resources of the pod",
        "no probe",
        "the sidecar is not looked at",
        "two containers",
    ],
)
def test_what_a_template_lacks(
    containers: list[Any], spec: dict[str, Any], expected: tuple[int, ...]
) -> None:
    target = deployment()
    target["spec"]["template"] = template(*containers, **spec)
    found = facts(pod(), workload=workload_of(target, 2))
    names = ("withoutRequests", "withoutLimits", "unpinnedImage", "withoutProbe")
    assert tuple(value(found, f"pods.{name}") for name in names) == expected


def test_a_job_needs_no_probe_and_a_kind_without_a_template_lacks_nothing() -> None:
    found = facts(pod(), workload=workload_of(job()))
    assert "pods.withoutProbe" not in found.signals
    assert value(found, "pods.unpinnedImage") == 1
    assert found.texts["pods.unpinnedImage"] == "main: registry.example/ranker:v2"
    assert "pods.unpinnedImage" not in facts(pod(), workload=Workload()).signals


# -- replicas --------------------------------------------------------------------------------------


def test_whether_an_autoscaler_scales_it_is_known_only_when_it_was_asked() -> None:
    asked = Answers()
    assert isinstance(facts(pod()).signals["replicas.unowned"], NoData)
    assert value(facts(pod(), answers=asked.with_hpa(None)), "replicas.unowned") == 1
    owned = facts(pod(), answers=asked.with_hpa("ranker-hpa")).signals["replicas.unowned"]
    assert owned == NoData("HorizontalPodAutoscaler ranker-hpa scales it")


def test_a_revision_of_somebody_else_or_without_a_time_is_left_out() -> None:
    odd: list[Any] = [{}, {"metadata": {"creationTimestamp": at(0)}}, replica_set(1, 0, owner="x")]
    assert revisions_of(odd, "uid-deployment") == ()
    endless = replica_set(1, 0)
    endless["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "9" * 5000
    assert [each.number for each in revisions_of([endless], "uid-deployment")] == [0]
    assert Revision("1", 1, NOW).template == {}


@pytest.mark.parametrize(
    ("fields", "owner"),
    [
        ([managed("argocd-controller", -9, "replicas", "template")], "argocd-controller"),
        ([managed("kustomize-controller", -9, "replicas")], "kustomize-controller"),
        ([managed("argocd-controller", -9, "template")], ""),
        ([managed("argocd-controller", -9, "replicas", subresource="scale")], ""),
        ([managed("kubectl", -9, "replicas")], ""),
        ([{"manager": None, "fieldsV1": []}], ""),
    ],
    ids=["argo", "flux", "without replicas", "only the scale", "people", "nonsense"],
)
def test_who_writes_the_replicas_from_a_repository(fields: Any, owner: str) -> None:
    assert workload_of(deployment(managedFields=fields)).gitops == owner
