"""BlindHeads against plain transformers: masks a head, zeroed values, edited heads' outputs."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.head_pruning import BlindHeads
from probe.ablate.knockout import Knockout
from probe.ablate.recipes.heads import visual_head_pruning, visual_ratio
from probe.capture import AttentionRows
from probe.engine import forward
from probe.engine.session import Session
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from probe.spec import from_json, parse
from tests.ablate import plain
from tests.ablate.plain import NAMES, Absent, named, show
from tests.tiny import dense, example

HEADS = [(1, 2), (2, 0), (2, 1)]


def masked(model: VideoModel, layer: int, heads: list[int], keys: np.ndarray, stack: ExitStack):
    """In one layer of the plain model these heads get a mask of their own that hides the keys."""

    def hook(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        x = args[0] if args else kwargs["hidden_states"]
        n = x.shape[1]
        mask = torch.full((n, n), torch.finfo(x.dtype).min).triu(1)
        mask = mask.expand(1, model.n_heads, n, n).clone()
        for head in heads:
            mask[0, head][:, torch.as_tensor(keys)] = torch.finfo(x.dtype).min
        return args, kwargs | {"attention_mask": mask}

    module = model.layers[layer].get_submodule(model.family.attention)
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    stack.callback(handle.remove)


@pytest.mark.parametrize("name", NAMES)
def test_with_renorm_it_is_a_mask_a_head(request: pytest.FixtureRequest, name: str) -> None:
    model = named(request, name)
    x = show(model, answer="red")
    with ExitStack() as stack:
        masked(model, 1, [2], x.layout.select("video"), stack)
        masked(model, 2, [0, 1], x.layout.select("video"), stack)
        expected = plain.logits(model, x)
    found = model.run(x, ablate=[BlindHeads(HEADS, renorm=True)]).logits
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.abs(found - model.run(x).logits).max() > 1e-3


def test_captures_see_what_renorm_cuts(tiny: VideoModel) -> None:
    x = example(tiny)
    video = x.layout.select("video")
    run = tiny.run(x, [AttentionRows("last")], [BlindHeads(HEADS, renorm=True)])
    seen = run.data.attention_rows.isel(query=0).values[..., video].sum(-1)
    assert all((seen[pair] == 0) == (pair in HEADS) for pair in np.ndindex(*seen.shape))
    np.testing.assert_allclose(run.data.attention_rows.sum("position").values, 1, atol=1e-6)


def test_all_heads_with_renorm_are_a_knockout(pair: tuple[VideoModel, VideoModel]) -> None:
    model = pair[0]
    x = example(model)
    pairs = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    cut = Knockout("video -> all")
    found = model.run(x, ablate=[BlindHeads(pairs, renorm=True)]).logits
    np.testing.assert_allclose(found, model.run(x, ablate=[cut]).logits, rtol=0, atol=1e-5)
    gen = model.generate(x, ablate=[BlindHeads(pairs, renorm=True)], max_new_tokens=4).logits
    cuts = [cut, Knockout("video -> text")]
    expected = model.generate(x, ablate=cuts, max_new_tokens=4).logits
    np.testing.assert_allclose(gen, expected, rtol=0, atol=1e-5)


def no_values(model: VideoModel, layer: int, head: int, keys: np.ndarray) -> Any:
    """In one layer of the plain model the keys' values are 0 for all heads that share a key head:
    their weights are what they were, and what they carry is nothing.
    """
    module = model.layers[layer].get_submodule(model.family.attention).v_proj
    kv = head // (model.n_heads // model.n_kv_heads)

    def change(y: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        y[torch.as_tensor(np.isin(rows, keys)), plain.columns(model, kv)] = 0
        return y

    return plain.changed(module, change)


@pytest.mark.parametrize("name", NAMES)
def test_without_renorm_the_values_are_gone(request: pytest.FixtureRequest, name: str) -> None:
    """All heads of a key head, in the prompt and in every step of generation."""
    model = named(request, name)
    x, y = show(model, answer="red"), show(model)
    video, shared = x.layout.select("video"), model.n_heads // model.n_kv_heads
    one = BlindHeads([(1, head) for head in range(shared, 2 * shared)])
    with no_values(model, 1, shared, video):
        expected = plain.logits(model, x)
    np.testing.assert_allclose(model.run(x, ablate=[one]).logits, expected, rtol=0, atol=1e-5)
    with no_values(model, 1, shared, video):
        expected = plain.generated(model, y)
    found = model.generate(y, ablate=[one], max_new_tokens=4).logits
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("queries", ["kept", "also"])
@pytest.mark.parametrize("name", NAMES)
def test_one_head_of_several_that_share_values(
    request: pytest.FixtureRequest, name: str, queries: str
) -> None:
    model = named(request, name)
    x = show(model, answer="red")
    video = x.layout.select("video")
    with no_values(model, 1, 2, video):
        blind = plain.record(model, x, model.output(1), inputs=True)
    only = plain.columns(model, 2)

    def change(y: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        y[:, only] = blind[:, only]
        if queries == "also":
            y[video, only] = 0
        return y

    with plain.given(model.output(1), change):
        expected = plain.logits(model, x)
    found = model.run(x, ablate=[BlindHeads([(1, 2)], queries=queries)]).logits
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("renorm", [False, True])
def test_decoding_is_computing_all_at_once(tiny: VideoModel, renorm: bool) -> None:
    x = example(tiny)
    one = BlindHeads(HEADS, renorm=renorm, queries="also")
    gen = tiny.generate(x, ablate=[one], max_new_tokens=5)
    run = tiny.run(tiny.force(x, gen.meta["generated"]), ablate=[one])
    np.testing.assert_allclose(gen.logits, run.logits, rtol=0, atol=1e-5)


def test_neutral_text_only_and_the_full_path(pair: tuple[VideoModel, VideoModel]) -> None:
    model = pair[0]
    x, text = example(model), example(model, None)
    run, gen = model.run(x).logits, model.generate(x, max_new_tokens=3).logits
    for one in (BlindHeads(), BlindHeads(HEADS, keys=[])):
        assert np.array_equal(model.run(x, ablate=[one]).logits, run)
        assert np.array_equal(model.generate(x, ablate=[one], max_new_tokens=3).logits, gen)
    forced = forward.run(model, x, ablations=[BlindHeads()], force=True).logits
    np.testing.assert_allclose(forced, run, rtol=0, atol=1e-5)
    for renorm in (False, True):
        one = BlindHeads(HEADS, renorm=renorm)
        assert np.array_equal(model.run(text, ablate=[one]).logits, model.run(text).logits)
        forced = forward.run(model, x, ablations=[one], force=True).logits
        np.testing.assert_allclose(forced, model.run(x, ablate=[one]).logits, rtol=0, atol=1e-5)
    session = Session(model, x, (), [BlindHeads(HEADS)])
    row = x.layout.select("video")[0]
    assert session.ablations[0][0].affects(session, session.ablations[0][1]) == (1, row)


def by_hand(eager: VideoModel, x: Example) -> np.ndarray:
    """mass(text -> video) / mass(text -> text) from transformers' own maps."""
    maps, text = dense(eager, x), x.layout.select("text")
    video = x.layout.select("video")
    maps = maps[:, :, text[text > video[0]]]
    return maps[..., video].sum((-1, -2)) / maps[..., text].sum((-1, -2))


