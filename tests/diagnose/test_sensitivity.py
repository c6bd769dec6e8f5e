"""Sensitivity against single runs, and its split of variance against statsmodels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.api import stats
from statsmodels.formula.api import ols

from probe.ablate import fastv
from probe.diagnose import Case, Sensitivity
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models


def test_falls_are_single_runs(tiny: VideoModel) -> None:
    case = Case(tiny, tiny_models.example(tiny, 3), "red", ("red", "blue", "green"))
    found = Sensitivity(keep=[0.5, 0.25]).measure(case)
    full = case.gold_margin(tiny.run(case.x))
    for layer in (1, 2, 3):
        for keep in (0.5, 0.25):
            alone = case.gold_margin(tiny.run(case.x, ablate=[fastv(layer, keep)]))
            assert found[f"fall {layer} {keep:g}"] == pytest.approx(full - alone, abs=1e-5)
            assert found[f"fall {layer} {keep:g}"] == found["fall"].sel(layer=layer, kept=keep)


def test_the_split_of_the_variance_is_an_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    layers, keeps, samples = ("1", "2", "3"), ("0.5", "0.1"), 12
    effect = rng.normal(size=(3, 1, 1)) + rng.normal(size=(1, 2, 1)) + rng.normal(size=(1, 1, 12))
    cells = effect + rng.normal(size=(3, 1, 12)) + rng.normal(size=(3, 2, 12))
    table = pd.DataFrame(
        {f"fall {a} {b}": cells[i, j] for i, a in enumerate(layers) for j, b in enumerate(keeps)}
    )
    table["video"] = np.arange(samples) % 6
    found = Sensitivity().pool(table).set_index("name")
    rows = [
        (a, b, s, cells[i, j, s])
        for i, a in enumerate(layers)
        for j, b in enumerate(keeps)
        for s in range(samples)
    ]
    data = pd.DataFrame(rows, columns=["a", "b", "s", "y"])
    model = ols("y ~ C(a) + C(b) + C(s) + C(a):C(b) + C(a):C(s) + C(b):C(s)", data).fit()
    squares = stats.anova_lm(model, typ=1)["sum_sq"]
    share = squares / squares.sum()
    names = ["layer", "keep", "sample", "layer x keep", "layer x sample", "keep x sample", "rest"]
    for name, expected in zip(names, share, strict=True):
        row = found.loc[f"variance {name}"]
        assert row["value"] == pytest.approx(expected, abs=1e-9)
        assert row["low"] <= row["value"] <= row["high"]
    assert found.loc["fall 1 0.5", "value"] == pytest.approx(cells[0, 0].mean())
