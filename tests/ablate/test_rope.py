"""Rope: positions made anew are those that transformers is given by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Knockout, NoRope, Reduce, Uniform, layer
from probe.ablate.recipes.rotary import edvt, intp_rope, tc_llava
from probe.ablate.rope import Rope
from probe.ablate.rope_ids import frame_of, time_index
from probe.engine import forward, generate
from probe.models.encode import Example
from probe.models.loading import load
from probe.models.video_model import VideoModel
from probe.spec import resolve_layers
from tests import tiny as tiny_models
from tests.ablate.dense_edges import Layer, decode
from tests.ablate.test_edges import scores
from tests.families import models
from tests.tiny import example

TOLERANCE = 1e-5
NAMES = ["llava_onevision", "qwen2_5_vl", "qwen3_vl"]
EVERY = [
    Rope(time=1),
    Rope(time=0.25, offset=3.5),
    Rope(compress=4),
    Rope(constant="all"),
    Rope(constant="all", of="video"),
    Rope(offset=-6, layers=[1, 2]),
    Rope(ntk=4),
    Rope(compress=2, time=1, ntk=2, layers=[0, 3]),
]
AXES = [
    Rope(reindex=True),
    Rope(constant="time"),
    Rope(constant="row"),
    Rope(constant="col", layers=[0, 1]),
]


def by_hand(x: Example, one: Rope, ids: np.ndarray) -> np.ndarray:
    """New ids [axis, position], token by token."""
    layout, n = x.layout, len(x.layout)
    visual = [role in ("video", "image", "cls") for role in layout.role]
    now = ids.astype(float).copy()
    if one.reindex:
        now[:] = now[:, :1] + np.arange(n)
    if one.compress != 1:
        old, new = now.copy(), now.copy()
        last_old = last_new = old[:, 0].max() - 1  # id of the last text token, then and now
        for p in range(n):
            if visual[p]:
                new[:, p] = last_new + (old[:, p] - last_old) / one.compress
            else:
                run = p > 0 and visual[p - 1]
                step = old[:, p] - last_old
                new[:, p] = last_new + ((step - 1) / one.compress + 1 if run else step)
                last_old, last_new = old[:, p].max(), new[:, p].max()
        now = new
    if one.constant is not None:
        chosen = set(layout.select(one.of).tolist())
        axes = slice(None) if one.constant == "all" else ["time", "row", "col"].index(one.constant)
        fixed = now.copy()
        for p in range(1, n):
            if p in chosen and p - 1 in chosen:
                fixed[axes, p] = fixed[axes, p - 1]
        now = fixed
    if one.time:
        time, seen = -1, {}
        for p in range(n):
            frame = (layout.visual[p], layout.group[p])
            if not visual[p] or frame not in seen:
                time += 1
            if visual[p]:
                seen.setdefault(frame, time)
            now[:, p] += one.time * (seen[frame] if visual[p] else time)
    last = max(p for p in range(n) if visual[p])
    now[:, last + 1 :] += one.offset
    return now


def reference(model: VideoModel, x: Example, one: Rope) -> np.ndarray:
    """Logits of transformers, with tables of the new ids in the layers concerned."""
    own = x.inputs["position_ids"]
    new = by_hand(x, one, own.flatten(0, -2).numpy())
    ids = torch.tensor(new, dtype=torch.float32).view(own.shape)
    rotary: Any = type(model.decoder.rotary_emb)(model.hf.config.get_text_config())
    pairs = len(rotary.inv_freq)
    rotary.inv_freq *= one.ntk ** (-torch.arange(pairs) / (pairs - 1))
    tables = rotary(torch.zeros(1), ids)
    numbers = resolve_layers(one.layers, model.n_layers, "rope")
    undo = [
        model.layers[number].register_forward_pre_hook(
            lambda _, args, kwargs: (args, kwargs | {"position_embeddings": tables}),
            with_kwargs=True,
        )
        for number in numbers
    ]
    with torch.no_grad():
        out = model.hf(**x.inputs, use_cache=False).logits[0].numpy()
    for handle in undo:
        handle.remove()
    return out[x.layout.readout]


@pytest.mark.parametrize(
    ("name", "one"),
    [(n, one) for n in NAMES for one in (EVERY if n == NAMES[0] else [*EVERY, *AXES])],
    ids=str,
)
def test_positions_are_those_given_by_hand(name: str, one: Rope) -> None:
    model = models.build(name)
    x = models.example(model, answer="red")
    expected = reference(model, x, one)
    run = model.run(x, ablate=[one])
    np.testing.assert_allclose(run.logits, expected, rtol=0, atol=TOLERANCE)
    assert np.abs(run.logits - model.run(x).logits).max() > 1e-3
    assert run.cost.length == model.run(x).cost.length
    y = models.example(model)
    decoded = model.generate(y, ablate=[one], max_new_tokens=5)
    again = model.run(model.force(y, decoded.meta["generated"]), ablate=[one])
    np.testing.assert_allclose(decoded.logits, again.logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("one", EVERY, ids=str)
def test_positions_are_the_definition(tiny: VideoModel, one: Rope) -> None:
    x = example(tiny, answer="red")
    ids = by_hand(x, one, x.inputs["position_ids"].numpy())
    numbers = resolve_layers(one.layers, 4, "rope")
    channels = tiny.head_dim
    base = one.ntk ** (channels / (channels - 2))
    dense = decode(tiny, x, {n: Layer(ids=ids, base=base) for n in numbers})
    run = tiny.run(x, ablate=[one], logits="all")
    np.testing.assert_allclose(run.logits, dense, rtol=0, atol=TOLERANCE)


def placed(model: VideoModel, x: Example, ablate: list, count: int) -> np.ndarray:
    """[axis, position]: ids that the decoder got in the prompt and in each later forward."""
    seen: list[np.ndarray] = []
    handle = model.decoder.rotary_emb.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(
            kwargs.get("position_ids", args[-1]).flatten(0, -2).numpy()
        ),
        with_kwargs=True,
    )
    model.generate(x, ablate=ablate, max_new_tokens=count)
    handle.remove()
    return np.concatenate(seen, axis=-1)


@pytest.mark.parametrize("name", NAMES)
def test_generated_tokens_go_on_at_two_positions_a_token(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    plain, dual = placed(model, x, [], 5), placed(model, x, [Rope(time=1)], 5)
    assert plain.shape == dual.shape == (len(plain), len(x.layout) + 4)
    assert (np.diff(plain[:, len(x.layout) - 2 :]) == 1).all()
    assert (np.diff(dual[:, len(x.layout) - 2 :]) == 2).all()
    half = placed(model, x, [Rope(time=0.5)], 5)
    assert (np.diff(half[:, len(x.layout) - 2 :]) == 1.5).all()


@pytest.mark.parametrize("name", models.NAMES)
def test_tokens_of_a_frame_share_a_time(name: str) -> None:
    x = models.example(models.build(name))
    frame, time = frame_of(x.layout), time_index(x.layout)
    assert len(np.unique(frame[frame >= 0])) == len(x.layout.groups)
    for number in range(len(x.layout.groups)):
        assert len(np.unique(time[frame == number])) == 1
    assert (frame[x.layout.role == "video"] >= 0).all() and (
        frame[x.layout.select("text")] < 0
    ).all()
    assert (np.diff(time[frame < 0]) >= 1).all() and time[0] == 0


def test_one_frame_has_the_visual_scores_it_had(tiny: VideoModel) -> None:
    x = example(tiny, 1)
    video = x.layout.select("video")
    plain, dual = (scores(tiny, x, ablate)[0] for ablate in ([], [Rope(time=1)]))
    inside = [part[:, video][..., video] for part in (dual, plain)]
    np.testing.assert_allclose(*inside, rtol=0, atol=1e-5)
    last = dual[:, x.layout.last, video] - plain[:, x.layout.last, video]
    assert np.abs(last).max() > 0.1


def test_text_without_rotation_does_not_see_an_offset(tiny: VideoModel) -> None:
    x = example(tiny)
    video, after = x.layout.select("video"), x.layout.select("newline")[0] + 1
    near, far, moved = (
        scores(tiny, x, ablate)[0][:, after:, video]
        for ablate in ([edvt()], [Rope(offset=50), edvt()], [Rope(offset=50)])
    )
    np.testing.assert_allclose(far, near, rtol=0, atol=1e-5)
    assert np.abs(moved - scores(tiny, x, [])[0][:, after:, video]).max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_two_calls_are_one(name: str) -> None:
    model = models.build(name)
    x = models.example(model, answer="red")
    pairs = [
        ([Rope(time=0.25), Rope(time=0.5)], Rope(time=0.75)),
        ([Rope(compress=2), Rope(offset=2)], Rope(compress=2, offset=2)),
        ([Rope(time=1), Rope(ntk=3)], Rope(time=1, ntk=3)),
        ([Rope(compress=2), Rope(compress=3)], Rope(compress=6)),
    ]
    for several, one in pairs:
        np.testing.assert_allclose(
            model.run(x, ablate=several).logits,
            model.run(x, ablate=[one]).logits,
            rtol=0,
            atol=TOLERANCE,
        )


NEUTRAL = [Rope(), Rope(time=0.0, compress=1, offset=0, ntk=1), Rope(layers=[1])]


@pytest.mark.parametrize("one", NEUTRAL, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_neutral(name: str, one: Rope) -> None:
    model = models.build(name)
    x, y = models.example(model, answer="red"), models.example(model)
    run, gen = model.run(x), model.generate(y, max_new_tokens=4)
    assert np.array_equal(model.run(x, ablate=[one]).logits, run.logits)
    assert np.array_equal(model.generate(y, ablate=[one], max_new_tokens=4).logits, gen.logits)
    forced = forward.run(model, x, ablations=[one], force=True)
    np.testing.assert_allclose(forced.logits, run.logits, rtol=0, atol=TOLERANCE)
    forced = generate.generate(model, y, ablations=[one], max_new_tokens=4, force=True)
    np.testing.assert_allclose(forced.logits, gen.logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("one", EVERY, ids=str)
def test_text_only_and_the_full_path(tiny: VideoModel, one: Rope) -> None:
    x, y = example(tiny, None, answer="red"), example(tiny, answer="red")
    assert np.array_equal(tiny.run(x, ablate=[one]).logits, tiny.run(x).logits)
    forced = forward.run(tiny, y, ablations=[one], force=True)
    run = tiny.run(y, ablate=[one])
    np.testing.assert_allclose(forced.logits, run.logits, rtol=0, atol=TOLERANCE)


def test_reindexing_one_axis_is_neutral(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    run = tiny.run(x, ablate=[Rope(reindex=True)])
    assert np.array_equal(run.logits, tiny.run(x).logits)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("axis", ["time", "row", "col"])
def test_an_axis_out_of_the_sequence_is_the_axis_out_of_every_edge(name: str, axis: str) -> None:
    model = models.build(name)
    x = models.example(model, answer="red")
    whole = model.run(x, ablate=[Rope(constant=axis)]).logits
    edges = model.run(x, ablate=[NoRope("all -> all", axis=axis)]).logits
    np.testing.assert_allclose(whole, edges, rtol=0, atol=2e-5)
    every = model.run(x, ablate=[Rope(constant="all")]).logits
    edges = model.run(x, ablate=[NoRope("all -> all")]).logits
    np.testing.assert_allclose(every, edges, rtol=0, atol=2e-5)


def test_a_larger_base_is_a_model_of_that_base() -> None:
    plain = tiny_models.build(seed=4)
    scale, channels = 4.0, plain.head_dim
    config = plain.hf.config.__class__(**plain.hf.config.to_dict())
    base = config.text_config.rope_parameters["rope_theta"]
    larger = base * scale ** (channels / (channels - 2))
    config.text_config.rope_parameters = {"rope_type": "default", "rope_theta": larger}
    hf = type(plain.hf)._from_config(config, dtype=torch.float32).eval()
    hf.load_state_dict(plain.hf.state_dict())
    hf.generation_config = plain.hf.generation_config
    other = load((hf, plain.processor))
    x, y = tiny_models.example(plain, answer="red"), tiny_models.example(plain)
    found = plain.run(x, ablate=[intp_rope(scale)])
    np.testing.assert_allclose(found.logits, other.run(x).logits, rtol=0, atol=TOLERANCE)
    found = plain.generate(y, ablate=[intp_rope(scale)], max_new_tokens=5)
    expected = other.generate(y, max_new_tokens=5)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=TOLERANCE)


def test_rope_with_what_else_there_is(tiny: VideoModel) -> None:
    x = example(tiny)
    for several in (
        [*tc_llava(), Reduce(at=layer(1), score=Uniform(), keep=0.5)],
        [Rope(compress=2), NoRope("video -> text", blend=0.5), Knockout("frame 1 -> text")],
        [Rope(ntk=2, layers=[1, 2]), NoRope("video -> text")],
        [Reduce(at=layer(2), score=Uniform(), keep=0.5, position="reindex"), Rope(ntk=2)],
    ):
        decoded = tiny.generate(x, ablate=several, max_new_tokens=4)
        full = tiny.force(x, decoded.meta["generated"])
        again = tiny.run(full, ablate=several)
        np.testing.assert_allclose(decoded.logits, again.logits, rtol=0, atol=TOLERANCE)


REFUSED: list[tuple[list, str]] = [
    ([Rope(compress=0)], "compress=0; it is above 0"),
    ([Rope(ntk=-1)], "ntk=-1; it is above 0"),
    ([Rope(time=float("nan"))], "time=nan is not finite"),
    ([Rope(constant="depth")], 'axis="depth"; there are time, row, col'),
    ([Rope(constant="time")], "have one axis"),
    ([Rope(time=1, layers=[9])], "layer 9 does not exist"),
    ([Rope(ntk=2), Rope(time=1, layers=[1])], "contradict each other: the second would undo"),
    ([Rope(ntk=2), NoRope(blend=0.5)], "contradict each other: the one scales positions"),
]


@pytest.mark.parametrize(("ablate", "message"), REFUSED, ids=str)
def test_refused_before_anything_runs(tiny: VideoModel, ablate: list, message: str) -> None:
    with pytest.raises(ProbeError, match=message) as error:
        tiny.run(example(tiny), ablate=ablate)
    assert "\n" not in str(error.value)


def test_a_model_that_ignores_its_positions_is_found_out() -> None:
    model = tiny_models.build(seed=5)
    x = tiny_models.example(model)
    ids = x.inputs["position_ids"]
    handle = model.decoder.rotary_emb.register_forward_hook(
        lambda module, args, output: module.forward(args[0], ids)
    )
    with pytest.raises(ProbeError, match="did not fire"):
        model.run(x, ablate=[Rope(time=1)])
    handle.remove()
    model.run(x, ablate=[Rope(time=1)])


def test_what_a_sweep_may_reuse(tiny: VideoModel) -> None:
    from probe.engine.session import Session

    x = example(tiny)
    video, last = int(x.layout.select("video")[0]), int(x.layout.select("video")[-1])
    for one, expected in (
        (Rope(offset=2), (0, last + 1)),
        (Rope(compress=2, layers=[2, 3]), (2, video)),
        (Rope(ntk=2, layers=[1]), (1, 0)),
        (Rope(time=1), (0, 1)),
    ):
        session = Session(tiny, x, (), [one])
        assert one.affects(session, session.ablations[0][1]) == expected
        changed = tiny.run(x, ablate=[one], logits="all").logits
        plain = tiny.run(x, logits="all").logits
        np.testing.assert_allclose(changed[: expected[1]], plain[: expected[1]], atol=1e-6)
        assert np.abs(changed[expected[1] :] - plain[expected[1] :]).max() > 1e-3


def test_positions_that_are_constant_already_are_neutral(tiny: VideoModel) -> None:
    x = example(tiny)
    ids = x.inputs["position_ids"] * 0 + 5
    same = replace(x, inputs=x.inputs | {"position_ids": ids})
    assert np.array_equal(
        tiny.run(same, ablate=[Rope(constant="all")]).logits, tiny.run(same).logits
    )
