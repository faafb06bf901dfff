"""The knobs of a server process: changed while it serves, and answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from bottleneck_sidecar.batching import DELAY, MAX_SIZE, Batching
from bottleneck_sidecar.knobs import KnobsFile
from bottleneck_sidecar.wire import Acknowledgement

PRECISION = "precision.weights"

NO_WEIGHTS = (
    f"{PRECISION} cannot be changed here: write TelemetryMiddleware(app, weights=weights) with "
    "weights = Weights(model), and call the model within weights.use()"
)


class AdjustableWeights(Protocol):
    """What is asked of ``weights.Weights``; it is not named here, since it imports torch."""

    def knobs(self) -> dict[str, float | str | bool]: ...

    def settable(self) -> list[str]: ...

    def refusal(self, precision: str) -> str: ...

    def change(self, precision: str, meanwhile: Callable[[], None]) -> bool: ...

    def forked(self) -> None: ...


class ServerKnobs:
    """Follows one knobs file (``path`` as in ``KnobsFile``) for the batching and the weights of a
    server. A wish is granted as a whole or not at all."""

    def __init__(
        self, path: str | None, batching: Batching | None, weights: AdjustableWeights | None
    ) -> None:
        self._file = KnobsFile(path)
        self._batching = batching or Batching()
        self._weights = weights
        self.acknowledgement: Acknowledgement | None = None

    def in_force(self) -> dict[str, float | str | bool]:
        """The settings in force."""
        return self._batching.knobs() | (self._weights.knobs() if self._weights else {})

    def settable(self) -> list[str]:
        """The knobs that can be changed."""
        return self._batching.settable() + (self._weights.settable() if self._weights else [])

    def follow(self, meanwhile: Callable[[], None]) -> None:
        """Does what the file newly asks for. Never raises. This can take as long as a few forward
        passes; every now and then ``meanwhile`` is called."""
        wish = self._file.poll()
        if wish is None:
            return
        result, message = "Refused", wish.refusal or self._refusal(wish.settings)
        if not message:
            try:
                result = "Applied" if self._change(wish.settings, meanwhile) else "Unchanged"
            except Exception as error:  # of torch: the server runs on with what it had
                message = f"{', '.join(wish.settings)} could not be changed: {error}"
        self.acknowledgement = Acknowledgement(wish.generation, result, None, message)

    def forked(self) -> None:
        """This is a new process: nothing that other threads of the parent were about goes on."""
        if self._weights is not None:
            self._weights.forked()

    def _refusal(self, settings: Mapping[str, int | str]) -> str:
        """What speaks against the wish as a whole."""
        reasons = [self._batching.refusal(_of_batches(settings))]
        if PRECISION in settings:
            reasons.append(
                self._weights.refusal(str(settings[PRECISION])) if self._weights else NO_WEIGHTS
            )
        strange = [name for name in settings if name not in (MAX_SIZE, DELAY, PRECISION)]
        if strange:
            reasons.append(
                f"a model server does not take {', '.join(strange)}: leave them to training, and "
                f"write {MAX_SIZE}, {DELAY} or {PRECISION}"
            )
        return "; ".join(reason for reason in reasons if reason)

    def _change(self, settings: Mapping[str, int | str], meanwhile: Callable[[], None]) -> bool:
        changed = False
        # The weights first, for they can fail and then leave everything as it was; limits cannot.
        if PRECISION in settings and self._weights is not None:
            changed = self._weights.change(str(settings[PRECISION]), meanwhile)
        return self._batching.change(_of_batches(settings)) or changed


def _of_batches(settings: Mapping[str, int | str]) -> dict[str, int | str]:
    return {name: settings[name] for name in (MAX_SIZE, DELAY) if name in settings}
