"""Numbers as text."""

from __future__ import annotations

import pytest

from probe.report.numbers import fixed, number, percent, power


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1.2345, "1.23"),
        (-12.345, "−12.3"),
        (1234.5, "1,234"),
        (0.012345, "0.0123"),
        (2.4e-7, "2.4 × 10⁻⁷"),
        (-3e12, "−3.0 × 10¹²"),
        (float("nan"), "–"),
        (None, "–"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


def test_columns_and_shares() -> None:
    assert fixed(-0.6) == "−0.60" and fixed(-0.001) == "0.00" and fixed(1e4, 0) == "10,000"
    assert percent(0.004) == "0.4 %" and percent(1) == "100 %" and percent(0) == "0 %"
    assert percent(1e-5) == "< 0.1 %" and percent(None) == "–"
    assert power(1e-3) == "1.0 × 10⁻³" and power(0) == "0"
