"""Where the scenarios run: a namespace of a cluster, with the means to look and to wait."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from demo.api import Api
from demo.command import DemoError, run
from demo.view import View

KUBECTL_SECONDS = 90.0
POLL_SECONDS = 1.0


@dataclass
class Stage:
    """``environment`` holds KUBECONFIG and the PATH to the cluster's kubectl and helm."""

    namespace: str
    environment: Mapping[str, str]
    api: Api
    view: View
    log: Path
    operator: bool
    """Whether the operator runs, or the demo shows what happens without it."""

    def kubectl(self, *arguments: str, seconds: float = KUBECTL_SECONDS) -> str:
        """Runs kubectl in the namespace."""
        return run(
            ["kubectl", "--namespace", self.namespace, *arguments],
            seconds=seconds,
            environment=self.environment,
            log=self.log,
        )

    def wait_for_injection(self) -> None:
        """Until pods get the sidecar. The webhook fails open, so a pod that is created before the
        API server can reach it starts without; asked for with pods that are never created."""

        def injected() -> bool:
            try:
                labels = self.kubectl(
                    *("run", "probe", "--image=none", "--labels=bottleneck.dev/inject=true"),
                    *("--dry-run=server", "--output=jsonpath={.metadata.labels}"),
                )
            except DemoError:
                return False  # the namespace's service account takes a moment
            return "bottleneck.dev/injected" in labels

        self.wait("the webhook to add the sidecar to pods", injected, 60, "bottleneck-operator")

    def wait_for_deployment(self, name: str) -> None:
        """Until all replicas are ready."""
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments"

        def ready() -> bool:
            return any(
                item["metadata"]["name"] == name
                and item.get("status", {}).get("readyReplicas", 0) >= item["spec"]["replicas"]
                for item in self.api.items(path)
            )

        self.wait(f"a ready replica of {name}", ready, 120, name)

    def wait(self, what: str, done: Callable[[], bool], seconds: float, label: str) -> None:
        """Until ``done``; after ``seconds`` it gives up and tells what kubectl knows of the pods
        with that label and of the policy."""
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise DemoError(
                    f"waited {seconds:.0f} s in vain for {what}.\n{self.describe(label)}"
                )
            time.sleep(POLL_SECONDS)

    def describe(self, label: str) -> str:
        """What a person would look at first."""
        selector = f"app.kubernetes.io/name={label}"
        looks = (
            ("get", "pods", "-o", "wide"),
            ("describe", "pods", "-l", selector),
            ("logs", "-l", selector, "--all-containers", "--tail=15"),
            ("get", "bottleneckpolicies,bottleneckreports", "-o", "wide"),
            ("describe", "bottleneckpolicies"),
        )
        parts = []
        for look in looks:
            try:
                tail = "\n".join(self.kubectl(*look, seconds=20).splitlines()[-25:])
            except DemoError as error:
                tail = str(error)
            parts.append(f"--- kubectl -n {self.namespace} {' '.join(look)}\n{tail}")
        return "\n".join(parts)
