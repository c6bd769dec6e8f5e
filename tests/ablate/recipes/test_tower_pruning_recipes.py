"""Recipes that choose by the vision tower's attention: FasterVLM, HiRED, HoliTom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from probe import ProbeError
from probe.ablate import CLS, EncoderReceived, LastQuery, PerFrame, Reduce, fastv, layer
from probe.ablate import tokens as before_the_model
from probe.ablate.recipes.diversity import vispruner
from probe.ablate.recipes.tower_pruning import fastervlm, hired, holitom
from probe.ablate.reduction.budget import Keep
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.models.video_model import VideoModel
from tests.ablate.plain import named
from tests.ablate.recipes.by_hand import embedded, logits, matrix, noise
from tests.ablate.recipes.test_frame_merging_recipes import still
from tests.families import models
from tests.tiny import example

NAMES = ["tiny", "video_llava", "qwen2_5_vl"]


@dataclass(frozen=True)
class Given(Score):
    """Numbers that a test writes down."""

    values: tuple[float, ...] = ()

    def score(self, c: Candidates) -> Tensor:
        return torch.tensor(self.values, dtype=torch.float64)[c.position]


def given(values: np.ndarray) -> Given:
    return Given(tuple(np.asarray(values, float).reshape(-1).tolist()))


@pytest.fixture(scope="module")
def llava() -> VideoModel:
    """A tower with CLS."""
    return models.build("video_llava")


# -- FasterVLM -----------------------------------------------------------------------------


def test_fastervlm_keeps_what_cls_attends_to(llava: VideoModel) -> None:
    x = models.example(llava)
    tower = models.build("video_llava", "eager").hf.model.video_tower
    with torch.no_grad():
        pixels = x.inputs["pixel_values_videos"].flatten(0, 1)
        row = tower(pixels, output_attentions=True).attentions[-2][:, :, 0, :].mean(1)
    torch.testing.assert_close(row.sum(-1), torch.ones(5))
    kept = llava.run(x, ablate=[fastervlm(0.4)]).kept.values[0, x.layout.select("video")]
    # Its decoder sees CLS too, first of each frame: a token like the others.
    best = torch.zeros(5, 10).scatter(1, row.topk(4).indices, 1).bool()
    np.testing.assert_array_equal(kept.reshape(5, 10), best)


@pytest.mark.parametrize(("keep", "count"), [(0.25, 144), (0.1, 58), (0.05, 29)])
def test_fastervlms_published_counts(keep: float, count: int) -> None:
    c = noise(2, 24, 24, 4)
    one = replace(fastervlm(keep), score=given(np.arange(1152)))
    kept = matrix(one, c).anchor
    np.testing.assert_array_equal(kept[:count], np.arange(576 - count, 576))
    assert len(kept) == 2 * count


def test_fastervlm_does_not_read_the_question(llava: VideoModel) -> None:
    kept: dict[str, list] = {"tower": [], "question": []}
    for question in ("What moves?", "Is it red?"):
        x = llava.encode(models.tiny.clip(5, 40, 60), question, frames=None)
        video = x.layout.select("video")
        for name, one in (("tower", fastervlm(0.3)), ("question", fastv(2, 0.3))):
            kept[name].append(llava.run(x, ablate=[one]).kept.values[-1, video])
    assert (kept["tower"][0] == kept["tower"][1]).all()
    assert (kept["question"][0] != kept["question"][1]).any()


def test_fastervlm_is_vispruner_without_diversity(llava: VideoModel) -> None:
    x = models.example(llava)
    mine = llava.run(x, ablate=[fastervlm(0.4)])
    theirs = llava.run(x, ablate=[vispruner(0.4, important=1.0)])
    np.testing.assert_array_equal(mine.kept, theirs.kept)
    np.testing.assert_allclose(mine.logits, theirs.logits, rtol=0, atol=1e-6)


def test_a_tower_without_cls_is_refused_with_a_name(tiny: VideoModel) -> None:
    for one in (fastervlm(), hired()):
        with pytest.raises(ProbeError, match="EncoderReceived\\(\\) can stand for it"):
            tiny.run(example(tiny), ablate=[one])


# -- HiRED ---------------------------------------------------------------------------------


def quadrant(strip: bool) -> np.ndarray:
    """The top quarter of an overview's scores in one quadrant, or in one strip."""
    grid = np.zeros((24, 24))
    grid[:12, 12:] = 1
    return grid if not strip else np.repeat([0, 1, 0, 0], 144).reshape(24, 24)


