"""Existence questions: builders against brute-force counts, scores against scikit-learn."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from probe.diagnose import Case, ObjectExistence, case_of
from probe.diagnose.existence_items import existence_items
from probe.diagnose.object_questions import (
    Objects,
    absences,
    object_questions,
    read_objects,
    write_questions,
)
from probe.diagnose.yes_no import lenient, yes_no_rows
from probe.errors import ProbeError
from probe.models.loading import load
from probe.study.spec import Study
from tests import tiny as tiny_models
from tests.diagnose import seeing

NAMES = ["dog", "cat", "car", "tree", "owl", "boat", "cup"]


@pytest.fixture(scope="module")
def videos() -> list[Objects]:
    """60 videos; early names are frequent, and a boat comes with a cup."""
    draw = np.random.default_rng(0)
    found = []
    for number in range(60):
        names = [n for place, n in enumerate(NAMES) if draw.random() < 0.8 - 0.1 * place]
        names += ["cup"] * ("boat" in names and "cup" not in names)
        found.append(Objects(f"{number}.mp4", tuple(draw.permutation(names).tolist())))
    return found


def test_questions_are_balanced_and_true(videos) -> None:
    asked = object_questions(videos, per_video=2)
    there = {one.video: one.names for one in videos}
    enough = [one for one in videos if 2 <= len(one.names) <= len(NAMES) - 2]
    counts = Counter((q.negatives, q.answer) for q in asked)
    assert set(counts.values()) == {2 * len(enough)}
    assert set(counts) == {
        ("positive", "yes"), ("random", "no"), ("popular", "no"), ("adversarial", "no")
    }  # fmt: skip
    for q in asked:
        assert (q.object in there[q.video]) == (q.answer == "yes")
    first = [q.object for q in asked if q.negatives == "positive"]
    assert first == [name for one in enough for name in one.names[:2]]
    for kind in ("random", "popular", "adversarial"):
        pairs = [(q.video, q.object) for q in asked if q.negatives == kind]
        assert len(set(pairs)) == len(pairs)
    assert next(q for q in asked if q.object == "owl").question == "Is there an owl in the video?"
    assert asked == object_questions(videos, per_video=2)


def test_popular_and_adversarial_are_the_largest_counts(videos) -> None:
    asked = object_questions(videos, per_video=1)
    popularity = Counter(name for one in videos for name in set(one.names))
    by_video = {one.video: one for one in videos}
    positives = {q.video: q.object for q in asked if q.negatives == "positive"}
    for q in asked:
        absent = set(NAMES) - set(by_video[q.video].names)
        positive = positives[q.video]
        together = {
            name: sum(positive in one.names and name in one.names for one in videos)
            for name in absent
        }
        if q.negatives == "popular":
            assert popularity[q.object] == max(popularity[name] for name in absent)
        if q.negatives == "adversarial":
            assert together[q.object] == max(together.values())


def test_times_make_temporal_and_order_questions() -> None:
    spans = {"dog": ((0.0, 3.0),), "cat": ((5.0, 6.0), (8.0, 10.0))}
    one = Objects("a.mp4", ("dog", "cat"), spans, 12.0)
    asked = object_questions([one], ["temporal", "order"])
    texts = [(q.question, q.answer, q.negatives) for q in asked]
    assert texts == [
        ("Is there a dog between 0 and 3 seconds?", "yes", "temporal"),
        ("Is there a dog between 3 and 12 seconds?", "no", "temporal"),
        ("Is there a cat between 8 and 10 seconds?", "yes", "temporal"),
        ("Is there a cat between 0 and 5 seconds?", "no", "temporal"),
        ("Does the dog appear before the cat?", "yes", "order"),
        ("Does the cat appear before the dog?", "no", "order"),
    ]
    assert absences([(0.0, 9.5)], 10.0) == [] and absences([(0.0, 9.5)], None) == []


def test_a_file_of_objects_becomes_a_study(tmp_path) -> None:
    path = tmp_path / "objects.jsonl"
    rows = [{"video": "a.mp4", "objects": ["dog", "cat"]}, {"video": "b.mp4", "objects": ["owl"]}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    asked = object_questions(read_objects(path), ["random"], per_video=1)
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"any")
    written = write_questions(asked, tmp_path / "questions.jsonl")
    study = Study.from_mapping(
        {
            "name": "existence",
            "models": ["testbed/onevision"],
            "samples": {"source": "jsonl", "path": str(written)},
            "task": {"kind": "yesno"},
            "diagnoses": ["ObjectExistence()"],
        }
    )
    samples = study.load()
    assert [sample.question for sample in samples] == [q.question for q in asked]
    assert [sample.meta["negatives"] for sample in samples] == [q.negatives for q in asked]


@pytest.mark.parametrize(
    "line",
    ['{"video": "a.mp4"}', "[1]", '{"video": "a", "objects": "dog"}', "{", '{"objects": ["dog"]}'],
)
def test_bad_rows_are_named(tmp_path, line: str) -> None:
    path = tmp_path / "objects.jsonl"
    path.write_text('{"video": "b.mp4", "objects": ["dog"]}\n' + line + "\n")
    with pytest.raises(ProbeError, match=r"objects\.jsonl, row 2: write"):
        read_objects(path)


def test_what_cannot_be_asked_is_refused() -> None:
    one = Objects("a.mp4", ("dog",))
    with pytest.raises(ProbeError, match='no negatives "rare"; there are random'):
        object_questions([one], ["rare"])
    with pytest.raises(ProbeError, match="no video has 3 objects"):
        object_questions([one])
    with pytest.raises(ProbeError, match="lacks as many that others have"):
        object_questions([one], per_video=1)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [("Yes, there is.", True), ("No.", False), ("There is not one.", False), ("NO", True),
     ("I cannot say", True), ("no, there is", False), ("Yes. But not two.", True)],
)  # fmt: skip
def test_the_lenient_reading_is_popes(reply: str, *, expected: bool) -> None:
    assert lenient(reply) == expected


def scores(said, truth) -> dict[str, float]:
    table = pd.DataFrame({"video": np.arange(len(said))})
    return {row[0]: row[1] for row in yes_no_rows("", table, said, truth)}


def test_always_yes() -> None:
    found = scores(np.ones(40), np.arange(40) % 2)
    expected = {"accuracy": 50, "precision": 50, "recall": 100, "f1": 200 / 3, "yes_rate": 100}
    assert found == pytest.approx(expected)
    nothing = scores(np.zeros(40), np.arange(40) % 2)
    assert np.isnan(nothing["precision"]) and nothing["recall"] == nothing["f1"] == 0


def test_scores_are_those_of_scikit_learn() -> None:
    said, truth = np.random.default_rng(2).integers(0, 2, (2, 300)).astype(float)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, said, average="binary")
    expected = {"precision": precision, "recall": recall, "f1": f1, "yes_rate": said.mean()}
    expected["accuracy"] = accuracy_score(truth, said)
    assert scores(said, truth) == pytest.approx({k: 100 * v for k, v in expected.items()})
    neither = np.where(np.arange(300) < 50, np.nan, said)
    wrong = np.where(np.arange(300) < 50, False, said == truth)
    assert scores(neither, truth)["accuracy"] == pytest.approx(100 * wrong.mean())


def test_sets_share_their_positives() -> None:
    kinds = ["positive"] * 4 + ["random"] * 4 + ["popular"] * 4 + ["order"] * 2
    table = pd.DataFrame({"sample": range(14), "video": range(14), "negatives": kinds})
    table["truth"] = [1.0] * 4 + [0.0] * 8 + [1.0, 0.0]
    for reading in ("lenient", "strict", "likelier"):
        table[f"said_{reading}"] = table["truth"]
    table.loc[4:5, "said_lenient"] = 1.0
    pooled = ObjectExistence().pool(table).set_index("name")
    assert pooled.loc["random_lenient_accuracy", ["value", "n"]].tolist() == [75, 8]
    assert pooled.loc["popular_lenient_accuracy", ["value", "n"]].tolist() == [100, 8]
    assert pooled.loc["order_strict_accuracy", ["value", "n"]].tolist() == [100, 2]


def test_a_case_is_read_in_three_ways(tiny) -> None:
    shown = tiny_models.example(tiny, tiny_models.clip(4, 56, 56), "Is there a dog?")
    found = ObjectExistence(4).measure(Case(tiny, shown, "yes", ("yes", "no")))
    margin = seeing.plain_margin(tiny, shown, ("yes", "no"))
    assert found["margin"] == pytest.approx(margin, abs=1e-4)
    assert found["said_likelier"] == (margin > 0) and found["truth"] == 1
    said = tiny.generate(shown, max_new_tokens=4).text
    assert found["said_lenient"] == lenient(said) and found["parsed"] == 0
    with pytest.raises(ProbeError, match='the answers are "yes" and "no"'):
        ObjectExistence().measure(seeing.case(tiny))


def test_testbed_items_say_what_their_scenes_show() -> None:
    found = existence_items(12, seed=1)
    kinds = {kind for _, kind in found}
    assert kinds == {"positive", "random", "popular", "adversarial", "temporal"}
    assert len({item.id for item, _ in found}) == len(found)
    for item, kind in found:
        name = item.question.text[len("Is there a ") : -1]
        there = name in [thing.name for thing in item.scene.things]
        assert there == (item.question.answer == "yes")
        if kind == "temporal" and there:
            thing = next(t for t in item.scene.things if t.name == name)
            assert len(thing.present) == item.scene.frames
    model = load("testbed/onevision")
    rows = []
    for item, _ in [pair for pair in found if pair[1] == "temporal"][:2]:
        rows.append(ObjectExistence(4).measure(case_of(model, item)))
    assert [row["truth"] for row in rows] == [0, 1]
    assert all(row["said_strict"] == row["said_lenient"] == row["truth"] for row in rows)
