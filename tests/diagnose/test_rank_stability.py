"""Rank stability against scipy on the dense maps, and on rankings that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from probe.capture import AttentionReceived
from probe.diagnose import Case, RankStability, diagnose
from tests import tiny as tiny_models
from tests.diagnose import readings


def taus(rows: np.ndarray) -> np.ndarray:
    return np.array([[kendalltau(a, b).statistic for b in rows] for a in rows])


@pytest.mark.parametrize("queries", ["last", "text"])
def test_against_scipy_on_the_dense_map(pair, queries: str) -> None:
    model, eager = pair
    x = tiny_models.example(model)
    layout = x.layout
    rows = layout.select(queries)
    each = readings.dense(eager, x).mean(1)[:, rows].mean(1)
    video = np.flatnonzero(layout.role == "video")
    one = RankStability(queries)
    values = diagnose(Case(model, x), [one])[one]
    tau = taus(each[:, video])
    np.testing.assert_allclose(values["tau"], tau, atol=1e-9)
    frames = [video[layout.group[video] == g] for g in range(5)]
    within = np.mean([taus(each[:, frame]) for frame in frames], 0)
    np.testing.assert_allclose(values["tau_within_frames"], within, atol=1e-9)
    shares = np.stack([each[:, frame].sum(-1) for frame in frames], -1)
    np.testing.assert_allclose(values["tau_between_frames"], taus(shares), atol=1e-9)
    index = [kendalltau(row, video).statistic for row in each[:, video]]
    np.testing.assert_allclose(values["tau_with_index"], index, atol=1e-9)
    later = tau[1:, 1:][np.triu_indices(len(tau) - 1, 1)]
    assert values["tau_median"] == pytest.approx(np.median(later))
    assert values["first_layer_gap"] == pytest.approx(later.mean() - tau[0, 1:].mean())
    null = np.median(np.abs(index[1:]))
    assert values["above_index"] == pytest.approx(np.median(later) - null)


def told(model, rows: np.ndarray) -> dict:
    """The diagnosis of a model whose layers give these [layer, video token]."""
    x = tiny_models.example(model)
    video = x.layout.select("video")
    received = np.full((len(rows), 1, 1, len(x.layout)), 1e-6)
    received[:, 0, 0, video] = rows
    says = {AttentionReceived: readings.attention(model, received, ["last"])}
    return dict(RankStability().measure(readings.Told(model, x, says=says)))


def test_one_ranking_in_all_layers_but_the_first(tiny) -> None:
    rng = np.random.default_rng(1)
    ranking = rng.permutation(20).astype(float)
    values = told(tiny, np.stack([rng.permutation(20), ranking, ranking**2, ranking + 3]))
    assert values["tau_median"] == values["within_frames_median"] == 1
    assert values["between_frames_median"] > 0.5
    assert values["first_layer_gap"] > 0.6


def test_frames_alone_make_a_tau_that_is_not_within_frames(tiny) -> None:
    rng = np.random.default_rng(2)
    frames = np.repeat([4.0, 1.0, 3.0, 0.0, 2.0], 4)  # five frames of four tokens
    noise = rng.permuted(np.tile(np.arange(4) / 10, (4, 5, 1)), axis=-1).reshape(4, 20)
    values = told(tiny, frames + noise)
    assert values["tau_median"] > 0.8 and values["between_frames_median"] == 1
    assert abs(values["within_frames_median"]) < 0.4


def test_position_alone_is_seen_through(tiny) -> None:
    rng = np.random.default_rng(3)
    values = told(tiny, np.arange(20) + rng.normal(0, 2, (4, 20)))
    assert values["tau_median"] > 0.6  # looks stable
    assert values["index_median"] > 0.7 and values["above_index"] < 0
    assert abs(values["partial_median"]) < 0.35


def test_ties_everywhere_have_no_rank(tiny) -> None:
    values = told(tiny, np.ones((4, 20)))
    assert np.isnan(values["tau_median"]) and np.isnan(values["within_frames_median"])
