"""Telemetry and knobs of a training script, in about three lines:

    monitor = StepMonitor()
    loader = monitor.loader(DataLoader(...))
    for batch in loader:
        ...                               # forward, backward, optimizer.step()
        monitor.step(samples=len(batch))

With those of ``stepping`` the batch size and the precision can be changed too.

Time is split by the clock of the training thread. On a GPU, where kernels are only queued, waiting
for them shows up in the phase that synchronises.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from threading import get_ident
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from bottleneck_sidecar import capabilities, hooks, proc
from bottleneck_sidecar import knobs as knobs_file
from bottleneck_sidecar.client import GPU_VARIABLE, REPORT_SECONDS, Client, new_epoch
from bottleneck_sidecar.clock import CHECKPOINT, EVALUATION, FORWARD, INDEX, LONG, OPTIMIZER, Clock
from bottleneck_sidecar.monitored import MonitoredLoader, moved
from bottleneck_sidecar.phases import NOTHING, LongPhase, Nothing, Phase
from bottleneck_sidecar.stepping import Stepping
from bottleneck_sidecar.training_knobs import TrainingKnobs, alone
from bottleneck_sidecar.wire import PHASES, TrainingRank
from bottleneck_sidecar.workers import LoaderWorkers


class StepMonitor(Stepping):
    """Counts one rank's steps and where their time goes, reports them, and applies knobs.

    ``rank`` and ``world_size`` default to RANK and WORLD_SIZE, else to torch.distributed, else to
    one rank. ``socket`` and ``knobs`` are paths, by default the ones the injector sets; without
    either the monitor does nothing. ``read_loss`` allows reading the loss from devices other than
    CPU and CUDA, which waits for the device (at most once a second). ``autocast`` is the precision
    to begin with: ``off``, ``bf16`` or ``fp16`` (see ``forward``).

    Nothing here raises into the training loop because of telemetry or knobs. All methods are for
    the thread that made the monitor: the training thread.
    """

    stand_in = False
    """Whether it gives way to a monitor that the script itself makes."""

    def __init__(
        self,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        socket: str | None = None,
        knobs: str | None = None,
        read_loss: bool = False,
        autocast: str = "off",
    ) -> None:
        super().__init__(autocast, read_loss)
        self._client = Client(socket)
        self._knobs = TrainingKnobs(knobs, self)
        self.enabled = self._client.enabled or self._knobs.path is not None
        self._rank = rank
        self._world_size = world_size
        self._epoch = new_epoch()
        self._started_at = proc.started_at()
        self._process = os.getpid()
        self._thread = get_ident()
        self._schedstat = f"/proc/self/task/{threading.get_native_id()}"
        self.clock = Clock()
        self._steps = 0
        self._samples = 0
        self._low = False
        self._low_steps = 0
        self._low_optimizers: dict[int, bool] = {}
        """By id; emptied with each report, so that a number is not another one's for long."""
        self._stepped_at: float | None = None
        """When the last step ended (``perf_counter``)."""
        self._workers = LoaderWorkers()
        self._reported_at = self._knobs_at = float("-inf")
        self._due = float("-inf")
        """Until then a step has nothing to do but to be counted."""
        self._several_ranks = False
        """As it was at the last report."""
        self._phases = {name: Phase(self.clock, index) for name, index in INDEX.items()}
        self._long = {slot: LongPhase(self, slot) for slot in LONG}
        self._capabilities: list[str] | None = None
        self._on_gpu = False
        self._gpus_known = False
        self._hooks: list[Any] = []
        if self.enabled:
            before = hooks.watched()
            if before is not None and before.stand_in:
                before.close()
            self._hooks = [
                register_optimizer_step_pre_hook(self._optimizer_begins),
                register_optimizer_step_post_hook(self._optimizer_ended),
            ]
            hooks.begin(self)
            atexit.register(self.close)

    def loader(self, loader: Any, accumulation: int | None = None) -> MonitoredLoader:
        """The loader to iterate instead of ``loader``: waiting for it counts as ``data``.

        A DataLoader over a map-style dataset becomes adjustable: the knobs ``dataLoader.workers``
        and ``dataLoader.prefetch`` take effect between steps, and every sample still comes exactly
        once and in the same order. Any other iterable is only timed.

        ``accumulation`` is how many batches make an optimizer step, taken with ``optimizer_step``.
        Then the knobs ``batch.micro`` and ``batch.accumulation`` take effect too. Raises ValueError
        if it is below 1, or if ``loader`` is no DataLoader over a map-style dataset that was built
        with ``batch_size``.
        """
        if accumulation is not None and accumulation < 1:
            raise ValueError(f"accumulation must be at least 1, not {accumulation}")
        monitored = MonitoredLoader(self, loader, accumulation)
        if self.enabled:
            with self._phases["data"]:  # starting workers is a cost of loading data
                self._knobs.add(monitored, self._steps)
            self._due = float("-inf")
        return monitored

    def phase(self, name: str) -> Phase | Nothing:
        """A context whose time counts as that phase (one of ``wire.PHASES``). Contexts can be
        nested: the inner one's time is its own. Raises ValueError for another name."""
        phase = self._phases.get(name)
        if phase is None:
            raise ValueError(f"there is no phase {name!r}; the phases are {', '.join(PHASES)}")
        return phase if self.enabled else NOTHING

    def checkpoint(self) -> LongPhase | Nothing:
        """A context for what saves the training state. ``torch.save`` counts by itself."""
        return self._long[CHECKPOINT] if self.enabled else NOTHING

    def evaluation(self) -> LongPhase | Nothing:
        """A context for evaluation, or for anything else that belongs to no step. Phases within it
        are not told apart."""
        return self._long[EVALUATION] if self.enabled else NOTHING

    def excluded(self) -> LongPhase | Nothing:
        """The same as ``evaluation``."""
        return self.evaluation()

    def to_device(self, batch: Any, device: Any, non_blocking: bool = False) -> Any:
        """``batch`` with every tensor in it moved to ``device``; counts as ``transfer``.

        Goes into dicts, lists and tuples. With ``non_blocking`` only the start of the copy is
        counted.
        """
        with self.phase("transfer"):
            return moved(batch, device, non_blocking)

    def step(self, samples: int = 0, loss: Any = None) -> None:
        """Ends a step of ``samples`` samples (of this rank). Call it once per optimizer step.

        ``loss`` may be a number or a tensor. One on a GPU is looked at once a second, without
        waiting for it; one on any other device only with ``read_loss``.
        """
        if not self.enabled:
            return
        now = self.clock.end_step()
        self._steps += 1
        self._samples += samples
        self._stepped_at = now
        # An autocast around the whole loop was entered long ago.
        if self._low or torch._C._is_any_autocast_enabled():
            self._low_steps += 1
            self._low = False
        if loss is not None:
            self._learning.take_loss(loss)
        if now >= self._due:
            self._attend(now)

    def _attend(self, now: float) -> None:
        """What is not due in every step."""
        learning, knobs = self._learning, self._knobs
        learning.begin(now)
        pending = knobs.pending is not None
        if pending or (now >= self._knobs_at and knobs.path is not None):
            self._knobs_at = now + knobs_file.LOOK_SECONDS
            if knobs.news() or pending:
                with self._phases["data"]:
                    knobs.follow(self._steps)
        if knobs.urgent or now - self._reported_at >= REPORT_SECONDS:
            self._report(now)
        if knobs.pending is not None or knobs.urgent:
            self._due = float("-inf")
            return
        self._due = min(learning.due, self._reported_at + REPORT_SECONDS)
        if knobs.path is not None:
            self._due = min(self._due, self._knobs_at)

    def close(self) -> None:
        """Sends a last report and takes the hooks away; called at exit by itself."""
        if not self.enabled or os.getpid() != self._process:
            return
        if self._steps or self._reported_at > float("-inf"):
            self._report(time.perf_counter())
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self.enabled = False
        hooks.end(self)
        self._client.close()
        atexit.unregister(self.close)

    # What torch tells by itself (see hooks.py)

    def _optimizer_begins(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        if get_ident() != self._thread or not self.enabled:
            return None
        self.clock.enter(OPTIMIZER)
        # The first argument is the optimizer itself. What a closure does is no optimizer's work.
        if len(args) > 1 and callable(args[1]):
            return (args[0], self._forward_within(args[1]), *args[2:]), kwargs
        if kwargs and callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._forward_within(kwargs["closure"])}
        return None

    def _forward_within(self, closure: Any) -> Any:
        """The closure of an optimizer: a forward pass, and a backward pass that tells itself."""
        clock = self.clock

        def counted() -> Any:
            clock.enter(FORWARD)
            try:
                return closure()
            finally:
                clock.leave()

        return counted

    def _optimizer_ended(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if get_ident() == self._thread and self.enabled:
            self.clock.leave()
            low = self._low_optimizers.get(id(optimizer))
            if low is None:
                low = self._low_optimizers[id(optimizer)] = _low_precision(optimizer)
            if low:
                self._low = True

    def _backward_begins(self) -> None:
        """For those who want to know."""

    def _low_precision_used(self) -> None:
        if self.clock.slot not in LONG:
            self._low = True

    def _begin_waiting(self) -> None:
        """A loader is about to be waited for."""
        if self._reported_at == float("-inf"):  # so that the rank is known before its first step
            self._report(self.clock.switch(self.clock.slot))
        elif self.clock.slot in LONG:  # no step reports while this goes on
            now = self.clock.switch(self.clock.slot)
            if now - self._reported_at >= REPORT_SECONDS:
                self._report(now)

    def _can_go_back(self) -> bool:
        return self._knobs.smaller is not None and alone()

    def _go_back(self, reason: str) -> None:
        self._knobs.go_back(reason, self._steps)
        self._due = float("-inf")

    def _knobs_in_force(self) -> tuple[dict[str, float | str | bool], list[str]]:
        """The settings, and which of them can be changed."""
        return self._knobs.in_force(), self._knobs.settable()

    # Reports

    def _report(self, now: float) -> None:
        self._reported_at = now
        try:
            self._find_rank()
            self._several_ranks = hooks.several_ranks()
            self._find_device()
            sent = self._client.send(training=self._counts())
        except Exception:  # whatever it is, it is no reason to end somebody's training
            self._client.dropped += 1
            sent = False
        # A lost acknowledgement is tried again at the next step, but not where nobody listens.
        self._knobs.urgent = self._knobs.urgent and not sent and self._client.enabled

    def _counts(self) -> TrainingRank:
        clock, stepped_at = self.clock, self._stepped_at
        if stepped_at is not None:
            stepped_at += time.time() - time.perf_counter()
        seconds = dict(zip(PHASES, clock.seconds, strict=False))
        workers, learning = self._workers.read(), self._learning
        square, variance = learning.noise.figures() or (None, None)
        in_force, settable = self._knobs_in_force()
        self._low_optimizers.clear()  # parameters may have been added or cast
        return TrainingRank(
            epoch=self._epoch,
            rank=self._rank or 0,
            world_size=self._world_size or 1,
            steps=self._steps,
            samples=self._samples,
            step_seconds=sum(seconds.values()),
            seconds=seconds,
            last_step_at=stepped_at,
            loss=learning.loss,
            started_at=self._started_at,
            phase=LONG.get(clock.slot, "step"),
            cpu_seconds=dict(zip(PHASES, clock.cpu_seconds, strict=False)),
            run_queue_seconds=proc.run_queue_seconds(self._schedstat),
            checkpoint_seconds=clock.seconds[CHECKPOINT],
            evaluation_seconds=clock.seconds[EVALUATION],
            loader_seconds=workers.seconds,
            loader_cpu_seconds=workers.cpu_seconds,
            loader_run_queue_seconds=workers.run_queue_seconds,
            low_precision_steps=self._low_steps,
            losses=learning.losses,
            loss_sum=learning.loss_sum,
            nonfinite_losses=learning.nonfinite_losses,
            skipped_steps=learning.skipped_steps if self._takes_steps else None,
            gradient_norm=learning.gradient_norm,
            nonfinite_gradient_norms=(
                learning.nonfinite_gradient_norms if self._takes_steps else None
            ),
            gradient_square=square,
            gradient_variance=variance,
            capabilities=self._capabilities,
            knobs=in_force,
            settable=settable,
            acknowledgement=self._knobs.acknowledgement,
        )

    def _find_rank(self) -> None:
        if self._rank is not None and self._world_size is not None:
            return
        rank, world = _number_of("RANK"), _number_of("WORLD_SIZE")
        distributed = torch.distributed
        if (rank is None or world is None) and distributed.is_available():
            if not distributed.is_initialized():
                return  # perhaps later
            rank, world = distributed.get_rank(), distributed.get_world_size()
        self._rank = rank if self._rank is None else self._rank
        self._world_size = world if self._world_size is None else self._world_size

    def _find_device(self) -> None:
        if self._capabilities is None or (not self._on_gpu and torch.cuda.is_initialized()):
            self._capabilities, self._on_gpu = capabilities.of_this_process()
        if self._gpus_known:
            return
        if os.environ.get(GPU_VARIABLE) == "all":
            self._gpus_known = True
            self._client.watch_gpus()
        elif torch.cuda.is_initialized():
            self._gpus_known = True
            properties = torch.cuda.get_device_properties(torch.cuda.current_device())
            if uuid := getattr(properties, "uuid", None):
                self._client.watch_gpus([str(uuid)])


def _low_precision(optimizer: Any) -> bool:
    try:
        return any(
            parameter.dtype in hooks.LOW_PRECISION
            for group in optimizer.param_groups
            for parameter in group["params"][:1]
        )
    except Exception:  # an optimizer that keeps its parameters in its own way
        return False


def _number_of(variable: str) -> int | None:
    try:
        return max(0, int(os.environ[variable]))
    except (KeyError, ValueError):
        return None
