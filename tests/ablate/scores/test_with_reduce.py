"""Every score inside a reduction of a real run."""

from __future__ import annotations

import numpy as np
import pytest

from probe.ablate import Reduce, layer
from probe.ablate.reduction.arithmetic import FrameScore, Normalised
from probe.ablate.scores import LastQuery, Norm, Position, Random, Uniform
from probe.ablate.scores_attention import KeyNorm, Received
from probe.ablate.scores_encoder import CLS, EncoderReceived
from probe.ablate.scores_features import Change, Density, Duplication, Uniqueness
from probe.ablate.scores_relevance import Relevance
from probe.ablate.scores_text import Raters, TextQuery, TextSimilarity
from probe.errors import ProbeError
from tests.ablate.scores.host import score
from tests.families import models
from tests.snapshot import same, snapshot

EVERYWHERE = [
    LastQuery(),
    LastQuery(2),
    Received(0),
    Norm(of="key", p=1),
    KeyNorm(2),
    TextQuery(agg="max", heads=2),
    TextQuery(queries=Raters()),
    TextSimilarity(),
    Position(2),
    Uniform(),
    Random(1),
    Change("first"),
    Uniqueness("frame") + Uniqueness(),
    Duplication(2),
    Density(3),
    EncoderReceived(),
    Relevance(),
    Normalised(LastQuery()) * EncoderReceived() + FrameScore(Norm()),
]


@pytest.mark.parametrize("one", EVERYWHERE, ids=str)
@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
def test_the_best_stay(name: str, one) -> None:
    model = models.build(name)
    x = models.example(model)
    model.run(x)
    before = snapshot(model.hf)
    reduction = Reduce(at=layer(2), score=one, keep_tokens=7)
    run = model.run(x, ablate=[reduction])
    same(before, snapshot(model.hf))
    best = np.argsort(-score(model, x, one, site=2), kind="stable")[:7]
    video = x.layout.select("video")
    assert np.flatnonzero(run.kept.values[2, video]).tolist() == sorted(best.tolist())
    assert run.kept.values[1].all()
    decoded = model.generate(x, ablate=[reduction], max_new_tokens=2)
    np.testing.assert_array_equal(decoded.kept[:, : len(x.layout)], run.kept)


def test_cls_where_there_is_one() -> None:
    model = models.build("llava_next_video")
    x = models.example(model)
    run = model.run(x, ablate=[Reduce(at=layer(0), score=CLS(), keep_tokens=5)])
    best = np.argsort(-score(model, x, CLS()), kind="stable")[:5]
    kept = np.flatnonzero(run.kept.values[0, x.layout.select("video")])
    assert kept.tolist() == sorted(best.tolist())
    other = models.build("qwen2_vl")
    with pytest.raises(ProbeError, match="no CLS token"):
        other.run(models.example(other), ablate=[Reduce(at=layer(0), score=CLS(), keep=0.5)])


def test_attention_after_an_earlier_reduction_is_that_of_what_is_left() -> None:
    model = models.build("llava_onevision")
    x = models.example(model)
    first = Reduce(at=layer(1), score=Random(), keep_tokens=10)
    second = Reduce(at=layer(3), score=LastQuery(), keep_tokens=4)
    run = model.run(x, ablate=[first, second])
    video = x.layout.select("video")
    left = np.flatnonzero(run.kept.values[1, video])
    assert len(left) == 10
    kept = np.flatnonzero(run.kept.values[3, video])
    assert len(kept) == 4 and set(kept) < set(left)
