"""Samples from files of every kind, and what is said of files that are wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probe import ProbeError
from probe.study import Sample, Study
from probe.testbed import write_clip

ROWS = [
    {"id": "a", "video": "red.mp4", "question": "What colour?", "options": ["red", "blue"],
     "answer": "A", "type": "colour", "level": 1},
    {"id": "b", "video": "red.mp4", "question": "Which way?", "options": ["up", "down", "left"],
     "answer": "left", "type": "motion", "level": 2},
    {"id": "c", "video": "blue.mp4", "question": "Wie heißt das? 何?", "options": ["ja", "nein"],
     "answer": "B", "type": "colour", "level": 2},
]  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, each another colour."""
    folder = tmp_path_factory.mktemp("clips")
    for number, name in enumerate(("red", "blue")):
        frames = np.full((4, 16, 16, 3), 40 * number, np.uint8)
        write_clip(folder / f"{name}.mp4", frames)
    return folder


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    return path


def samples(path: Path, source: str = "jsonl", task: Any = None, **more: Any) -> list[Sample]:
    given = {"source": source, "path": str(path)} | more
    study = {"name": "s", "models": "m", "samples": given, "task": task or {}}
    return Study.from_mapping(study).load()


def test_every_format_gives_the_same_samples(tmp_path: Path, clips: Path) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines(tmp_path / "x.jsonl", ROWS)
    (tmp_path / "x.json").write_text(json.dumps(ROWS), "utf-8-sig")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "x.parquet")
    with (tmp_path / "x.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows([r | {"options": json.dumps(r["options"])} for r in ROWS])
    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(test=whole, train=whole).save_to_disk(tmp_path / "splits")

    def plain(found: list[Sample]) -> list[tuple]:
        return [
            (s.id, Path(s.video).name, s.question, s.answer, s.options, s.row, s.meta["type"],
             int(s.meta["level"]))
            for s in found
        ]  # fmt: skip

    expected = [
        (r["id"], r["video"], r["question"], answer, tuple(r["options"]), n, r["type"], r["level"])
        for n, (r, answer) in enumerate(zip(ROWS, ["red", "left", "nein"], strict=True), 1)
    ]
    for ending in ("jsonl", "json", "csv", "parquet"):
        found = samples(tmp_path / f"x.{ending}", ending, videos=str(clips))
        assert plain(found) == expected, ending
        assert [s.cluster for s in found] == [r["video"] for r in ROWS]
    saved = samples(tmp_path / "saved", "datasets", videos=str(clips))
    splits = samples(tmp_path / "splits", "datasets", videos=str(clips), split="train")
    assert plain(saved) == plain(splits) == expected
    with pytest.raises(ProbeError, match=r"splits: name one with split: test, train"):
        samples(tmp_path / "splits", "datasets", videos=str(clips))


def test_a_fingerprint_is_of_what_is_asked_and_shown(tmp_path: Path, clips: Path) -> None:
    one = samples(lines(tmp_path / "x.jsonl", ROWS), videos=str(clips))
    moved = tmp_path / "moved"
    moved.mkdir()
    for clip in clips.glob("*.mp4"):
        (moved / clip.name).write_bytes(clip.read_bytes())
    here = samples(lines(tmp_path / "y.jsonl", ROWS), videos=str(clips))
    there = samples(tmp_path / "y.jsonl", videos=str(moved))
    assert [s.fingerprint for s in here] == [s.fingerprint for s in there]
    assert len({s.fingerprint for s in one}) == 3
    (moved / "red.mp4").write_bytes((clips / "blue.mp4").read_bytes())
    other = samples(tmp_path / "y.jsonl", videos=str(moved))
    changed = [a.fingerprint != b.fingerprint for a, b in zip(here, other, strict=True)]
    assert changed == [True, True, False]


def test_some_rows_of_many(tmp_path: Path, clips: Path) -> None:
    rows = [ROWS[0] | {"id": str(n), "level": n % 3} for n in range(30)]
    path = lines(tmp_path / "x.jsonl", rows)
    drawn = [samples(path, videos=str(clips), n=7, seed=seed) for seed in (0, 0, 1)]
    ids = [[int(s.id) for s in some] for some in drawn]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0] == sorted(set(ids[0])) and len(ids[0]) == 7
    found = samples(path, videos=str(clips), where={"level": [0, 2]})
    assert [int(s.id) for s in found] == [n for n in range(30) if n % 3 != 1]
    with pytest.raises(ProbeError, match=r'where: levle: did you mean "level"'):
        samples(path, videos=str(clips), where={"levle": 1})


