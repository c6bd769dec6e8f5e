"""Knockout and NoRope change the edges they name and no others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from probe import ProbeError, ablate
from probe.ablate import Knockout, NoRope
from probe.ablate.knockout import windows
from probe.ablate.mask import Mask
from probe.ablate.recipes.masks import visual_blackout
from probe.ablate.recipes.rotary import edvt
from probe.capture import AttentionRows, Capture
from probe.engine import forward, generate
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from probe.spec import resolve_layers
from tests.ablate.dense_edges import Layer, decode
from tests.decoder import pairs
from tests.families import models
from tests.models import test_decoders as decoders
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


# -- blend and axes ------------------------------------------------------------------------

AXES = ("time", "row", "col")
PARTLY = [
    NoRope("video -> text", blend=0.5),
    NoRope(["frame 1 -> video", "question -> last"], blend=0.25, layers=[0, 2]),
    edvt(blend=0.75, video_video="none"),
]
OF_AN_AXIS = [NoRope("video -> text", axis=a, blend=b) for a in AXES for b in (0.0, 0.5)]


def definition(model: VideoModel, x: Example, one: NoRope) -> np.ndarray:
    ids = x.inputs["position_ids"].flatten(0, -2).double().numpy()
    part = ids.copy()
    part[slice(None) if one.axis is None else AXES.index(one.axis)] *= one.blend
    table = np.zeros((len(x.layout),) * 2, bool)
    for source, destination in x.layout.edges(one.edges):
        table |= pairs(x, source, destination)
    numbers = resolve_layers(one.layers, model.n_layers, "no_rope")
    layers = {n: Layer(scored=[(table, part, part)]) for n in numbers}
    return decode(model, x, layers)


@pytest.mark.parametrize(
    ("name", "one"),
    [(n, one) for n in ("llava_onevision", "qwen2_5_vl") for one in PARTLY]
    + [("qwen2_5_vl", one) for one in OF_AN_AXIS],
    ids=str,
)
def test_part_of_the_positions_is_the_definition(name: str, one: NoRope) -> None:
    model = models.build(name)
    x = models.example(model)
    decoded = model.generate(x, ablate=[one], max_new_tokens=4)
    full = model.force(x, decoded.meta["generated"])
    run = model.run(full, ablate=[one], logits="all")
    expected = definition(model, full, one)
    np.testing.assert_allclose(run.logits, expected, rtol=0, atol=2e-5)
    np.testing.assert_allclose(decoded.logits, expected[full.layout.readout], rtol=0, atol=2e-5)
    assert np.abs(run.logits - model.run(full, logits="all").logits).max() > 1e-3


def test_a_blend_goes_from_none_to_all(pair: Pair) -> None:
    for model in pair:
        x = example(model, answer="red")
        plain, none = model.run(x).logits, model.run(x, ablate=[edvt()]).logits
        assert np.array_equal(model.run(x, ablate=[edvt(blend=1)]).logits, plain)
        forced = forward.run(model, x, ablations=[edvt(blend=1)], force=True)
        np.testing.assert_allclose(forced.logits, plain, rtol=0, atol=1e-5)
        near, far = (model.run(x, ablate=[edvt(blend=b)]).logits for b in (1e-4, 1 - 1e-4))
        np.testing.assert_allclose(near, none, rtol=0, atol=1e-2)
        np.testing.assert_allclose(far, plain, rtol=0, atol=1e-2)
        assert np.abs(none - plain).max() > 0.1
        y = example(model)
        gen = model.generate(y, max_new_tokens=4)
        found = model.generate(y, ablate=[edvt(blend=1)], max_new_tokens=4)
        assert np.array_equal(found.logits, gen.logits)
        found = generate.generate(model, y, ablations=[edvt(blend=1)], max_new_tokens=4, force=True)
        np.testing.assert_allclose(found.logits, gen.logits, rtol=0, atol=1e-5)


def test_edvt_with_the_video_unrotated_too(tiny: VideoModel) -> None:
    x = example(tiny)
    none = tiny.run(x, ablate=[edvt(video_video="none")]).logits
    both = tiny.run(x, ablate=[NoRope("video -> text"), NoRope("video -> video")]).logits
    np.testing.assert_array_equal(none, both)
    assert np.abs(none - tiny.run(x, ablate=[edvt()]).logits).max() > 1e-3


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (NoRope(blend=1.5), "blend=1.5; it is between 0"),
        (NoRope(axis="time"), "have one axis"),
        (NoRope(axis="depth"), 'axis="depth"; there are time, row, col'),
    ],
    ids=str,
)
def test_wrong_positions_are_refused(tiny: VideoModel, one: NoRope, message: str) -> None:
    with pytest.raises(ProbeError, match=message) as error:
        tiny.run(example(tiny), ablate=[one])
    assert "\n" not in str(error.value)
    with pytest.raises(ProbeError, match='video_video="all"; it is "rope" or "none"'):
        edvt(video_video="all")


# -- single heads, random controls and windows -----------------------------------------------


def seen(model: VideoModel, x: Example, one: Knockout) -> np.ndarray:
    """[layer, query, key], True where some weight is."""
    return (model.run(x, [AttentionRows("all")], [one]).data.attention_rows.values > 0).any(1)


@pytest.mark.parametrize("heads", [1, [0, 3]], ids=str)
def test_single_heads_are_cut(pair: Pair, heads: int | list[int]) -> None:
    for model in pair:
        x = example(model)
        one = Knockout("video -> text", layers=[0, 2], heads=heads)
        decoded = model.generate(x, ablate=[one], max_new_tokens=4)
        full = model.force(x, decoded.meta["generated"])
        hidden = np.zeros((model.n_heads, len(full.layout), len(full.layout)), bool)
        for source, destination in full.layout.edges(one.edges):
            hidden[heads] |= pairs(full, source, destination)
        layers = {n: Layer(hidden=hidden) for n in (0, 2)}
        expected = decode(model, full, layers)[full.layout.readout]
        np.testing.assert_allclose(decoded.logits, expected, rtol=0, atol=1e-5)
        run = model.run(full, ablate=[one])
        np.testing.assert_allclose(run.logits, expected, rtol=0, atol=1e-5)
        every = Knockout("video -> text", heads=range(model.n_heads))
        np.testing.assert_allclose(
            model.run(x, ablate=[every]).logits,
            model.run(x, ablate=[Knockout("video -> text")]).logits,
            rtol=0,
            atol=1e-5,
        )
    for wrong in (Knockout(heads=[9]), Knockout(heads=[]), Knockout(heads=[0], random=1)):
        with pytest.raises(ProbeError, match=r"heads 0 to \d|name some heads"):
            pair[0].run(example(pair[0]), ablate=[wrong])


@pytest.mark.parametrize("pool", ["all -> all", "video -> text"])
def test_a_random_control_cuts_as_many_edges(tiny: VideoModel, pool: str) -> None:
    x = example(tiny)
    edges = "frames 1-2 -> question"
    causal = np.tril(np.ones((len(x.layout),) * 2, bool))
    table = np.zeros_like(causal)
    for source, destination in x.layout.edges(edges):
        table |= pairs(x, source, destination)
    allowed = np.zeros_like(causal)
    for source, destination in x.layout.edges(pool):
        allowed |= pairs(x, source, destination)
    cuts = []
    for seed in (0, 0, 1):
        found = seen(tiny, x, Knockout(edges, [1, 2], random=seed, pool=pool))
        assert (found[[0, 3]] == causal).all() and (found[1] == found[2]).all()
        cut = causal & ~found[1]
        assert cut.sum() == (table & causal).sum()
        assert not (cut & ~allowed).any() and not cut.diagonal().any()
        cuts.append(cut)
    assert (cuts[0] == cuts[1]).all() and (cuts[0] != cuts[2]).any() and (cuts[0] != table).any()


def test_a_random_control_is_a_knockout_of_its_edges_and_decodes(tiny: VideoModel) -> None:
    x = example(tiny)
    one = Knockout("video -> text", random=3)
    decoded = tiny.generate(x, ablate=[one], max_new_tokens=5)
    longer = tiny.generate(x, ablate=[one], max_new_tokens=7)
    np.testing.assert_array_equal(longer.logits[:5], decoded.logits)
    full = tiny.force(x, decoded.meta["generated"])
    run = tiny.run(full, ablate=[one])
    np.testing.assert_allclose(decoded.logits, run.logits, rtol=0, atol=1e-5)
    hidden = np.tril(np.ones((len(full.layout),) * 2, bool)) & ~seen(tiny, full, one)[0]
    expected = decode(tiny, full, {n: Layer(hidden=hidden) for n in range(tiny.n_layers)})
    np.testing.assert_allclose(run.logits, expected[full.layout.readout], rtol=0, atol=1e-5)
    video = len(x.layout.select("video"))
    assert (hidden[len(x.layout) :].sum(1) == video).all()  # each later token loses as many


def test_a_pool_that_is_too_small_is_refused(tiny: VideoModel) -> None:
    small = Knockout("video -> text", random=0, pool="frame 1 -> last")
    with pytest.raises(ProbeError, match=r"edges cannot be drawn from a pool of \d+") as error:
        tiny.run(example(tiny), ablate=[small])
    assert "\n" not in str(error.value)


def test_windows_of_layers() -> None:
    found = [one.layers for one in windows("video -> last", 3, 5)]
    assert found == [(0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4)]
    assert [one.layers for one in windows("video -> last", 9, 28, step=14)] == [
        tuple(range(5)), tuple(range(10, 19)),
    ]  # fmt: skip
    assert all(isinstance(one, Knockout) for one in windows("video -> last", 3, 5))
    blocks = list(windows(visual_blackout(frozen=True), 4, 10, "blocks"))
    assert blocks == [
        Mask("blackout", layers=part, frozen=True) for part in (range(4), range(4, 8), range(8, 10))
    ]
    with pytest.raises(ProbeError, match="width=0"):
        list(windows("video -> last", 0, 5))
    with pytest.raises(ProbeError, match='kind="round"'):
        list(windows("video -> last", 1, 5, kind="round"))


# -- proof that it fired ---------------------------------------------------------------------


def test_edges_that_carry_nothing_are_no_knockout() -> None:
    model = decoders.build("sliding")
    x = decoders.example(model)
    for one in (Knockout("frame 0 -> last", layers=[1, 3]), NoRope("frame 0 -> last", layers=[1])):
        with pytest.raises(ProbeError, match="edge 0 carried no attention") as error:
            model.run(x, ablate=[one])
        assert "did not fire" in str(error.value) and "\n" not in str(error.value)
    model.run(x, ablate=[Knockout("frame 0 -> last", layers=[0, 1])])
    # The end of the question is beyond the window of the frame's start, its beginning is not.
    near = Knockout("frame 2 -> question", layers=[1])
    assert x.layout.select("question")[-1] - x.layout.select("frame 2")[0] >= 16
    model.run(x, ablate=[near, NoRope("frame 0 -> last")])


@dataclass(frozen=True)
class Idle(Knockout):
    """A knockout that forgets to cut."""

    def change(self, session, call, rows, columns) -> None:
        pass


def test_what_does_not_do_what_it_says_is_found_out(
    tiny: VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = example(tiny)
    with pytest.raises(ProbeError, match="carried no attention that could be changed"):
        tiny.run(x, ablate=[Idle("video -> text")])
    from probe.engine.rotary import Rotary

    monkeypatch.setattr(Rotary, "remove", lambda self, layer, module, x, positions: x.float())
    with pytest.raises(ProbeError, match="did not fire"):
        tiny.run(x, ablate=[NoRope("video -> text")])


def test_the_proof_reads_three_rows_until_it_is_given(
    tiny: VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probe.engine.call import AttentionCall

    asked: list[int] = []
    own = AttentionCall.scores
    monkeypatch.setattr(
        AttentionCall, "scores", lambda call, rows: asked.append(len(rows)) or own(call, rows)
    )
    tiny.run(example(tiny), ablate=[Knockout("video -> text")])
    assert len(asked) == 2 and max(asked) <= 3  # before and after, in one layer


def test_what_a_sweep_may_reuse(tiny: VideoModel) -> None:
    from probe.engine.session import Session

    x = example(tiny)
    question, text = (int(x.layout.select(s)[0]) for s in ("question", "newline"))
    for one, expected in (
        (Knockout("video -> question", layers=[2, 3]), (2, question)),
        (NoRope(["video -> last", "frame 2 -> text"], layers=[1]), (1, text + 1)),
        (Knockout("frame 1 -> video"), (0, int(x.layout.select("frame 1")[0]))),
    ):
        session = Session(tiny, x, (), [one])
        layer, row = one.affects(session, session.ablations[0][1])
        assert layer == expected[0] and row <= expected[1]
        changed, plain = (tiny.run(x, ablate=a, logits="all").logits for a in ([one], []))
        np.testing.assert_allclose(changed[:row], plain[:row], rtol=0, atol=1e-6)
        assert np.abs(changed[row] - plain[row]).max() > 1e-4
    random = Knockout("video -> question", random=0)
    session = Session(tiny, x, (), [random])
    first = np.flatnonzero((~seen(tiny, x, random)[0] & np.tril(np.ones((50, 50), bool))).any(1))
    assert random.affects(session, session.ablations[0][1]) == (0, first[0])
