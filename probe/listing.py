"""What `probe models`, `probe captures` and `probe ablations` print."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any


def models() -> None:
    """Built-in checkpoints and families."""
    from probe import testbed
    from probe.models.family import families

    built_in = [
        (f"testbed/{name}", "built in: coloured shapes, runs anywhere") for name in testbed.names()
    ]
    table("Checkpoints", ("name", "what it is"), built_in)
    rows = [(f.model_type, f.title, f.example) for f in families().values()]
    table("Families", ("model_type", "family", "for example"), rows)


def captures() -> None:
    """Captures with their arguments."""
    from probe.capture import captures as known

    rows = [(signature(name, made), first_line(made)) for name, made in known().items()]
    table("Captures", ("capture", "what it reads"), rows)


def ablations(name: str | None = None, markdown: bool = False) -> None:
    """Operators, published methods and their components, by where they act.

    Args:
        name: one of them, with all that is known of it.
        markdown: as the tables of figures/ablations.md.

    Raises:
        ProbeError: a name that is not known.
    """
    from rich.console import Console

    from probe.catalogue import ABOUT_COST, catalogue

    if name is not None:
        _one(name)
    elif markdown:
        print(_markdown())
    elif not Console().is_terminal:
        print("\n".join("\t".join((e.call, e.group, *e[4:])) for e in catalogue()))
    else:
        _drawn()
        print(f"\n{ABOUT_COST}\nArguments, stages and notes of one: probe ablations NAME")


def _drawn() -> None:
    """A heading for each kind and group; columns of a kind are below one another."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, groups = Console(), _groups()
    widths = {kind: 0 for kind, _ in groups}
    for (kind, _), rows in groups.items():
        widths[kind] = max(widths[kind], *(len(e.name) for e in rows))
    shown = set()
    for (kind, group), rows in groups.items():
        if kind not in shown:
            console.print(Text(f"\n{kind.upper()}", style="bold"))
        shown.add(kind)
        console.print(Text(f"\n{group}", style="italic"))
        drawn = Table.grid(padding=(0, 2, 0, 0), expand=True)
        drawn.add_column(width=widths[kind], no_wrap=True)
        drawn.add_column(ratio=2)
        if kind == "Published methods":
            drawn.add_column(width=6, justify="right")
        if any(e.source for e in rows):
            drawn.add_column(ratio=1)
        for e in rows:
            cells = [e.name, e.what, *[e.prefill] * (kind == "Published methods"), e.source]
            drawn.add_row(*map(Text, cells[: len(drawn.columns)]))
        console.print(drawn)


def _one(name: str) -> None:
    from probe.catalogue import entry

    found, text = entry(name)
    print(f"{found.call}\n{found.kind}, {found.group}\n\n{text}\n")
    known = {"source": found.source, "stages": found.stages, "note": found.note}
    known["prefill"] = found.prefill
    for title, value in known.items():
        if value:
            print(f"{title}: {value}")


def _groups() -> dict[tuple[str, str], list[Any]]:
    from probe.catalogue import catalogue

    found: dict[tuple[str, str], list[Any]] = {}
    for one in catalogue():
        found.setdefault((one.kind, one.group), []).append(one)
    return found


def _markdown() -> str:
    """Every kind with a heading, every group with a table."""
    from probe.catalogue import ABOUT_COST

    columns = {
        "Operators": {"operator": "call", "what it does": "what", "source": "source"},
        "Published methods": {
            "method": "call",
            "prefill": "prefill",
            "what it does": "what",
            "paper": "source",
            "stages": "stages",
            "note": "note",
        },
        "Components": {"component": "call", "what it does": "what"},
    }
    text = [
        "# Ablations",
        "`probe ablations --markdown`, the same source as `probe ablations` and `probe ablations "
        "NAME`. Sorted by where they act, first to last in a forward pass. " + ABOUT_COST,
    ]
    for (kind, group), rows in _groups().items():
        if f"## {kind}" not in text:
            text.append(f"## {kind}")
        names = columns[kind]
        lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
        for one in rows:
            cells = [" ".join(getattr(one, field).split()) for field in names.values()]
            cells[0] = f"`{cells[0]}`"
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        text.append(f"### {group[0].upper()}{group[1:]}\n\n" + "\n".join(lines))
    return "\n\n".join(text)


def signature(name: str, made: Any) -> str:
    """`Name(argument=default, ...)`."""
    if is_dataclass(made):
        shown = [
            f.name if f.default is MISSING else f"{f.name}={_short(f.default)}"
            for f in fields(made)
        ]
    else:
        shown = [
            p.name if p.default is p.empty else f"{p.name}={_short(p.default)}"
            for p in inspect.signature(made).parameters.values()
        ]
    return f"{name}({', '.join(shown)})"


def first_line(made: Any) -> str:
    """First sentence of a docstring."""
    text = " ".join((inspect.getdoc(made) or "").split("\n\n")[0].split())
    return re.split(r"(?<!et al)\. ", text)[0].rstrip(".")


def table(
    title: str, names: tuple[str, ...], rows: Iterable[tuple[str, ...]], heads: bool = False
) -> None:
    """Print a table; values between tabs where the output is not a terminal.

    Args:
        title: above the table on a terminal.
        names: of the columns.
        rows: the cells.
        heads: names of the columns also where the output is not a terminal.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        print("\n".join("\t".join(row) for row in [*[names] * heads, *rows]))
        return
    drawn = Table(*names, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        drawn.add_row(*map(Text, row))
    console.print(drawn)


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
