"""Starts the programs that the demo is made of: the cluster's scripts, helm, kubectl."""

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
KEPT_LINES = 25


class DemoError(Exception):
    """The demo cannot go on; the text says why, for people."""


def run(
    arguments: list[str],
    *,
    seconds: float,
    on_line: Callable[[str], None] = lambda line: None,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> str:
    """Runs a program and gives its standard output.

    What it says on standard error goes to ``on_line`` and to ``log``. Raises ``DemoError`` with its
    last lines when it fails or takes longer than ``seconds``.
    """
    try:
        process = subprocess.Popen(
            arguments,
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise DemoError(f"{arguments[0]} cannot be started: {error}") from None
    last: deque[str] = deque(maxlen=KEPT_LINES)

    def follow() -> None:
        assert process.stderr is not None
        with open(log or os.devnull, "a") as file:
            for line in process.stderr:
                file.write(line)
                last.append(line.rstrip())
                if line.strip():
                    on_line(line.strip())

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    assert process.stdout is not None
    timer = threading.Timer(seconds, process.send_signal, [signal.SIGTERM])
    timer.start()
    try:
        output = process.stdout.read()
        status = process.wait()
    except BaseException:
        # Ctrl-C reached it, too; it cleans up after itself.
        process.terminate()
        process.wait()
        raise
    finally:
        late = not timer.is_alive()
        timer.cancel()
        follower.join(timeout=5)
    if status:
        why = f"took longer than {seconds:.0f} s" if late else f"failed (status {status})"
        said = "\n  ".join([*last, *output.splitlines()[-5:]])
        raise DemoError(f"`{' '.join(arguments)}` {why}:\n  {said}")
    return output
