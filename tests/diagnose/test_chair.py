"""CHAIR: the known ratios, words and their places, truth of testbed captions, matched lengths."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from probe.diagnose import Chair, case_of
from probe.diagnose.chair import (
    chair_rows,
    length_matched,
    of_caption,
    scene_mentions,
    scene_truth,
)
from probe.diagnose.mentions import mentions, read_synonyms, singular
from probe.errors import ProbeError
from probe.models.loading import load
from probe.testbed import items
from tests.diagnose import seeing

SYNONYMS = {"dog": ["puppy"], "cat": ["kitten"], "hot dog": [], "person": ["man"], "bus": []}


def nodes(text: str, **more) -> list[str]:
    return [mention.node for mention in mentions(text, SYNONYMS, **more)]


def values(*captions: tuple[str, list[str]]) -> pd.DataFrame:
    rows = [of_caption(text, truth, mentions(text, SYNONYMS)) for text, truth in captions]
    return pd.DataFrame(rows).assign(video=range(len(rows)), sample=range(len(rows)))


def pooled(table: pd.DataFrame) -> dict[str, float]:
    return {row[0]: row[1] for row in chair_rows("", table)}


def test_the_known_ratios() -> None:
    table = values(("a dog, a dog and a cat", ["dog"]), ("the dog", ["dog"]), ("nothing", []))
    found = pooled(table)
    assert found["chair_i"] == pytest.approx(1 / 4)
    assert found["chair_s"] == pytest.approx(1 / 3)
    assert found["recall"] == 1.0


def test_no_mentions_are_undefined_and_not_zero() -> None:
    found = pooled(values(("nothing", ["dog"]), ("at all", ["dog"])))
    assert np.isnan(found["chair_i"]) and found["chair_s"] == 0 and found["recall"] == 0


def test_words_are_mapped_by_synonyms_plurals_and_phrases() -> None:
    assert nodes("Two Puppies chase kittens.") == ["dog", "cat"]
    assert nodes("a hot dog and hot dogs, a dog") == ["hot dog", "hot dog", "dog"]
    assert nodes("the men on buses") == ["person", "bus"]
    assert nodes("a dogged catalogue") == []
    assert nodes("a dog house and a dog", ignored=["dog house"]) == ["dog"]
    text = "See: two puppies!"
    (found,) = mentions(text, SYNONYMS)
    assert text[found.start : found.end] == "puppies"


@pytest.mark.parametrize(
    ("plural", "expected"),
    [("dogs", "dog"), ("buses", "bus"), ("bus", "bus"), ("boxes", "box"), ("glass", "glass"),
     ("berries", "berry"), ("knives", "knife"), ("dishes", "dish"), ("shoes", "shoe"),
     ("people", "person"), ("tennis", "tennis"), ("horses", "horse"), ("potatoes", "potato")],
)  # fmt: skip
def test_singular(plural: str, expected: str) -> None:
    assert singular(plural) == expected


def test_a_caption_of_the_truth_is_clean_and_another_is_not() -> None:
    for item in items("neutral", 6, seed=2, types=["caption"]):
        for level in ("object", "shape", "motion"):
            truth = scene_truth(item.scene, level)
            found = of_caption(
                item.question.answer, truth, scene_mentions(item.question.answer, level)
            )
            assert found["hallucinated"] == 0 and found["recall"] == 1
            assert found["mentions"] == len(item.scene.things)
    text = "a red circle moves left and a blue star stays"
    assert [m.node for m in scene_mentions(text, "motion")] == [
        "red circle left", "blue star stays"
    ]  # fmt: skip
    assert [m.node for m in scene_mentions(text, "shape")] == ["circle", "star"]


def test_the_testbeds_captions() -> None:
    model = load("testbed/onevision")
    (item,) = items("neutral", 1, seed=4, types=["caption"])
    case = case_of(model, item)
    found = Chair().measure(case)
    said = model.generate(case.x, max_new_tokens=64).text
    names = [thing.name for thing in item.scene.things]
    colored = [" ".join(pair) for pair in zip(*_pairs(said), strict=True)]
    assert found["mentions"] == len(colored)
    assert found["hallucinated"] == sum(name not in names for name in colored)
    assert found["words"] == len(said.split())


def _pairs(text: str) -> tuple[list[str], list[str]]:
    words = text.split()
    starts = [place for place, word in enumerate(words) if word == "a"]
    return [words[p + 1] for p in starts], [words[p + 2] for p in starts]


def test_a_users_captions(tiny, tmp_path) -> None:
    path = tmp_path / "synonyms.json"
    path.write_text(json.dumps(SYNONYMS))
    case = seeing.case(tiny, meta={"objects": "puppy, bus"})
    truth, found = Chair(synonyms=str(path)).read(case, "a cat and a dog")
    assert truth == ("bus", "dog") and [m.node for m in found] == ["cat", "dog"]
    assert Chair(synonyms=str(path), max_new_tokens=4).measure(case)["recall"] == 0
    with pytest.raises(ProbeError, match="no truth; give the sample a column"):
        Chair().measure(seeing.case(tiny))
    with pytest.raises(ProbeError, match='level="verb"'):
        Chair("verb").measure(case)


@pytest.mark.parametrize("text", ["[]", '{"dog": "puppy"}', "{", '{"a": ["c"], "b": ["c"]}'])
def test_bad_synonyms_are_refused(tmp_path, text: str) -> None:
    path = tmp_path / "synonyms.json"
    path.write_text(text)
    with pytest.raises(ProbeError, match="synonyms"):
        read_synonyms(path)


def captions(rng, words: np.ndarray, rate: float) -> pd.DataFrame:
    """Captions that hallucinate at a rate a word, whoever wrote them."""
    count = len(words)
    wrong = rng.binomial(words, rate)
    return pd.DataFrame(
        {
            "sample": range(count),
            "video": range(count),
            "mentions": (words // 2 + wrong).astype(float),
            "hallucinated": wrong.astype(float),
            "any_hallucinated": (wrong > 0).astype(float),
            "words": words.astype(float),
        }
    )


def test_short_captions_win_until_lengths_are_matched() -> None:
    rng = np.random.default_rng(0)
    short, long = rng.integers(4, 14, 2000), rng.integers(6, 24, 2000)
    one, other = captions(rng, short, 0.04), captions(rng, long, 0.04)
    raw = one["any_hallucinated"].mean() - other["any_hallucinated"].mean()
    found = length_matched(one, other).set_index("name")
    matched = found.loc["chair_s_difference", "value"]
    assert raw < -0.08 and abs(matched) < 0.4 * abs(raw)
    assert 0.5 < found.loc["matched", "value"] <= 1


def test_matched_scores_are_weighted_means_of_strata() -> None:
    rng = np.random.default_rng(1)
    one = captions(rng, np.repeat([4, 20], [30, 10]), 0.1)
    other = captions(rng, np.repeat([4, 20], [10, 30]), 0.1)
    found = length_matched(one, other, strata=2).set_index("name")["value"]
    for name, table in (("one", one), ("other", other)):
        halves = [table[table["words"] == words]["any_hallucinated"].mean() for words in (4, 20)]
        assert found[f"chair_s_{name}"] == pytest.approx(np.mean(halves))
    same = length_matched(one, one).set_index("name")
    assert same.loc["chair_i_difference", "value"] == 0
