"""What `probe models`, `probe captures` and `probe ablations` print."""

from __future__ import annotations

import inspect
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


def ablations(markdown: bool = False) -> None:
    """Operators, recipes and their components, with place, source, stages and cost.

    Args:
        markdown: as the tables of figures/ablations.md.
    """
    from probe.catalogue import catalogue

    for title, names, rows in catalogue():
        if markdown:
            print(f"## {title}\n")
            print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
            cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
            print("\n".join("| " + " | ".join(row) + " |" for row in cells) + "\n")
        else:
            table(title, names, rows)


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


def table(title: str, names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a table; plain text where the output is not a terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        print("\n".join("\t".join(row) for row in rows))
        return
    drawn = Table(*names, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn, markup=False)


def _short(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
