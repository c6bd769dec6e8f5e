"""Linguistic bias against plain forward passes, counts and a model that sees nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax

from probe.diagnose import LinguisticBias
from probe.errors import ProbeError
from tests import tiny as tiny_models
from tests.diagnose import seeing


def log_p(model, x, mask=None) -> np.ndarray:
    """Log-probabilities of the answers from transformers' own forward pass."""
    with torch.no_grad():
        how = {} if mask is None else {"attention_mask": mask}
        row = model.hf(**{**x.inputs, **how}).logits[0, -1].double().numpy()
    return log_softmax(row[[model.tokenizer(a)["input_ids"][0] for a in seeing.ANSWERS]])


def test_probabilities_are_those_of_plain_forward_passes(tiny) -> None:
    found = LinguisticBias().measure(seeing.case(tiny, gold="blue"))
    case = seeing.case(tiny)
    full = log_p(tiny, case.x)
    blind = log_p(tiny, tiny.encode(None, "Which colour?"))
    assert found["log_p"] == pytest.approx(full[1], abs=1e-4)
    assert found["log_p_question"] == pytest.approx(blind[1], abs=1e-4)
    assert found["gain"] == pytest.approx(full[1] - blind[1], abs=1e-4)
    assert found["wrong"] == (full.argmax() != 1)
    assert found["like_blind"] == (full.argmax() == blind.argmax())


def test_without_the_question_is_a_mask_on_its_columns(tiny) -> None:
    """Question tokens are read by none but themselves; the reference is a dense mask."""
    case = seeing.case(tiny)
    found = LinguisticBias().measure(case)
    count, question = len(case.x.layout), case.x.layout.select("question")
    allowed = np.tril(np.ones((count, count), bool))
    others = np.setdiff1d(np.arange(count), question)
    allowed[np.ix_(others, question)] = False
    mask = torch.zeros(1, 1, count, count)
    mask[0, 0][torch.from_numpy(~allowed)] = float("-inf")
    eager = tiny_models.twin(tiny)
    assert found["log_p_video"] == pytest.approx(log_p(eager, case.x, mask)[0], abs=1e-4)


@pytest.mark.parametrize("without", ["none", "blank", "cut"])
def test_a_blind_model_gains_nothing(without: str) -> None:
    found = LinguisticBias(without).measure(seeing.case(seeing.blind_model()))
    assert found["gain"] == pytest.approx(0, abs=1e-5)
    assert found["like_blind"] == 1


def test_a_model_to_which_all_clips_look_the_same_gains_nothing_over_a_blank_one() -> None:
    found = LinguisticBias("blank").measure(seeing.case(seeing.zero_projector()))
    assert found["gain"] == pytest.approx(0, abs=1e-5)


def test_bias_share_is_a_count() -> None:
    rng = np.random.default_rng(1)
    wrong = rng.random(40) < 0.6
    biased = np.where(wrong, (rng.random(40) < 0.5).astype(float), np.nan)
    chance = np.where(wrong, np.where(rng.random(40) < 0.7, 1 / 3, 0.0), np.nan)
    table = pd.DataFrame(
        {
            "sample": range(40),
            "video": np.arange(40) // 2,
            "gain": 1.0,
            "wrong": wrong.astype(float),
            "biased": biased,
            "chance": chance,
        }
    )
    pooled = LinguisticBias().pool(table).set_index("name")
    count = wrong.sum()
    assert pooled.loc["bias_share", "value"] == pytest.approx((biased[wrong] == 1).sum() / count)
    assert pooled.loc["bias_chance", "value"] == pytest.approx(chance[wrong].mean())
    row = pooled.loc["bias_above_chance"]
    assert row["value"] == pytest.approx((biased - chance)[wrong].mean())
    assert row["n"] == count and row["low"] < row["value"] < row["high"]
    assert pooled.loc["wrong", "value"] == wrong.mean()


def test_no_wrong_answer_leaves_the_share_undefined() -> None:
    nan = [np.nan] * 3
    table = pd.DataFrame({"sample": range(3), "video": range(3), "biased": nan, "chance": nan})
    pooled = LinguisticBias().pool(table).set_index("name")
    assert np.isnan(pooled.loc["bias_share", "value"]) and pooled.loc["bias_share", "n"] == 0


@pytest.mark.parametrize("name", seeing.FAMILIES)
def test_every_family(name: str) -> None:
    case = seeing.case(seeing.models.build(name), frames=4, gold="A", answers=("A", "B"))
    found = LinguisticBias("cut").measure(case)
    assert np.isfinite([found["gain"], found["gain_question"]]).all()
    if case.model.family.needs_clip:
        with pytest.raises(ProbeError, match='without="blank"'):
            LinguisticBias().measure(case)
    with pytest.raises(ProbeError, match='without="all"'):
        LinguisticBias("all").measure(case)
