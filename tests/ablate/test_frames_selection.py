"""SelectFrames: the temporal search, and what scores frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

from probe import spec
from probe.ablate.frame_scores import (
    LETTERS,
    SUFFICIENT,
    EqualFrames,
    FrameChange,
    FrameFunction,
    FrameScorer,
    SaysYes,
    ShuffledFrames,
    named,
    names_in,
    scored,
)
from probe.ablate.frame_selection import SelectFrames, best, search
from probe.ablate.recipes.frames import tstar
from probe.errors import ProbeError
from probe.models.video_model import VideoModel
from probe.video import Clip, read
from tests.families import models
from tests.tiny import clip, example

VIDEOS = Path(__file__).parents[2].parent / "shared" / "videos"
HERE = "tests.ablate.test_frames_selection"
NAMES = {
    one.__name__: one
    for one in (SelectFrames, SaysYes, FrameChange, EqualFrames, ShuffledFrames, FrameFunction)
}


def brightness(frame: np.ndarray, question: str) -> float:
    """A scorer for `FrameFunction`."""
    assert frame.shape == (40, 60, 3) and question == "What moves?"
    return float(frame.mean())


def below_zero(frame: np.ndarray, question: str) -> float:
    return -1.0


@dataclass(frozen=True)
class Counted(FrameScorer):
    """Scores that are written down."""

    values: tuple[float, ...] = ()

    def scores(self, model, x, clip, frames):
        return np.asarray(self.values)[frames]


def bump(count: int, target: int, width: float = 6.0) -> np.ndarray:
    """A target that is seen a few frames around, as one on screen for seconds."""
    return np.exp(-(((np.arange(count) - target) / width) ** 2))


class Asked:
    """A scorer that counts what it is asked for."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.asked = values, []

    def __call__(self, frames) -> np.ndarray:
        self.asked += list(frames)
        return self.values[frames]


def test_a_full_budget_sees_everything_once() -> None:
    for count in (1, 2, 7, 64, 200):
        score = Asked(np.random.default_rng(count).random(count))
        found = search(score, count, count, each=16)
        assert sorted(score.asked) == list(range(count))
        assert found.seen.all()
        assert (found.level >= score.values).all()
        assert int(np.argmax(found.level)) == int(np.argmax(score.values))


def test_a_planted_target_is_found_within_the_budget() -> None:
    hits, even = 0, 0
    for trial in range(30):
        target = int(np.random.default_rng(trial).integers(0, 600))
        score = Asked(bump(600, target))
        found = search(score, 600, 80, each=16, seed=trial)
        assert len(set(score.asked)) == len(score.asked) == found.seen.sum() <= 80
        hits += target in best(found.level, 8)
        even += target in np.linspace(0, 599, 80).astype(int)  # the same cost, spent evenly
    assert hits >= 24 > 3 * even


def test_enough_ends_the_search() -> None:
    score = Asked(bump(600, 300))
    found = search(score, 600, 600, each=16, enough=0.9)
    assert max(score.values[score.asked]) >= 0.9
    assert len(score.asked) < 200
    assert max(score.values[np.concatenate(found.rounds[:-1])]) < 0.9


def test_rounds() -> None:
    score = Asked(bump(200, 50))
    first = search(score, 200, 40, each=12, seed=3)
    assert [len(r) for r in first.rounds] == [12, 12, 12, 4]
    assert first.rounds[0].tolist() == np.linspace(0, 199, 12).astype(int).tolist()
    again = search(Asked(score.values), 200, 40, each=12, seed=3)
    other = search(Asked(score.values), 200, 40, each=12, seed=4)
    scaled = search(Asked(4 * score.values), 200, 40, each=12, seed=3)
    assert np.array_equal(first.level, again.level)
    assert not np.array_equal(first.seen, other.seen)
    assert np.array_equal(first.seen, scaled.seen)  # multiples change nothing
    assert np.array_equal(4 * first.level, scaled.level)


def test_good_frames_lend_their_score_to_their_neighbours() -> None:
    values = np.random.default_rng(0).random(100)
    found = search(Asked(values), 100, 12, each=12, spread=5)
    asked = found.rounds[0]
    level = np.zeros(100)
    level[asked] = values[asked]
    limit = np.percentile(values[asked], 75)
    for frame in [n for n in asked if values[n] >= limit]:
        for offset in range(-5, 6):
            if 0 <= frame + offset < 100:
                lent = level[frame] / (1 + abs(offset))
                level[frame + offset] = max(level[frame + offset], lent)
    np.testing.assert_allclose(found.level, level)


def test_later_rounds_look_where_scores_are_high() -> None:
    near = 0
    for seed in range(20):
        found = search(Asked(bump(300, 150, 20)), 300, 32, each=16, seed=seed)
        near += int((np.abs(found.rounds[1] - 150) < 40).sum())
    assert near > 0.6 * 20 * 16  # a quarter of the frames


