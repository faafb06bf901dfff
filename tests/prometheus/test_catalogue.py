"""The catalogue of metric names, and the page that is made of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bottleneck_operator.api.signals import SIGNALS
from bottleneck_operator.observe.observation import WorkloadType
from bottleneck_operator.observe.prometheus_agent import AGENT, SERVER_AGENT, TRAINING_AGENT
from bottleneck_operator.observe.prometheus_docs import main, renewed
from bottleneck_operator.observe.prometheus_entries import Form
from bottleneck_operator.observe.prometheus_machines import SYSTEMS
from bottleneck_sidecar.agent import metrics

PAGE = Path(__file__).parents[2] / "docs" / "prometheus.md"
ENTRIES = [(system, entry) for system in SYSTEMS for entry in system.entries]


@pytest.mark.parametrize(
    ("system", "entry"), ENTRIES, ids=[f"{s.name} {e.signal}" for s, e in ENTRIES]
)
def test_an_entry_is_whole(system: object, entry: object) -> None:
    entry = next(e for _, e in ENTRIES if e is entry)
    # Facts of the API server may be told by kube-state-metrics, too; they have no query.
    assert entry.signal in SIGNALS or entry.signal.startswith("pods.")
    assert entry.statistic or entry.form in (Form.PERCENTILE, Form.QUANTILE)
    assert bool(entry.under) == (
        entry.form in (Form.RATIO, Form.PAIRS, Form.GREW) or entry.signal == "node.busyShare"
    )
    single = (Form.MEAN, Form.LAST, Form.MASK, Form.PAIRS, Form.QUANTILE, Form.SINCE)
    assert entry.form not in single or len(entry.over) == 1
    assert bool(entry.bits) == (entry.form is Form.MASK)
    for term in entry.terms:
        assert len(set(term.metrics)) == len(term.metrics)
    if entry.signal.endswith("Share") and entry.form is Form.RATE:
        assert entry.cap == 1.0


def test_every_system_says_what_its_pods_do_in_words_that_are_known() -> None:
    for system in SYSTEMS:
        assert not system.workload or WorkloadType(system.workload)
        assert set(system.lacks) <= set(SIGNALS)


def test_the_agents_metrics_are_those_that_it_has() -> None:
    told = set(re.findall(r'"([a-z_]+)"', Path(metrics.__file__).read_text()))
    for system in (TRAINING_AGENT, SERVER_AGENT, AGENT):
        for name in system.metrics():
            assert re.sub("_(sum|count|bucket)$", "", name.removeprefix("bottleneck_")) in told


def test_every_signal_that_may_have_a_query_is_on_a_page_with_its_unit() -> None:
    pages = "".join((PAGE.parent / name).read_text() for name in ("signals.md", PAGE.name))
    units = dict(re.findall(r"^\| `([\w.]+)` \| ([^|` ]+) \|", pages, re.MULTILINE))
    assert {name: units.get(name) for name in SIGNALS} == {
        name: unit or "share" for name, unit in SIGNALS.items()
    }


def test_the_page_is_what_the_catalogue_says() -> None:
    assert renewed(PAGE.read_text()) == PAGE.read_text()


def test_a_page_that_differs_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "prometheus.md"
    page.write_text(PAGE.read_text().replace("`gpu.smActive`", "`gpu.smWild`"))
    assert main([str(page), "--check"]) == 1
    assert "make generate" in capsys.readouterr().err
    assert main([str(page)]) == 0
    assert main([str(page), "--check"]) == 0
    page.write_text("# without marks\n")
    with pytest.raises(ValueError, match="the page has no lines"):
        main([str(page)])
