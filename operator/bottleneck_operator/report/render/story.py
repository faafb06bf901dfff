"""Reads a diagnosis document leniently, and makes it safe to show. Pure.

The document is the public JSON of a diagnosis (``kubectl bottleneck diagnose -o json``), or the
spec of a BottleneckReport, which holds the same parts. Reports of older versions lack the pictures;
what is absent is left out, never made up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...diagnose.objectives import shown
from .parts import (
    CauseView,
    Condition,
    Context,
    Figure,
    Item,
    Section,
    Stage,
    State,
    Story,
    Tree,
    TreeCause,
    percent,
)
from .words import clean

CATEGORIES = ("Infrastructure", "Data", "Models", "People", "Processes")
"""The bones of every fishbone, in the order in which they are listed."""

Document = Mapping[str, Any]

FLAG = "yes or no"
"""Source of a figure that is no figure: the catalogue's word for something that is so or not."""


def story(
    document: Document | Any,
    context: Context | None = None,
    advice: Mapping[str, str] | None = None,
    hints: Mapping[str, tuple[str, str]] | None = None,
) -> Story:
    """The story of a diagnosis document, or of a pydantic model of one. ``advice`` maps cause ids
    to what people can do; ``hints`` maps ids to (category, title) for documents without a
    fishbone."""
    if hasattr(document, "model_dump"):
        document = document.model_dump(mode="json", by_alias=True, exclude_none=True)
    context = context or Context()
    causes = tuple(_cause(item, advice or {}) for item in _list(document, "causes"))
    symptom = _mapping(document, "symptom")
    bones = _bones(document, causes, hints or {})
    tried = [item for items in bones.values() for item in items]
    ruled_out = tuple(item for item in tried if item.state is State.RULED_OUT)
    no_data = tuple(item for item in tried if item.state is State.NO_DATA)
    text = clean(symptom.get("text", ""))
    signal = str(_mapping(symptom, "evidence").get("signal", ""))
    wrong = True if causes or text else None if context.unknown else False
    headline, detail = _headline(wrong, text, causes, context, len(ruled_out), len(no_data), signal)
    return Story(
        title=clean(context.title),
        basis=clean(context.basis),
        headline=headline,
        detail=detail,
        wrong=wrong,
        symptom=text,
        measured=_figure(symptom["evidence"]) if _mapping(symptom, "evidence") else None,
        causes=causes,
        ruled_out=ruled_out,
        no_data=no_data,
        whys=tuple(clean(why) for why in _list(document, "whys")),
        runner_up=clean(document.get("runnerUp") or ""),
        effect=clean(_mapping(document, "fishbone").get("effect") or text or headline),
        bones=bones,
        tree=_tree(_mapping(document, "faultTree")),
        sections=tuple(
            Section(clean(s.title), tuple(map(clean, s.lines))) for s in context.sections
        ),
        notes=tuple(map(clean, context.notes)),
    )


_STEP = ("training.dataShare", "training.stepSeconds", "training.stepSlowdown")
_WHOLES = {"inference.errorRate": "the requests"}


def returned(cause: CauseView, signal: str) -> str:
    """What removing a cause would return, in words; ``signal`` is the symptom's."""
    if cause.share >= 0.995:
        return "Nothing else gets done while it lasts."
    whole = "the latency" if signal.startswith("inference.") else "the time"
    whole = "the step" if signal in _STEP else _WHOLES.get(signal, whole)
    return f"Removing it would return about {percent(cause.share)} of {whole}."


def _headline(
    wrong: bool | None,
    symptom: str,
    causes: Sequence[CauseView],
    context: Context,
    ruled_out: int,
    no_data: int,
    signal: str,
) -> tuple[str, str]:
    looked = f"{ruled_out} hypotheses are ruled out, {no_data} could not be tried for lack of data."
    if causes:
        return _sentence(causes[0].title), returned(causes[0], signal)
    if context.purpose:
        return clean(context.purpose), ""
    if wrong:
        return "No known cause is confirmed.", looked
    if wrong is None:
        return "It cannot be told what is wrong.", _sentence(clean(context.unknown))
    return "Nothing is wrong.", looked if ruled_out + no_data else clean(context.healthy)


