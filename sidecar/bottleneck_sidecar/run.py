"""Telemetry for a torch script as it is, without a line changed in it:

    python -m bottleneck_sidecar.run train.py ARGS...
    torchrun --nproc-per-node 2 -m bottleneck_sidecar.run train.py ARGS...
    python -m bottleneck_sidecar.run -m package.train ARGS...

A step ends with ``step()`` of the optimizer that began; samples are counted by the first tensor of
each batch that was followed by a backward pass. A DataLoader that is iterated without gradients is
an evaluation. A script that makes a ``StepMonitor`` of its own is measured by that one.
"""

from __future__ import annotations

import os
import runpy
import sys
from typing import TYPE_CHECKING, Any

from bottleneck_sidecar.client import SOCKET_VARIABLE

if TYPE_CHECKING:
    from bottleneck_sidecar.script import ScriptMonitor

USAGE = "usage: python -m bottleneck_sidecar.run [-m MODULE | SCRIPT] [ARGS...]"


def main(arguments: list[str]) -> int:
    """Runs the script as ``__main__``. What it raises, and its exit status, are its own."""
    module = arguments[:1] == ["-m"]
    rest = arguments[1:] if module else arguments
    if not rest or (not module and rest[0].startswith("-")):
        print(f"{USAGE}\nfor instance: python -m bottleneck_sidecar.run train.py", file=sys.stderr)
        return 0 if rest[:1] in (["-h"], ["--help"]) else 2
    if not module and not os.path.exists(rest[0]):
        print(f"there is no script {rest[0]}; {USAGE}", file=sys.stderr)
        return 2
    monitor = _watch()
    sys.argv = rest
    try:
        if module:
            sys.path[0] = os.getcwd()
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = os.path.dirname(os.path.abspath(rest[0]))
            runpy.run_path(rest[0], run_name="__main__")
    finally:
        if monitor is not None:
            monitor.close()
    return 0


def _watch() -> ScriptMonitor | None:
    """The monitor; None where nobody listens, or where there is no torch to listen to."""
    if not os.environ.get(SOCKET_VARIABLE):
        return None
    try:
        from bottleneck_sidecar.script import ScriptMonitor

        return ScriptMonitor()
    except Exception as error:
        told: Any = str(error) or type(error).__name__
        print(f"bottleneck: running without telemetry: {told}", file=sys.stderr)
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