def test_any_scores_give_chances() -> None:
    for seed in range(40):
        draw = np.random.default_rng(seed)
        count = int(draw.integers(1, 90))
        values = draw.random(count) ** 8 * 10.0 ** draw.integers(-9, 9) * (draw.random() < 0.9)
        found = search(Asked(values), count, int(draw.integers(1, count + 1)), each=5, seed=seed)
        assert np.isfinite(found.level).all()


def test_best() -> None:
    assert best(np.array([0.1, 0.9, 0.3, 0.8]), 2).tolist() == [1, 3]
    assert best(np.ones(9), 3).tolist() == [0, 4, 8]
    assert best(np.array([1, 0, 0, 2, 0, 0, 0.0]), 4).tolist() == [0, 1, 3, 6]


def test_it_is_the_clip_of_these_frames(tiny: VideoModel) -> None:
    shown = clip(12)
    x = example(tiny, shown)
    scores = (0, 0, 0.9, 0, 0.1, 0, 0, 1, 0.2, 0, 0.3, 0)
    one = SelectFrames(Counted(scores), keep=3, budget=1.0, spread=0)
    y = example(tiny, shown.take([2, 7, 10]))
    assert np.array_equal(tiny.run(x, ablate=[one]).logits, tiny.run(y).logits)
    generated = tiny.generate(x, ablate=[one], max_new_tokens=3)
    assert np.array_equal(generated.logits, tiny.generate(y, max_new_tokens=3).logits)
    assert one.prepare(tiny, x).clips[0].note == "3 of 12 frames selected, 12 scored"


def test_even_scores_choose_evenly(tiny: VideoModel) -> None:
    x = example(tiny, clip(12))
    one = SelectFrames(EqualFrames(), keep=4, budget=1.0)
    assert one.prepare(tiny, x).clips[0].source_frames.tolist() == [0, 9, 21, 33]


