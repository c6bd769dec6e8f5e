"""What statistics return: frozen numbers with JSON and a line for a table."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """A result of a statistic."""

    def to_json(self) -> dict[str, Any]:
        """Plain dict; numbers that are not finite become None."""
        return _plain(asdict(self))


@dataclass(frozen=True)
class Estimate(Result):
    """A number with its interval."""

    name: str
    value: float
    low: float
    high: float
    n: int
    clusters: int
    chance: float | None = None
    """What a score that knows nothing gets."""
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.name} {bracket(self.value, self.low, self.high)}, {size(self)}"


def bracket(value: float, low: float, high: float, sign: str = "") -> str:
    """`0.71 [0.64, 0.77]`."""
    form = f"{sign}.3g"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def p_text(p: float) -> str:
    """`p 0.031`, and `p < 0.0001` below that."""
    return "p < 0.0001" if p < 1e-4 else f"p {p:.2g}"


def size(result: Any) -> str:
    """`n 1000 in 80 videos`."""
    return f"n {result.n} in {result.clusters} videos"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
