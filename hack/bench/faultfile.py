"""A fault is one YAML file: the workload, what is done to it, and what the truth is.

``docs/fault-suite.md`` describes it. Everything here is checked before anything is run, and what
is wrong is answered with what to write instead.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import yaml
from bottleneck_operator.api.objectives import Objectives
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

HEALTHY = "healthy"
"""The truth of a run in which nothing is wrong."""

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


class FaultError(ValueError):
    """A fault file that cannot be run; the text names the file and says what to write."""


def _amount(value: object) -> object:
    """``64Mi`` or ``2.5M`` as a whole number; numbers as they are."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9.]+)\s*([kMG]i?|Ki|)", value.strip())
    try:
        return round(float(match[1]) * UNITS[match[2]]) if match else _refuse(value)
    except (ValueError, KeyError):
        return _refuse(value)


def _refuse(value: str) -> object:
    raise ValueError(f'{value!r} is no amount: write a number, or one with a unit: "64Mi", "2M"')


Amount = Annotated[int, Field(gt=0), BeforeValidator(_amount)]
Value = str | int | float | bool
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=60)]


class Part(BaseModel):
    """camelCase in the file; nothing that is not known."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Type(StrEnum):
    """What kind of workload."""

    TRAINING = "training"
    SERVING = "serving"


class Kind(StrEnum):
    """Whether processes really ran into this fault."""

    REAL = "real"
    SYNTHESISED = "synthesised"


class Workload(Part):
    """The program that runs, healthy until something is injected."""

    type: Type
    model: list[str] = Field(
        default_factory=list,
        description="Model families; each is a run of its own. training: cnn, mlp, transformer;"
        " serving: classifier, generator.",
    )
    options: dict[str, Value] = Field(
        default_factory=dict,
        description="Options of the program, without the dashes: {workers: 1, batch: 32}. true"
        " gives the bare option, false leaves it out.",
    )
    model_options: dict[str, dict[str, Value]] = Field(
        default_factory=dict, description="The same for one model family only."
    )
    ranks: int = Field(1, ge=1, le=8, description="Training processes, one pod each.")
    command: list[str] = Field(
        default_factory=list,
        description="Your own program in place of the built-in one; {python}, {folder} (of this"
        " file), {port}, {seed}, {model}, {data}, {scratch} are filled in.",
    )
    environment: dict[str, str] = Field(default_factory=dict)

    @field_validator("model", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class Load(Part):
    """Requests for a server, from the trace in examples/loadgen. One of ``utilization`` and
    ``rate``."""

    utilization: float | None = Field(
        None,
        gt=0,
        description="Mean share of the server's time, measured one request at a time before"
        " anything is injected: the same strain on any machine.",
    )
    rate: float | None = Field(None, gt=0, description="Mean requests per second.")
    trace: str = Field("", description="A trace of your own (CSV) next to this file.")
    start: float = Field(0.0, ge=0, description="Second of the trace to begin with.")
    duration: float = Field(20.0, gt=0, description="Seconds of the trace that are repeated.")
    timeout: float = Field(10.0, gt=0, description="Seconds after which a client gives up.")
    path: str = "/generate"


class SlowRank(Part):
    """What one of several ranks suffers from alone."""

    rank: int = Field(1, ge=0)
    options: dict[str, Value] = Field(default_factory=dict, description="Options of this rank.")
    cpu_quota_cores: float | None = Field(None, gt=0, description="CPU limit of this rank's pod.")


class Dependency(Part):
    """A real HTTP server on the loopback interface that every request asks first."""

    name: str = "features"
    delay: float = Field(0.005, ge=0, description="Mean seconds to answer.")
    later_delay: float = Field(0.0, ge=0, description="The same from laterAfter on.")
    later_after: float = Field(1e9, ge=0, description="Seconds.")


class Inject(Part):
    """What is done to the workload. All of it may be combined; nothing at all is a healthy run."""

    options: dict[str, Value] = Field(default_factory=dict, description="Over workload.options.")
    environment: dict[str, str] = Field(default_factory=dict)
    cpu_quota_cores: float | None = Field(None, gt=0, description="CPU limit of each pod, cores.")
    memory_limit: Amount | None = Field(None, description='Memory limit of each pod: "600Mi".')
    memory_headroom: Amount | None = Field(
        None,
        description="Memory limit as that much above what the running pod cannot do without:"
        " what is left for the pages of files.",
    )
    competing_cpu: int = Field(
        0, ge=0, le=64, description="Busy processes of other pods; each weighs as much as this pod."
    )
    storage_bytes_per_second: Amount | None = Field(
        None, description='Limit of what each pod reads from the disk: "2M".'
    )
    network_bits_per_second: Amount | None = Field(
        None, description='Limit of the link between ranks: "100M".'
    )
    slow_rank: SlowRank | None = None
    restart: bool = Field(False, description="Start the program again when it ends, as a kubelet.")
    from_start: bool = Field(
        False,
        description="Inject and record before the workload starts. Otherwise both begin when it"
        " works: with its first step, or with the load.",
    )
    after: float = Field(0.0, ge=0, description="Seconds of recording before this is injected.")
    dependency: Dependency | None = None
    facts: dict[str, float] = Field(
        default_factory=dict, description="What the cluster would say: docs/signals.md."
    )
    texts: dict[str, str] = Field(default_factory=dict)


class Fault(Part):
    """One run's worth of a file: a strength and a model have been chosen."""

    name: Name = ""
    description: str = ""
    truth: str = Field(description="The id of the cause (docs/causes.md), or healthy.")
    kind: Kind = Kind.REAL
    workload: Workload | None = None
    load: Load | None = None
    inject: Inject = Field(default_factory=Inject)
    seconds: float = Field(15.0, ge=6, le=3600, description="How long is recorded.")
    objectives: dict[str, Any] | None = Field(
        None, description="As in a BottleneckPolicy's spec; without, any fault counts."
    )
    recording: str = Field("", description="A recording next to this file, instead of a workload.")
    synthesise: dict[str, Any] | None = Field(
        None, description="A recording made of figures, instead of a workload."
    )

    @field_validator("objectives")
    @classmethod
    def _a_policys(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            Objectives.model_validate(value)
        return value

    @model_validator(mode="after")
    def _fits(self) -> Fault:
        sources = [self.workload is not None, bool(self.recording), self.synthesise is not None]
        if sum(sources) != 1:
            raise ValueError("write exactly one of workload, recording and synthesise")
        if self.synthesise is not None and self.kind is not Kind.SYNTHESISED:
            raise ValueError("what is synthesised is not real: write kind: synthesised")
        work = self.workload
        if work is None:
            return self
        if not work.command and not work.model:
            raise ValueError("write workload.model (for instance cnn) or workload.command")
        if work.type is Type.SERVING and self.load is None:
            raise ValueError("a server needs requests: write load: {utilization: 0.4}")
        if self.load and (self.load.utilization is None) == (self.load.rate is None):
            raise ValueError("write exactly one of load.utilization and load.rate")
        if self.inject.network_bits_per_second and work.ranks < 2:
            raise ValueError("one rank sends nothing to others: write workload.ranks: 2")
        if self.inject.slow_rank and self.inject.slow_rank.rank >= work.ranks:
            raise ValueError("inject.slowRank.rank counts from 0 and must be below workload.ranks")
        if self.inject.from_start and self.inject.memory_headroom:
            raise ValueError("what a pod will use is not known at its start: write memoryLimit")
        return self


@dataclass(frozen=True, slots=True)
class Planned:
    """One run: a fault file at one strength, with one model family and one seed."""

    fault: Fault
    path: Path
    strength: str
    model: str
    seed: int

    @property
    def id(self) -> str:
        """Names the run and its files."""
        parts = [self.fault.name, self.model, self.strength, f"s{self.seed}"]
        return "_".join(part for part in parts if part)

    @property
    def options(self) -> dict[str, Value]:
        """The program's options in this run."""
        work = self.fault.workload
        if work is None:
            return {}
        own = work.model_options.get(self.model, {})
        return {**work.options, **own, **self.fault.inject.options}


def plan(
    folder: Path, seeds: Sequence[int], only: Iterable[str] = (), everything: bool = False
) -> list[Planned]:
    """The runs of the folder's files, in the order of their names. Raises ``FaultError``.

    Where a file has several strengths and several models, each strength gets one of the models,
    the next one with the next seed; ``everything`` gives it all of them.
    """
    files = sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")])
    if not files:
        raise FaultError(
            f"{folder}: no fault in it; a fault is a file NAME.yaml, see docs/fault-suite.md"
        )
    wanted = tuple(only)
    planned: list[Planned] = []
    names: dict[str, Path] = {}
    for path in files:
        for each in read(path, seeds, everything):
            if (other := names.setdefault(each.fault.name, path)) != path:
                raise FaultError(f"{path}: {other} has the same name; write another name")
            if not wanted or any(word in each.id or word == each.fault.truth for word in wanted):
                planned.append(each)
    if not planned:
        raise FaultError(f"no run is called like {', '.join(wanted)}; --list shows them all")
    return planned


def read(path: Path, seeds: Sequence[int], everything: bool = False) -> list[Planned]:
    """The runs of one file. Raises ``FaultError``."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FaultError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise FaultError(f"{path}: not YAML: {error}") from None
    if not isinstance(document, dict):
        raise FaultError(f"{path}: write a document with at least truth: and workload:")
    document.setdefault("name", path.stem)
    strengths = document.pop("strengths", None) or {"": {}}
    if not isinstance(strengths, dict):
        raise FaultError(
            f"{path}: strengths: write a name and what it changes:"
            " strong: {inject.cpuQuotaCores: 0.2}"
        )
    planned = []
    for number, (strength, changes) in enumerate(strengths.items()):
        fault = _validated(path, strength, _changed(path, strength, document, changes))
        models = fault.workload.model if fault.workload and fault.workload.model else [""]
        whole = everything or len(strengths) == 1
        for seed in seeds:
            chosen = models if whole else [models[(number + seed) % len(models)]]
            planned += [Planned(fault, path, str(strength), model, seed) for model in chosen]
    return planned


def _changed(path: Path, strength: object, document: dict[str, Any], changes: object) -> Any:
    """The document with each dotted path of ``changes`` set to its value."""
    if not isinstance(changes, dict):
        raise FaultError(
            f"{path}: strengths.{strength}: write what it changes, for instance"
            " {inject.cpuQuotaCores: 0.2}"
        )
    changed = copy.deepcopy(document)
    for dotted, value in changes.items():
        *parents, last = str(dotted).split(".")
        place = changed
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise FaultError(f"{path}: strengths.{strength}: {dotted}: {parent} is a value")
        place[last] = value
    return changed


def _validated(path: Path, strength: object, document: Any) -> Fault:
    try:
        return Fault.model_validate(document)
    except ValidationError as error:
        at = f" (strength {strength})" if strength else ""
        lines = [_complaint(detail) for detail in error.errors()]
        raise FaultError(f"{path}{at}:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _complaint(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _fields(detail["loc"][:-1])
        return f"{where}: not known here; there are {', '.join(known)}"
    if detail["type"] == "missing":
        return f"{where}: missing"
    text = str(detail["msg"]).removeprefix("Value error, ")
    return f"{where}: {text}" if where else text


def _fields(location: tuple[int | str, ...]) -> list[str]:
    """What may be written at a place of the document."""
    places: dict[tuple[int | str, ...], type[Part]] = {
        (): Fault,
        ("workload",): Workload,
        ("load",): Load,
        ("inject",): Inject,
        ("inject", "slowRank"): SlowRank,
        ("inject", "dependency"): Dependency,
    }
    kind = places.get(location)
    if kind is None:
        return ["other keys"]
    names = [str(field.alias) for field in kind.model_fields.values()]
    return [*names, "strengths"] if kind is Fault else names
