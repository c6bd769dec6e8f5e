"""The tail of norms against numpy, and what pooling does to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from probe.capture import TokenNorms
from probe.capture.vision_tail import TAIL
from probe.diagnose import Case, NormTail, diagnose
from probe.diagnose.norm_tail import EDGES, histogram
from probe.diagnose.pooled_tail import PooledTail, pool, pooled_tails
from probe.errors import ProbeError
from tests import tiny as tiny_models
from tests.diagnose import readings


def test_tails_are_those_of_the_hidden_states(pair) -> None:
    model, eager = pair
    x = tiny_models.example(model)
    rows, cols = x.layout.grid
    states = readings.states(eager, x)[:, x.layout.role == "video"]
    norms = np.linalg.norm(states, axis=-1)
    one = NormTail(windows=[1, 2])
    values = diagnose(Case(model, x), [one])[one]
    ratio = np.percentile(norms, 99, axis=-1) / np.median(norms, axis=-1)
    np.testing.assert_allclose(values["norm_tail"].sel(tail="p99/p50"), ratio, rtol=1e-5)
    assert values["p99_over_p50"] == pytest.approx(ratio[0], rel=1e-5)
    assert values["p99_over_p50_last"] == pytest.approx(ratio[-1], rel=1e-5)
    top = norms[0].max() / norms[0].sum()
    assert values["top_1_percent_share"] == pytest.approx(top, rel=1e-5)
    counts = np.histogram(np.log2(norms[1] / np.median(norms[1])), EDGES)[0]
    np.testing.assert_allclose(values["norm_histogram"][1], counts / len(norms[1]))
    np.testing.assert_allclose(values["norm_histogram"].sum("log2_norm"), 1)
    assert values["pooled_tail"].sel(window=1, tail="p99/p50") == pytest.approx(ratio[0], rel=1e-5)
    if rows == cols == 2:
        whole = np.linalg.norm(states[0].reshape(5, 4, -1).mean(1), axis=-1)
        expected = np.percentile(whole, 99) / np.median(whole)
        found = values["pooled_tail"].sel(window=2, tail="p99/p50")
        assert found == pytest.approx(expected, rel=1e-5)


def test_pooling_is_the_mean_over_windows() -> None:
    x = torch.randn(3, 6, 6, 8, generator=torch.Generator().manual_seed(0))
    by_hand = x.numpy().reshape(3, 3, 2, 3, 2, 8).mean((2, 4))
    expected = np.linalg.norm(by_hand, axis=-1).ravel()
    np.testing.assert_allclose(pool(x, (3, 3)), expected, rtol=1e-5)
    assert len(pool(x, (4, 5))) == 3 * 20


def test_a_heavy_tail_is_found_and_shrinks_with_pooling(tiny) -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(16 * 36, 32)).astype(np.float32)
    states[rng.permutation(16 * 36)[:12]] *= 30
    tails = pooled_tails(torch.from_numpy(states).view(16, 6, 6, 32), [1, 2, 3, 6, 7])
    ratio, share, modes = tails[0]
    assert ratio > 20 and share > 0.15 and modes >= 2
    assert np.isnan(tails[4]).all()  # 7 is the whole frame as 6 is
    x = tiny_models.example(tiny)
    norms = np.ones((3, 4, len(x.layout)))
    vectors = {"vector": ["residual", "key", "value"]}
    says = {
        TokenNorms: xr.DataArray(norms, vectors, ["vector", "layer", "position"]),
        PooledTail: xr.DataArray(
            tails[:4], {"window": [1, 2, 3, 6], "tail": list(TAIL)}, ["window", "tail"]
        ),
    }
    values = NormTail([1, 2, 3, 6]).measure(readings.Told(tiny, x, says=says))
    assert values["pooling_trend"] == pytest.approx(-1)
    assert values["p99_over_p50"] == 1 and values["modes"] == 1


def test_the_ends_of_the_histogram_hold_what_lies_beyond() -> None:
    found = histogram(np.array([1.0, 1, 1, 1e9, 0]))
    assert found[0] == found[-1] == pytest.approx(0.2) and found.sum() == pytest.approx(1)


def test_no_window(tiny) -> None:
    with pytest.raises(ProbeError, match="from 1 on"):
        diagnose(Case(tiny, tiny_models.example(tiny)), [NormTail(windows=[0])])
