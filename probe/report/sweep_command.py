"""What `probe sweep` does: a table of ablations on one clip."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.report.ablated import by_layer, check, left, part

if TYPE_CHECKING:
    from probe.diagnose.margin import Margin
    from probe.engine.result import Run
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

COLUMNS = ("ablation", "margin", "change", "answer", "MACs", "KV", "visual tokens", "run from")


def command(
    video: str,
    ask: str,
    ablate: tuple[str, ...],
    *,
    model: str,
    frames: int,
    options: tuple[str, ...] = (),
    controls: bool = False,
    as_json: bool = False,
) -> None:
    """Sweep a user's ablations over a user's file and print the table.

    Raises:
        ProbeError: what cannot be read, understood or run, before the model runs where possible.
    """
    if not ask.strip():
        raise ProbeError("the question is empty; ask something, for example --ask 'What moves?'")
    if not ablate:
        raise ProbeError('sweep: name at least one, as in --ablate "fastv(k=2, keep=0.5)"')
    from probe.models.loading import load, resolve
    from probe.report.commands import TESTBED, foreign, steps
    from probe.video import read

    resolve(model)
    lists = named(ablate, controls)
    with steps() as step:
        step("reading the video")
        clip = read(video, frames=frames)
        step(f"loading {model}")
        loaded = load(model)
        x = loaded.encode(clip, ask, frames=None)
        check(loaded, x, lists)
        step("running")
        follow, rows = swept(loaded, x, lists, options)
    if model.startswith(TESTBED):
        print(f"note: {foreign(model)}", file=sys.stderr)
    if as_json:
        found = {"model": model, "question": ask, "target": follow.target, "versus": follow.versus}
        print(json.dumps(found | {"rows": rows}, indent=2, ensure_ascii=False))
    else:
        _show(follow, rows)


def swept(
    model: VideoModel, x: Example, lists: dict[str, list], options: tuple[str, ...] = ()
) -> tuple[Margin, list[dict[str, Any]]]:
    """The margin that was followed, and a row for the untouched run and each list.

    Args:
        model, x: what runs on what.
        lists: ablations that are applied together, by the name of their row.
        options: possible answers; the rival is the best of the others.
    """
    from probe.diagnose.margin import margin

    known: list[Margin] = []

    def measure(run: Run) -> dict[str, Any]:
        if not known:  # the untouched run comes first, and names the rival
            known.append(margin(model, x, run, options=options))
        return {"margin": known[0].of(run)} | left(run)

    table = model.sweep(x, list(lists.values()), measure)
    table.insert(2, "change", table["margin"] - table["margin"].iloc[0])
    table["ablation"] = ["nothing", *lists]
    rows = json.loads(str(table.to_json(orient="records")))
    for row in rows:
        row["from_layer"] = None if row["from_layer"] is None else int(row["from_layer"])
    return known[0], rows


def named(texts: tuple[str, ...], with_controls: bool = False) -> dict[str, list]:
    """Ablations by their canonical names.

    Args:
        texts: each the ablations of one row.
        with_controls: each is followed by its controls.

    Raises:
        ProbeError: text that cannot be read, or nothing that has a control.
    """
    from probe.ablate import controls, label, parse
    from probe.ablate.base import Ablation
    from probe.ablate.compose import in_order
    from probe.engine.forward import as_list

    found: dict[str, list] = {}
    swapped: dict[str, list] = {}
    for given in texts:
        one = in_order(as_list(parse(given), Ablation))
        name = label(one)
        found[name] = one
        if not with_controls:
            continue
        try:
            swapped = {f"{name}, {what}": other for what, other in controls(one).items()}
        except ProbeError:  # it reduces no tokens
            continue
        found |= swapped
    if with_controls and not swapped:
        raise ProbeError("sweep: --controls swaps a part of a reduction, and there is none here")
    return found


def _show(follow: Margin, rows: list[dict[str, Any]]) -> None:
    from probe.listing import table

    cells = [
        (
            row["ablation"],
            _signed(row["margin"], ""),
            _signed(row["change"], "+") if number else "",
            row["answer"].strip(),
            part(row, "macs"),
            part(row, "kv_bytes"),
            by_layer(row["visual_tokens"]),
            "" if number == 0 else "start" if row["from_layer"] is None else str(row["from_layer"]),
        )
        for number, row in enumerate(rows)
    ]
    title = f"margin: logit of '{follow.target.strip()}' minus '{follow.versus.strip()}'"
    table(title, COLUMNS, cells, heads=True)


def _signed(value: float | None, sign: str) -> str:
    """A number, or a dash where a contrast has removed both tokens."""
    return "-" if value is None else f"{value:{sign}.2f}"
