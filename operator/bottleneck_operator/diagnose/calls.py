"""The call graph: what is below a component, and how often it is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from .components import Family, Key, Track, family


class Calls:
    """Edges from caller to callee, or turned round (``upstream``) for what flows with the calls."""

    def __init__(
        self, topology: Iterable[tuple[str, str]], known: Mapping[Key, Track], *, upstream: bool
    ) -> None:
        self._upstream = upstream
        edges = {(b, a) if upstream else (a, b) for a, b in topology if a != b}
        self._callees: dict[str, list[str]] = {}
        self._callers: dict[str, list[str]] = {}
        for caller, callee in sorted(edges):
            self._callees.setdefault(caller, []).append(callee)
            self._callers.setdefault(callee, []).append(caller)
        self._requests: dict[str, float] = {}
        for (component, metric, _), track in known.items():
            if family(metric) is Family.TRAFFIC and component not in self._requests:
                values = track.incident[~np.isnan(track.incident)]
                if len(values) and values.mean() > 0:
                    self._requests[component] = float(values.mean())

    def ratio(self, caller: str, callee: str) -> float | None:
        """Calls of the callee for one request of the caller; None where they are not counted.

        A callee's requests are shared out over its callers by the requests that these get. On
        turned edges it is the requests that one request of the callee causes at the caller.
        """
        if callee not in self._requests or caller not in self._requests:
            return None
        served, senders = callee, self._callers[callee]
        if self._upstream:
            served, senders = caller, self._callees[caller]
        return self._requests[served] / sum(self._requests.get(one, 0.0) for one in senders)

    def below(self, start: str) -> list[tuple[str, list[str]]]:
        """What ``start`` calls, directly or not, callers before callees, each with its callees.

        Calls back to a component that is still being visited are left out, so cycles end.
        """
        state = {start: 1}
        kept: dict[str, list[str]] = {start: []}
        order: list[str] = []
        stack = [(start, iter(self._callees.get(start, ())))]
        while stack:
            node, children = stack[-1]
            for child in children:
                if state.get(child) != 1:
                    kept[node].append(child)
                if child not in state:
                    state[child], kept[child] = 1, []
                    stack.append((child, iter(self._callees.get(child, ()))))
                    break
            else:
                state[node] = 2
                order.append(node)
                stack.pop()
        return [(node, kept[node]) for node in reversed(order)]
