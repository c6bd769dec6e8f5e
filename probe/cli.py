"""The command `probe`. Imports stay inside commands, so that --help is instant."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from probe.errors import ProbeError

app = typer.Typer(
    name="probe",
    help="See how a video multimodal LLM uses its video, and where it stops using it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Option("--out", help="Folder for the report; replaced as a whole.")]
Model = Annotated[
    str, typer.Option("--model", help="Built-in name, folder, or Hugging Face id.", metavar="M")
]


@app.command()
def demo(
    out: Out = Path("probe-demo"),
    seed: Annotated[int, typer.Option(help="Which clip to make.")] = 0,
) -> None:
    """Make a clip, look into the built-in checkpoint, write a report."""
    from probe.report.commands import demo as command

    command(out, seed)


@app.command()
def run(
    video: Annotated[str, typer.Argument(help="A video file.")],
    ask: Annotated[str, typer.Option("--ask", help="The question.")],
    model: Model = "testbed/onevision",
    frames: Annotated[int, typer.Option(help="Frames, uniformly over the clip.")] = 16,
    out: Out = Path("probe-run"),
    option: Annotated[
        list[str] | None, typer.Option(help="A possible answer; repeat it for each.")
    ] = None,
    ablate: Annotated[
        list[str] | None, typer.Option(help='For example "fastv(k=2, keep=0.5)"; repeatable.')
    ] = None,
    stream: Annotated[int | None, typer.Option(help="Video stream, as ffmpeg counts them.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of the answer at most.")] = 32,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Accept a file that ends early.")
    ] = False,
) -> None:
    """Ask about a video and write a report of how the model used it."""
    from probe.report.commands import run as command

    command(
        video,
        ask,
        model=model,
        frames=frames,
        out=out,
        options=tuple(option or ()),
        ablate=tuple(ablate or ()),
        stream=stream,
        max_new_tokens=max_new_tokens,
        allow_partial=allow_partial,
    )


@app.command()
def sweep(
    video: Annotated[str, typer.Argument(help="A video file.")],
    ask: Annotated[str, typer.Option("--ask", help="The question.")],
    ablate: Annotated[
        list[str], typer.Option(help='For example "fastv(k=2, keep=0.5)"; repeat it for each row.')
    ],
    model: Model = "testbed/onevision",
    frames: Annotated[int, typer.Option(help="Frames, uniformly over the clip.")] = 16,
    option: Annotated[
        list[str] | None, typer.Option(help="A possible answer; repeat it for each.")
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Beside each, the same with one part swapped.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Run many ablations on one clip and print what each does to the answer, and its cost."""
    from probe.report.sweep_command import command

    command(
        video,
        ask,
        tuple(ablate),
        model=model,
        frames=frames,
        options=tuple(option or ()),
        controls=controls,
        as_json=json,
    )


@app.command()
def diagnose(
    name: Annotated[
        str, typer.Argument(help='A section, or diagnoses such as "DeletionCurve(steps=8)".')
    ],
    video: Annotated[str | None, typer.Argument(help="A video file; or give --testbed.")] = None,
    ask: Annotated[str | None, typer.Option("--ask", help="The question.")] = None,
    answer: Annotated[str | None, typer.Option(help="The right answer.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="A possible answer; repeat it for each.")
    ] = None,
    model: Model = "testbed/onevision",
    frames: Annotated[int, typer.Option(help="Frames, uniformly over the clip.")] = 16,
    testbed: Annotated[
        int | None, typer.Option(help="So many generated clips instead of a file.", metavar="N")
    ] = None,
    split: Annotated[str, typer.Option(help="Of --testbed: neutral, hidden...")] = "neutral",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Run diagnoses on one clip, or over generated clips whose truth is known."""
    from probe.diagnose.command import command

    command(
        name,
        video,
        ask,
        answer=answer,
        options=tuple(option or ()),
        model=model,
        frames=frames,
        testbed=testbed,
        split=split,
        seed=seed,
        as_json=json,
    )


study = typer.Typer(
    name="study", no_args_is_help=True, rich_markup_mode=None, help="Many samples, with intervals."
)
app.add_typer(study)

Folder = Annotated[Path, typer.Argument(help="The study's folder.", metavar="DIR")]


@study.command(name="run")
def study_run(
    spec: Annotated[Path, typer.Argument(help="A YAML file, or a Python file with `study`.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; studies/NAME by default.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes on this machine.")] = 1,
    ray: Annotated[bool, typer.Option("--ray", help="Workers on a Ray cluster.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Again what failed before.")] = False,
) -> None:
    """Compute what is missing of a study; stop and run it again at any time."""
    from probe.study.commands import run as command

    command(spec, out, workers=workers, ray=ray, retry=retry)


@study.command(name="status")
def study_status(folder: Folder) -> None:
    """How far a study is, who is at work, what failed."""
    from probe.study.commands import status as command

    command(folder)


@study.command(name="show")
def study_show(
    folder: Folder,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown tables.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
    figure: Annotated[
        Path | None, typer.Option(help="Draw the curves, to .png, .pdf or .svg.", metavar="FILE")
    ] = None,
) -> None:
    """Tables of a study, finished or not: differences, intervals, tests, curves with controls."""
    from probe.study.commands import show as command

    command(folder, markdown=markdown, as_json=json, figure=figure)


@study.command(name="export")
def study_export(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="A .parquet or .csv file.", metavar="FILE")],
) -> None:
    """Write every measurement as one row of a table."""
    from probe.study.commands import export as command

    command(folder, file)


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(help="Built-in name, folder, or Hugging Face id.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
    clip: Annotated[str | None, typer.Option(help="A video file; generated by default.")] = None,
    frames: Annotated[int, typer.Option(help="Frames shown.")] = 4,
) -> None:
    """Check that what probe reads from a model is true; exit code 1 where it is not."""
    from probe.doctor.command import command

    command(model, json, clip, frames)


@app.command()
def models() -> None:
    """List built-in checkpoints and the families that load."""
    from probe import listing

    listing.models()


@app.command()
def captures() -> None:
    """List what can be read out of a run."""
    from probe import listing

    listing.captures()


@app.command()
def ablations(
    name: Annotated[
        str | None, typer.Argument(help="One of them: its arguments, stages and notes.")
    ] = None,
    markdown: Annotated[bool, typer.Option(help="As Markdown tables, for documents.")] = False,
) -> None:
    """List what can be taken away or changed in a run: operators, published methods, parts."""
    from probe import listing

    listing.ablations(name, markdown)


@app.command()
def diagnoses(
    markdown: Annotated[bool, typer.Option(help="As Markdown tables, for documents.")] = False,
) -> None:
    """List what can be diagnosed: of which section, from which paper, on what it needs."""
    from probe import listing_diagnoses

    listing_diagnoses.diagnoses(markdown)


def main() -> None:
    """Entry point: an error that a user can mend is one line on stderr and exit code 2."""
    sys.path.append(os.getcwd())  # `my_module:MyDiagnosis` is found as with python -m
    try:
        app()
    except ProbeError as error:
        print(f"probe: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("probe: stopped; nothing was written", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
