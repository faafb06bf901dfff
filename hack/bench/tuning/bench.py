"""One workload from its grid to its result: oracle, tuning, and both compared in one process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from bottleneck_operator.observe.windows import WINDOW_SECONDS

from ..faultfile import Type
from ..processes import RunError
from .figures import Point, Result, below_floor, longest_below, oracle
from .session import LAG_SECONDS, SETTLE_SECONDS, Session
from .tune import QUIET_SECONDS, tune
from .workloads import Knobs, Tunable

START_ESTIMATE_SECONDS = 12.0
ACTION_ESTIMATE_SECONDS = 20.0
BIN_SECONDS = 1.0

BEFORE_SECONDS = {Type.TRAINING: 8.0, Type.SERVING: WINDOW_SECONDS + 5.0}
"""Before the operator looks: what it compares with must be the load, and not how the load began."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long things take. ``measure`` is the seconds of one measurement, ``rounds`` how often the
    three configurations are compared at the end, ``tuning`` the most that the operator gets."""

    measure: float = 4.0
    rounds: int = 2
    tuning: float = 240.0

    def expected(self, work: Tunable) -> float:
        """About how many seconds a workload takes."""
        each = self.measure + LAG_SECONDS + SETTLE_SECONDS + 1.0
        points = len(work.configurations())
        actions = 1 + 0.5 * points
        return (
            2 * START_ESTIMATE_SECONDS
            + BEFORE_SECONDS[work.type]
            + each * (points + 3 * self.rounds)
            + min(self.tuning, actions * ACTION_ESTIMATE_SECONDS + QUIET_SECONDS)
        )


def run(work: Tunable, plan: Plan, logs: Path, say: Callable[[str], None]) -> Result:
    """The result, be it a failure; nothing is left running, whatever happens."""
    try:
        return _run(work, plan, logs, say)
    except (RunError, OSError, ValueError) as error:
        return Result(
            work.name, work.type.value, work.unit, work.lower_is_better, failure=str(error)
        )


def _run(work: Tunable, plan: Plan, logs: Path, say: Callable[[str], None]) -> Result:
    with ExitStack() as stack:
        session = Session(work, logs, "grid", stack)
        session.start()
        points: list[Point] = []
        for knobs in work.configurations():
            session.apply(knobs)
            points.append(Point(knobs, session.measure(plan.measure)))
            say(f"    {_words(knobs)}: {points[-1].value:.4g} {work.unit}")
        pace = session.pace
    best = oracle(points, work.lower_is_better)
    say(f"  oracle: {_words(best.knobs)}; now the operator")
    with ExitStack() as stack:
        session = Session(work, logs, "tuned", stack)
        session.pace = pace  # measured once: the oracle was found under this load
        session.start()
        session.pass_time(BEFORE_SECONDS[work.type])
        tuned = tune(session, plan.tuning, say)
        end = session.lines[-1][0]
        ours = {**points[0].knobs, **(tuned.knobs or {})}
        say(f"  it stopped at {_words(ours)}: {tuned.stopped[:200]}")
        figures = _compare(session, plan, [points[0].knobs, ours, best.knobs])
        floor, reached, most = figures
        bins = session.bins(tuned.begun, end, BIN_SECONDS)
        return Result(
            name=work.name,
            type=work.type.value,
            unit=work.unit,
            lower_is_better=work.lower_is_better,
            floor=floor,
            ours=reached,
            oracle=most,
            actions=tuned.actions,
            seconds=tuned.seconds,
            below_floor_seconds=below_floor(bins, floor, work.lower_is_better, BIN_SECONDS),
            longest_below_seconds=longest_below(bins, floor, work.lower_is_better, BIN_SECONDS),
            our_knobs=ours,
            oracle_knobs=best.knobs,
            steps=tuned.steps,
            stopped=tuned.stopped,
            grid=points,
            acknowledged=tuned.acknowledged,
            diagnosis=tuned.diagnosis,
        )


def _compare(session: Session, plan: Plan, wanted: list[Knobs]) -> list[float]:
    """What these configurations reach, measured in turn in the same process: the machine is not as
    fast at the end of a run as it was at its beginning. The same one is measured once a round."""
    found: dict[str, list[float]] = {_words(knobs): [] for knobs in wanted}
    for _ in range(plan.rounds):
        for words, knobs in {_words(knobs): knobs for knobs in wanted}.items():
            session.apply(knobs)
            found[words].append(session.measure(plan.measure))
    return [mean(found[_words(knobs)]) for knobs in wanted]


def _words(knobs: Knobs) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(knobs.items()))
