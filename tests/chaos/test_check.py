"""The checker on audit logs that were written by hand."""

from __future__ import annotations

import pytest

from hack.chaos.audit import Log

from .audit_logs import AuditLog

MORE = {"desired": 2, "replaces": 1}
LESS = {"desired": 1, "replaces": 3}
WORKERS = {
    "generation": 1,
    "desired": {"dataLoader.workers": 2, "dataLoader.prefetch": 2},
    "replaces": {"dataLoader.workers": 0, "dataLoader.prefetch": 2},
}


def began(replicas: int = 1) -> AuditLog:
    log = AuditLog()
    log.target(replicas)
    log.pod()
    log.policy()
    return log


def grown() -> tuple[AuditLog, str]:
    """Replicas that were added and are being judged."""
    log = began()
    name = log.report(replicas=MORE)
    log.scale(2)
    log.move(name, "Applied")
    log.move(name, "Verifying")
    return log, name


def tuned() -> tuple[AuditLog, str]:
    """The same with knobs."""
    log = began()
    name = log.report(knobs=WORKERS)
    log.knobs(1, 2)
    log.move(name, "Applied")
    log.move(name, "Verifying")
    return log, name


def test_replicas_that_are_kept_break_no_rule() -> None:
    log, name = grown()
    log.move(name, "Kept", verdict={"result": "Improved"})
    assert log.violations() == []


def test_knobs_that_are_taken_back_break_no_rule() -> None:
    log, name = tuned()
    log.move(name, "Reverting", verdict={"result": "Worse"})
    log.knobs(2, 0)
    log.move(name, "Reverted")
    assert log.violations() == []


def test_a_refused_write_is_no_change() -> None:
    log = began()
    log.scale(7, code=409)
    assert log.violations() == []


def test_the_same_write_again_is_no_second_application() -> None:
    log, name = grown()
    log.scale(2)
    log.move(name, "Kept")
    assert log.violations() == []


def test_a_change_without_a_report() -> None:
    log = began()
    log.scale(2)
    log.report(replicas={"desired": 2, "replaces": 2})
    assert "no-report-before" in log.rules


def test_knobs_that_no_report_names() -> None:
    log = began()
    log.report(knobs=WORKERS)
    log.knobs(1, 1)
    assert "no-report-before" in log.rules


@pytest.mark.parametrize("what", ["secrets", "configmaps", "services"])
def test_a_change_of_anything_else(what: str) -> None:
    log = began()
    log.write("patch", what, "x", {})
    assert log.rules == {"no-report-before"}


def test_an_effect_on_top_of_its_own() -> None:
    log, name = grown()
    log.scale(3)
    log.move(name, "Kept")
    assert "applied-twice" in log.rules


def test_an_action_that_is_done_anew_after_its_end() -> None:
    log, name = grown()
    log.move(name, "Reverting")
    log.scale(1)
    log.move(name, "Reverted")
    log.scale(2)
    assert "no-report-before" in log.rules or "applied-twice" in log.rules


def test_a_late_writer_of_old_knobs() -> None:
    log, name = tuned()
    log.move(name, "Reverting")
    log.knobs(2, 0)
    log.move(name, "Reverted")
    log.knobs(1, 2)
    assert "applied-twice" in log.rules


def test_two_actions_at_once() -> None:
    log, name = grown()
    other = log.report(2, replicas={"desired": 3, "replaces": 2})
    log.scale(3)
    log.move(other, "Applied")
    log.move(other, "Kept")
    log.move(name, "Kept")
    assert "applied-twice" in log.rules


def test_replicas_out_of_bounds() -> None:
    log = began()
    name = log.report(replicas={"desired": 7, "replaces": 1})
    log.scale(7)
    log.move(name, "Applied")
    log.move(name, "Kept")
    assert log.rules == {"out-of-bounds"}


def test_knobs_out_of_bounds() -> None:
    log = began()
    desired = {"dataLoader.workers": 9, "dataLoader.prefetch": 2}
    name = log.report(knobs={**WORKERS, "desired": desired})
    log.knobs(1, 9)
    log.move(name, "Kept")
    assert log.rules == {"out-of-bounds"}


def test_a_decision_on_silence() -> None:
    log = began(3)
    log.target(3, silent="true")
    log.wait(60)
    name = log.report(replicas=LESS)
    log.scale(1)
    log.move(name, "Kept")
    assert log.rules == {"missing-data"}


def test_a_decision_after_the_silence() -> None:
    log = began(3)
    log.target(3, silent="true")
    log.wait(60)
    log.target(3, silent="false")
    name = log.report(replicas=LESS)
    log.scale(1)
    log.move(name, "Kept")
    assert log.rules == set()


def test_a_verdict_on_silence() -> None:
    log, name = grown()
    log.target(2, silent="true")
    log.wait(60)
    log.move(name, "Kept", verdict={"result": "Improved"})
    assert log.rules == {"missing-data"}


def test_a_revert_to_something_else() -> None:
    log, name = tuned()
    log.move(name, "Reverting")
    log.knobs(2, 0, prefetch=4)
    log.move(name, "Reverted")
    assert "not-restored" in log.rules


def test_a_revert_that_never_came() -> None:
    log, name = grown()
    log.move(name, "Reverting")
    log.move(name, "Reverted")
    assert log.rules == {"not-restored"}


def test_a_report_that_replaces_what_was_not_there() -> None:
    log = began(3)
    name = log.report(replicas=MORE)
    log.move(name, "Abandoned")
    assert log.rules == {"not-restored"}


def test_an_effect_that_stays_of_an_action_that_was_given_up() -> None:
    log, name = tuned()
    log.move(name, "Abandoned")
    assert log.rules == {"not-restored"}


def test_an_effect_that_stays_when_its_policy_goes() -> None:
    log, _ = grown()
    log.policy("delete")
    assert log.rules == {"not-restored"}


def test_an_action_that_was_kept_and_never_done() -> None:
    log = began()
    name = log.report(knobs=WORKERS)
    log.move(name, "Kept")
    assert log.rules == {"lost"}


def test_an_action_without_an_end() -> None:
    log, _ = grown()
    assert log.rules == {"without-end"}


def test_more_reports_than_are_ever_kept() -> None:
    log = began()
    for number in range(1, 42):
        log.move(log.report(number, replicas={"desired": 1, "replaces": 1}), "Abandoned")
    assert log.rules == {"without-end"}


def test_a_policy_that_does_not_go() -> None:
    assert {each.rule for each in began().violations(left=True)} == {"finalizer-left"}


def test_the_log_is_read_across_its_rotation(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "audit.log"
    path.write_bytes(b"before\n")
    log = Log(path)
    with path.open("ab") as file:
        file.write(b"one\ntw")
        file.flush()
        assert log.fresh() == [b"one\n"]
        file.write(b"o\n")
    path.rename(tmp_path / "audit-old.log")
    path.write_bytes(b"three\n")
    assert log.fresh() == [b"two\n", b"three\n"]
    log.close()
