"""The operator's entry point."""

from __future__ import annotations

import argparse
import asyncio
import logging

import kopf
import prometheus_client


def main() -> None:
    """Runs the operator until it is told to stop."""
    parser = argparse.ArgumentParser(
        prog="bottleneck-operator",
        description="Watches BottleneckPolicies and removes the bottlenecks of their workloads.",
        epilog="example: bottleneck-operator --log-level info --metrics-port 8081",
    )
    parser.add_argument(
        "--log-level", default="info", choices=["debug", "info", "warning", "error"]
    )
    parser.add_argument("--health-port", type=int, default=8080, help="serves /healthz")
    parser.add_argument("--metrics-port", type=int, default=8081, help="serves /metrics")
    parser.add_argument(
        "--release",
        action="store_true",
        help="take the operator's finalizer off every policy, so that they can be deleted without"
        " an operator, and end; the chart runs this before it is uninstalled",
    )
    args = parser.parse_args()
    kopf.configure(log_format=kopf.LogFormat.FULL)
    logging.getLogger().setLevel(args.log_level.upper())
    logging.getLogger("kopf").setLevel(max(logging.INFO, logging.getLogger().level))
    if args.release:
        from .release import release

        asyncio.run(release())
        return
    from . import handlers  # noqa: F401  registers the handlers

    prometheus_client.start_http_server(args.metrics_port)
    kopf.run(
        clusterwide=True,
        standalone=True,
        liveness_endpoint=f"http://0.0.0.0:{args.health_port}/healthz",
    )


if __name__ == "__main__":
    main()
