"""At most one process holds the Lease at any moment, whatever networks, clocks and pauses do."""

from __future__ import annotations

import asyncio
import copy
import random
import selectors
from collections.abc import Callable
from typing import Any

import pytest
from bottleneck_operator.controller.lease import LEASE_SECONDS, Election, LostError
from bottleneck_operator.kube import Kube, KubeError, NotLeaderError

from .objects import Object

HOUR = 3600.0


class _Skipping(selectors.SelectSelector):
    """Waits for nothing: the clock jumps to when something is due."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return []


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop in which an hour takes a moment."""

    def __init__(self) -> None:
        self.clock = _Skipping()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def live(main: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(main())


class Leases:
    """The API server's part: one Lease, with versions."""

    def __init__(self, delay: Callable[[], float] = lambda: 0.0) -> None:
        self.delay = delay
        self.down = False
        self.lease: Object | None = None
        self.version = 0

    async def request(
        self, method: str, path: str, body: Any = None, seconds: float = 10.0
    ) -> Object:
        async with asyncio.timeout(seconds):
            await asyncio.sleep(self.delay())
            if self.down:
                raise ConnectionError
            answer = self._answer(method, body)
            await asyncio.sleep(self.delay())
            return answer

    def _answer(self, method: str, body: Any) -> Object:
        if method == "POST":
            if self.lease is not None:
                raise KubeError(409, "exists")
            self.lease = copy.deepcopy(body)
        elif self.lease is None:
            raise KubeError(404, "not found")
        elif method == "PUT":
            if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                raise KubeError(409, "modified")
            self.lease = copy.deepcopy(body)
        if method != "GET":
            self.version += 1
            self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)

    @property
    def holder(self) -> str:
        return str((self.lease or {}).get("spec", {}).get("holderIdentity", ""))


def election(leases: Leases, who: str, clock: Callable[[], float] | None = None) -> Election:
    door: Any = leases
    loop = asyncio.get_running_loop()
    return Election(door, "ns", "operator", who=who, clock=clock or loop.time)


@pytest.mark.parametrize("seed", range(8))
def test_two_never_hold_it_at_once(seed: int) -> None:
    chance = random.Random(seed)
    pauses = [0.0, 0.1, 1.9, 5.0, 15.0, 60.0]
    leases = Leases(lambda: chance.choices(pauses, [60, 20, 5, 3, 2, 1])[0])
    elections: list[Election] = []
    led: set[str] = set()

    async def process(number: int) -> None:
        """Leads, dies or is overtaken, and is started again; clocks differ in time and speed."""
        loop = asyncio.get_running_loop()
        while True:
            # The holder's own clock may be slow, and its follower's fast.
            fast, offset = chance.uniform(0.98, 1.02), chance.uniform(0, 1e6)
            mine = election(leases, f"{number}", lambda f=fast, o=offset: o + f * loop.time())
            mine.who = mine.identity  # no other process's name, as outside of a pod
            elections.append(mine)
            await mine.acquire()
            led.add(mine.identity)
            try:
                async with asyncio.timeout(chance.choice([1, 5, 30, 300, 1000])):
                    await mine.keep()
            except LostError:
                pass
            except TimeoutError:
                if chance.random() < 0.5:
                    await mine.release()
            await asyncio.sleep(chance.choice([0.0, 1.0, 30.0]))

    async def main() -> None:
        tasks = [asyncio.create_task(process(number)) for number in range(3)]
        loop = asyncio.get_running_loop()
        while loop.time() < HOUR:
            leases.down = chance.random() < 0.02
            assert sum(each.left() > 0 for each in elections) <= 1
            await asyncio.sleep(chance.uniform(0.01, 1.0))
        for task in tasks:
            assert not task.done(), task
            task.cancel()

    live(main)
    assert len(led) > 3


def test_one_that_is_not_heard_of_any_more_is_followed_in_time() -> None:
    leases = Leases()
    waited: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for begun in range(20):
            first, second = election(leases, f"a{begun}"), election(leases, f"b{begun}")
            await first.acquire()
            keeping = asyncio.create_task(first.keep())
            following = asyncio.create_task(second.acquire())
            await asyncio.sleep(30 + begun * 0.37)
            keeping.cancel()  # it is killed
            died = loop.time()
            await following
            waited.append(loop.time() - died)
            await second.release()

    live(main)
    # From a renewal that was just sent to one that was just due, and one look.
    assert max(waited) <= LEASE_SECONDS + 1.5
    assert min(waited) >= LEASE_SECONDS - 2.5


def test_one_that_is_given_up_is_followed_at_once() -> None:
    leases = Leases()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        first, second = election(leases, "a"), election(leases, "b")
        await first.acquire()
        following = asyncio.create_task(second.acquire())
        await asyncio.sleep(5)
        await first.release()
        gone = loop.time()
        await following
        assert loop.time() - gone <= 1.0
        assert first.left() <= 0 < second.left()
        assert leases.lease is not None
        assert leases.lease["spec"]["leaseTransitions"] == 2

    live(main)


def test_a_container_that_was_started_again_does_not_wait_for_itself() -> None:
    leases = Leases()

    async def main() -> None:
        first, again = election(leases, "pod-1"), election(leases, "pod-1")
        await first.acquire()
        await again.acquire()
        assert asyncio.get_running_loop().time() == 0
        assert leases.holder == again.identity != first.identity

    live(main)


def test_an_api_server_that_was_away_costs_the_lease_only_where_another_took_it() -> None:
    leases = Leases()

    async def main() -> None:
        mine = election(leases, "a")
        await mine.acquire()
        keeping = asyncio.create_task(mine.keep())
        await asyncio.sleep(3)
        leases.down = True
        await asyncio.sleep(60)
        assert mine.left() < 0  # nothing is written meanwhile
        leases.down = False
        await asyncio.sleep(3)
        assert mine.left() > 0
        assert not keeping.done()

        leases.down = True
        await asyncio.sleep(60)
        taken = copy.deepcopy(leases.lease or {})
        taken["spec"]["holderIdentity"] = "b_1"
        leases._answer("PUT", taken)
        leases.down = False
        with pytest.raises(LostError, match="b_"):
            await keeping

    live(main)


def test_a_lease_that_was_deleted_is_nobodys() -> None:
    leases = Leases()

    async def main() -> None:
        mine, other = election(leases, "a"), election(leases, "b")
        await mine.acquire()
        following = asyncio.create_task(other.acquire())
        await asyncio.sleep(3)
        leases.lease = None
        with pytest.raises(LostError, match="deleted"):
            await mine.keep()
        assert not following.done()
        await following
        assert mine.left() <= 0 < other.left()

    live(main)


def test_a_write_begins_only_with_time_to_end_in() -> None:
    answers: list[tuple[Any, float]] = []

    class Api:
        async def param_serialize(self, **request: Any) -> tuple[Any]:
            return (request["query_params"],)

        async def call_api(self, query: Any, _request_timeout: float) -> Any:
            answers.append((query, _request_timeout))
            return Answer()

    class Answer:
        status = 200

        async def read(self) -> bytes:
            return b"{}"

    api: Any = Api()
    kube, left = Kube(api), 3.0
    kube.fence = lambda: left
    asyncio.run(kube.patch("/x", {}))
    assert answers == [([("timeout", "3.0s")], 3.0)]
    left = 0.5
    with pytest.raises(NotLeaderError):
        asyncio.run(kube.patch("/x", {}))
    asyncio.run(kube.get("/x"))  # to look is free
    assert answers[1:] == [([], 10.0)]
