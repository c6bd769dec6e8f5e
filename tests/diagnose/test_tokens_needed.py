"""Tokens needed: by every subset, by a plain decoder, by models that need a known number."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from probe import ProbeError, testbed
from probe.ablate import parse
from probe.diagnose import Case, RedundancyEstimate, TokensNeeded, case_of, diagnose
from probe.diagnose.keeping import Keeping, keeping_of
from probe.diagnose.redundancy_check import RedundancyCheck, correlations
from probe.diagnose.redundancy_estimate import crossing, effective
from probe.engine.again import Again
from probe.models.video_model import VideoModel
from probe.plot.needed import needed as figure_of
from probe.testbed.evidence import shown
from tests import tiny as tiny_models
from tests.decoder import decode
from tests.diagnose import few, seeing
from tests.diagnose.trained import model_of
from tests.families import models

PLACES = [(1, 2), (2, 0), (3, 3), (4, 1)]
QUICK = ("llava_onevision", "qwen3_vl", "instructblipvideo")
FAMILIES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.full) for name in models.NAMES
]


@pytest.fixture
def case(tiny: VideoModel) -> Case:
    return Case(tiny, tiny_models.example(tiny, 2), "red", ("red", "blue", "green"))


def test_margins_of_sets_are_the_plain_decoders(case: Case) -> None:
    keeping = Keeping(case, "gold")
    red, *others = (case.first(answer) for answer in case.answers)
    for kept in ([], [3], [0, 2, 5], [1, 2, 3, 4, 5, 6, 7]):
        present = np.ones((case.model.n_layers, len(case.x.layout)), bool)
        present[:, np.delete(keeping.tokens, kept)] = False
        row = decode(case.model, case.x, present=present)[case.x.layout.last]
        found = keeping.measured(np.array(kept, dtype=np.int64))
        assert found[0] == pytest.approx(row[red] - row[others].max(), abs=1e-4)
        assert found[2] == pytest.approx(np.exp(row[red]) / np.exp(row).sum(), rel=1e-4)


def test_runs_that_go_on_are_the_runs_themselves(case: Case) -> None:
    again = Again(case.model, case.x, (0,))
    for ablations in ("fastv(k=2, keep=0.5)", "fastv(k=1, keep=0.5)"):
        alone = case.model.run(case.x, ablate=parse(ablations))
        np.testing.assert_allclose(again.run(parse(ablations)).logits, alone.logits, atol=1e-5)


def brute(keeping: Keeping) -> int:
    """The smallest number of tokens of any subset that keeps the answer."""
    total = len(keeping.tokens)
    every = (np.array(c, int) for n in range(total + 1) for c in combinations(range(total), n))
    return next(len(kept) for kept in every if keeping.margin(kept) > 0)


@pytest.mark.parametrize("seed", range(3))
def test_greedy_is_near_every_subset(seed: int, tiny: VideoModel) -> None:
    x = tiny_models.example(tiny, tiny_models.clip(2, seed=seed))
    case = Case(tiny, x, "red", ("red", "blue", "green"))
    values = TokensNeeded(search="greedy", ratio=1, tubelet=(1, 1)).measure(case)
    truth = brute(keeping_of(case))
    assert truth <= values["needed"] <= truth + 1
    assert values["needed_margin"] > 0
    bisected = TokensNeeded(ratio=1).measure(case)
    assert bisected["needed"] >= values["needed"]


@pytest.mark.parametrize(
    ("search", "needed"), [("bisect", 1), ("bisect", 2), ("scan", 2), ("greedy", 2)]
)
def test_a_model_that_needs_a_known_number(search: str, needed: int) -> None:
    case = few.planted(PLACES if needed == 2 else PLACES[:1], needed)
    found = TokensNeeded(search=search, ratio=1, random=1)
    values = found.measure(case)
    assert values["margin_own"] > 0 > values["margin_none"]
    assert values["needed"] == needed and values["removable"] == 24 - needed
    kept = np.searchsorted(case.video_tokens, found.needed(case))
    assert set(kept) <= set(few.numbers(case, PLACES))
    assert values["needed_random"] >= needed


def test_a_blind_model_needs_none() -> None:
    case = seeing.case(seeing.blind_model())
    values = TokensNeeded().measure(case)
    assert values["needed"] == values["needed_random"] == 0 and values["needed_margin_kept"] == 1
    estimate = RedundancyEstimate().measure(case)
    assert estimate["estimate"] == estimate["estimate_none"] == len(case.video_tokens)
    greedy = TokensNeeded(search="greedy")
    assert greedy.measure(case)["needed"] == 0 and len(greedy.needed(case)) == 0


def test_own_answers_are_kept_where_they_are_wrong() -> None:
    case = few.planted(PLACES[:1], 1)
    wrong = Case(case.model, case.x, "blue", case.answers)
    assert TokensNeeded().measure(wrong)["needed"] == 1
    gold = TokensNeeded(keeps="gold")
    values = gold.measure(wrong)
    assert np.isnan(values["needed"]) and values["margin_own"] < 0
    with pytest.raises(ProbeError, match="does not give"):
        gold.needed(wrong)


def test_g_search_gives_each_layer_its_rate(case: Case) -> None:
    values = TokensNeeded(search="g_search", random=0).measure(case)
    by_layer = values["needed_by_layer"]
    assert values["needed"] == by_layer.mean() and values["needed_margin"] > 0
    assert (np.diff(by_layer) <= 0).all() and by_layer[0] == len(case.video_tokens)
    assert np.isnan(values["needed_random"])


def test_arguments_that_fit_nothing(case: Case) -> None:
    with pytest.raises(ProbeError, match='search="best"; there are bisect'):
        TokensNeeded(search="best").measure(case)
    with pytest.raises(ProbeError, match="sizes grow"):
        TokensNeeded(ratio=0.5).measure(case)
    with pytest.raises(ProbeError, match="name importance maps"):
        TokensNeeded(by=()).measure(case)
    with pytest.raises(ProbeError, match='keeps="mine"'):
        TokensNeeded(keeps="mine").measure(case)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name: str) -> None:
    model = models.build(name)
    case = Case(model, models.example(model), "red", ("red", "blue", "green"))
    several = [RedundancyEstimate(), TokensNeeded(), TokensNeeded(search="greedy", random=1)]
    estimate, found, greedy = diagnose(case, several).values()
    assert 0 <= greedy["needed"] <= found["needed"] <= len(case.video_tokens)
    assert found["needed_margin"] > 0 and 0 <= estimate["estimate"] <= len(case.video_tokens)
    keeping = keeping_of(case)
    some = np.array([0, 3])
    alone = model.run(case.x, ablate=[keeping.ablation(some)])
    assert keeping.margin(some) == pytest.approx(keeping.of(alone), abs=1e-5)


def test_crossings_and_effective_numbers() -> None:
    assert crossing([(0, 1.0), (10, 2.0)]) == 0
    assert crossing([(0, -1.0), (10, -2.0)]) == 10
    assert crossing([(0, -1.0), (3, 1.0)]) == pytest.approx(1.0)  # halfway in log(1 + n)
    assert crossing([(0, 1.0), (1, -1.0), (3, 1.0)]) == pytest.approx(2 * np.sqrt(2) - 1)
    assert effective(np.array([1.0, 1, 1, 1, 0])) == pytest.approx(4)
    assert np.isnan(effective(np.zeros(3)))


def test_correlations_are_scipys() -> None:
    rng = np.random.default_rng(0)
    removable = rng.integers(0, 20, 30).astype(float)
    table = pd.DataFrame(
        {
            "video": np.arange(30) % 10,
            "removable": removable,
            "estimate": removable + rng.normal(0, 5, 30),
            "frame_cosine": 1.0,
            "margin_none": np.where(removable > 15, 1.0, -1.0),
        }
    )
    found = correlations(table).set_index("name")
    some = table[table["margin_none"] <= 0]
    for part, ending in ((table, ""), (some, " where some are needed")):
        row = found.loc[f"spearman estimate removable{ending}"]
        expected = spearmanr(part["estimate"], part["removable"]).statistic
        assert row["value"] == pytest.approx(expected) and row["n"] == len(part)
        assert row["low"] < row["value"] < row["high"]
    assert np.isnan(found.loc["spearman frame_cosine removable", "value"])


@pytest.mark.full
@pytest.mark.parametrize("name", ["onevision", "qwen"])
def test_the_tokens_found_on_a_trained_model_show_what_is_asked(name: str) -> None:
    model, inside, area = model_of(name), [], []
    for item in testbed.items("neutral", n=3, seed=91, types=["color"]):
        case = case_of(model, item)
        values = RedundancyCheck().measure(case)
        assert values["needed"] <= values["needed_random"]
        found = TokensNeeded().needed(case)
        evidence = shown(case.x.layout, item).evidence
        inside.extend(evidence[found])
        area.append(evidence[case.video_tokens].mean())
    assert inside and np.mean(inside) > 3 * np.mean(area)


def test_the_figure_draws_the_shares_kept() -> None:
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"needed": rng.integers(0, 9, 20).astype(float)})
    table["needed_random"] = table["needed"] * 3
    table["removable"], table["removable_random"] = 96 - table["needed"], 96 - 3 * table["needed"]
    table["estimate_none"], table["margin_none"] = rng.random(20), rng.normal(size=20)
    left, right = figure_of(table).axes
    x, y = left.lines[0].get_data()
    for count in range(9):
        kept = np.asarray(y)[np.asarray(x) <= count].max()
        assert kept == pytest.approx((table["needed"] <= count).mean())
    drawn = [len(line.get_xdata()) for line in right.lines[:2]]
    assert drawn == [(table["margin_none"] <= 0).sum(), (table["margin_none"] > 0).sum()]
