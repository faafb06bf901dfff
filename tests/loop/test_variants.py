"""Other images of a model, rolled out to real pods: one first, then the rest, or none."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, Object, Operator, World, until

sys.path.insert(0, str(ROOT / "hack"))

from localcluster import cluster as local
from localcluster import images, imagestore

pytestmark = pytest.mark.cluster

ORIGINAL = "bottleneck/sidecar:dev"
INT8 = "bottleneck/sidecar:int8"
BLOATED = "bottleneck/sidecar:bloated"
ABSENT = "registry.invalid/ranker:int8"


def variant(source: Path, reference: str, model: str, target: Path) -> None:
    """The image in ``source`` under another name, with the environment that names its model."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:

        def read(name: str) -> bytes:
            found = old.extractfile(name)
            assert found is not None
            return found.read()

        def put(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))

        (manifest,) = json.loads(read("manifest.json"))
        config = json.loads(read(manifest["Config"]))
        config["config"]["Env"] = [*config["config"]["Env"], f"STAND_IN_MODEL={model}"]
        text = json.dumps(config).encode()
        name = f"{hashlib.sha256(text).hexdigest()}.json"
        put(name, text)
        for layer in manifest["Layers"]:
            member = old.getmember(layer)
            new.addfile(member, old.extractfile(member))
        tags = [f"docker.io/{reference}"]
        document = [{"Config": name, "RepoTags": tags, "Layers": manifest["Layers"]}]
        put("manifest.json", json.dumps(document).encode())


