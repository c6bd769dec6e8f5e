"""How right importance maps are: tables from the results of a study.

    probe study run experiments/how_right.yaml --out how_right
    probe study run experiments/how_right_faithful.yaml --out how_right_faithful
    python experiments/how_right_importance.py how_right --faithful how_right_faithful --out figures

How well each map finds the tokens that show the answer, over all items and by type of question,
beside maps that know nothing of the question; the best single head; how faithful maps are. Means
over items with bootstrap 95 % intervals over videos.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from probe.diagnose.pool import means
from probe.errors import ProbeError
from probe.study.statistics import difference
from probe.study.store import Store

METRICS = {
    "auroc": "AUROC",
    "auroc_objects": "AUROC against other objects",
    "average_precision": "average precision",
    "pointing": "pointing game",
    "frame_recall": "frame recall",
    "precision_within": "precision in evidence frames",
}
CONTROLS = ("CentreMap()", "UnlikeMap()", "RandomMap()")
FAITHFUL = {
    "deletion": "deletion",
    "insertion": "insertion",
    "deletion_margin": "deletion, margin",
    "insertion_margin": "insertion, margin",
    "agreement": "agreement with occlusion",
    "agreement_signed": "signed",
}


def main() -> None:
    """Read, print, and with --out write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="results of how_right.yaml")
    parser.add_argument("--faithful", type=Path, help="results of how_right_faithful.yaml")
    parser.add_argument("--out", type=Path, help="folder for how_right_importance.md")
    asked = parser.parse_args()
    lines = evidence(Store(asked.folder))
    if asked.faithful:
        lines += ["", *faithful(Store(asked.faithful))]
    print("\n".join(lines))
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "how_right_importance.md").write_text("\n".join(lines) + "\n")


def evidence(store: Store) -> list[str]:
    """Markdown: how well each map finds the evidence."""
    (label,) = labels(store, "FindsEvidence")
    table = store.table()
    lines = ["# Which maps find the evidence", ""]
    for model, rows in table[table["label"] == label].groupby("model", sort=False):
        found = summary(rows, METRICS)
        share = rows["share"].mean()
        lines += [f"## {model}", "", f"n = {int(found['n'].max())} items; {share:.0%} of the ", ""]
        lines[-2] += "tokens show the evidence, the average precision of chance."
        lines += [*grid(found, METRICS), "", "AUROC minus that of a control, paired:", ""]
        lines += [*versus(rows), "", "AUROC by type of question:", "", *by_type(rows, "auroc"), ""]
        lines += ["AUROC against other objects by type:", "", *by_type(rows, "auroc_objects"), ""]
        lines += [best_head(store, label, model), ""]
    return lines


def summary(rows: pd.DataFrame, metrics: dict[str, str]) -> pd.DataFrame:
    """Of each "METRIC MAP" column: metric, map, value, low, high, n."""
    wanted = [name for name in rows if name.split(" ")[0] in metrics and name.endswith(")")]
    found = means(rows[["sample", "video", *wanted]])
    found[["metric", "map"]] = found["name"].str.split(" ", n=1, expand=True)
    return found[found["n"] > 0]


def grid(found: pd.DataFrame, metrics: dict[str, str]) -> list[str]:
    """A row for each map, a column for each metric."""
    lines = ["| map | " + " | ".join(metrics.values()) + " |", "| --- " * (len(metrics) + 1) + "|"]
    cells = found.set_index(["map", "metric"])
    for one in dict.fromkeys(found["map"]):
        row = [bracket(cells.loc[(one, m)]) if (one, m) in cells.index else "" for m in metrics]
        lines.append(f"| {one} | " + " | ".join(row) + " |")
    return lines


def bracket(row: pd.Series) -> str:
    """`0.894 [0.889, 0.899]`."""
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def versus(rows: pd.DataFrame) -> list[str]:
    """A row for each map, a column for each control."""
    lines = ["| map | " + " | ".join(CONTROLS) + " |", "| --- " * (len(CONTROLS) + 1) + "|"]
    for column in [name for name in rows if name.startswith("auroc ")]:
        row = []
        for control in CONTROLS:
            both = rows[[column, f"auroc {control}"]].to_numpy(float)
            kept = np.isfinite(both).all(1)
            if column == f"auroc {control}" or not kept.any():
                row.append("")
                continue
            d = difference(*both[kept].T, rows["video"].to_numpy()[kept], permutations=100)
            row.append(f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]")
        lines.append(f"| {column.removeprefix('auroc ')} | " + " | ".join(row) + " |")
    return lines


def by_type(rows: pd.DataFrame, metric: str) -> list[str]:
    """Mean of a metric: a row for each map, a column for each type of question with its n."""
    columns = [name for name in rows if name.startswith(f"{metric} ")]
    found = rows.groupby("type", sort=False)[columns].mean()
    count = rows.groupby("type", sort=False)[columns[0]].count()
    heads = [f"{kind} ({count[kind]})" for kind in found.index if count[kind]]
    lines = ["| map | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 1) + "|"]
    for name in columns:
        cells = [f"{found.loc[kind, name]:.3f}" for kind in found.index if count[kind]]
        lines.append(f"| {name.removeprefix(f'{metric} ')} | " + " | ".join(cells) + " |")
    return lines


def best_head(store: Store, label: str, model: str) -> str:
    """The head that is best on half of the items of each type, and what it reaches on the rest."""
    found = store.arrays(label)["heads_auroc"]
    found = found.isel(sample=np.flatnonzero(found["model"].values == model))
    rows = store.table().query("label == @label and model == @model")
    kinds = rows.set_index("sample")["type"].loc[found["sample"].values]
    first = (kinds.groupby(kinds).cumcount() % 2 == 0).to_numpy()
    chosen = found.isel(sample=np.flatnonzero(first)).mean("sample", skipna=True)
    layer, head = np.unravel_index(int(chosen.values.argmax()), chosen.shape)
    rest = found.isel(sample=np.flatnonzero(~first), layer=layer, head=head)
    table = pd.DataFrame(
        {"sample": range(rest.size), "video": rest["video"].values, "auroc": rest.values}
    )
    row = means(table).iloc[0]
    return (
        f"Best head, chosen on half of the items of each type: layer {layer}, head {head}, AUROC "
        f"{bracket(row)} on the other {row['n']} items."
    )


def faithful(store: Store) -> list[str]:
    """Markdown: deletion and insertion areas, and agreement with occlusion."""
    table = store.table()
    lines = ["# Which maps are faithful", ""]
    lines += ["Deletion: the lower the more faithful; insertion: the higher.", ""]
    for label in labels(store, "Faithfulness"):
        way = "cut off from the text" if 'by="cut"' in label else "dropped at the input"
        for model, rows in table[table["label"] == label].groupby("model", sort=False):
            found = summary(rows.dropna(axis=1, how="all"), FAITHFUL)
            lines += [f"## {model}, tokens {way}, n = {int(found['n'].max())}", ""]
            lines += [*grid(found, FAITHFUL), ""]
    return lines


def labels(store: Store, name: str) -> list[str]:
    """Labels of a diagnosis in a study."""
    found = [c["label"] for c in store.manifest["cells"] if c["label"].startswith(f"{name}(")]
    if not found:
        raise ProbeError(f"{store.folder}: no {name} in this study")
    return found


if __name__ == "__main__":
    main()
