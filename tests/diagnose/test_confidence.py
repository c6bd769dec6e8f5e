"""Confidence of answers: probabilities of a plain pass, and the known calibrations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from probe.diagnose import AnswerConfidence
from tests.diagnose import seeing


def pooled(confidence, right) -> pd.DataFrame:
    count = len(right)
    table = pd.DataFrame({"sample": range(count), "video": range(count)})
    table["confidence"], table["right"] = confidence, np.asarray(right, float)
    return AnswerConfidence().pool(table).set_index("name")


def test_the_values_are_those_of_a_plain_pass(tiny) -> None:
    case = seeing.case(tiny)
    found = AnswerConfidence().measure(case)
    with torch.no_grad():
        row = tiny.hf(**case.x.inputs).logits[0, -1].double().numpy()
    p = softmax(row[[tiny.tokenizer(answer)["input_ids"][0] for answer in seeing.ANSWERS]])
    assert found["confidence"] == pytest.approx(p.max(), abs=1e-5)
    assert found["right"] == (p.argmax() == 0)
    assert found["ahead"] == pytest.approx(np.diff(np.sort(p))[-1], abs=1e-5)
    assert found["entropy"] == pytest.approx(entropy(p), abs=1e-5)
    whole = AnswerConfidence().measure(seeing.case(tiny, gold=None, answers=()))
    assert whole["confidence"] == pytest.approx(softmax(row).max(), abs=1e-5)
    assert whole["right"] == 1


def test_the_known_calibration() -> None:
    found = pooled([0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1])
    assert found.loc["ece", "value"] == pytest.approx(0.25)
    assert found.loc["brier", "value"] == pytest.approx(0.0625)


def test_a_constant_confidence_is_calibrated_and_says_nothing() -> None:
    right = np.arange(60) % 4 > 0
    found = pooled(np.full(60, 0.75), right)
    assert found.loc["ece", "value"] == pytest.approx(0, abs=1e-12)
    assert found.loc["brier", "value"] == pytest.approx(0.75 * 0.25)
    assert found.loc["aurc", "value"] == pytest.approx(0.25)


def test_areas_of_the_best_order() -> None:
    rng = np.random.default_rng(0)
    right = rng.permutation(np.repeat([0.0, 1.0], [600, 1400]))
    found = pooled(np.where(right == 1, 0.9, 0.1) + rng.uniform(0, 0.05, 2000), right)
    expected = 0.3 + 0.7 * np.log(0.7)
    assert found.loc["aurc", "value"] == pytest.approx(expected, abs=1e-3)
    assert found.loc["aurc_best", "value"] == pytest.approx(found.loc["aurc", "value"], abs=1e-9)
    assert found.loc["brier", "low"] < found.loc["brier", "value"] < found.loc["brier", "high"]


def test_one_video_has_no_interval() -> None:
    table = pd.DataFrame(
        {"sample": [0, 1], "video": "a", "confidence": [0.2, 0.9], "right": [0.0, 1.0]}
    )
    found = AnswerConfidence().pool(table).set_index("name")
    assert np.isnan(found.loc["ece", "value"]) and found.loc["right", "value"] == 0.5


@pytest.mark.parametrize("name", seeing.FAMILIES)
def test_every_family(name: str) -> None:
    case = seeing.case(seeing.models.build(name), frames=4, gold="A", answers=("A", "B"))
    assert 0.5 <= AnswerConfidence().measure(case)["confidence"] <= 1
