"""Figures of reductions: what they show is what the weights say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import probe
from probe import ProbeError, plot
from probe.ablate import Norm, Reduce, fastv
from probe.ablate.recipes.attention_pruning import pyramiddrop
from probe.ablate.reduction.merge import Merge
from probe.ablate.sites import tokens
from probe.models.video_model import VideoModel
from probe.plot.reduction_strip import GONE, fade, left_of, remaining
from probe.plot.style import DOUBLE, save
from tests.tiny import clip, example

MERGED = Reduce(at=tokens(), score=Norm(), keep=0.3, rest=Merge())


def test_several_stages_are_one_product(tiny: VideoModel) -> None:
    run = tiny.run(x := example(tiny), ablate=[MERGED, fastv(2, 0.5), fastv(3, 0.5)])
    product = torch.eye(len(x.layout), dtype=torch.float64)
    there = np.arange(len(x.layout))
    for one in run.reductions:
        rows = np.flatnonzero(np.isin(there, one.candidates))
        full = torch.eye(len(there), dtype=torch.float64)
        full[rows] = 0
        dense = torch.zeros(len(one.anchors), len(there), dtype=torch.float64)
        dense[:, rows] = torch.from_numpy(one.weights.dense())
        others = np.setdiff1d(np.arange(len(there)), rows)
        product = torch.cat([dense, full[others]]) @ product
        there = np.concatenate([one.anchors, there[others]])
        order = np.argsort(there)
        there, product = there[order], product[order]
    left = left_of(run.reductions, len(x.layout))
    video = x.layout.select("video")
    np.testing.assert_allclose(left[video], product.sum(0)[video], atol=1e-12)
    assert np.isnan(left[x.layout.select("question")]).all()
    np.testing.assert_array_equal(remaining(run.reductions), np.intersect1d(there, video))


def test_pictures_fade_with_what_is_left(tiny: VideoModel) -> None:
    x, frames = example(tiny), clip(5).frames
    run = tiny.run(x, ablate=[fastv(2, 0.5)])
    figure = plot.reduced_frames(run, frames)
    ax = figure.subfigs[0].axes[0]
    assert len(ax.images) == 5 and not ax.collections
    left = x.layout.paint(left_of(run.reductions, len(x.layout)))
    for image, frame, here in zip(ax.images, frames, left, strict=True):
        drawn = image.get_array()
        np.testing.assert_allclose(drawn[here == 1], frame[here == 1] / 255)
        np.testing.assert_allclose(drawn[here == 0], np.broadcast_to(GONE, drawn[here == 0].shape))
        assert set(np.unique(here)) <= {0.0, 1.0}
    some = fade(np.zeros((1, 4, 3), np.uint8), np.array([[0.0, 0.2, 0.7, 1.0]]))
    assert (np.diff(some[0], axis=0) < 0).all()  # darker: more of the black frame


def test_merged_outputs_are_boxed_at_their_place(tiny: VideoModel) -> None:
    x, frames = example(tiny), clip(5).frames
    run = tiny.run(x, ablate=[MERGED])
    ax = plot.reduced_frames(run, frames).subfigs[0].axes[0]
    table = run.reductions[0].to_frame(x.layout)
    merged = table[table["entries"] > 1]
    [boxes] = ax.collections
    assert len(boxes.get_paths()) == len(merged) > 0
    corner = boxes.get_paths()[0].vertices[0]
    image = ax.images[int(merged["group"].iloc[0])]
    x0, x1, y1, y0 = image.get_extent()
    rows, cols = x.layout.clips[0].cells
    at = merged.iloc[0]
    expected = x0 + at["col"] * (x1 - x0) / cols, y0 + at["row"] * (y1 - y0) / rows
    np.testing.assert_allclose(corner, expected)
    assert len(ax.get_legend().get_texts()) == 3


def test_bars_count_tokens(tiny: VideoModel) -> None:
    x = example(tiny)
    run = tiny.run(x, ablate=pyramiddrop(layers=(1, 2), rates=(0.5, 0.25)))
    visual = x.layout.select("video")
    ax = plot.tokens_by_frame(run.reductions, x.layout).axes[0]
    before, after = ([bar.get_height() for bar in bars] for bars in ax.containers)
    counts = np.bincount(x.layout.group[visual])
    assert before == counts.tolist()
    kept = visual[run.kept.values[-1][visual]]
    assert after == np.bincount(x.layout.group[kept], minlength=len(counts)).tolist()
    ax = plot.tokens_by_layer(run).axes[0]
    drawn = [bar.get_height() for bar in ax.containers[1]]
    assert drawn == run.kept.values[:, visual].sum(1).tolist()
    assert f"{run.cost.macs / run.cost.macs_full:.0%}" in ax.get_xlabel()
    first = plot.tokens_by_frame(run.reductions[:1], x.layout).axes[0]
    assert sum(bar.get_height() for bar in first.containers[1]) == len(run.reductions[0].anchors)


def test_the_matrix_has_a_dot_for_each_entry(tiny: VideoModel) -> None:
    x = example(tiny)
    [one] = tiny.run(x, ablate=[MERGED]).reductions
    ax = plot.reduction_matrix(one, x.layout).axes[0]
    drawn = np.concatenate([dots.get_offsets() for dots in ax.collections])
    expected = np.stack([one.weights.col, one.weights.row], 1)
    assert {tuple(d) for d in drawn.tolist()} == {tuple(e) for e in expected.tolist()}
    sizes = ax.collections[-1].get_sizes()
    mine = np.bincount(one.weights.row)[one.weights.row] > 1
    assert np.argmax(sizes) == np.argmax(one.weights.value[mine])


def test_files_and_refusals(tiny: VideoModel, tmp_path: Path) -> None:
    run = tiny.run(example(tiny), ablate=[fastv(2, 0.5)])
    figure = plot.reduced_frames(run, clip(5).frames, stage=0)
    assert figure.get_size_inches()[0] == pytest.approx(DOUBLE)
    pdf, _ = save(figure, tmp_path / "reduced")
    assert pdf.read_bytes().startswith(b"%PDF")
    with pytest.raises(ProbeError, match="stage 1; this run has 1 reductions"):
        plot.reduced_frames(run, clip(5).frames, stage=1)
    with pytest.raises(ProbeError, match="0 reductions"):
        plot.reduced_frames(tiny.run(example(tiny)), clip(5).frames)
    run.save(tmp_path / "run")
    with pytest.raises(ProbeError, match="no layout"):
        plot.tokens_by_layer(probe.open(tmp_path / "run"))
