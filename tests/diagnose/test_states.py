"""Effective rank, CKA and similarity of frames: against SVD, and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.capture.vision_similarity import linear_cka
from probe.diagnose import AdjacentFrames, Case, EffectiveRank, LayerCKA, diagnose
from probe.diagnose.cells import evenly
from probe.diagnose.state_statistics import effective_rank, mean_cosine
from probe.errors import ProbeError
from tests import tiny as tiny_models
from tests.diagnose import readings


def by_svd(x: np.ndarray) -> float:
    singular = np.linalg.svd(x, compute_uv=False)
    part = singular / singular.sum()
    part = part[part > 1e-7]
    return float(np.exp(-(part * np.log(part)).sum()))


def test_effective_rank_is_that_of_the_singular_values(pair) -> None:
    model, eager = pair
    x = tiny_models.example(model)
    states = readings.states(eager, x)[:, x.layout.role == "video"]
    one = EffectiveRank()
    values = diagnose(Case(model, x), [one])[one]
    raw = [by_svd(layer) for layer in states]
    centred = [by_svd(layer - layer.mean(0)) for layer in states]
    np.testing.assert_allclose(values["effective_rank"], [raw, centred], rtol=1e-3)
    assert values["effective_rank_last"] == pytest.approx(raw[-1], rel=1e-3)
    share = centred[0] / min(states.shape[1:])
    assert values["centred_rank_share_first"] == pytest.approx(share, rel=1e-3)


def test_effective_rank_of_known_matrices() -> None:
    rng = np.random.default_rng(0)
    one = np.outer(rng.normal(size=50), rng.normal(size=30)).astype(np.float32)
    assert effective_rank(one) == pytest.approx(1, abs=1e-3)
    basis = np.linalg.qr(rng.normal(size=(50, 7)))[0]
    for count in (1, 3, 7):
        equal = basis[:, :count] @ np.linalg.qr(rng.normal(size=(30, count)))[0].T
        assert effective_rank(equal) == pytest.approx(count)
        assert effective_rank(equal.T * 1e4) == pytest.approx(count)
    two = basis[:, :2] @ np.diag([3.0, 1.0]) @ np.eye(2, 30)
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert effective_rank(two) == pytest.approx(expected)
    assert np.isnan(effective_rank(np.zeros((5, 4))))
    shared = np.ones((50, 30)) * 100 + basis[:, :3] @ np.eye(3, 30)
    assert effective_rank(shared) < 1.3 and effective_rank(shared, centred=True) > 2.5


def test_fewer_tokens_are_evenly_spaced(tiny) -> None:
    x = tiny_models.example(tiny)
    video = np.flatnonzero(x.layout.role == "video")
    chosen = evenly(video, 7)
    assert len(chosen) == 7 and chosen[0] == video[0] and chosen[-1] == video[-1]
    states = readings.states(tiny, x)[:, list(chosen)]
    one = EffectiveRank(tokens=7)
    values = diagnose(Case(tiny, x), [one])[one]
    raw = [by_svd(layer) for layer in states]
    np.testing.assert_allclose(values["effective_rank"].sel(kind="raw"), raw, rtol=1e-3)
    with pytest.raises(ProbeError, match="at least 2"):
        diagnose(Case(tiny, x), [EffectiveRank(tokens=1)])


def cka(a: np.ndarray, b: np.ndarray) -> float:
    """By the HSIC of centred Gram matrices (Kornblith et al. 2019, equation 3)."""
    n = len(a)
    centre = np.eye(n) - 1 / n
    k, m = (centre @ (z @ z.T) @ centre for z in (a, b))
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def test_cka_is_that_of_the_gram_matrices(pair) -> None:
    model, eager = pair
    x = tiny_models.example(model)
    states = readings.states(eager, x)[:, x.layout.role == "video"]
    one = LayerCKA()
    values = diagnose(Case(model, x), [one])[one]
    expected = np.array([[cka(a, b) for b in states] for a in states])
    np.testing.assert_allclose(values["cka"], expected, atol=1e-4)
    beside = np.diag(expected, 1)
    assert values["cka_adjacent"] == pytest.approx(beside.mean(), abs=1e-4)
    assert values["cka_least_layer"] == beside.argmin()
    assert values["cka_ends"] == pytest.approx(expected[0, -1], abs=1e-4)


def test_cka_does_not_see_rotation_shift_and_scale() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 12))
    turned = 7 * x @ np.linalg.qr(rng.normal(size=(12, 12)))[0] + 5
    other = rng.normal(size=(40, 12))
    found = linear_cka([torch.tensor(each) for each in (x, turned, other)])
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-6)
    assert found[0, 1] == pytest.approx(1, abs=1e-5)
    assert found[0, 2] < 0.5


def test_similarity_of_frames_above_that_of_any_two_tokens(pair) -> None:
    model, eager = pair
    x = tiny_models.example(model)
    states = readings.states(eager, x)[:, x.layout.role == "video"]
    unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
    one = AdjacentFrames()
    values = diagnose(Case(model, x), [one])[one]
    cells = unit.reshape(len(unit), 5, -1, unit.shape[-1])
    adjacent = (cells[:, 1:] * cells[:, :-1]).sum(-1).mean((1, 2))
    cosines = unit @ unit.mT
    n = cosines.shape[-1]
    any_two = cosines[:, ~np.eye(n, dtype=bool)].mean(-1)
    np.testing.assert_allclose(values["any_two"], any_two, atol=1e-5)
    assert values["similarity_last"] == pytest.approx(adjacent[-1], abs=1e-5)
    assert values["above_any_first"] == pytest.approx(adjacent[0] - any_two[0], abs=1e-5)


def test_mean_cosine_of_known_vectors() -> None:
    assert mean_cosine(np.ones((6, 3))) == pytest.approx(1)
    assert mean_cosine(np.eye(4)) == pytest.approx(0)
    assert mean_cosine(np.array([[1.0, 0], [-2.0, 0]])) == pytest.approx(-1)
    assert np.isnan(mean_cosine(np.ones((1, 3))))


def test_one_frame_has_no_neighbour(tiny) -> None:
    with pytest.raises(ProbeError, match="at least two frames"):
        diagnose(Case(tiny, tiny_models.example(tiny, 1)), [AdjacentFrames()])
