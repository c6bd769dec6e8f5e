"""Knockout and NoRope change the edges they name and no others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from probe import ablate
from probe.ablate import (
    Knockout,
    NoRope,
    edvt,
)
from probe.capture import AttentionRows, Capture
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.tiny import example

Pair = tuple[VideoModel, VideoModel]


@dataclass(frozen=True)
class Scores(Capture):
    """Scores before the softmax, every row, by layer."""

    def start(self, session) -> dict:
        return {"layers": []}

    def attention(self, session, state, call) -> None:
        every = call.index(call.positions)
        state["layers"].append(call.scores(every).clone())

    def finish(self, session, state) -> dict:
        import xarray as xr

        dims = ("layer", "head", "query", "key")
        return {self.kind: xr.DataArray(torch.stack(state["layers"]).numpy(), dims=dims)}


def scores(model: VideoModel, x: Example, ablations: list) -> np.ndarray:
    return model.run(x, [Scores()], ablations).data.scores.values


def shifted(x: Example, by: int) -> Example:
    """The positions of the text after the video are larger by a constant."""
    ids = x.inputs["position_ids"].clone()
    ids[0, x.layout.select("newline")[0] + 1 :] += by
    return replace(x, inputs=x.inputs | {"position_ids": ids})


def test_edvt_does_not_know_how_far_the_video_is(pair: Pair) -> None:
    model, _ = pair
    x = example(model)
    video, newline = x.layout.select("video"), x.layout.select("newline")[0]
    text = np.arange(newline + 1, len(x.layout))
    near, far = (scores(model, y, [edvt()])[:, :, text][..., video] for y in (x, shifted(x, 50)))
    np.testing.assert_allclose(near[0], far[0], rtol=0, atol=1e-5)  # layer 0: the same vectors
    plain, moved = (scores(model, y, [])[:, :, text][..., video] for y in (x, shifted(x, 50)))
    assert np.abs(plain[0] - moved[0]).max() > 0.1
    # With the text before the video unrotated too, nothing in any layer depends on the distance.
    every = NoRope((list(range(newline + 1)), text.tolist()))
    near, far = (scores(model, y, [every])[:, :, text][..., video] for y in (x, shifted(x, 50)))
    np.testing.assert_allclose(near, far, rtol=0, atol=3e-5)
    logits = [model.run(y, ablate=[every]).logits for y in (x, shifted(x, 50))]
    np.testing.assert_allclose(logits[0], logits[1], rtol=0, atol=1e-5)


def test_no_rope_changes_the_edges_it_names_and_no_others(pair: Pair) -> None:
    model, _ = pair
    x = example(model)
    question, video = x.layout.select("question"), x.layout.select("video")
    before = scores(model, x, [])
    after = scores(model, x, [NoRope("video -> question", layers=[1])])
    np.testing.assert_array_equal(after[0], before[0])
    visible = np.isfinite(before[1])
    changed = np.abs(np.where(visible, after[1], 0) - np.where(visible, before[1], 0)) > 1e-6
    named = np.zeros(changed.shape[1:], bool)
    named[np.ix_(question, video)] = True
    assert not changed[:, ~named].any() and changed[:, named].mean() > 0.95


def test_knockout_takes_the_weight_and_gives_it_to_the_others(pair: Pair) -> None:
    model, _ = pair
    x = example(model)
    cut = Knockout("frame 1 -> question", layers=[0])
    before = model.run(x, [AttentionRows("all")]).data.attention_rows.values[0]
    after = model.run(x, [AttentionRows("all")], [cut]).data.attention_rows.values[0]
    question, frame = x.layout.select("question"), x.layout.select("frame 1")
    expected = before.copy()
    for row in question:
        expected[:, row, frame] = 0
        expected[:, row] /= expected[:, row].sum(-1, keepdims=True)
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-6)
    assert (after[:, question][..., frame] == 0).all()


def test_a_row_that_sees_nothing_adds_nothing(tiny: VideoModel) -> None:
    x = example(tiny)
    blind = Knockout("all -> last", layers=[1])
    rows = tiny.run(x, [AttentionRows("last")], [blind]).data.attention_rows.values
    assert np.isnan(rows[1]).all() and not np.isnan(rows[[0, 2, 3]]).any()
    assert np.isfinite(tiny.run(x, ablate=[blind]).logits).all()


def test_edges_reach_generated_tokens(tiny: VideoModel) -> None:
    x = example(tiny)
    run = tiny.generate(x, [AttentionRows()], [Knockout("frame 1 -> text")], max_new_tokens=4)
    rows = run.data.attention_rows.values[..., x.layout.select("frame 1")]
    assert (rows == 0).all()
    run = tiny.generate(x, [AttentionRows()], [Knockout("frame 1 -> last")], max_new_tokens=4)
    rows = run.data.attention_rows.values[..., x.layout.select("frame 1")]
    assert (rows[0] == 0).all() and (rows[1:] > 0).all()
    run = tiny.generate(x, [AttentionRows()], [Knockout("frame 1 -> answer")], max_new_tokens=4)
    assert (run.data.attention_rows.values[..., x.layout.select("frame 1")] == 0).all()


@dataclass(frozen=True)
class OnlySelf(ablate.Ablation):
    """An ablation of one's own: from a layer on the last position attends to itself alone."""

    layer: int = 0

    def edit(self, session, state, call) -> None:
        if call.layer >= self.layer:
            last = session.layout.last
            call.cut(call.index(np.array([last])), call.key_index(np.arange(last)))


def test_an_ablation_of_one_s_own(tiny: VideoModel) -> None:
    x = example(tiny)
    rows = tiny.run(x, [AttentionRows()], [OnlySelf(2)]).data.attention_rows.values
    np.testing.assert_array_equal(rows[2:, :, 0, -1], 1)
    assert (rows[:2, :, 0, -1] < 1).all()
