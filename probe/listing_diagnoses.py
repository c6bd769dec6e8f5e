"""What `probe diagnoses` prints."""

from __future__ import annotations

from typing import Any, NamedTuple

from probe.listing import first_line, signature, table

LONG = 48
"""Characters of a default that is shown; the class itself has longer ones."""


class Entry(NamedTuple):
    """One diagnosis: its section, how it is written, what it measures, needs, and whose it is."""

    section: str
    call: str
    what: str
    needs: str
    source: str


def entries() -> list[Entry]:
    """Every diagnosis, by section."""
    from probe.diagnose import diagnoses as known
    from probe.diagnose.base import SECTIONS

    found = [_entry(name, made) for name, made in known().items()]
    return sorted(found, key=lambda e: (SECTIONS.index(e.section), e.call.lower()))


def diagnoses(markdown: bool = False) -> None:
    """List the diagnoses.

    Args:
        markdown: as tables under a heading for each section.
    """
    from rich.console import Console

    rows = entries()
    if markdown:
        print(_markdown(rows))
    elif not Console().is_terminal:
        table("", Entry._fields, rows, heads=True)
    else:
        _drawn(rows)


def _entry(name: str, made: Any) -> Entry:
    needs = ", ".join(made.needs)
    return Entry(
        made.section, shortened(signature(name, made)), first_line(made), needs, made.source
    )


def shortened(call: str) -> str:
    """A call without defaults that are longer than `LONG`: `maps=(AttentionMap(...), ...)` is
    `maps=...`.
    """
    import ast

    try:
        made = ast.parse(call, mode="eval").body
    except SyntaxError:
        return call
    if not isinstance(made, ast.Call):
        return call
    for given in made.keywords:
        text = ast.get_source_segment(call, given.value) or ""
        if len(text) > LONG:
            call = call.replace(f"{given.arg}={text}", f"{given.arg}=...", 1)
    return call


def _drawn(rows: list[Entry]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    names = [row.call.partition("(")[0] for row in rows]
    for section in dict.fromkeys(row.section for row in rows):
        console.print(Text(f"\n{section}", style="bold"))
        drawn = Table.grid(padding=(0, 2, 0, 0), expand=True)
        drawn.add_column(width=max(map(len, names), default=0), no_wrap=True)
        drawn.add_column(ratio=2)
        drawn.add_column(ratio=1)
        for name, row in zip(names, rows, strict=True):
            if row.section == section:
                drawn.add_row(*map(Text, (name, f"{row.what} [{row.needs}]", row.source)))
        console.print(drawn)
    print(
        "\n[what a case must have]. `probe diagnose NAME` runs one, `probe diagnose SECTION` all "
        "that fit; a study has them under `diagnoses:`"
    )


def _markdown(rows: list[Entry]) -> str:
    text = ["# Diagnoses", "`probe diagnoses --markdown`."]
    for section in dict.fromkeys(row.section for row in rows):
        lines = ["| diagnosis | what it measures | needs | source |", "|---|---|---|---|"]
        for row in rows:
            if row.section == section:
                cells = [f"`{row.call}`", row.what, row.needs, row.source]
                lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
        text.append(f"## {section[0].upper()}{section[1:]}\n\n" + "\n".join(lines))
    return "\n\n".join(text)