def _sentence(text: str) -> str:
    return text if not text or text[-1] in ".!?" else text + "."


def _cause(item: Document, advice: Mapping[str, str]) -> CauseView:
    id = clean(item.get("id", "?"))
    kind = " / ".join(clean(item[key]) for key in ("class", "category") if item.get(key))
    return CauseView(
        id=id,
        kind=kind,
        title=clean(item.get("title") or id),
        share=float(item.get("share") or 0.0),
        confidence=float(item.get("confidence") or 0.0),
        evidence=tuple(_figure(figure) for figure in _list(item, "evidence")),
        advice=clean(item.get("advice") or advice.get(id, "")),
        behind=clean(item.get("explainedBy") or ""),
    )


def _figure(item: Document) -> Figure:
    value, threshold = item.get("value"), item.get("threshold")
    name, unit = str(item.get("signal", "?")), str(item.get("unit") or "")
    bound, source = "", clean(item.get("source") or "")
    if source == FLAG and isinstance(value, int | float):
        return Figure(clean(name), "yes" if value >= 1 else "no", "", "", "")
    if isinstance(value, int | float) and isinstance(threshold, int | float):
        # A confirmed cause's figures satisfy their conditions, so the sign follows from them.
        bound = f"{'≥' if value >= threshold else '<'} {shown(name, threshold, unit)}"
    over = [item.get("statistic"), item.get("window")]
    return Figure(
        signal=clean(name),
        value=clean(shown(name, value, unit)) if isinstance(value, int | float) else "no data",
        bound=clean(bound),
        over=clean(", ".join(str(part) for part in over if part)),
        source=source,
    )


def _bones(
    document: Document, causes: Sequence[CauseView], hints: Mapping[str, tuple[str, str]]
) -> dict[str, tuple[Item, ...]]:
    given = _mapping(_mapping(document, "fishbone"), "bones")
    found: dict[str, list[Item]] = {name: [] for name in CATEGORIES}
    for name in given:
        items = [
            Item(
                clean(item.get("id", "?")),
                clean(item.get("title") or item.get("id", "?")),
                _state(item.get("state")),
                clean(item.get("reason") or ""),
            )
            for item in _list(given, name)
        ]
        found.setdefault(clean(name), []).extend(items)
    if not given:
        for cause, raw in zip(causes, _list(document, "causes"), strict=True):
            item = Item(cause.id, cause.title, State.CONFIRMED, "")
            found.setdefault(clean(raw.get("category") or "Other"), []).append(item)
        for raw in _list(document, "ruledOut"):
            id, reason = clean(raw.get("id", "?")), clean(raw.get("reason") or "")
            category, title = hints.get(id, ("Other", id))
            state = State.NO_DATA if reason.startswith("no data") else State.RULED_OUT
            found.setdefault(clean(category), []).append(Item(id, clean(title), state, reason))
    rank = {State.CONFIRMED: 0, State.NO_DATA: 1, State.RULED_OUT: 2}
    return {
        name: tuple(sorted(items, key=lambda item: rank[item.state]))
        for name, items in found.items()
    }


def _tree(given: Document) -> Tree | None:
    if not given:
        return None
    stages = [
        Stage(
            clean(stage.get("id", "?")),
            clean(stage.get("title") or stage.get("id", "?")),
            _state(stage.get("state")),
            tuple(_tree_cause(cause) for cause in _list(stage, "causes")),
        )
        for stage in _list(given, "stages")
    ]
    return Tree(
        clean(given.get("top") or "the workload"), _state(given.get("state")), tuple(stages)
    )


def _tree_cause(item: Document) -> TreeCause:
    conditions: Iterable[Document] = _list(item, "conditions")
    return TreeCause(
        clean(item.get("id", "?")),
        clean(item.get("title") or item.get("id", "?")),
        _state(item.get("state")),
        tuple(Condition(clean(c.get("text", "?")), c.get("holds")) for c in conditions),
    )


def _state(value: object) -> State:
    # A state that this version does not know tells nothing.
    return State(str(value)) if value in set(State) else State.NO_DATA


def _list(document: Document, key: str) -> list[Any]:
    value = document.get(key)
    return list(value) if isinstance(value, list | tuple) else []


def _mapping(document: Document, key: str) -> Document:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}