@pytest.mark.parametrize("strips", [False, True])
def test_hired_gives_a_planted_quadrant_everything_that_is_left(strips: bool) -> None:
    c = noise(5, 24, 24, 4)
    scores = np.concatenate([quadrant(strips).reshape(-1), np.zeros(4 * 576)])
    one = hired(0.2, 0.75, score=given(np.arange(2880)), spread=given(scores), grid=(2, 2),
                legacy_strips=strips)  # fmt: skip
    assert np.bincount(matrix(one, c).anchor // 576, minlength=5).tolist() == [432, 0, 144, 0, 0]
    # The released count in strips gives half of it to a crop that has nothing; and the quadrants
    # above one another share a strip.
    other = replace(one, budget=replace(one.budget, strips=not strips))
    assert np.bincount(matrix(other, c).anchor // 576).tolist() == [432, 72, 72]


def test_hired_on_frames_spends_by_early_attention(llava: VideoModel) -> None:
    x = models.example(llava)
    video = x.layout.select("video")
    tower = models.build("video_llava", "eager").hf.model.video_tower
    with torch.no_grad():
        maps = tower(x.inputs["pixel_values_videos"].flatten(0, 1), output_attentions=True)
    early, late = (maps.attentions[n][:, :, 0].mean(1).numpy() for n in (0, -2))
    for keep, alpha in ((0.5, 0.5), (0.3, 0.8), (0.3, 0.0)):
        kept = llava.run(x, ablate=[hired(keep, alpha)]).kept.values[0, video].reshape(5, 10)
        best = np.argsort(-early.reshape(-1), kind="stable")[: round(50 * (1 - alpha))]
        hits = np.bincount(best // 10, minlength=5)
        counts = [min(10, int(50 * keep * share + 1e-9)) for share in hits / hits.sum()]
        assert kept.sum() == sum(counts) <= 50 * keep
        for frame, count in enumerate(counts):
            chosen = np.argsort(-late[frame], kind="stable")[:count]
            np.testing.assert_array_equal(np.flatnonzero(kept[frame]), np.sort(chosen))
        assert alpha == 0 or len(set(counts)) > 1
    assert np.array_equal(llava.run(x, ablate=[hired(1.0)]).logits, llava.run(x).logits)


def test_strips_without_crops_are_refused() -> None:
    with pytest.raises(ProbeError, match="give grid="):
        hired(legacy_strips=True)


# -- HoliTom -------------------------------------------------------------------------------


def static_places(x: np.ndarray, tau: float, a: int, b: int) -> np.ndarray:
    """Places of [time, place, channel] that stay alike from frame a to b."""
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    alike = [(unit[t] * unit[t + 1]).sum(-1) > tau for t in range(a, b)]
    return np.all(alike, axis=0) if alike else np.zeros(x.shape[1], bool)


def best_segments(x: np.ndarray, tau: float) -> tuple[int, list[tuple[int, int]]]:
    """The largest gain of all 2^(T - 1) segmentations, and the one that has it."""
    # The seeds of the test below are such that there is one only.
    time, found = len(x), (-1, [])
    for count in range(time):
        for cuts in combinations(range(1, time), count):
            edges = [0, *cuts, time]
            parts = [(a, b - 1) for a, b in pairwise(edges)]
            gain = sum(int(static_places(x, tau, a, b).sum()) * (b - a) for a, b in parts)
            if gain > found[0]:
                found = gain, parts
    return found


def drifting(seed: int, time: int = 6) -> Candidates:
    """Frames of which some places change and others hardly do."""
    rng = np.random.default_rng(seed)
    x = np.zeros((time, 12, 8))
    x[0] = rng.normal(size=(12, 8))
    for t in range(1, time):
        change = rng.random(12) < 0.35
        x[t] = np.where(change[:, None], rng.normal(size=(12, 8)), x[t - 1])
        x[t] += 0.02 * rng.normal(size=(12, 8))
    return Candidates.grid(torch.tensor(x.reshape(time, 3, 4, 8)))


@pytest.mark.parametrize("seed", [0, 1, 2, 4])
def test_holitom_merges_static_places_and_corrects_the_rate(seed: int) -> None:
    c = drifting(seed)
    x = c.x.numpy().reshape(6, 12, 8)
    gain, parts = best_segments(x, 0.9)
    assert gain > 5
    # With keep=1 nothing but the merging happens.
    rate = {}
    for keep in (1.0, 0.3):
        score = np.random.default_rng(9).random(72)
        outer = replace(holitom(keep, 0.9, inner=False, score=given(score))[0], order="raster")
        made = matrix(outer, c)
        left = 72 - gain
        rate[keep] = min(1.0, keep * 72 / left)
        counts, expected = [], []
        for a, b in parts:
            static = static_places(x, 0.9, a, b)
            counts.append(int(np.ceil(static.sum() * rate[keep] - 1e-9)))
            if keep == 1:
                expected += [x[a : b + 1, p].mean(0) for p in np.flatnonzero(static)]
            for t in range(a, b + 1):
                here = np.flatnonzero(~static) + 12 * t
                number = int(np.ceil(len(here) * rate[keep] - 1e-9))
                best = here[np.argsort(-score[here], kind="stable")[:number]]
                counts.append(number)
                alone = [row for row in range(len(made)) if made.anchor[row] in best]
                assert len(alone) == number
                assert (np.bincount(made.row)[alone] == 1).all()
        assert len(made) == sum(counts)
        if keep == 1:
            assert len(made) == left
            merged = np.bincount(made.row) > 1
            np.testing.assert_allclose(
                np.sort(made.apply(c.x).numpy()[merged], 0),
                np.sort(np.array(expected), 0), rtol=0, atol=1e-6,
            )  # fmt: skip
        np.testing.assert_allclose(made.gain, 1, rtol=0, atol=1e-12)
        assert made.mass.sum() <= 72


@pytest.mark.parametrize("name", NAMES)
def test_of_a_still_clip_one_frame_is_left(name: str, request: pytest.FixtureRequest) -> None:
    model = named(request, name)
    x = still(model)
    video = x.layout.select("video")
    groups = int(x.layout.group.max()) + 1
    frame = video[x.layout.group[video] == 0]
    run = model.run(x, ablate=holitom(1 / groups, 0.8, inner=False))
    assert run.cost.length[0] == len(x.layout) - len(video) + len(frame)
    h = embedded(model, x)
    done = run.reductions[0]
    y = done.weights.apply(h[torch.as_tensor(done.candidates)])
    order = np.argsort(x.layout.row[done.anchors] * 99 + x.layout.col[done.anchors], kind="stable")
    first = np.argsort(x.layout.row[frame] * 99 + x.layout.col[frame], kind="stable")
    torch.testing.assert_close(
        y[torch.as_tensor(order)], h[torch.as_tensor(frame[first])], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_without_static_places_it_is_the_best_of_each_frame(
    name: str, request: pytest.FixtureRequest
) -> None:
    model = named(request, name)
    x = models.example(model)
    best = Reduce(at=before_the_model(), segment=PerFrame(), score=EncoderReceived(),
                  budget=Keep(0.4, "ceil"), position="reindex")  # fmt: skip
    run = model.run(x, ablate=holitom(0.4, 1.1, inner=False, variant="paper"))
    same = model.run(x, ablate=[best])
    np.testing.assert_array_equal(run.kept, same.kept)
    assert np.array_equal(run.logits, same.logits)
    whole = holitom(1.0, 1.1, inner=False)
    assert np.array_equal(model.run(x, ablate=whole).logits, model.run(x).logits)


def test_the_code_puts_static_tokens_first(tiny: VideoModel) -> None:
    """Segment by segment, in the order in which the decoder reads them."""
    x = example(tiny)
    h = embedded(tiny, x)
    both = [holitom(1.0, -0.2, inner=False, variant=name)[0] for name in ("code", "paper")]
    runs = [tiny.run(x, ablate=[one]) for one in both]
    c = Candidates.grid(h[torch.as_tensor(x.layout.select("video"))].reshape(5, 2, 2, -1))
    for one, run in zip(both, runs, strict=True):
        y = matrix(replace(one, score=given(np.zeros(20))), c).apply(c.x)
        new = torch.cat([h[:6], y, h[26:]])
        expected = logits(tiny, new, torch.arange(len(new)))
        np.testing.assert_allclose(run.logits[0], expected, rtol=0, atol=2e-5)
    assert np.abs(runs[0].logits - runs[1].logits).max() > 1e-3


def test_dynamic_tokens_may_have_context(tiny: VideoModel) -> None:
    c = drifting(3)
    score = given(np.random.default_rng(1).random(72))
    alone, context = (
        matrix(holitom(0.4, 0.9, inner=False, context=share, score=score)[0], c)
        for share in (0.0, 0.5)
    )
    assert len(alone) == len(context)
    assert (np.bincount(context.row) > 1).sum() > (np.bincount(alone.row) > 1).sum()
    np.testing.assert_allclose(context.gain, 1, rtol=0, atol=1e-12)
    assert (context.coverage > 0).sum() > (alone.coverage > 0).sum()
    for wrong in ({"context": 1.5}, {"variant": "released"}):
        with pytest.raises(ProbeError, match="shares from 0 to 1"):
            holitom(**wrong)


@pytest.mark.parametrize("k", [1, 2])
def test_the_inner_stage_folds_in_order(tiny: VideoModel, k: int) -> None:
    """Every token that goes is folded into the most similar that stays, one after the other."""
    x = example(tiny)
    h, video = embedded(tiny, x), x.layout.select("video")
    inner = holitom(0.4, 1.1, k=k)[1]
    assert inner.at == layer(k) and inner.score == LastQuery()
    kept = tiny.run(x, ablate=[fastv(k, 0.5)]).kept.values[k]
    stay, go = video[kept[video]], video[~kept[video]]

    def fold(h: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        new, old = h.clone(), h.clone()
        for token in go:
            near = torch.cosine_similarity(old[stay], old[token], dim=-1).argmax()
            new[stay[near]] = (new[stay[near]] + old[token]) / 2
        rows = torch.as_tensor(np.flatnonzero(kept))
        return new[rows], ids[rows]

    run = tiny.run(x, ablate=[inner])
    np.testing.assert_array_equal(run.kept.values[k], kept)
    expected = logits(tiny, h, torch.arange(len(h)), {k: fold})
    np.testing.assert_allclose(run.logits[0], expected, rtol=0, atol=2e-5)


def test_both_stages(llava: VideoModel) -> None:
    x = models.example(llava)
    n, video = len(x.layout), len(x.layout.select("video"))
    run = llava.run(x, ablate=holitom(0.3, 1.1, k=2, score=CLS()))
    first = video - 5 * (10 - 3)
    half = first - round(first / 2)
    assert run.cost.length == (n - video + first,) * 2 + (n - video + half,) * 2
    assert len(run.reductions) == 2
