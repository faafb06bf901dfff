"""The injected pod: what is added, what is kept, and which pods are left alone."""

import copy
from typing import Any

import pytest
from bottleneck_operator.inject.pod import AGENT, InjectSettings, inject, refusal
from hypothesis import given
from hypothesis import strategies as st

Object = dict[str, Any]

SETTINGS = InjectSettings(image="bottleneck/sidecar:1")


def pod(spec: Object | None = None, **metadata: Any) -> Object:
    """A pod with one container; ``spec`` is laid over it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"bottleneck.dev/inject": "true"}} | metadata,
        "spec": {"containers": [{"name": "main", "image": "trainer:1"}]} | (spec or {}),
    }


def agent_of(document: Object) -> Object:
    (agent,) = [c for c in document["spec"]["initContainers"] if c["name"] == AGENT]
    assert isinstance(agent, dict)
    return agent


def test_the_sidecar_is_a_native_one_and_holds_up_nothing() -> None:
    agent = agent_of(inject(pod(), SETTINGS))
    assert agent["restartPolicy"] == "Always"
    assert agent["image"] == "bottleneck/sidecar:1"
    assert agent["ports"] == [{"name": "bottleneck", "containerPort": 9709, "protocol": "TCP"}]
    probes = {key for key in agent if key.endswith("Probe") or key == "lifecycle"}
    assert not probes, "a probe or a hook of the sidecar delays the workload"


def test_the_sidecar_has_no_privilege() -> None:
    context = agent_of(inject(pod(), SETTINGS))["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "privileged" not in context


def test_the_pod_is_marked_and_keeps_its_labels() -> None:
    labels = inject(pod(), SETTINGS)["metadata"]["labels"]
    assert labels == {"bottleneck.dev/inject": "true", "bottleneck.dev/injected": "true"}


def test_a_template_without_metadata_is_marked() -> None:
    template = {"spec": {"containers": [{"name": "main"}]}}
    assert inject(template, SETTINGS)["metadata"]["labels"] == {"bottleneck.dev/injected": "true"}


def test_socket_and_knobs_reach_every_container() -> None:
    containers = [{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]
    injected = inject(pod({"containers": containers}), SETTINGS)
    for container in [*injected["spec"]["containers"], agent_of(injected)]:
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == [
            "/var/run/bottleneck",
            "/etc/bottleneck",
        ]
        env = {item["name"]: item.get("value") for item in container["env"]}
        assert env["BOTTLENECK_SOCKET"] == "/var/run/bottleneck/agent.sock"
        assert env["BOTTLENECK_KNOBS"] == "/etc/bottleneck/knobs"
    run, knobs = injected["spec"]["volumes"]
    assert run["emptyDir"]["medium"] == "Memory"
    (item,) = knobs["downwardAPI"]["items"]
    assert item["path"] == "knobs"
    assert item["fieldRef"]["fieldPath"] == "metadata.annotations['bottleneck.dev/knobs']"


def test_what_is_there_stays_and_stays_first() -> None:
    before = pod(
        {
            "initContainers": [{"name": "fetch", "image": "fetch:1"}],
            "containers": [
                {
                    "name": "main",
                    "image": "trainer:1",
                    "env": [{"name": "BOTTLENECK_SOCKET", "value": "/elsewhere"}],
                    "volumeMounts": [{"name": "data", "mountPath": "/etc/bottleneck/"}],
                }
            ],
            "volumes": [{"name": "data", "emptyDir": {}}],
        }
    )
    after = inject(before, SETTINGS)
    assert [c["name"] for c in after["spec"]["initContainers"]] == ["fetch", AGENT]
    assert after["spec"]["initContainers"][0] == before["spec"]["initContainers"][0]
    (main,) = after["spec"]["containers"]
    assert main["env"][0] == {"name": "BOTTLENECK_SOCKET", "value": "/elsewhere"}
    assert [e["name"] for e in main["env"]] == ["BOTTLENECK_SOCKET", "BOTTLENECK_KNOBS"]
    assert [m["name"] for m in main["volumeMounts"]] == ["data", "bottleneck-run"]
    assert [v["name"] for v in after["spec"]["volumes"]] == [
        "data",
        "bottleneck-run",
        "bottleneck-knobs",
    ]


def test_a_container_that_was_added_later_is_connected() -> None:
    injected = inject(pod(), SETTINGS)
    injected["spec"]["containers"].append({"name": "late", "image": "late:1"})
    again = inject(injected, SETTINGS)
    assert again["spec"]["containers"][0] == injected["spec"]["containers"][0]
    assert len(again["spec"]["containers"][1]["volumeMounts"]) == 2
    assert again["spec"]["initContainers"] == injected["spec"]["initContainers"]


def test_the_argument_is_not_changed() -> None:
    before = pod()
    kept = copy.deepcopy(before)
    inject(before, SETTINGS)
    assert before == kept


def container(name: str = "main", **resources: Object) -> Object:
    return {"name": name, "image": "a", "resources": resources}


BOTH = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("containers", "requests", "limits"),
    [
        pytest.param(
            [container()],
            {"cpu": "10m", "memory": "32Mi"},
            {"memory": "64Mi"},
            id="small, and no CPU limit by itself",
        ),
        pytest.param(
            [container(limits=BOTH, requests={"cpu": "500m", "memory": "1Gi"})],
            {"cpu": "10m", "memory": "32Mi"},
            {"cpu": "200m", "memory": "64Mi"},
            id="where all have a CPU limit, a quota may ask for one",
        ),
        pytest.param(
            [container(limits=BOTH), container("b", limits={"memory": "1Gi"})],
            {"cpu": "10m", "memory": "32Mi"},
            {"memory": "64Mi"},
            id="where one has no CPU limit, no quota asks for one",
        ),
        pytest.param(
            [container(limits=BOTH, requests=BOTH), container("b", limits=BOTH)],
            {"cpu": "200m", "memory": "64Mi"},
            {"cpu": "200m", "memory": "64Mi"},
            id="a Guaranteed pod stays Guaranteed",
        ),
    ],
)
def test_resources(containers: list[Object], requests: Object, limits: Object) -> None:
    agent = agent_of(inject(pod({"containers": containers}), SETTINGS))
    assert agent["resources"] == {"requests": requests, "limits": limits}


def test_devices_are_shown_only_when_asked_for() -> None:
    def names(settings: InjectSettings) -> set[str]:
        return {item["name"] for item in agent_of(inject(pod(), settings))["env"]}

    assert not any("NVIDIA" in name for name in names(SETTINGS))
    shown = names(InjectSettings(image="a", gpu=True))
    assert {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"} <= shown


SHARE = {"annotations": {"bottleneck.dev/share-process-namespace": "true"}}


def test_processes_are_shared_only_when_asked_for() -> None:
    assert "shareProcessNamespace" not in inject(pod(), SETTINGS)["spec"]
    assert inject(pod(**SHARE), SETTINGS)["spec"]["shareProcessNamespace"] is True
    with_host = inject(pod({"hostPID": True}, **SHARE), SETTINGS)
    assert "shareProcessNamespace" not in with_host["spec"], "the API server refuses both"


REFUSED: dict[str, tuple[Object, str]] = {
    "opted out by annotation": (pod(annotations={"bottleneck.dev/inject": "false"}), '"false"'),
    "opted out by label": (pod(labels={"bottleneck.dev/inject": "false"}), '"false"'),
    "static": (pod(annotations={"kubernetes.io/config.mirror": "x"}), "static pod"),
    "Windows by its field": (pod({"os": {"name": "windows"}}), "Windows"),
    "Windows by its selector": (
        pod({"nodeSelector": {"kubernetes.io/os": "windows"}}),
        "Windows",
    ),
    "on the node's network": (pod({"hostNetwork": True}), "node's network"),
    "on our port": (
        pod({"containers": [{"name": "main", "ports": [{"containerPort": 9709}]}]}),
        "uses port 9709 itself",
    ),
    "without containers": (pod({"containers": []}), "not a pod"),
    "with a broken container": (pod({"containers": ["main"]}), "not a pod"),
    "with broken labels": (pod(labels=["a"]), "not a pod"),
    "with broken variables": (pod({"containers": [{"name": "a", "env": "B=1"}]}), "not a pod"),
    "empty": ({}, "not a pod"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_pod_that_could_be_harmed_is_left_exactly_as_it_is(case: str) -> None:
    document, reason = REFUSED[case]
    assert reason in (refusal(document) or "")
    assert inject(document, SETTINGS) == document


def test_the_sidecars_own_port_is_no_reason_to_refuse() -> None:
    assert refusal(inject(pod(), SETTINGS)) is None


names = st.sampled_from(["main", "a", "bottleneck-agent", "bottleneck-run", "BOTTLENECK_KNOBS"])
maybe = st.none() | st.text(max_size=3) | st.booleans() | st.integers(0, 9709)
items = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "name": names,
            "value": maybe,
            "mountPath": st.sampled_from(["/etc/bottleneck", "/var/run/bottleneck/", "/x"]),
            "containerPort": st.sampled_from([80, 9709]),
        },
    )
    | maybe,
    max_size=3,
)
containers = st.lists(
    st.fixed_dictionaries(
        {"name": names},
        optional={
            "env": items | maybe,
            "ports": items | maybe,
            "volumeMounts": items | maybe,
            "resources": st.dictionaries(
                st.sampled_from(["limits", "requests"]),
                st.dictionaries(st.sampled_from(["cpu", "memory"]), st.just("1")) | maybe,
            )
            | maybe,
        },
    )
    | maybe,
    max_size=3,
)
pods = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries(
            {}, optional={"labels": st.dictionaries(names, st.text(max_size=2)) | maybe}
        )
        | maybe,
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "containers": containers | maybe,
                "initContainers": containers | maybe,
                "volumes": items | maybe,
                "os": st.just({"name": "linux"}) | maybe,
                "nodeSelector": st.just({"a": "b"}) | maybe,
            },
        )
        | maybe,
    },
)


@given(pods)
def test_whatever_it_is_given_it_neither_fails_nor_injects_twice(document: Object) -> None:
    once = inject(document, SETTINGS)
    assert inject(once, SETTINGS) == once
    if refusal(document) is not None:
        assert once == document
