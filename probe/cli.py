"""The command `probe`. Imports stay inside commands, so that --help is instant."""

from __future__ import annotations

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
def ablations() -> None:
    """List what can be taken away or changed in a run."""
    from probe import listing

    listing.ablations()


def main() -> None:
    """Entry point: an error that a user can mend is one line on stderr and exit code 2."""
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