@pytest.fixture(scope="session")
def variants(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two more images in the cluster: one with a faster model, one with a slower one."""
    folder = tmp_path_factory.mktemp("images")
    made = {}
    for reference in (INT8, BLOATED):
        model = reference.rpartition(":")[2]
        made[reference] = folder / f"{model}.tar"
        variant(images.built()["sidecar"], reference, model, made[reference])
    imagestore.load(local.get(cluster.name), made)


def served(world: World, kind: str = "Deployment", replicas: int = 2) -> None:
    """Servers whose model takes as long as their image says."""
    world.deployment("ranker", "server", "model")
    if kind == "StatefulSet":
        found = world.get("deployment", "ranker")
        world.kubectl("delete", "deployment", "ranker", "--wait")
        template = found["spec"]["template"]
        template["metadata"].pop("creationTimestamp", None)
        spec = {"replicas": replicas, "selector": found["spec"]["selector"], "template": template}
        spec["serviceName"] = "ranker"
        world.apply(
            {
                "apiVersion": "apps/v1",
                "kind": kind,
                "metadata": {"name": "ranker"},
                "spec": spec,
            }
        )
    else:
        world.kubectl("scale", "deploy/ranker", f"--replicas={replicas}")
    world.kubectl("rollout", "status", f"{kind}/ranker", "--timeout=90s")


def watch(world: World, image: str, kind: str = "Deployment", **limits: str) -> None:
    world.policy(
        "ranker",
        kind="Deployment",
        targetRef={"apiVersion": "apps/v1", "kind": kind, "name": "ranker"},
        actions={"variants": [{"name": "int8", "image": image, "accuracyLoss": "0.4%"}]},
        limits={"disruption": "RollingRestart", "accuracyLoss": "1%", "cooldown": "300s"} | limits,
    )


def template(world: World, kind: str = "deployment") -> Object:
    """The fields of the target's spec that a variant touches."""
    spec = world.get(kind, "ranker")["spec"]
    names = ("strategy", "updateStrategy", "minReadySeconds", "progressDeadlineSeconds")
    found = {name: spec[name] for name in names if name in spec}
    return found | {"image": spec["template"]["spec"]["containers"][0]["image"]}


def pod_images(world: World) -> list[str]:
    return sorted(
        pod["spec"]["containers"][0]["image"]
        for pod in world.list("pods")
        if "deletionTimestamp" not in pod["metadata"]
    )


def messages(report: Object) -> list[str]:
    return [entry["message"] for entry in report["status"]["timeline"]]


def stage(world: World) -> tuple[str, str]:
    """Phase and stage of the only report."""
    found = world.reports()
    if not found:
        return "", ""
    status = found[0].get("status", {})
    return status.get("phase", ""), status.get("stage", "")


def test_a_faster_variant_is_tried_by_one_pod_and_follows_in_the_rest(
    world: World, variants: None, operator: Operator
) -> None:
    served(world)
    before = template(world)
    watch(world, INT8)
    until("the canary is being judged", lambda: stage(world) == ("Verifying", "Canary"), 120)
    assert pod_images(world) == [ORIGINAL, ORIGINAL, INT8], "beside the old ones, none fewer"

    # Its successor finds the canary and goes on with it.
    operator.kill()
    assert pod_images(world) == [ORIGINAL, ORIGINAL, INT8], "nobody rolls it on meanwhile"
    operator.start()
    report = until("a report is kept", lambda: world.reports("Kept"), 240)[0]

    assert len(world.reports()) == 1
    assert pod_images(world) == [INT8, INT8]
    assert template(world) == before | {"image": INT8}, "everything else as it was"
    verdict = report["status"]["verdict"]
    assert verdict["result"] == "Improved"
    assert verdict["control"], "judged against the pods beside it"
    assert verdict["before"] == pytest.approx(0.4, rel=0.3)
    change = report["spec"]["action"]["image"]
    assert (change["original"], change["replaces"]) == (ORIGINAL, ORIGINAL)
    assert change["originalSeconds"] == pytest.approx(0.4, rel=0.05)


def test_the_last_pod_of_a_stateful_set_goes_first(
    world: World, variants: None, operator: Operator
) -> None:
    served(world, "StatefulSet")
    before = template(world, "statefulset")
    watch(world, INT8, kind="StatefulSet")
    until("the canary is being judged", lambda: stage(world) == ("Verifying", "Canary"), 120)
    images = [
        world.get("pod", f"ranker-{number}")["spec"]["containers"][0]["image"]
        for number in range(2)
    ]
    assert images == [ORIGINAL, INT8]
    report = until("a report is kept", lambda: world.reports("Kept"), 240)[0]
    assert report["status"]["verdict"]["control"]
    assert pod_images(world) == [INT8, INT8]
    assert template(world, "statefulset") == before | {"image": INT8}


def test_a_variant_that_is_slower_is_undone_and_not_tried_again(
    world: World, variants: None, operator: Operator
) -> None:
    served(world)
    before = template(world)
    watch(world, BLOATED, cooldown="1s")
    report = until("a report is reverted", lambda: world.reports("Reverted"), 240)[0]
    assert report["status"]["verdict"]["result"] == "Worse"
    assert report["status"]["stage"] == "Canary", "the rest never had it"
    assert template(world) == before
    assert pod_images(world) == [ORIGINAL, ORIGINAL]
    until(
        "it says that it will not try again",
        lambda: world.condition("ranker", "Limited") == ("True", "Quarantined"),
    )


def never_ready(world: World, kind: str) -> Object:
    before = template(world, kind)
    watch(world, ABSENT, kind=kind)
    report: Object = until("a report is reverted", lambda: world.reports("Reverted"), 300)[0]
    told = messages(report)
    assert any("was not ready in 60s" in text and "Image" in text for text in told), told
    assert template(world, kind) == before
    return report


def test_an_image_that_cannot_be_pulled_is_taken_back_with_the_kubelets_words(
    world: World, operator: Operator
) -> None:
    served(world)
    never_ready(world, "Deployment")
    until("only old pods are left", lambda: pod_images(world) == [ORIGINAL, ORIGINAL])


def test_a_stateful_set_gets_over_a_pod_that_never_becomes_ready(
    world: World, operator: Operator
) -> None:
    """By itself it would wait for the broken pod for ever."""
    served(world, "StatefulSet")
    never_ready(world, "StatefulSet")
    world.kubectl("rollout", "status", "statefulset/ranker", "--timeout=60s")
    assert pod_images(world) == [ORIGINAL, ORIGINAL]


def test_somebody_elses_rollout_takes_the_canarys_place(
    world: World, variants: None, operator: Operator
) -> None:
    """They get their rollout, and not the brake that the canary was held by."""
    served(world)
    before = template(world)
    watch(world, INT8)
    until("a canary", lambda: stage(world) == ("Verifying", "Canary"), 120)
    world.kubectl("set", "image", "deploy/ranker", f"main={BLOATED}")
    until("it is given up", lambda: world.reports("Abandoned"), 60)
    assert template(world) == before | {"image": BLOATED}
    world.kubectl("rollout", "status", "deploy/ranker", "--timeout=60s")
