"""Component swaps against runs of the controls made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from probe import ProbeError
from probe.ablate import Random, Uniform, controls, layer, parse
from probe.ablate import Reduce as Cut
from probe.diagnose import Case, ComponentSwap
from probe.diagnose.component_swap import CHOICE, RANDOM, swaps
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models


@pytest.fixture
def case(tiny: VideoModel) -> Case:
    return Case(tiny, tiny_models.example(tiny, 6), "red", ("red", "blue", "green"))


def test_gains_are_method_minus_controls(case: Case) -> None:
    one = ComponentSwap(keep=[0.5, 0.25], draws=2)
    found = one.measure(case)

    def margin(ablations: list) -> float:
        return case.gold_margin(case.model.run(case.x, ablate=ablations))

    seeds = [made[0].score.seed for _, what, made in one.rows(case) if what == RANDOM]
    assert len(set(seeds)) == 4
    for keep, drawn in ((0.5, seeds[:2]), (0.25, seeds[2:])):
        own = margin(parse(f"fastv(k=2, keep={keep})"))
        random = [margin([Cut(at=layer(2), score=Random(seed), keep=keep)]) for seed in drawn]
        even = margin([Cut(at=layer(2), score=Uniform(), keep=keep)])
        assert found[f"margin {keep:g}"] == pytest.approx(own, abs=1e-5)
        assert found[f"right {keep:g}"] == (own > 0)
        gain = found[f"gain {keep:g} {RANDOM}"]
        assert gain == pytest.approx(own - np.mean(random), abs=1e-5)
        gain = found[f"right_gain {keep:g} {RANDOM}"]
        assert gain == pytest.approx((own > 0) - np.mean(np.array(random) > 0))
        assert found[f"gain {keep:g} score=Uniform()"] == pytest.approx(own - even, abs=1e-5)


@pytest.mark.full
def test_every_control_of_a_recipe_of_several_is_there(case: Case) -> None:
    text = "holitom({keep}, k=2, score=EncoderReceived())"
    one = ComponentSwap(text, keep=[0.3], draws=3)
    rows = one.rows(case)
    expected = controls(parse(text.replace("{keep}", "0.3")))
    whats = [what for _, what, _ in rows]
    assert whats.count(RANDOM) == 3
    assert {*whats} == {"", RANDOM, *expected} - {"score=Random(seed=0)"}
    seeds = [str(made) for _, what, made in rows if what == RANDOM]
    assert len(set(seeds)) == 3 and "Random()" not in "".join(seeds)
    together = swaps(case, [ComponentSwap(keep=[0.5]), one])
    assert together[1] == pytest.approx(one.measure(case), abs=1e-5)
    assert together[0] == pytest.approx(ComponentSwap(keep=[0.5]).measure(case), abs=1e-5)


def test_a_choice_without_a_score_is_drawn_at_random(case: Case) -> None:
    found = ComponentSwap("divprune({keep})", keep=[0.5], draws=2).measure(case)
    assert f"gain 0.5 {CHOICE}" in found


def test_draws_differ_from_case_to_case_and_not_from_run_to_run(case: Case) -> None:
    one = ComponentSwap(keep=[0.5])
    other = Case(case.model, case.x, "red", case.answers, id="another")
    assert str(one.rows(case)) == str(one.rows(case)) != str(one.rows(other))
    with pytest.raises(ProbeError, match="no reduction"):
        ComponentSwap("m3(side=1)").measure(case)
