"""Contrast: two streams whose logits meet, against the formula on two runs of their own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Knockout, Norm, Reduce, fastv, layer, names
from probe.ablate.contrast import Contrast, diffused, other_frames
from probe.ablate.frames import Frames
from probe.ablate.kv import Cache
from probe.ablate.recipes.decode import damro, vcd
from probe.ablate.scores import LastQuery, Random
from probe.ablate.scores_encoder import EncoderReceived
from probe.capture import AttentionRows
from probe.engine import forward, generate
from probe.models.video_model import VideoModel
from probe.spec import from_json, parse
from tests.families import models
from tests.snapshot import same, snapshot
from tests.tiny import example

TOLERANCE = 1e-5
FEW = Reduce(at=layer(0), score=Norm(), keep_tokens=3)
CASES = [
    Contrast(beta=0.0),
    Contrast("blank", 0.5, 0.0),
    Contrast("shuffled", 2.0, 0.01),
    Contrast("no video"),
    Contrast(FEW, 1.0, 0.2),
    Contrast((fastv(1, 0.5), Knockout("frame 0 -> text")), 1.5, 0.0),
    Contrast(Cache(score=LastQuery(), keep=0.2), 1.0, 0.0),
]


def formula(one: Contrast, logits: np.ndarray, second: np.ndarray) -> np.ndarray:
    """l* in float64, from the two streams' logits."""
    logits, second = logits.astype(float), second.astype(float)
    mixed = (1 + one.alpha) * logits - one.alpha * second
    limit = logits.max(-1, keepdims=True) + (math.log(one.beta) if one.beta else -np.inf)
    return np.where(logits < limit, -np.inf, mixed)


@pytest.mark.parametrize("one", CASES, ids=str)
def test_it_is_the_formula_on_two_runs(model: VideoModel, one: Contrast) -> None:
    x = example(model, answer="red")
    other, ablations = one.stream(model, x)
    expected = formula(one, model.run(x).logits, model.run(other, ablate=ablations).logits)
    run = model.run(x, ablate=[one])
    np.testing.assert_allclose(run.logits, expected, rtol=0, atol=TOLERANCE)
    assert run.tokens == model.decode_each(run.logits.argmax(-1).tolist())
    assert np.abs(run.logits - model.run(x).logits)[np.isfinite(run.logits)].max() > 1e-2


@pytest.mark.parametrize("one", CASES, ids=str)
@pytest.mark.parametrize("sampled", [False, True])
def test_generation_is_the_run_that_is_fed_its_tokens(
    tiny: VideoModel, one: Contrast, sampled: bool
) -> None:
    x = example(tiny)
    how = {"do_sample": True, "temperature": 1.5, "seed": 4} if sampled else {}
    before = snapshot(tiny.hf)
    gen = tiny.generate(x, ablate=[one], max_new_tokens=5, **how)
    same(before, snapshot(tiny.hf))
    ids = gen.meta["generated"]
    run = tiny.run(tiny.force(x, ids), ablate=[one])
    np.testing.assert_allclose(gen.logits, run.logits, rtol=0, atol=3 * TOLERANCE)
    assert np.isfinite(gen.logits[np.arange(5), ids]).all()  # never an implausible token
    if not sampled:
        assert run.logits.argmax(-1).tolist() == ids


