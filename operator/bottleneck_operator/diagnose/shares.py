"""What removing a cause would return, as a share of the step or of the latency. Pure.

After Amdahl: a part that takes the share s of the time returns at most s when it is gone. What only
gets faster by a factor f returns s × (1 − 1/f).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .predicates import Signals, value


@dataclass(frozen=True, slots=True)
class Share:
    """``of`` gives the share (0..1) from the signals, or None where it is not known; ``text`` says
    the same to people."""

    text: str
    of: Callable[[Signals], float | None]


def signal(*names: str) -> Share:
    """The first of these signals that is measured."""

    def of(signals: Signals) -> float | None:
        return next((v for name in names if (v := value(signals, name)) is not None), None)

    return Share(", else ".join(f"`{name}`" for name in names), of)


def part_of(factor: float, name: str, why: str) -> Share:
    """A fixed part of a signal: what is made faster does not go away."""

    def of(signals: Signals) -> float | None:
        found = value(signals, name)
        return None if found is None else factor * found

    return Share(f"{factor:.2g} × `{name}` ({why})", of)


def slowdown(*names: str) -> Share:
    """What going back to the usual speed returns: 1 − 1/r of the greatest of these ratios."""

    def of(signals: Signals) -> float | None:
        found = [v for name in names if (v := value(signals, name)) is not None and v > 0]
        return max(0.0, 1 - 1 / max(found)) if found else None

    return Share("1 − 1/r, r the greatest of " + ", ".join(f"`{name}`" for name in names), of)


def first_of(*shares: Share) -> Share:
    """The first of these that is known."""

    def of(signals: Signals) -> float | None:
        return next((v for share in shares if (v := share.of(signals)) is not None), None)

    return Share("; else ".join(share.text for share in shares), of)


def scaled(share: Share, without: str) -> Share:
    """A share of what this signal leaves of the whole; of all of it where that is not known."""

    def of(signals: Signals) -> float | None:
        found = share.of(signals)
        return None if found is None else found * (1 - (value(signals, without) or 0.0))

    return Share(f"({share.text}) × (1 − `{without}`)", of)


def quotient(part: str, whole: str) -> Share:
    """One signal's part of another one."""

    def of(signals: Signals) -> float | None:
        above, below = value(signals, part), value(signals, whole)
        return above / below if above is not None and below else None

    return Share(f"`{part}` / `{whole}`", of)


def rest_of(name: str) -> Share:
    """What a signal leaves of the whole."""

    def of(signals: Signals) -> float | None:
        found = value(signals, name)
        return None if found is None else 1 - found

    return Share(f"1 − `{name}`", of)


def fixed(share: float, why: str) -> Share:
    """A share that no figure tells."""
    return Share(f"{share:.0%} ({why})", lambda _: share)
