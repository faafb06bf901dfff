"""Units as people write them in a policy ("250ms", "1%", "500") and the numbers behind them."""

from __future__ import annotations

import math
import re

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
PERCENT_PATTERN = r"^[0-9]+(\.[0-9]+)?%$"
NUMBER_PATTERN = r"^[0-9]+(\.[0-9]+)?$"

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"

_MULTIPLES = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_MULTIPLES |= {f"{unit}i": 1024.0**power for power, unit in enumerate("KMGT", start=1)}

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


def quantity(text: str) -> float:
    """``"500m"`` → 0.5, ``"1Gi"`` → 1073741824.0: cores or bytes. Raises ``ValueError`` for
    anything that is not a quantity."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)", text)
    if not found or found[2] not in _MULTIPLES:
        raise ValueError(f'{text!r} is not a quantity; write it like "500m", "2" or "4Gi"')
    return float(found[1]) * _MULTIPLES[found[2]]


def cores(value: float) -> str:
    """0.5 → ``"500m"``; rounded up to whole thousandths."""
    thousandths = math.ceil(value * 1000 - 1e-6)
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def mebibytes(value: float) -> str:
    """Bytes → ``"512Mi"``; rounded up."""
    return f"{math.ceil(value / 2**20 - 1e-6)}Mi"
