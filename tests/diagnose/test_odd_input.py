"""Cases that diagnoses cannot take, refused in a line, and answers that are nothing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from probe import ProbeError
from probe.diagnose import Case, diagnose, parse
from probe.diagnose.signals import labels
from probe.diagnose.signals.answer import Answer
from probe.diagnose.signals.supported import normalised
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models


def refused(case: Case, name: str) -> str:
    with pytest.raises(ProbeError) as caught:
        diagnose(case, parse(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_answers_that_are_none(tiny: VideoModel) -> None:
    x = tiny_models.example(tiny, 4)
    for empty in ("", " "):
        with pytest.raises(ProbeError, match="is empty"):
            Case(tiny, x, empty)
    alone = Case(tiny, x, "red", ("red",))
    for name in ("AnswerConfidence()", "Blackout()", "AttentionMap(); OcclusionMap()"):
        assert '"red" is the only possible answer' in refused(alone, name)


@pytest.mark.parametrize(
    "name", ["AnswerConfidence()", 'LinguisticBias("cut")', "Robustness()", "ContributionMap()"]
)
def test_a_wrong_answer_that_begins_like_the_right_one(tiny: VideoModel, name: str) -> None:
    answers = ("red circle", "red square", "green star")
    case = Case(tiny, tiny_models.example(tiny, 4), answers[0], answers)
    assert "begin with the same token" in refused(case, name)


def test_a_truth_that_is_no_number(tiny: VideoModel) -> None:
    x, meta = tiny_models.example(tiny, 4), {"order_sensitive": "maybe"}
    case = Case(tiny, x, "red", ("red", "blue"), meta=meta)
    assert "order_sensitive is 'maybe'" in refused(case, "Robustness(modes=[])")


def test_a_model_that_ends_at_once_has_no_signals(tiny: VideoModel) -> None:
    case = Case(tiny, tiny_models.example(tiny, 4))
    end = tiny.tokenizer.all_special_ids[0]
    vars(case)["generated"] = SimpleNamespace(meta={"generated": [end]})
    [found] = diagnose(case, parse("HallucinationSignals()")).values()
    assert found["length"] == 0 and np.isnan(found["hallucinated"])


def test_the_letter_a_is_an_answer_and_silence_is_not(tiny: VideoModel) -> None:
    assert normalised("A.") == normalised(" a") == "a" != normalised("...")
    assert normalised("The red  circle!") == "red circle"
    case = Case(tiny, tiny_models.example(tiny, 4), "A", ("A", "B"))
    assert labels(Answer(case, (tiny.tokenizer.all_special_ids[0],)))["right"] == 0
