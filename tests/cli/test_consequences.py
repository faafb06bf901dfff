"""``history``, ``rollback``, ``pause`` and ``resume`` against a stand-in for an API server."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from .conftest import GROUP, Object, Said, StandIn, policy

Run = Callable[..., Said]

PAUSED = "bottleneck.dev/paused-until"
RESUMED = "bottleneck.dev/resumed-at"
ROLLBACK = "bottleneck.dev/rollback"


def report(number: int, phase: str = "Kept", result: str = "Improved", **changes: Any) -> Object:
    """A report of more loader workers."""
    status = {
        "phase": phase,
        "verdict": {
            "result": result,
            "before": 100.0,
            "after": 180.0,
            "effect": 0.8,
            "interval": [0.7, 0.9],
        },
        **changes.pop("status", {}),
    }
    knobs = {"generation": 2 * number, "desired": {"a": number}, "replaces": {"a": 0}}
    evidence = {"signal": "s", "window": "10s", "statistic": "mean", "value": 0.8}
    return {
        "apiVersion": "bottleneck.dev/v1alpha1",
        "kind": "BottleneckReport",
        "metadata": {"name": f"trainer-{number}", "namespace": "ml", "uid": f"r{number}"},
        "spec": {
            "policy": "trainer",
            "target": {"apiVersion": "batch/v1", "kind": "Job", "name": "trainer"},
            "breachedAt": f"2027-01-15T08:0{number}:00Z",
            "decidedAt": f"2027-01-15T08:0{number}:01Z",
            "symptom": {"objective": "DataWait", "text": "waits", "evidence": evidence},
            "metric": {"name": "goodput", "unit": "samples/s"},
            "action": {
                "type": "DataLoader",
                "summary": f"dataLoader.workers 0 → {number}",
                "cause": "loader-without-workers",
                "knobs": knobs,
                "prediction": {"before": 100.0, "after": 200.0, "basis": "a model"},
            },
            **changes,
        },
        "status": status,
    }


# -- history ---------------------------------------------------------------------------------------


def test_a_line_for_each_report_and_the_totals(api: StandIn, run: Run) -> None:
    api.policies(policy())
    taken = {"by": "alice\u202e", "answeredAt": "2027-01-15T09:00:00Z"}
    api.reports(
        report(2, "Reverted", "Worse", status={"revert": {"result": "NotRestored", "at": AT}}),
        report(1),
        report(3, "Kept", "Inconclusive"),
        report(4, "Reverted", status={"rollback": taken}),
    )
    said = run("history", "trainer", "-n", "ml")
    assert said.code == 0, said.err
    head, *rows, _, sums = said.out.splitlines()
    assert head.split()[:3] == ["TIME", "POLICY", "REPORT"]
    assert [row.split()[2] for row in rows] == [f"trainer-{number}" for number in (1, 2, 3, 4)]
    assert rows[0].split("  ")[0] == "2027-01-15T08:01:01Z"
    assert "+100%" in rows[0]
    assert "+80% [+70%, +90%]" in rows[0]
    assert rows[0].endswith("kept")
    assert rows[1].endswith("undone (NotRestored)")
    assert rows[2].endswith("held")
    assert rows[3].endswith("taken back by alice")
    assert sums == "2 hits, 2 misses, 1 reverts, hit rate 50%"


AT = "2027-01-15T09:00:00Z"


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_the_same_for_programs_with_those_that_are_gone(api: StandIn, run: Run, form: str) -> None:
    entry = {"cause": "c", "type": "DataLoader", "aim": "Improve", "hits": 6, "misses": 1}
    ledger = {"entries": [entry | {"reverts": 1}], "counted": ["trainer-1"]}
    api.policies(policy() | {"status": {"ledger": ledger}})
    api.reports(report(1), report(2, "Reverted", "NoEffect"))
    said = run("history", "-A", "-o", form)
    assert said.code == 0, said.err
    found = said.json if form == "json" else yaml.safe_load(said.out)
    assert found["totals"] == {"hits": 6, "misses": 2, "reverts": 2, "hitRate": 0.75}
    first = found["reports"][0]
    assert (first["name"], first["predicted"], first["measured"]) == ("trainer-1", 1.0, 0.8)
    assert first["interval"] == [0.7, 0.9]
    assert first["cause"] == "loader-without-workers"


def test_without_an_action_there_is_no_rate(api: StandIn, run: Run) -> None:
    api.policies(policy())
    api.reports()
    said = run("history", "-n", "ml")
    assert said.code == 0
    assert said.out == "no action so far\n\n0 hits, 0 misses, 0 reverts\n"
    assert run("history", "-n", "ml", "-o", "json").json["totals"]["hitRate"] is None


def test_a_policy_that_does_not_exist_is_refused(api: StandIn, run: Run) -> None:
    said = run("history", "other", "-n", "ml")
    assert said.code == 1
    assert "there is no policy other in namespace ml" in said.err


def test_what_another_version_wrote_does_not_hide_the_rest(api: StandIn, run: Run) -> None:
    api.policies(policy())
    strange = report(2) | {"spec": {"policy": "trainer"}}
    api.reports(report(1), strange)
    said = run("history", "-n", "ml")
    assert said.code == 0
    assert "trainer-1" in said.out
    assert "ml/trainer-2 cannot be read" in said.err


# -- rollback --------------------------------------------------------------------------------------


def operator(refused: str = "") -> Callable[[Object], None]:
    """What the operator does about a wish."""

    def answer(found: Object) -> None:
        wish = json.loads(found["metadata"]["annotations"][ROLLBACK])
        told = {"by": wish["by"], "requested": wish["at"], "answeredAt": AT, "refused": refused}
        found["status"]["rollback"] = told
        found["status"]["phase"] = "Kept" if refused else "Reverting"

    return answer


def test_an_action_is_taken_back_through_its_report_alone(api: StandIn, run: Run) -> None:
    api.reports(report(1))
    api.patched = operator()
    said = run("rollback", "trainer-1", "-n", "ml", "-o", "json")
    assert said.code == 0, said.err
    assert said.json == {
        "report": "trainer-1",
        "namespace": "ml",
        "action": "dataLoader.workers 0 → 1",
        "phase": "Reverting",
        "accepted": True,
        "by": "alice",
    }
    ((path, body),) = api.patches
    assert path == f"{GROUP}/namespaces/ml/bottleneckreports/trainer-1"
    assert list(body) == ["metadata"]
    assert list(body["metadata"]["annotations"]) == [ROLLBACK]
    again = run("rollback", "trainer-1", "-n", "ml")
    assert again.code == 0
    assert "taken back already" in again.out
    assert len(api.patches) == 1


def test_what_the_operator_refuses_is_said(api: StandIn, run: Run) -> None:
    api.reports(report(1))
    api.patched = operator("somebody else has changed it since: a 7, as the action left it 1")
    said = run("rollback", "trainer-1", "-n", "ml")
    assert said.code == 1
    assert "trainer-1 stays: somebody else has changed it since" in said.err


@pytest.mark.parametrize(
    ("reports", "word"),
    [
        ([report(1), report(2)], "trainer-2 builds on it; take that one back first"),
        ([report(1, "Reverted")], "trainer-1 is Reverted already"),
        ([report(1, "Recommended")], "nothing was done"),
        ([], "there is no report trainer-1 in namespace ml"),
    ],
)
def test_what_cannot_be_taken_back_is_not_asked_for(
    api: StandIn, run: Run, reports: list[Object], word: str
) -> None:
    api.reports(*copy.deepcopy(reports))
    said = run("rollback", "trainer-1", "-n", "ml")
    assert said.code == 1
    assert word in said.err
    assert api.patches == []


def test_an_operator_that_does_not_answer_keeps_nobody(api: StandIn, run: Run) -> None:
    api.reports(report(1))
    api.user = ""
    said = run("rollback", "trainer-1", "-n", "ml", "--timeout", "0", "-o", "json")
    assert said.code == 0
    assert (said.json["accepted"], said.json["phase"]) == (False, "Kept")
    assert json.loads(api.patches[0][1]["metadata"]["annotations"][ROLLBACK])["by"] == ""


# -- pause and resume ------------------------------------------------------------------------------


def pair(api: StandIn) -> list[Object]:
    found = [policy("a"), policy("b", paused=True)]
    for each in found:
        each["metadata"]["uid"] = each["metadata"]["name"]
    api.policies(*found)
    return found


def test_a_pause_is_an_annotation_and_may_be_repeated(api: StandIn, run: Run) -> None:
    first, _ = pair(api)
    said = run("pause", "a", "-n", "ml", "-o", "json")
    assert said.json["policies"] == [
        {"policy": "a", "namespace": "ml", "paused": True, "until": "resumed", "changed": True}
    ]
    assert first["metadata"]["annotations"][PAUSED] == "resumed"
    assert list(api.patches[0][1]) == ["metadata"], "no new generation"
    again = run("pause", "a", "-n", "ml", "-o", "json")
    assert (again.code, again.json["policies"][0]["changed"]) == (0, False)
    assert len(api.patches) == 1


def test_a_pause_for_a_while_ends_by_itself(api: StandIn, run: Run) -> None:
    first, _ = pair(api)
    before = datetime.now(UTC)
    said = run("pause", "a", "-n", "ml", "--for", "1h30m")
    until = first["metadata"]["annotations"][PAUSED]
    assert said.out == f"ml/a is paused until {until}\n"
    assert 5395 < (datetime.fromisoformat(until) - before).total_seconds() < 5500


def test_all_of_a_namespace_are_resumed_however_they_were_paused(api: StandIn, run: Run) -> None:
    first, second = pair(api)
    assert run("pause", "--all", "-n", "ml").out.count("is paused until it is resumed") == 2
    said = run("resume", "--all", "-n", "ml", "-o", "json")
    assert [each["paused"] for each in said.json["policies"]] == [False, False]
    for each in (first, second):
        assert PAUSED not in each["metadata"]["annotations"]
        assert datetime.fromisoformat(each["metadata"]["annotations"][RESUMED])
    assert second["spec"]["paused"] is False
    assert "paused" not in first["spec"]
    again = run("resume", "a", "-n", "ml", "-o", "json")
    assert (again.code, again.json["policies"][0]["changed"]) == (0, False)


@pytest.mark.parametrize("command", ["pause", "resume"])
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "name one policy, or write --all"),
        (["a", "--all"], "name one policy, or write --all"),
        (["a", "-A"], "-A goes with --all"),
        (["c", "-n", "ml"], "there is no policy c in namespace ml"),
    ],
)
def test_what_is_not_clear_is_refused(
    api: StandIn, run: Run, command: str, arguments: list[str], word: str
) -> None:
    pair(api)
    said = run(command, *arguments)
    assert said.code == 1
    assert word in said.err
    assert api.patches == []


def test_a_duration_needs_a_unit(api: StandIn, run: Run) -> None:
    pair(api)
    said = run("pause", "a", "-n", "ml", "--for", "2")
    assert said.code == 1
    assert "such as 30m or 2h" in said.err


def test_what_the_api_server_forbids_is_said_in_its_words(api: StandIn, run: Run) -> None:
    pair(api)
    path = f"{GROUP}/namespaces/ml/bottleneckpolicies/a"
    api.objects[path] = (403, "alice cannot get bottleneckpolicies")
    said = run("resume", "a", "-n", "ml")
    assert (said.code, said.out) == (1, "")
    assert "alice cannot get bottleneckpolicies" in said.err
