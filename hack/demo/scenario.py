"""The two workloads, and how one of them is shown: before, the policy, what it brings, after."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from demo import figures, summary
from demo.command import DemoError
from demo.stage import Stage

BEFORE_SECONDS = 25.0
AFTER_SECONDS = 30.0
START_SECONDS = 180.0
ACTION_SECONDS = 120.0
VERDICT_SECONDS = 300.0
WITHOUT_OPERATOR_SECONDS = 20.0
"""How long after the policy the after-window begins where no operator is there to act."""
LIVE_SECONDS = 10.0
"""Width of the window whose figure the live view shows."""

Object = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """One workload with its policy (of the same name) and the way to measure it."""

    name: str
    kind: str
    manifests: tuple[str, ...]
    policy: str
    load: str | None
    logs: tuple[str, str]
    """Which pods print the figures: their label app.kubernetes.io/name, and the container."""
    metric: str
    unit: str
    measure: Callable[[Sequence[figures.Line], float, float], float | None]
    warm_up_seconds: float
    """Left out after the workload's start."""
    settle_seconds: float
    """Left out after the action: workers start, and the queue of before is worked off."""

    def window(self, lines: Sequence[figures.Line], least: float) -> float:
        """How long to measure: at least so long, and the same arrivals before and after."""
        return least if self.load is None else figures.whole_laps(lines, least)


TRAINING = Scenario(
    name="digits",
    kind="training",
    manifests=("examples/training/job.yaml",),
    policy="examples/training/policy.yaml",
    load=None,
    logs=("digits", "trainer"),
    metric="throughput",
    unit="samples/s",
    measure=figures.throughput,
    warm_up_seconds=5,
    settle_seconds=5,
)

INFERENCE = Scenario(
    name="characters",
    kind="inference",
    manifests=("examples/inference/deployment.yaml",),
    policy="examples/inference/policy.yaml",
    load="examples/loadgen/job.yaml",
    logs=("load", "load"),
    metric="latency p95",
    unit="ms",
    measure=figures.latency_p95,
    warm_up_seconds=15,
    settle_seconds=40,
)


class Show:
    """Shows one scenario on a stage."""

    def __init__(self, scenario: Scenario, stage: Stage) -> None:
        self.scenario = scenario
        self.stage = stage
        self.row = stage.view.row(scenario.name, scenario.metric, scenario.unit)

    def run(self) -> Object:
        """Everything, from an empty namespace to the entry for the summary."""
        scenario, stage = self.scenario, self.stage
        with stage.view.phase(f"{scenario.kind}: start"):
            for manifest in scenario.manifests:
                stage.kubectl("apply", "-f", manifest)
            if scenario.load:
                stage.wait_for_deployment(scenario.name)
                stage.kubectl("apply", "-f", scenario.load)
            begin = self._first_line() + scenario.warm_up_seconds
        with stage.view.phase(f"{scenario.kind}: measure before"):
            end = begin + scenario.window(self._lines(), BEFORE_SECONDS)
            self._watch_until(end)
            before = self._measured(begin, end, "before")
        with stage.view.phase(f"{scenario.kind}: diagnose and fix"):
            stage.kubectl("apply", "-f", scenario.policy)
            acted = self._action_time()
        with stage.view.phase(f"{scenario.kind}: verify and measure after"):
            begin = acted + scenario.settle_seconds
            end = begin + scenario.window(self._lines(), AFTER_SECONDS)
            self._watch_until(end)
            after = self._measured(begin, end, "after")
            report = self._closed_report()
        entry = summary.workload(
            scenario.name, scenario.kind, scenario.metric, scenario.unit, before, after, report
        )
        self.row.verdict = entry["verdict"]
        return entry

    def stop(self) -> None:
        """Frees the machine for the next one; the policy and its reports stay."""
        for manifest in (self.scenario.load, *self.scenario.manifests):
            if manifest:
                self.stage.kubectl("delete", "--ignore-not-found", "--wait", "-f", manifest)

    def _lines(self) -> list[figures.Line]:
        return self.stage.api.log_lines(self.stage.namespace, *self.scenario.logs)

    def _first_line(self) -> float:
        found: list[float] = []

        def arrived() -> bool:
            found[:] = [line["time"] for line in self._lines() if "time" in line][:1]
            return bool(found)

        label, container = self.scenario.logs
        self.stage.wait(f"the first figures of {label}/{container}", arrived, START_SECONDS, label)
        return found[0]

    def _measured(self, begin: float, end: float, which: str) -> float:
        value = self.scenario.measure(self._lines(), begin, end)
        if value is None:
            raise DemoError(
                f"{self.scenario.name} printed too few figures to tell its {self.scenario.metric} "
                f"{which}:\n{self.stage.describe(self.scenario.logs[0])}"
            )
        setattr(self.row, which, value)
        return value

    def _watch_until(self, end: float) -> None:
        while (now := time.time()) < end:
            self._look(now)
            time.sleep(min(2.0, max(0.1, end - now)))
        time.sleep(2.5)  # the line with the window's last figures is printed after it

    def _look(self, now: float) -> None:
        """Brings the live view up to date."""
        row, scenario = self.row, self.scenario
        row.now = scenario.measure(self._lines(), now - LIVE_SECONDS, now)
        policies = "/apis/bottleneck.dev/v1alpha1/namespaces/" + self.stage.namespace
        for policy in self.stage.api.items(f"{policies}/bottleneckpolicies"):
            if policy["metadata"]["name"] == scenario.name:
                status = policy.get("status", {})
                row.objective = ", ".join(
                    f"{o['name']} {o['current']} ({o['target']})"
                    for o in status.get("objectives", [])
                )
                row.found = row.found or status.get("bottleneck", {}).get("title", "")
        if report := self._report():
            row.found = (report["spec"].get("causes") or [{}])[0].get("title", "")
            row.action = report["spec"].get("action", {}).get("summary", "")
            row.verdict = report.get("status", {}).get("phase", "")
        self.stage.view.refresh()

    def _report(self) -> Object | None:
        """The report of the first action."""
        path = f"/apis/bottleneck.dev/v1alpha1/namespaces/{self.stage.namespace}/bottleneckreports"
        acting = [
            report
            for report in self.stage.api.items(path)
            if report["spec"]["policy"] == self.scenario.name and report["spec"].get("action")
        ]
        return min(acting, key=lambda report: report["spec"]["decidedAt"], default=None)

    def _action_time(self) -> float:
        """When the action was in force; without an operator, some time later."""
        if not self.stage.operator:
            return time.time() + WITHOUT_OPERATOR_SECONDS
        found: list[float] = []

        def acknowledged() -> bool:
            self._look(time.time())
            status = (self._report() or {}).get("status", {})
            if status.get("phase") == "Abandoned":
                raise DemoError(f"the operator gave its action up: {status.get('timeline')}")
            found[:] = map(summary.timestamp, filter(None, [status.get("acknowledgedAt")]))
            return bool(found)

        self.stage.wait("an acknowledged action", acknowledged, ACTION_SECONDS, self.scenario.name)
        return found[0]

    def _closed_report(self) -> Object | None:
        if not self.stage.operator:
            return None

        def judged() -> bool:
            self._look(time.time())
            return bool((self._report() or {}).get("status", {}).get("verdict"))

        self.stage.wait("the operator's verdict", judged, VERDICT_SECONDS, self.scenario.name)
        return self._report()
