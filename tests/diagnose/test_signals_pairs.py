"""Signals of pairs of runs, of words and of samples, against plain runs and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from probe.ablate import Knockout
from probe.diagnose import influence
from probe.diagnose.case import Case
from probe.diagnose.signals import (
    OptionMargin,
    Paired,
    SampledAgreement,
    Signal,
    TokenIndex,
    TokenMargin,
    VideoInfluence,
    given,
    own,
)
from probe.diagnose.signals.answer import Answer
from probe.diagnose.signals.paired import CLIPS, hellinger
from probe.diagnose.signals.semantic import clusters
from probe.diagnose.signals.words import lemma, words_of
from probe.errors import ProbeError
from probe.video import perturb
from tests import tiny as tiny_models
from tests.families import models

NAMES = [
    name
    if name in ("instructblipvideo", "qwen3_vl")
    else pytest.param(name, marks=pytest.mark.full)
    for name in models.NAMES
]


@pytest.fixture(scope="module")
def answer(tiny) -> Answer:
    return given(Case(tiny, tiny_models.example(tiny)), "left, Xq")


# -- pairs of runs -------------------------------------------------------------------------


def test_distance_of_distributions() -> None:
    rng = np.random.default_rng(0)
    p, q = log_softmax(rng.normal(size=(2, 3, 9)), -1)
    one, two = np.full((2, 1, 4), -np.inf)
    one[0, 1], two[0, 3] = 0, 0
    assert hellinger(one, two)[0] == pytest.approx(1) and (hellinger(p, p) == 0).all()
    np.testing.assert_allclose(hellinger(p, q), hellinger(q, p))
    expected = np.linalg.norm(np.sqrt(np.exp(p)) - np.sqrt(np.exp(q)), axis=-1) / np.sqrt(2)
    np.testing.assert_allclose(hellinger(p, q), expected)


def test_the_same_clip_changes_nothing_and_another_one_does(tiny) -> None:
    still = perturb.freeze(tiny_models.clip())
    same = given(Case(tiny, tiny_models.example(tiny, still)), "left")
    found = Paired(["mean", "frozen", "shuffled", "reversed", "wrong"]).scores(same)
    for clip in ("mean", "frozen", "shuffled", "reversed"):
        for name in ("pdm", "pmi", "contrast"):
            np.testing.assert_allclose(found[f"{name}_{clip}"], 0, atol=1e-3)
    assert (found["pdm_wrong"] > 0.01).all()


def test_mutual_information_sums_to_the_likelihood_ratio(tiny, tiny_eager, answer) -> None:
    found = Paired(["none", "reversed"]).scores(answer)
    moved = tiny_models.clip()
    clips = {"reversed": perturb.reverse(moved), "none": None}

    def likelihood(clip) -> float:
        x = tiny_eager.force(tiny_models.example(tiny_eager, clip), answer.ids)
        with torch.no_grad():
            logits = tiny_eager.hf(**x.inputs).logits[0].double().numpy()
        log_p = log_softmax(logits[x.layout.readout], -1)
        return log_p[np.arange(len(answer.ids)), list(answer.ids)].sum()

    for name, clip in clips.items():
        ratio = likelihood(moved) - likelihood(clip)
        assert found[f"pmi_{name}"].sum() == pytest.approx(ratio, abs=1e-3)
    best = answer.log_p.copy()
    best[np.arange(len(best)), answer.targets] = -np.inf
    rival = best.argmax(-1)
    gain = answer.log_p - answer.under("none")
    contrast = [gain[k, t] - gain[k, rival[k]] for k, t in enumerate(answer.targets)]
    np.testing.assert_allclose(found["contrast_none"], contrast)


@pytest.mark.parametrize("name", NAMES)
def test_cutting_the_clip_is_the_knockout_in_every_family(name) -> None:
    from probe.diagnose.signals import HallucinationSignals

    model = models.build(name)
    case = Case(model, models.example(model), gold="left")
    answer = given(case, "left")
    run = model.run(answer.x, ablate=[Knockout("video -> all - video")])
    expected = log_softmax(run.logits.astype(float), -1)
    np.testing.assert_allclose(answer.under("cut"), expected, atol=2e-4)
    values = HallucinationSignals(("cut", "mean"), answer="left").measure(case)
    scalars = {k: v for k, v in values.items() if isinstance(v, float)}
    never = {"svar_nosink", "sink_share", "sinks_first", "hidden", "hallucinated"}
    never |= {"option_margin", "option_entropy"}
    assert {k for k, v in scalars.items() if np.isnan(v)} <= never
    assert values["tokens"].sizes["token"] == 4


def test_influence_is_that_of_the_report(tiny) -> None:
    x = tiny_models.example(tiny)
    generated = tiny.generate(x, max_new_tokens=4)
    ids = generated.meta["generated"]
    found = VideoInfluence().scores(Answer(Case(tiny, x), tuple(ids)))["influence"]
    np.testing.assert_allclose(found, influence(tiny, x, generated)["influence"], atol=1e-5)


def test_one_frame_has_one_order_and_an_unknown_clip_is_refused(tiny) -> None:
    answer = given(Case(tiny, tiny_models.example(tiny, 1)), "left")
    found = Paired(["shuffled", "wrong"]).scores(answer)
    assert np.isnan(found["pdm_shuffled"]).all() and not np.isnan(found["pdm_wrong"]).any()
    assert "shuffled" in CLIPS
    with pytest.raises(ProbeError, match="upside"):
        Paired(["upside"]).scores(answer)


# -- answers and words ---------------------------------------------------------------------


def test_the_guess_is_verified_and_equals_generation() -> None:
    from probe import load, testbed
    from probe.diagnose.testbed import case_of

    model = load("testbed/qwen")
    items = [
        *testbed.items("neutral", n=5, seed=77)[4:],
        *testbed.items("hidden", n=6, seed=77)[5:],
    ]
    missed = 0
    for item in items:
        case = case_of(model, item)
        answer = own(case)
        missed += "generated" in vars(case)
        assert list(answer.ids) == model.generate(case.x).meta["generated"]
        assert answer.text == model.generate(case.x).text
        assert answer.ids[-1] in model.tokenizer.all_special_ids
        assert len(answer.scored) == len(answer.ids) - 1
    assert 0 < missed < len(items)


def test_words_are_found_by_their_characters(tiny) -> None:
    words = words_of(tiny.tokenizer, tiny.tokenizer("a red-ish cat’s  cats")["input_ids"])
    assert [word.text for word in words] == ["a", "red-ish", "cat’s", "cats"]
    assert [word.content for word in words] == [False, True, True, True]
    assert words[3].lemma == "cat" and len(words[2].tokens) == len("cat’s".encode())
    assert [lemma(w) for w in ("Boxes", "glass", "bus", "dogs", "is")] == [
        "box", "glass", "bus", "dog", "is",
    ]  # fmt: skip


def test_summaries_are_over_content_words(tiny) -> None:
    answer = given(Case(tiny, tiny_models.example(tiny)), "a cat of men")
    index = TokenIndex()
    assert index.words(answer)["index"].tolist() == [0, 2, 6, 9]
    assert index.summary(answer) == {"index": 5.5}
    assert index.summary(answer, "worst") == {"index": 9.0}
    assert TokenMargin().summary(answer, "worst")["margin"] == pytest.approx(
        min(TokenMargin().scores(answer)["margin"][[2, 9]])
    )
    assert answer.content.sum() == 6
    with pytest.raises(ProbeError, match="best"):
        index.summary(answer, "best")


def test_option_margin_is_among_first_tokens_of_options(tiny) -> None:
    case = Case(tiny, tiny_models.example(tiny), gold="up", answers=("up", "no", "yes"))
    answer = given(case, "up")
    ids = [case.first(option) for option in case.answers]
    p = np.exp(answer.log_p[0, ids])
    p = np.sort(p / p.sum())[::-1]
    found = OptionMargin().scores(answer)
    assert found["option_margin"][0] == pytest.approx(p[0] - p[1])
    assert found["option_entropy"][0] == pytest.approx(-(p * np.log(p)).sum() / np.log(3))
    assert np.isnan(found["option_margin"][1:]).all()


# -- sampled answers -----------------------------------------------------------------------


def test_entropy_over_clusters() -> None:
    same = [-1.0] * 10
    name = "semantic_entropy_exact"
    assert clusters(["red"] * 10, same)[name] == 0
    assert clusters([str(n) for n in range(10)], same)[name] == pytest.approx(2.3026, abs=1e-4)
    mixed = clusters(["a"] * 5 + ["b"] * 3 + ["c"] * 2, same)
    assert mixed[name] == pytest.approx(1.0297, abs=1e-4)
    assert mixed["semantic_entropy_weighted"] == pytest.approx(mixed[name])
    assert mixed["self_inconsistency"] == 0.5


def test_samples_of_a_model_that_is_sure_agree(tiny) -> None:
    answer = given(Case(tiny, tiny_models.example(tiny)), "up")
    cold = SampledAgreement(samples=3, temperature=1e-3, most=3).scores(answer)
    hot = SampledAgreement(samples=3, temperature=50.0, most=3).scores(answer)
    assert cold["semantic_entropy_exact"].tolist() == [0, 0]
    assert hot["semantic_entropy_exact"][0] > 0 and hot["self_inconsistency"][0] >= 1 / 3


def test_every_signal_says_its_sign_and_reads_back_from_json() -> None:
    from probe.diagnose import signals
    from probe.spec import from_json

    known = {name: getattr(signals, name) for name in signals.SIGNALS}
    for made in (cls() for cls in known.values()):
        assert isinstance(made, Signal) and made.sign in ("H+", "H-")
        assert from_json(made.to_json(), known) == made
