"""Numbers as a reader wants them: three digits that matter, a true minus sign."""

from __future__ import annotations

import math
from typing import Any

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: Any) -> str:
    """0.0123, 1.23, 12.3, 1,234 or 2.4 × 10⁻⁷; a dash where there is no value."""
    value = _float(value)
    if value is None:
        return "–"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e6:
        text = power(size)
    else:
        decimals = max(0, 2 - math.floor(math.log10(size)))
        text = f"{size:,.{decimals}f}"
    return f"−{text}" if value < 0 else text


def power(value: Any) -> str:
    """2.4 × 10⁻⁷: two digits and a power of ten, 0 as 0."""
    value = _float(value)
    if not value:
        return number(value)
    digits, exponent = f"{abs(value):.1e}".split("e")
    text = f"{digits} × 10{str(int(exponent)).translate(_RAISED)}"
    return f"−{text}" if value < 0 else text


def fixed(value: Any, decimals: int = 2) -> str:
    """A number with the same decimals in every row of a column: −0.60, 12.10."""
    value = _float(value)
    if value is None:
        return "–"
    text = f"{abs(value):,.{decimals}f}"
    return f"−{text}" if value < 0 and float(text.replace(",", "")) else text


def percent(value: Any) -> str:
    """A share as a percentage: < 0.1 %, 0.4 %, 12 %, 100 %."""
    value = _float(value)
    if value is None:
        return "–"
    share = 100 * value
    if 0 < share < 0.05:
        return "< 0.1 %"
    whole = share == 0 or abs(share) >= 9.95
    return f"{fixed(share, 0 if whole else 1)} %"


def _float(value: Any) -> float | None:
    if value is None:
        return None
    value = float(value)
    return value if math.isfinite(value) else None
