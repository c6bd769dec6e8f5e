"""A fraction of the visual tokens for each layer: given, on a curve, found on examples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from probe import ProbeError
from probe.ablate import LastQuery, Random, fastv, parse
from probe.ablate.recipes.layer_pruning import yopo_drop
from probe.ablate.recipes.schedules import curve, find_sigmoid, g_search, p_sigmoid, schedule
from probe.models.video_model import VideoModel
from tests.ablate.plain import named
from tests.ablate.test_oracles import check_definition
from tests.families import models
from tests.tiny import clip, example


@pytest.mark.parametrize("name", ["tiny", "video_llava", "qwen2_5_vl"])
@pytest.mark.parametrize("keep", [0.5, 0.3, 0.07])
def test_a_step_is_fastv(name: str, keep: float, request: pytest.FixtureRequest) -> None:
    model = named(request, name)
    x = models.example(model, answer="red")
    run = model.run(x, ablate=schedule((1, 1, keep, keep), LastQuery()))
    same = model.run(x, ablate=[fastv(2, keep)])
    assert np.array_equal(run.logits, same.logits)
    np.testing.assert_array_equal(run.kept, same.kept)


def test_to_nothing_is_layer_drop_and_all_ones_is_nothing(tiny: VideoModel) -> None:
    x = example(tiny)
    run, same = (tiny.run(x, ablate=one) for one in (schedule((1, 1, 1, 0)), [yopo_drop(3)]))
    assert np.array_equal(run.logits, same.logits)
    assert schedule((1, 1, 1, 1)) == []
    assert np.array_equal(tiny.run(x, ablate=schedule([1])).logits, tiny.run(x).logits)


@pytest.mark.parametrize("rates", [(1, 0.8, 0.5, 0.2), (1, 0.9, 0.9, 0.1), (1, 0.35, 0.3, 0.0)])
def test_kept_sets_are_nested(pair: tuple[VideoModel, VideoModel], rates: tuple) -> None:
    for model in pair:
        x = example(model)
        n = len(x.layout.select("video"))
        for score in (LastQuery(), Random(2)):
            used = rates[: model.n_layers]
            run = model.run(x, ablate=schedule(used, score))
            kept = run.kept.values
            assert all((after <= before).all() for before, after in itertools.pairwise(kept))
            text = len(x.layout) - n
            assert [length - text for length in run.cost.length] == [
                round(r * n) if r in (0, 1) else run.kept.values[k].sum() - text
                for k, r in enumerate(used)
            ]
            counts = kept.sum(1) - text
            assert np.abs(counts - np.array(used) * n).max() <= 0.5
            check_definition(model, schedule(used, score))


def test_rates_that_rise_are_refused(tiny: VideoModel) -> None:
    for rates in ((1, 0.5, 0.6), (1.2,), (1, -0.1)):
        with pytest.raises(ProbeError, match="never rise"):
            schedule(rates)
    with pytest.raises(ProbeError, match="no attention before layer 0"):
        tiny.run(example(tiny), ablate=schedule((0.5,)))


def test_the_sigmoid(tiny: VideoModel) -> None:
    rates = curve(28, 0.4, 12.0, 0.1)
    assert rates[0] == 1 and all(a >= b for a, b in itertools.pairwise(rates))
    for k in range(1, 28):
        assert math.isclose(rates[k], 0.1 + 0.9 / (1 + math.exp(12 * (k / 28 - 0.4))), abs_tol=6e-4)
    one = p_sigmoid(4, 0.4, 12.0, 0.1)
    assert one == schedule(curve(4, 0.4, 12.0, 0.1))
    assert parse(str(one[0]).removesuffix("[0]")) == one


@pytest.fixture(scope="module")
def examples(tiny: VideoModel) -> list:
    return [tiny.encode(clip(5, seed=s), "What moves?", frames=None) for s in range(3)]


def first_logit(run) -> float:
    """Of one token, lifted above 0."""
    return float(run.logits[0, 40]) + 5


def test_g_search_by_hand(tiny: VideoModel, examples: list) -> None:
    """Every layer's rate is the smallest that the tolerance allows, the later ones set to it."""
    levels, epsilon = (0.0, 0.3, 0.6), 0.02
    found = g_search(tiny, examples, epsilon, first_logit, levels=levels, score=LastQuery())

    def value(rates: list) -> float:
        runs = [tiny.run(x, ablate=schedule(rates, LastQuery())) for x in examples]
        return float(np.mean([first_logit(run) for run in runs]))

    full, rates = value([1.0]), [1.0]
    for layer in range(1, 4):
        options = sorted(level for level in (*levels, 1.0) if level <= rates[-1])
        rates.append(next(
            level for level in options
            if level == rates[-1] or value([*rates, *[level] * (4 - layer)]) >= 0.98 * full
        ))  # fmt: skip
    assert found == schedule(rates, LastQuery())
    assert value(rates) >= (1 - epsilon) * full
    assert len(found) > 0 and rates[-1] < 1, "the tolerance should allow something here"


def test_g_search_refuses(tiny: VideoModel, examples: list) -> None:
    with pytest.raises(ProbeError, match="no calibration example"):
        g_search(tiny, [])
    with pytest.raises(ProbeError, match="must be above 0"):
        g_search(tiny, examples[:1], measure=lambda run: -1.0)
    with pytest.raises(ProbeError, match="epsilon=1"):
        g_search(tiny, examples, epsilon=1)


def test_without_tolerance_for_a_fall_everything_stays(tiny: VideoModel, examples: list) -> None:
    tokens = iter(range(10_000))
    falling = g_search(
        tiny, examples[:1], 0.0, lambda run: 1.0 if next(tokens) % 4 == 0 else 0.5,
        levels=(0.2, 0.4, 0.6),
    )  # fmt: skip
    assert falling == []
    rising = g_search(tiny, examples[:1], 0.0, lambda run: 1.0, levels=(0.2, 0.4))
    assert rising == schedule((1, 0.2, 0.2, 0.2))


def test_find_sigmoid(tiny: VideoModel, examples: list) -> None:
    how = {"steepness": (5.0, 30.0), "least": (0.0, 0.2)}
    best = find_sigmoid(tiny, examples, 0.6, first_logit, **how)
    wanted = best[0].__str__().removesuffix("[0]")
    assert parse(wanted) == best and wanted.startswith("p_sigmoid(")
    values = {}
    for steep in how["steepness"]:
        for least in how["least"]:
            middles = np.arange(-0.5, 1.5, 0.001)
            means = [np.mean(curve(4, middle, steep, least)) for middle in middles]
            middle = float(middles[int(np.argmin(np.abs(np.array(means) - 0.6)))])
            one = p_sigmoid(4, middle, steep, least)
            runs = [tiny.run(x, ablate=one) for x in examples]
            values[steep, least] = np.mean([first_logit(run) for run in runs])
    steep, least = max(values, key=lambda pair: values[pair])
    assert f"steepness={steep}, least={least}" in wanted
    mean = np.mean(curve(4, float(wanted.split("middle=")[1].split(",")[0]), steep, least))
    assert abs(mean - 0.6) < 0.01
    with pytest.raises(ProbeError, match="no sigmoid has it"):
        find_sigmoid(tiny, examples, cost=0.05)