def test_neutral_and_text_alone(tiny: VideoModel) -> None:
    x = example(tiny, clip(6))
    one = SelectFrames(FrameChange(), keep=6)
    assert one.prepare(tiny, x) is x
    assert SelectFrames(FrameChange()).prepare(tiny, x) is x  # keeps as many as there are
    y = tiny.encode(None, "What moves?")
    assert SelectFrames(FrameChange(), keep=3).prepare(tiny, y) is y


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")
def test_a_pool_from_the_file(tiny: VideoModel) -> None:
    path = VIDEOS / "sample_demo_1.mp4"
    pool = read(path, frames=None, fps=4)
    x = tiny.encode(path, "What moves?", frames=3)
    one = SelectFrames(FrameChange(), budget=1.0, spread=0, fps=4)
    change = np.abs(np.diff(pool.frames.astype(np.float32), axis=0)).mean((1, 2, 3))
    top = np.sort(1 + np.argsort(-change, kind="stable")[:3])
    y = tiny.encode(pool.take(top), "What moves?", frames=None)
    assert np.array_equal(tiny.run(x, ablate=[one]).logits, tiny.run(y).logits)


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "qwen3_vl", "instructblipvideo"])
def test_says_yes_is_the_probability_of_the_letter(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    pool = clip(3, 40, 60, seed=9)
    found = SaysYes().scores(model, x, pool, [2, 0])
    times = {"qwen2_5_vl": 2, "qwen3_vl": 2, "instructblipvideo": 4}.get(name, 1)
    for value, frame in zip(found, (2, 0), strict=True):
        alone = Clip.from_array(pool.frames[[frame] * times], seconds=np.arange(times) + frame / 2)
        y = model.encode(alone, SUFFICIENT.format(question="What moves?") + LETTERS, frames=None)
        with torch.no_grad():
            logits = model.hf(**y.inputs).logits[0, -1].double()
        letter = model.tokenizer("A", add_special_tokens=False)["input_ids"][0]
        assert value == pytest.approx(float(logits.softmax(0)[letter]), rel=1e-5)
    assert found[0] != found[1]


def test_what_says_yes_asks(tiny: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    encode = type(tiny).encode
    monkeypatch.setattr(
        type(tiny), "encode", lambda m, v, q, **k: asked.append(q) or encode(m, v, q, **k)
    )
    x = encode(tiny, clip(3), "What moves?", frames=None)
    for scorer in (
        SaysYes(),
        SaysYes(objects=("a red ball", "dog")),
        SaysYes(ask="Is '{question}' answered?", letters=" Y or N?", yes="Y"),
    ):
        scorer.scores(tiny, x, x.clips[0], [1])
    letters = " A. yes, B. no\nAnswer with the option's letter directly."
    assert asked == [
        "What moves?\nDoes the image contain sufficient information to answer the given question?"
        + letters,
        "Does the image contain any object of a red ball, dog?" + letters,
        "Is 'What moves?' answered? Y or N?",
    ]


def test_relative_to_no(tiny: VideoModel) -> None:
    x = example(tiny, 3)
    yes, no = (SaysYes(yes=t).scores(tiny, x, x.clips[0], [0, 1, 2]) for t in "AB")
    found = SaysYes(against="B").scores(tiny, x, x.clips[0], [0, 1, 2])
    np.testing.assert_allclose(found, yes / (yes + no))


def test_names_are_parsed_strictly() -> None:
    for text, names in (
        ('["red car", "dog"]', ("red car", "dog")),
        ('Step 3: ["red  car"] is it.', ("red car",)),
        ("[]", ()),
        ("none", ()),
        ("['red car']", ()),
        ('["a"] or ["b"]', ()),
        ('["a", 3]', ()),
        ('["a", ""]', ()),
        ('[["a"]]', ()),
        ('{"a": ["b"]}', ("b",)),
        ('[__import__("os").system("true")]', ()),
        ("][", ()),
        ("[" * 5000 + "]" * 5000, ()),
        (f'["{"x" * 81}"]', ()),
    ):
        assert names_in(text) == names, text


def test_decoupling_asks_the_model_without_a_clip(tiny: VideoModel, monkeypatch) -> None:
    x = example(tiny, 3)
    assert named(tiny, "What moves?") == ()  # a random model writes no list
    plain = SaysYes().scores(tiny, x, x.clips[0], [0])
    assert SaysYes(decouple=True).scores(tiny, x, x.clips[0], [0]) == plain
    monkeypatch.setattr("probe.ablate.frame_scores.named", lambda model, question: ("dog",))
    by_name = SaysYes(objects=("dog",)).scores(tiny, x, x.clips[0], [0])
    assert SaysYes(decouple=True).scores(tiny, x, x.clips[0], [0]) == by_name != plain


def test_other_scorers(tiny: VideoModel) -> None:
    x, shown = example(tiny, 6), clip(6)
    frames = shown.frames.astype(float)
    change = FrameChange().scores(tiny, x, shown, [0, 3, 5])
    expected = [0, np.abs(frames[3] - frames[2]).mean(), np.abs(frames[5] - frames[4]).mean()]
    np.testing.assert_allclose(change, expected, rtol=1e-6)
    own = FrameFunction(f"{HERE}:brightness").scores(tiny, x, shown, [4, 1])
    np.testing.assert_allclose(own, [frames[4].mean(), frames[1].mean()])
    every = FrameChange().scores(tiny, x, shown, range(6))
    dealt = ShuffledFrames(FrameChange(), seed=2).scores(tiny, x, shown, range(6))
    assert sorted(dealt) == sorted(every) and not np.array_equal(dealt, every)
    some = ShuffledFrames(FrameChange(), seed=2).scores(tiny, x, shown, [4, 2])
    assert some.tolist() == dealt[[4, 2]].tolist()


def test_text_and_json() -> None:
    for one in (
        SelectFrames(),
        SelectFrames(FrameFunction("a:b"), keep=3, budget=12, fps=1.0),
        SelectFrames(ShuffledFrames(SaysYes(objects=("dog",)), seed=2), budget=0.5),
    ):
        assert spec.parse(str(one), NAMES) == [one]
        assert spec.from_json(one.to_json(), NAMES) == one
    assert tstar(FrameChange(), keep=4) == SelectFrames(FrameChange(), keep=4)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (SelectFrames(FrameChange(), keep=7), "keep=7 frames of a pool of 6; keep 1 to 6"),
        (SelectFrames(FrameChange(), keep=0), "keep=0"),
        (SelectFrames(FrameChange(), keep=2, budget=1.5), "budget=1.5"),
        (SelectFrames(FrameChange(), keep=2, budget=0), "budget=0"),
        (SelectFrames(FrameChange(), keep=2, each=0), "each and most"),
        (SelectFrames(FrameChange(), keep=2, fps=1), "fps= reads the clip's file, and noise is"),
        (SelectFrames(FrameFunction("os:nothing"), keep=2), "'os:nothing' cannot be imported"),
        (SelectFrames(FrameFunction("nothing"), keep=2), "'nothing' cannot be imported"),
        (SelectFrames(FrameFunction("os:sep"), keep=2), "is not a function"),
        (SelectFrames(FrameFunction(f"{HERE}:below_zero"), keep=2), "at least 0, one for each"),
        (SelectFrames(SaysYes(yes="yes, it does"), keep=2), "is not one token of this model"),
    ],
)
def test_refused(tiny: VideoModel, one: SelectFrames, words: str) -> None:
    with pytest.raises(ProbeError, match=words) as error:
        one.prepare(tiny, example(tiny, 6))
    assert "\n" not in str(error.value)


def test_a_scorer_is_needed(tiny: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    one = spec.parse('SelectFrames("bright", keep=2)', NAMES)[0]
    with pytest.raises(ProbeError, match="'bright' scores no frames; write SaysYes"):
        one.prepare(tiny, example(tiny, 6))


def test_scores_must_be_finite(tiny: VideoModel) -> None:
    x = example(tiny, 3)
    for values in ((1.0, np.nan, 1.0), (1.0, np.inf, 1.0)):
        with pytest.raises(ProbeError, match="finite numbers"):
            scored(Counted(values), tiny, x, x.clips[0], range(3))
