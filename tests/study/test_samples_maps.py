"""Files shaped as MVBench, Video-MME, MLVU, TempCompass and POPE publish them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probe import ProbeError
from probe.study import Sample, Study
from probe.study.read_options import answer_of, options_of, split_listed


def samples(folder: Path, source: str, path: Any, kind: str = "choice", **more: Any):
    given = {"source": source, "path": path} | more
    data = {"name": "s", "models": "m", "samples": given, "task": {"kind": kind}}
    return Study.from_mapping(data, folder).load()


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def shown(one: Sample, folder: Path) -> str:
    return str(Path(one.video).relative_to(folder))


def test_mvbench(tmp_path: Path) -> None:
    row = {"video": "ZS9XR.mp4", "question": "What happened after?", "answer": "Ate the medicine.",
           "candidates": ["Ate the medicine.", "Tidied up the blanket."],
           "question_id": "Interaction_T1_13", "start": 11.1, "end": 19.6}  # fmt: skip
    other = {"video": "v.mp4", "question": "Moving?", "candidates": ["Yes", "not sure", "no"],
             "answer": "no"}  # fmt: skip
    (tmp_path / "json").mkdir()
    for name, content in (("action_sequence", row), ("object_existence", other)):
        (tmp_path / "json" / f"{name}.json").write_text(json.dumps([content]))
    touch(tmp_path / "video/star/Charades_v1_480/ZS9XR.mp4",
          tmp_path / "video/clevrer/video_validation/v.mp4",
          tmp_path / "video/perception/videos/v.mp4")  # fmt: skip  # another task's
    a, b = samples(tmp_path, "mvbench", "json", videos="video")
    assert (a.id, a.span) == ("action_sequence/Interaction_T1_13", (11.1, 19.6))
    assert (b.id, b.answer, b.options, b.span) == (
        "object_existence/1", "no", ("Yes", "not sure", "no"), None,
    )  # fmt: skip
    assert shown(b, tmp_path) == "video/clevrer/video_validation/v.mp4"
    cut = tmp_path / "video/star/Charades_segment/ZS9XR.mp4"
    touch(cut)
    (tmp_path / "video/star/Charades_v1_480/ZS9XR.mp4").unlink()
    only = samples(tmp_path, "mvbench", "json/action_sequence.json", videos="video")[0]
    assert (Path(only.video), only.span, only.id) == (cut, None, "Interaction_T1_13")


def test_video_mme(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"video_id": "001", "duration": duration, "domain": "Knowledge", "sub_category": "Law",
         "url": "https://www.youtube.com/watch?v=fFjv93ACGo8", "videoID": "fFjv93ACGo8",
         "question_id": f"001-{n}", "task_type": "Counting Problem", "question": "How many?",
         "options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. Both A and C."],
         "answer": answer}
        for n, (duration, answer) in enumerate([("short", "C"), ("long", "D")], 1)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test-00000-of-00001.parquet")
    touch(tmp_path / "data/fFjv93ACGo8.mp4")
    a, b = samples(tmp_path, "videomme", "test-00000-of-00001.parquet")
    assert (a.id, a.answer, b.answer) == ("001-1", "Berries.", "Both A and C.")
    assert a.options[0] == "Apples." and a.cluster == b.cluster == "fFjv93ACGo8"
    assert a.meta["task_type"] == "Counting Problem" and shown(a, tmp_path).startswith("data/")
    (long,) = samples(tmp_path, "videomme", "test*.parquet", where={"duration": "long"})
    assert long.id == "001-2"


def test_mlvu(tmp_path: Path) -> None:
    row = {"video": "movie101_66.mp4", "duration": 246, "question_type": "plotQA",
           "question": "What color is the main male character?", "answer": "Yellow",
           "candidates": ["Yellow", "Red", "Green", "Blue"]}  # fmt: skip
    (tmp_path / "json").mkdir()
    (tmp_path / "json/1_plotQA.json").write_text(json.dumps([row]))
    touch(tmp_path / "video/1_plotQA/movie101_66.mp4")
    (one,) = samples(tmp_path, "mlvu", "json", videos="video")
    assert (one.answer, one.meta["question_type"]) == ("Yellow", "plotQA")
    assert shown(one, tmp_path) == "video/1_plotQA/movie101_66.mp4"
    listed = {"video_name": "movie101_66.mp4", "task_type": "PQA", "answer": "C",
              "question": "What color?\n(A) Yellow\n(B) Red\n(C) Green\n(D) Blue"}  # fmt: skip
    (tmp_path / "dev.jsonl").write_text(json.dumps(listed))
    (two,) = samples(tmp_path, "mlvu", "dev.jsonl", videos="video/1_plotQA")
    assert (two.question, two.answer, two.options[3]) == ("What color?", "Green", "Blue")


def test_tempcompass(tmp_path: Path) -> None:
    inside = [
        {"question": "What is the man doing?\nA. dunking\nB. dribbling\nC. passing",
         "answer": "A. dunking"},
        {"question": "Which?\nA. passing\nB. dribbling\nC. dunking", "answer": "C. dunking"},
    ]  # fmt: skip
    (tmp_path / "multi-choice.json").write_text(json.dumps({"1034": {"action": inside}}))
    match = [{"question": "Which caption matches the video better?\nCaption A: The man: left.\n"
              "Caption B: The man moves right.", "answer": "Caption B: The man moves right."},
             {"question": "Which description fits?\nOption 1: One.\nOption 2: Two.",
              "answer": "Option 1: One."}]  # fmt: skip
    (tmp_path / "caption_matching.json").write_text(json.dumps({"1034": {"direction": match}}))
    yes = {"1034": {"speed": [{"question": "Is it slow?", "answer": "no"}]}}
    (tmp_path / "yes_no.json").write_text(json.dumps(yes))
    touch(tmp_path / "videos/1034.mp4")
    a, b = samples(tmp_path, "tempcompass", "multi-choice.json")
    assert (a.question, a.answer, a.options) == (
        "What is the man doing?", "dunking", ("dunking", "dribbling", "passing"),
    )  # fmt: skip
    assert (a.id, b.id, b.answer, b.meta["dim"]) == (
        "1034/action/0", "1034/action/1", "dunking", "action",
    )  # fmt: skip
    c, d = samples(tmp_path, "tempcompass", "caption_matching.json")
    assert (c.answer, c.options[0], d.answer) == ("The man moves right.", "The man: left.", "One.")
    (e,) = samples(tmp_path, "tempcompass", "yes_no.json", "yesno")
    assert (e.answer, e.options, e.cluster) == ("no", (), "1034")


def test_pope(tmp_path: Path) -> None:
    import datasets
    from PIL import Image

    row = {"question_id": 1, "image": "COCO_val2014_000000310196.jpg",
           "text": "Is there a snowboard in the image?", "label": "yes"}  # fmt: skip
    other = row | {"question_id": 2, "label": "no"}
    for name in ("coco_pope_random", "coco_pope_adversarial"):
        (tmp_path / f"{name}.json").write_text(json.dumps(row) + "\n" + json.dumps(other))
    touch(tmp_path / "val2014" / row["image"])
    found = samples(tmp_path, "pope", "coco_pope_*.json", "yesno", videos="val2014")
    assert [s.id for s in found] == [
        f"coco_pope_{kind}/{n}" for kind in ("adversarial", "random") for n in (1, 2)
    ]
    assert [s.answer for s in found] == ["yes", "no"] * 2 and len({s.cluster for s in found}) == 1
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    stored = {"question_id": "1", "question": "Is there a dog?", "answer": "no"}
    rows = [stored | {"image": Image.fromarray(pixels), "category": "popular"}]
    features = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    features.save_to_disk(tmp_path / "saved")
    features.to_parquet(str(tmp_path / "pope.parquet"))
    saved = samples(tmp_path, "datasets", "saved", "yesno", fields={"video": "image"})
    table = samples(tmp_path, "pope", "pope.parquet", "yesno")
    for (one,) in (saved, table):
        assert (one.answer, one.meta["category"]) == ("no", "popular")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(one.video))), pixels)
    bad = row | {"question_id": 3, "label": "maybe"}
    (tmp_path / "bad.json").write_text(json.dumps(row) + "\n" + json.dumps(bad))
    with pytest.raises(ProbeError, match=r'bad.json: row 2: the answer "maybe" is neither yes nor'):
        samples(tmp_path, "pope", "bad.json", "yesno", videos="val2014")


@pytest.mark.parametrize(
    ("text", "before", "options"),
    [
        ("Q?\nA. x\nB. y", "Q?", ["x", "y"]),
        ("Q?\n(A) x\n(B) y\n", "Q?", ["x", "y"]),
        ("Q?\n1) x\n2) y\n3) z", "Q?", ["x", "y", "z"]),
        ("Q? A. x B. y", "Q? A. x B. y", []),
        ("Q?\nB. x\nC. y", "Q?\nB. x\nC. y", []),
        ("Q?\nA. x", "Q?\nA. x", []),
        ("A. note\nQ?\nA. x\nB. y", "A. note\nQ?", ["x", "y"]),
    ],
)
def test_listed_options(text: str, before: str, options: list[str]) -> None:
    assert split_listed(text) == (before, options)


def test_options_and_answers_however_written() -> None:
    assert options_of('["a", "b"]') == options_of("['a', 'b']") == options_of("a\nb") == ["a", "b"]
    assert options_of(["A. a", "B. b"]) == options_of({"A": "a", "B": "b"}) == ["a", "b"]
    assert options_of(["A. a", "C. b"]) == ["A. a", "C. b"]  # not in order: part of the text
    assert options_of([1, 2.5]) == ["1", "2.5"]
    assert answer_of("(b)", ["x", "y"], "auto") == answer_of(1, ["x", "y"], "auto") == "y"
    assert answer_of("2", ["3", "2", "1"], "auto") == "2"  # a text before a number
    assert answer_of("2", ["3", "2", "1"], "index") == "1"
    assert answer_of("B. y", ["x", "y"], "auto") == "y"
    with pytest.raises(ProbeError, match="none of the 2 options"):
        answer_of("A", ["x", "y"], "text")
