"""Benchmark validity: margins of plain passes, the pooled shares, and what is undefined."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress

from probe.diagnose import BenchmarkValidity, Case
from probe.diagnose.benchmark_validity import slope
from probe.errors import ProbeError
from tests import tiny as tiny_models
from tests.diagnose import seeing

OPTIONS = list(seeing.ANSWERS)


def ahead(model, x, names: list[str], gold: str) -> float:
    others = [name for name in names if name != gold]
    return seeing.plain_margin(model, x, (gold, *others))


def test_the_choice_is_among_letters_of_listed_options(tiny) -> None:
    case = seeing.case(tiny, gold="blue")
    found = BenchmarkValidity((1, 3)).measure(case)
    clip = case.x.clip

    def asked(shown):
        return tiny.encode(shown, "Which colour?", options=OPTIONS, frames=None)

    letters = ["A", "B", "C"]
    assert found["margin"] == pytest.approx(ahead(tiny, asked(clip), letters, "B"), abs=1e-4)
    three = clip.take(np.array([0, 3, 5]), "three")
    assert found["margin_3"] == pytest.approx(ahead(tiny, asked(three), letters, "B"), abs=1e-4)
    blind = ahead(tiny, asked(None), letters, "B")
    assert found["right_blind"] == (blind > 0)
    curve = [found["margin_1"], found["margin_3"], found["margin"]]
    expected = linregress(np.log2([1, 3, 6]), curve).slope
    assert found["margin_slope"] == pytest.approx(expected)
    assert found["chance"] == 1 / 3 and found["gap"] == found["right_choice"] - found["right_open"]


def test_the_choice_among_texts_and_bare_answers(tiny) -> None:
    case = seeing.case(tiny)
    for choice, options in (("texts", OPTIONS), ("bare", None)):
        found = BenchmarkValidity((), choice).measure(case)
        x = tiny.encode(case.x.clip, "Which colour?", options=options, frames=None)
        assert found["margin"] == pytest.approx(ahead(tiny, x, OPTIONS, "red"), abs=1e-4)
        assert np.isnan(found["margin_slope"])


def test_a_case_that_lists_its_options_is_the_same_choice(tiny) -> None:
    shown = tiny_models.clip(6, 56, 56)
    x = tiny_models.example(tiny, shown, "Which colour?", options=OPTIONS)
    listed = Case(tiny, x, "B", ("A", "B", "C"))
    found = BenchmarkValidity(()).measure(listed)
    plain = BenchmarkValidity(()).measure(seeing.case(tiny, gold="blue"))
    assert found["margin"] == pytest.approx(plain["margin"], abs=1e-5)
    assert found["right_open"] == plain["right_open"]


def test_the_open_answer_is_the_models_own_words(tiny) -> None:
    case = seeing.case(tiny)
    said = tiny.generate(case.x, max_new_tokens=4).text
    right = seeing.case(tiny, gold=f"The {said}", answers=(f"The {said}", "blue"))
    assert BenchmarkValidity((), max_new_tokens=4).measure(right)["right_open"] == 1
    assert BenchmarkValidity((), max_new_tokens=4).measure(case)["right_open"] == 0


def test_one_frame_is_worth_its_share_above_chance() -> None:
    table = pd.DataFrame(
        {
            "sample": range(40),
            "video": range(40),
            "right_choice": np.repeat([1.0, 0.0], [30, 10]),
            "right_frame": np.repeat([1.0, 0.0], [20, 20]),
            "chance": 0.25,
        }
    )
    found = BenchmarkValidity().pool(table).set_index("name")
    assert found.loc["frame_share", "value"] == pytest.approx(20 / 30)
    row = found.loc["frame_share_above_chance"]
    assert row["value"] == pytest.approx((0.5 - 0.25) / (0.75 - 0.25))
    assert row["low"] < row["value"] < row["high"]
    assert found.loc["chance", "value"] == 0.25
    table["right_choice"] = 0.0
    nothing = BenchmarkValidity().pool(table).set_index("name")
    assert nothing.loc[["frame_share", "frame_share_above_chance"], "value"].isna().all()


def test_a_model_that_sees_nothing_is_as_good_with_one_frame() -> None:
    found = BenchmarkValidity((1, 2)).measure(seeing.case(seeing.blind_model()))
    assert found["right_blind"] == found["right_frame"] == found["right_choice"]
    assert found["margin_slope"] == pytest.approx(0, abs=1e-5)


def test_wrong_arguments(tiny) -> None:
    case = seeing.case(tiny)
    with pytest.raises(ProbeError, match="at least 1 frame"):
        BenchmarkValidity((0,)).measure(case)
    with pytest.raises(ProbeError, match='choice="words"'):
        BenchmarkValidity(choice="words").measure(case)
    with pytest.raises(ProbeError, match="begin with the same token"):
        BenchmarkValidity(choice="bare").measure(seeing.case(tiny, answers=("red", "rose")))
    assert np.isnan(slope({4: 1.0}))


@pytest.mark.parametrize("name", seeing.FAMILIES)
def test_every_family(name: str) -> None:
    case = seeing.case(seeing.models.build(name), frames=4, gold="A", answers=("A", "B"))
    found = BenchmarkValidity((1, 2)).measure(case)
    assert np.isfinite([found["margin"], found["right_frame"]]).all()
    assert np.isnan(found["right_blind"]) == case.model.family.needs_clip
