"""Edits of attention edges are the dense definition, in scores, weights, tiles and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from probe.engine import call as calls
from probe.engine.call import AttentionCall

HEADS, GROUPS, ROWS, CHANNELS = 6, 3, 40, 8
SCALING, SOFTCAP = 0.4, 3.0
EVERY = torch.arange(ROWS)
CAUSAL = EVERY[None] > EVERY[:, None]
WINDOW = CAUSAL | (EVERY[:, None] - EVERY[None] >= 12)
NEVER = float(torch.finfo(torch.float32).min)
MASKS = {
    "none": None,
    "bool": ~WINDOW,
    "additive": torch.zeros(ROWS, ROWS).masked_fill(WINDOW, NEVER),
}


def vectors(seed: int, heads: int, count: int) -> Tensor:
    return torch.randn(heads, count, CHANNELS, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.fixture(params=[(mask, cap) for mask in MASKS for cap in (None, SOFTCAP)], ids=str)
def call(request: pytest.FixtureRequest) -> AttentionCall:
    mask, softcap = request.param
    return AttentionCall(
        layer=0,
        module=None,
        query=vectors(0, HEADS, ROWS),
        key=vectors(1, GROUPS, ROWS),
        value=vectors(2, GROUPS, ROWS),
        mask=MASKS[mask],
        scaling=SCALING,
        positions=np.arange(ROWS),
        key_positions=np.arange(ROWS),
        causal=True,
        softcap=softcap,
        unrotate=lambda x, positions: x.flip(-1) + torch.as_tensor(positions).sin()[:, None],
    )


def dense(call: AttentionCall, change: Callable[[Tensor, Tensor], None] = lambda s, v: None) -> Any:
    """(scores [head, row, key], output [row, head, channel]) in float64; `change` edits the plain
    scores before the cap, and the table of what is hidden [head, row, key].
    """
    query, key, value = (part.double() for part in (call.query, call.key, call.value))
    key, value = (part.repeat_interleave(HEADS // GROUPS, 0) for part in (key, value))
    scores = query @ key.mT
    hidden = (CAUSAL if call.mask is None else WINDOW).expand(HEADS, -1, -1).clone()
    change(scores, hidden)
    scores = scores * SCALING
    if call.softcap is not None:
        scores = call.softcap * (scores / call.softcap).tanh()
    scores = scores.masked_fill(hidden, -torch.inf)
    return scores, (scores.softmax(-1).nan_to_num() @ value).transpose(0, 1)


def close(found: Tensor, expected: Tensor) -> None:
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=2e-5)


def check(call: AttentionCall, change: Callable[[Tensor, Tensor], None], rows: Tensor) -> None:
    """Everything that reads edited attention, against the dense definition."""
    scores, output = dense(call, change)
    assert call.edited.tolist() == rows.tolist()
    close(call.scores(EVERY), scores)
    close(call.weights(EVERY), scores.softmax(-1))
    some = torch.tensor([3, 17, 39])
    close(call.weights(some), scores[:, some].softmax(-1))
    seen = torch.full((HEADS, ROWS, ROWS), -torch.inf)
    for heads, start, stop, _, tile in call.tiles():
        seen[heads, start:stop, : tile.shape[-1]] = tile / calls.LOG2E
    close(seen, scores)
    plain = dense(call)[1]
    redone = call.redo(plain[None].float(), call.edited)[0]
    close(redone, output)
    close(call.unedited.scores(EVERY), dense(call)[0])


def test_cuts_in_all_heads_and_in_some(call: AttentionCall) -> None:
    rows, columns = torch.tensor([20, 21, 30]), torch.tensor([0, 5, 19, 20])
    some, single = torch.tensor([1, 4]), torch.tensor([33])
    call.cut(rows, columns)
    call.cut(single, columns, heads=some)

    def change(scores: Tensor, hidden: Tensor) -> None:
        hidden[:, rows[:, None], columns] = True
        hidden[some[:, None], single, columns] = True

    check(call, change, torch.cat([rows, single]))


def test_masks_hide_and_show_whatever_their_order(call: AttentionCall) -> None:
    rows = torch.arange(6, 30)
    hide = torch.rand(24, ROWS, generator=torch.Generator().manual_seed(3)) < 0.4
    show = torch.rand(24, ROWS, generator=torch.Generator().manual_seed(4)) < 0.3
    call.hide(rows, hide)
    call.show(rows, lambda numbers: show[numbers - 6])
    call.cut(torch.tensor([8]), torch.tensor([9]))

    def change(scores: Tensor, hidden: Tensor) -> None:
        hidden[:, 6:30] = (hidden[:, 6:30] & ~show) | hide
        hidden[:, 8, 9] = True

    assert (show & CAUSAL[6:30] & ~hide).any()
    check(call, change, rows)


def test_edges_scored_with_other_vectors(call: AttentionCall) -> None:
    rows, columns = torch.tensor([10, 25, 39]), torch.arange(4, 24)
    call.remove_rotation(rows, columns)
    call.cut(torch.tensor([25]), torch.tensor([6]))
    query = call.query.double().flip(-1)[:, rows] + rows.sin()[:, None]
    key = (call.key.double().flip(-1)[:, columns] + columns.sin()[:, None]).repeat_interleave(2, 0)

    def change(scores: Tensor, hidden: Tensor) -> None:
        scores[:, rows[:, None], columns] = query @ key.mT
        hidden[:, 25, 6] = True

    check(call, change, rows)


def test_an_edit_after_weights_were_read_counts(call: AttentionCall) -> None:
    row, column = torch.tensor([30]), torch.tensor([29])
    assert (call.weights(row)[..., 29] > 0).all()
    call.cut(row, column)
    assert (call.weights(row)[..., 29] == 0).all()
    call.cut(row, column[:0])
    call.cut(row, column, heads=column[:0])
    call.hide(row[:0], torch.zeros(0, ROWS, dtype=torch.bool))
    assert len(call.edits.cuts) == 1 and not call.edits.hidden


def test_a_row_that_sees_nothing(call: AttentionCall) -> None:
    row = torch.tensor([20])
    call.hide(row, torch.ones(1, ROWS, dtype=torch.bool))
    assert call.weights(row).isnan().all()
    assert (call.redo(torch.ones(1, ROWS, HEADS, CHANNELS), row)[0, 20] == 0).all()


def test_masks_are_asked_for_tiles_of_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "TILE", 16)
    call = AttentionCall(
        0, None, vectors(0, HEADS, ROWS), vectors(1, GROUPS, ROWS), vectors(2, GROUPS, ROWS),
        None, SCALING, np.arange(ROWS), np.arange(ROWS), True, None, lambda x, positions: x,
    )  # fmt: skip
    asked: list[int] = []
    call.hide(EVERY, lambda rows: asked.append(len(rows)) or CAUSAL[rows])
    list(call.tiles())
    call.redo(torch.zeros(1, ROWS, HEADS, CHANNELS), EVERY)
    assert max(asked) <= 16 and sum(asked) == 2 * ROWS
