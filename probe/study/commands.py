"""What `probe study` does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from probe.errors import ProbeError


def run(
    spec: Path, out: Path | None, *, workers: int = 1, ray: bool = False, retry: bool = False
) -> None:
    """Compute what is missing of a study, and print its summary.

    Args:
        spec: a YAML, JSON or Python file.
        out: folder of the results; `studies/NAME` by default.
        workers: processes on this machine, or on the Ray cluster.
        ray: on a Ray cluster.
        retry: compute again what failed before.

    Raises:
        ProbeError: a spec, a sample or a model that cannot be read, before anything runs.
    """
    if workers < 1:
        raise ProbeError(f"study run: --workers {workers}: at least 1")
    from probe.study.spec import Study

    study = Study.read(spec)
    folder = out if out is not None else Path("studies") / _file_name(study.name)
    from transformers.utils.logging import disable_progress_bar

    from probe.study.progress import shown
    from probe.study.runner import run_study

    disable_progress_bar()  # one line says how far it is; theirs would break it
    try:
        with shown() as progress:
            last = run_study(
                study, folder, workers=workers, ray=ray, retry=retry, progress=progress
            )
    except KeyboardInterrupt:
        again = " ".join(["probe study run", str(spec)] + (["--out", str(out)] if out else []))
        print(
            f"probe: stopped; what is done is in {folder}, `{again}` goes on from there",
            file=sys.stderr,
        )
        sys.exit(130)
    waiting = last.total - last.done
    print(f"{last.done:,} of {last.total:,} jobs done, {last.failed:,} results failed: {folder}\n")
    if waiting:
        print(f"{waiting:,} jobs are with other workers; `probe study status {folder}`\n")
    show(folder)


def status(folder: Path) -> None:
    """Print how far a study is.

    Raises:
        ProbeError: no study in the folder.
    """
    from probe.listing import table
    from probe.study.store import Store

    found = Store(folder).status()
    jobs = f"{found['done']:,} of {found['jobs']:,} jobs"
    cells = f"{found['computed']:,} of {found['cells']:,} results, {found['failed']:,} failed"
    print(f"{found['study']}: {jobs} done; {cells}")
    if found["damaged_lines"]:
        print(f"{found['damaged_lines']} damaged lines left out; run it again to compute them")
    if found["claims"]:
        rows = [
            (f"{claim['host']}:{claim['pid']}", f"{claim['age']:.0f} s", _alive(claim["stale"]))
            for claim in found["claims"]
        ]
        table("at work", ("worker", "last sign", ""), rows, heads=True)
    errors = list(found["errors"].items())
    for message, times in errors[:5]:
        print(f"failed {times:,} x: {message}")
    if errors[5:]:
        print(f"and {len(errors) - 5} other messages")
    if found["failed"]:
        print("`probe study run SPEC --retry` tries these again")


def show(
    folder: Path, *, markdown: bool = False, as_json: bool = False, figure: Path | None = None
) -> None:
    """Print what a study says so far.

    Args:
        folder: of the study.
        markdown, as_json: how.
        figure: a file that the curves are drawn to.

    Raises:
        ProbeError: no study in the folder, no results yet, or no curve to draw.
    """
    from probe.study.show import summarise
    from probe.study.show_text import show as printed
    from probe.study.store import Store

    if markdown and as_json:
        raise ProbeError("study show: --markdown or --json, not both")
    if figure is not None:
        from probe.study.show_figure import check

        check(figure)
    summary = summarise(Store(folder))
    if as_json:
        print(json.dumps(summary.to_json(), indent=2, ensure_ascii=False))
    else:
        printed(summary, markdown)
    if figure is not None:
        from probe.study.show_figure import draw

        draw(summary, figure)
        print(f"figure: {figure}", file=sys.stderr)


def export(folder: Path, file: Path) -> None:
    """Write every result of a study as a row of a table.

    Raises:
        ProbeError: no study in the folder, or a file that cannot be written.
    """
    from probe.study.export import check
    from probe.study.export import export as written
    from probe.study.store import Store

    check(file)
    table = Store(folder).table()
    written(table, file)
    print(f"{len(table):,} rows, {len(table.columns)} columns: {file}")


def _alive(stale: bool) -> str:
    return "no sign of life; its job will be taken over" if stale else ""


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".-") or "study"
