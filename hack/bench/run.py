"""One run: starts the workload and the agent, injects the fault, and leaves a recording."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bottleneck_sidecar import wire

from .cgroups import Cgroup
from .faultfile import Load, Planned, Type, Value, Workload
from .network import Network
from .processes import Program, RunError, module, wait_until

START_SECONDS = 90.0
"""Longest wait for the first step or for a server: a CPU limit can make torch's import slow."""

PROBE_SECONDS = 60.0
INTERVAL_SECONDS = 1.0
RESTART_SECONDS = 0.5
FIRST_REQUESTS = 3
TOOLS_WEIGHT = 4
SETTLE_SECONDS = 4.0
"""How long a process may go on allocating what it needs before its use of memory is measured."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are: the data sets, the recordings, the logs."""

    data: Path
    recordings: Path
    logs: Path
    scratch: Path


class Run:
    """A run in progress. Everything it starts ends with its ``stack``."""

    def __init__(self, planned: Planned, place: Place, stack: ExitStack) -> None:
        assert planned.fault.workload is not None
        self.planned = planned
        self.fault = planned.fault
        self.inject = planned.fault.inject
        self.work: Workload = planned.fault.workload
        self.place = place
        self.stack = stack
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bnf-")))
        self.pods: list[Pod] = []
        self.port = 0
        # What drives and watches the workload must get its CPU whatever the workload suffers from.
        self.tools = Cgroup(f"{planned.id}-tools")
        stack.callback(self.tools.remove)
        self.tools.weigh(TOOLS_WEIGHT)

    def execute(self) -> Path:
        """Runs it to the end; the path of the recording."""
        network = Network(self.work.ranks, self.stack) if self.work.ranks > 1 else None
        for number in range(self.work.ranks):
            self.pods.append(Pod(self, number))
        options = self._dependency()
        if self.inject.from_start:
            self._inject(network)
            self._record()
        else:
            self._listen()
        for pod in self.pods:
            pod.start(options, network)
        if self.inject.from_start:
            self._send_load()
        else:
            self._wait(lambda pod: pod.speaks, "no sign of the SDK")
            self._send_load()
            self._wait(lambda pod: pod.works, "no step and no answer")
            for pod in self.pods:
                pod.close()  # the agent takes over the socket
            if self.inject.memory_headroom:
                time.sleep(SETTLE_SECONDS)
            if not self.inject.after:
                self._inject(network)
            self._record()
        self._let_pass(network)
        return self._finish()

    # Before

    def _dependency(self) -> dict[str, Value]:
        """Starts the dependency; the options that tell the server of it."""
        wanted = self.inject.dependency
        if wanted is None:
            return {}
        command = module(
            "hack.bench.workloads.dependency",
            *("--delay", str(wanted.delay), "--seed", str(self.planned.seed)),
            *("--later-delay", str(wanted.later_delay), "--later-after", str(wanted.later_after)),
        )
        log = self.log("dependency")
        program = Program("the dependency", command, log, cgroup=self.tools).start(self.stack)
        port = self._told(program, "port")
        return {"dependency-url": f"http://127.0.0.1:{port}/", "dependency-name": wanted.name}

    def _listen(self) -> None:
        for pod in self.pods:
            pod.listen()

    def _wait(self, done: Callable[[Pod], bool], what: str) -> None:
        """Until that is so of every pod, as its process tells."""

        def all_done() -> bool:
            for pod in self.pods:
                pod.program.check()
                pod.hear()
            return all(done(pod) for pod in self.pods)

        wait_until(all_done, START_SECONDS, f"{self.planned.id}: {what}")

    def _send_load(self) -> None:
        load = self.fault.load
        if load is None:
            return
        wait_until(self._reachable, START_SECONDS, f"{self.planned.id}: nothing on its port")
        log = self.log("load")
        program = Program("the load", self._load_command(load), log, cgroup=self.tools)
        program.start(self.stack)
        wait_until(lambda: _begun(program), PROBE_SECONDS, f"{self.planned.id}: no load")

    def _reachable(self) -> bool:
        self.pods[0].program.check()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        except OSError:
            return False
        return True

    def _load_command(self, load: Load) -> list[str]:
        trace, start = [], load.start
        if load.trace:
            trace = ["--trace", str(self.planned.path.parent.resolve() / load.trace)]
        else:
            start = (start + 7.0 * self.planned.seed) % 45.0  # other arrivals with each seed
        pace = ("--rate", load.rate) if load.rate else ("--utilization", load.utilization)
        return module(
            "examples.loadgen",
            *trace,
            *("--target", f"http://127.0.0.1:{self.port}{load.path}"),
            *("--start", f"{start:g}", "--duration", f"{load.duration:g}"),
            *("--timeout", f"{load.timeout:g}", "--seconds", "86400", pace[0], f"{pace[1]:g}"),
        )

    # The fault

    def _inject(self, network: Network | None) -> None:
        inject = self.inject
        for pod in self.pods:
            pod.limit()
        if inject.competing_cpu:
            cgroup = Cgroup(f"{self.planned.id}-neighbours")
            self.stack.callback(cgroup.remove)
            cgroup.weigh(inject.competing_cpu)
            count = str(inject.competing_cpu)
            command = module("hack.bench.workloads.hog", "--processes", count)
            Program("the neighbours", command, self.log("neighbours"), cgroup=cgroup).start(
                self.stack
            )
        if inject.network_bits_per_second and network is not None:
            network.shape(self.work.ranks, inject.network_bits_per_second)

    def _record(self) -> None:
        for pod in self.pods:
            pod.record()

    def _let_pass(self, network: Network | None) -> None:
        """Waits for the end of the recording; starts again what ends, where that is wanted."""
        began = time.monotonic()
        injected = self.inject.from_start or not self.inject.after
        while (passed := time.monotonic() - began) < self.fault.seconds:
            if not injected and passed >= self.inject.after:
                self._inject(network)
                injected = True
            for pod in self.pods:
                pod.look_after(self.inject.restart)
            time.sleep(0.1)

    # After

    def _finish(self) -> Path:
        lines: list[tuple[float, str]] = []
        header: dict[str, object] = {}
        for pod in self.pods:
            first, rest = pod.recorded()
            pods = [*header.get("pods", []), *first.get("pods", [pod.name])]  # type: ignore[misc]
            header = {**first, "pods": pods}
            lines += rest
        lines.sort(key=lambda line: line[0])  # stable: one pod's lines stay in their order
        if self.inject.facts or self.inject.texts:
            facts = {"facts": self.inject.facts, "texts": self.inject.texts}
            at = lines[-1][0] if lines else time.time()
            lines.append((at, json.dumps({"received": at, **facts})))
        path = self.place.recordings / f"{self.planned.id}.jsonl"
        path.write_text(
            "".join(f"{line}\n" for line in [json.dumps(header), *(t for _, t in lines)])
        )
        return path

    # Helpers

    def log(self, name: str) -> Path:
        """Where a program's output goes."""
        return self.place.logs / f"{self.planned.id}.{name}.log"

    def _told(self, program: Program, key: str) -> int:
        """A number that a program prints as JSON when it is ready."""
        found: list[int] = []

        def told() -> bool:
            program.check()
            for line in program.log.read_text().splitlines():
                if line.startswith("{") and key in (document := json.loads(line)):
                    found.append(int(document[key]))
            return bool(found)

        wait_until(told, START_SECONDS, f"{program.name} did not start")
        return found[-1]


