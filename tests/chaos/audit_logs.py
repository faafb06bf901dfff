"""Audit logs written by hand, for the checker's tests."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hack.chaos.audit import Change, changes
from hack.chaos.check import Violation, check

Object = dict[str, Any]
NAMESPACE = "chaos"
START = {"dataLoader.workers": 0, "dataLoader.prefetch": 2}


@dataclass
class AuditLog:
    """Lines as the API server writes them, a second apart."""

    lines: list[str] = field(default_factory=list)
    version: int = 100
    second: int = 0
    reports: dict[str, Object] = field(default_factory=dict)

    def wait(self, seconds: int) -> None:
        """Time in which nothing is written."""
        self.second += seconds

    def write(
        self,
        verb: str,
        resource: str,
        name: str,
        result: Object,
        by: str = "chaos-operator",
        sub: str = "",
        code: int = 200,
    ) -> None:
        """One line."""
        self.version += 1
        self.second += 1
        metadata = {
            "name": name,
            **result.get("metadata", {}),
            "resourceVersion": str(self.version),
        }
        about = {"resource": resource, "namespace": NAMESPACE, "name": name, "subresource": sub}
        moment = f"2026-01-01T{self.second // 3600:02}:{self.second // 60 % 60:02}"
        event = {
            "stage": "ResponseComplete",
            "stageTimestamp": f"{moment}:{self.second % 60:02}.000000Z",
            "verb": verb,
            "userAgent": by,
            "objectRef": about,
            "responseStatus": {"code": code},
            "responseObject": {**result, "metadata": metadata},
        }
        self.lines.append(json.dumps(event))

    def target(self, replicas: int = 1, **marks: str) -> None:
        """The Deployment w."""
        notes = {f"chaos.bottleneck.dev/{name}": text for name, text in marks.items()}
        notes["chaos.bottleneck.dev/settings"] = json.dumps(START)
        result = {"metadata": {"annotations": notes}, "spec": {"replicas": replicas}}
        verb = "patch" if any('"deployments"' in line for line in self.lines) else "create"
        self.write(verb, "deployments", "w", result, by="runner")

    def pod(self) -> None:
        """Its pod."""
        result = {"metadata": {"labels": {"app": "w"}}}
        self.write("create", "pods", "w-1", result, by="runner")

    def policy(self, verb: str = "create") -> None:
        """The policy w."""
        actions = {"replicas": {"min": 1, "max": 3}, "dataLoader": {"maxWorkers": 2}}
        spec = {"actions": actions, "targetRef": {"name": "w"}}
        self.write(verb, "bottleneckpolicies", "w", {"spec": spec}, by="runner")

    def report(self, number: int = 1, **change: Object) -> str:
        """A report that begins, with knobs or replicas."""
        name = f"w-{number}"
        action = {"summary": "something", **change}
        spec = {"policy": "w", "target": {"name": "w"}, "action": action}
        self.reports[name] = {"spec": spec, "status": {}}
        self.write("create", "bottleneckreports", name, self.reports[name])
        self.move(name, "Planned")
        return name

    def move(self, name: str, phase: str, **status: Any) -> None:
        """A report's next phase."""
        report = self.reports[name]
        timeline = report["status"].get("timeline", [])
        entry = {"what": f"Action{phase}", "message": ""}
        new = {**report["status"], **status, "phase": phase, "timeline": [*timeline, entry]}
        report["status"] = new
        result = {"spec": report["spec"], "status": new}
        self.write("patch", "bottleneckreports", name, result, sub="status")

    def scale(self, replicas: int, code: int = 200) -> None:
        """The operator sets the replicas."""
        result = {"kind": "Scale", "spec": {"replicas": replicas}}
        self.write("patch", "deployments", "w", result, sub="scale", code=code)

    def knobs(self, generation: int, workers: int, prefetch: int = 2) -> None:
        """The operator sets the knobs of the pod."""
        loader = {"workers": workers, "prefetch": prefetch}
        text = json.dumps({"generation": generation, "dataLoader": loader})
        marks = {"labels": {"app": "w"}, "annotations": {"bottleneck.dev/knobs": text}}
        self.write("patch", "pods", "w-1", {"metadata": marks})

    @property
    def found(self) -> list[Change]:
        """What the checker reads."""
        return changes(self.lines, NAMESPACE)

    def violations(self, left: bool = False) -> list[Violation]:
        """What it says. ``left``: whether the policy is there in the end."""
        there = [{"metadata": {"name": name}, **report} for name, report in self.reports.items()]
        policies = [{"metadata": {"name": "w"}}] if left else []
        return check(self.found, there, policies, self.version)

    @property
    def rules(self) -> set[str]:
        """The rules that are broken."""
        return {each.rule for each in self.violations()}
