"""One workload in real processes: the program, its agent, and for a server its load."""

from __future__ import annotations

import json
import random
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bottleneck_operator.act.knobs import annotation
from bottleneck_operator.decide.lifecycle import DesiredKnobs
from bottleneck_operator.observe.history import History
from bottleneck_operator.observe.series import goodput_series, in_force_at, latency_series
from bottleneck_sidecar.wire import Sample, decode_sample

from ..faultfile import Type
from ..processes import Program, RunError, module, wait_until
from .cluster import write_knobs
from .workloads import Knobs, Tunable

START_SECONDS = 90.0
ACKNOWLEDGE_SECONDS = 60.0
MEASURE_LIMIT_SECONDS = 60.0
LAG_SECONDS = 2.0
"""Until what happened now is surely in the recording: its lines come once a second."""

SETTLE_SECONDS = 2.0
"""After a change: workers start, a backlog is worked off."""

PERCENTILE = 95
TRACE_SECONDS = 60.0
LOAD_SECONDS = 1200.0
"""Longer than any session; the load generator makes its whole schedule before it begins."""

FIRST_REQUESTS = 20


class Session:
    """A fresh process with its defaults. Everything it starts ends with ``stack``."""

    def __init__(self, work: Tunable, logs: Path, name: str, stack: ExitStack) -> None:
        self.work = work
        self.name = f"{work.name}-{name}"
        self.logs = logs
        self.stack = stack
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bnt-")))
        self.knobs = self.folder / "knobs"
        self.recording = self.folder / "recording.jsonl"
        self.history = History()
        self.lines: deque[tuple[float, Sample]] = deque()
        """Every line, where ``history`` keeps the last minutes only."""
        self.generation = 0
        self.pace: Sequence[str] = work.pace
        """Of the load; once it has begun, the very same one for another session."""
        self.programs: list[Program] = []
        self._read = 0

    def start(self) -> None:
        """Starts everything; returns when the workload works. Raises ``RunError``."""
        inbox = str(self.folder / "agent.sock")
        agent = module(
            "bottleneck_sidecar.agent",
            *("--socket", inbox, "--port", "0", "--host", "127.0.0.1"),
            *("--record", str(self.recording), "--interval", "1"),
        )
        pod = {"POD_NAME": "pod-0", "POD_NAMESPACE": "tuning"}
        self._program("agent", agent, pod)
        wait_until(lambda: Path(inbox).exists(), START_SECONDS, "the agent did not start")
        options = dict(self.work.options)
        if self.work.type is Type.SERVING:
            options["port"] = _free_port()
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        environment = {**pod, "BOTTLENECK_SOCKET": inbox, "BOTTLENECK_KNOBS": str(self.knobs)}
        self._program("workload", module(self.work.program, *words), environment)
        if self.work.type is Type.SERVING:
            self._send_load(int(options["port"]))
        self._wait(self._works, START_SECONDS, "no step and no answer")
        self.pass_time(SETTLE_SECONDS)

    def _program(self, role: str, command: list[str], environment: dict[str, str]) -> Program:
        log = self.logs / f"{self.name}.{role}.log"
        log.unlink(missing_ok=True)
        program = Program(f"{self.name}: the {role}", command, log, environment=environment)
        self.programs.append(program.start(self.stack))
        return program

    def _send_load(self, port: int) -> None:
        def reachable() -> bool:
            self._check()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            except OSError:
                return False
            return True

        wait_until(reachable, START_SECONDS, f"{self.name}: nothing on its port")
        trace = self.folder / "trace.csv"
        trace.write_text(poisson_trace(TRACE_SECONDS))
        load = module(
            "examples.loadgen",
            *("--target", f"http://127.0.0.1:{port}/generate", "--trace", str(trace)),
            *(
                "--duration",
                f"{TRACE_SECONDS:g}",
                "--seconds",
                f"{LOAD_SECONDS:g}",
                *self.work.pace,
            ),
        )
        program = self._program("load", load, {})

        def begun() -> bool:
            self._check()
            return '"begin"' in program.log.read_text()

        wait_until(begun, START_SECONDS, f"{self.name}: no load")
        told = next(line for line in program.log.read_text().splitlines() if '"begin"' in line)
        self.pace = ("--speed", str(json.loads(told)["speed"]))

    # While it runs

    def _check(self) -> None:
        for program in self.programs:
            program.check()

    def _works(self) -> bool:
        if self.history.last is None:
            return False
        sample = self.history.last[1]
        steps = sum(rank.steps for rank in sample.training)
        return steps > 0 or sum(server.requests for server in sample.inference) > FIRST_REQUESTS

    def pump(self) -> bool:
        """Takes what the agent has recorded since; whether there was anything. Raises ``RunError``
        if a process has ended."""
        self._check()
        if not self.recording.exists():
            return False
        with self.recording.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._read += end
        found = False
        for line in data[:end].splitlines():
            document = json.loads(line)
            if "sample" in document:
                sample = decode_sample(json.dumps(document["sample"]).encode())
                self.lines.append((document["received"], sample))
                found |= self.history.add(document["received"], sample)
        return found

    def pass_time(self, seconds: float) -> None:
        """Lets it run for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.pump()
            time.sleep(0.05)

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        def pumped() -> bool:
            self.pump()
            return condition()

        wait_until(pumped, seconds, f"{self.name}: {what}")

    def apply(self, knobs: Knobs) -> float:
        """Puts knobs in force, without the operator; the seconds it took. Raises ``RunError`` if
        they are refused."""
        self.generation += 1
        generation, begun = self.generation, time.time()
        write_knobs(self.knobs, annotation(DesiredKnobs(generation, knobs)))

        def in_force() -> bool:
            assert self.history.last is not None
            sample = self.history.last[1]
            answers = [each.acknowledgement for each in sample.training]
            answers += [each.acknowledgement for each in sample.inference]
            for told in answers:
                if told and told.generation == generation and told.result == "Refused":
                    raise RunError(f"{self.name}: {knobs} were refused: {told.message}")
            return in_force_at([self.history], generation) is not None

        self._wait(in_force, ACKNOWLEDGE_SECONDS, f"{knobs} not acknowledged")
        self.pass_time(SETTLE_SECONDS)
        return (in_force_at([self.history], generation) or begun) - begun

    def measure(self, seconds: float) -> float:
        """The figure that counts, over so many seconds from now on; over longer, up to
        ``MEASURE_LIMIT_SECONDS``, where a step takes longer (16 bits without hardware for them)."""
        begun = time.time()
        self.pass_time(seconds + LAG_SECONDS)
        while not (found := self.bins(begun, begun + seconds, seconds)):
            if seconds >= MEASURE_LIMIT_SECONDS:
                raise RunError(f"{self.name}: nothing was measured in {seconds:g} s")
            self.pass_time(seconds)
            seconds *= 2
        return found[0]

    def bins(self, start: float, end: float, width: float) -> list[float]:
        """The same between two moments (seconds since the Unix epoch), for bins of that width."""
        everything = [History(samples=self.lines)]
        if self.work.lower_is_better:
            return latency_series(everything, start, end, width, PERCENTILE)
        return goodput_series(everything, start, end, width)


def poisson_trace(seconds: float, rate: float = 20.0, seed: int = 7) -> str:
    """Requests that come independently of each other, as the load generator reads them."""
    draw = random.Random(seed)  # noqa: S311
    rows, at = ["TIMESTAMP,ContextTokens,GeneratedTokens"], 0.0
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    while at < seconds:
        stamp = (begin + timedelta(seconds=at)).strftime("%Y-%m-%d %H:%M:%S.%f")
        rows.append(f"{stamp},{draw.randint(100, 4000)},16")
        at += draw.expovariate(rate)
    return "\n".join(rows) + "\n"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
