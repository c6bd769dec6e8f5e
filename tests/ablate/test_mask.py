"""Masks of other shapes are the dense masks that they say they are."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Knockout, Reduce, Uniform, layer
from probe.ablate.mask import Mask
from probe.ablate.recipes.masks import visual_blackout, yopo_neighbour
from probe.ablate.recipes.rotary import tc_llava
from probe.ablate.rope import Rope
from probe.capture import Activations, AttentionMass, AttentionRows
from probe.engine import forward, generate
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.ablate.dense_edges import Layer, decode
from tests.families import models
from tests.families.masks import NEVER
from tests.models import test_decoders as decoders
from tests.tiny import clip, example, picture

TOLERANCE = 1e-5
NAMES = ["llava_onevision", "qwen2_5_vl", "qwen3_vl", "internvl", "llava_next_video", "molmo2"]
ACTIVE = [
    Mask("neighbour", radius=0),
    Mask("neighbour", radius=1, frames=1, layers=[0, 2]),
    Mask("neighbour", radius=1, frames=1, causal="replace"),
    Mask("frame_causal"),
    Mask("frame_causal", layers=[1]),
    Mask("blackout", layers=[1, 2]),
    Mask("window", frames=1),
    Mask("window", frames=0, queries="text"),
    Mask("window", frames=1, queries="all", layers=[2]),
]


def edges(x: Example, one: Mask) -> tuple[np.ndarray, np.ndarray]:
    """(hidden, shown) [query, key] of a shape, edge by edge."""
    layout, n = x.layout, len(x.layout)
    role, visual, group = layout.role.tolist(), layout.visual.tolist(), layout.group.tolist()
    hidden, shown = np.zeros((2, n, n), bool)
    text = set(layout.select("text").tolist())
    queries = set(layout.select(one.queries).tolist())
    in_frame = [role[p] == "image" or (group[p] >= 0 and role[p] != "timestamp") for p in range(n)]
    for q in range(n):
        times = [group[p] for p in range(q + 1) if in_frame[p] and group[p] >= 0]
        now = group[q] if in_frame[q] and group[q] >= 0 else max(times, default=-1)
        for k in range(n):
            apart = [abs(int(axis[q]) - int(axis[k])) for axis in (layout.row, layout.col)]
            both = all(role[p] in ("video", "image") for p in (q, k))
            near = both and visual[q] == visual[k] and abs(group[q] - group[k]) <= one.frames
            near = near and max(apart) <= one.radius
            same = in_frame[q] and in_frame[k] and visual[q] == visual[k] and group[q] == group[k]
            if one.shape == "neighbour":
                hidden[q, k] = both and not near
                shown[q, k] = near and k > q and one.causal == "replace"
            elif one.shape == "frame_causal":
                shown[q, k] = same and k > q
            elif one.shape == "blackout":
                hidden[q, k] = q in text and k not in text
            elif in_frame[k] and group[k] >= 0:
                hidden[q, k] = q in queries and abs(now - group[k]) > one.frames
    return hidden, shown


@contextmanager
def masked(model: VideoModel, tables: dict[int, tuple[np.ndarray, np.ndarray]]):
    """Masks (hidden, shown) of some layers in plain transformers, over the layer's own."""
    undo = []
    for number, (hidden, shown) in tables.items():

        def change(module: Any, args: tuple, kwargs: dict, hidden=hidden, shown=shown):
            own = kwargs.get("attention_mask")
            n = len(hidden)
            if own is None:
                seen = torch.ones(n, n, dtype=torch.bool).tril()
            else:
                seen = own[0, 0] if own.dtype == torch.bool else own[0, 0] > NEVER / 2
            seen = (seen | torch.as_tensor(shown)) & ~torch.as_tensor(hidden)
            mask = torch.zeros(1, 1, n, n).masked_fill_(~seen, NEVER)
            return args, kwargs | {"attention_mask": mask}

        undo.append(model.layers[number].register_forward_pre_hook(change, with_kwargs=True))
    try:
        yield
    finally:
        for handle in undo:
            handle.remove()


def numbers(model: VideoModel, one: Any) -> list[int]:
    return list(range(model.n_layers)) if one.layers == "all" else list(one.layers)


def reference(model: VideoModel, x: Example, one: Mask) -> np.ndarray:
    """Logits of transformers with the mask in its layers."""
    tables = dict.fromkeys(numbers(model, one), edges(x, one))
    with masked(model, tables), torch.no_grad():
        return model.hf(**x.inputs, use_cache=False).logits[0, x.layout.readout].numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("one", ACTIVE, ids=str)
