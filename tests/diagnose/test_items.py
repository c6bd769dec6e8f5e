"""Intervals and summaries of the diagnoses over items."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probe.diagnose import droppable_from
from probe.diagnose.items import interval, summarise


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = interval(rng.normal(3.0, 1.0, 60))
        hits += low <= 3.0 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_interval_of_a_constant_is_a_point() -> None:
    assert interval(np.full(9, 0.25)) == (0.25, 0.25)


def test_summarise_weighs_items_and_not_rows() -> None:
    table = pd.DataFrame({"layer": 0, "item": [0, 0, 0, 1], "margin": [1.0, 1.0, 1.0, 5.0]})
    row = summarise(table, ["layer"], ["margin"]).iloc[0]
    assert row["n"] == 2 and row["margin"] == 3.0
    assert row["margin_low"] <= 3.0 <= row["margin_high"]


@pytest.mark.parametrize(
    ("margins", "expected"),
    [
        ([0, 0, 10, 10, 10], 2),
        ([10, 10, 10, 10, 10], 0),
        ([0, 10, 0, 10, 10], 3),
        ([0, 0, 0, 0, 10], 4),
    ],
)
def test_droppable_from(margins: list[float], expected: int) -> None:
    table = pd.DataFrame({"layer": range(5), "margin": margins})
    assert droppable_from(table, blind=0.0) == expected
