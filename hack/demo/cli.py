"""The command line, and the demo from beginning to end."""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from demo.api import Api
from demo.command import REPOSITORY, DemoError, run
from demo.providers import Access, Existing, Kind, Local, Provider
from demo.scenario import INFERENCE, TRAINING, Show
from demo.stage import Stage
from demo.view import View, show_result

RELEASE, SYSTEM_NAMESPACE = "bottleneck", "bottleneck-system"
CHART = REPOSITORY / "charts" / "bottleneck-operator"
HELM_SECONDS = 240.0
CLEAN_UP_SECONDS = 120.0

EPILOG = """\
example:
  python hack/demo                       # its own cluster, gone afterwards
  KEEP=1 python hack/demo                # the cluster stays, under the name 'demo'
  python hack/demo --operator-replicas 0 # the same without the operator: nothing gets better
  python hack/demo --cluster dev         # in the running cluster 'dev'
"""


def main() -> int:
    """Runs the demo; errors are for people, on standard error."""
    args = arguments()
    # A polite end runs the same clean-up as Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        summary = Demo(args).run()
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    show_result(Console(highlight=False), summary, args.namespace, args.keep)
    print(f"\n{args.summary}")
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python hack/demo",
        description="Show two real workloads being diagnosed, fixed and verified.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--provider", choices=("local", "kind"), default="local")
    parser.add_argument("--cluster", help="use this running built-in cluster and leave it running")
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        help="use the cluster it leads to, whose nodes have the images bottleneck/*:dev",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        default=os.environ.get("KEEP", "") not in ("", "0"),
        help="leave the cluster and all in it (or KEEP=1 in the environment)",
    )
    parser.add_argument("--operator-replicas", type=int, choices=(0, 1), default=1)
    parser.add_argument(
        "--only", choices=(TRAINING.kind, INFERENCE.kind), help="one of the two workloads"
    )
    parser.add_argument("--namespace", default="demo", help="of the workloads (demo)")
    default = REPOSITORY / "build" / "demo" / "summary.json"
    parser.add_argument("--summary", type=Path, default=default, help=f"file to write ({default})")
    return parser.parse_args()


class Demo:
    """One run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        args.summary.parent.mkdir(parents=True, exist_ok=True)
        self.log = args.summary.with_name("demo.log")
        self.log.write_text("")
        self.view = View()
        self.provider = self._provider()

    def _provider(self) -> Provider:
        args = self.args
        if args.cluster or args.kubeconfig:
            return Existing(args.cluster, args.kubeconfig, self.log)
        return Kind("demo", self.log) if args.provider == "kind" else Local("demo", self.log)

    def run(self) -> dict[str, Any]:
        """Everything; whatever happens, it cleans up."""
        began = time.monotonic()
        with ExitStack() as stack:
            stack.enter_context(self.view)
            stack.enter_context(self._cleaning_up("cluster down", self._down))
            with self.view.phase("cluster up") as cluster_up:
                access = self.provider.up(self.view.note)
            with self.view.phase("images"):
                self.provider.images(self.view.note)
            with self.view.phase("operator: helm install"):
                stack.enter_context(self._cleaning_up("helm uninstall", self._uninstall, access))
                self._install(access)
            api = stack.enter_context(Api(access.environment))
            version = api.get("/version")["gitVersion"]
            stage = Stage(
                self.args.namespace,
                access.environment,
                api,
                self.view,
                self.log,
                operator=self.args.operator_replicas > 0,
            )
            stack.enter_context(self._cleaning_up("namespace", self._delete_namespace, stage))
            with self.view.phase("webhook"):
                stage.kubectl("create", "namespace", self.args.namespace)
                stage.wait_for_injection()
            entries = []
            # One after the other: together they need more than the two cores of a small machine,
            # and each would be measured in the other's noise.
            scenarios = [s for s in (TRAINING, INFERENCE) if self.args.only in (None, s.kind)]
            for scenario in scenarios:
                show = Show(scenario, stage)
                entries.append(show.run())
                if not (self.args.keep and scenario is scenarios[-1]):
                    show.stop()
        summary = {
            "cluster": {"kubernetes": version, "provider": self.provider.kind},
            "workloads": entries,
            "seconds": {
                "clusterUp": round(cluster_up.seconds or 0.0, 1),
                "total": round(time.monotonic() - began, 1),
            },
        }
        self.args.summary.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        return summary

    @contextmanager
    def _cleaning_up(self, title: str, clean: Any, *arguments: Any) -> Iterator[None]:
        """Cleans up at the end, also of a run that failed, unless all is to be kept."""
        try:
            yield
        finally:
            if not self.args.keep:
                try:
                    with self.view.phase(title):
                        clean(*arguments)
                except DemoError as error:
                    # Not raised: the rest is cleaned up, too, and an earlier error matters more.
                    print(f"demo: {title}: {error}", file=sys.stderr)

    def _install(self, access: Access) -> None:
        settings = {
            "image.tag": "dev",
            "sidecar.image.tag": "dev",
            "operator.replicas": str(self.args.operator_replicas),
        }
        pairs = [f"--set={key}={value}" for key, value in settings.items()]
        # A cluster that runs already may have the CRDs from kubectl or from another release.
        self._helm(access, "upgrade", "--install", RELEASE, str(CHART), "--create-namespace",
                   "--take-ownership", "--force-conflicts",
                   "--wait", "--timeout=180s", *pairs)  # fmt: skip

    def _uninstall(self, access: Access) -> None:
        if self._owns_cluster():
            return  # it goes with the cluster
        self._helm(access, "uninstall", RELEASE, "--ignore-not-found", "--wait", "--timeout=60s")

    def _helm(self, access: Access, *arguments: str) -> None:
        run(
            ["helm", *arguments, "--namespace", SYSTEM_NAMESPACE],
            seconds=HELM_SECONDS,
            on_line=self.view.note,
            environment=access.environment,
            log=self.log,
        )

    def _delete_namespace(self, stage: Stage) -> None:
        if not self._owns_cluster():
            # While the operator is there: it takes its finalizers off the policies.
            stage.kubectl("delete", "namespace", stage.namespace, "--ignore-not-found",
                          seconds=CLEAN_UP_SECONDS)  # fmt: skip

    def _owns_cluster(self) -> bool:
        return not isinstance(self.provider, Existing)

    def _down(self) -> None:
        self.provider.down(self.view.note)
