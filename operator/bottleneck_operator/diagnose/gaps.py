"""What the cluster shows of people and their processes: bones of the fishbone, and no causes."""

from __future__ import annotations

from .hypotheses import Gap
from .predicates import Predicate

_FLAG = "yes or no"


def _gap(id: str, category: str, title: str, signal: str) -> Gap:
    return Gap(id, category, title, Predicate(signal, ">=", 1, _FLAG, flag=True))


GAPS: tuple[Gap, ...] = (
    _gap("no-requests", "People", "No CPU or memory requested", "pods.withoutRequests"),
    _gap("no-limits", "People", "No limits set", "pods.withoutLimits"),
    _gap("no-probe", "People", "No readiness probe", "pods.withoutProbe"),
    _gap("unpinned-image", "Processes", "An image without a digest", "pods.unpinnedImage"),
    _gap("no-autoscaler", "Processes", "No autoscaler follows the load", "replicas.unowned"),
    _gap("quota", "Processes", "A quota refuses pods", "pods.quotaRefused"),
)
