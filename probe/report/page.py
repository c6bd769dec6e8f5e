"""The page: one HTML file with everything in it, that works offline."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.plot.tables import printable, title_of
from probe.report.numbers import fixed, number, percent, power
from probe.report.payload import embed, payload, pictures

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

    from probe.report.findings import Findings

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("charts.js", "marks.js", "viewer.js", "page.js")


def render_page(findings: Findings) -> str:
    """The whole report as one HTML document without any reference to another file.

    Every text that comes from the user, the model or the file is escaped.
    """
    clips = findings.hallucination["counterfactuals"]
    return (
        _environment()
        .get_template("template.html.j2")
        .render(
            f=findings,
            style=(ASSETS / "style.css").read_text("utf-8"),
            script="\n".join((ASSETS / name).read_text("utf-8") for name in SCRIPTS),
            data=embed(payload(findings)),
            frames=pictures(findings.clip.frames),
            source=Path(findings.clip.source).name,
            of=title_of(findings.target, findings.versus),
            probability=confidence(findings),
            verdict=verdict(findings.answer, findings.gold),
            clips=_rows(clips),
            ablations=_rows(findings.ablations),
            tokens=_rows(findings.tokens),
            strongest=max(findings.tokens["influence"].tolist(), default=0.0),
            checks=_rows(findings.checks),
            existence=_rows(findings.hallucination.get("existence")),
            kept=_rows(findings.redundancy["kept"]),
            drop=_rows(findings.redundancy["drop_from_layer"]),
            lens=_lens(findings),
            manifest=_groups(findings.manifest),
            exact=_exact(findings),
        )
    )


def confidence(findings: Findings) -> float | None:
    """Probability of the answer's first token, where it was measured."""
    table = findings.hallucination["counterfactuals"]
    own = dict(zip(table["clip"].tolist(), table["probability"].tolist(), strict=True))
    first = findings.tokens["probability"].tolist() if "probability" in findings.tokens else []
    return own.get("as is", first[0] if first else None)


def verdict(answer: str, gold: str | None) -> str | None:
    """Is it "right", "partly" (the right answer is among its words) or "wrong"? None: unknown."""
    if gold is None:
        return None
    said, right = (" ".join(re.findall(r"\w+", text.casefold())) for text in (answer, gold))
    if said == right:
        return "right"
    return "partly" if right and f" {right} " in f" {said} " else "wrong"


def bar(value: float, low: float, high: float) -> str:
    """Left edge and width of a bar from 0 to `value`, in percent of a span that includes 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    value = 0.0 if math.isnan(value) else value  # a contrast may remove both tokens
    width = high - low or 1.0
    start, end = sorted((0.0, float(value)))
    left, right = (min(max((x - low) / width, 0), 1) for x in (start, end))
    places = {"from": left, "wide": right - left, "zero": abs(low) / width}
    return ";".join(f"--{name}:{100 * share:.2f}%" for name, share in places.items())


def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": number,
        "fixed": fixed,
        "power": power,
        "percent": percent,
        "printable": printable,
    }
    environment.globals["bar"] = bar
    environment.tests["finite"] = math.isfinite
    return environment


def _rows(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    return [] if table is None else table.to_dict("records")


def _lens(findings: Findings) -> list[dict[str, Any]]:
    probability = findings.data.logit_lens_probability.isel(readout=0)
    token = findings.data.logit_lens_token.isel(readout=0)
    follow = {findings.target, findings.versus}
    last = len(findings.data.lens_layer) - 1
    return [
        {
            "layer": "output" if place == last else str(int(layer)),
            "cells": [
                {
                    "token": printable(str(t)),
                    "spaced": str(t).startswith(" ") and bool(str(t).strip()),
                    "p": float(p),
                    "followed": str(t) in follow,
                }
                for t, p in zip(
                    token.isel(lens_layer=place).values,
                    probability.isel(lens_layer=place).values,
                    strict=True,
                )
            ],
        }
        for place, layer in enumerate(findings.data.lens_layer.values)
    ]


def _exact(findings: Findings) -> dict[str, float] | None:
    if "contributions_error" not in findings.data:
        return None
    return {
        "sum": float(findings.data.contributions.sum()),
        "error": float(findings.data.contributions_error),
    }


def _groups(manifest: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The manifest as (title, [(name, text)]), single values last; the command is shown apart."""
    groups = [(name, list(_flat(v))) for name, v in manifest.items() if isinstance(v, Mapping)]
    rest = {n: v for n, v in manifest.items() if n != "command" and not isinstance(v, Mapping)}
    return [(name, lines) for name, lines in [*groups, ("run", list(_flat(rest)))] if lines]


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name} · ")
        elif value is not None and value != [] and value != ():
            yield f"{before}{name}", _text(value)


def _text(value: Any) -> str:
    """A setting as a reader wants it; a list of captures or ablations has a line for each."""
    if isinstance(value, list | tuple) and all(isinstance(v, Mapping) for v in value):
        return "\n".join(
            " ".join(
                [
                    str(item.get("kind", "")),
                    *(f"{k}={_text(v)}" for k, v in item.items() if k != "kind"),
                ]
            )
            for item in value
        )
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
