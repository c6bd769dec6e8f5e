"""A summary as tables of text: on a terminal, between tabs, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probe.study.show_curves import CONTROLS
from probe.study.show_numbers import interval, p_text, whole

if TYPE_CHECKING:
    from probe.study.show import Summary

MESSAGES = 5
"""Errors that are shown; the others are counted."""
LEGEND = (
    "change: to the untouched run on the same samples. [ ]: 95 %, bootstrap over videos. p: "
    "permutation of whole videos, after Holm's correction over the ablations (for "
    "controls over the controls). McNemar: right in the untouched run alone : here alone. no loss: "
    "equivalence within 2 % of untouched - blind; where it is open, the samples it would take. "
    "tokens: visual tokens per layer, on average."
)
VERSUS = (
    "ablation - control: paired; p after Holm's correction over the ablations against one control."
)
CURVES = (
    "- blind, - random, - uniform: the method minus the control at this point, paired; * differs "
    "from 0 after Holm's correction over all points and methods against this control."
)


@dataclass(frozen=True)
class Shown:
    """One table of text."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    legend: str = ""


def show(summary: Summary, markdown: bool = False) -> None:
    """Print a summary."""
    from probe.listing import table

    size = f"{summary.samples:,} samples of {summary.videos:,} videos"
    print(f"# {summary.name}\n\n{size}" if markdown else f"{summary.name}: {size}")
    legends: dict[str, list[str]] = {}
    for one in shown(summary):
        if markdown:
            print(f"\n## {one.title}\n\n{_markdown(one)}")
        else:
            print(f"\n{one.title}")
            table("", one.columns, one.rows, heads=True)
        legends.setdefault(one.legend, [])
    if not markdown:
        for line in _arrays(summary):
            print(line)
    for legend in filter(None, legends):
        print(f"\n{legend}")
    for note in summary.notes:
        print(f"{'- ' if markdown else ''}note: {note}")


def shown(summary: Summary) -> Iterator[Shown]:
    """The tables of a summary, those without rows left out."""
    several = len(summary.models) > 1
    for title, rows in _groups(summary.scores, "score", several=several):
        yield _scores(rows, title)
    for title, rows in _groups(summary.versus, "score", several=several):
        yield _versus(rows, f"{title}: ablation - control")
    for title, rows in _groups(summary.curves, "curve", "score", several=several):
        yield _curve(rows, title)
    for title, rows in _groups(summary.yes_no, several=several):
        yield _yes_no(rows, f"yes and no, {title}" if title else "yes and no")
    for title, rows in _groups(summary.captures, "label", several=several):
        yield _measured(rows, f"capture {title}")
    for title, rows in _groups(summary.diagnoses, "label", several=several):
        yield _measured(rows, f"diagnosis {title}")
    if len(summary.errors):
        yield _errors(summary.errors)


def _groups(table: Any, *by: str, several: bool) -> Iterator[tuple[str, Any]]:
    """Rows of each group and its title; the model is in it where there are several."""
    if len(table):
        for key, rows in table.groupby([*by, "model"], sort=False):
            yield ", ".join(map(str, key if several else key[:-1])), rows


def _scores(rows: Any, title: str) -> Shown:
    tests = bool(rows["mcnemar_p"].notna().any())
    losses = bool(rows["equivalence"].notna().any())
    tokens = bool(rows["tokens"].notna().any())
    columns = ["", *["tokens"] * tokens, "mean", "change", "p"]
    columns += [*["McNemar"] * tests, *["no loss"] * losses, "n"]
    cells = []
    for row in rows.to_dict("records"):
        line = [_label(row)] + [_tokens(row["tokens"])] * tokens
        line.append(interval(row["mean"], row["low"], row["high"]))
        change = (row["difference"], row["difference_low"], row["difference_high"])
        line += [interval(*change, "+"), p_text(row["p_holm"])]
        line += [_mcnemar(row)] * tests + [_no_loss(row)] * losses
        lost = 0 if math.isnan(row["paired"]) else row["n"] - row["paired"]
        cells.append((*line, f"{row['n']:,.0f}" + f" ({lost:.0f} unpaired)" * bool(lost)))
    notes = dict.fromkeys(rows["note"].dropna())
    legend = LEGEND + "".join(f"\nnote: {note}" for note in notes if note)
    filled = [n for n in range(len(columns)) if n == 0 or any(cell[n] for cell in cells)]
    kept = [tuple(cell[n] for n in filled) for cell in cells]
    return Shown(title, tuple(columns[n] for n in filled), kept, legend)


def _label(row: dict[str, Any]) -> str:
    if row["role"] in ("untouched", "ablation", "blind"):
        return str(row["label"])
    what = {"random": f"random, {row['seeds']} seed{'s' * (row['seeds'] > 1)}"}
    own = str(row["label"]).removeprefix(f"{row['of']} | ")
    return f"  {what.get(row['role'], own)}"


def _tokens(count: float) -> str:
    return "" if math.isnan(count) else f"{count:,.0f}"


