"""How learning goes on one rank: losses, gradient norms and the gradient noise scale.

The training thread never waits for a device here. What is on a GPU is copied to the host behind the
work that is queued already, and read in a later step, once its event says that it has arrived.
Losses on the CPU are looked at in every step; all else in one step a second or fewer.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch

LOOK_SECONDS = 1.0
"""Least time between two steps whose gradients are looked at."""

LOOK_SHARE = 0.002
"""Most of the training thread's time that looking may take: a norm reads every gradient once, which
counts where they are many and the CPU computes it. Then it is looked at more seldom."""

PENDING = 4
"""Most figures that are on their way from a device; a look beyond that is left out."""

LARGEST_LOSS = 1e9
"""A loss beyond it counts as this much in the sum, which then stays exact in a float64."""

LARGEST = 1e18
"""No greater figure is reported: the wire takes none above 2^63."""


class Learning:
    """Counts and last figures, as ``TrainingRank`` reports them. ``read_anywhere`` also reads the
    loss from devices whose work cannot be followed with events, which waits for them."""

    def __init__(self, read_anywhere: bool = False) -> None:
        self.loss: float | None = None
        """The last finite one."""
        self.losses = self.nonfinite_losses = 0
        self.loss_sum = 0.0
        """Of the finite ones."""
        self.gradient_norm: float | None = None
        self.nonfinite_gradient_norms = 0
        self.skipped_steps = 0
        """Steps that ``fp16`` left out, which is how it finds its scale."""
        self.noise = NoiseScale()
        self.looking = False
        """Whether the gradients of the present step are looked at."""
        self.due = float("-inf")
        """Until then ``begin`` has nothing to do."""
        self._looked_at = float("-inf")
        self._cost = 0.0
        """Seconds that the last look took the training thread."""
        self._read_anywhere = read_anywhere
        self._arriving = Arriving()
        self._first: tuple[torch.Tensor, float, int] | None = None

    def begin(self, now: float) -> None:
        """A step begins at ``now`` (``perf_counter``). May be left out before ``due``."""
        self._arriving.settle()
        self._first = None
        self.due = self._looked_at + max(LOOK_SECONDS, self._cost / LOOK_SHARE)
        self.looking = now >= self.due
        if self.looking:
            self._looked_at = now
            self._cost = 0.0
        if self.looking or self._arriving.pending:
            self.due = float("-inf")  # the next step is another one

    def take_loss(self, loss: Any) -> None:
        """The loss of the present step, a number or a tensor of one."""
        if isinstance(loss, torch.Tensor):
            if loss.numel() != 1:
                return
            if not loss.is_cpu:
                if self.looking:
                    self._arriving.read(
                        loss.detach().reshape(1),
                        lambda found: self._count_loss(found[0]),
                        self._read_anywhere,
                    )
                return
            loss = loss.item()
        try:
            self._count_loss(float(loss))
        except (TypeError, ValueError, OverflowError):
            return

    def norm_of(self, optimizers: Sequence[Any]) -> torch.Tensor | None:
        """``norm_of``, in the present look."""
        begun = time.perf_counter()
        norm = norm_of(optimizers)
        self._cost += time.perf_counter() - begun
        return norm

    def take_local(self, local: LocalGradients, scale: float, samples: int) -> None:
        """The same as ``take_first`` for a step of one batch."""
        norm = local.norm()
        self._cost += local.seconds
        self.take_first(norm, scale, samples)

    def take_first(self, norm: torch.Tensor | None, factor: float, samples: int) -> None:
        """Norm of the gradients of a part of the step, ``samples`` on this rank alone, ``factor``
        times as large as those of the mean over them."""
        if norm is not None and factor > 0:
            self._first = norm, factor, samples

    def take_whole(self, norm: torch.Tensor | None, samples: int | None, skipped: bool) -> None:
        """Norm of the gradients of the mean over the step's ``samples``, those of the other ranks
        included; None where their number is not known."""
        if skipped:
            self.skipped_steps += 1
        if norm is None or not self.looking or skipped:
            return
        if self._first is None or samples is None:
            self._arriving.read(norm.reshape(1), lambda found: self._count_norm(found[0]))
            return
        first, factor, part = self._first

        def arrived(found: Sequence[float]) -> None:
            self._count_norm(found[0])
            self.noise.take(found[1] / factor, part, found[0], samples)

        self._arriving.read(torch.stack([norm, first.to(norm)]), arrived)

    def _count_loss(self, value: float) -> None:
        self.losses += 1
        if -LARGEST_LOSS <= value <= LARGEST_LOSS:
            self.loss = value
            self.loss_sum += value
            return
        if not math.isfinite(value):
            self.nonfinite_losses += 1
            return
        self.loss = max(-LARGEST, min(LARGEST, value))
        self.loss_sum += max(-LARGEST_LOSS, min(LARGEST_LOSS, value))

    def _count_norm(self, value: float) -> None:
        if math.isfinite(value):
            self.gradient_norm = min(value, LARGEST)
        else:
            self.nonfinite_gradient_norms += 1


class NoiseScale:
    """Squared length of the true gradient and variance of a sample's, smoothed.

    The squared norm of a gradient over B samples is |G|² + tr(Σ)/B on average. From a step's whole
    gradient and that of a part of it follow both, without bias; their quotient tr(Σ)/|G|² is the
    simple noise scale in samples. McCandlish et al., An Empirical Model of Large-Batch Training,
    2018, appendix A.1, smoothed before dividing as there.
    """

    KEEP = 0.96
    """Weight of the past at each look: about the last 25 count."""

    LOOKS = 16
    """Fewest looks of which a figure is made."""

    def __init__(self) -> None:
        self.looks = 0
        self._square = self._variance = 0.0

    def take(self, part_norm: float, part: int, whole_norm: float, whole: int) -> None:
        """Gradient norms of ``part`` samples and of the ``whole`` step that they are from."""
        if not 0 < part < whole or not math.isfinite(part_norm + whole_norm):
            return
        small, big = part_norm**2, whole_norm**2
        square = (whole * big - part * small) / (whole - part)
        variance = (small - big) / (1 / part - 1 / whole)
        self.looks += 1
        self._square += (1 - self.KEEP) * (square - self._square)
        self._variance += (1 - self.KEEP) * (variance - self._variance)

    def figures(self) -> tuple[float, float] | None:
        """|G|² and tr(Σ); None before there were enough looks, and while one of the estimates,
        which scatter around the truth, is not above zero."""
        if self.looks < self.LOOKS:
            return None
        begun = 1 - self.KEEP**self.looks  # both began at zero
        square, variance = self._square / begun, self._variance / begun
        if not (0 < square < LARGEST and 0 < variance < LARGEST):
            return None
        return square, variance


class Arriving:
    """Figures on their way from a device to whoever wants to know them."""

    def __init__(self) -> None:
        self.pending: deque[tuple[Any, torch.Tensor, Callable[[list[float]], None]]] = deque()

    def read(
        self, values: torch.Tensor, then: Callable[[list[float]], None], wait: bool = False
    ) -> None:
        """Calls ``then`` with the values: at once if they are in the host's memory, for CUDA in a
        later ``settle``, and for other devices only with ``wait``."""
        if values.device.type == "cpu" or (wait and values.device.type != "cuda"):
            then(values.tolist())
        elif values.device.type == "cuda" and len(self.pending) < PENDING:
            with torch.cuda.device(values.device):
                host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
                host.copy_(values, non_blocking=True)
                event = torch.cuda.Event()
                event.record()
            self.pending.append((event, host, then))

    def settle(self) -> None:
        """Reads what has arrived."""
        while self.pending and self.pending[0][0].query():
            _, host, then = self.pending.popleft()
            then(host.tolist())


def norm_of(optimizers: Sequence[Any]) -> torch.Tensor | None:
    """The norm of all gradients together, still on its device; None where it would take other ranks
    to know it (gradients that are spread over them), or there is none."""
    gradients = [
        parameter.grad
        for optimizer in optimizers
        for group in getattr(optimizer, "param_groups", ())
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    if not gradients or any(type(gradient) is not torch.Tensor for gradient in gradients):
        return None
    try:
        norm: torch.Tensor = torch.nn.utils.get_total_norm(gradients)
    except RuntimeError:  # of types or layouts that do not go together
        return None
    return norm


class LocalGradients:
    """The gradients of one backward pass as this rank computes them, before
    DistributedDataParallel replaces them by the mean of all ranks: their norms."""

    def __init__(self, module: Any) -> None:
        self.seconds = 0.0
        """What it took the thread of the backward pass."""
        self._norms: dict[int, torch.Tensor] = {}
        self._repeated = False
        self._hooks: list[Any] = []
        for index, parameter in enumerate(module.parameters()):
            if parameter.requires_grad:
                # On the node and not on the tensor: no compiled graph depends on that.
                node = parameter.view_as(parameter).grad_fn.next_functions[0][0]
                self._hooks.append((node, node.register_prehook(self._noting(index))))

    def _noting(self, index: int) -> Callable[[tuple[torch.Tensor, ...]], None]:
        def note(gradients: tuple[torch.Tensor, ...]) -> None:
            begun = time.perf_counter()
            self._repeated = self._repeated or index in self._norms
            if gradients[0] is not None:
                self._norms[index] = torch.linalg.vector_norm(gradients[0].detach().float())
            self.seconds += time.perf_counter() - begun

        return note

    def norm(self) -> torch.Tensor | None:
        """Of all of them together; None if there was no backward pass, or more than one. Ends."""
        for _, hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        norms = list(self._norms.values())
        if self._repeated or not norms:
            return None
        return torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))
