"""The combined score against scikit-learn, labels against scenes, splits against their promise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from probe.diagnose import diagnose, parse
from probe.diagnose.case import Case
from probe.diagnose.signals import HallucinationScore, fit, given, labels, signs, token_labels
from probe.diagnose.testbed import case_of
from probe.errors import ProbeError
from probe.testbed import Item, Question, Scene, Thing, items
from probe.testbed.shifted import HELD_OUT, LENGTHS, SHIFTS, captions, pairs, shifted, shown
from tests import tiny as tiny_models


def made_table(n: int = 120, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    truth = rng.random(n) < 1 / (1 + np.exp(-(x[:, 0] - 3 * x[:, 1] ** 2 + 2)))
    table = pd.DataFrame(x, columns=["nll", "svar", "influence"])
    table.loc[::7, "svar"] = np.nan
    return table.assign(
        video=[f"v{k // 2}" for k in range(n)], hallucinated=truth.astype(float), index=1.0
    )


# -- the score -----------------------------------------------------------------------------


def test_logistic_score_is_scikit_learns() -> None:
    table = made_table()
    score = fit(table, kinds=["logistic"])
    assert score.features == ("nll", "svar", "influence")  # the index is a control
    x, truth = score.table(table), table["hallucinated"]
    strength = float(score.about.split("logistic ")[1].split()[0])
    expected = LogisticRegression(C=strength, max_iter=5000).fit(x, truth).predict_proba(x)[:, 1]
    np.testing.assert_allclose(score.probability(table), expected, atol=1e-6)
    np.testing.assert_allclose(np.nanmedian(table["svar"]), score.fill[1])
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(x.std(0), 1)


def test_signed_score_keeps_signs_and_is_the_plain_one_where_they_agree() -> None:
    table = made_table()
    agree, other = ["nll"], ["svar", "influence"]  # nll pulls towards its sign
    plain, signed = (fit(table, features=agree, kinds=[k]) for k in ("logistic", "signed"))
    np.testing.assert_allclose(signed.weights, plain.weights, rtol=1e-3)
    np.testing.assert_allclose(signed.intercept, plain.intercept, rtol=1e-3, atol=1e-4)
    against = table.assign(svar=-table["nll"], influence=table["nll"])
    found = fit(against, features=other, kinds=["signed"])  # influence is against its sign
    assert found.weights[0] < 0 and found.weights[1] == 0


def test_boosted_score_is_scikit_learns(tmp_path) -> None:
    table, other = made_table(), made_table(seed=1)
    score = fit(table, kinds=["boosting"], seed=3)
    depth = int(score.about.split("boosting ")[1].split()[0])
    made = GradientBoostingClassifier(
        n_estimators=150, learning_rate=0.08, subsample=0.7, max_depth=depth,
        min_samples_leaf=10, random_state=3,
    ).fit(score.table(table), table["hallucinated"])  # fmt: skip
    expected = made.predict_proba(score.table(other))[:, 1]
    np.testing.assert_allclose(score.probability(other), expected, atol=1e-6)
    assert HallucinationScore.read(score.save(tmp_path / "score.json")) == score


@pytest.mark.full
def test_the_better_kind_is_chosen_and_survives_json(tmp_path) -> None:
    table, other = made_table(), made_table(seed=1)
    score = fit(table, about="made")
    assert score.trees and score.about.startswith("made; n 120 in 60 videos")  # it is not linear
    again = HallucinationScore.read(score.save(tmp_path / "score.json"))
    assert again == score
    ranks = again.probability(other)
    assert roc_auc_score(other["hallucinated"], ranks) > 0.75
    np.testing.assert_array_equal(ranks, score.probability(other))
    far = other.assign(nll=1e9)  # a feature is kept within what the fit has seen
    near = other.assign(nll=table["nll"].max() * 2)
    np.testing.assert_array_equal(score.probability(far), score.probability(near))


def test_a_score_refuses_what_it_cannot_use(tmp_path) -> None:
    table = made_table()
    score = fit(table, kinds=["logistic"])
    with pytest.raises(ProbeError, match="svar is missing"):
        score.probability(table.drop(columns="svar"))
    with pytest.raises(ProbeError, match="five videos"):
        fit(table.assign(hallucinated=0.0))
    with pytest.raises(ProbeError, match="kinds"):
        fit(table, kinds=["forest"])
    (tmp_path / "broken.json").write_text('{"version": 1')
    with pytest.raises(ProbeError, match="not a hallucination score"):
        HallucinationScore.read(tmp_path / "broken.json")


# -- labels --------------------------------------------------------------------------------


def scene() -> Scene:
    box = ((0, 0, 20, 20),) * 8
    things = tuple(
        Thing(shape, color, motion, "plain", 20, box, (1.0,) * 8)
        for color, shape, motion in (("red", "circle", "left"), ("blue", "star", "stays"))
    )
    return Scene(1, 8, 96, "plain", ((0, 0, 0), (9, 9, 9)), "scene", things)


def test_each_mention_of_a_caption_is_looked_up(tiny) -> None:
    question = Question("caption", "Describe.", "a red circle moves left and a blue star stays", ())
    case = Case(tiny, tiny_models.example(tiny), gold=question.answer)
    case.truth = Item("x", scene(), question, "neutral")
    said = {
        "a red circle moves left": [0, 0, 0],
        "a red star moves left": [1, 1, 1],  # no red star, so that the colour is wrong too
        "a green circle stays": [1, 1, 1],
        "a blue star moves up and a red circle moves left": [0, 0, 1, 0, 0, 0],
    }
    for text, expected in said.items():
        answer = given(case, text)
        found = token_labels(answer)
        content = [w for w in answer.words if w.text not in ("a", "and", "moves")]
        assert [found[w.tokens[0]] for w in content] == expected
        rest = [w for w in answer.words if w not in content]
        assert all(np.isnan(found[list(w.tokens)]).all() for w in rest)


def test_labels_of_an_answer(tiny) -> None:
    x = tiny_models.example(tiny)
    seen = Question("color", "What?", "red", ("red", "blue"))
    unseen = Question("color", "What?", "red", ("red", "blue"), visible=False)
    for question, text, expected in (
        (seen, "Red.", (1, 0, 0)),
        (seen, "blue", (0, 0, 1)),
        (unseen, "red", (1, 1, 1)),
    ):
        case = Case(tiny, x, gold="red", truth=Item("x", scene(), question, "neutral"))
        found = labels(given(case, text))
        assert (found["right"], found["hidden"], found["hallucinated"]) == expected
    nothing = labels(given(Case(tiny, x), "red"))
    assert all(np.isnan(value) for value in nothing.values())


# -- splits --------------------------------------------------------------------------------

EACH = 18


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Item]]:
    return {shift: shifted(shift, EACH) for shift in SHIFTS}


def test_each_split_differs_in_one_thing(splits) -> None:
    for shift, found in splits.items():
        assert [item.question.visible for item in found] == [True, False] * (EACH // 2)
        held = [pairs(item.scene, item.question) & HELD_OUT for item in found]
        there = [shown(item.scene) & HELD_OUT for item in found]
        assert all(held) if shift == "pairs" else not any(held) and not any(there)
        grounds = {item.scene.background for item in found}
        assert grounds == ({"noisy"} if shift == "backgrounds" else {"plain", "gradient"})
        lengths = {item.scene.frames for item in found}
        assert lengths == (set(LENGTHS) if shift == "lengths" else {16})
    for item in splits["absent"]:
        names = set(item.question.text.rstrip("?").replace(",", "").split())
        things = {word for pair in shown(item.scene) for word in pair}
        assert item.scene.medium == "scene"
        assert item.question.visible or (things and not names & things)


def test_splits_share_no_scene_and_come_again(splits) -> None:
    seeds = [item.scene.seed for found in splits.values() for item in found]
    assert len(set(seeds)) == len(seeds)
    assert [item.id for item in shifted("pairs", EACH)] == [item.id for item in splits["pairs"]]
    other = {item.scene.seed for item in shifted("fit", 20, seed=1)}
    assert not other & set(seeds)
    assert all(item.question.type == "caption" for item in captions("fit", 4))
    for wrong in ({"shift": "odd"}, {"shift": "pairs", "types": ["count"]}):
        with pytest.raises(ValueError, match="no "):
            shifted(**wrong)
    for seed in (-1, 500):  # the scenes of another split
        with pytest.raises(ValueError, match="0 to 499"):
            shifted("fit", 2, seed)


# -- the diagnosis -------------------------------------------------------------------------


def test_the_diagnosis_tells_hidden_items_from_visible_ones() -> None:
    from probe import load

    model = load("testbed/qwen")
    (diagnosis,) = parse("HallucinationSignals(clips=['cut'], tokens=False)")
    rows = []
    for split in ("neutral", "hidden"):
        for item in items(split, n=3, seed=3, types=["color", "shape"]):
            case = case_of(model, item)
            values = diagnose(case, [diagnosis])[diagnosis]
            assert set(signs(["cut"])) < set(values) and "tokens" not in values
            rows.append({"sample": item.id, "video": case.video, **values})
    table = pd.DataFrame(rows)
    pooled = diagnosis.pool(table).set_index("name")["value"]
    assert pooled["auroc_nll"] == roc_auc_score(table["hallucinated"], table["nll"])
    assert pooled["auroc_influence"] == roc_auc_score(table["hallucinated"], -table["influence"])
    assert pooled["auroc_nll"] > 0.9
    alone = diagnosis.pool(table[table["hallucinated"] == 0]).set_index("name")["value"]
    assert alone["nll"] == pytest.approx(table["nll"][:3].mean())
