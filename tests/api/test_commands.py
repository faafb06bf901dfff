"""The commands that write, against a real API server, as somebody with the least rights."""

from __future__ import annotations

import json
from typing import Any, Protocol

import pytest

from .test_apiserver import create, policy, read, report, write_status

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds")]

Object = dict[str, Any]

__all__ = ["create"]  # a fixture


class Cluster(Protocol):
    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str: ...
    def run(self, *args: str, input: str | None = None, check: bool = True) -> str: ...


def test_a_pause_makes_no_new_generation(cluster: Cluster, namespace: str, create: Any) -> None:
    create(policy())
    command = (
        "kubectl-bottleneck",
        "pause",
        "ranker",
        "-n",
        namespace,
        "--for",
        "2h",
        "-o",
        "json",
    )
    (told,) = json.loads(cluster.run(*command))["policies"]
    found = read(cluster, namespace, "bnp/ranker")["metadata"]
    assert found["generation"] == 1
    assert found["annotations"] == {"bottleneck.dev/paused-until": told["until"]}
    cluster.run("kubectl-bottleneck", "resume", "--all", "-n", namespace)
    found = read(cluster, namespace, "bnp/ranker")["metadata"]
    assert list(found["annotations"]) == ["bottleneck.dev/resumed-at"]


def test_a_rollback_says_who_asked(cluster: Cluster, namespace: str, create: Any) -> None:
    create(report())
    write_status(cluster, namespace, "bnr/ranker-1", {"phase": "Kept"})
    command = ("kubectl-bottleneck", "rollback", "ranker-1", "-n", namespace, "-o", "json")
    assert json.loads(cluster.run(*command, "--timeout", "0"))["accepted"] is False
    found = read(cluster, namespace, "bnr/ranker-1")["metadata"]["annotations"]
    wish = json.loads(found["bottleneck.dev/rollback"])
    user = json.loads(cluster.kubectl("auth", "whoami", "-o", "json"))["status"]["userInfo"]
    assert wish["by"] == user["username"]


def test_what_was_written_about_consequences_is_kept(
    cluster: Cluster, namespace: str, create: Any
) -> None:
    """A field that the schema did not know would be taken away without a word."""
    time = "2026-01-31T12:00:00Z"
    create(report())
    revert = {"result": "NotRestored", "at": time, "differences": ["replicas 3, before 2"]}
    rollback = {"by": "alice", "requested": time, "answeredAt": time, "generation": 4}
    status = {"phase": "Reverted", "revert": revert, "rollback": rollback}
    write_status(cluster, namespace, "bnr/ranker-1", status)
    found = read(cluster, namespace, "bnr/ranker-1")["status"]
    assert (found["revert"], found["rollback"]) == (revert, rollback)
    create(policy())
    entry = {"cause": "c", "type": "T", "aim": "Improve", "hits": 1, "realised": 0.5}
    miss = {"report": "ranker-1", "change": "x", "result": "Worse", "closedAt": time}
    ledger = {"entries": [entry], "misses": [miss], "counted": ["ranker-1"]}
    write_status(cluster, namespace, "bnp/ranker", {"ledger": ledger})
    assert read(cluster, namespace, "bnp/ranker")["status"]["ledger"] == ledger
    told = json.loads(cluster.run("kubectl-bottleneck", "history", "-n", namespace, "-o", "json"))
    assert told["totals"]["hits"] == 1
    assert told["reports"][0]["by"] == "alice"
