"""How right are they? Diagnoses against known truth, on both testbed checkpoints.

    for name in how_right how_right_redundancy how_right_faithful how_right_dropped; do
        probe study run experiments/specs/$name.yaml --workers 2
    done
    python experiments/how_right_hallucination.py collect --data studies/signals
    python experiments/how_right.py --studies studies --out figures

One page, `how_right.md`, of what the studies found: which importance maps find the evidence, which
are faithful, whether estimates of redundancy predict the tokens that can go, whether sensitivity
to order finds the items that need it, whether hallucination signals find what is made up. Details
are in how_right_importance.md and how_right_hallucination.md. Intervals are bootstrap 95 % over
videos.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import how_right_hallucination as hallucination
import how_right_importance as importance
import pandas as pd
from matplotlib.figure import Figure

from probe import plot
from probe.diagnose import TemporalSensitivity
from probe.diagnose.redundancy_check import correlations
from probe.plot.style import ACCENT, QUIET, new_figure
from probe.study.store import Store

SHOWN = {
    "AttentionMap()": "attention of the last position, mean of layers and heads",
    'ReceivedMap(queries="text")': "attention received from text",
    "ValueNormMap()": "norm-weighted attention",
    "ContributionMap()": "contribution to the margin",
    'GradientMap(of="product")': "gradient x input",
    'GradientMap(of="norm")': "gradient norm",
    "RelevanceMap()": "relevance rollout",
    'OcclusionMap(of="margin")': "occlusion by knockout",
    'OcclusionMap(of="change")': "occlusion, size of the change",
    "UnlikeMap()": "*stands out in its frame (knows no question)*",
    "CentreMap()": "*centre of the frame*",
    "RandomMap()": "*random*",
}
METRICS = ("auroc", "auroc_objects", "average_precision", "pointing", "frame_recall")
TEMPORAL = {
    "auroc_sensitivity": "AUROC of the sensitivity, order and direction against the rest",
    "auroc_reverse": "AUROC, reversed alone",
    "auroc_shuffle": "AUROC, shuffled alone",
    "auroc_sensitivity_moving": "AUROC without items whose answer is that nothing moves",
    "S": "S: share of what the video is worth that hangs on order",
}
ESTIMATES = {
    "estimate_none": "margin without video and a few random subsets",
    "estimate": "a few random subsets",
    "attention_effective": "tokens that attention is spread over",
    "contribution_effective": "tokens that contributions are spread over",
    "frame_cosine": "cosine of adjacent frames",
    "margin_own": "margin of the answer",
}


def main() -> None:
    """Read the studies, print, and with --out write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=Path, default=Path("studies"))
    parser.add_argument("--out", type=Path, help="folder for how_right*.md, .pdf and .png")
    asked = parser.parse_args()
    folders = {
        name: asked.studies / f"how-right{ending}"
        for name, ending in {
            "maps": "", "redundancy": "-redundancy", "cut": "-faithful", "dropped": "-dropped",
        }.items()
    }  # fmt: skip
    there = {name: Store(path) for name, path in folders.items() if path.is_dir()}
    lines = ["# How right are they", "", (__doc__ or "").split("\n\n")[2].replace("\n", " "), ""]
    detail: list[str] = []
    if "maps" in there:
        found = maps(there["maps"])
        lines += ["## Importance maps: do they find the evidence?", "", *map_table(found), ""]
        lines += [*heads(there["maps"], list(dict.fromkeys(found["model"]))), ""]
        lines += ["## Time: does sensitivity to order find the items that need it?", ""]
        lines += [*temporal(there["maps"]), ""]
        detail += importance.evidence(there["maps"])
        if asked.out:
            plot.save(draw(found), asked.out / "how_right")
    for name in ("cut", "dropped"):
        if name in there:
            detail += ["", *importance.faithful(there[name])]
    if "redundancy" in there:
        lines += ["## Redundancy: does an estimate predict how many tokens can go?", ""]
        lines += [*redundancy(there["redundancy"]), ""]
    signals = asked.studies / "signals"
    if signals.is_dir():
        report = hallucination.reports(signals, asked.out)
        lines += ["## Hallucination: do signals find what is made up?", "", *report.short]
        if asked.out:
            write(asked.out / "how_right_hallucination.md", report.long)
    print("\n".join(lines))
    if asked.out:
        write(asked.out / "how_right.md", lines)
        write(asked.out / "how_right_importance.md", detail)


def write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines).rstrip() + "\n")


def measured(store: Store, name: str) -> dict[str, pd.DataFrame]:
    """By model, the rows of a diagnosis, without columns that it does not have."""
    table = store.table()
    rows = table[table["label"].str.startswith(f"{name}(") & table["error"].isna()]
    return {
        str(model): part.dropna(axis=1, how="all")
        for model, part in rows.groupby("model", sort=False)
    }


