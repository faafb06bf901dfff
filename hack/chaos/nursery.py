"""Starts operator processes in milliseconds: everything is imported once, then forked.

``python -m hack.chaos.nursery`` reads one JSON command a line and answers each with one line. Its
children die with it, however it ends, and it ends with its standard input.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from . import sabotage
from .clock import Clock, Skew, install

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serves commands until the end of the input."""
    from bottleneck_operator.controller import handlers, main  # noqa: F401  imported for the forks

    gc.collect()
    gc.freeze()
    children: set[int] = set()
    try:
        for line in sys.stdin:
            command = json.loads(line)
            answer: dict[str, Any] = {}
            if command["do"] == "start":
                answer["pid"] = _start(command)
                children.add(answer["pid"])
            elif command["do"] == "reap":
                os.waitpid(command["pid"], 0)
                children.discard(command["pid"])
            elif command["do"] == "alive":
                answer["alive"] = os.waitpid(command["pid"], os.WNOHANG) == (0, 0)
                if not answer["alive"]:
                    children.discard(command["pid"])
            print(json.dumps(answer), flush=True)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)


def _start(command: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(command["environment"])
        from bottleneck_operator.observe import pods

        install(Clock(*command["clock"]), Skew(Path(command["skew"])))
        # The fake sidecars of a round are on loopback addresses, where no real pod ever is.
        pods.never_a_pod = lambda _: False
        if command["without"]:
            sabotage.switch_off(command["without"])
        from bottleneck_operator.controller.main import main as operator

        sys.argv = ["bottleneck-operator", *command["arguments"]]
        operator()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    return 0


if __name__ == "__main__":
    main()