def test_shapes_are_dense_masks(name: str, one: Mask) -> None:
    model = models.build(name)
    x, y = models.example(model, answer="red"), models.example(model)
    if name == "molmo2" and one.shape == "frame_causal":  # its own mask shows whole frames
        with pytest.raises(ProbeError, match="the model's own mask is like this"):
            model.run(x, ablate=[one])
        return
    run = model.run(x, ablate=[one])
    np.testing.assert_allclose(run.logits, reference(model, x, one), rtol=0, atol=TOLERANCE)
    assert np.abs(run.logits - model.run(x).logits).max() > 1e-4
    decoded = model.generate(y, ablate=[one], max_new_tokens=4)
    full = model.force(y, decoded.meta["generated"])
    expected = reference(model, full, one)
    np.testing.assert_allclose(decoded.logits, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("one", ACTIVE, ids=str)
def test_shapes_are_the_definition_and_so_is_their_full_path(
    pair: tuple[VideoModel, VideoModel], one: Mask
) -> None:
    for model in pair:
        one = replace(one, layers=[n for n in numbers(model, one) if n < model.n_layers])
        x = example(model, answer="red")
        hidden, shown = edges(x, one)
        layers = {n: Layer(hidden=hidden, shown=shown) for n in numbers(model, one)}
        expected = decode(model, x, layers)
        run = model.run(x, ablate=[one], logits="all")
        np.testing.assert_allclose(run.logits, expected, rtol=0, atol=TOLERANCE)
        forced = forward.run(model, x, ablations=[one], logits="all", force=True)
        np.testing.assert_allclose(forced.logits, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["sliding", "gemma2"])
@pytest.mark.parametrize("one", ACTIVE, ids=str)
def test_in_a_layer_with_a_window_or_a_cap(kind: str, one: Mask) -> None:
    model = decoders.build(kind)
    x, y = decoders.example(model, answer="red"), decoders.example(model)
    run = model.run(x, ablate=[one])
    np.testing.assert_allclose(run.logits, reference(model, x, one), rtol=0, atol=1e-4)
    decoded = model.generate(y, ablate=[one], max_new_tokens=4)
    full = model.force(y, decoded.meta["generated"])
    np.testing.assert_allclose(decoded.logits, reference(model, full, one), rtol=0, atol=1e-4)


@pytest.mark.parametrize("one", [ACTIVE[1], ACTIVE[3]], ids=str)
def test_captures_see_the_mask(tiny: VideoModel, one: Mask) -> None:
    x = example(tiny)
    hidden, shown = edges(x, one)
    causal = np.tril(np.ones_like(hidden))
    asked = [AttentionRows("all"), AttentionMass("tokens", "tokens")]
    data = tiny.run(x, asked, [one]).data
    for number in numbers(tiny, one):
        seen = (data.attention_rows.values[number] > 0).any(0)
        np.testing.assert_array_equal(seen, (causal | shown) & ~hidden)
    rows = data.attention_rows.values.sum(-1)
    np.testing.assert_allclose(rows, 1, rtol=0, atol=1e-5)
    np.testing.assert_allclose(data.attention_mass, data.attention_rows, rtol=0, atol=1e-5)


def neutral(x: Example) -> list[Mask]:
    rows, cols = x.layout.grid or (1, 1)
    far = 2 * max(rows, cols) - 1
    return [
        Mask("neighbour", radius=far, frames=len(x.layout.groups)),
        Mask("neighbour", radius=max(rows, cols) - 1, frames=len(x.layout.groups) - 1),
        Mask("window", frames=len(x.layout.groups), queries="all"),
    ]


@pytest.mark.parametrize("name", ["llava_onevision", "qwen3_vl"])
def test_neutral_is_bit_identical_and_so_nearly_is_its_full_path(name: str) -> None:
    model = models.build(name)
    x, y = models.example(model, answer="red"), models.example(model)
    run, gen = model.run(x), model.generate(y, max_new_tokens=4)
    for one in neutral(x):
        assert np.array_equal(model.run(x, ablate=[one]).logits, run.logits)
        found = model.generate(y, ablate=[one], max_new_tokens=4)
        assert np.array_equal(found.logits, gen.logits)
        forced = forward.run(model, x, ablations=[one], force=True)
        np.testing.assert_allclose(forced.logits, run.logits, rtol=0, atol=TOLERANCE)
        forced = generate.generate(model, y, ablations=[one], max_new_tokens=4, force=True)
        np.testing.assert_allclose(forced.logits, gen.logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("one", [*ACTIVE, Mask("blackout", frozen=True)], ids=str)
def test_text_only_is_bit_identical(tiny: VideoModel, one: Mask) -> None:
    x = example(tiny, None, answer="red")
    assert np.array_equal(tiny.run(x, ablate=[one]).logits, tiny.run(x).logits)


def test_one_token_a_frame_is_causal(tiny: VideoModel) -> None:
    model = models.build("perception_lm")
    x = models.example(model)
    one = replace(x.layout, group=np.where(x.layout.role == "video", np.arange(len(x.layout)), -1))
    y = replace(x, layout=one)  # every token a frame of its own
    assert np.array_equal(model.run(y, ablate=[Mask("frame_causal")]).logits, model.run(y).logits)
    assert not np.allclose(model.run(x, ablate=[Mask("frame_causal")]).logits, model.run(x).logits)


@pytest.mark.parametrize("shown", [clip(1), picture(40, 60)], ids=["clip", "picture"])
def test_one_frame_is_a_prefix(tiny: VideoModel, shown: Any) -> None:
    x = tiny.encode(shown, "What moves?", frames=None)
    role = "image" if x.layout.visuals[0].kind == "image" else "video"
    prefix = x.layout.select(role)
    seen = np.zeros((len(x.layout),) * 2, bool)
    seen[np.ix_(prefix, prefix)] = True
    layers = {n: Layer(shown=seen) for n in range(tiny.n_layers)}
    run = tiny.run(x, ablate=[Mask("frame_causal")], logits="all")
    np.testing.assert_allclose(run.logits, decode(tiny, x, layers), rtol=0, atol=TOLERANCE)
    assert np.abs(run.logits - tiny.run(x, logits="all").logits).max() > 1e-3


@pytest.mark.parametrize("ablate", [[Mask("frame_causal")], tc_llava()], ids=str)
def test_a_later_frame_changes_no_earlier_one(tiny: VideoModel, ablate: list) -> None:
    plain = clip(5)
    frames = plain.frames.copy()
    frames[3] = 255 - frames[3]
    x, y = (example(tiny, c) for c in (plain, replace(plain, frames=frames)))
    before, after = (
        tiny.run(z, [Activations(positions="all")], ablate).data.activations.values for z in (x, y)
    )
    changed = int(x.layout.select("frame 3")[0])
    np.testing.assert_array_equal(after[:, :changed], before[:, :changed])
    assert (np.abs(after - before)[1:, changed:].max(-1) > 1e-4).all()
    causal = [tiny.run(z, [Activations(positions="all")]).data.activations.values for z in (x, y)]
    assert np.abs(causal[0] - causal[1])[:, :changed].max() == 0


def test_blackout_everywhere_is_no_video_at_the_same_positions(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    text = x.layout.select("text")
    rest = x.layout.select("all - text").tolist()
    dark = tiny.run(x, ablate=[Mask("blackout")])
    cut = tiny.run(x, ablate=[Knockout((rest, text.tolist()))])
    np.testing.assert_allclose(dark.logits, cut.logits, rtol=0, atol=TOLERANCE)
    ids = {
        "inputs_embeds": tiny.decoder.embed_tokens(x.inputs["input_ids"][:, text]),
        "position_ids": x.inputs["position_ids"][:, text],
        "attention_mask": torch.ones(1, len(text), dtype=torch.long),
    }
    with torch.no_grad():
        alone = tiny.head(tiny.decoder(**ids, use_cache=False).last_hidden_state)[0].numpy()
    at = np.searchsorted(text, x.layout.readout)
    np.testing.assert_allclose(dark.logits, alone[at], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
def test_frozen_tokens_pass_by_and_nobody_reads_them(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    frozen, going = Mask("blackout", [1, 2], frozen=True), Mask("blackout", [1, 2])
    text, rest = x.layout.select("text"), x.layout.select("all - text")
    stream = [
        model.run(x, [Activations(positions="all")], [one]).data.activations.values
        for one in (frozen, going)
    ]
    np.testing.assert_allclose(stream[0][:4, text], stream[1][:4, text], rtol=0, atol=TOLERANCE)
    assert np.isnan(stream[0][1:3, rest]).all()
    if name != "qwen3_vl":  # features are added again after its first layers
        np.testing.assert_array_equal(stream[0][3, rest], stream[1][1, rest])
    assert np.abs(stream[1][3, rest] - stream[1][1, rest]).max() > 1e-2
    decoded = model.generate(x, ablate=[frozen], max_new_tokens=4)
    again = model.run(model.force(x, decoded.meta["generated"]), ablate=[frozen])
    np.testing.assert_allclose(decoded.logits, again.logits, rtol=0, atol=TOLERANCE)
    lengths = [len(x.layout), len(text), len(text), len(x.layout)]
    assert list(decoded.cost.length) == lengths
    assert list(model.generate(x, ablate=[going], max_new_tokens=2).cost.length) == (
        [len(x.layout)] * 4
    )
    # In the last layers nothing reads what the visual stream has become.
    ends = [model.run(x, ablate=[replace(one, layers=[2, 3])]).logits for one in (frozen, going)]
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=TOLERANCE)


def test_masks_with_what_else_there_is(tiny: VideoModel) -> None:
    x = example(tiny)
    for several in (
        [Reduce(at=layer(1), score=Uniform(), keep=0.5), Mask("neighbour", frames=2)],
        [Mask("frame_causal"), Knockout("frame 1 -> video"), Rope(time=1)],
        [yopo_neighbour(), Mask("frame_causal")],
        [visual_blackout([2]), Mask("window", frames=2)],
    ):
        decoded = tiny.generate(x, ablate=several, max_new_tokens=4)
        again = tiny.run(tiny.force(x, decoded.meta["generated"]), ablate=several)
        np.testing.assert_allclose(decoded.logits, again.logits, rtol=0, atol=TOLERANCE)
    rows = tiny.run(x, [AttentionRows("all")], [Mask("frame_causal"), Knockout("frame 1 -> video")])
    inside = x.layout.select("frame 1")
    assert (rows.data.attention_rows.values[..., inside[:, None], inside] == 0).all()


REFUSED: list[tuple[Mask, str]] = [
    (Mask("round"), 'shape="round"; there are neighbour, frame_causal, blackout, window'),
    (Mask(radius=-1), "radius=-1; it is a whole number"),
    (Mask("window", frames=-2), "frames=-2; it is a whole number"),
    (Mask(causal="never"), 'causal="never"; it is "keep" or "replace"'),
    (Mask("window", causal="replace"), 'causal="replace" is for'),
    (Mask(frozen=True), 'frozen=True is for shape="blackout"'),
    (Mask(layers=[4]), "layer 4 does not exist"),
    (Mask("window", queries="nothing"), '"nothing" is not known'),
]


@pytest.mark.parametrize(("one", "message"), REFUSED, ids=str)
def test_refused_before_anything_runs(tiny: VideoModel, one: Mask, message: str) -> None:
    with pytest.raises(ProbeError, match=message) as error:
        tiny.run(example(tiny), ablate=[one])
    assert "\n" not in str(error.value)


def test_tokens_without_a_place_have_no_neighbours() -> None:
    model = models.build("instructblipvideo")
    x = models.example(model)
    with pytest.raises(ProbeError, match="have no place in the frame"):
        model.run(x, ablate=[Mask()])
    assert not np.allclose(model.run(x, ablate=[Mask("window")]).logits, model.run(x).logits)


def test_what_did_not_fire_is_an_error(tiny: VideoModel) -> None:
    x = example(tiny)
    gone = Reduce(at=layer(0), score=Uniform(), keep=0.0, of="video")
    for one in (Mask(), Mask("frame_causal"), Mask("window")):
        with pytest.raises(ProbeError, match="did not fire"):
            tiny.run(x, ablate=[gone, one])
        with pytest.raises(ProbeError, match="did not fire"):
            tiny.generate(x, ablate=[gone, one], max_new_tokens=2)


def test_what_a_sweep_may_reuse(tiny: VideoModel) -> None:
    from probe.engine.session import Session

    x = example(tiny)
    for one, where in (
        (Mask("frame_causal", layers=[2]), x.layout.select("video")[0]),
        (Mask(radius=0, layers=[1, 3]), x.layout.select("video")[1]),
        (Mask("blackout", layers=[1]), x.layout.select("newline")[0] + 1),
        (Mask("blackout", layers=[1], frozen=True), x.layout.select("video")[0]),
    ):
        session = Session(tiny, x, (), [one])
        found = one.affects(session, session.ablations[0][1])
        assert found == (numbers(tiny, one)[0], where)
        plain, changed = (tiny.run(x, [Activations(positions="all")], a).data.activations.values
                          for a in ([], [one]))  # fmt: skip
        passed = np.isnan(changed)
        assert passed.any() == one.frozen
        changed[passed] = plain[passed]
        np.testing.assert_array_equal(changed[: found[0] + 1], plain[: found[0] + 1])
        np.testing.assert_allclose(changed[:, : found[1]], plain[:, : found[1]], atol=1e-6)
        assert np.abs(changed - plain)[found[0] + 1, found[1]].max() > 1e-5