def _mcnemar(row: dict[str, Any]) -> str:
    if math.isnan(row["mcnemar_p"]):
        return ""
    return f"{row['only_untouched']:.0f}:{row['only_this']:.0f}, p {p_text(row['mcnemar_p'])}"


def _no_loss(row: dict[str, Any]) -> str:
    if not isinstance(row["equivalence"], str):
        return ""
    if row["equivalence"] != "inconclusive":
        return f"{row['equivalence']}{_within(row)}"
    needed = row["samples_needed"]
    takes = "more than can be planned" if needed is None or needed != needed else f"{needed:,.0f}"
    return f"open{_within(row)}: {takes} samples"


def _within(row: dict[str, Any]) -> str:
    return "" if math.isnan(row["margin"]) else f" (±{row['margin']:.2g})"


def _versus(rows: Any, title: str) -> Shown:
    cells = [
        (
            str(row["label"]),
            row["control"] + (f", {row['seeds']} seeds" if row["control"] == "random" else ""),
            interval(row["difference"], row["low"], row["high"], "+"),
            p_text(row["p_holm"]),
            f"{row['n']:,}",
        )
        for row in rows.to_dict("records")
    ]
    return Shown(title, ("", "control", "difference", "p", "n"), cells, VERSUS)


def _curve(rows: Any, title: str) -> Shown:
    by, name = str(rows["by"].iloc[0]), str(rows["curve"].iloc[0])
    there = [control for control in CONTROLS if control in set(rows["method"])]
    means, own = rows[rows["versus"] == ""], rows[rows["method"] == name]
    cells = []
    for point in sorted(own["point"].dropna().unique(), reverse=True):
        line = [f"{point:g}", _at(means, name, point)]
        line += [_at(means, control, point) for control in there]
        for control in there:
            here = own[(own["point"] == point) & (own["versus"] == control)].iloc[0]
            star = " *" if here["significant"] else ""
            line.append(interval(here["estimate"], here["low"], here["high"], "+") + star)
        cells.append(tuple(line))
    seeds = int(means.loc[means["method"] == "random", "seeds"].max()) if "random" in there else 0
    heads = {"random": f"random, {seeds} seed{'s' * (seeds > 1)}"}
    columns = (by, "mean", *(heads.get(c, c) for c in there), *(f"- {c.split()[0]}" for c in there))
    untouched = _at(means, "untouched", float("nan"))
    n = f"{own['n'].max():.0f} samples of {own['clusters'].max():.0f} videos"
    return Shown(f"{title}: untouched {untouched}, {n}", columns, cells, CURVES)


def _at(means: Any, method: str, point: float) -> str:
    rows = means[means["method"] == method]
    here = rows[rows["point"] == point]
    here = rows[rows["point"].isna()] if not len(here) else here
    return "" if not len(here) else f"{here['estimate'].iloc[0]:.3g}"


def _yes_no(rows: Any, title: str) -> Shown:
    names = list(dict.fromkeys(rows["name"]))
    cells = []
    for label, its in rows.groupby("label", sort=False):
        by_name = its.set_index("name")
        values = [by_name.loc[name, ["value", "low", "high"]] for name in names]
        cells.append((str(label), *(interval(*value) for value in values), whole(its["n"].max())))
    return Shown(title, ("", *(f"{name}, %" for name in names), "n"), cells)


def _measured(rows: Any, title: str) -> Shown:
    cells = [
        (str(r["name"]), interval(r["value"], r["low"], r["high"]), whole(r["n"]))
        for r in rows.to_dict("records")
    ]
    return Shown(title, ("", "value", "n"), cells)


def _errors(table: Any) -> Shown:
    rows = [
        (f"{r['cells']:,}", f"{r['samples']:,}", str(r["error"]), f"{r['sample']}, {r['label']}")
        for r in table.head(MESSAGES).to_dict("records")
    ]
    more = len(table) - MESSAGES
    legend = f"{more} other messages; --json has all" if more > 0 else ""
    title = f"{table['cells'].sum():,} results failed"
    return Shown(title, ("results", "samples", "error", "for example"), rows, legend)


def _arrays(summary: Summary) -> Iterator[str]:
    from probe.study.show_arrays import lines

    several = len(summary.models) > 1
    for (model, label, name), array in summary.arrays.items():
        title = label if name.partition("(")[0] in label else f"{label}: {name}"
        yield f"\n{title}, mean of {int(array['n'].max()):,}" + f", {model}" * several
        yield from lines(array["mean"])


def _markdown(one: Shown) -> str:
    lines = ["| " + " | ".join(one.columns) + " |", "|---" * len(one.columns) + "|"]
    for row in one.rows:
        cells = [cell.replace("|", "\\|") for cell in row]
        indent = "&nbsp;&nbsp;" if cells[0].startswith("  ") else ""
        lines.append("| " + " | ".join([indent + cells[0].strip(), *cells[1:]]) + " |")
    return "\n".join(lines)
