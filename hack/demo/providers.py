"""Where the cluster comes from: the built-in one, kind, or one that runs already."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from demo.command import REPOSITORY, DemoError, run

IMAGES = ("operator", "sidecar", "examples")
UP_SECONDS = 45 * 60
"""Long enough to build Kubernetes on two busy cores."""
IMAGE_SECONDS = 30 * 60
DOWN_SECONDS = 120
LOCALCLUSTER = ["python3", str(REPOSITORY / "hack" / "localcluster")]

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Access:
    """How to talk to a cluster."""

    environment: Mapping[str, str]


class Provider(Protocol):
    """Brings a cluster up and takes it down; ``kind`` is what the summary calls it."""

    kind: str

    def up(self, on_line: OnLine) -> Access: ...

    def images(self, on_line: OnLine) -> None: ...

    def down(self, on_line: OnLine) -> None: ...


class Local:
    """The built-in cluster."""

    kind = "local"

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log

    def up(self, on_line: OnLine) -> Access:
        """Brings it up, or finds it up."""
        found = json.loads(self._localcluster("up", on_line))
        path = f"{found['bin']}{os.pathsep}{os.environ['PATH']}"
        return Access({"KUBECONFIG": found["kubeconfig"], "PATH": path})

    def images(self, on_line: OnLine) -> None:
        """Builds what has changed and loads what the cluster does not have."""
        for arguments in (["images", *IMAGES], ["load", "--name", self.name, *IMAGES]):
            run([*LOCALCLUSTER, *arguments], seconds=IMAGE_SECONDS, on_line=on_line, log=self.log)

    def down(self, on_line: OnLine) -> None:
        """Takes it down without a trace."""
        self._localcluster("down", on_line)

    def _localcluster(self, command: str, on_line: OnLine) -> str:
        output = [] if command.endswith("down") else ["-o", "json"]
        return run(
            [*LOCALCLUSTER, command, "--name", self.name, *output],
            seconds=DOWN_SECONDS if command.endswith("down") else UP_SECONDS,
            on_line=on_line,
            log=self.log,
        )


class Kind(Local):
    """A kind cluster, where Docker is to be had; it comes up with the images in it."""

    kind = "kind"

    def up(self, on_line: OnLine) -> Access:
        """Creates it, or finds it."""
        for program in ("docker", "kubectl", "helm"):
            if not shutil.which(program):
                raise DemoError(f"{program} is not installed; `make demo` does without Docker")
        said = self._localcluster("kind-up", on_line)
        return Access({"KUBECONFIG": json.loads(said)["kubeconfig"]})

    def images(self, on_line: OnLine) -> None:
        """They are there."""

    def down(self, on_line: OnLine) -> None:
        """Deletes it."""
        self._localcluster("kind-down", on_line)


class Existing(Local):
    """A built-in cluster that somebody else brought up and will take down, or any other cluster
    that a kubeconfig leads to and that has the images."""

    def __init__(self, name: str | None, kubeconfig: Path | None, log: Path) -> None:
        super().__init__(name or "", log)
        self.kubeconfig = kubeconfig
        if kubeconfig is not None and not kubeconfig.is_file():
            raise DemoError(f"there is no kubeconfig {kubeconfig}")

    def up(self, on_line: OnLine) -> Access:
        """Finds it."""
        if self.name:
            said = run([*LOCALCLUSTER, "status", "--name", self.name, "-o", "json"], seconds=30)
            if not json.loads(said)["ready"]:
                raise DemoError(f"cluster {self.name} is not ready")
            return super().up(on_line)
        return Access({"KUBECONFIG": str(self.kubeconfig)})

    def images(self, on_line: OnLine) -> None:
        """Loads what is missing, where that is possible from here."""
        if self.name:
            super().images(on_line)

    def down(self, on_line: OnLine) -> None:
        """It is not ours to take down."""