def test_calibration_is_a_count_by_hand(pair: tuple[VideoModel, VideoModel]) -> None:
    model, eager = pair
    examples = [show(model, seed=seed) for seed in range(5)]
    ratios = np.stack([by_hand(eager, x) for x in examples])
    np.testing.assert_allclose(visual_ratio(model, examples[0]), ratios[0], rtol=1e-4)
    shape = (model.n_layers, model.n_heads)
    for theta in np.quantile(ratios, [0.2, 0.5, 0.9]):
        expected = [
            (layer, head)
            for layer, head in np.ndindex(*shape)
            if layer >= 2 and sum(r[layer, head] < theta for r in ratios) > 2
        ]
        found = visual_head_pruning(model, examples, theta=float(theta))
        assert found.heads == tuple(expected)
    for left in (1, 2, model.n_heads):
        found = visual_head_pruning(model, examples, left=left, variant="code")
        assert len(found.heads) == (model.n_heads - left) * (model.n_layers - 2)
        assert found.queries == "also" and all(layer >= 2 for layer, _ in found.heads)
        level = np.sort(ratios, axis=0)[2]  # the third smallest of five
        gone = {tuple(pair) for pair in found.heads}
        kept = [p for p in np.ndindex(*shape) if p[0] >= 2 and p not in gone]
        assert not gone or not kept or max(level[p] for p in gone) < min(level[p] for p in kept)
    assert visual_head_pruning(model, examples, theta=0.0).heads == ()


def test_what_did_not_fire_and_what_is_refused(tiny: VideoModel) -> None:
    x = example(tiny)
    with pytest.raises(ProbeError, match="no head of layer 2 saw any of the keys"):
        tiny.run(x, ablate=[Absent(2), BlindHeads(HEADS)])
    for renorm in (False, True):
        blind = BlindHeads(HEADS, renorm=renorm)
        with pytest.raises(ProbeError, match="no head of layer 1 saw any of the keys"):
            tiny.run(x, ablate=[Knockout("video -> all", layers=[1]), blind])
    for one, message in [
        (BlindHeads([(1, 4)]), "head 4 does not exist"),
        (BlindHeads([(4, 1)]), "layer 4 does not exist"),
        (BlindHeads([3, 4]), r"heads 3; give pairs \(layer, head\)"),
        (BlindHeads(HEADS, queries="all"), 'queries="all"; there are kept, also'),
        (BlindHeads(HEADS, keys="frame 7"), "frames 0 to 4"),
    ]:
        with pytest.raises(ProbeError, match=message):
            tiny.run(x, ablate=[one])
    for how, message in [
        ({}, "exactly one of theta= and left="),
        ({"theta": 0.1, "left": 3}, "exactly one"),
        ({"left": 5}, "left=5; this model has 4 heads"),
        ({"theta": 0.1, "share": 1.0}, "share=1.0"),
        ({"theta": 0.1, "variant": "draft"}, 'variant="draft"'),
    ]:
        with pytest.raises(ProbeError, match=message):
            visual_head_pruning(tiny, [x], **how)
    with pytest.raises(ProbeError, match="no calibration example"):
        visual_head_pruning(tiny, [], theta=0.1)
    with pytest.raises(ProbeError, match="no clip"):
        visual_head_pruning(tiny, [example(tiny, None)], theta=0.1)


def test_as_json_and_text() -> None:
    one, names = BlindHeads(HEADS, renorm=True, queries="also"), {"BlindHeads": BlindHeads}
    assert from_json(json.loads(json.dumps(one.to_json())), names) == one
    assert parse(str(one), names) == [one] and len({one, BlindHeads(HEADS)}) == 2
