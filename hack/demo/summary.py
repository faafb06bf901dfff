"""build/demo/summary.json, and the report of one incident in it."""

from datetime import datetime
from typing import Any

Object = dict[str, Any]


def workload(
    name: str, kind: str, metric: str, unit: str, before: float, after: float, report: Object | None
) -> Object:
    """One workload's entry; without a report the operator did nothing, and it says so."""
    spec, status = (report or {}).get("spec", {}), (report or {}).get("status", {})
    causes = spec.get("causes") or [{}]
    return {
        "name": name,
        "type": kind,
        "bottleneck": causes[0].get("id", ""),
        "whys": spec.get("whys", []),
        "action": spec.get("action", {}).get("summary", ""),
        "metric": metric,
        "unit": unit,
        "before": round(before, 1),
        "after": round(after, 1),
        "verdict": status.get("verdict", {}).get("result", ""),
        "seconds": {
            "breachToDecision": _between(spec.get("breachedAt"), spec.get("decidedAt")),
            "decisionToAck": _between(spec.get("decidedAt"), status.get("acknowledgedAt")),
        },
    }


def timestamp(text: str) -> float:
    """Seconds since the Unix epoch of a time as the API writes it."""
    return datetime.fromisoformat(text).timestamp()


def _between(first: str | None, second: str | None) -> float | None:
    if not first or not second:
        return None
    return round(timestamp(second) - timestamp(first), 2)
