"""Scores against plain transformers: forwards with the answer appended, generation."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import probe
from probe import ProbeError
from probe.ablate import fastv, parse
from probe.diagnose.case import Case
from probe.models.video_model import VideoModel
from probe.study import Sample, Task
from probe.study.controls import NoClip
from probe.study.score import log_likelihoods
from probe.study.score_text import normalised, parsed_letter, says_yes, token_f1
from probe.testbed import items
from tests import tiny as tiny_models

ONES, WORDS = ("A", "B", "C", "D"), ("left", "to the right", "up", "leftish")
LISTS = [
    [],
    [fastv(k=2, keep=0.5)],
    parse("Knockout('video -> question', layers=1)"),
    parse("Frames('shuffle', seed=1)"),
    [NoClip()],
    parse("Contrast(against='blank')"),
    parse("visual_blackout([0]); fastv(k=1, keep=0.3)"),
]


@cache
def trained() -> VideoModel:
    return probe.load("testbed/onevision")


def plain(model: VideoModel, case: Case, answer: str) -> tuple[list[float], np.ndarray]:
    """log p of each token of an answer, and the row before the first, by transformers alone."""
    inputs = {name: v for name, v in case.x.inputs.items() if name != "position_ids"}
    ids = model.tokenizer(answer, add_special_tokens=False)["input_ids"]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([ids])], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.no_grad():
        logits = model.hf(**inputs, use_cache=False).logits[0].double()
    rows = torch.log_softmax(logits[-len(ids) - 1 : -1], -1)
    return [float(row[token]) for row, token in zip(rows, ids, strict=True)], rows[0].numpy()


def tiny_case(model: VideoModel, answers: tuple[str, ...] = WORDS, gold: int = 1) -> Case:
    x = tiny_models.example(model)
    return Case(model, x, answers[gold] if answers else "to the right", answers)


@pytest.mark.parametrize("normalise", [False, True])
def test_likelihoods_are_those_of_forced_answers(tiny: VideoModel, normalise: bool) -> None:
    case = tiny_case(tiny)
    task = Task("choice", "{question}", ("likelihood", "margin", "probability", "confidence",
                                         "accuracy"), normalise=normalise)  # fmt: skip
    row = task.score(case, [[]])[0]
    assert not isinstance(row, ProbeError)
    each = np.array([(np.mean if normalise else np.sum)(plain(tiny, case, a)[0]) for a in WORDS])
    wrong = np.delete(each, 1)
    assert row["likelihood"] == pytest.approx(each[1], abs=1e-4)
    assert row["margin"] == pytest.approx(each[1] - wrong.max(), abs=1e-4)
    share = np.exp(each) / np.exp(each).sum()
    assert row["probability"] == pytest.approx(share[1], abs=1e-5)
    assert row["confidence"] == pytest.approx(share.max(), abs=1e-5)
    assert row["accuracy"] == float(each.argmax() == 1)


def test_one_pass_gives_what_forcing_gives(other: VideoModel) -> None:
    model = other
    case = tiny_case(model, ONES)
    once = log_likelihoods(case, ONES, LISTS)
    forced = log_likelihoods(case, ONES, LISTS, forced=True)
    for a, b in zip(once, forced, strict=True):
        assert not isinstance(a, ProbeError) and not isinstance(b, ProbeError)
        assert a.keys() == b.keys()
        assert [a[n] for n in a] == pytest.approx([b[n] for n in a], abs=1e-4)
    assert len({round(row["0"], 4) for row in once}) == len(LISTS)  # every ablation did something
    assert once[0]["2"] == pytest.approx(plain(model, case, "C")[0][0], abs=1e-4)


def test_answers_that_share_a_first_token_are_forced(tiny: VideoModel) -> None:
    case = tiny_case(tiny, ("red", "rose"), gold=0)
    row = Task("choice", "{question}").score(case, [[]])[0]
    red, rose = (sum(plain(tiny, case, a)[0]) for a in ("red", "rose"))
    assert row["margin"] == pytest.approx(red - rose, abs=1e-4)


def test_ablated_answers_are_those_of_ablated_runs(tiny: VideoModel) -> None:
    case = tiny_case(tiny)
    found = log_likelihoods(case, WORDS[:2], LISTS)
    for ablations, row in zip(LISTS, found, strict=True):
        x = tiny.encode(tiny_models.clip(5), "What moves?", answer="to the right", frames=None)
        logits = torch.tensor(tiny.run(x, ablate=ablations).logits).double()
        ids = torch.tensor(tiny.tokenizer("to the right")["input_ids"])
        rows = torch.log_softmax(logits, -1)[torch.arange(len(ids)), ids]
        assert row["1"] == pytest.approx(float(rows.sum()), abs=1e-4)


def test_without_a_clip_it_is_the_text_alone(tiny: VideoModel) -> None:
    case = tiny_case(tiny)
    row = log_likelihoods(case, WORDS[:1], [[NoClip()]])[0]
    blind = Case(tiny, tiny.encode(None, "What moves?"), WORDS[0], ())
    assert row["0"] == pytest.approx(sum(plain(tiny, blind, WORDS[0])[0]), abs=1e-4)
    assert row["tokens"] == 0


def test_an_open_question_is_ahead_of_every_other_token(tiny: VideoModel) -> None:
    case = tiny_case(tiny, ())
    row = Task("open", scores=("margin", "likelihood")).score(case, [[]])[0]
    each, first = plain(tiny, case, "to the right")
    token = tiny.tokenizer("t")["input_ids"][0]
    assert row["likelihood"] == pytest.approx(sum(each), abs=1e-4)
    assert row["margin"] == pytest.approx(each[0] - np.delete(first, token).max(), abs=1e-4)


def test_what_cannot_run_leaves_the_others_alone(tiny: VideoModel) -> None:
    case = tiny_case(tiny, ONES)
    wrong = [fastv(k=9, keep=0.5)]
    task = Task("choice", "{question}")
    mixed = task.score(case, [[], LISTS[1], wrong, LISTS[2], wrong])
    alone = task.score(case, [[], LISTS[1], LISTS[2]])
    assert [isinstance(row, ProbeError) for row in mixed] == [False, False, True, False, True]
    assert "layers 0 to 3" in str(mixed[2])
    kept = [row for row in mixed if not isinstance(row, ProbeError)]
    assert kept == alone
    broken = Case(tiny, case.x, "A", ("A", ""))
    with pytest.raises(ProbeError, match="has no token"):
        task.score(broken, [[]])


def test_margins_and_words_of_a_trained_model() -> None:
    model = trained()
    task = Task("choice", "{question}", ("margin", "accuracy", "match", "f1"))
    right = []
    for item in items(n=3, types=["color", "count", "order"]):
        q = item.question
        sample = Sample(item.id, item, q.text, q.answer, q.options, str(item.scene.seed))
        case = task.case(model, sample, 8)
        row = task.score(case, [[]])[0]
        assert not isinstance(row, ProbeError)
        each = {option: sum(plain(model, case, option)[0]) for option in q.options}
        gold = each.pop(q.answer)
        assert row["margin"] == pytest.approx(gold - max(each.values()), abs=1e-4)
        assert row["accuracy"] == float(gold > max(each.values()))
        with torch.no_grad():
            inputs = {n: v for n, v in case.x.inputs.items() if n != "position_ids"}
            ids = model.hf.generate(**inputs, max_new_tokens=32, do_sample=False)
        count = case.x.inputs["input_ids"].shape[1]
        said = model.tokenizer.decode(ids[0, count:], skip_special_tokens=True).strip()
        assert row["match"] == float(said == q.answer)
        right.append(row["accuracy"])
    assert sum(right) >= 2


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B", "B"), ("b", "B"), ("(B)", "B"), ("B.", "B"), (" B\n", "B"), ("**B**", "B"),
        ("B. the red one", "B"), ("(C) blue, because ...", "C"), ("C: blue", "C"),
        ("The answer is B.", "B"), ("the best answer is (C) blue", "C"), ("Answer: A", "A"),
        ("The correct option is B, since A is wrong", "B"), ("blue", "C"), ("Blue.", "C"),
        ("I think it is (A)", "A"), ("A man runs", None), ("", None), ("E", None),
        ("It is (A) or (B)", None), ("The answer is a mystery", None), ("A and B", None),
        ("The answer is A. The answer is B.", None), ("A, B", None), ("(A) or (B)", None),
        ("A, C and B", None), ("The answer is A or B", None), ("B, the red one", "B"),
        ("The answer is **B. the red one**", "B"), ("**B.** the red one", "B"),
        ("Answer: **B**", "B"),
    ],
)  # fmt: skip
def test_letters_are_parsed_or_not(said: str, letter: str | None) -> None:
    assert parsed_letter(said, "ABC", ("green", "the red one", "blue")) == letter


@pytest.mark.parametrize(
    ("said", "yes"),
    [
        ("yes", True), ("Yes.", True), ("No, there is not", False), ("NO", False),
        ("Yes, there is. No doubt.", True), ("There is", None), ("Yes and no", None), ("", None),
        ("Not at all", None), ("none", None), ("yesterday", None), ("No yes", None),
    ],
)  # fmt: skip
def test_yes_and_no_are_strict(said: str, yes: bool | None) -> None:
    assert says_yes(said) is yes


def test_texts_are_normalised_nearly_as_in_squad() -> None:
    assert normalised("A.") == "a" != normalised("")  # an answer, and none
    assert normalised("  The Red-Circle, a  star! ") == "red circle star"
    assert normalised("ｆｕｌｌ width") == "full width"
    assert token_f1("a red circle", "the red square") == pytest.approx(0.5)
    assert token_f1("red red", "red") == pytest.approx(2 / 3)
    assert token_f1("", "red") == 0 and token_f1("the", "The.") == 1
