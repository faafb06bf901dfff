"""Where telemetry comes from besides the sidecar: a part of the BottleneckPolicy."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .meta import Model, Rule
from .signals import OWN_PATTERN, SIGNALS
from .units import DURATION_PATTERN

URL_PATTERN = r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?$"
"""No user information, no query: nothing secret belongs into a policy, and nothing may be smuggled
into the requests."""

LABEL_PATTERN = r"^[a-zA-Z_][a-zA-Z0-9_]*$"

_KNOWN = ", ".join(f"'{name}'" for name in SIGNALS)

Query = Annotated[
    str,
    Field(max_length=4096, description="An expression that gives one figure for each series."),
    Rule(
        r"self.matches('\\S')",
        'write a PromQL expression, such as "sum(rate(my_requests_total[1m]))"',
    ),
]
Queries = Annotated[
    dict[str, Query],
    Field(max_length=32),
    Rule(
        f"self.all(name, name.matches(r'{OWN_PATTERN}') || name in [{_KNOWN}])",
        "write the name of a signal, such as inference.latency (docs/signals.md lists them), or"
        " begin a name of your own with custom., such as custom.queueDepth",
    ),
]
Labels = Annotated[
    dict[str, Annotated[str, Field(max_length=1024, description="The label's value.")]],
    Field(max_length=16),
    Rule(
        f"self.all(name, name.matches(r'{LABEL_PATTERN}'))",
        "write names of Prometheus labels: letters, digits and '_', such as namespace or job",
    ),
]


class Prometheus(Model):
    """A Prometheus server that has figures of the workload."""

    rules = (
        Rule(
            f"!self.interval.matches(r'{DURATION_PATTERN}') ||"
            " (duration(self.interval) >= duration('1s')"
            " && duration(self.interval) <= duration('5m'))",
            'write an interval from "1s" to "5m", such as "15s"',
            ".interval",
        ),
    )

    url: Annotated[
        str,
        Field(max_length=2048),
        Rule(
            f"self.matches(r'{URL_PATTERN}')",
            "write the address of the Prometheus server with http:// or https://, without user,"
            ' password or query, such as "http://prometheus.monitoring:9090"',
        ),
    ] = Field(description='Its address, for instance "http://prometheus.monitoring:9090".')
    queries: Queries = Field(
        default_factory=dict,
        description="PromQL for signals, by the signal's name; it goes before what is recognised.",
    )
    selector: Labels = Field(
        default_factory=dict,
        description="Labels that the workload's series have, in place of its namespace. Series that"
        " name no pod then count for the workload as a whole.",
    )
    interval: Annotated[
        str,
        Field(max_length=32),
        Rule(
            f"self.matches(r'{DURATION_PATTERN}')",
            'write a duration with its unit (ms, s, m or h), such as "15s"',
        ),
    ] = Field("15s", description="Time between two looks, 1s to 5m.")


class Telemetry(Model):
    """Telemetry besides, or instead of, that of the sidecar."""

    prometheus: Prometheus | None = Field(
        None, description="Figures that a Prometheus server has of the workload."
    )
