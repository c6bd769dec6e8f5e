"""Splits: which piece a token falls into."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.reduction.budget import Count, Equal, Keep
from probe.ablate.reduction.build import Step, weights
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score, Split
from probe.ablate.reduction.segment import Fixed, SameSegments
from probe.ablate.reduction.split import Above, Best, Ends, First, SamePieces, Static


@dataclass(frozen=True)
class Channel(Score):
    """One channel of the features."""

    number: int = 0

    def score(self, c: Candidates) -> torch.Tensor:
        return c.x[:, self.number]


def clip(seed: int, time: int = 5) -> Candidates:
    x = torch.randn(time, 2, 3, 4, generator=torch.Generator().manual_seed(seed))
    return Candidates.grid(x.cumsum(0))


SPLITS = [
    Static(0.5),
    Static(0.5, "mean"),
    Ends(),
    First(),
    Above(0.0, Channel()),
    Best(Keep(0.5), score=Channel()),
    Best(Keep(0.3), per="group", score=Channel()),
    SamePieces(),
]


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("group", [np.arange(6, 24), np.arange(6), np.arange(0)])
def test_every_token_is_in_one_piece(split: Split, group: np.ndarray):
    c = clip(0)
    parts = split.parts(c, group)
    assert len(parts) == 2
    assert np.array_equal(np.sort(np.concatenate(parts)), group)
    assert all((np.diff(part) > 0).all() for part in parts)


@pytest.mark.parametrize("tau", [-0.5, 0.0, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_static_against_a_loop(seed: int, tau: float):
    c = clip(seed)
    x = c.x.reshape(5, 6, 4).double()
    cosine = torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=-1)
    steps = torch.stack([cosine[t, t + 1] for t in range(4)])
    pairs = [cosine[a, b] for a in range(5) for b in range(5) if a != b]
    expected = {
        "all": [place for place in range(6) if bool((steps[:, place] > tau).all())],
        "mean": [place for place in range(6) if float(torch.stack(pairs).mean(0)[place]) > tau],
    }
    for how, places in expected.items():
        static, dynamic = Static(tau, how).parts(c, np.arange(30))
        assert static.tolist() == sorted(6 * t + place for t in range(5) for place in places)
        assert len(static) + len(dynamic) == 30


def test_static_of_one_frame_and_of_equal_frames():
    c = clip(0)
    static, dynamic = Static(-1.0, "mean").parts(c, np.arange(6))
    assert len(static) == 0 and len(dynamic) == 6
    same = Candidates.grid(torch.randn(1, 2, 3, 4).expand(4, 2, 3, 4))
    for how in ("all", "mean"):
        assert len(Static(0.999999, how).parts(same, np.arange(24))[0]) == 24
        assert len(Static(1.0, how).parts(same, np.arange(24))[0]) == 0
    assert Static(1.0).inert


def test_ends_and_first():
    c = clip(0)
    ends, middle = Ends().parts(c, np.arange(6, 30))
    assert set(c.frame[ends]) == {1, 4} and set(c.frame[middle]) == {2, 3}
    first, others = First().parts(c, np.arange(6, 30))
    assert set(c.frame[first]) == {1} and set(c.frame[others]) == {2, 3, 4}


def test_above_uses_its_own_score_or_that_of_the_step():
    c = clip(1)
    above, rest = Above(0.2, Channel(1)).parts(c, np.arange(30))
    assert (c.x[above, 1] > 0.2).all() and (c.x[rest, 1] <= 0.2).all() and len(above) and len(rest)
    scored = replace(c, readings={"score": c.x[:, 1]})
    assert np.array_equal(Above(0.2).parts(scored, np.arange(30))[0], above)
    assert Above(0.2, Channel(1)).leaves() == (Channel(1),)
    with pytest.raises(ProbeError, match="no score to split by"):
        Above(0.2).parts(c, np.arange(30))


def test_best_of_each_frame_and_of_the_group():
    c = clip(2)
    best, _ = Best(Count(2), score=Channel()).parts(c, np.arange(30))
    for frame in c.frames:
        top = frame[np.argsort(-c.x[frame, 0].numpy())[:2]]
        assert set(top) == set(best) & set(frame)
    best, _ = Best(Count(7), per="group", score=Channel()).parts(c, np.arange(30))
    assert set(best) == set(np.argsort(-c.x[:, 0].numpy())[:7])
    ties = replace(c, readings={"score": torch.zeros(30)})
    assert Best(Count(1)).parts(ties, np.arange(30))[0].tolist() == [0, 6, 12, 18, 24]


def test_fastvid_keeps_19_of_196_as_12_and_7():
    """Salient tokens of each frame, then context tokens counted on the frames as they were."""
    c = Candidates.grid(torch.randn(8, 14, 14, 2, generator=torch.Generator().manual_seed(0)))
    step = Step(
        segment=Fixed(4),
        split=Best(Equal(0.1, share=0.4, other=True)),
        score=Channel(),
        pieces=(Step(), Step(budget=Equal(0.1, per="frame", share=0.4, sizes="step"))),
    )
    salient = Step(
        segment=Fixed(4), split=step.split, score=Channel(), pieces=(Step(), Step(keep=0.0))
    )
    assert len(weights([salient], c)) == 12 * 8
    kept = weights([step], c)
    assert len(kept) == 19 * 8
    counted = step.pieces[1].budget
    assert isinstance(counted, Equal)
    assert counted.counts(c, [np.arange(4 * 196)], np.zeros(len(c))) == [7 * 4]


def test_pieces_and_segments_stay_for_the_next_step():
    """Drop half of the dynamic tokens, then treat both pieces again."""
    c = clip(3, time=6)
    first = Step(segment=Fixed(3), split=First(), pieces=(Step(), Step(keep=0.5)))
    again = Step(segment=SameSegments(), split=SamePieces(), pieces=(Step(keep=0.0), Step()))
    left = weights([first, again], c).anchor
    once = weights([first], c).anchor
    assert np.array_equal(left, once[(once // 6) % 3 != 0])


def test_pieces_that_were_not_counted_are_refused():
    c = replace(clip(0), piece=np.full(30, 2))
    with pytest.raises(ProbeError, match="made 3 pieces"):
        SamePieces().parts(c, np.arange(30))
    parts = SamePieces(count=3).parts(c, np.arange(30))
    assert [len(part) for part in parts] == [0, 0, 30]


@pytest.mark.parametrize(
    ("split", "says"),
    [(Static(0.5, "some"), '"all" or "mean"'), (Best(per="token", score=Channel()), '"frame"')],
    ids=str,
)
def test_refused(split: Split, says: str):
    with pytest.raises(ProbeError, match=says):
        split.parts(clip(0), np.arange(30))
