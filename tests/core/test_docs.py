"""What people read about causes and signals is what the engine does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bottleneck_operator.diagnose.catalogue import CATALOGUE
from bottleneck_operator.diagnose.derived import DERIVED
from bottleneck_operator.diagnose.docs import document, main
from bottleneck_operator.diagnose.predicates import START, predicates
from bottleneck_sidecar.wire import WireError, decode_sample, encode

from .builders import NOW, rank, sample
from .telemetry import container, device, model_server, pod, seen, training_rank
from .test_diagnose import FIXED_REPLICAS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_causes_is_the_one_that_the_catalogue_gives() -> None:
    assert (DOCS / "causes.md").read_text() == document(), "run: make generate"


def test_the_page_tells_every_cause_with_its_thresholds_and_advice() -> None:
    page = document()
    for entry in CATALOGUE:
        assert f"## {entry.id}\n" in page
        assert entry.title in page
        assert entry.advice in page
        vetoes = [veto.condition for veto in entry.vetoes]
        for predicate in (p for each in (*entry.predicates, *vetoes) for p in predicates(each)):
            assert f"`{predicate.signal}`" in page
            assert predicate.source.replace(START, "START") in page


def test_a_page_that_differs_is_shown_and_fails_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "causes.md"
    assert main([str(page), "--check"]) == 1
    assert "make generate" in capsys.readouterr().err
    assert not page.exists()
    assert main([str(page)]) == 0
    assert main([str(page), "--check"]) == 0
    page.write_text(page.read_text() + "more\n")
    assert main([str(page), "--check"]) == 1
    assert "-more" in capsys.readouterr().out


FROM_DCGM = {"gpu.smActive", "gpu.tensorActive", "gpu.dramActive", "gpu.powerShare"}
FROM_THE_API_SERVER = {
    *FIXED_REPLICAS,
    "pods.unschedulable",
    "pods.unschedulableSeconds",
    "pods.quotaRefused",
    "pods.oomKilled",
    "pods.restarts",
    "pods.crashLooping",
    "pods.notReady",
    "pods.withoutRequests",
    "pods.withoutLimits",
    "pods.unpinnedImage",
    "pods.withoutProbe",
    "change.ageSeconds",
    "change.precedes",
}


def test_the_page_of_signals_names_exactly_those_that_there_are() -> None:
    young = {"started_at": NOW - 100}
    pods = (
        pod(lambda t: [training_rank(t), container(t), device()]),
        pod(lambda t: [training_rank(t, number=1), container(t), device()]),
        pod(lambda t: [model_server(t, **young), container(t)]),
    )
    from_samples = set(seen(*pods[:2]).signals) | set(seen(pods[2]).signals)
    known = from_samples | DERIVED | FROM_DCGM | FROM_THE_API_SERVER
    dependencies = {name for name in known if name.startswith("inference.dependency.")}
    assert dependencies == {"inference.dependency.features", "inference.dependency.cache"}
    named = set(re.findall(r"^\| `([\w.]+)` \|", (DOCS / "signals.md").read_text(), re.M))
    compared = {name for name in named if name.endswith(("Slowdown", "loadRatio"))}
    assert named - compared == known - dependencies


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity", "1e999", "-1"])
def test_no_figure_that_is_not_a_number_gets_past_the_wire(bad: str) -> None:
    good = encode(sample(NOW, 1, rank("e0", 10, NOW, step_seconds=7.5)))
    assert decode_sample(good).training[0].step_seconds == 7.5
    with pytest.raises(WireError, match="step_seconds"):
        decode_sample(good.replace(b":7.5", b":" + bad.encode()))
