"""What the operator found for a workload, given to its pods as they are created."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from bottleneck_operator.inject import policies as policies_module
from bottleneck_operator.inject.kept import owner, policy_of, with_kept
from bottleneck_operator.inject.pod import InjectSettings
from bottleneck_operator.inject.policies import Policies
from bottleneck_operator.inject.review import review
from bottleneck_operator.kube import KubeError
from hypothesis import given
from hypothesis import strategies as st

Object = dict[str, Any]

SMALL = {"cpuRequest": "100m", "cpuLimit": "200m"}
LARGE = {"cpuRequest": "100m", "cpuLimit": "800m"}
OURS = {"requests": {"cpu": "100m"}, "limits": {"cpu": "0.2"}}


def pod(resources: Object | None = OURS, **owner: Any) -> Object:
    reference = {"kind": "ReplicaSet", "name": "ranker-5d9c", "controller": True, **owner}
    container: Object = {"name": "main", "image": "a"}
    if resources is not None:
        container["resources"] = resources
    return {
        "metadata": {
            "generateName": "ranker-5d9c-",
            "labels": {"pod-template-hash": "5d9c"},
            "ownerReferences": [reference],
        },
        "spec": {"containers": [container]},
    }


def policy(name: str = "ranker", **status: Any) -> Object:
    sizes = [{"container": "main", "desired": LARGE, "replaces": [SMALL]}]
    return {
        "apiVersion": "bottleneck.dev/v1alpha1",
        "kind": "BottleneckPolicy",
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker"},
            "objectives": {"goodput": {"min": "1"}},
        },
        "status": {"sizes": sizes, **status},
    }


def kept(given: Object, *policies: Object) -> Object:
    found = policy_of(given, policies)
    return given if found is None else with_kept(given, found)


def resources(given: Object) -> Any:
    return given["spec"]["containers"][0].get("resources")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pod(), ("Deployment", "ranker")),
        (pod(kind="StatefulSet", name="ranker"), ("StatefulSet", "ranker")),
        (pod(kind="ReplicaSet", name="made-by-hand"), ("ReplicaSet", "made-by-hand")),
        (pod(controller=False), None),
        ({"metadata": {}, "spec": {"containers": []}}, None),
    ],
)
def test_a_pod_tells_for_which_workload_it_is(given: Object, expected: object) -> None:
    assert owner(given) == expected


def test_a_new_pod_gets_the_size_that_was_found() -> None:
    assert resources(kept(pod(), policy())) == {
        "requests": {"cpu": "100m"},
        "limits": {"cpu": "800m"},
    }


@pytest.mark.parametrize(
    ("given", "policies"),
    [
        (pod(), []),
        (pod(kind="StatefulSet", name="ranker"), [policy()]),
        (pod(name="other-5d9c"), [policy()]),
        (pod({"limits": {"cpu": "3"}}), [policy()]),
        (pod(None), [policy()]),
        (pod(), [policy() | {"spec": {"targetRef": 7}}]),
        (pod(), [policy(sizes=[{"container": "other", "desired": LARGE, "replaces": [SMALL]}])]),
    ],
    ids=[
        "no policy",
        "another kind",
        "another name",
        "its author wrote another size",
        "its author wrote no size",
        "a policy that cannot be read",
        "another container",
    ],
)
def test_a_pod_stays_as_it_is(given: Object, policies: list[Object]) -> None:
    assert kept(given, *policies) == given


def test_what_else_a_container_asks_for_stays() -> None:
    more = {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "nvidia.com/gpu": 1}}
    found = resources(kept(pod({**more, "claims": [{"name": "x"}]}), policy()))
    assert found["limits"] == {"cpu": "800m", "nvidia.com/gpu": 1}
    assert found["claims"] == [{"name": "x"}]


def test_the_older_of_two_policies_counts_as_it_does_for_the_operator() -> None:
    younger = policy("a", sizes=[])
    younger["metadata"]["creationTimestamp"] = "2026-02-01T00:00:00Z"
    assert resources(kept(pod(), younger, policy()))["limits"] == {"cpu": "800m"}


def test_a_new_pod_begins_with_the_knobs_in_force() -> None:
    knobs = {"generation": 3, "desired": {"dataLoader.workers": 4}, "acknowledged": 2}
    annotations = kept(pod(), policy(knobs=knobs))["metadata"]["annotations"]
    assert json.loads(annotations["bottleneck.dev/knobs"]) == {
        "generation": 3,
        "dataLoader": {"workers": 4},
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_whatever_a_policy_says_the_pod_is_admitted(status: object) -> None:
    body = {"request": {"uid": "u", "namespace": "ml", "object": pod()}}
    broken = policy() | {"status": status}
    response = review(body, InjectSettings(image="sidecar:1"), [broken])["response"]
    assert response["allowed"] is True
    assert b"bottleneck-agent" in base64.b64decode(response["patch"])


# -- reading them ----------------------------------------------------------------------------------


class ApiServer:
    """A stand-in for the API server of a cluster: what it answers, and what it was asked."""

    def __init__(self, answer: object, seconds: float = 0.0) -> None:
        self.answer, self.seconds, self.asked = answer, seconds, ""

    async def get(self, path: str, **query: str) -> Object:
        self.asked = path
        await asyncio.sleep(self.seconds)
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"items": self.answer}


@pytest.mark.asyncio
async def test_the_policies_of_the_namespace_are_read() -> None:
    server = ApiServer([policy()])
    assert await Policies(server).of("ml") == [policy()]  # type: ignore[arg-type]
    assert server.asked == "/apis/bottleneck.dev/v1alpha1/namespaces/ml/bottleneckpolicies"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "server",
    [
        ApiServer(KubeError(403, "forbidden")),
        ApiServer(OSError("refused")),
        ApiServer([policy()], seconds=30),
    ],
    ids=["forbidden", "away", "slow"],
)
async def test_a_pod_does_not_wait_for_an_api_server_that_does_not_answer(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies_module, "READ_SECONDS", 0.05)
    assert await Policies(server).of("ml") == []  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_without_a_cluster_nothing_is_asked() -> None:
    assert await Policies(None).of("ml") == []
