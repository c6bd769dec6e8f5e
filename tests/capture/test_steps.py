"""Attention statistics of each decode step, and where tokens were dropped."""

from __future__ import annotations

import numpy as np
import pytest

from probe import ProbeError, ablate
from probe.capture import (
    AttentionEntropy,
    AttentionMass,
    AttentionReceived,
    AttentionRows,
)
from probe.capture import entropy as entropy_module
from probe.capture import mass as mass_module
from probe.capture import received as received_module
from probe.models.video_model import VideoModel
from tests.capture.maps import TOLERANCE, close, xlogx
from tests.tiny import dense, example

Pair = tuple[VideoModel, VideoModel]


@pytest.mark.parametrize("frames", [4, None])
def test_each_decode_step(pair: Pair, frames) -> None:
    model, eager = pair
    x = example(model, frames)
    captures = [
        AttentionMass(),
        AttentionMass("readout", "roles"),
        AttentionEntropy(),
        AttentionReceived(),
        AttentionRows(),
    ]
    run = model.generate(x, captures, max_new_tokens=6)
    new = run.meta["generated"]
    full = model.force(x, new[:-1])
    weights, count = dense(eager, full), len(full.layout)
    assert run.data.sizes["step"] == 6 == len(new)
    for step in range(6):
        row = x.layout.last + step
        now = run.data.isel(step=step)
        seen = weights[:, :, row, : row + 1]
        rows = now.attention_rows.squeeze("query").values
        np.testing.assert_allclose(rows[..., : row + 1], seen, rtol=0, atol=TOLERANCE)
        assert np.isnan(rows[..., row + 1 :]).all()
        received_now = now.attention_received.squeeze("query_group").values
        np.testing.assert_array_equal(received_now, rows)
        padded = np.zeros((*seen.shape[:2], 1, len(run.layout)))
        padded[..., 0, : row + 1] = seen
        for name, keys in (("attention_mass", "frames"), ("attention_mass_2", "roles")):
            labels = list(run.layout.partition(keys))
            expected = np.stack(
                [padded[..., k].sum(-1) for k in run.layout.partition(keys).values()], -1
            )
            close(now[name].sel(key_group=labels), expected)
        close(now.attention_entropy.squeeze("query_group"), -xlogx(seen).sum(-1))
    assert count == x.layout.last + 6


@pytest.mark.parametrize(
    "capture",
    [
        AttentionMass("tokens"),
        AttentionEntropy("roles"),
        AttentionReceived(["video"]),
        AttentionRows("question"),
    ],
)
def test_named_queries_make_no_sense_while_generating(tiny: VideoModel, capture) -> None:
    with pytest.raises(ProbeError, match="in generate each step has one query"):
        tiny.generate(example(tiny), [capture], max_new_tokens=2)


@pytest.mark.parametrize("many", [256, 0])
def test_dropped_tokens_are_nan_and_means_are_over_what_is_left(
    pair: Pair, monkeypatch, many
) -> None:
    for module in (mass_module, entropy_module, received_module):
        monkeypatch.setattr(module, "MANY", many)
    model, _ = pair
    x = example(model)
    reads = [
        AttentionMass("tokens", "frames"),
        AttentionMass("frames", "frames"),
        AttentionEntropy("tokens"),
        AttentionReceived(["all"]),
        AttentionRows("all"),
    ]
    drop = [
        ablate.Reduce(at=ablate.layer(1), score=ablate.Random(3), keep=0.8),
        ablate.Reduce(at=ablate.layer(2), score=ablate.Random(1), keep=0.0, of="frame 1"),
    ]
    run = model.run(x, reads, drop)
    kept, data = run.kept.values, run.data
    assert kept[0].all() and not kept[1].all() and kept[2].sum() < kept[1].sum()
    for layer, there in enumerate(kept):
        rows = data.attention_rows.values[layer]
        assert not np.isnan(rows[:, there][..., there]).any()
        assert np.isnan(rows[:, ~there]).all() and np.isnan(rows[..., ~there]).all()
        w = rows[:, there][..., there]
        np.testing.assert_allclose(w.sum(-1), 1, atol=1e-6)
        np.testing.assert_allclose(
            data.attention_received.values[layer, :, -1, there].T, w.mean(1), atol=1e-6
        )
        assert np.isnan(data.attention_received.values[layer, :, -1, ~there]).all()
        each = data.attention_entropy.values[layer]
        np.testing.assert_allclose(each[:, there], -xlogx(w).sum(-1), atol=TOLERANCE)
        assert np.isnan(each[:, ~there]).all()
        tokens = data.attention_mass.values[layer]
        assert np.isnan(tokens[:, ~there]).all()
        groups = x.layout.partition("frames")
        by_key = np.stack([np.nansum(rows[..., k], -1) for k in groups.values()], -1)
        np.testing.assert_allclose(tokens[:, there], by_key[:, there], atol=TOLERANCE)
        for label, positions in groups.items():
            left = positions[there[positions]]
            mean = data.attention_mass_2.sel(query_group=label).values[layer]
            if len(left):
                np.testing.assert_allclose(mean, by_key[:, left].mean(1), atol=TOLERANCE)
            else:
                assert label == "frame 1" and np.isnan(mean).all()
