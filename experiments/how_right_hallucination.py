"""How right are the hallucination signals? Each alone, and combined, against known truth.

    python experiments/how_right_hallucination.py collect --data studies/signals
    python experiments/how_right_hallucination.py table --data studies/signals --out figures

`collect` appends a line an item and goes on where it stopped; `--part 0/4` makes it one of four
processes. `table` fits on "fit", chooses there (the combination by cross-validation, the best
published detector and own confidence by AUROC), and tests on the other splits. A second
combination is fitted with half of the questions about what is not there beside "fit"; every row
about "absent" is on the other half.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from how_right_hallucination_collect import CLIPS, collect, lines_of

from probe.diagnose.signals import HallucinationScore, fit, signs
from probe.diagnose.signals.base import risk
from probe.errors import ProbeError
from probe.study.statistics import (
    auroc,
    auroc_difference,
    average_precision,
    calibration,
    fifths,
)
from probe.testbed.shifted import SHIFTS

MODELS = ("testbed/onevision", "testbed/qwen")
LABELS = {
    "hallucinated": "the clip does not support the answer (hidden, or wrong)",
    "hidden": "the clip does not show the answer",
}
CONFIDENCE = ("nll", "entropy", "margin", "option_margin", "option_entropy")
PUBLISHED = {
    "pdm_cut": "PDM (2403.14003)",
    "pas": "PAS (2511.11502)",
    "svar": "SVAR (2411.16724)",
    "llcc": "LLCC support (2608.07302)",
    "glsim": "GLSim (2508.19972)",
    "cgc": "CGC (2604.04863)",
    "ic": "internal confidence (2410.02762)",
}
CONTROLS = ("index", "frequency")
MATTERS = {*CONTROLS, "nll", "entropy", "margin", *PUBLISHED.values(), "influence", "combination"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["collect", "table"])
    parser.add_argument("--data", type=Path, required=True, help="folder of the raw values")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--shifts", nargs="+", default=list(SHIFTS))
    parser.add_argument("--n", type=int, default=1500, help="items of test")
    parser.add_argument("--fit", type=int, default=500, help="items of fit")
    parser.add_argument("--others", type=int, default=150, help="items of each other split")
    parser.add_argument("--captions", type=int, default=60, help="captions of fit and of test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--out", type=Path, help="folder for how_right_hallucination.md and .json")
    asked = parser.parse_args()
    if asked.what == "collect":
        collect(asked)
        return
    found = reports(asked.data, asked.out, asked.models, asked.shifts)
    print("\n".join(found.long))
    if asked.out:
        (asked.out / "how_right_hallucination.md").write_text("\n".join(found.long) + "\n")


class Reports(NamedTuple):
    """Markdown: everything, and what matters most."""

    long: list[str]
    short: list[str]


def reports(
    data: Path,
    out: Path | None,
    models: Sequence[str] = MODELS,
    shifts: Sequence[str] = tuple(SHIFTS),
) -> Reports:
    """Tables of every model that has values in a folder; combinations are saved in `out`."""
    if out:
        out.mkdir(parents=True, exist_ok=True)
    found = Reports([], [])
    for model in models:
        if any(lines_of(data, model, "test")):
            for part, lines in zip(found, report(model, data, out, shifts), strict=True):
                part.extend([*lines, ""])
    return found


def answers(rows: list[dict], counts: dict[str, int]) -> pd.DataFrame:
    """A row an answer, captions left out; `frequency` is that of its rarest word in the fit."""
    kept = [row for row in rows if row["type"] != "caption" and row["length"]]
    table = pd.DataFrame(
        {name: value for name, value in row.items() if not isinstance(value, dict)} for row in kept
    )
    total = max(1, sum(counts.values()))
    table["frequency"] = [-min(counts.get(word, 0) for word in words(row)) / total for row in kept]
    numbers = [name for name in table if name not in ("id", "video", "type", "medium")]
    table[numbers] = table[numbers].astype(float)
    return table


def tokens(rows: list[dict], counts: dict[str, int]) -> pd.DataFrame:
    """A row a token with a label."""
    found = []
    for row in rows:
        if not row.get("tokens"):
            continue
        scores, made_up = row["tokens"]["scores"], row["made_up"]["values"]
        values = np.array(row["tokens"]["values"], dtype=float).reshape(len(scores), -1)
        for number, label in enumerate(made_up):
            text = row["tokens"]["texts"][number].strip().lower()
            more = {"video": row["video"], "type": row["type"], "made_up": label}
            more["frequency"] = -counts.get(text, 0) / max(1, sum(counts.values()))
            if label is not None:
                found.append(more | dict(zip(scores, values[:, number], strict=True)))
    return pd.DataFrame(found)


def words(row: dict) -> list[str]:
    return [text.strip().lower() for text in row["tokens"]["texts"]]


def report(model: str, data: Path, out: Path | None, shifts: Sequence[str]) -> Reports:
    rows = {shift: list(lines_of(data, model, shift)) for shift in shifts}
    counts: dict[str, int] = {}
    for row in rows["fit"]:
        for word in words(row) if row["length"] else ():
            counts[word] = counts.get(word, 0) + 1
    tables = {shift: answers(found, counts) for shift, found in rows.items() if found}
    more = [tables["fit"]]
    if "absent" in tables:  # neighbours go to the same half: one of both kinds of items each
        first = np.arange(len(tables["absent"])) // 2 % 2 == 0
        more.append(tables["absent"][first])
        tables["absent"] = tables["absent"][~first]
    wider = pd.concat(more, ignore_index=True)
    lines = [f"## {model}", ""]
    lines += [accuracy_line(shift, table) for shift, table in tables.items()]
    short: list[str] = []
    for label, meaning in LABELS.items():
        score = fit(tables["fit"], label, about=f"{model}, {label}")
        saved(score, out, f"{Path(model).name}_{label}")
        each, less = alone(tables, label, score), against(tables, label, score)
        lines += ["", f"### {label}: {meaning}", "", f"Combination: {score.about}.", ""]
        lines += [*each, "", *less]
        short += ["", f"### {model}, {label}: {meaning}", "", *each[:2]]
        short += [line for line in each[2:] if line.split("|")[1].strip() in MATTERS]
        short += ["", *less]
        score = fit(wider, label, about=f"{model}, {label}, absent things too")
        saved(score, out, f"{Path(model).name}_{label}_wider")
        lines += ["", f"Combination fitted with absent things too: {score.about}.", ""]
        lines += against(tables, label, score)
    by_token = {s: tokens(rows[s], counts) for s in ("fit", "test") if rows.get(s)}
    return Reports([*lines, "", "### tokens", "", *of_tokens(by_token, model, out)], short[1:])


def saved(score: HallucinationScore, out: Path | None, name: str) -> None:
    """Write a combination to a folder, where one is given."""
    if out:
        score.save(out / f"hallucination_score_{name}.json")


def accuracy_line(shift: str, table: pd.DataFrame) -> str:
    seen = table[table["hidden"] == 0]
    return (
        f"- {shift}: {len(table)} answers, {table['hidden'].mean():.0%} hidden; of the visible "
        f"{seen['right'].mean():.1%} right"
    )


def alone(tables: dict[str, pd.DataFrame], label: str, score: HallucinationScore) -> list[str]:
    """Each score on the test split: AUROC, within question types, AP, ECE and Brier."""
    fitted, test = tables["fit"], tables["test"]
    truth, videos = test[label].to_numpy(), test["video"].to_numpy()
    kinds = pd.factorize(test["type"])[0]
    lines = ["| score | AUROC | within types | AP | ECE | Brier |", "| --- " * 6 + "|"]
    signed = [n for n, s in signs(CLIPS).items() if s and n in test and test[n].notna().any()]
    for name in dict.fromkeys([*CONTROLS, *CONFIDENCE, *PUBLISHED, *signed, "combination"]):
        if name != "combination" and (name not in test or not test[name].notna().any()):
            continue
        ranks = ranked(test, name, score)
        chance = (
            score.probability(test) if name == "combination" else platt(fitted, test, name, label)
        )
        how = calibration(1 - chance, 1 - truth, videos)
        lines.append(
            f"| {PUBLISHED.get(name, name)} | {number(auroc(ranks, truth, videos))} "
            f"| {number(auroc(ranks, truth, videos, matched=kinds))} "
            f"| {number(average_precision(ranks, truth, videos))} "
            f"| {number(how.ece)} | {number(how.brier)} |"
        )
    return lines


def against(tables: dict[str, pd.DataFrame], label: str, score: HallucinationScore) -> list[str]:
    """The combination less others, on the test split and each shifted one."""
    fitted = tables["fit"]
    best = max(
        (name for name in PUBLISHED if fitted[name].notna().all()),
        key=lambda name: auroc(ranked(fitted, name, score), fitted[label], resamples=100).value,
    )
    sure = max(
        (name for name in CONFIDENCE if fitted[name].notna().all()),
        key=lambda name: auroc(ranked(fitted, name, score), fitted[label], resamples=100).value,
    )
    lines = [
        f"Best on fit: published {PUBLISHED[best]}, own confidence {sure}.",
        "",
        "| split | combination | less best published | less own confidence | least of all |",
        "| --- | --- | --- | --- | --- |",
    ]
    cases = {name: table for name, table in tables.items() if name != "fit"}
    cases["test, scenes alone"] = tables["test"][tables["test"]["medium"] == "scene"]
    for shift, table in cases.items():
        truth, videos = table[label].to_numpy(), table["video"].to_numpy()
        combined = score.probability(table)
        less = {
            name: auroc_difference(combined, ranked(table, name, score), truth, videos)
            for name in {*PUBLISHED, *CONFIDENCE}
            if table[name].notna().all()
        }
        worst = min(less, key=lambda name: less[name].low)
        lines.append(
            f"| {shift} | {number(auroc(combined, truth, videos))} "
            f"| {gap(less[best])} | {gap(less[sure])} "
            f"| {gap(less[worst])} ({worst}) |"
        )
    return lines


def of_tokens(by_token: dict[str, pd.DataFrame], model: str, out: Path | None) -> list[str]:
    """Tokens of all answers, captions among them: AUROC as it is and within fifths of the index."""
    fitted, test = by_token["fit"], by_token["test"]
    if test[test["type"] == "caption"]["video"].nunique() < 30:
        return ["Fewer than 30 captions."]
    score = fit(fitted, "made_up", level="token", about=f"{model}, tokens")
    saved(score, out, f"{Path(model).name}_tokens")
    lines = [f"Combination: {score.about}.", ""]
    lines += ["| score | all tokens | captions | captions, within fifths of index |"]
    lines += ["| --- | --- | --- | --- |"]
    part = test[test["type"] == "caption"]
    for name in [*CONTROLS, *PUBLISHED, "influence", "pmi_cut", "video_logit", "combination"]:
        every, some = ranked(test, name, score), ranked(part, name, score)
        if np.isnan(every).any():
            continue
        how = (part["made_up"].to_numpy(), part["video"].to_numpy())
        known = (test["made_up"].to_numpy(), test["video"].to_numpy())
        cells = [rank(every, *known), rank(some, *how)]
        cells.append(rank(some, *how, matched=fifths(part["index"])))
        lines.append(f"| {PUBLISHED.get(name, name)} | " + " | ".join(cells) + " |")
    return lines


def ranked(table: pd.DataFrame, name: str, score: HallucinationScore) -> np.ndarray:
    """Larger for what is made up, by the published sign."""
    if name == "combination":
        return score.probability(table)
    sign = "H+" if name in CONTROLS else signs(CLIPS)[name]
    return risk(sign) * table[name].to_numpy(float)


def platt(fitted: pd.DataFrame, test: pd.DataFrame, name: str, label: str) -> np.ndarray:
    """Probability by a logistic regression on one score, of the fit split."""
    return fit(fitted, label, [name], kinds=("logistic",)).probability(test)


def rank(*given: Any, **how: Any) -> str:
    """AUROC with its interval; empty where too few videos hold what was made up."""
    try:
        return number(auroc(*given, **how))
    except ProbeError:
        return ""


def number(found: Any) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def gap(found: Any) -> str:
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


if __name__ == "__main__":
    main()
