"""The redundancy diagnosis against single runs made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from probe.ablate import Layer, Random, Reduce, Uniform, fastv
from probe.capture import Activations, AttentionRows
from probe.diagnose import FrameSimilarity, margin, redundancy
from probe.errors import ProbeError


@pytest.fixture(scope="module")
def example(tiny):
    frames = np.random.default_rng(3).integers(0, 256, (6, 56, 56, 3), dtype=np.uint8)
    return tiny.encode(frames, "What moves?", seconds=np.arange(6) / 2)


@pytest.fixture(scope="module")
def found(tiny, example):
    return redundancy(tiny, example, keep=(0.5, 0.25), at=2, seeds=3)


def test_untouched_rows_are_the_plain_run(tiny, example, found) -> None:
    run = tiny.run(example)
    follow = margin(tiny, example, run)
    row = run.logits[0]
    assert follow.target_id == row.argmax() and follow.versus_id == np.argsort(-row)[1]
    full = found["kept"].query("keep == 1")
    assert len(full) == 4 and np.all(full["margin"] == follow.of(run))
    assert found["drop_from_layer"]["margin"].iloc[-1] == follow.of(run)


def test_kept_curve_equals_the_ablations_it_names(tiny, example, found) -> None:
    follow = margin(tiny, example, tiny.run(example))
    kept = found["kept"].set_index(["score", "keep"])
    attention = follow.of(tiny.run(example, ablate=[fastv(k=2, keep=0.5)]))
    assert kept.loc[("attention", 0.5), "margin"] == attention
    random = [
        follow.of(tiny.run(example, ablate=[Reduce(Layer(2), Random(s), keep=0.25)]))
        for s in range(3)
    ]
    row = kept.loc[("random", 0.25)]
    assert row["margin"] == pytest.approx(np.mean(random))
    assert (row["margin_low"], row["margin_high"]) == (min(random), max(random))
    assert row["tokens"] == 6


def test_dropping_from_layer_zero_is_the_prompt_without_video_rows(tiny, example, found) -> None:
    follow = margin(tiny, example, tiny.run(example))
    gone = tiny.run(example, ablate=[Reduce(Layer(0), Uniform(), keep_tokens=0)])
    table = found["drop_from_layer"]
    assert table["margin"].iloc[0] == follow.of(gone)
    assert len(table) == tiny.n_layers + 1


def test_attention_to_video_is_the_sum_of_the_dense_row(tiny, example, found) -> None:
    dense = tiny.run(example, [AttentionRows("last")]).data.attention_rows
    video = example.layout.select("video")
    expected = dense.isel(query=0).sel(position=video).sum("position").mean("head").values
    np.testing.assert_allclose(found["attention_to_video"]["mass"], expected, atol=1e-5)


def test_frame_similarity_against_the_vectors(tiny, example) -> None:
    run = tiny.run(example, [FrameSimilarity(), Activations("residual", "video")])
    vectors = run.data.activations.values
    cells = vectors.reshape(tiny.n_layers, 6, -1, vectors.shape[-1])
    unit = cells / np.linalg.norm(cells, axis=-1, keepdims=True)
    expected = (unit[:, 1:] * unit[:, :-1]).sum(-1).mean(-1)
    np.testing.assert_allclose(run.data.frame_similarity.values, expected, atol=1e-5)


def test_needs_a_clip_and_no_answer(tiny, example) -> None:
    with pytest.raises(ProbeError, match="clip"):
        redundancy(tiny, tiny.encode(None, "What moves?"))
    with pytest.raises(ProbeError, match="without an answer"):
        redundancy(tiny, tiny.encode(example.clip, "What moves?", answer="a"))
