"""The knobs of a training process: applied to its loaders between steps, and answered."""

from __future__ import annotations

import weakref

from bottleneck_sidecar.knobs import KnobsFile, Wish
from bottleneck_sidecar.loader import PREFETCH, WORKERS, NotAdjustableError
from bottleneck_sidecar.monitored import MonitoredLoader
from bottleneck_sidecar.wire import Acknowledgement


class LoaderKnobs:
    """Follows one knobs file (``path`` as in ``KnobsFile``) for all loaders that were added."""

    def __init__(self, path: str | None = None) -> None:
        self._file = KnobsFile(path)
        self.path = self._file.path
        self.acknowledgement: Acknowledgement | None = None
        self.urgent = False
        """Whether there is an answer that nobody has heard yet."""
        self._loaders: list[weakref.ref[MonitoredLoader]] = []
        self._news: Wish | None = None
        self._wish: Wish | None = None

    def add(self, loader: MonitoredLoader, step: int) -> None:
        """A loader that is used from now on; what was wished for holds for it too."""
        # Weakly: one that is replaced (say, each epoch) must not stay alive with its workers.
        self._loaders.append(weakref.ref(loader))
        self.news()
        self.follow(step)
        if self._wish is not None and self.acknowledgement is not None:
            self._apply(self._wish, step)

    def news(self) -> bool:
        """Whether the file asks for something new. Costs a ``stat`` every 50 ms."""
        self._news = self._file.poll()
        return self._news is not None

    def follow(self, step: int) -> None:
        """Does what the file newly asks for, after ``step`` steps."""
        wish, self._news = self._news, None
        if wish is not None:
            if not wish.refusal:
                self._wish = wish
            self._apply(wish, step)

    def in_force(self) -> dict[str, float | str | bool]:
        """The settings of the first loader that can be changed, else of the first."""
        loaders = self._living()
        adjustable = next((each for each in loaders if each.settable()), None)
        return (adjustable or loaders[0]).knobs() if loaders else {}

    def settable(self) -> list[str]:
        """The knobs that can be changed."""
        return next((names for each in self._living() if (names := each.settable())), [])

    def _apply(self, wish: Wish, step: int) -> None:
        result, message = "Unchanged", ""
        if wish.refusal:
            result, message = "Refused", wish.refusal
        elif wish.settings:
            try:
                if self._configure(wish.settings):
                    result = "Applied"
            except NotAdjustableError as error:
                names = ", ".join(wish.settings)
                result, message = "Refused", f"{names} cannot be changed here: {error}"
        self.acknowledgement = Acknowledgement(wish.generation, result, step, message)
        self.urgent = True

    def _configure(self, settings: dict[str, int | str]) -> bool:
        loaders = self._living()
        numbers = {name: value for name, value in settings.items() if isinstance(value, int)}
        if others := [name for name in settings if name not in (WORKERS, PREFETCH)]:
            raise NotAdjustableError(f"this process does not take {', '.join(others)}")
        adjustable = [loader for loader in loaders if loader.settable()]
        if not loaders:
            raise NotAdjustableError("no loader has been handed to monitor.loader() yet")
        # With nothing adjustable, ask anyway: the loader knows why not.
        changed = [loader.configure(numbers) for loader in adjustable or loaders]
        return any(changed)

    def _living(self) -> list[MonitoredLoader]:
        self._loaders = [reference for reference in self._loaders if reference() is not None]
        return [loader for reference in self._loaders if (loader := reference()) is not None]
