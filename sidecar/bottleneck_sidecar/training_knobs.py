"""The knobs of a training process: applied between steps, by all ranks at once where it matters.

How a rank loads its data is its own affair, so ``dataLoader`` knobs alone are applied as soon as
they are seen. Batches and precision have to change on all ranks at the same optimizer step; a wish
with one of those takes effect as a whole when the ranks have agreed (see ``agreement``).
"""

from __future__ import annotations

import os
import weakref

from bottleneck_sidecar.agreement import Agreement, group
from bottleneck_sidecar.knobs import KnobsFile, Wish
from bottleneck_sidecar.loader import (
    ACCUMULATION,
    LOADING,
    MICRO,
    PIN,
    WORKERS,
    NotAdjustableError,
)
from bottleneck_sidecar.monitored import MonitoredLoader
from bottleneck_sidecar.precision import AUTOCAST, BF16, FP16
from bottleneck_sidecar.rates import LEARNING_RATE, UNCHANGED
from bottleneck_sidecar.stepping import Stepping
from bottleneck_sidecar.wire import Acknowledgement

STEPS = {MICRO, ACCUMULATION, LEARNING_RATE}
"""Those that make an optimizer step another one."""

TOGETHER = STEPS | {AUTOCAST}
"""The knobs that have to change on all ranks at the same step."""

STEP_LINES = "monitor.backward(loss) and monitor.optimizer_step(optimizer)"
BATCH_LINES = (
    "write loader = monitor.loader(DataLoader(..., batch_size=N), accumulation=K), and "
    f"{STEP_LINES} after each batch instead of loss.backward(), optimizer.step() and monitor.step()"
)
PRECISION_LINES = (
    "write `with monitor.forward(model):` around the forward pass, and "
    f"{STEP_LINES} instead of loss.backward(), optimizer.step() and monitor.step()"
)


