"""Units as people write them in a policy ("250ms", "1%", "500") and the numbers behind them."""

from __future__ import annotations

import re

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
PERCENT_PATTERN = r"^[0-9]+(\.[0-9]+)?%$"
NUMBER_PATTERN = r"^[0-9]+(\.[0-9]+)?$"

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(duration: str) -> float:
    """``"1m30s"`` → 90.0. Raises ``ValueError`` for anything that is not a duration."""
    if not re.fullmatch(DURATION_PATTERN, duration):
        raise ValueError(f'{duration!r} is not a duration; write it like "250ms", "60s" or "1m30s"')
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", duration)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def fraction(percent: str) -> float:
    """``"2.5%"`` → 0.025. Raises ``ValueError`` for anything that is not a percentage."""
    if not re.fullmatch(PERCENT_PATTERN, percent):
        raise ValueError(f'{percent!r} is not a percentage; write it like "1%" or "2.5%"')
    return float(percent[:-1]) / 100


def number(text: str) -> float:
    """``"500"`` → 500.0. Raises ``ValueError`` for anything that is not a plain number."""
    if not re.fullmatch(NUMBER_PATTERN, text):
        raise ValueError(f'{text!r} is not a number; write it like "500" or "12.5"')
    return float(text)