def maps(store: Store) -> pd.DataFrame:
    """model, map, metric, value, low, high, n."""
    found = [
        importance.summary(rows, dict.fromkeys(METRICS, "")).assign(model=model)
        for model, rows in measured(store, "FindsEvidence").items()
    ]
    return pd.concat(found, ignore_index=True)


def map_table(found: pd.DataFrame) -> list[str]:
    """A row for each map, for each model its AUROCs, and the other metrics' means."""
    models = list(dict.fromkeys(found["model"]))
    counts = ", ".join(f"{m} {found[found['model'] == m]['n'].max()}" for m in models)
    heads = ["map", *(f"{m.split('/')[-1]}: {name}" for m in models for name in (
        "AUROC", "among objects", "AP", "pointing", "frames"))]  # fmt: skip
    lines = [
        f"Items with evidence: {counts}. AUROC: a token with evidence against one without; among "
        "objects: against tokens of other objects, where only a map that knows which one is asked "
        "for is above .5; AP: average precision; pointing: the top token shows the evidence; "
        "frames: recall of the frames that show it.",
        "",
        "| " + " | ".join(heads) + " |",
        "| --- " * len(heads) + "|",
    ]
    cells = found.set_index(["model", "map", "metric"])
    for one, name in SHOWN.items():
        if (models[0], one, "auroc") not in cells.index:
            continue
        row = []
        for model in models:
            for metric in METRICS:
                cell = cells.loc[(model, one, metric)]
                text = f"{cell['value']:.3f}"
                if metric.startswith("auroc"):
                    text += f" [{cell['low']:.3f}, {cell['high']:.3f}]"
                row.append(text)
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return lines


def heads(store: Store, models: list[str]) -> list[str]:
    """For each model, its best single head."""
    (label,) = importance.labels(store, "FindsEvidence")
    return [f"- {model}: {importance.best_head(store, label, model)}" for model in models]


def temporal(store: Store) -> list[str]:
    """A row for each number of the pool, a column for each model."""
    pools = {
        model: TemporalSensitivity().pool(rows).set_index("name")
        for model, rows in measured(store, "TemporalSensitivity").items()
    }
    return table_of(pools, TEMPORAL)


def redundancy(store: Store) -> list[str]:
    """Spearman's correlation of each estimate with the tokens that can go."""
    pools = {
        model: correlations(rows).set_index("name")
        for model, rows in measured(store, "RedundancyCheck").items()
    }
    lines = []
    measures = {
        "removable": "tokens that can go before the answer flips, best order found",
        "removable_random": "the same in random order",
    }
    for name, about in measures.items():
        for ending in ("", " where some are needed"):
            rows = {f"spearman {e} {name}{ending}": text for e, text in ESTIMATES.items()}
            lines += [f"Spearman with {about}{ending and ', items' + ending}:", ""]
            lines += [*table_of(pools, rows), ""]
    return lines[:-1]


def table_of(pools: dict[str, pd.DataFrame], rows: dict[str, str]) -> list[str]:
    """Markdown of value, low and high; a column for each model."""
    lines = ["| | " + " | ".join(pools) + " |", "| --- " * (len(pools) + 1) + "|"]
    for name, text in rows.items():
        if any(name not in pool.index for pool in pools.values()):
            continue
        cells = [
            f"{pool.loc[name, 'value']:.3f} [{pool.loc[name, 'low']:.3f}, "
            f"{pool.loc[name, 'high']:.3f}], n {pool.loc[name, 'n']}"
            for pool in pools.values()
        ]
        lines.append(f"| {text} | " + " | ".join(cells) + " |")
    return lines


@plot.paper()
def draw(found: pd.DataFrame) -> Figure:
    """AUROC of each map against everything and among objects, for each model."""
    models = list(dict.fromkeys(found["model"]))
    shown = [one for one in SHOWN if one in set(found["map"])]
    figure = new_figure(plot.DOUBLE, 0.19 * len(shown) + 0.9)
    panels = figure.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0]
    for axes, model in zip(panels, models, strict=True):
        for metric, color, label in (
            ("auroc", ACCENT, "against all tokens"),
            ("auroc_objects", QUIET, "against other objects"),
        ):
            rows = found[(found["model"] == model) & (found["metric"] == metric)].set_index("map")
            for place, one in enumerate(shown):
                row = rows.loc[one]
                ends = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
                axes.errorbar(row["value"], place, xerr=ends, fmt="o", ms=3, color=color,
                              elinewidth=1, label=label if place == 0 else None)  # fmt: skip
        axes.axvline(0.5, color="#6f6a63", lw=0.6, zorder=0)
        axes.set_title(model)
        axes.set_xlabel("AUROC of the evidence")
    panels[0].set_yticks(range(len(shown)), [SHOWN[one].strip("*") for one in shown])
    panels[0].invert_yaxis()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower right", ncols=2, frameon=False)
    return figure


if __name__ == "__main__":
    main()
