"""Spectra against scipy's DCT, and of noise, constants and single waves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from probe.diagnose import Case, Spectrum, diagnose
from probe.diagnose.spectrum import white_noise
from probe.diagnose.spectrum_energy import in_space, in_time, statistics
from tests import tiny as tiny_models
from tests.diagnose import readings
from tests.families import models


def fraction(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per channel of [frame, row, col, channel], for space and for time."""
    frames, rows, cols, _ = x.shape
    space = (dctn(x, axes=(1, 2), norm="ortho") ** 2).sum(0)
    low = space[: max(1, rows // 2), : max(1, cols // 2)].sum((0, 1)) - space[0, 0]
    time = (dctn(x, axes=(0,), norm="ortho") ** 2).sum((1, 2))
    early = time[1 : max(1, frames // 2)].sum(0)
    return (
        np.stack([low, space.sum((0, 1)) - space[0, 0]]),
        np.stack([early, time[1:].sum(0)]),
    )


@pytest.mark.parametrize("name", ["other", "qwen2_5_vl", "video_llava"])
def test_against_scipy_on_hidden_states(name: str, request) -> None:
    model = request.getfixturevalue(name) if name == "other" else models.build(name)
    x = tiny_models.example(model, model.family.frames or 5)
    rows, cols = x.layout.grid
    video = np.flatnonzero((x.layout.role == "video") & (x.layout.row >= 0))
    states = readings.states(model, x)[:, video]
    states = states.reshape(len(states), -1, rows, cols, states.shape[-1])
    one = Spectrum()
    values = diagnose(Case(model, x), [one])[one]
    for layer, expected in enumerate(map(fraction, states)):
        for axis, (low, total) in zip(("space", "time"), expected, strict=True):
            each = low / total
            expected = [low.sum() / total.sum(), *np.quantile(each, [0.5, 0.1, 0.9])]
            found = values["spectrum"].sel(layer=layer, axis=axis)
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert values["over_white"] == pytest.approx(
        float(values["spectrum"].sel(axis="space", statistic="pooled").mean())
        - (max(1, rows // 2) * max(1, cols // 2) - 1) / (rows * cols - 1)
    )


@pytest.mark.parametrize("shape", [(16, 6, 6), (8, 5, 7), (5, 24, 24)])
def test_white_noise_has_its_share(shape: tuple[int, int, int]) -> None:
    frames, rows, cols = shape
    noise = torch.randn(*shape, 2000, generator=torch.Generator().manual_seed(0))
    space, time = statistics(in_space(noise)), statistics(in_time(noise.flatten(1, 2)))
    assert float(space[0]) == pytest.approx(white_noise(rows, cols), abs=0.004)
    assert float(time[0]) == pytest.approx(white_noise(frames), abs=0.004)
    assert white_noise(6, 6) == pytest.approx(8 / 35)
    assert white_noise(1000, 1000) == pytest.approx(0.25, abs=1e-5)


def test_single_waves_are_low_or_high() -> None:
    place = (np.arange(8) + 0.5) * np.pi / 8
    slow, fast = np.cos(place), np.cos(7 * place)
    for wave, expected in ((slow, 1), (fast, 0)):
        frames = torch.tensor(wave + 3, dtype=torch.float32)[None, :, None, None].expand(2, 8, 8, 1)
        found = statistics(in_space(frames))
        assert float(found[0]) == pytest.approx(expected, abs=1e-5)
        assert torch.isnan(statistics(in_time(frames.flatten(1, 2)))).all()  # nothing moves
        moving = torch.tensor(wave, dtype=torch.float32)[:, None, None].expand(8, 3, 1)
        assert float(statistics(in_time(moving))[0]) == pytest.approx(expected, abs=1e-5)


def test_a_constant_has_no_spectrum() -> None:
    still = torch.full((4, 6, 6, 5), 2.7)
    assert torch.isnan(statistics(in_space(still))).all()
    assert torch.isnan(statistics(in_time(still.flatten(1, 2)))).all()


def test_tokens_without_a_grid_have_one_in_time_alone() -> None:
    model = models.build("instructblipvideo")
    one = Spectrum()
    values = diagnose(Case(model, models.example(model)), [one])[one]
    assert np.isnan(values["low_fraction_mean"]) and np.isnan(values["white_noise"])
    assert np.isfinite(values["time_low_fraction_mean"])
    assert values["time_white_noise"] == pytest.approx(1 / 3)  # 4 frames, 2 of them low
