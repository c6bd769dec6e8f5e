"""Statistics of one layer's blocks, against the softmax of the dense scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.engine import vision_call
from probe.engine.vision_blocks import Block, vision_calls
from probe.engine.vision_call import VisionCall
from probe.engine.vision_tokens import VisionTokens, batch, frame_labels, merged, packed
from probe.errors import ProbeError
from tests import tiny
from tests.families import models

ROWS, WIDTH = 30, 8
WANTED = frozenset(["cls", "received", "entropy", "frames"])


def make(mask: str, heads: int, kv_heads: int, prefix: int) -> tuple[VisionCall, torch.Tensor]:
    """Three blocks whose tokens belong to two frames each, and their dense weights in float64."""
    torch.manual_seed(0)
    query, key = 3 * torch.randn(3, heads, ROWS, WIDTH), torch.randn(3, kv_heads, ROWS, WIDTH)
    hidden = torch.rand(3, 1, ROWS, ROWS) < 0.3
    hidden[..., 0] = False
    made = {
        "none": None,
        "bool": ~hidden,
        "additive": torch.zeros(3, 1, ROWS, ROWS).masked_fill(hidden, -3e38),
        "bias": torch.randn(1, heads, 1, ROWS),
    }[mask]
    scores = (query.double() @ key.double().repeat_interleave(heads // kv_heads, 1).mT) * 0.3
    if mask == "bias":
        scores = scores + made
    elif mask != "none":
        scores = scores.masked_fill(hidden, float("-inf"))
    frame = np.arange(3)[:, None] * 2 + (np.arange(ROWS) >= 12)
    call = VisionCall(
        layer=0,
        module=None,
        query=query,
        key=key,
        mask=made,
        scaling=0.3,
        tokens=np.arange(3 * ROWS).reshape(3, ROWS),
        frame=frame,
        prefix=prefix,
        wanted=WANTED,
    )
    return call, scores.softmax(-1)


@pytest.mark.parametrize("mask", ["none", "bool", "additive", "bias"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("tile", [50, 1000, 1 << 20])
def test_statistics_are_the_dense_softmax(mask, heads, kv_heads, prefix, tile, monkeypatch) -> None:
    monkeypatch.setitem(vision_call.TILE, "cpu", tile)
    call, dense = make(mask, heads, kv_heads, prefix)
    found = call.statistics()
    close(found.entropy, torch.special.entr(dense).sum(-1))
    close(found.received, dense[:, :, prefix:].mean(2))
    if prefix:
        close(found.cls, dense[:, :, 0])
    onehot = torch.nn.functional.one_hot(torch.as_tensor(call.frame)).double()
    close(found.frames, dense @ onehot[:, None])


def close(found: torch.Tensor | None, expected: torch.Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_tiles_stay_within_their_size(monkeypatch) -> None:
    monkeypatch.setitem(vision_call.TILE, "cpu", 100)
    call, _ = make("none", 6, 2, 0)
    sizes = [scores.numel() for *_, scores in call.tiles()]
    shared = 3  # heads that share a key are scored together
    assert max(sizes) <= max(100, shared * ROWS) and sum(sizes) == 3 * 6 * ROWS * ROWS


def test_blocks_of_equal_length_go_together() -> None:
    row, col = np.divmod(np.arange(10), 5)
    tokens = packed(np.array([[1, 2, 5]]), row, col)
    torch.manual_seed(0)
    blocks = [Block(torch.randn(1, 2, n, 4), torch.randn(1, 2, n, 4), None, 0.5) for n in (3, 4, 3)]
    calls = list(vision_calls(0, None, blocks, tokens, {"auto"}))
    assert [call.tokens.tolist() for call in calls] == [[[0, 1, 2], [7, 8, 9]], [[3, 4, 5, 6]]]
    assert all(call.wanted == {"received"} for call in calls)
    with pytest.raises(ProbeError, match="covered 7 tokens of 10"):
        list(vision_calls(0, None, blocks[:2], tokens, {"auto"}))


def test_a_sequence_is_put_in_raster_order() -> None:
    """Two clips of other sizes, each frame shuffled: every token finds its place again."""
    random = np.random.default_rng(0)
    grid = np.array([[2, 3, 4], [1, 2, 6], [3, 4, 2]])
    truth, row, col, frame = [], [], [], 0
    for groups, rows, cols in grid:
        for _ in range(groups):
            cells = random.permutation(rows * cols)
            truth += [(frame, cell) for cell in cells]
            row += (cells // cols).tolist()
            col += (cells % cols).tolist()
            frame += 1
    tokens = packed(grid, np.array(row), np.array(col))
    assert [truth[place] for place in tokens.order] == sorted(truth)
    assert list(zip(tokens.frame, tokens.patch, strict=True)) == sorted(truth)
    assert np.array_equal(tokens.row, np.array(row)[tokens.order])
    assert np.array_equal(tokens.order[tokens.place], np.arange(len(tokens)))
    with pytest.raises(ProbeError, match="do not fill each frame once"):
        packed(grid, np.array(row) * 0, np.array(col))
    with pytest.raises(ProbeError, match="grid_thw says"):
        packed(grid, np.array(row)[1:], np.array(col)[1:])


def test_merged_tokens_keep_their_places() -> None:
    with_cls = batch(2, 17, (4, 4))
    assert with_cls.prefix == 1 and with_cls.patches == 16 and with_cls.frames == 2
    halved = merged(with_cls, 8, sequence=False, cells=[(2, 2)])
    assert (halved.row[:4].tolist(), halved.col[:4].tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1])
    queries = merged(with_cls, 6, sequence=False, cells=[])
    assert (queries.row == -1).all() and queries.patch.tolist() == [0, 1, 2, 0, 1, 2]
    # 4 queries a frame would fit a halved grid, but have no place in it.
    assert (merged(with_cls, 8, sequence=False, cells=[]).row == -1).all()
    odd = merged(with_cls, 7, sequence=False, cells=[(2, 2)])
    assert odd.frames == 1 and (odd.row == -1).all()
    assert isinstance(odd, VisionTokens)


def test_frames_are_labelled_as_in_the_layout() -> None:
    model = models.build("qwen2_vl")
    clip, image = tiny.clip(4, 32, 64), np.zeros((32, 64, 3), np.uint8)
    groups = ["frames 0-1", "frames 2-3"]
    alone = model.encode(clip, "What?", frames=None).layout
    assert frame_labels(alone, [2]) == groups
    assert frame_labels(alone, [7]) == [f"tile {n}" for n in range(7)]
    assert frame_labels(alone, [1]) == ["all frames"]
    both = model.encode([clip, image], "What?", frames=None).layout
    assert frame_labels(both, [3]) == [*groups, "image 0"]
    assert frame_labels(both, [1, 2]) == ["image 0", *groups]
    assert frame_labels(both, [2, 2]) == ["image 0 tile 0", "image 0 tile 1", *groups]
    # Each frame gives 8 tokens here; in 6 frames of 4 each, each visual has two parts a frame.
    halves = [f"video 0 tile {n}" for n in range(4)] + ["image 0 tile 0", "image 0 tile 1"]
    assert frame_labels(both, [6]) == halves
