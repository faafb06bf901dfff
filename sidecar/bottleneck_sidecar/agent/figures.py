"""Decides whether a sample tells something new, so that it is sent before its time.

A figure is compared between two windows: the one between the last two lines, and the one since. It
counts as moved when it changed by more than 10% *and* by more than chance makes of so few events
(1/√n for n events): otherwise every Poisson stream of requests would send each second.
"""

from __future__ import annotations

from bottleneck_sidecar.wire import Sample

MOVE = 0.10
"""Relative change of a figure that counts as a move."""

SHARE_MOVE = 0.05
"""Change of a share of the step (in points) that counts as a move: 1% becoming 2% is no news."""

_CERTAIN = 1e9
"""Number of events of a figure that is no statistic."""

Figures = dict[str, tuple[float, float]]
"""Name → value and the number of events that it rests on. Shares have names ending in ``%``."""


def figures(before: Sample, after: Sample) -> Figures:
    """The figures of the window between two samples of one agent."""
    found: Figures = {}
    seconds = after.time - before.time
    if after.container and after.container.memory_bytes is not None:
        found["memory"] = (after.container.memory_bytes, _CERTAIN)
    if after.gate is not None and after.gate.held:
        found["present held"] = (1.0, _CERTAIN)
    ranks = {rank.epoch: rank for rank in before.training}
    for rank in after.training:
        # Entering and leaving a checkpoint is news, since no step can tell of it.
        found[f"present {rank.epoch} {rank.phase}"] = (1.0, _CERTAIN)
        was = ranks.get(rank.epoch)
        if was is None or (steps := rank.steps - was.steps) <= 0:
            continue
        spent = rank.step_seconds - was.step_seconds
        found[f"step {rank.epoch}"] = (spent / steps, steps)
        if spent > 0:
            for phase, total in rank.seconds.items():
                share = (total - was.seconds.get(phase, 0.0)) / spent
                found[f"{phase} {rank.epoch} %"] = (share, steps)
    servers = {server.epoch: server for server in before.inference}
    for server in after.inference:
        found[f"present {server.epoch}"] = (1.0, _CERTAIN)
        earlier = servers.get(server.epoch)
        if earlier is None or seconds <= 0:
            continue
        arrivals = server.arrivals - earlier.arrivals
        found[f"arrivals {server.epoch}"] = (arrivals / seconds, max(1, arrivals))
        requests = server.requests - earlier.requests
        if requests > 0:
            latency = (server.latency_seconds - earlier.latency_seconds) / requests
            found[f"latency {server.epoch}"] = (latency, requests)
            errors = (server.errors - earlier.errors) / requests
            found[f"errors {server.epoch} %"] = (errors, requests)
    return found


def moved(before: Figures, after: Figures) -> bool:
    """Whether a figure moved, or a process came or went. A figure that only one of the two windows
    has (no step was finished in the other) is not compared."""
    present = {name for name in before if name.startswith("present ")}
    if present != {name for name in after if name.startswith("present ")}:
        return True
    return any(
        _moved(name, *before[name], *value) for name, value in after.items() if name in before
    )


def _moved(name: str, old: float, old_events: float, new: float, new_events: float) -> bool:
    chance: float = 1 / max(1.0, min(old_events, new_events)) ** 0.5
    if name.endswith("%"):
        return abs(new - old) > max(SHARE_MOVE, chance * max(old, new))
    return abs(new - old) > max(MOVE, chance) * max(abs(old), abs(new) * 1e-9)
