"""The operator's entry point."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable

import kopf
import prometheus_client

from ..kube import Kube
from ..report import metrics
from . import health
from .lease import LEASE_SECONDS, Election, LostError, own_namespace

log = logging.getLogger(__name__)


def main() -> None:
    """Runs the operator until it is told to stop."""
    args = _parser().parse_args()
    kopf.configure(log_format=kopf.LogFormat.FULL)
    logging.getLogger().setLevel(args.log_level.upper())
    logging.getLogger("kopf").setLevel(max(logging.INFO, logging.getLogger().level))
    if args.release:
        from .release import release

        asyncio.run(release())
        return
    from . import handlers  # noqa: F401  registers the handlers

    prometheus_client.start_http_server(args.metrics_port)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bottleneck-operator",
        description="Watches BottleneckPolicies and removes the bottlenecks of their workloads.",
        epilog="example: bottleneck-operator --leader-elect --log-level info",
    )
    parser.add_argument(
        "--log-level", default="info", choices=["debug", "info", "warning", "error"]
    )
    parser.add_argument("--health-port", type=int, default=8080, help="serves /healthz")
    parser.add_argument("--metrics-port", type=int, default=8081, help="serves /metrics")
    parser.add_argument(
        "--leader-elect",
        action="store_true",
        help="act only while holding a Lease, so that several replicas may run; without it, see"
        " that no second operator looks after the same policies",
    )
    parser.add_argument(
        "--leader-elect-resource-name",
        default="bottleneck-operator",
        metavar="NAME",
        help="name of the Lease (%(default)s)",
    )
    parser.add_argument(
        "--leader-elect-resource-namespace",
        default=own_namespace(),
        metavar="NAMESPACE",
        help="namespace of the Lease (that of the pod; here %(default)s)",
    )
    parser.add_argument(
        "--leader-elect-lease-duration",
        type=_lease_seconds,
        default=LEASE_SECONDS,
        metavar="SECONDS",
        help="how long a leader that is not heard of is waited for (%(default)s)",
    )
    parser.add_argument(
        "--release",
        action="store_true",
        help="take the operator's finalizer off every policy, so that they can be deleted without"
        " an operator, and end; the chart runs this before it is uninstalled",
    )
    return parser


def _lease_seconds(text: str) -> int:
    if not text.isdigit() or not 5 <= int(text) <= 60:
        raise argparse.ArgumentTypeError("write a whole number of seconds from 5 to 60, such as 10")
    return int(text)


async def _serve(args: argparse.Namespace) -> None:
    await health.serve(args.health_port)
    if not args.leader_elect:
        metrics.LEADER.set(1)
        await _operate(None)
        return
    async with await Kube.connect(os.environ.get("KUBECONFIG")) as kube:
        election = Election(
            kube,
            args.leader_elect_resource_namespace,
            args.leader_elect_resource_name,
            args.leader_elect_lease_duration,
        )
        metrics.LEADER.set_function(lambda: float(election.left() > 0))
        await _stand_by(election)
        keeping = asyncio.create_task(_keep(election), name="lease")
        try:
            await _operate(election.left)
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
            await election.release()


async def _stand_by(election: Election) -> None:
    """Until this process leads. Raises CancelledError when it is told to stop before."""
    loop, acquiring = asyncio.get_running_loop(), asyncio.ensure_future(election.acquire())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, acquiring.cancel)
    await acquiring


async def _keep(election: Election) -> None:
    """Ends the process when another one leads: whatever it remembers or has begun is out of date,
    and the one that is started in its place stands by."""
    try:
        await election.keep()
    except LostError as error:
        log.error("does not lead any more, and ends: %s", error)
        os._exit(1)
    except Exception:
        log.exception("the Lease cannot be kept")
        os._exit(1)


async def _operate(fence: Callable[[], float] | None) -> None:
    await kopf.operator(clusterwide=True, standalone=True, memo=kopf.Memo(fence=fence))


if __name__ == "__main__":
    main()
