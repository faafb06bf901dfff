"""A stand-in for an API server, and a way to run the command line."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from bottleneck_operator.cli.main import main
from bottleneck_sidecar.wire import PHASES, Container, Sample, TrainingRank, encode

Object = dict[str, Any]

GROUP = "/apis/bottleneck.dev/v1alpha1"


def line(pod: str, number: int, **changes: Any) -> bytes:
    """What the sidecar of a starved trainer says after ``number`` steps, two in a second: four
    fifths of each wait for data."""
    steps, seconds = number, number * 0.5
    rank = TrainingRank(
        epoch=f"epoch-{pod}",
        rank=0,
        world_size=1,
        steps=steps,
        samples=steps * 32,
        step_seconds=seconds,
        seconds={p: {"data": 0.8, "forward": 0.2}.get(p, 0.0) * seconds for p in PHASES},
        last_step_at=1_800_000_000.0 + seconds,
        phase="step",
        cpu_seconds={p: {"data": 0.7, "forward": 0.2}.get(p, 0.0) * seconds for p in PHASES},
        knobs={"dataLoader.workers": 0, "dataLoader.prefetch": 2},
        settable=["dataLoader.workers", "dataLoader.prefetch"],
    )
    container = Container(
        cpu_seconds=seconds * 0.9,
        cpu_limit_cores=4.0,
        periods=number * 5,
        throttled_periods=0,
        throttled_seconds=0.0,
        memory_bytes=10**9,
        memory_limit_bytes=4 * 10**9,
        oom_kills=0,
        node_cpus=8,
        node_busy_seconds=seconds,
        cpus=4,
        epoch="c0",
    )
    fields: Object = {
        "version": 1,
        "time": 1_800_000_000.0 + seconds,
        "sequence": number,
        "agent": f"agent-{pod}",
        "pod": pod,
        "namespace": "ml",
        "uid": f"uid-{pod}",
        "container": container,
        "gpus": [],
        "training": [rank],
        "inference": [],
        "ages": {},
        **changes,
    }
    return encode(Sample(**fields)) + b"\n"


def pod(name: str, injected: bool = True, phase: str = "Running") -> Object:
    labels = {"app": "trainer"} | ({"bottleneck.dev/injected": "true"} if injected else {})
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "ml", "uid": f"uid-{name}", "labels": labels},
        "status": {"phase": phase, "podIP": "127.0.0.1", "conditions": []},
    }


def policy(name: str = "trainer", **spec: Any) -> Object:
    return {
        "apiVersion": "bottleneck.dev/v1alpha1",
        "kind": "BottleneckPolicy",
        "metadata": {"name": name, "namespace": "ml", "uid": "u", "generation": 1},
        "spec": {
            "targetRef": {"apiVersion": "batch/v1", "kind": "Job", "name": "trainer"},
            "objectives": {"dataWait": {"max": "20%"}},
            **spec,
        },
    }


def merge(found: Object, patch: Object) -> None:
    """A JSON merge patch."""
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, dict):
            merge(found.setdefault(name, {}), value)
        else:
            found[name] = value


@dataclass
class StandIn:
    """Answers GETs as an API server does. ``objects`` are answered by their path; a pair of status
    and message is an error. Each pod of ``streams`` speaks through the pod proxy."""

    objects: dict[str, Any] = field(default_factory=dict)
    streams: dict[str, Callable[[int], bytes]] = field(default_factory=dict)
    interval: float = 0.05
    asked: list[str] = field(default_factory=list)
    url: str = ""
    user: str = "alice"
    patches: list[tuple[str, Object]] = field(default_factory=list)
    patched: Callable[[Object], None] = lambda _: None
    """What the operator makes of a change."""

    def pods(self, *pods: Object) -> None:
        """These pods run in namespace ml and nothing else."""
        root = "/api/v1/namespaces/ml/pods"
        self.objects[root] = {"items": list(pods)}
        for one in pods:
            self.objects[f"{root}/{one['metadata']['name']}"] = one

    def policies(self, *policies: Object) -> None:
        """These policies are in namespace ml and nothing else."""
        root = f"{GROUP}/namespaces/ml/bottleneckpolicies"
        self.objects[root] = self.objects[f"{GROUP}/bottleneckpolicies"] = {"items": list(policies)}
        for one in policies:
            self.objects[f"{root}/{one['metadata']['name']}"] = one

    def reports(self, *reports: Object) -> None:
        """These reports are in namespace ml and nothing else."""
        root = f"{GROUP}/namespaces/ml/bottleneckreports"
        self.objects[root] = self.objects[f"{GROUP}/bottleneckreports"] = {"items": list(reports)}
        for one in reports:
            self.objects[f"{root}/{one['metadata']['name']}"] = one

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        found = self.objects.get(request.path)
        if request.path.endswith("/proxy/v1/stream") and found is None:
            return await self._stream(request)
        status, message = found if isinstance(found, tuple) else (404, f"{request.path} not found")
        if isinstance(found, dict):
            return web.json_response(found)
        return web.json_response({"kind": "Status", "message": message}, status=status)

    async def change(self, request: web.Request) -> web.StreamResponse:
        """A merge patch, as it is made by people who may write policies and reports only."""
        found, body = self.objects.get(request.path), await request.json()
        if isinstance(found, tuple) or found is None:
            status, message = found or (404, f"{request.path} not found")
            return web.json_response({"kind": "Status", "message": message}, status=status)
        self.patches.append((request.path, copy.deepcopy(body)))
        assert body["metadata"].pop("uid") == found["metadata"]["uid"]
        merge(found, body)
        self.patched(found)
        return web.json_response(found)

    async def review(self, _: web.Request) -> web.StreamResponse:
        status, body = (201, {"status": {"userInfo": {"username": self.user}}})
        if not self.user:
            status, body = 403, {"kind": "Status", "message": "forbidden"}
        return web.json_response(body, status=status)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        name, _, port = request.path.split("/pods/")[1].split("/")[0].partition(":")
        if name not in self.streams or port != "9709":
            text = "error trying to reach service: dial tcp: connection refused"
            return web.json_response({"message": text}, status=503)
        response = web.StreamResponse()
        await response.prepare(request)
        number = 0
        with suppress(ConnectionError):
            while text := self.streams[name](number):
                await response.write(text)
                number += 1
                await asyncio.sleep(self.interval)
        return response


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of pytest-xdist is told how wide the terminal of the whole run is."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in that the command line takes for its cluster, with a Job in it."""
    made = StandIn()
    made.objects["/apis/batch/v1"] = {
        "resources": [{"name": "jobs", "kind": "Job", "namespaced": True}]
    }
    made.objects["/apis/batch/v1/namespaces/ml/jobs/trainer"] = {
        "metadata": {"name": "trainer", "uid": "job", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "trainer"}}},
        "status": {"active": 1},
    }
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/{path:.*}", made.answer)
        app.router.add_patch("/{path:.*}", made.change)
        reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        app.router.add_post(reviews, made.review)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        return runner

    runners: list[web.AppRunner] = []

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runners.append(loop.run_until_complete(start()))
        loop.run_forever()
        loop.run_until_complete(runners[0].cleanup())
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(10)
    config = tmp_path / "kubeconfig"
    config.write_text(
        yaml.safe_dump(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": made.url}}],
                "users": [{"name": "u", "user": {"token": "secret"}}],
            }
        )
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    yield made
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs the command line in this process."""

    def call(*arguments: str) -> Said:
        try:
            code = main(list(arguments))
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return call


def write_recording(path: Path, seconds: int = 30, **header: Any) -> Path:
    """A recording of a starved trainer, a line a second."""
    first: Object = {
        "recording": 1,
        "createdAt": 1_800_000_000.0,
        "by": "kubectl bottleneck record",
        "pods": ["trainer-0"],
        **header,
    }
    lines = [first]
    for second in range(seconds + 1):
        sample = json.loads(line("trainer-0", second * 2, sequence=second))
        lines.append({"received": 1_800_000_000.0 + second, "sample": sample})
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path
