"""Numbers in tables of text."""

from __future__ import annotations

import math
from typing import Any


def interval(value: float, low: float, high: float, sign: str = "") -> str:
    """`0.71 [0.64, 0.77]`; the value alone where there is no interval, nothing where it is NaN."""
    from probe.study.statistics_result import bracket

    if value is None or not math.isfinite(value):
        return ""
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{value:{sign}.3g}"
    return bracket(value, low, high, sign)


def p_text(p: float) -> str:
    """A p value in a table."""
    if not math.isfinite(p):
        return ""
    return "<.0001" if p < 1e-4 else f"{p:.2g}"


def whole(value: Any) -> str:
    """A count; nothing where it is NaN."""
    return "" if value != value else f"{value:,.0f}"
