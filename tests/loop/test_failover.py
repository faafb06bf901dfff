"""Two operators, one Lease: whoever leads may end or be held up in the middle of an action."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from .conftest import Operator, World, until

pytestmark = pytest.mark.cluster

Pair = dict[str, Operator]


@pytest.fixture
def pair(world: World, tmp_path: Path) -> Iterator[Pair]:
    """Two operators of one Lease, by name; the first one leads."""
    arguments = ("--leader-elect", "--leader-elect-resource-namespace", world.namespace)
    made: Pair = {}
    try:
        for name in ("one", "two"):
            env, log = {**world.cluster.env, "POD_NAME": name}, tmp_path / f"{name}.log"
            made[name] = Operator(env, log, arguments=arguments)
            made[name].start()
            until("the first one leads", lambda: leader(world) == "one", 30)
        yield made
    finally:
        for report in world.reports():
            print(report.get("status", {}))
        for name, each in made.items():
            if each.process is not None and each.process.poll() is None:
                each.process.send_signal(signal.SIGCONT)
            each.kill()
            print(f"--- {name}\n{each.log.read_text()[-4000:]}")


def leader(world: World) -> str:
    """Name of the operator that holds the Lease, empty while none does."""
    spec: dict[str, Any] = world.get("lease", "bottleneck-operator").get("spec", {})
    return str(spec.get("holderIdentity", "")).rpartition("_")[0]


def gauge(operator: Operator) -> float:
    """What an operator says of itself: 1 where it acts."""
    page = requests.get(f"http://127.0.0.1:{operator.metrics_port}/metrics", timeout=5).text
    (line,) = [line for line in page.splitlines() if line.startswith("bottleneck_leader ")]
    return float(line.split()[1])


def applied(report: dict[str, Any]) -> int:
    """How often a report's action was brought about."""
    return sum(entry["what"] == "ActionApplied" for entry in report["status"]["timeline"])


def followed(world: World, what: str, begun: float) -> None:
    """Waits until the second one leads and has written a status; tells how long it took."""
    until("the second one leads", lambda: leader(world) == "two", 30)
    led = time.monotonic() - begun
    lease = world.get("lease", "bottleneck-operator")
    assert lease["spec"]["leaseTransitions"] == 2
    print(f"{what}: the Lease was taken over after {led:.1f}s")


def test_a_leader_that_is_killed_is_followed_by_the_one_that_stands_by(
    world: World, pair: Pair
) -> None:
    assert (gauge(pair["one"]), gauge(pair["two"])) == (1, 0)
    world.job("trainer")
    world.policy("trainer")
    until("an intent is recorded", lambda: world.reports())
    pair["one"].kill(signal.SIGKILL)
    begun = time.monotonic()
    followed(world, "SIGKILL", begun)
    before = len(world.reports("Kept"))
    until("the action is kept", lambda: world.reports("Kept"), 120)
    print(f"SIGKILL: an action of {before} was kept after {time.monotonic() - begun:.1f}s")
    (report,) = world.reports()
    (pod,) = world.pods()
    assert applied(report) == 1
    assert world.knobs(pod)["generation"] == 1

    # Another one stands by now, and gets the Lease as soon as it is given up.
    pair["one"].start()
    pair["two"].kill(signal.SIGTERM)
    begun = time.monotonic()
    until("the new one leads", lambda: leader(world) == "one", 30)
    print(f"SIGTERM: the Lease was taken over {time.monotonic() - begun:.1f}s after the end")
    assert gauge(pair["one"]) == 1


def test_a_leader_that_was_held_up_does_nothing_when_it_wakes(world: World, pair: Pair) -> None:
    world.job("trainer")
    world.policy("trainer")
    until("an intent is recorded", lambda: world.reports())
    late = pair["one"].process
    assert late is not None
    late.send_signal(signal.SIGSTOP)
    followed(world, "SIGSTOP", time.monotonic())
    until("the action is kept", lambda: world.reports("Kept"), 120)
    # What limits the workload next is written a turn later; nothing else follows.
    until("its next constraint is named", lambda: world.reports()[0]["status"].get("next"), 60)

    def told() -> tuple[Any, ...]:
        (report,), (pod,) = world.reports(), world.list("pods")
        return report["metadata"]["resourceVersion"], pod["metadata"]["annotations"]

    before = told()
    late.send_signal(signal.SIGCONT)
    assert late.wait(60) == 1  # another one leads: it ends, and its successor would stand by
    assert told() == before
    assert applied(world.reports()[0]) == 1
    assert leader(world) == "two"
    assert gauge(pair["two"]) == 1
