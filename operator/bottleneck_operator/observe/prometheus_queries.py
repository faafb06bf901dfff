"""The queries: selectors for a workload's pods, and what a query of the policy looks at. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

MAX_QUERY = 3500
"""Characters of one query. It travels in the URL, of which proxies take 8 KiB, and escaping can
double it."""

MAX_PODS = 1500
"""Characters of the pods' names in a selector; beyond them a common beginning stands for all, and
what it matches too much is left out afterwards."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Which labels name the namespace and the pod of a series."""

    namespace: str
    pod: str


VARIANTS = (
    Variant("namespace", "pod"),
    # An exporter that tells of other pods, scraped without honor_labels.
    Variant("exported_namespace", "exported_pod"),
    # cAdvisor before Kubernetes 1.16.
    Variant("namespace", "pod_name"),
    # The DCGM exporter with its older labels.
    Variant("pod_namespace", "pod_name"),
    # The scrape configuration that long came with Prometheus' own example for Kubernetes.
    Variant("kubernetes_namespace", "kubernetes_pod_name"),
)
"""Spellings that are looked for; see docs/prometheus.md."""


def matchers(
    variant: Variant | None, namespace: str, pods: Sequence[str], selector: Mapping[str, str]
) -> str:
    """The inside of a selector's braces. With a ``selector`` of the policy it takes the place of
    the namespace; the variant None then stands for series that name no pod."""
    parts = [f'{label}="{escaped(value)}"' for label, value in sorted(selector.items())]
    if variant is None:
        labels = sorted({each.pod for each in VARIANTS})
        return ",".join([*parts, *(f'{label}=""' for label in labels)])
    if not selector:
        parts = [f'{variant.namespace}="{escaped(namespace)}"']
    return ",".join([*parts, f'{variant.pod}=~"{pod_pattern(pods)}"'])


def escaped(value: str) -> str:
    """A label's value inside a PromQL string: nothing in it ends the string or begins an escape."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def pod_pattern(pods: Sequence[str]) -> str:
    """A regular expression, inside a PromQL string, that matches at least these pods."""
    names = "|".join(quoted(name) for name in sorted(pods))
    if len(names) > MAX_PODS:
        first, last = min(pods), max(pods)
        common = next(
            (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
        )
        names = quoted(first[:common]) + ".*"
    return escaped(names)


def quoted(text: str) -> str:
    """Text that a regular expression of Prometheus (RE2) takes literally."""
    return re.sub(r"([.+*?()|\[\]{}^$\\])", r"\\\1", text)


def range_queries(names: Iterable[str], inside: str, seconds: float) -> Iterator[str]:
    """Range selectors for these metrics, in as many queries as their length asks for."""
    batch: list[str] = []
    length = len(inside)
    for name in sorted(names):
        if batch and length + len(name) > MAX_QUERY:
            yield _range_query(batch, inside, seconds)
            batch, length = [], len(inside)
        batch.append(name)
        length += len(name) + 1
    if batch:
        yield _range_query(batch, inside, seconds)


def _range_query(names: Iterable[str], inside: str, seconds: float) -> str:
    pattern = escaped("|".join(quoted(name) for name in names))
    return f'{{__name__=~"{pattern}",{inside}}}[{seconds:.0f}s]'


# -- what a query of the policy looks at -----------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    |(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
    |(?P<number>(?:\d[\w.]*|\.\d[\w.]*))
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_LABEL_LISTS = frozenset(("by", "without", "on", "ignoring", "group_left", "group_right"))
_WORDS = frozenset(
    ("and", "or", "unless", "atan2", "bool", "offset", "inf", "nan", "start", "end"),
)
_AGGREGATIONS = frozenset(
    (
        *("sum", "min", "max", "avg", "group", "stddev", "stdvar"),
        *("count", "count_values", "bottomk", "topk", "quantile"),
    )
)


def selectors(query: str) -> list[str]:
    """The vector selectors in an expression, without their ranges and modifiers: the series whose
    age is the age of the query's figure, since an instant query itself dates everything now."""
    tokens = [
        (match.lastgroup or "", match.group())
        for match in _TOKEN.finditer(query)
        if match.lastgroup != "space"
    ]
    found: list[str] = []
    index = 0
    while index < len(tokens):
        kind, text = tokens[index]
        following = tokens[index + 1][1] if index + 1 < len(tokens) else ""
        if kind == "name" and text.lower() in _LABEL_LISTS:
            index = _after(tokens, index + 1, "(", ")") if following == "(" else index + 1
        elif text == "[":
            index = _after(tokens, index, "[", "]")
        elif text == "{":
            end = _after(tokens, index, "{", "}")
            found.append(_join(tokens[index:end]))
            index = end
        elif kind == "name" and not _is_function(text, following):
            end = _after(tokens, index + 1, "{", "}") if following == "{" else index + 1
            found.append(_join(tokens[index:end]))
            index = end
        else:
            index += 1
    return list(dict.fromkeys(found))


_DURATION = re.compile(r"(\d+)(ms|s|m|h|d|w|y)")
_SECONDS = {
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
    "y": 31536000.0,
}


def reach(query: str) -> float:
    """How far back an expression looks, in seconds: its longest range and its longest offset."""
    ranges, offsets = [0.0], [0.0]
    before = ""
    for match in _TOKEN.finditer(query):
        kind, text = match.lastgroup, match.group()
        if kind == "number" and before in ("[", "offset"):
            seconds = sum(float(n) * _SECONDS[unit] for n, unit in _DURATION.findall(text))
            (ranges if before == "[" else offsets).append(seconds)
        if kind != "space":
            before = text.lower()
    return max(ranges) + max(offsets)


def _is_function(text: str, following: str) -> bool:
    if text.lower() in _WORDS or following == "(":
        return True
    return text.lower() in _AGGREGATIONS and following.lower() in ("by", "without")


def _after(tokens: Sequence[tuple[str, str]], index: int, begin: str, end: str) -> int:
    """The index behind the bracket that closes the one at ``index``."""
    depth = 0
    while index < len(tokens):
        kind, text = tokens[index]
        if kind != "string":
            depth += (text == begin) - (text == end)
        index += 1
        if depth == 0:
            break
    return index


def _join(tokens: Iterable[tuple[str, str]]) -> str:
    return "".join(text for _, text in tokens)
