"""Overlap of outliers and attended tokens: against dense maps, and the two extremes."""

from __future__ import annotations

import numpy as np
import pytest

from probe.ablate.scores_encoder import EncoderReceived
from probe.capture.vision_attention import VisionAttention
from probe.diagnose import OutlierOverlap
from probe.diagnose.outlier_overlap import attended, standing_out
from probe.errors import ProbeError
from tests import tiny as tiny_models
from tests.diagnose import seeing


def test_the_overlap_is_that_of_dense_maps(tiny, tiny_eager) -> None:
    case = seeing.case(tiny)
    found = OutlierOverlap((3, 8), (0.0, 1.0)).measure(case)
    video = case.x.layout.select("video")
    maps = tiny_models.dense(tiny_eager, case.x)[:, :, case.x.layout.last, :].mean(1)[:, video]
    for k in (3, 8):
        outliers = standing_out(case, EncoderReceived(), k)
        tops = [set(np.argsort(-row)[:k].tolist()) for row in maps]
        expected = np.mean([len(outliers & top) / k for top in tops])
        assert found[f"overlap@{k}"] == pytest.approx(expected)
        assert found[f"chance@{k}"] == k / len(video)
        assert found[f"above@{k}"] == pytest.approx(expected - k / len(video))
    assert found["has_cls"] == 0 and found["overlap_by_layer"].shape == (4, 2)


def test_the_outliers_are_the_most_received_patches(tiny) -> None:
    """Tokens are 2 x 2 patches; the reference pools the captured attention."""
    case = seeing.case(tiny)
    run = tiny.run(case.x, [VisionAttention("received")])
    received = run.data.vision_attention.isel(vision_layer=-1, vision_query=0).mean("vision_head")
    frames = received.values.reshape(len(received.frame), 2, 2, 2, 2).mean((2, 4)).reshape(-1)
    assert standing_out(case, EncoderReceived(), 5) == set(np.argsort(-frames)[:5].tolist())


def test_the_same_ranking_overlaps_wholly_and_a_random_one_by_chance() -> None:
    rng = np.random.default_rng(0)
    row = rng.random(40)
    assert len(attended(row, 10) & attended(row * 3, 10)) == 10
    shares = [len(attended(rng.random(40), 10) & attended(rng.random(40), 10)) / 10
              for _ in range(2000)]  # fmt: skip
    assert np.mean(shares) == pytest.approx(10 / 40, abs=0.01)


def test_all_tokens_overlap(tiny) -> None:
    case = seeing.case(tiny)
    count = len(case.x.layout.select("video"))
    assert OutlierOverlap(count).measure(case)[f"overlap@{count}"] == 1
    for k in (0, count + 1):
        with pytest.raises(ProbeError, match=f"1 to the clip's {count} tokens"):
            OutlierOverlap((k,)).measure(case)
    with pytest.raises(ProbeError, match='encoder="norm"'):
        OutlierOverlap((2,), encoder="norm").measure(case)
    with pytest.raises(ProbeError, match="no CLS token"):
        OutlierOverlap((2,), encoder="cls").measure(case)


@pytest.mark.parametrize("name", seeing.FAMILIES)
def test_every_family(name: str) -> None:
    case = seeing.case(seeing.models.build(name), frames=4, gold=None, answers=())
    if name == "instructblipvideo":  # its tokens are queries, which have no place
        with pytest.raises(ProbeError, match="no place in a frame"):
            OutlierOverlap((2,)).measure(case)
        return
    found = OutlierOverlap((2,)).measure(case)
    assert 0 <= found["overlap@2"] <= 1
