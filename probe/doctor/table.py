"""The report as a table for people."""

from __future__ import annotations

from probe.doctor.check import FAILED, Check, Report

_COLOURS = {"ok": "green", "failed": "bold red", "skipped": "yellow"}


def show(report: Report) -> None:
    """Print one line per check, with what to do under one that failed; tabs where it is piped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    print_line = print if not console.is_terminal else console.print
    print_line(heading(report))
    if not console.is_terminal:
        for check in report.checks:
            print("\t".join(line(check)))
    else:
        drawn = Table(box=None, pad_edge=False, show_header=False)
        for check in report.checks:
            status, name, said = line(check)
            drawn.add_row(Text(status, _COLOURS[check.status]), name, Text(said))
        console.print(drawn, markup=False)
    print_line(summary(report))


def line(check: Check) -> tuple[str, str, str]:
    """Status, name, and what was found with its number and what to do."""
    said = check.detail
    if check.value is not None:
        sign = ">" if check.status == FAILED else "<="
        said = f"{said}: {check.value:.2g} {sign} {check.limit:.2g}"
    return check.status, check.name, f"{said}; to do: {check.todo}" if check.todo else said


def heading(report: Report) -> str:
    """What was examined."""
    facts = report.facts
    return (
        f"{report.model} ({report.family}): {facts['layers']} layers, "
        f"{facts.get('limits', facts['dtype'])} on {facts['device']}, "
        f"transformers {facts['versions']['transformers']}"
    )


def summary(report: Report) -> str:
    """How many checks ended how."""
    counts = dict.fromkeys(_COLOURS, 0)
    for check in report.checks:
        counts[check.status] += 1
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return f"{said}; {'what is read from it is true' if report.ok else 'do not trust it yet'}"
