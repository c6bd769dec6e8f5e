"""Cache: what is left of the keys, against dense maps and a decoder without a cache."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Knockout, Reduce, layer
from probe.ablate.kv import Cache
from probe.ablate.kv_parts import Buckets, Pages, RawQuery, Recent
from probe.ablate.reduction.segment import PerFrame
from probe.ablate.scores import LastQuery, Norm, Random, Uniform
from probe.ablate.scores_attention import Received
from probe.ablate.scores_encoder import EncoderReceived
from probe.capture import AttentionMass, GradientTimesInput
from probe.engine import forward, generate
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.ablate.kv_reference import ROWS, best, cuts, definition, unread
from tests.snapshot import same, snapshot
from tests.tiny import dense, example

Pair = tuple[VideoModel, VideoModel]
TOLERANCE = 1e-5

STEP = Cache(layers="2-", score=LastQuery(1), keep=0.4, when="step", how="hide")
CASES = [
    Cache(score=LastQuery(), keep=0.5),
    Cache(score=LastQuery(), keep=0.5, how="hide"),
    Cache(layers=[0, 2], score=Norm(), keep_tokens=4),
    Cache(score=Uniform(), keep=0.3, segment=PerFrame(), at=1),
    Cache(keep=0.0),
    STEP,
    replace(STEP, refresh=0.9),
    replace(STEP, refresh=0.9, variant="code"),
    Cache(score=LastQuery(), keep=0.4, when="step", how="hide"),
    Cache(score=Random(3), keep_tokens=9, when="step"),
    Cache(of="generated", score=Received(), keep=0.5, window=1, when="step", history=True),
    Cache(of="question", score=LastQuery(), keep_tokens=3, how="hide"),
]
EARLY = [
    Cache(score=Recent(queries=4), keep_tokens=8, select=Buckets(2), when="video"),
    Cache(score=RawQuery(), keep=0.4, select=Pages(4), when="video", how="hide"),
    Cache(layers="1-2", score=LastQuery(0), keep=0.4, when="video"),
]
NEUTRAL = [
    Cache(score=LastQuery(), keep=1.0),
    Cache(score=Norm(), keep_tokens=500, how="hide"),
    Cache(layers="1-", score=LastQuery(0), keep=1, when="step", how="hide", refresh=0.9),
    Cache(of="generated", score=Received(), keep_tokens=9, when="step"),
    Cache(of="generated", score=Received(), keep=0.5, window=9, when="step"),
    Cache(score=RawQuery(), keep=1.0, select=Pages(4), when="video"),
]


def forced(model: VideoModel, x: Example, ablations: list, count: int = 6):
    """A generation, and the run that is fed its tokens; both read the attention rows."""
    gen = model.generate(x, ROWS, ablate=ablations, max_new_tokens=count)
    full = model.force(x, gen.meta["generated"])
    return gen, full, model.run(full, ROWS, ablate=ablations)


@pytest.mark.parametrize("one", CASES, ids=str)
def test_prefill_and_decode_are_the_definition(pair: Pair, one: Cache) -> None:
    for model in pair:
        gen, full, run = forced(model, example(model), [one])
        np.testing.assert_array_equal(run.logits, gen.logits)
        np.testing.assert_array_equal(run.kept.values, gen.kept.values)
        np.testing.assert_array_equal(run.data.attention_rows, gen.data.attention_rows)
        hidden = unread(run)
        assert hidden[1:].any() and not hidden[0].any()  # the prompt is as it was
        expected = definition(model, full, cuts(run, full))
        np.testing.assert_allclose(run.logits, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("one", EARLY, ids=str)
def test_text_of_the_prompt_reads_no_more_either(pair: Pair, one: Cache) -> None:
    for model in pair:
        gen, full, run = forced(model, example(model), [one])
        np.testing.assert_array_equal(run.logits, gen.logits)
        last = full.layout.select("video")[-1]
        expected = definition(model, full, cuts(run, full, last))
        np.testing.assert_allclose(run.logits, expected, rtol=0, atol=TOLERANCE)
        np.testing.assert_array_equal(unread(run)[0, :, :last], unread(run)[1, :, :last])
        assert unread(run)[0].any()
        short = model.run(example(model), ablate=[one])  # no answer: the prompt alone
        np.testing.assert_allclose(short.logits, run.logits[:1], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("how", ["evict", "hide"])
def test_a_choice_after_the_prompt_is_that_of_the_dense_map(pair: Pair, how: str) -> None:
    model, eager = pair
    x = example(model)
    video = x.layout.select("video")
    maps = dense(eager, x)[:, :, x.layout.last].mean(1)
    one = Cache(score=LastQuery(), keep_tokens=7, how=how)
    gen, _, _ = forced(model, x, [one])
    for number in range(model.n_layers):
        stays = best(maps[number, video], video, 7)
        for step in range(1, len(gen.readout)):
            read = set(video[~unread(gen)[step, number, video]].tolist())
            assert read == stays, (number, step)


def test_a_choice_at_each_step_is_that_of_the_current_row(pair: Pair) -> None:
    model, eager = pair
    gen, full, run = forced(model, example(model), [STEP])
    video, count = full.layout.select("video"), None
    maps = dense(eager, full)[1].mean(0)  # layer 1 comes before the hidden keys
    sets = []
    for step, row in enumerate(run.readout):
        count = len(video) * 2 // 5
        stays = best(maps[row, video], video, count)
        sets.append(stays)
        for number in range(2, model.n_layers):
            read = set(video[~unread(run)[step, number, video]].tolist())
            assert read == (stays if step else set(video.tolist())), (step, number)
        assert not unread(run)[step, :2].any()
    assert any(b - a for a, b in pairwise(sets[1:])), "none ever came back"
    assert gen.kept.values[:, : full.layout.last].all()  # hidden, not gone


def test_refresh_reuses_the_last_choice_or_reads_everything(pair: Pair) -> None:
    """DyCoke's paper and code, by a loop over dense maps."""
    model, eager = pair
    x = example(model)
    free = model.generate(x, max_new_tokens=8).meta["generated"]
    full = model.force(x, free)
    video = full.layout.select("video")
    maps = dense(eager, full)[1].mean(0)[:, video]
    cosines = [_cosine(maps[a], maps[b]) for a, b in pairwise(full.layout.readout[1:])]
    threshold = float(np.median(cosines))
    for variant in ("paper", "code"):
        one = replace(STEP, refresh=threshold, variant=variant)
        run = model.run(full, ROWS, ablate=[one])
        before, stays, again = None, set(), []
        for step, row in enumerate(run.readout[1:], 1):
            alike = before is not None and _cosine(maps[row], before) >= threshold
            again.append(alike)
            if not alike:
                stays = best(maps[row], video, len(video) * 2 // 5)
            if not alike or variant == "code":
                before = maps[row]
            expected = set(video.tolist()) if alike and variant == "code" else stays
            for number in range(2, model.n_layers):
                read = set(video[~unread(run)[step, number, video]].tolist())
                assert read == expected, (variant, step, number)
        assert True in again and again.count(False) > 1


def test_old_answer_tokens_go_by_the_attention_they_received(pair: Pair) -> None:
    model, _ = pair
    one = Cache(of="generated", score=Received(), keep=0.5, window=2, when="step", history=True)
    _, full, run = forced(model, example(model), [one], count=9)
    rows = run.data.attention_rows.values[:, :, :, 0].mean(2)
    first, went = full.layout.last + 1, 0
    for number in range(model.n_layers):
        total = np.zeros((2, len(full.layout)))
        for step, row in enumerate(run.readout[:-1]):
            there = np.flatnonzero(~np.isnan(rows[step, number]))
            total[:, there] += [rows[step, number, there], np.ones(len(there))]
            old = np.arange(first, row - 2 + 1)
            known = old[np.isin(old, there)]
            count = len(old) - round(len(old) / 2)
            stays = best(total[0, known] / total[1, known], known, count)
            stays |= set(range(max(first, row - 1), row + 2))
            read = np.flatnonzero(~np.isnan(rows[step + 1, number]))
            assert set(read[read >= first].tolist()) == stays
            went += len(known) - len(stays & set(known.tolist()))
        assert run.cost.kv_length[number] == full.layout.last + 1 + len(stays)
    assert went > 3


def test_layers_lose_what_a_reduction_took_from_a_later_one(pair: Pair) -> None:
    for model in pair:
        reduce = Reduce(at=layer(2), score=Norm(), keep_tokens=6)
        both = [reduce, Cache(layers="0-1", keep=1.0, at=2)]
        gen, full, run = forced(model, example(model), both)
        assert (run.kept.values == run.kept.values[2]).all()
        video = len(full.layout.select("video"))
        assert set(gen.cost.kv_length) == {len(full.layout) - 1 - video + 6}
        native = model.run(full, ablate=[replace(reduce, cache="retroactive")])
        np.testing.assert_allclose(run.logits, native.logits, rtol=0, atol=TOLERANCE)
        present = model.run(full, ablate=[reduce]).kept.values
        expected = definition(model, full, cuts(run, full), present)
        np.testing.assert_allclose(run.logits, expected, rtol=0, atol=TOLERANCE)


def test_with_other_ablations_it_is_the_definition(pair: Pair) -> None:
    for model in pair:
        several = [Reduce(at=layer(1), score=Norm(), keep=0.6), Knockout("frame 0 -> text"), STEP]
        gen, full, run = forced(model, example(model), several)
        np.testing.assert_array_equal(run.logits, gen.logits)
        present = model.run(full, ablate=several[:1]).kept.values
        cut = cuts(run, full)
        source, text = full.layout.select("frame 0"), full.layout.select("text")
        for table in cut.values():
            table[np.ix_(text, source)] = True
        expected = definition(model, full, cut, present)
        np.testing.assert_allclose(run.logits, expected, rtol=0, atol=TOLERANCE)


def test_a_second_cache_chooses_among_what_the_first_left(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    first = Cache(score=Uniform(), keep_tokens=8, when="video")
    second = Cache(score=Random(1), keep=0.5, when="video", how="hide")
    video = x.layout.select("video")
    read = [~unread(tiny.run(x, ROWS, ablate=a))[:, :, video]
            for a in ([first], [second], [first, second])]  # fmt: skip
    assert (read[0].sum(-1) == 8).all() and (read[1].sum(-1) == 10).all()
    assert (read[2].sum(-1) == 4).all() and (read[2] <= read[0]).all()


def test_sizes_are_measured_and_predicted(pair: Pair) -> None:
    model, _ = pair
    x = example(model)
    video, prompt = len(x.layout.select("video")), len(x.layout)
    sizes: list[list[int]] = []

    def watch(module, args, kwargs):
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length():
            sizes.append([one.keys.shape[2] for one in cache.layers])

    handle = model.layers[0].register_forward_pre_hook(watch, with_kwargs=True)
    try:
        gen = model.generate(x, ablate=[Cache(layers="1-", score=Norm(), keep_tokens=5)],
                             max_new_tokens=4)  # fmt: skip
    finally:
        handle.remove()
    rest = model.n_layers - 1
    for step, found in enumerate(sizes):
        assert found == [prompt + step, *[prompt - video + 5 + step] * rest]
    assert len(sizes) == 3
    assert gen.cost.kv_length == (prompt + 3, *[prompt - video + 5 + 3] * rest)
    assert (gen.kept.values.sum(1) == gen.cost.kv_length).all()
    hidden = model.generate(x, ablate=[STEP], max_new_tokens=4)
    assert set(hidden.cost.kv_length) == {prompt + 3}
    assert not STEP.saves_memory and Cache(keep=0.5).saves_memory


@pytest.mark.parametrize("neutral", NEUTRAL, ids=str)
def test_neutral_is_bit_identical_and_so_nearly_is_its_full_path(pair: Pair, neutral) -> None:
    model, _ = pair
    x, y = example(model, answer="red"), example(model)
    run, gen = model.run(x), model.generate(y, max_new_tokens=4)
    assert np.array_equal(model.run(x, ablate=[neutral]).logits, run.logits)
    assert np.array_equal(model.generate(y, ablate=[neutral], max_new_tokens=4).logits, gen.logits)
    stepwise = forward.run(model, x, ablations=[neutral], force=True)
    np.testing.assert_allclose(stepwise.logits, run.logits, rtol=0, atol=TOLERANCE)
    full = generate.generate(model, y, ablations=[neutral], max_new_tokens=4, force=True)
    np.testing.assert_allclose(full.logits, gen.logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("one", [c for c in CASES if c.of == "video"] + EARLY, ids=str)
def test_text_only_is_bit_identical(tiny: VideoModel, one: Cache) -> None:
    x, y = example(tiny, None, answer="red"), example(tiny, None)
    assert np.array_equal(tiny.run(x, ablate=[one]).logits, tiny.run(x).logits)
    ablated = tiny.generate(y, ablate=[one], max_new_tokens=4)
    assert np.array_equal(ablated.logits, tiny.generate(y, max_new_tokens=4).logits)


def test_nothing_is_left_behind(tiny: VideoModel) -> None:
    x, y = example(tiny, 5), example(tiny, 3, "Where?")
    ablations = [replace(STEP, refresh=0.5), CASES[10]]
    alone = tiny.generate(y, ablate=ablations, max_new_tokens=6).logits
    before = snapshot(tiny.hf)
    tiny.generate(x, ablate=ablations, max_new_tokens=6)
    assert np.array_equal(tiny.generate(y, ablate=ablations, max_new_tokens=6).logits, alone)
    with pytest.raises(ProbeError):
        tiny.generate(x, ablate=[*ablations, Cache(score=LastQuery(9), keep=0.5)])
    same(before, snapshot(tiny.hf))


def test_a_planted_key_keeps_or_loses_its_influence(tiny: VideoModel) -> None:
    """What only the last frame holds is out of reach once its keys have gone."""
    x, y = example(tiny, 5, answer="red"), example(tiny, 5, answer="red")
    name = "pixel_values_videos"
    pixels = y.inputs[name].clone()
    pixels[:, -1] = -pixels[:, -1]
    y = replace(y, inputs=y.inputs | {name: pixels})
    # The prompt's own text has read the frame, so look at a text that has not: the video alone.
    gone = Cache(of="frame 4 + newline", keep=0.0, when="video")
    apart = [Knockout("frame 4 -> newline"), gone]
    one, other = (tiny.run(z, ablate=apart).logits for z in (x, y))
    np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE)
    kept = [Knockout("frame 4 -> newline"), Cache(of="frames 0-3", keep=0.0, when="video")]
    one, other = (tiny.run(z, ablate=kept).logits for z in (x, y))
    assert np.abs(one - other).max() > 0.1


def test_an_evicted_set_that_is_empty_is_an_error(tiny: VideoModel) -> None:
    x = example(tiny)
    with pytest.raises(ProbeError, match="every key stayed; the ablation did not fire"):
        tiny.generate(x, ablate=[Cache(layers="0-1", keep=1.0, at=2)], max_new_tokens=3)
    with pytest.raises(ProbeError, match="did not fire"):
        tiny.generate(x, ablate=[Cache(score=LastQuery(), keep=0.5, select=Pages(500))],
                      max_new_tokens=3)  # fmt: skip
    # One token: nothing is decoded, so there is nothing to prove.
    plain = tiny.generate(x, max_new_tokens=1)
    assert np.array_equal(
        tiny.generate(x, ablate=[CASES[0]], max_new_tokens=1).logits, plain.logits
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Cache(), "give keep= .* or keep_tokens="),
        (Cache(keep=0.5, keep_tokens=2), "give keep= .* or"),
        (Cache(keep=1.5), "it is a fraction"),
        (Cache(keep=0.5, when="later"), "there are video, prefill, step"),
        (Cache(keep=0.5, how="drop"), "there are evict, hide"),
        (Cache(keep=0.5, layers=7), "layer 7 does not exist"),
        (Cache(keep=0.5, layers="7-"), "layer 7 does not exist"),
        (Cache(keep=0.5, at=9), "layer 9 does not exist"),
        (Cache(keep=0.5, window=-1), "it is a number of tokens"),
        (Cache(keep=0.5, score=EncoderReceived()), "not known where keys are judged"),
        (Cache(keep=0.5, refresh=0.9), "it is a cosine"),
        (Cache(keep=0.5, score=Norm(), history=True), "a score that reads attention"),
        (replace(STEP, layers="0-"), "layer 0 comes before layer 1"),
        (Cache(keep=0.5, of="frame 9"), "frames 0 to 4"),
        (Cache(keep=0.5, score=Recent(queries=0)), "ask for at least 1"),
    ],
    ids=str,
)
def test_wrong_arguments(tiny: VideoModel, wrong: Cache, words: str) -> None:
    x = example(tiny)
    for do in (lambda: tiny.run(x, ablate=[wrong]), lambda: tiny.generate(x, ablate=[wrong])):
        with pytest.raises(ProbeError, match=words) as error:
            do()
        assert "\n" not in str(error.value)


def test_what_a_run_by_steps_cannot_do_is_refused(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    with pytest.raises(ProbeError, match='use logits="readout"'):
        tiny.run(x, ablate=[CASES[0]], logits="all")
    with pytest.raises(ProbeError):
        tiny.run(x, [AttentionMass(queries="tokens", keys="frames")], ablate=[CASES[0]])
    with pytest.raises(ProbeError):
        tiny.run(x, [GradientTimesInput(7)], ablate=[CASES[0]])


def test_a_generation_can_sample(tiny: VideoModel) -> None:
    x = example(tiny)
    settings = {"max_new_tokens": 6, "do_sample": True, "temperature": 2.0, "seed": 3}
    gen = tiny.generate(x, ablate=[STEP], **settings)
    assert (
        gen.meta["generated"] != tiny.generate(x, ablate=[STEP], max_new_tokens=6).meta["generated"]
    )
    run = tiny.run(tiny.force(x, gen.meta["generated"]), ablate=[STEP])
    np.testing.assert_array_equal(run.logits, gen.logits)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(torch.cosine_similarity(*(torch.from_numpy(v).double() for v in (a, b)), dim=0))