class Pod:
    """One process of the workload with its agent, in a cgroup of its own."""

    def __init__(self, run: Run, number: int) -> None:
        self.run = run
        self.number = number
        kind = "trainer" if run.work.type is Type.TRAINING else "server"
        self.name = f"{kind}-{number}"
        self.socket = str(run.folder / f"{self.name}.sock")
        self.recording = run.folder / f"{self.name}.jsonl"
        self.cgroup = Cgroup(f"{run.planned.id}-{number}")
        run.stack.callback(self.cgroup.remove)
        self.inbox: socket.socket | None = None
        self.speaks = self.works = False
        self.agent: Program | None = None
        self.ended_at: float | None = None
        self.program: Program

    def start(self, extra: dict[str, Value], network: Network | None) -> None:
        """Starts the workload's process."""
        run, work = self.run, self.run.work
        if work.type is Type.SERVING:
            run.port = _free_port()
        environment = {
            **work.environment,
            **run.inject.environment,
            "BOTTLENECK_SOCKET": self.socket,
            "POD_NAME": self.name,
        }
        prefix: list[str] = []
        if network is not None:
            environment |= {"RANK": str(self.number), "WORLD_SIZE": str(work.ranks)}
            environment |= network.environment()
            prefix = network.prefix(self.number)
        log = run.log(self.name)
        log.unlink(missing_ok=True)
        self.program = Program(
            f"the workload {self.name}",
            [*prefix, *self._command(extra)],
            log,
            cgroup=self.cgroup,
            environment=environment,
            **({"folder": run.planned.path.parent.resolve()} if work.command else {}),
        ).start(run.stack)

    def _command(self, extra: dict[str, Value]) -> list[str]:
        run, work = self.run, self.run.work
        slow = run.inject.slow_rank
        options = {**run.planned.options, **extra}
        if slow and slow.rank == self.number:
            options |= slow.options
        if work.command:
            known = {
                "python": module("")[0],
                "folder": str(run.planned.path.parent.resolve()),
                "port": str(run.port),
                "seed": str(run.planned.seed),
                "model": run.planned.model,
                "data": str(run.place.data),
                "scratch": str(run.place.scratch),
                **{name.replace("-", "_"): str(value) for name, value in options.items()},
            }
            try:
                return [word.format(**known) for word in work.command]
            except (KeyError, IndexError, ValueError) as error:
                raise RunError(
                    f"workload.command: {error} cannot be filled in; there are"
                    f" {', '.join(sorted(known))}"
                ) from None
        fixed: dict[str, Value] = {
            "model": run.planned.model,
            "seed": run.planned.seed,
            "scratch": str(run.place.scratch),
        }
        if work.type is Type.TRAINING:
            fixed["data"] = str(run.place.data)
        else:
            fixed["port"] = run.port
        return module(f"hack.bench.workloads.{work.type}", *_words({**fixed, **options}))

    def listen(self) -> None:
        """Takes the place of the agent until the workload works."""
        self.inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.inbox.bind(self.socket)
        self.inbox.setblocking(False)
        self.run.stack.callback(self.close)

    def hear(self) -> None:
        """Takes what the process has told: whether it has ended a step or answered requests."""
        while self.inbox is not None:
            try:
                report = wire.decode_report(self.inbox.recv(wire.MAX_BYTES))
            except BlockingIOError:
                return
            self.speaks = True
            if report.training is not None:
                self.works |= report.training.steps > 0
            if report.inference is not None:
                self.works |= report.inference.requests >= FIRST_REQUESTS

    def close(self) -> None:
        """Gives the socket to the agent."""
        if self.inbox is not None:
            self.inbox.close()
            self.inbox = None

    def limit(self) -> None:
        """Sets the limits of this pod's cgroup."""
        inject, cgroup = self.run.inject, self.cgroup
        slow = inject.slow_rank
        cores = inject.cpu_quota_cores
        if slow and slow.rank == self.number and slow.cpu_quota_cores:
            cores = slow.cpu_quota_cores
        if cores:
            cgroup.limit_cpu(cores)
        if inject.memory_limit:
            cgroup.limit_memory(inject.memory_limit)
        if inject.memory_headroom:
            cgroup.limit_memory(cgroup.kept_bytes() + inject.memory_headroom)
        if inject.storage_bytes_per_second:
            cgroup.limit_reads(inject.storage_bytes_per_second, self.run.place.data)

    def record(self) -> None:
        """Starts the agent, which writes the recording."""
        command = module(
            "bottleneck_sidecar.agent",
            *("--socket", self.socket, "--port", "0", "--host", "127.0.0.1"),
            *("--record", str(self.recording), "--interval", f"{INTERVAL_SECONDS:g}"),
        )
        log = self.run.log(f"{self.name}-agent")
        log.unlink(missing_ok=True)
        environment = {"POD_NAME": self.name, "POD_NAMESPACE": "faults"}
        tools = self.run.tools
        agent = Program("the agent", command, log, cgroup=tools, environment=environment)
        self.agent = agent.start(self.run.stack)

        def listens() -> bool:
            agent.check()
            return os.path.exists(self.socket) and "port" in agent.log.read_text()

        wait_until(listens, START_SECONDS, "the agent did not start")

    def look_after(self, restart: bool) -> None:
        """Starts the program again where that is wanted. Raises ``RunError`` where it is not."""
        assert self.agent is not None
        self.agent.check()
        if self.program.status is None:
            return
        if not restart:
            self.program.check()
        now = time.monotonic()
        if self.ended_at is None:
            self.ended_at = now
        elif now - self.ended_at >= RESTART_SECONDS:
            self.ended_at = None
            self.program.stop()
            self.program.start(self.run.stack)

    def recorded(self) -> tuple[dict[str, list[str]], list[tuple[float, str]]]:
        """The header and the lines with their times."""
        assert self.agent is not None
        self.agent.stop()
        lines = self.recording.read_text().splitlines()
        if len(lines) < 2:
            raise RunError(f"the recording is empty:\n{self.agent.tail()}")
        return json.loads(lines[0]), [(json.loads(line)["received"], line) for line in lines[1:]]


def execute(planned: Planned, place: Place) -> Path:
    """Runs one fault and gives the path of its recording; nothing is left running, whatever
    happens. Raises ``RunError``, ``CgroupError`` or ``NetworkError``."""
    for old in place.logs.glob(f"{planned.id}.*.log"):
        old.unlink()
    with ExitStack() as stack:
        return Run(planned, place, stack).execute()


def _words(options: dict[str, Value]) -> list[str]:
    """Options of a command line: true gives the bare option, false none."""
    words: list[str] = []
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not False:
            words += [f"--{name}", str(value)]
    return words


def _begun(program: Program) -> bool:
    program.check()
    return '"begin"' in program.log.read_text()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
