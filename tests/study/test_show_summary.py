"""A summary as a whole: measured numbers, arrays, errors, text, JSON, figures and export."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from probe import ProbeError
from probe.diagnose.base import Diagnosis
from probe.study.cell import Cell
from probe.study.export import export
from probe.study.show import Names, errors, summary_of
from probe.study.show_arrays import lines, mean_array, plain
from probe.study.show_figure import draw
from probe.study.show_measured import array_means, measured
from probe.study.show_text import show
from probe.study.statistics import difference
from tests.study.show_table import NAMES, label, made

QUICK = {"resamples": 200, "permutations": 199}


@dataclass(frozen=True)
class Ratio(Diagnosis):
    """A ratio of means, as a pool of its own."""

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        if table["top"].sum() < 0:
            raise ProbeError("Ratio: nothing to divide")
        value = table["top"].mean() / table["bottom"].mean()
        by_type = table.groupby("type")["top"].mean()
        rows = [("ratio", value), *by_type.items()]
        return pd.DataFrame(rows, columns=["name", "value"]).assign(n=len(table), clusters=1)


def of_diagnosis(**columns: list[float]) -> tuple[pd.DataFrame, Names]:
    n = len(next(iter(columns.values())))
    table = pd.DataFrame(
        {
            "model": "m",
            "sample": [f"s{i}" for i in range(n)],
            "video": [f"v{i // 2}" for i in range(n)],
            "type": ["count", "order"] * (n // 2),
            "role": "diagnosis",
            "label": "Ratio()",
            "of": "",
            "seed": 0,
            "error": None,
        }
        | columns
    )
    return table, Names((), ("type",), {"Ratio()": tuple(columns)})


def test_a_diagnosis_is_pooled_by_its_own_pool() -> None:
    table, names = of_diagnosis(top=[1.0, 2, 3, 6], bottom=[2.0, 4, 4, 2])
    cells = {"Ratio()": Cell("Ratio()", "diagnosis", made=Ratio())}
    found, notes = measured(table, names, "diagnosis", cells)
    assert not notes
    assert dict(zip(found["name"], found["value"], strict=True)) == {
        "ratio": 1.0,
        "count": 2.0,
        "order": 4.0,
    }
    assert set(found["label"]) == {"Ratio()"} and set(found["model"]) == {"m"}
    alone, _ = measured(table, names, "diagnosis", {})  # a class that cannot be imported here
    assert alone["name"].tolist() == ["top", "bottom"]
    assert alone["value"].tolist() == [3.0, 3.0]
    failing = table.assign(top=-1.0)
    found, notes = measured(failing, names, "diagnosis", cells)
    assert found["name"].tolist() == ["top", "bottom"] and "nothing to divide" in notes[0]


def test_failed_and_undefined_cells_are_left_out_of_the_means() -> None:
    table, names = of_diagnosis(top=[1.0, 2, np.nan, 6], bottom=[np.nan] * 4)
    table.loc[1, "error"] = "no clip"
    found, _ = measured(table, names, "diagnosis", {})
    top = found[found["name"] == "top"].iloc[0]
    assert top["value"] == 3.5 and top["n"] == 2
    bottom = found[found["name"] == "bottom"].iloc[0]
    assert np.isnan(bottom["value"]) and bottom["n"] == 0


def arrays() -> tuple[list[xr.DataArray], list[str]]:
    rng = np.random.default_rng(2)
    sizes = [3, 4, 4, 3, 4, 4]
    made = [
        xr.DataArray(
            rng.normal(size=(2, n)),
            {"layer": [0, 1], "frame": np.arange(n), "frame_name": ("frame", list("abcd")[:n])},
            ["layer", "frame"],
        )
        for n in sizes
    ]
    return made, ["a", "a", "b", "b", "c", "c"]


def test_means_of_arrays_match_entries_by_their_labels() -> None:
    several, videos = arrays()
    found = mean_array(several, videos)
    padded = np.full((6, 2, 4), np.nan)
    for row, array in zip(padded, several, strict=True):
        row[:, : array.shape[1]] = array
    np.testing.assert_allclose(found["mean"], np.nanmean(padded, 0))
    assert found["n"].values.tolist() == [[6, 6, 6, 4]] * 2
    d = difference(padded[:, 1, 0], np.zeros(6), videos, resamples=1_000)
    at = found.sel(layer=1, frame=0)
    assert (float(at["low"]), float(at["high"])) == pytest.approx((d.low, d.high))
    one = mean_array(several, ["a"] * 6)
    np.testing.assert_allclose(one["mean"], found["mean"])
    assert np.isnan(one["low"]).all()
    with pytest.raises(ProbeError, match="dims"):
        mean_array([several[0], several[0].rename(frame="step")], ["a", "b"])


def test_arrays_of_several_models_are_kept_apart() -> None:
    several, videos = arrays()
    coords = {"sample": [f"s{i}" for i in range(6)], "video": ("sample", videos)}
    models = ("sample", ["m", "n"] * 3)
    together = xr.concat(several, "sample", join="outer").assign_coords(coords | {"model": models})
    together[5] = np.nan  # a sample without it
    found, notes = array_means({"mass": {"mass": together}})
    assert not notes and list(found) == [("m", "mass", "mass"), ("n", "mass", "mass")]
    expected = mean_array([several[i] for i in (1, 3)], [videos[i] for i in (1, 3)])
    xr.testing.assert_allclose(found["n", "mass", "mass"]["mean"], expected["mean"])


def test_arrays_as_text_and_as_json() -> None:
    array = xr.DataArray(
        [[0.12345, np.nan], [100, -2]], {"layer": [0, 1], "who": ["a", "last"]}, ["layer", "who"]
    )
    assert [line.split() for line in lines(array)] == [
        ["layer", "\\", "who", "a", "last"],
        ["0", "0.123", "-"],
        ["1", "100", "-2"],
    ]
    assert plain(array)["data"] == [[0.12345, None], [100, -2]]
    assert plain(array)["coords"] == {"layer": [0, 1], "who": ["a", "last"]}
    wide = xr.DataArray(np.zeros((30, 40)), dims=["row", "column"])
    text = list(lines(wide))
    assert len(text) == 18 and text[-1] == "… 14 more rows" and text[0].endswith("…")
    assert list(lines(xr.DataArray(2.0))) == ["2"]


def test_errors_are_counted_by_message() -> None:
    table = made(samples=6, videos=3, seeds=1)
    rows = table["label"] == label(0.1)
    table.loc[rows, ["error", "margin", "accuracy"]] = ["out of memory", np.nan, np.nan]
    table.loc[table.index[0], "error"] = "no such file"
    found = errors(table)
    assert found["error"].tolist() == ["out of memory", "no such file"]
    assert found["cells"].tolist() == [6, 1] and found["samples"].tolist() == [6, 1]
    assert found["label"].tolist() == [label(0.1), "untouched"]


@pytest.fixture(scope="module")
def summary():
    table = made(samples=24, videos=12)
    table.loc[table["label"] == label(0.1), ["error", "margin"]] = ["too | dark", np.nan]
    captured, names = of_diagnosis(entropy=list(np.arange(24.0)))
    captured = captured.assign(role="capture", label="entropy")
    several, videos = arrays()
    coords = {"sample": list("abcdef"), "video": ("sample", videos), "model": ("sample", ["m"] * 6)}
    mass = xr.concat(several, "sample", join="outer").assign_coords(coords)
    return summary_of(
        "dark clips",
        pd.concat([table, captured]),
        Names(NAMES.scores, names.meta, {"entropy": ("entropy",)}),
        arrays={"mass": {"mass": mass}},
        **QUICK,
    )


def test_a_summary_prints(summary, capsys: pytest.CaptureFixture) -> None:
    show(summary)
    text = capsys.readouterr().out
    lines_of = {line.split("\t")[0]: line.split("\t") for line in text.splitlines()}
    assert text.startswith("dark clips: 24 samples of 12 videos")
    mean = made(samples=24, videos=12).query("label == 'untouched'")["margin"].mean()
    assert f"{mean:.3g} [" in text and "  random, 3 seeds" in lines_of
    assert "capture entropy" in text and "11.5 [" in text
    assert "mass, mean of 6" in text and "24 results failed" in text and "too | dark" in text
    assert "fastv(k=2, keep=…), margin: untouched" in text


def test_markdown_has_whole_tables(summary, capsys: pytest.CaptureFixture) -> None:
    show(summary, markdown=True)
    text = capsys.readouterr().out
    assert text.startswith("# dark clips\n") and "too \\| dark" in text
    blocks = [part for part in text.replace("\\|", "").split("\n\n") if part.startswith("|")]
    assert len(blocks) == 6
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_json_has_no_nan_and_the_numbers_of_the_tables(summary) -> None:
    data = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert data["samples"] == 24 and data["videos"] == 12
    rows = {(row["score"], row["label"]): row for row in data["scores"]}
    frame = summary.scores.set_index(["score", "label"])
    at = ("margin", label(0.25))
    assert rows[at]["difference"] == pytest.approx(frame.loc[at, "difference"])
    assert rows["margin", "untouched"]["difference"] is None
    assert data["arrays"][0]["mean"]["dims"] == ["layer", "frame"]
    assert data["errors"][0]["error"] == "too | dark"


@pytest.mark.parametrize("name", ["curves.png", "changes.svg"])
def test_figures(name: str, summary, tmp_path: Path) -> None:
    from dataclasses import replace

    path = tmp_path / name
    draw(summary if "curves" in name else replace(summary, curves=pd.DataFrame()), path)
    start = {"png": b"\x89PNG", "svg": b"<?xml"}[path.suffix[1:]]
    assert path.read_bytes().startswith(start) and path.stat().st_size > 5_000


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_export_is_the_table(suffix: str, tmp_path: Path) -> None:
    table = made(samples=4, videos=2, seeds=1)
    table["mixed"] = [1, "two", None, 4.5] * (len(table) // 4)
    table["several"] = [["a", "b"]] * len(table)
    path = tmp_path / f"out{suffix}"
    export(table, path)
    back = pd.read_parquet(path) if suffix == ".parquet" else pd.read_csv(path)
    assert list(back.columns) == list(table.columns) and len(back) == len(table)
    np.testing.assert_allclose(back["margin"], table["margin"])
    assert back["label"].tolist() == table["label"].tolist()
    assert json.loads(back["several"].iloc[0]) == ["a", "b"]
    assert back["mixed"].tolist()[:2] == ["1", "two"] and pd.isna(back["mixed"].iloc[2])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_export_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    table = made(samples=2, videos=2, seeds=1)
    for path, word in ((tmp_path / "a.xlsx", "parquet"), (tmp_path / "no" / "a.csv", "no folder")):
        with pytest.raises(ProbeError, match=word):
            export(table, path)
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(ProbeError, match="is a folder"):
        export(table, tmp_path / "b.csv")


def test_yes_and_no_are_scored_as_by_scikit_learn(capsys: pytest.CaptureFixture) -> None:
    from dataclasses import replace

    from sklearn.metrics import f1_score, precision_score, recall_score

    from probe.study.show_yes_no import yes_no

    rng = np.random.default_rng(4)
    table = made(samples=40, videos=20, seeds=1)
    truth = dict(zip(dict.fromkeys(table["sample"]), rng.integers(0, 2, 40), strict=True))
    gold = table["sample"].map(truth).to_numpy(float)
    said = np.where(rng.random(len(table)) < 0.8, gold, 1 - gold)
    said[rng.random(len(table)) < 0.05] = np.nan
    table["says_yes"], table["yesno"] = said, (said == gold).astype(float)
    found = yes_no(table)
    for name in ("untouched", label(0.25)):
        rows = found[found["label"] == name].set_index("name")["value"]
        own = (table["label"] == name).to_numpy()
        yes = said[own] == 1
        assert rows["accuracy"] == pytest.approx(100 * (said == gold)[own].mean())
        assert rows["precision"] == pytest.approx(100 * precision_score(gold[own], yes))
        assert rows["recall"] == pytest.approx(100 * recall_score(gold[own], yes))
        assert rows["f1"] == pytest.approx(100 * f1_score(gold[own], yes))
        assert rows["yes_rate"] == pytest.approx(100 * yes.mean())
    assert len(yes_no(table.drop(columns="says_yes"))) == 0
    whole = summary_of("yes or no", table, replace(NAMES, scores=("yesno",)), **QUICK)
    show(whole)
    text = capsys.readouterr().out
    assert "yes and no\n\taccuracy, %\tprecision, %\trecall, %\tf1, %\tyes_rate, %\tn" in text
