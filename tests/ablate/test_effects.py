"""Oracles 4 to 7: drop = mask, cost, a planted token, and it fired."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Knockout, NoRope, Random, Reduce, edvt, layer
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.models.video_model import VideoModel
from tests.ablate.cases import ACTIVE
from tests.tiny import example

TOLERANCE = 1e-5

Pair = tuple[VideoModel, VideoModel]


@dataclass(frozen=True)
class Planted(Score):
    """Scores that name the tokens to keep."""

    best: tuple[int, ...] = ()

    def score(self, c: Candidates) -> torch.Tensor:
        return torch.as_tensor(np.isin(c.position, self.best)).float()


def _fastv(candidates: int, keep: float) -> int:
    """N - round(N R), R as it is written and not as a float holds it."""
    return candidates - round(candidates * (1 - Fraction(str(keep))))


@pytest.mark.parametrize("one", [a for a in ACTIVE if isinstance(a, Reduce)], ids=str)
def test_dropping_is_masking(model: VideoModel, one: Reduce) -> None:
    x = example(model, answer="red")
    run = model.run(x, ablate=[one])
    gone = np.flatnonzero(~run.kept.values[-1])
    others = np.setdiff1d(np.arange(len(x.layout)), gone)
    mask = Knockout((gone.tolist(), others.tolist()), layers=range(one.at.k, model.n_layers))
    masked = model.run(x, ablate=[mask])
    np.testing.assert_allclose(run.logits, masked.logits, rtol=0, atol=TOLERANCE)
    y = example(model)
    decoded = model.generate(y, ablate=[one], max_new_tokens=5)
    gone = np.flatnonzero(~decoded.kept.values[-1, : len(y.layout)]).tolist()
    seeing = y.layout.select("video + newline")
    masks = [
        Knockout((gone, into), layers=range(one.at.k, model.n_layers))
        for into in ("text", np.setdiff1d(seeing, gone).tolist())
    ]
    masked = model.generate(y, ablate=masks, max_new_tokens=5)
    assert masked.meta["generated"] == decoded.meta["generated"]
    np.testing.assert_allclose(decoded.logits, masked.logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("one", [a for a in ACTIVE if isinstance(a, Reduce)], ids=str)
def test_lengths_caches_and_macs_are_the_prediction(pair: Pair, one: Reduce) -> None:
    model, x = pair[0], example(pair[0])
    n, candidates = len(x.layout), len(x.layout.select(one.of))
    kept = one.keep_tokens if one.keep is None else _fastv(candidates, one.keep)
    expected = [
        n if number < one.at.k else n - candidates + kept for number in range(model.n_layers)
    ]
    rows: list[int] = []
    macs = [0]
    handles = [
        each.mlp.register_forward_hook(lambda *a: rows.append(a[1][0].shape[1]))
        for each in model.layers
    ]
    for each in model.layers.modules():
        if isinstance(each, torch.nn.Linear):
            handles.append(
                each.register_forward_hook(
                    lambda m, a, _: macs.append(a[0][0].numel() * m.out_features)
                )
            )
    run = model.run(x, ablate=[one])
    for handle in handles:
        handle.remove()
    attention = sum(2 * length**2 * model.n_heads * model.head_dim for length in expected)
    assert list(run.cost.length) == rows == expected == run.kept.values.sum(1).tolist()
    assert run.cost.kv_length == run.cost.length
    assert run.cost.macs == sum(macs) + attention < run.cost.macs_full
    d = model.width
    assert run.cost.macs_fastv == sum(8 * n * d * d + 2 * n * n * d for n in expected)
    assert run.cost.macs_full == model.run(x).cost.macs
    gen = model.generate(x, ablate=[one], max_new_tokens=4)
    inputs = {name: value for name, value in x.inputs.items() if name != "position_ids"}
    with model.ablated(x, [one]) as hf:
        out = hf.generate(**inputs, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
    sizes = [each.keys.shape[2] for each in out.past_key_values.layers]
    assert list(gen.cost.kv_length) == sizes == [length + 3 for length in expected]
    assert list(gen.cost.length) == expected and gen.cost.macs == run.cost.macs


def test_knockout_and_no_rope_cost_what_the_model_costs(tiny: VideoModel) -> None:
    x = example(tiny)
    for one in (edvt(), Knockout()):
        cost = tiny.run(x, ablate=[one]).cost
        assert cost.macs == cost.macs_full and cost.length == (len(x.layout),) * 4


@pytest.mark.parametrize("k", [0, 2])
def test_one_token_that_carries_the_video_is_kept_or_lost(model: VideoModel, k: int) -> None:
    x = example(model, answer="red")
    video = x.layout.select("video").tolist()
    rest = x.layout.select("all - video").tolist()
    carrier = video[len(video) // 2]
    others = [p for p in video if p != carrier]
    alone = Knockout((others, [*rest, carrier]))  # only the carrier is seen
    only = model.run(x, ablate=[alone]).logits
    blind = model.run(x, ablate=[Knockout((video, rest))]).logits
    at = layer(k)
    first = [alone] if k else []  # at layer 0 the others are gone before they could be cut
    keep = model.run(x, ablate=[*first, Reduce(at=at, score=Planted((carrier,)), keep_tokens=1)])
    np.testing.assert_allclose(keep.logits, only, rtol=0, atol=TOLERANCE)
    lose = model.run(
        x, ablate=[alone, Reduce(at=at, score=Planted(tuple(others)), keep_tokens=len(others))]
    )
    assert np.abs(lose.logits - only).max() > 1e-2
    if k == 0:
        np.testing.assert_allclose(lose.logits, blind, rtol=0, atol=TOLERANCE)
    assert np.abs(blind - only).max() > 1e-2


def test_what_did_not_fire_is_an_error(tiny: VideoModel) -> None:
    x = example(tiny)
    gone = Reduce(at=layer(0), score=Random(), keep=0.0, of="frame 1")
    for late in (
        Knockout("frame 1 -> last"),
        NoRope("frame 1 -> text"),
        Reduce(keep_tokens=0, of="frame 1"),
    ):
        with pytest.raises(ProbeError, match="did not fire") as error:
            tiny.run(x, ablate=[gone, late])
        assert str(late) in str(error.value) and "\n" not in str(error.value)
        with pytest.raises(ProbeError, match="did not fire"):
            tiny.generate(x, ablate=[gone, late], max_new_tokens=2)
    late = Knockout(["frame 2 -> last", "frame 1 -> last"])
    with pytest.raises(ProbeError, match="edge 1 met no token"):
        tiny.run(x, ablate=[gone, late])
    early = Knockout("frame 1 -> last", layers=[0, 1])
    reduced = Reduce(at=layer(2), score=Random(), keep=0.0, of="frame 1")
    tiny.run(x, ablate=[reduced, early])  # fires before the tokens are gone