class TrainingKnobs:
    """Follows one knobs file (``path`` as in ``KnobsFile``) for all loaders that were added, and
    for the precision of ``stepping``."""

    def __init__(self, path: str | None, stepping: Stepping) -> None:
        self._file = KnobsFile(path)
        self.path = self._file.path
        self.acknowledgement: Acknowledgement | None = None
        self.urgent = False
        """Whether there is an answer that nobody has heard yet."""
        self.pending: Wish | None = None
        """What takes effect once all ranks have agreed: ``follow`` is due after each step."""
        self._stepping = stepping
        self._loaders: list[weakref.ref[MonitoredLoader]] = []
        self._news: Wish | None = None
        self._wish: Wish | None = None
        self._agreement: Agreement | None = None
        self._later: Wish | None = None
        """What the file asks for since this rank has promised to see another wish through."""
        self._tries = 0
        self._fits: str | None = None
        """What a try-out of the pending wish has shown; None before it."""
        self.smaller: dict[str, int | str] | None = None
        """What was in force before the batches became larger."""
        self._standing: dict[str, int | str] = {}
        """All that was ever applied to loaders: it holds for later ones too."""

    def add(self, loader: MonitoredLoader, step: int) -> None:
        """A loader that is used from now on; what was wished for holds for it too."""
        # Weakly: one that is replaced (say, each epoch) must not stay alive with its workers.
        self._loaders.append(weakref.ref(loader))
        loader.configure(self._standing)
        if self.news():
            self._take_up(step)
        elif self._wish is not None and self.acknowledgement is not None and self.pending is None:
            if not TOGETHER & self._wish.settings.keys():
                self._apply(self._wish, step)
            elif self.acknowledgement.result == "Refused":  # perhaps it is not with this loader
                self._tries += 1
                self.pending = self._wish
        # Before the first step there is nobody yet to agree with, and nobody needed if it is alone.
        early = self.pending is not None and AUTOCAST not in self.pending.settings and alone()
        if early and loader.accumulates and self.pending is not None:
            wish, self.pending = self.pending, None
            self._apply(wish, step, promised=True)

    def news(self) -> bool:
        """Whether the file asks for something new. Costs a ``stat`` every 0.1 s."""
        self._news = self._file.poll()
        return self._news is not None

    def follow(self, step: int) -> None:
        """Does what the file newly asks for, or what has been agreed on, after ``step`` steps."""
        if self._news is not None:
            self._take_up(step)
        if self.pending is not None:
            self._see_through(self.pending, step)

    def in_force(self) -> dict[str, float | str | bool]:
        """The settings of the first loader that can be changed, else of the first."""
        loaders = self._in_order()
        found = loaders[0].knobs() if loaders else {}
        if not self._stepping._takes_steps:
            return found
        if any(map(_accumulates, loaders)):
            found[LEARNING_RATE] = self._stepping._rate_percent
        if self._stepping._precision.device is not None:
            found[AUTOCAST] = self._stepping._precision.mode
        return found

    def settable(self) -> list[str]:
        """The knobs that can be changed."""
        loaders, precision = self._in_order(), self._stepping._precision
        names = loaders[0].settable() if loaders else []
        if not self._stepping._takes_steps:
            return [name for name in names if name not in TOGETHER]
        if any(map(_accumulates, loaders)) and self._stepping._rates_known:
            names.append(LEARNING_RATE)
        if precision.device is not None and not all(map(precision.refusal, (BF16, FP16))):
            names.append(AUTOCAST)
        return names

    def _take_up(self, step: int) -> None:
        """Begins with what the file newly asks for."""
        wish, self._news = self._news, None
        assert wish is not None
        if self._agreement is not None and self._agreement.promised:
            self._later = wish
            return
        self.pending = self._agreement = self._fits = None
        self._stepping._tryout.forget()
        if not wish.refusal:
            self._wish = wish
            self._tries = 0
        if TOGETHER & wish.settings.keys():
            self.pending = wish
        else:
            self._apply(wish, step)

    def _see_through(self, wish: Wish, step: int) -> None:
        """Goes on with a wish for all ranks, between two steps."""
        if not self._tried(wish):
            return
        if self._agreement is None:
            found = group()
            if found is None or found[2] == 1:
                self.pending = None
                if found is None and not alone():
                    reason = "this job has several ranks and no torch.distributed process group"
                    self._refuse(wish, step, f"{reason} through which they could agree on a step")
                else:
                    self._apply(wish, step)
                return
        try:
            if self._agreement is None:
                assert found is not None
                name = f"{wish.generation}/{self._tries}"
                reason = self._refusal(wish.settings) or self._fits or ""
                self._agreement = Agreement(*found, name, reason)
            verdict = self._agreement.look(step)
        except Exception as error:  # the store has gone, and with it rank 0
            self._refuse(wish, step, f"the ranks could not agree: {error}")
        else:
            if verdict is None:
                if self._later is None or self._agreement.promised:
                    return
                # It came to nothing at that step, and by now something else is wished for.
            elif verdict.refusal:
                self._refuse(wish, step, verdict.refusal)
            else:
                self._apply(wish, step, agreed=True)
        self.pending = self._agreement = self._fits = None
        self._news, self._later = self._later, None
        if self._news is not None:
            self._take_up(step)

    def _apply(self, wish: Wish, step: int, agreed: bool = False, promised: bool = False) -> None:
        if wish.refusal:
            self._answer(wish, "Refused", step, wish.refusal)
            return
        reason = "" if agreed else self._refusal(wish.settings, promised) or self._fits or ""
        if reason:
            self._refuse(wish, step, reason)
            return
        message, before = "", self._batches()
        try:
            changed = self._configure(wish.settings)
        except NotAdjustableError as error:
            if not agreed:
                self._refuse(wish, step, str(error))
                return
            # The other ranks make the change: so does this one, if need be without workers.
            changed = self._configure({**wish.settings, WORKERS: 0})
            message = f"{error}; data is loaded in the training process"
        if MICRO in wish.settings:
            grown = int(wish.settings[MICRO]) > int(before.get(MICRO, 0))
            self.smaller = before if before and grown else None
        self._answer(wish, "Applied" if changed else "Unchanged", step, message)

    def go_back(self, reason: str, step: int) -> None:
        """A step ran out of memory, of a rank that is alone: what was in force before the batches
        became larger is in force again, and the wish is refused after all."""
        settings, self.smaller = self.smaller, None
        assert settings is not None
        try:
            self._configure(settings)
        except NotAdjustableError:
            self._configure({**settings, WORKERS: 0})
        if self._wish is not None:
            words = f"a step ran out of memory and was taken again: {reason[:300]}"
            self._refuse(self._wish, step, words)
            self._wish = None  # not to be tried again with the next loader

    def _tried(self, wish: Wish) -> bool:
        """Whether it is known if larger batches fit. That takes one more step, to see what a batch
        is; where it cannot be seen, nothing is known against them."""
        if self._fits is not None:
            return True
        stepping, size = self._stepping, wish.settings.get(MICRO)
        larger = isinstance(size, int) and size > int(self._batches().get(MICRO, size))
        if not larger or not stepping._tryout.possible or self._refusal(wish.settings):
            self._fits = ""
        elif not stepping._tryout.wanted:
            stepping._tryout.wanted = True
            return False
        else:
            mode = wish.settings.get(AUTOCAST)
            autocast = stepping._precision.autocast(None, None if mode is None else str(mode))
            self._fits = stepping._tryout.run(int(str(size)), autocast)
        return True

    def _batches(self) -> dict[str, int | str]:
        """What is in force of all that makes a step what it is; empty without a loader for it."""
        loader = next(filter(_accumulates, self._in_order()), None)
        if loader is None:
            return {}
        knobs, stepping = loader.knobs(), self._stepping
        return {
            MICRO: int(knobs[MICRO]),
            ACCUMULATION: int(knobs[ACCUMULATION]),
            LEARNING_RATE: stepping._rate_percent,
            AUTOCAST: stepping._precision.mode,
        }

    def _refuse(self, wish: Wish, step: int, reason: str) -> None:
        names = ", ".join(wish.settings)
        self._answer(wish, "Refused", step, f"{names} cannot be changed here: {reason}")

    def _answer(self, wish: Wish, result: str, step: int, message: str) -> None:
        self.acknowledgement = Acknowledgement(wish.generation, result, step, message)
        self.urgent = True

    def _refusal(self, settings: dict[str, int | str], promised: bool = False) -> str:
        """Why not all of ``settings`` can be applied here; empty if they can. ``promised``: that
        the script leaves its steps to the monitor, before the first one."""
        names, loaders = settings.keys(), self._in_order()
        takes_steps = promised or self._stepping._takes_steps
        if others := sorted(names - TOGETHER - set(LOADING)):
            return f"{', '.join(others)}: a knob of model servers; this process trains"
        if STEPS & names and not (takes_steps and any(map(_accumulates, loaders))):
            return BATCH_LINES
        if settings.get(LEARNING_RATE, UNCHANGED) != UNCHANGED and not self._stepping._rates_known:
            return "an optimizer has no param_groups with an 'lr' each; step one of torch.optim"
        if AUTOCAST in names:
            precision = self._stepping._precision
            if not takes_steps or precision.device is None:
                return PRECISION_LINES
            if reason := precision.refusal(str(settings[AUTOCAST])):
                return reason
        if set(LOADING) & names:
            if not loaders:
                return "no loader has been handed to monitor.loader() yet"
            if (obstacle := loaders[0].obstacle()) is not None:
                return obstacle
            if PIN in names and PIN not in loaders[0].settable():
                return f"this process uses no CUDA device to copy to; leave {PIN} out"
        return ""

    def _configure(self, settings: dict[str, int | str]) -> bool:
        loading = {name: value for name, value in settings.items() if name != AUTOCAST}
        changed = False
        for loader in self._living():
            changed = loader.configure(loading) or changed
        self._standing.update(loading)
        if LEARNING_RATE in loading:
            percent = int(loading[LEARNING_RATE])
            changed = changed or percent != self._stepping._rate_percent
            self._stepping._rate_percent = percent
        if AUTOCAST in settings:
            changed = self._stepping._precision.change(str(settings[AUTOCAST])) or changed
        return changed

    def _living(self) -> list[MonitoredLoader]:
        self._loaders = [reference for reference in self._loaders if reference() is not None]
        return [loader for reference in self._loaders if (loader := reference()) is not None]

    def _in_order(self) -> list[MonitoredLoader]:
        """Those that take the most knobs first."""
        return sorted(self._living(), key=lambda loader: -len(loader.settable()))


def _accumulates(loader: MonitoredLoader) -> bool:
    return loader.accumulates


def alone() -> bool:
    """Whether this rank is the only one, as far as it knows now."""
    found = group()
    if found is not None:
        return found[2] == 1
    try:
        return int(os.environ.get("WORLD_SIZE", "1")) <= 1
    except ValueError:
        return True
