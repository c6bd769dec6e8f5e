"""What becomes of the unselected, without a target: dropped, summed up, recycled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from probe.ablate.reduction.build import Step, weights
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.merge import Merge
from probe.ablate.reduction.parts import Chosen
from probe.ablate.reduction.rest import Drop, Recycle, Summary
from probe.ablate.reduction.select import TopK
from probe.ablate.reduction.select_cluster import DPCKNN
from probe.ablate.reduction.weights import Weights
from probe.errors import ProbeError

SCORE = np.random.default_rng(0).random(30)


def clip() -> Candidates:
    c = Candidates.grid(torch.randn(1, 5, 6, 4, generator=torch.Generator().manual_seed(0)))
    return replace(c, mass=np.random.default_rng(1).integers(1, 5, 30).astype(float))


def made(rest, count: int) -> tuple[Weights, Chosen]:
    c, group = clip(), np.arange(30)
    chosen = TopK().choose(c, group, SCORE, count)
    return Weights.of_rows(rest.rows(c, group, chosen, SCORE), 30), chosen


def test_dropped_tokens_leave_no_trace() -> None:
    w, chosen = made(Drop(), 11)

    assert w.is_selection
    assert w.anchor.tolist() == chosen.centres.tolist()
    np.testing.assert_array_equal(w.mass, clip().mass[chosen.centres])


@pytest.mark.parametrize("weight", ["mean", "mass", "score", "sum"])
def test_the_summary_is_of_all_others(weight: str) -> None:
    w, chosen = made(Summary(weight, anchor="top"), 11)
    others = np.setdiff1d(np.arange(30), chosen.centres)

    expected = np.zeros((12, 30))
    expected[np.arange(11), chosen.centres] = 1
    values = {"mean": np.ones(30), "mass": clip().mass}.get(weight, SCORE)[others]
    expected[11, others] = values if weight == "sum" else values / values.sum()
    np.testing.assert_allclose(w.dense(), expected, atol=1e-15)
    assert w.anchor[-1] == max(others, key=lambda i: SCORE[i])
    assert w.mass.sum() == clip().mass.sum()
    if weight == "sum":
        np.testing.assert_allclose(w.gain[-1], SCORE[others].sum())
    else:
        np.testing.assert_allclose(w.gain, 1)


def test_the_summary_stands_where_it_is_told() -> None:
    others = np.setdiff1d(np.arange(30), made(Drop(), 11)[1].centres)

    assert made(Summary(anchor="last"), 11)[0].anchor[-1] == others[-1]
    assert made(Summary(anchor="first"), 11)[0].anchor[-1] == others[0]


def test_no_summary_of_nothing() -> None:
    assert made(Summary(), 30)[0].is_identity
    assert weights([Step(keep_tokens=30, rest=Summary())], clip()).is_identity


def test_a_summary_by_scores_without_weight_is_refused() -> None:
    c, group = clip(), np.arange(30)
    chosen = TopK().choose(c, group, np.zeros(30), 4)

    with pytest.raises(ProbeError, match='summary: weight="score" has a total of 0; use "mean"'):
        Summary("score").rows(c, group, chosen, np.zeros(30))


def test_recycled_tokens_are_clusters_of_the_best_of_the_dropped() -> None:
    c = clip()
    w, chosen = made(Recycle(top=0.5, ratio=0.3), 6)

    # 24 dropped: int(12) + 1 recycled, int(3.9) + 1 clusters.
    dropped = np.setdiff1d(np.arange(30), chosen.centres)
    some = np.array(sorted(sorted(dropped, key=lambda i: (-SCORE[i], i))[:13]))
    centres = DPCKNN(4).choose(c, some, SCORE, 4).centres
    expected = np.zeros((10, 30))
    expected[np.arange(6), chosen.centres] = 1
    for token in some:
        far = [float((c.x[token] - c.x[centre]).norm()) for centre in centres]
        expected[6 + int(np.argmin(far)), token] = 1
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(w.dense(), expected, atol=1e-15)
    assert w.anchor[6:].tolist() == centres.tolist()


@pytest.mark.parametrize(("dropped", "tokens", "clusters"), [(276, 83, 9), (10, 4, 1), (1, 1, 1)])
def test_published_counts_of_sparsevlm(dropped: int, tokens: int, clusters: int) -> None:
    c = Candidates.grid(torch.randn(1, 1, 300, 4, generator=torch.Generator().manual_seed(0)))
    step = Step(keep_tokens=300 - dropped, rest=Recycle())

    w = weights([step], c)

    assert len(w) == 300 - dropped + clusters
    assert (w.coverage > 0).sum() == 300 - dropped + tokens


def test_nothing_is_recycled_of_nothing() -> None:
    assert made(Recycle(), 30)[0].is_identity
    assert made(Recycle(top=0), 9)[0].is_selection
    assert made(Recycle(rest=Merge("cos")), 9)[0].gain == pytest.approx(1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Summary("median"),
        lambda: Summary(anchor="middle"),
        lambda: Recycle(top=1.5),
        lambda: Recycle(ratio=-0.1),
    ],
)
def test_bad_parameters_are_refused_in_one_line(make) -> None:
    with pytest.raises(ProbeError) as error:
        make()
    assert "\n" not in str(error.value)