@pytest.mark.parametrize("name", models.NAMES)
def test_every_family_has_two_streams(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    words = ("noise",) if model.family.frames == 1 else ("noise", "shuffled")
    for one in [Contrast(word, 1.0, 0.0) for word in words]:
        gen = model.generate(x, ablate=[one], max_new_tokens=3)
        run = model.run(model.force(x, gen.meta["generated"]), ablate=[one])
        size = max(1.0, float(np.abs(run.logits).max()))
        np.testing.assert_allclose(gen.logits, run.logits, rtol=0, atol=3 * TOLERANCE * size)


def test_a_loop_of_transformers_own_logits_gives_the_same_tokens(tiny: VideoModel) -> None:
    """Greedy by hand, both streams anew for each token, without a cache or a hook."""
    x = example(tiny)
    one = Contrast("noise", 1.0, 0.1)
    other = other_frames(tiny, x, "noise", 500, 0)
    ids: list[int] = []
    for _ in range(5):
        rows = []
        for stream in (x, other):
            fed = tiny.force(stream, ids) if ids else stream
            with torch.no_grad():
                rows.append(tiny.hf(**fed.inputs, use_cache=False).logits[0, -1].numpy())
        ids.append(int(formula(one, *rows).argmax()))
    assert tiny.generate(x, ablate=[one], max_new_tokens=5).meta["generated"] == ids


def test_neutral_is_bit_identical_and_so_is_its_full_path(tiny: VideoModel) -> None:
    x, y = example(tiny, answer="red"), example(tiny)
    neutral = Contrast("noise", alpha=0.0, beta=0.0)
    run, gen = tiny.run(x), tiny.generate(y, max_new_tokens=4)
    for force in (False, True):
        found = forward.run(tiny, x, ablations=[neutral], force=force)
        assert np.array_equal(found.logits, run.logits)
        found = generate.generate(tiny, y, ablations=[neutral], max_new_tokens=4, force=force)
        assert np.array_equal(found.logits, gen.logits)
        assert found.meta["generated"] == gen.meta["generated"]


def test_equal_streams_are_one(tiny: VideoModel) -> None:
    """All tokens in the second stream: l2 = l, for any alpha."""
    x = example(tiny, answer="red")
    everything = Reduce(at=layer(0), score=Norm(), keep=1.0)
    one = Contrast(everything, alpha=7.0, beta=0.0)
    found = forward.run(tiny, x, ablations=[one], force=True)
    assert np.array_equal(found.logits, tiny.run(x).logits)
    with pytest.raises(ProbeError, match=r"has the logits of the first .* did not fire"):
        tiny.run(x, ablate=[one])


def test_the_cut_alone_leaves_greedy_decoding_as_it_is(tiny: VideoModel) -> None:
    x = example(tiny)
    plain = tiny.generate(x, max_new_tokens=6)
    for alpha in (0.0, 3.0):
        found = tiny.generate(x, ablate=[Contrast("noise", alpha, 1.0)], max_new_tokens=6)
        assert found.meta["generated"] == plain.meta["generated"]
        assert (np.isfinite(found.logits).sum(-1) == 1).all()
    cut = tiny.run(example(tiny, answer="red"), ablate=[Contrast("noise", 0.0, 0.1)]).logits
    logits = tiny.run(example(tiny, answer="red")).logits
    plausible = logits >= logits.max(-1, keepdims=True) + math.log(0.1)
    assert np.array_equal(np.isfinite(cut), plausible)
    assert np.array_equal(cut[plausible], logits[plausible])


@pytest.mark.parametrize("one", [*CASES, vcd(), damro(score=EncoderReceived())], ids=str)
def test_text_only_is_bit_identical(tiny: VideoModel, one: Contrast) -> None:
    x, y = example(tiny, None, answer="red"), example(tiny, None)
    assert np.array_equal(tiny.run(x, ablate=[one]).logits, tiny.run(x).logits)
    ablated = tiny.generate(y, ablate=[one], max_new_tokens=3)
    assert np.array_equal(ablated.logits, tiny.generate(y, max_new_tokens=3).logits)


def test_ablations_beside_it_act_on_the_first_stream_only(tiny: VideoModel) -> None:
    x = example(tiny)
    first = [fastv(1, 0.5), Cache(score=Random(), keep=0.6)]
    one = Contrast("blank", 1.0, 0.0)
    gen = tiny.generate(x, [AttentionRows("last")], ablate=[*first, one], max_new_tokens=4)
    full = tiny.force(x, gen.meta["generated"])
    other, _ = one.stream(tiny, full)
    plain = tiny.run(full, [AttentionRows("last")], ablate=first)
    expected = formula(one, plain.logits, tiny.run(other).logits)
    np.testing.assert_allclose(gen.logits, expected, rtol=0, atol=3 * TOLERANCE)
    np.testing.assert_array_equal(gen.data.attention_rows, plain.data.attention_rows)
    assert gen.cost.kv_length == plain.cost.kv_length


def test_other_frames_are_another_way_to_say_it(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    by_word = tiny.run(x, ablate=[Contrast("shuffled", 1.0, 0.0)])
    by_frames = tiny.run(x, ablate=[Contrast(Frames("shuffle"), 1.0, 0.0)])
    np.testing.assert_array_equal(by_word.logits, by_frames.logits)
    gen = tiny.generate(example(tiny), ablate=[Contrast(Frames("drop", frames=[1]))],
                        max_new_tokens=3)  # fmt: skip
    assert gen.meta["second_stream"]["length"] == [len(gen.layout) - 3 - 4] * tiny.n_layers
    assert gen.meta["second_stream"]["kv_length"] == [len(gen.layout) - 1 - 4] * tiny.n_layers
    small = tiny.run(x, ablate=[Contrast(FEW)]).meta["second_stream"]
    assert small["length"] == [len(x.layout) - 20 + 3] * tiny.n_layers


def test_noise_is_the_published_schedule_and_seeded(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    name = "pixel_values_videos"
    pixels = x.inputs[name]
    noisy = other_frames(tiny, x, "noise", 500, 0)
    assert torch.equal(noisy.inputs[name], other_frames(tiny, x, "noise", 500, 0).inputs[name])
    assert not torch.equal(noisy.inputs[name], other_frames(tiny, x, "noise", 500, 1).inputs[name])
    assert noisy.layout is x.layout and torch.equal(x.inputs[name], pixels)
    betas = 1 / (1 + np.exp(-np.linspace(-6, 6, 1000))) * (0.5e-2 - 1e-5) + 1e-5
    for amount in (1, 500, 1000):
        left = np.prod(1 - betas[:amount])
        big = diffused(torch.ones(200_000), amount, torch.Generator().manual_seed(0)).double()
        assert abs(float(big.mean()) - left**0.5) < 5e-3
        assert abs(float(big.var()) - (1 - left)) < 1e-2


def test_damro_keeps_the_tokens_that_the_tower_attends_to_most() -> None:
    model = models.build("video_llava")  # its tower has a CLS token
    x = models.example(model, answer="red")
    video = len(x.layout.select("video"))
    per_head, wide = (damro(k=5, alpha=1.0, beta=0.0, per_head=p) for p in (True, False))
    sets = []
    for one in (per_head, wide):
        other, ablations = one.stream(model, x)
        second = model.run(other, ablate=ablations)
        left = np.flatnonzero(second.kept.values[0])
        sets.append(np.intersect1d(left, x.layout.select("video")))
        assert len(sets[-1]) == 5 < video
        run = model.run(x, ablate=[one])
        expected = formula(one, model.run(x).logits, second.logits)
        np.testing.assert_allclose(run.logits, expected, rtol=0, atol=1e-4)
    assert sets[0].tolist() != sets[1].tolist()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Contrast("grey"), "write blank, shuffled, noise, no video"),
        (Contrast(()), "a word or ablations"),
        (Contrast("noise", beta=1.5), "a fraction from 0 to 1"),
        (Contrast("noise", alpha=math.inf), "it is a number"),
        (Contrast("noise", amount=0), "1 to 1000 steps"),
        (Contrast(Contrast()), "cannot have a contrast of its own"),
        (Contrast(fastv(1, 2.0)), "it is a fraction"),
        (Contrast(Knockout("last -> video")), "source comes after"),
        (damro(), "no CLS token"),
        (damro(per_head=False), "no CLS token"),
    ],
    ids=str,
)
def test_wrong_arguments(tiny: VideoModel, wrong: Contrast, words: str) -> None:
    x = example(tiny)
    for do in (lambda: tiny.run(x, ablate=[wrong]), lambda: tiny.generate(x, ablate=[wrong])):
        with pytest.raises(ProbeError, match=words) as error:
            do()
        assert "\n" not in str(error.value)


def test_what_a_contrast_cannot_do_is_refused(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    with pytest.raises(ProbeError, match='use logits="readout"'):
        tiny.run(x, ablate=[vcd()], logits="all")
    with pytest.raises(ProbeError, match="logits have one second stream"):
        tiny.run(x, ablate=[vcd(), Contrast("blank")])
    with pytest.raises(ProbeError, match="outside of the model"), tiny.ablated(x, [vcd()]) as hf:
        hf(**x.inputs, use_cache=False)
    with pytest.raises(ProbeError, match="cannot be shuffled"):
        tiny.run(example(tiny, 1), ablate=[Contrast("shuffled")])
    tiny.run(x)  # and the model is free again


def test_it_is_data() -> None:
    known = names()
    for one in (vcd(2.0, seed=1), Contrast((fastv(1, 0.5), FEW), 0.5)):
        assert from_json(one.to_json(), known) == one
    assert parse('Contrast("blank", 0.5, 0.0)', known) == [CASES[1]]
