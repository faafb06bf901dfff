"""What a story of a diagnosis is made of: plain, cleaned data for the renderers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class State(StrEnum):
    """What became of a hypothesis, or of a node of the fault tree."""

    CONFIRMED = "Confirmed"
    RULED_OUT = "RuledOut"
    NO_DATA = "NoData"


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of evidence, as people read it."""

    signal: str
    value: str
    bound: str
    over: str
    source: str


@dataclass(frozen=True, slots=True)
class CauseView:
    """A confirmed cause. ``share`` and ``confidence`` 0..1; ``behind`` is the id of the cause that
    explains it, empty for one that stands for itself."""

    id: str
    kind: str
    title: str
    share: float
    confidence: float
    evidence: tuple[Figure, ...]
    advice: str = ""
    behind: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One hypothesis on a bone."""

    id: str
    title: str
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Condition:
    """A basic event of the fault tree; ``holds`` is None without data."""

    text: str
    holds: bool | None


@dataclass(frozen=True, slots=True)
class TreeCause:
    """An AND gate over its conditions."""

    id: str
    title: str
    state: State
    conditions: tuple[Condition, ...]

    @property
    def deciding(self) -> Condition | None:
        """The condition by which it was ruled out, or whose figure is missing."""
        wanted = False if self.state is State.RULED_OUT else None
        return next((c for c in self.conditions if c.holds is wanted), None)


@dataclass(frozen=True, slots=True)
class Stage:
    """An OR gate over the causes of one stage of the pipeline."""

    id: str
    title: str
    state: State
    causes: tuple[TreeCause, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """The fault tree: the top event, an OR gate over the stages."""

    top: str
    state: State
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A headed list of lines that is not part of the diagnosis itself."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Context:
    """What surrounds a diagnosis: about what it is, what it rests on, and what was done.

    ``unknown`` tells why nothing can be said; it is empty where something can. ``healthy`` is what
    is said where nothing is wrong and no hypothesis had to be tried. ``purpose`` is what an action
    was for that no cause asked for. ``sections`` come after the advice, ``notes`` are short remarks
    on the data, such as a cut-off last line.
    """

    title: str = ""
    basis: str = ""
    unknown: str = ""
    healthy: str = ""
    purpose: str = ""
    sections: Sequence[Section] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Story:
    """A diagnosis with all its strings cleaned."""

    title: str
    basis: str
    headline: str
    detail: str
    wrong: bool | None
    """True: something is wrong; False: nothing is; None: it cannot be told."""
    symptom: str
    measured: Figure | None
    causes: tuple[CauseView, ...]
    ruled_out: tuple[Item, ...]
    no_data: tuple[Item, ...]
    whys: tuple[str, ...]
    runner_up: str
    effect: str
    bones: Mapping[str, tuple[Item, ...]]
    tree: Tree | None
    sections: tuple[Section, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def advice(self) -> tuple[tuple[str, str], ...]:
        """Cause id and what to do about it, without what goes away with another cause."""
        return tuple((c.id, c.advice) for c in self.causes if c.advice and not c.behind)


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{share * 100:.1f}%" if 0 < share < 0.0995 else f"{share * 100:.0f}%"
