"""Every diagnosis that is read from runs, on every family."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from probe import diagnose as module
from probe.diagnose import Case, diagnose
from probe.diagnose.attention_by_type import AttentionByType
from tests import tiny as tiny_models
from tests.diagnose.readings import READ
from tests.families import masks, models

FEW = {"llava_onevision", "qwen3_vl", "instructblipvideo"}
NAMES = [
    name if name in FEW else pytest.param(name, marks=pytest.mark.full) for name in models.NAMES
]
NOT_A_FILE = {"bits_static", "bits_cosine", "bits_inter_static", "bits_inter_cosine"}
UNDEFINED = {  # in models of noise on clips of few frames
    "retention_first", "retention_last", "kilobits_per_frame", "pooling_trend",
    "c20_cls", "c20_gap", "c20_received", "gap_received", *NOT_A_FILE,
}  # fmt: skip
WITHOUT_GRID = {
    "low_fraction_first", "low_fraction_mean", "white_noise", "over_white",
}  # fmt: skip
LARGEST = 4096  # values of an array: results are kept for thousands of clips


@pytest.mark.parametrize("name", NAMES)
def test_all_of_them_give_numbers(name: str) -> None:
    model = models.build(name)
    case = Case(model, models.example(model))
    several = [getattr(module, each)() for each in READ]
    found = diagnose(case, several)
    allowed = UNDEFINED | (WITHOUT_GRID if case.x.layout.grid is None else set())
    for one, values in found.items():
        for label, value in values.items():
            where = f"{name} {one} {label}"
            if isinstance(value, xr.DataArray):
                assert value.size <= LARGEST and value.dims, where
                assert value.attrs["description"] and value.attrs["units"], where
                assert set(value.dims) <= set(value.coords), where
            else:
                assert type(value) is float, where
                assert np.isfinite(value) or label in allowed, where


@pytest.mark.parametrize("name", NAMES)
def test_shares_by_type_are_those_of_the_dense_map(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    found = Case(model, x).of(AttentionByType())
    a = masks.attentions(models.build(name, "eager"), x).mean(1)[:, x.layout.last]
    text = np.isin(np.arange(len(x.layout)), x.layout.select("text"))
    expected = np.stack([a[:, text].sum(-1), a[:, ~text].sum(-1)], -1)
    response = found.sel(left_out="nothing", quantity="mass", target="response")
    np.testing.assert_allclose(response, expected, atol=1e-5)


def test_two_clips_are_read_as_their_first_where_places_matter(tiny) -> None:
    clips = [tiny_models.clip(3), tiny_models.clip(3, seed=1)]
    two = tiny.encode(clips, "What moves?", frames=None)
    several = [getattr(module, each)() for each in READ]
    found = {type(one).__name__: v for one, v in diagnose(Case(tiny, two), several).items()}
    assert found["StaticFraction"]["cosine"].sizes["pair"] == 2
    assert found["Concentration"]["flow_by_frame"].frame.values.tolist() == [
        f"frame {n}" for n in range(3)
    ]
    alone = diagnose(Case(tiny, tiny_models.example(tiny, clips[0])), several)
    first = {type(one).__name__: values for one, values in alone.items()}
    for name, label in (("StaticFraction", "cosine_mean"), ("NormTail", "p99_over_p50")):
        assert found[name][label] == pytest.approx(first[name][label], rel=1e-4)


def test_one_frame_has_no_time_and_says_nan(tiny) -> None:
    several = [getattr(module, each)() for each in READ if each != "AdjacentFrames"]
    case = Case(tiny, tiny_models.example(tiny, 1))
    found = {type(one).__name__: v for one, v in diagnose(case, several).items()}
    assert np.isnan(found["StaticFraction"]["static_0.8"])
    assert np.isnan(found["Spectrum"]["time_white_noise"])
    assert np.isnan(found["RankStability"]["between_frames_median"])
    assert np.isfinite(found["Spectrum"]["low_fraction_first"])
    assert np.isfinite(found["RankStability"]["tau_median"])
