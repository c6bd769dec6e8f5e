"""Figures of diagnoses: what they show is what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from probe import diagnose as module
from probe.diagnose import Blackout, Case, diagnose
from probe.plot import diagnoses as drawn
from probe.plot.style import DOUBLE, SINGLE, save
from tests import tiny as tiny_models
from tests.diagnose.readings import READ

FIGURES = {
    "types_by_layer": ["AttentionTypes"],
    "rank_agreement": ["RankStability"],
    "attention_by_place": ["AttentionShift"],
    "retention_by_block": ["Blackout"],
    "spectrum_by_layer": ["Spectrum"],
    "norms_by_layer": ["NormTail"],
    "ratio_by_head": ["HeadRatio"],
    "states_by_layer": ["EffectiveRank", "AdjacentFrames", "LayerCKA"],
    "flow_of_tokens": ["Concentration"],
    "static_and_bits": ["StaticFraction", "CodecBits"],
}


@pytest.fixture(scope="module")
def found(tiny) -> list[dict]:
    """Values of every diagnosis on three clips."""
    several = [getattr(module, name)() for name in READ]
    made = []
    for seed in range(3):
        x = tiny_models.example(tiny, tiny_models.clip(seed=seed))
        row = diagnose(Case(tiny, x), several)
        made.append({type(one).__name__: values for one, values in row.items()})
    return made


@pytest.fixture(scope="module")
def means(found) -> dict:
    """The same as means over the clips, with intervals."""
    return {
        name: {
            label: spread([row[name][label] for row in found])
            if isinstance(value, xr.DataArray)
            else value
            for label, value in found[0][name].items()
        }
        for name in READ
    }


def spread(arrays: list[xr.DataArray]) -> xr.Dataset:
    """Mean, lowest and highest."""
    together = xr.concat(arrays, "sample")
    ends = {"mean": together.mean("sample"), "low": together.min("sample")}
    return xr.Dataset(ends | {"high": together.max("sample")})


def lines(ax) -> dict[str, np.ndarray]:
    return {str(line.get_label()): line.get_xydata() for line in ax.get_lines()}


@pytest.mark.parametrize("name", FIGURES)
def test_each_draws_one_clip_and_many(name: str, found, means) -> None:
    for values in (found[0], means):
        figure = getattr(drawn, name)(*(values[one] for one in FIGURES[name]))
        assert figure.get_figwidth() in (SINGLE, DOUBLE)
        assert all(ax.get_xlabel() or ax.get_label() == "<colorbar>" for ax in figure.axes)


def test_one_is_saved(means, tmp_path: Path) -> None:
    figure = drawn.retention_by_block(means["Blackout"])
    assert all(file.stat().st_size > 2000 for file in save(figure, tmp_path / "figure"))


def test_lines_are_the_values_and_bands_their_intervals(found, means) -> None:
    values = found[0]["AttentionTypes"]
    share, entropy = drawn.types_by_layer(values).axes
    one = values["vision_share"].sel(left_out="nothing")
    np.testing.assert_array_equal(lines(share)["all tokens"][:, 1], one)
    inside = values["attention_by_type"].sel(
        left_out="nothing", quantity="entropy", target="response", source="vision"
    )
    np.testing.assert_array_equal(lines(entropy)["inside vision"][:, 1], inside)
    assert not share.collections
    many = means["AttentionTypes"]["vision_share"].sel(left_out="nothing")
    share = drawn.types_by_layer(means["AttentionTypes"]).axes[0]
    np.testing.assert_array_equal(lines(share)["all tokens"][:, 1], many["mean"])
    band = share.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == many["low"].min() and band.max() == many["high"].max()


def test_matrices_are_the_values(found) -> None:
    values = found[0]["RankStability"]
    for ax, name in zip(
        drawn.rank_agreement(values).axes,
        ("tau", "tau_within_frames", "tau_between_frames"),
        strict=False,
    ):
        cells = ax.collections[0].get_array().reshape(4, 4)
        np.testing.assert_array_equal(cells, values[name])
        assert ax.collections[0].get_clim() == (-1, 1)


def test_the_spectrum_stands_beside_noise(found) -> None:
    values = found[0]["Spectrum"]
    for ax, axis, noise in zip(
        drawn.spectrum_by_layer(values).axes,
        ("space", "time"),
        ("white_noise", "time_white_noise"),
        strict=True,
    ):
        pooled = values["spectrum"].sel(axis=axis, statistic="pooled")
        np.testing.assert_array_equal(lines(ax)["all channels"][:, 1], pooled)
        levels = [xy[0, 1] for label, xy in lines(ax).items() if label.startswith("_")]
        assert levels == [values[noise]]


def test_retention_of_many_is_the_pooled_ratio() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"sample": range(30), "video": range(30)})
    table["margin_full"], table["margin_blind"] = 3.0, 1.0
    for layer, kept in ((0, 1.1), (4, 2.0), (8, 2.9)):
        table[f"margin_block_{layer}"] = kept + rng.normal(0, 0.2, 30)
    pooled = Blackout().pool(table)
    retention = drawn.retentions(pooled)
    assert retention.block.values.tolist() == [0, 4, 8]
    ax = drawn.retention_by_block({"retention": retention}).axes[0]
    rows = pooled.set_index("name")
    expected = [rows.loc[f"retention_block_{n}", "value"] for n in (0, 4, 8)]
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), expected)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0-3", "4-7", "8-"]
    ends = ax.collections[1].get_segments()
    assert [end[0][1] for end in ends] == [
        rows.loc[f"retention_block_{n}", "low"] for n in (0, 4, 8)
    ]
