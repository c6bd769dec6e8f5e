"""The tiled pass over every row, against the softmax of the dense scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.capture import key_groups
from probe.capture.sweep import Sweep, sweep
from probe.engine import call as engine_call
from probe.engine.call import AttentionCall

ROWS = 150
KINDS = ["causal", "bool mask", "additive mask", "nothing seen", "gaps", "cut", "unrotated", "cap"]


def make(kind: str, heads: int, kv_heads: int) -> AttentionCall:
    """One call of a layer, masked or edited in one of the ways that occur."""
    torch.manual_seed(0)
    causal = torch.ones(ROWS, ROWS, dtype=torch.bool).tril()
    mask = None
    if kind == "bool mask":
        mask = causal.clone()
        mask[1:, 0] = False
    if kind == "nothing seen":
        mask = causal.clone()
        mask[:5] = False
    if kind == "additive mask":
        mask = torch.zeros(ROWS, ROWS).masked_fill(~causal, torch.finfo(torch.float32).min)
    positions = np.arange(ROWS) * (2 if kind == "gaps" else 1)
    call = AttentionCall(
        layer=0,
        module=torch.nn.Identity(),
        query=3 * torch.randn(heads, ROWS, 16),
        key=torch.randn(kv_heads, ROWS, 16),
        value=torch.randn(kv_heads, ROWS, 16),
        mask=mask,
        scaling=0.25,
        positions=positions,
        key_positions=positions,
        causal=True,
        softcap=30.0 if kind == "cap" else None,
        unrotate=lambda x, _: x / 2,
    )
    rows, columns = torch.arange(100, 130), torch.arange(3, 20)
    if kind == "cut":
        call.cut(rows, columns)
    if kind == "unrotated":
        call.remove_rotation(rows, columns)
    return call


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (8, 1)])
def test_sweep_is_the_dense_softmax(kind, heads, kv_heads, monkeypatch) -> None:
    monkeypatch.setattr(engine_call, "TILE", 32)
    monkeypatch.setattr(key_groups, "RUN", 8)
    call = make(kind, heads, kv_heads)
    every = call.positions
    frames = {f"frame {number}": every[5 + 20 * number :][:20] for number in range(7)}
    mixed = {"odd": every[1::2], "all": every, "gone": every[-1:] + 9, "end": every[-3:]}
    want = Sweep(masses={"frames": frames, "mixed": mixed}, entropy=True)
    want.received = {"all": every, "half": every[75:]}
    found = sweep(call, want)
    dense = call.scores(torch.arange(ROWS)).softmax(-1)
    blind = dense[0].isnan().any(-1)
    assert bool(blind.any()) == (kind == "nothing seen")
    for name, groups in want.masses.items():
        for number, positions in enumerate(groups.values()):
            mass = dense[..., call.key_index(positions)].sum(-1)
            mass[:, blind] = float("nan")
            torch.testing.assert_close(
                found.mass[name][..., number], mass, rtol=0, atol=1e-5, equal_nan=True
            )
    entropy = -dense.xlogy(dense).sum(-1)
    torch.testing.assert_close(found.entropy, entropy, rtol=0, atol=1e-5, equal_nan=True)
    if not blind.any():
        for name, positions in want.received.items():
            received = dense[:, call.index(positions)].sum(1)
            torch.testing.assert_close(found.received[name], received, rtol=1e-5, atol=1e-5)
