"""`probe doctor`: the checks of a checkpoint, printed; exit code 1 where one failed."""

from __future__ import annotations


def command(model: str, json: bool = False, clip: str | None = None, frames: int = 4) -> None:
    """Examine a checkpoint and print what was found.

    Args:
        model: built-in name, folder, or Hugging Face id.
        json: print JSON instead of a table.
        clip: a video file to be shown instead of generated noise.
        frames: number of frames.

    Raises:
        typer.Exit: with code 1, where a check failed.
        ProbeError: a model or clip that cannot be loaded.
    """
    import json as text

    import typer

    from probe.doctor.run import doctor
    from probe.doctor.table import show

    if json:
        report = doctor(model, clip=clip, frames=frames)
        print(text.dumps(report.to_json(), indent=2))
    else:
        report = _watched(model, clip, frames)
        show(report)
    if not report.ok:
        raise typer.Exit(1)


def _watched(model: str, clip: str | None, frames: int):
    from rich.console import Console

    from probe.doctor.run import doctor

    console = Console(stderr=True)
    if not console.is_terminal:
        return doctor(model, clip=clip, frames=frames)
    with console.status("loading") as status:
        return doctor(model, clip=clip, frames=frames, watch=lambda name: status.update(name))