def test_fields_of_ones_own(tmp_path: Path, clips: Path) -> None:
    row = {"name": 7, "clip": "red", "ask": "What colour?", "o1": "red", "o2": "blue", "o3": "",
           "right": 1, "from": 0.1, "to": 0.4, "subtitle": "s" * 300}  # fmt: skip
    fields = {"id": "q{name}", "video": "{clip}.mp4", "question": "ask", "answer": "right",
              "options": ["o1", "o2", "o3"], "answer_as": "index", "start": "from", "end": "to",
              "meta": ["clip"], "cluster": "clip"}  # fmt: skip
    path = lines(tmp_path / "x.jsonl", [row])
    task = {"prompt": "{subtitle}\n{question} ({name})\n{options}"}
    one = samples(path, fields=fields, videos=str(clips), task=task)[0]
    assert (one.id, one.answer, one.options, one.cluster) == ("q7", "blue", ("red", "blue"), "red")
    assert one.span == (0.1, 0.4) and one.meta == {"clip": "red"} and len(one.texts["subtitle"])
    with pytest.raises(ProbeError, match=r'fields: quesion: no such field; did you mean "quest'):
        samples(path, fields={"quesion": "ask"})


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("no video", {"video": "gone.mp4"}, r"video: .*gone.mp4: no such file"),
    ("empty video", {"video": ""}, r"video: .* is missing"),
    ("letter", {"answer": "F"}, r'answer "F" is none of the 2 options \(A to B\)'),
    ("text", {"answer": "green"}, r'answer "green" is none of the 2 options'),
    ("both", {"options": ["B", "A"], "answer": "A"}, r"a letter and the text of another option"),
    ("empty answer", {"answer": ""}, r"answer: .* is missing"),
    ("no question", {"question": None}, r"question: .* is missing"),
    ("one option", {"options": ["red"]}, r"1 options; a choice has at least two"),
    ("twice", {"options": ["red", "red"]}, r'the option "red" is there twice'),
    ("no list", {"options": 7}, r"options: 7 is no list"),
    ("id", {"id": "a"}, r'the id "a" is there already, in row 1'),
    ("span", {"start": 3, "end": 2}, r"start and end: 3 to 2 s is no part of a clip"),
    ("surrogate", {"question": "half \ud83d"}, r"holds half a character"),
    ("span text", {"start": "x", "end": 2}, r"start and end: 'x' and 2 are no seconds"),
]


@pytest.mark.parametrize(("change", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_row_is_named(tmp_path: Path, clips: Path, change: dict, message: str) -> None:
    rows = [ROWS[0], ROWS[0] | {"id": "x"} | change, ROWS[2]]
    path = lines(tmp_path / "x.jsonl", rows)
    with pytest.raises(ProbeError, match=rf"^{path}: row 2: .*{message}[^\n]*$") as error:
        samples(path, videos=str(clips))
    assert "more row" not in str(error.value)
    path = lines(tmp_path / "y.jsonl", [*rows, ROWS[1] | {"id": "y", "answer": "Z"}, {"id": "z"}])
    with pytest.raises(ProbeError, match=rf"^{path}: row 2: .*\(and 2 more rows\)$"):
        samples(path, videos=str(clips))


def test_mixed_encodings_are_named(tmp_path: Path, clips: Path) -> None:
    good = json.dumps(ROWS[0]).encode()
    bad = json.dumps(ROWS[2], ensure_ascii=False).replace("何", "").encode("latin-1")
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join([good, b"", bad, good.replace(b'"a"', b'"z"')]))
    with pytest.raises(ProbeError, match=rf"^{path}: row 3: is not UTF-8; save the file as UTF-8$"):
        samples(path, videos=str(clips))
    table = tmp_path / "x.csv"
    head = "id,video,question,options,answer\r\n"
    row = '{},red.mp4,"Two\r\nlines?","[""red"", ""blue""]",{}\r\n'
    table.write_bytes(
        (head + row.format("a", "A")).encode() + row.format("ü", "A").encode("cp1252")
    )
    with pytest.raises(ProbeError, match=rf"^{table}: row 2, line 4: is not UTF-8[^\n]*$"):
        samples(table, "csv", videos=str(clips))
    table.write_bytes((head + row.format("a", "A") + row.format("b", "Q")).encode())
    with pytest.raises(ProbeError, match=rf'^{table}: row 2, line 4: the answer "Q"[^\n]*$'):
        samples(table, "csv", videos=str(clips))
    table.write_bytes((head + row.format("a", "A")).encode("utf-16"))
    with pytest.raises(ProbeError, match=rf"^{table}: is UTF-16; save it as UTF-8$"):
        samples(table, "csv", videos=str(clips))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.jsonl",
            b'{"id": 1}\n{"id": \n',
            r"row 1: question: .* is missing; .*2 more|and 1 more",
        ),
        ("x.jsonl", b"[1, 2", r"line 1: is not JSON"),
        ("x.json", b"[1]", r"row 1: is no object"),
        ("x.csv", b"id,video\n1,2,3\n", r"row 1, line 2: has 3 cells, and the header 2"),
        ("x.csv", b'id,video\n1,"2\n', r"line \d: is not CSV"),
        ("x.parquet", b"nothing", r"is not parquet"),
        ("x.jsonl", b"", r"there is no row"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    source = path.suffix.removeprefix(".")
    with pytest.raises(ProbeError, match=rf"^{path}: .*({message})[^\n]*$"):
        samples(path, source)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"gone.jsonl: no such file$"):
        samples(tmp_path / "gone.jsonl")
    with pytest.raises(ProbeError, match=r"no file that ends in .csv or .tsv$"):
        samples(tmp_path, "csv")
    with pytest.raises(ProbeError, match=r"gone: no such folder$"):
        samples(tmp_path / "gone", "datasets")
