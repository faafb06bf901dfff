"""Quantities, durations and percentages as people write them into a policy."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .meta import Rule
from .units import DURATION_PATTERN, NUMBER_PATTERN, PERCENT_PATTERN, QUANTITY_PATTERN

Duration = Annotated[
    str,
    Field(pattern=DURATION_PATTERN, max_length=32),
    Rule(
        f"self.matches(r'{DURATION_PATTERN}')",
        'write a duration with its unit (ms, s, m or h), such as "250ms", "60s" or "1m30s"',
    ),
]

Percent = Annotated[
    str,
    Field(pattern=PERCENT_PATTERN, max_length=16),
    Rule(
        f"self.matches(r'{PERCENT_PATTERN}') && double(self.replace('%', '')) <= 100.0",
        'write a percentage from 0 to 100, such as "1%" or "2.5%"',
    ),
]

Number = Annotated[
    str,
    Field(pattern=NUMBER_PATTERN, max_length=32),
    Rule(
        f"self.matches(r'{NUMBER_PATTERN}') && double(self) > 0.0",
        'write a number above zero in quotes, without a unit, such as "500" or "12.5"',
    ),
]

Quantity = Annotated[
    str,
    Field(pattern=QUANTITY_PATTERN, max_length=32),
    Rule(
        f"self.matches(r'{QUANTITY_PATTERN}') && quantity(self).isGreaterThan(quantity('0'))",
        'write a quantity above zero, such as "500m" or "2" for CPU and "4Gi" for memory',
    ),
]
