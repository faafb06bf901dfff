"""Label selectors, as the API server evaluates them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Selector = Mapping[str, Any]
"""``{"matchLabels": {...}, "matchExpressions": [...]}``"""


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy a selector. An empty selector matches nothing here: a target without a
    selector has no pods of its own. Raises ValueError for an operator that does not exist."""
    equal = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    if not equal and not expressions:
        return False
    return all(labels.get(key) == value for key, value in equal.items()) and all(
        _holds(expression, labels) for expression in expressions
    )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator = expression["key"], expression["operator"]
    values = expression.get("values") or []
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    raise ValueError(f"{operator!r} is not a selector operator")


def from_string(text: str) -> Selector:
    """The selector that a scale subresource gives as ``key=value,key2=value2``."""
    equal: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, separator, value = part.partition("=")
        if not separator or "!" in key or " " in key.strip():
            raise ValueError(f"selector {text!r}: only key=value terms are understood")
        equal[key.strip()] = value.lstrip("=").strip()
    return {"matchLabels": equal}


def to_string(selector: Selector) -> str:
    """As a query parameter of a list request."""
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or []:
        key, operator = expression["key"], expression["operator"]
        values = ",".join(expression.get("values") or [])
        terms.append(
            {
                "In": f"{key} in ({values})",
                "NotIn": f"{key} notin ({values})",
                "Exists": key,
                "DoesNotExist": f"!{key}",
            }[operator]
        )
    return ",".join(terms)
