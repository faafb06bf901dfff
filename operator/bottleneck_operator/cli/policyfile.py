"""A BottleneckPolicy from a file, checked as the API server would, in the same words."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..api import scalars, units
from ..api.meta import Rule
from ..api.objectives import Latency, Objectives
from ..api.policy import BottleneckPolicy, PolicySpec
from .output import RefusedError

_MESSAGES: dict[str, str] = {
    pattern: rule.message
    for pattern, kind in (
        (units.DURATION_PATTERN, scalars.Duration),
        (units.PERCENT_PATTERN, scalars.Percent),
        (units.NUMBER_PATTERN, scalars.Number),
    )
    for rule in get_args(kind)
    if isinstance(rule, Rule)
}
"""What to write instead, by the pattern that was not met: the messages of the API server."""


def read_objectives(name: str) -> Objectives:
    """The objectives of the policy in a file, ``-`` for standard input. Raises ``RefusedError``
    with a message for each field that is wrong."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise RefusedError(f"{name} is not YAML: {' '.join(str(error).split())}") from None
    except UnicodeDecodeError:
        raise RefusedError(f"{name} is not a text file; write a BottleneckPolicy in YAML") from None
    except OSError as error:
        raise RefusedError(f"{name} cannot be read: {error.strerror or error}") from None
    policies = [d for d in documents if isinstance(d, dict) and d.get("kind") == "BottleneckPolicy"]
    if len(policies) != 1:
        found = f"{len(policies)} policies" if policies else "no BottleneckPolicy"
        raise RefusedError(f"{name} holds {found}; write one with kind: BottleneckPolicy")
    try:
        policy = BottleneckPolicy.model_validate(policies[0])
    except ValidationError as error:
        problems = [_problem(found) for found in error.errors()]
        raise RefusedError(f"{name}: {'; '.join(problems)}") from None
    if problems := list(_rules(policy.spec)):
        raise RefusedError(f"{name}: {'; '.join(problems)}")
    return policy.spec.objectives


def objectives_of(spec: Any, where: str) -> Objectives:
    """The objectives of a policy's spec that a recording brought along. Raises ``RefusedError``."""
    try:
        return PolicySpec.model_validate(spec).objectives
    except ValidationError as error:
        problems = "; ".join(_problem(found, "policy") for found in error.errors())
        raise RefusedError(f"{where}: {problems}; give another with --policy") from None


def _problem(error: ErrorDetails, root: str = "") -> str:
    path = [root, *(str(part) for part in error["loc"])] if root else list(map(str, error["loc"]))
    where = ".".join(path)
    if error["type"] == "missing":
        return f"{where} is missing: write it"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], _fields(path[:-1]), n=1)
        return f"{where}: there is no such field" + (f"; did you mean {near[0]}?" if near else "")
    pattern = (error.get("ctx") or {}).get("pattern")
    if pattern in _MESSAGES:
        return f"{where}: {_MESSAGES[pattern]}"
    value = f", found {error['input']!r}"[:80] if not isinstance(error["input"], dict) else ""
    return f"{where}: {error['msg'][:1].lower()}{error['msg'][1:]}{value}"


def _fields(path: list[str]) -> list[str]:
    """Names of the fields at a place of a policy."""
    model: Any = BottleneckPolicy
    for part in path:
        fields = {f.alias or name: f.annotation for name, f in model.model_fields.items()}
        options = [fields.get(part), *get_args(fields.get(part))]
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        if model is None:
            return []
    return [f.alias or name for name, f in model.model_fields.items()]


def _rules(spec: PolicySpec) -> Iterator[str]:
    """What the API server checks with rules and the model's types do not."""
    wanted = spec.objectives
    where = "spec.objectives"
    if not wanted.model_fields_set or wanted == Objectives():
        yield f"{where}: {Objectives.rules[0].message}"
    if wanted.latency and units.seconds(wanted.latency.target) <= 0:
        yield f"{where}.latency.target: {Latency.rules[0].message}"
    if wanted.error_rate and units.fraction(wanted.error_rate.max) > 1:
        yield f"{where}.errorRate.max: {_MESSAGES[units.PERCENT_PATTERN]}"
    if wanted.data_wait and units.fraction(wanted.data_wait.max) > 1:
        yield f"{where}.dataWait.max: {_MESSAGES[units.PERCENT_PATTERN]}"
    if wanted.goodput and units.number(wanted.goodput.min) <= 0:
        yield f"{where}.goodput.min: {_MESSAGES[units.NUMBER_PATTERN]}"
    if (use := wanted.utilization) is not None:
        if use.min is None and use.max is None:
            yield f"{where}.utilization: {use.rules[0].message}"
        elif use.min is not None and use.max is not None and use.min >= use.max:
            yield f"{where}.utilization.min: {use.rules[1].message}"
