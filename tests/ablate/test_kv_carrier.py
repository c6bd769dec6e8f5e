"""Carriers: rows behind each frame, against embeddings and dense masks made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.carrier import Carrier
from probe.ablate.kv import Cache
from probe.ablate.recipes.decode import videoscan
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.ablate.kv_reference import ROWS, unread
from tests.families import models
from tests.tiny import example

Pair = tuple[VideoModel, VideoModel]
TOLERANCE = 1e-5


def by_hand(model: VideoModel, x: Example, kind: Carrier, blind: bool = False) -> np.ndarray:
    """Logits of transformers' own decoder on embeddings with the rows put in by hand.

    Args:
        model, x: the model, and the example without carriers, with one clip.
        kind: embedding, position and stream of the carriers.
        blind: text does not see frames at all, as if they had been evicted.
    """
    seen: list[torch.Tensor] = []
    handle = model.decoder.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["inputs_embeds"][0]), with_kwargs=True
    )
    with torch.no_grad():
        model.hf(**x.inputs, use_cache=False)
    handle.remove()
    line = model.tokenizer.encode("\n")[-1]
    plain = model.hf.get_input_embeddings()(torch.tensor(line)).detach()
    layout, rows, ids, owner = x.layout, [], [], []
    for at in range(len(layout)):
        rows.append(seen[0][at])
        ids.append(int(x.inputs["position_ids"][0, at]))
        frame = layout.group[at] if layout.role[at] == "video" else -1
        owner.append(frame)
        ends = frame >= 0 and (layout.role[at + 1] != "video" or layout.group[at + 1] != frame)
        if ends:
            of = np.flatnonzero((layout.role == "video") & (layout.group == frame))
            rows.append(seen[0][of].mean(0) if kind.embedding == "mean" else plain)
            ids.append(ids[-1])
            owner.append(-1)
    size = len(rows)
    owners = np.array(owner)
    mask = np.tril(np.ones((size, size), bool))
    if kind.stream or blind:
        for key in np.flatnonzero(owners >= 0):
            carrier = np.flatnonzero((owners == -1) & (np.arange(size) > key))[0]
            mask[carrier + 1 :, key] = False
    numbers = torch.arange(size) if kind.position == "reindex" else torch.tensor(ids)
    with torch.no_grad():
        out = model.decoder(
            inputs_embeds=torch.stack(rows)[None],
            attention_mask=torch.from_numpy(mask)[None, None],
            position_ids=numbers[None],
            use_cache=False,
        )
        return model.head(out.last_hidden_state[0]).numpy()


KINDS = [
    Carrier(),
    Carrier("reindex"),
    Carrier(embedding="token"),
    Carrier(stream=True),
    Carrier("reindex", stream=True),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("name", ["tiny", "other"])
def test_it_is_the_decoder_on_rows_put_in_by_hand(name: str, kind: Carrier, request) -> None:
    model = request.getfixturevalue(name)
    x = example(model, answer="red")
    run = model.run(x, ablate=[kind])
    expected = by_hand(model, x, kind)[run.layout.readout]
    np.testing.assert_allclose(run.logits, expected, rtol=0, atol=TOLERANCE)
    assert np.abs(run.logits - model.run(x).logits).max() > 1e-2
    gen = model.generate(example(model), ablate=[kind], max_new_tokens=4)
    again = model.run(model.force(example(model), gen.meta["generated"]), ablate=[kind])
    np.testing.assert_allclose(gen.logits, again.logits, rtol=0, atol=TOLERANCE)


def test_a_stream_whose_frames_are_evicted(pair: Pair) -> None:
    expected: list[np.ndarray] = []
    for model in pair:
        x = example(model, answer="red")
        run = model.run(x, ROWS, ablate=videoscan(64))
        if not expected:  # the decoder by hand takes the mask of sdpa
            expected.append(by_hand(model, x, Carrier(), blind=True)[run.layout.readout])
        np.testing.assert_allclose(run.logits, expected[0], rtol=0, atol=TOLERANCE)
        video = run.layout.select("video")
        assert unread(run)[1:, :, video].all()
        assert set(run.cost.kv_length) == {len(run.layout) - 1 - len(video)}  # T + S
        inserted = model.run(x, ablate=[Carrier()])
        same = model.run(x, ablate=videoscan(64, keep_frames=True))
        np.testing.assert_array_equal(same.logits, inserted.logits)


@pytest.mark.parametrize("memory", [1, 2, 4])
def test_a_memory_of_m_carriers(tiny: VideoModel, memory: int) -> None:
    x = example(tiny, 6)
    gen = tiny.generate(x, ROWS, ablate=videoscan(memory), max_new_tokens=3)
    layout = gen.layout
    carriers, video = layout.select("summary"), layout.select("video")
    assert len(carriers) == 6
    assert set(gen.cost.kv_length) == {len(layout) - 1 - len(video) - 6 + memory}
    read = ~unread(gen)[:, :, carriers]
    assert (read.sum(-1) == memory).all() and (read == read[:1, :1]).all()  # the question's too
    assert read[0, 0, -1]  # the newest stays


def test_layout_and_inputs_grow_together(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    y = Carrier().prepare(tiny, x)
    carriers = y.layout.select("summary")
    assert y.layout.group[carriers].tolist() == [0, 1, 2, 3, 4]
    assert (y.layout.group[carriers - 1] == y.layout.group[carriers]).all()
    assert "summary" not in set(y.layout.role[y.layout.select("text")])
    there = np.setdiff1d(np.arange(len(y.layout)), carriers)
    for name in ("role", "group", "row", "col", "visual"):
        before, after = getattr(x.layout, name), getattr(y.layout, name)
        np.testing.assert_array_equal(after[there], before)
    assert [y.layout.tokens[p] for p in there] == list(x.layout.tokens)
    assert y.layout.last == there[x.layout.last]
    np.testing.assert_array_equal(y.layout.readout, there[x.layout.readout])
    for name in ("input_ids", "attention_mask", "position_ids"):
        assert torch.equal(y.inputs[name][..., there], x.inputs[name]), name
    shared = y.inputs["position_ids"][0]
    assert torch.equal(shared[carriers], shared[carriers - 1])
    assert torch.equal(
        Carrier("reindex").prepare(tiny, x).inputs["position_ids"][0], torch.arange(len(y.layout))
    )
    assert y.inputs["attention_mask"].all()


def test_a_carrier_enters_as_the_mean_of_its_frame(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    seen: list[torch.Tensor] = []
    handle = tiny.layers[0].input_layernorm.register_forward_pre_hook(
        lambda _, args: seen.append(args[0][0])
    )
    run = tiny.run(x, ablate=[Carrier()])
    handle.remove()
    layout = run.layout
    for carrier in layout.select("summary"):
        frame = (layout.role == "video") & (layout.group == layout.group[carrier])
        np.testing.assert_allclose(
            seen[0][carrier].detach(), seen[0][frame].mean(0).detach(), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("reads", ["key", "value"])
def test_key_only_and_value_only(tiny: VideoModel, reads: str) -> None:
    """One layer, by the weights and values of a run that has both."""
    x = example(tiny, answer="red")
    kept: dict[str, torch.Tensor] = {}
    attention = tiny.layers[0].self_attn

    def watch(name):
        return lambda _, args, out: kept.__setitem__(name, out[0].detach())

    handles = [getattr(attention, f"{p}_proj").register_forward_hook(watch(p)) for p in "qkv"]
    handles.append(
        attention.o_proj.register_forward_pre_hook(
            lambda _, args: kept.__setitem__("mixed", args[0][0].detach())
        )
    )
    run = tiny.run(x, ablate=[Carrier(reads=reads)])
    for handle in handles:
        handle.remove()
    size, channels = len(run.layout), tiny.head_dim
    q, k, v = (kept[p].view(size, -1, channels).transpose(0, 1).double() for p in "qkv")
    ids = Carrier().prepare(tiny, x).inputs["position_ids"][0].double()
    angle = ids[:, None] * tiny.decoder.rotary_emb.inv_freq.double()
    cos, sin = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()

    def rotated(a):
        one, two = a.chunk(2, -1)
        return a * cos + torch.cat([-two, one], -1) * sin

    k, v = rotated(k).repeat_interleave(2, 0), v.repeat_interleave(2, 0)
    carriers = run.layout.select("summary")
    scores = rotated(q) @ k.mT * channels**-0.5
    later = np.arange(carriers[0] + 1, size)
    if reads == "value":
        scores[np.ix_(range(4), later, carriers)] = 0
    weights = scores.masked_fill(~torch.ones(size, size).tril().bool(), -torch.inf).softmax(-1)
    if reads == "key":
        weights[np.ix_(range(4), later, carriers)] = 0
    expected = (weights @ v).transpose(0, 1).flatten(1)
    np.testing.assert_allclose(kept["mixed"], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", models.NAMES)
def test_every_family_takes_carriers(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    for several in ([Carrier()], videoscan(2)):
        gen = model.generate(x, ablate=several, max_new_tokens=3)
        run = model.run(model.force(x, gen.meta["generated"]), ablate=several)
        size = max(1.0, float(np.abs(run.logits).max()))
        np.testing.assert_allclose(gen.logits, run.logits, rtol=0, atol=TOLERANCE * size)
        groups = set(run.layout.group[run.layout.role == "video"].tolist())
        assert len(run.layout.select("summary")) == len(groups)


def test_text_only_is_bit_identical(tiny: VideoModel) -> None:
    x, y = example(tiny, None, answer="red"), example(tiny, None)
    assert np.array_equal(tiny.run(x, ablate=videoscan(2)).logits, tiny.run(x).logits)
    ablated = tiny.generate(y, ablate=videoscan(2), max_new_tokens=3)
    assert np.array_equal(ablated.logits, tiny.generate(y, max_new_tokens=3).logits)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([Carrier("after")], 'write "share", "reindex"'),
        ([Carrier(embedding="sum")], 'write "mean", "token"'),
        ([Carrier(reads="none")], "there are both, key, value"),
        ([Carrier(), Carrier()], "have their carriers already"),
        ([Cache(of="summary", keep=0.0)], '"summary" is not known'),
    ],
    ids=str,
)
def test_wrong_arguments(tiny: VideoModel, wrong: list, words: str) -> None:
    with pytest.raises(ProbeError, match=words) as error:
        tiny.run(example(tiny), ablate=wrong)
    assert "\n" not in str(error.value)


def test_three_axes_cannot_be_counted_anew() -> None:
    model = models.build("qwen2_5_vl")
    with pytest.raises(ProbeError, match="no meaning for rotary positions with three axes"):
        model.run(models.example(model), ablate=[Carrier("reindex")])
