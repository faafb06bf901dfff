"""A diagnosis as one page of HTML that needs nothing else: no script, no other file. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from .parts import CauseView, Item, Story, percent
from .svg import render_svg

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c2430;--muted:#566070;--line:#d5dae1;
--soft:#f5f7fa;--bad:#b3261e;--good:#1b6e3c;--gap:#8a5a00}
@media (prefers-color-scheme:dark){:root{--paper:#12161c;--ink:#e8edf4;--muted:#a3adbb;
--line:#333c49;--soft:#1b212a;--bad:#ff8a80;--good:#7fd6a0;--gap:#ffcf6b}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif;
overflow-wrap:anywhere}
main{max-width:76rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}
h1{font-size:clamp(1.5rem,4.5vw,2.3rem);line-height:1.2;margin:.2rem 0}
h2{font-size:1.25rem;margin:2.4rem 0 .6rem}
h3{font-size:1.05rem;margin:1.4rem 0 .2rem}
p{margin:.35rem 0;max-width:48rem}
.bad{color:var(--bad)}.good{color:var(--good)}.gap{color:var(--gap)}.muted{color:var(--muted)}
.lead{font-size:1.15rem}
.small{font-size:.875rem}
.chain{list-style:none;margin:0;padding:0;max-width:56rem}
.chain li{margin:.5rem 0 0 calc(var(--depth)*clamp(.4rem,2vw,1.6rem));padding:.55rem .85rem;
border-left:4px solid var(--line);background:var(--soft);border-radius:0 6px 6px 0}
.chain li:last-child{border-color:var(--bad);font-weight:600}
.chain small{display:block;font-weight:400;color:var(--muted)}
.wide{overflow-x:auto;margin:.6rem 0;border:1px solid var(--line);border-radius:8px}
.wide svg{display:block;height:auto;min-width:64rem;width:100%}
table{border-collapse:collapse;width:100%;font-size:.92rem}
caption{text-align:left;color:var(--muted)}
th,td{text-align:left;vertical-align:top;padding:.4rem .8rem;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}
th{font-weight:600;color:var(--muted);background:var(--soft)}
td.n{white-space:nowrap;font-variant-numeric:tabular-nums}
.bar{height:.55rem;max-width:24rem;background:var(--line);border-radius:4px;overflow:hidden}
.bar i{display:block;height:100%;background:var(--bad)}
@media (max-width:40rem){table.stack thead{display:none}table.stack td{display:block;border:0;
padding:.1rem .8rem;white-space:normal}table.stack tr{display:block;padding:.5rem 0;
border-bottom:1px solid var(--line)}table.stack td::before{content:attr(data-head) ": ";
color:var(--muted)}}
@media print{:root{--paper:#fff;--ink:#000;--muted:#444;--line:#bbb;--soft:#f5f5f5;--bad:#a00;
--good:#060;--gap:#750}body{font-size:11pt}main{max-width:none;padding:0}
.wide{overflow:visible;border:0;break-inside:avoid}.wide svg{min-width:0}h2{break-after:avoid}
tr,.chain li{break-inside:avoid}}
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What the page may load: nothing. Holds even if something in it were not escaped."""


def render_html(story: Story) -> str:
    """The page. Every string of the story is escaped and, since it may be written from right to
    left, kept apart from the text around it."""
    body = "".join(
        [
            *_head(story),
            *_whys(story),
            *_causes(story),
            *_advice(story),
            *_sections(story),
            *_pictures(story),
            *_tried("Ruled out", "what speaks against it", story.ruled_out),
            *_tried("Not known for lack of data", "what is missing", story.no_data),
            *_notes(story),
        ]
    )
    title = escape(f"{story.title}: {story.headline}" if story.title else story.headline)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>{body}</main></body>"
        "</html>\n"
    )


def _data(text: str) -> str:
    return f"<bdi>{escape(text)}</bdi>"


