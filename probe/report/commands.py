"""What `probe demo` and `probe run` do."""

from __future__ import annotations

import hashlib
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.report.write import check_out, write

if TYPE_CHECKING:
    from probe.report.findings import Findings

TESTBED = "testbed/"
EXISTENCE_ITEMS = 40  # a split
FIRST_CLIP = 1012  # four shapes, three of them moving


def demo(out: Path, seed: int = 0) -> None:
    """Make a testbed clip, analyse it, write the report, print what was found."""
    from probe import testbed
    from probe.models.loading import load
    from probe.report.analyse import Asked, analyse
    from probe.video import read

    check_out(out)
    with steps() as step:
        step("making a clip")
        item = testbed.items("neutral", n=1, seed=FIRST_CLIP + seed, types=["direction"])[0]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            item.write(path)
            clip = replace(read(path, frames=16), source=f"testbed item {item.id}")
            digest = sha256(path)
        step("loading testbed/onevision")
        model = load("testbed/onevision")
        asked = Asked(
            clip,
            item.question.text,
            options=item.question.options,
            gold=item.question.answer,
            evidence=item.question.evidence,
        )
        command = f"probe demo --seed {seed}"
        settings = manifest(
            command, seed=seed, frames=16, clip=f"testbed item {item.id}", sha256=digest
        )
        findings = analyse(
            model, asked, existence_items=EXISTENCE_ITEMS, manifest=settings, progress=step
        )
        step("drawing")
        write(findings, out)
    conclude(findings, out)


def run(
    video: str,
    ask: str,
    *,
    model: str,
    frames: int,
    out: Path,
    options: tuple[str, ...] = (),
    ablate: tuple[str, ...] = (),
    stream: int | None = None,
    max_new_tokens: int = 32,
    allow_partial: bool = False,
) -> None:
    """Analyse a user's file; everything that can be refused is refused before the model runs."""
    if not ask.strip():
        raise ProbeError("the question is empty; ask something, for example --ask 'What moves?'")
    if max_new_tokens < 1:
        raise ProbeError(f"--max-new-tokens {max_new_tokens}: ask for at least 1")
    from probe.models.loading import load, resolve
    from probe.video import read

    check_out(out)
    resolve(model)
    with steps() as step:
        step("reading the video")
        clip = read(video, frames=frames, stream=stream, allow_partial=allow_partial)
        from probe.report.sweep_command import named

        clip = replace(clip, source=Path(video).name)
        own = named(ablate)
        step(f"loading {model}")
        loaded = load(model)
        from probe.report.analyse import Asked, analyse

        notes = [clip.note] if clip.note else []
        if model.startswith(TESTBED):
            notes.insert(0, foreign(model))
        if notes:
            print("\n".join(f"note: {note}" for note in notes), file=sys.stderr)
        settings = manifest(
            shlex.join(["probe", *sys.argv[1:]]),
            video=Path(video).name,
            sha256=sha256(Path(video)),
            frames=frames,
            stream=stream,
            max_new_tokens=max_new_tokens,
            ablate=list(ablate),
        )
        asked = Asked(clip, ask, options=options, notes=tuple(notes))
        findings = analyse(
            loaded,
            asked,
            ablate=own,
            max_new_tokens=max_new_tokens,
            manifest=settings,
            progress=step,
        )
        step("drawing")
        write(findings, out)
    conclude(findings, out)


def foreign(model: str) -> str:
    """What to say first when a testbed checkpoint is asked about a foreign clip."""
    return (
        f"{model} knows only coloured shapes, so its answer about this clip means nothing; "
        "--model with a real checkpoint gives a real one"
    )


def conclude(findings: Findings, out: Path) -> None:
    """Print what was found in five lines, and where the files are."""
    print(f"\n{findings.question}  ->  {findings.answer}")
    for number, line in enumerate(findings.summary, 1):
        print(f"{number}. {line}")
    for row in findings.ablations.query("own").to_dict("records"):
        print(
            f"{row['name']}: answers '{row['answer'].strip()}', margin {row['margin']:.2f} instead "
            f"of {findings.full_margin:.2f}; visual tokens: {row['visual_tokens']}; "
            f"{row['flops_ratio']:.0%} of the prefill MACs, {row['kv_ratio']:.0%} of the KV cache"
        )
    failed = findings.checks.query("not passed")["name"].tolist()
    print(f"checks: {'all passed' if not failed else 'FAILED: ' + ', '.join(failed)}")
    print(f"report: {out / 'report.html'}  figures: {out / 'figures'}  data: {out / 'data.zarr'}")


def manifest(command: str, **settings: Any) -> dict[str, Any]:
    """Versions, settings and the command that repeats it."""
    packages = ("torch", "transformers", "av", "numpy", "xarray")
    return {
        "command": command,
        "settings": settings,
        "versions": {"python": platform.python_version(), "probe": own_version()}
        | {name: version(name) for name in packages},
        "platform": f"{platform.system()} {platform.machine()}",
    }


def own_version() -> str:
    """Version of this package."""
    import probe

    try:
        return probe.__version__
    except PackageNotFoundError:
        return "not installed"


def sha256(path: Path) -> str:
    """Hash of an input file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """A line that names the step at work; nothing where the output is not a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # one line says what is at work; theirs would break it
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda name: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting")
        yield lambda name: progress.update(task, description=name)
