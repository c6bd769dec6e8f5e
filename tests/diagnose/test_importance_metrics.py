"""Metrics of maps against scikit-learn, and against counting every order of tied tokens."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from probe.diagnose.importance import metrics


def drawn(seed: int, maps: int = 7, tokens: int = 60, levels: int | None = None):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(maps, tokens))
    if levels:
        scores = np.floor(scores * levels) / levels
    return scores, rng.random(tokens) < 0.2, rng.integers(0, 6, tokens)


@pytest.mark.parametrize("levels", [None, 3, 1])
def test_as_scikit_learn(levels: int | None) -> None:
    for seed in range(5):
        scores, truth, _ = drawn(seed, levels=levels)
        areas = [roc_auc_score(truth, row) for row in scores]
        np.testing.assert_allclose(metrics.auroc(scores, truth), areas, atol=1e-12)
        means = [average_precision_score(truth, row) for row in scores]
        np.testing.assert_allclose(metrics.average_precision(scores, truth), means, atol=1e-12)


def every_order(row: np.ndarray) -> list[list[int]]:
    """All orders of tokens by a score, best first, in which ties are broken."""
    orders = permutations(range(len(row)))
    return [list(o) for o in orders if all(row[a] >= row[b] for a, b in pairwise(o))]


def test_top_tokens_are_the_mean_over_all_orders_of_ties() -> None:
    scores = np.array([[3, 2, 2, 2, 0, 1.0], [1, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5]])
    truth = np.array([False, True, False, False, True, False])
    for count in (1, 2, 3, 5):
        expected = [np.mean([truth[o[:count]].mean() for o in every_order(row)]) for row in scores]
        np.testing.assert_allclose(metrics.precision(scores, truth, count), expected)
    first = [np.mean([truth[o[0]] for o in every_order(row)]) for row in scores]
    np.testing.assert_allclose(metrics.pointing(scores, truth), first)


def test_frames_by_their_mean_score() -> None:
    scores, truth, group = drawn(1)
    truth &= group < 2
    found = metrics.frame_recall(scores, truth, group)
    shown = set(group[truth].tolist())
    assert shown == {0, 1}
    for row, value in zip(scores, found, strict=True):
        means = {g: row[group == g].mean() for g in set(group.tolist())}
        top = sorted(means, key=means.get)[-2:]
        assert value == len(shown & set(top)) / 2


def test_precision_within_looks_at_frames_with_evidence_alone() -> None:
    scores, truth, group = drawn(2)
    truth &= group < 2
    found = metrics.precision_within(scores, truth, group)
    here = np.flatnonzero(group < 2)
    for row, value in zip(scores, found, strict=True):
        top = here[np.argsort(-row[here])][: truth.sum()]
        assert value == pytest.approx(truth[top].mean())


def test_undefined_is_nan_and_never_a_number() -> None:
    scores, _, group = drawn(0)
    for truth in (np.zeros(60, bool), np.ones(60, bool)):
        for metric in (metrics.auroc, metrics.average_precision, metrics.pointing):
            assert np.isnan(metric(scores, truth)).all()
        assert np.isnan(metrics.frame_recall(scores, truth, group)).all()
        assert np.isnan(metrics.precision_within(scores, truth, group)).all()
    scores[2, 5] = np.nan
    truth = group == 3
    for found in (
        metrics.auroc(scores, truth),
        metrics.average_precision(scores, truth),
        metrics.pointing(scores, truth),
        metrics.frame_recall(scores, truth, group),
    ):
        assert np.isnan(found[2]) and np.isfinite(np.delete(found, 2)).all()


def test_evidence_in_every_frame_says_nothing_about_frames() -> None:
    scores, _, group = drawn(0)
    truth = np.zeros(60, bool)
    truth[np.unique(group, return_index=True)[1]] = True
    assert np.isnan(metrics.frame_recall(scores, truth, group)).all()
    assert np.isfinite(metrics.auroc(scores, truth)).all()
