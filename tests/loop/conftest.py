"""The operator under test is a process of its own on this machine; the cluster is the real one."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from bottleneck_operator.inject.pod import InjectSettings, inject

ROOT = Path(__file__).parents[2]
LOCALCLUSTER = [sys.executable, str(ROOT / "hack" / "localcluster")]
SETTINGS = InjectSettings(image="bottleneck/sidecar:dev")

Object = dict[str, Any]

OWN = "apis/bottleneck.dev/v1alpha1"
PLACES = {
    "bnp": f"{OWN}/bottleneckpolicies",
    "bnr": f"{OWN}/bottleneckreports",
    "deploy": "apis/apps/v1/deployments",
    "events": "api/v1/events",
    "hpa": "apis/autoscaling/v2/horizontalpodautoscalers",
    "job": "apis/batch/v1/jobs",
    "pod": "api/v1/pods",
    "pods": "api/v1/pods",
}
"""Where the API server has the kinds that tests wait for; others are asked for with kubectl."""


def until(what: str, condition: Callable[[], Any], seconds: float = 120) -> Any:
    """What ``condition`` gives once it is true; fails with ``what`` after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f}s: {what}")
        time.sleep(0.2)


@dataclass
class Operator:
    """One operator process."""

    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    metrics_port: int = 0
    arguments: tuple[str, ...] = ()

    def start(self) -> None:
        """Starts the process and waits until it says that it lives."""
        ports = [_free_port(), _free_port()]
        self.metrics_port = ports[1]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(Path(sys.executable).parent / "bottleneck-operator"),
                    *("--health-port", str(ports[0]), "--metrics-port", str(ports[1])),
                    *self.arguments,
                ],
                env=self.env,
                stdout=log,
                stderr=log,
            )

        def listening() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                pytest.fail(f"the operator ended: {self.log.read_text()[-3000:]}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", ports[0])) == 0

        until("the operator serves /healthz", listening, 180)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends the process and waits for its end; one that does not end when it is asked to fails
        the test, and is not left running among the tests that follow."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(60)
                pytest.fail(f"the operator did not end on signal {number}")


