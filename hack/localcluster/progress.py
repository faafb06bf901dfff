"""Tells a waiting person, on standard error, what is going on and for how much longer."""

import contextlib
import sys
import time
from collections.abc import Iterator

# Where nobody redraws the line (CI logs), one line in this many seconds is enough.
LOG_INTERVAL_SECONDS = 15.0


class Progress:
    """Prints phases with their measured seconds, and remembers them."""

    def __init__(self, stream=sys.stderr) -> None:
        self.stream = stream
        self.seconds: dict[str, float] = {}
        self._is_terminal = stream.isatty()
        self._last_update = 0.0

    def say(self, message: str) -> None:
        """Print one whole line."""
        self._erase()
        print(message, file=self.stream, flush=True)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a block and print its name and seconds when it is done."""
        started = time.monotonic()
        self._last_update = started
        if self._is_terminal:
            self._redraw(f"  {name} …")
        try:
            yield
        except BaseException:
            self.say(f"✗ {name}: failed after {time.monotonic() - started:.1f} s")
            raise
        self.seconds[name] = round(time.monotonic() - started, 2)
        self.say(f"✓ {name}: {self.seconds[name]:.1f} s")

    def update(self, name: str, done: int, total: int, started: float) -> None:
        """Show how far a long step is, with the time left as its pace so far suggests."""
        now = time.monotonic()
        if not self._is_terminal and now - self._last_update < LOG_INTERVAL_SECONDS:
            return
        self._last_update = now
        left = ""
        # Before a few percent are done the pace says nothing.
        if total and done * 50 > total:
            left = f", about {duration((now - started) * (total - done) / done)} left"
        of_total = f"{done * 100 // total}%" if total else str(done)
        self._redraw(f"  {name}: {of_total}{left}")

    def _redraw(self, line: str) -> None:
        if self._is_terminal:
            self._erase()
            self.stream.write(line[:100])
            self.stream.flush()
        else:
            print(line, file=self.stream, flush=True)

    def _erase(self) -> None:
        if self._is_terminal:
            self.stream.write("\r\033[K")


def duration(seconds: float) -> str:
    """Seconds as people say them: '45 s', '3 min'."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