def _head(story: Story) -> Iterator[str]:
    about = " · ".join(part for part in (story.title, story.basis) if part)
    if about:
        yield f'<p class="muted small">{_data(about)}</p>'
    css = {True: "bad", False: "good", None: "gap"}[story.wrong]
    yield f'<h1 class="{css}">{_data(story.headline)}</h1>'
    if story.detail:
        yield f'<p class="lead">{_data(story.detail)}</p>'
    if story.symptom:
        yield f"<p>Symptom: {_data(story.symptom)}</p>"
        if story.measured and story.measured.over:
            cited = f"{story.measured.signal}, {story.measured.over}"
            yield f'<p class="muted small">{_data(cited)}</p>'


def _whys(story: Story) -> Iterator[str]:
    if not story.whys:
        return
    yield '<h2>Why</h2><ol class="chain">'
    for depth, why in enumerate(story.whys):
        text, _, cited = why.partition(" [")
        small = f"<small>{_data(cited.rstrip(']'))}</small>" if cited else ""
        yield f'<li style="--depth:{min(depth, 8)}">{_data(text)}{small}</li>'
    yield "</ol>"


def _causes(story: Story) -> Iterator[str]:
    if not story.causes:
        return
    yield f"<h2>{'Causes' if len(story.causes) > 1 else 'Cause'}</h2>"
    for number, cause in enumerate(story.causes, 1):
        yield f"<h3>{number}. {_data(cause.title)}</h3>"
        share = percent(cause.share)
        yield (
            f'<div class="bar" role="img" aria-label="{share}">'
            f'<i style="width:{min(1.0, max(0.0, cause.share)) * 100:.1f}%"></i></div>'
        )
        yield f"<p>Share {share}, confidence {cause.confidence:.2f}. "
        yield f'<span class="muted small">{_data(f"{cause.id} ({cause.kind})")}</span></p>'
        if cause.behind:
            yield f"<p>It follows from {_data(cause.behind)} and goes when that goes.</p>"
        yield from _evidence(cause)
    if story.runner_up:
        yield f"<p>Runner-up, were the first not it: {_data(story.runner_up)}.</p>"


def _evidence(cause: CauseView) -> Iterator[str]:
    if not cause.evidence:
        return
    heads = ("signal", "measured", "condition", "how", "where the condition is from")
    rows = [(f.signal, f.value, f.bound, f.over, f.source) for f in cause.evidence]
    yield from _table(heads, rows, short=(1, 2))


def _advice(story: Story) -> Iterator[str]:
    if not story.advice:
        return
    yield "<h2>What to do</h2>"
    several = len(story.advice) > 1
    for id, text in story.advice:
        yield f"<p>{_data(f'{id}: {text}' if several else text)}</p>"


def _sections(story: Story) -> Iterator[str]:
    for section in story.sections:
        yield f"<h2>{_data(section.title)}</h2>"
        for line in section.lines:
            yield f"<p>{_data(line)}</p>"


def _pictures(story: Story) -> Iterator[str]:
    if any(story.bones.values()):
        yield "<h2>Fishbone: what was tried</h2>"
        yield f'<div class="wide">{render_svg(story, "fishbone", paper=False)}</div>'
    if story.tree:
        yield "<h2>Fault tree: how it comes to it</h2>"
        yield f'<div class="wide">{render_svg(story, "fault-tree", paper=False)}</div>'


def _tried(title: str, reason: str, items: Sequence[Item]) -> Iterator[str]:
    if not items:
        return
    yield f"<h2>{title}</h2>"
    rows = [(item.id, item.title, item.reason.removeprefix("no data: ")) for item in items]
    yield from _table(("hypothesis", "what it says", reason), rows)


def _notes(story: Story) -> Iterator[str]:
    if story.notes:
        yield "<h2>Notes</h2>"
        for note in story.notes:
            yield f"<p>{_data(note)}</p>"


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], short: Sequence[int] = ()
) -> Iterator[str]:
    """On a phone every row becomes a block, and each cell tells its head itself."""
    yield '<div class="wide"><table class="stack"><thead><tr>'
    yield "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>"
        for number, (head, cell) in enumerate(zip(heads, row, strict=True)):
            css = ' class="n"' if number in short else ""
            yield f'<td{css} data-head="{escape(head)}">{_data(cell)}</td>'
        yield "</tr>"
    yield "</tbody></table></div>"