@dataclass
class World:
    """A namespace with workloads, policies, and what is asked of them."""

    cluster: Any
    namespace: str
    applied: list[Object] = field(default_factory=list)

    def kubectl(self, *arguments: str, **options: Any) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, **options)

    def apply(self, document: Object) -> None:
        self.kubectl("apply", "-f", "-", input=yaml.safe_dump(document))

    def get(self, kind: str, name: str) -> Object:
        if kind in PLACES:
            return self._read(kind, f"/{name}")
        found = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(found) if found else {}

    def list(self, kind: str) -> list[Object]:
        return self._read(kind).get("items", [])

    def _read(self, kind: str, name: str = "") -> Object:
        group, _, plural = PLACES[kind].rpartition("/")
        path = f"{group}/namespaces/{self.namespace}/{plural}{name}"
        found: Object = self.cluster.read(path)
        return found

    def status(self, policy: str) -> Object:
        """A policy's status, empty before the first."""
        found: Object = self.get("bnp", policy).get("status", {})
        return found

    def condition(self, policy: str, kind: str) -> tuple[str, str]:
        """Status and reason of a policy's condition."""
        for condition in self.status(policy).get("conditions", []):
            if condition["type"] == kind:
                return condition["status"], condition["reason"]
        return "", ""

    def message(self, policy: str, kind: str) -> str:
        """The words of a policy's condition."""
        conditions = self.status(policy).get("conditions", [])
        return next((c["message"] for c in conditions if c["type"] == kind), "")

    def bottleneck(self, policy: str) -> str:
        """Id of the cause that a policy's status names."""
        return str(self.status(policy).get("bottleneck", {}).get("id", ""))

    def reports(self, *phases: str) -> list[Object]:
        """Reports in one of the phases (all by default), oldest first."""
        found = [
            r
            for r in self.list("bnr")
            if not phases or r.get("status", {}).get("phase", "Planned") in phases
        ]
        return sorted(found, key=lambda r: r["spec"]["decidedAt"])

    def events(self, policy: str) -> set[str]:
        """Reasons of the events about a policy."""
        listed = self.list("events")
        return {e["reason"] for e in listed if e["involvedObject"]["name"] == policy}

    def knobs(self, pod: str) -> Object:
        text = self.get("pod", pod)["metadata"].get("annotations", {}).get("bottleneck.dev/knobs")
        return json.loads(text) if text else {}

    def pods(self) -> list[str]:
        return [
            pod["metadata"]["name"]
            for pod in self.list("pods")
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def job(self, name: str, behaviour: str = "starved", sidecar: bool = True) -> None:
        """A Job of one stand-in trainer."""
        pod = _pod(["trainer", behaviour], sidecar) | {}
        pod["spec"]["restartPolicy"] = "Never"
        spec = {"backoffLimit": 0, "template": pod}
        metadata = {"name": name}
        self.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})

    def deployment(
        self,
        name: str,
        *behaviour: str,
        resources: Object | None = None,
        replicas: int = 1,
        shared: Path | None = None,
    ) -> None:
        """A Deployment of stand-in servers, by default of those that always queue. ``resources``
        takes the place of those of the container; ``shared`` is a folder of this machine that its
        pods share as /shared."""
        pod = _pod(list(behaviour) or ["server", "queueing"], True)
        if resources is not None:
            pod["spec"]["containers"][0]["resources"] = resources
        pod["metadata"]["labels"]["app"] = name
        if shared is not None:
            volume = {"name": "shared", "hostPath": {"path": str(shared), "type": "Directory"}}
            pod["spec"].setdefault("volumes", []).append(volume)
            mount = {"name": "shared", "mountPath": "/shared"}
            pod["spec"]["containers"][0].setdefault("volumeMounts", []).append(mount)
        selector = {"matchLabels": {"app": name}}
        spec = {"replicas": replicas, "selector": selector, "template": pod}
        metadata = {"name": name}
        self.apply(
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
        )

    def policy(self, name: str, kind: str = "Job", target: str | None = None, **spec: Any) -> None:
        """A policy in mode Auto with everything allowed, unless told otherwise."""
        serving = kind == "Deployment"
        objectives: Object = (
            {"latency": {"target": "250ms"}} if serving else {"dataWait": {"max": "20%"}}
        )
        body: Object = {
            "mode": "Auto",
            "targetRef": {
                "apiVersion": "apps/v1" if serving else "batch/v1",
                "kind": kind,
                "name": target or name,
            },
            "objectives": objectives,
            "actions": {"replicas": {"max": 3}} if serving else {"dataLoader": {"maxWorkers": 2}},
        }
        self.apply(
            {
                "apiVersion": "bottleneck.dev/v1alpha1",
                "kind": "BottleneckPolicy",
                "metadata": {"name": name},
                "spec": body | spec,
            }
        )


def _pod(arguments: list[str], sidecar: bool) -> Object:
    script = (Path(__file__).parent / "stand_in.py").read_text()
    pod: Object = {
        "metadata": {"labels": {}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "main",
                    "image": "bottleneck/sidecar:dev",
                    "command": ["/opt/bottleneck/bin/python", "-c", script, *arguments],
                    "resources": {"requests": {"cpu": "10m"}},
                }
            ],
        },
    }
    return inject(pod, SETTINGS) if sidecar else pod


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def world(cluster: Any, namespace: str, crds: None) -> World:
    """A fresh namespace with the CRDs installed and no operator running yet."""
    return World(cluster, namespace)


@pytest.fixture
def operator(world: World, tmp_path: Path) -> Iterator[Operator]:
    """An operator, started; it is killed in the end, and its log shown when the test failed."""
    made = Operator(world.cluster.env, tmp_path / "operator.log")
    made.start()
    yield made
    # Shown by pytest when the test failed: what was done, and what the operator said.
    for policy in world.list("bnp"):
        print(json.dumps(policy.get("status", {}), indent=1))
    for report in world.reports():
        print(json.dumps(report.get("status", {}), indent=1))
    made.kill(signal.SIGTERM)
    print(made.log.read_text()[-8000:])


@pytest.fixture
def agents(world: World) -> Callable[[], list[int]]:
    """Gives the process ids, on this machine, of the agents of this namespace's pods."""

    def find() -> list[int]:
        uids = {pod["metadata"]["uid"] for pod in world.list("pods")}
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"bottleneck-agent" in command and any(
                f"POD_UID={uid}".encode() in environment for uid in uids
            ):
                found.append(int(entry.name))
        return found

    return find
