"""The cells of a study: the untouched run, ablations with their controls, captures, diagnoses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.study.cell import Cell
from probe.study.fingerprint import own

if TYPE_CHECKING:
    from probe.study.spec import Study


def cells(study: Study) -> tuple[Cell, ...]:
    """See `Study.cells`.

    Raises:
        ProbeError: a text that cannot be read, with its field; two labels that are equal.
    """
    found = [_ablated("untouched", "untouched", []), *_blind(study), *_ablations(study)]
    found += [*_captures(study), *_diagnoses(study)]
    found = [_with_source(cell) for cell in found]
    labels = [cell.label for cell in found]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ProbeError(f'"{twice}" is there twice; give one another label')
    return tuple(found)


def _with_source(cell: Cell) -> Cell:
    """A class of one's own is another one when its module is changed."""
    source = own(cell.made)
    return replace(cell, spec={**cell.spec, "source": source}) if source else cell


def _ablated(label: str, role: str, made: Sequence[Any], **more: Any) -> Cell:
    spec = {"ablate": [one.to_json() for one in made]}
    return Cell(label, role, spec=spec, made=tuple(made), **more)


def _blind(study: Study) -> Iterator[Cell]:
    if study.controls["blind"]:
        from probe.study.controls import NoClip

        yield _ablated("blind", "blind", [NoClip()])


def _ablations(study: Study) -> Iterator[Cell]:
    from probe.ablate import parse
    from probe.study.controls import at_random, shortens, swaps, uniform_frames

    wanted = study.controls
    for label, one in study.ablations.items():
        grid = one["grid"]
        try:
            made = parse(one["text"])
        except ProbeError as error:
            raise ProbeError(f"ablations: {label}: {error}") from None
        yield _ablated(label, "ablation", made, grid=grid)
        about: dict[str, Any] = {"of": label, "grid": grid}
        for seed in range(wanted["random"]):
            if at_random(made, 0) is not None:
                number = study.seed + seed
                spec = {"at random": [one.to_json() for one in made], "seed": number}
                yield Cell(
                    f"{label} | random {seed}", "random", seed=number, spec=spec,
                    made=tuple(made), **about,
                )  # fmt: skip
        if wanted["uniform"] and shortens(made):
            frames = uniform_frames(made)
            yield _ablated(f"{label} | uniform frames", "uniform frames", frames, **about)
        if wanted["swaps"]:
            for what, swapped in swaps(made).items():
                yield _ablated(f"{label} | {what}", "swap", swapped, **about)


def _captures(study: Study) -> Iterator[Cell]:
    from probe import spec
    from probe.capture import captures

    for label, one in study.captures.items():
        try:
            made = spec.parse(one["capture"], captures())
        except ProbeError as error:
            raise ProbeError(f"captures: {label}: {error}") from None
        if len(made) != 1:
            raise ProbeError(f"captures: {label}: write one capture under each label")
        plain = {"capture": made[0].to_json(), "reduce": one["reduce"]}
        yield Cell(label, "capture", spec=plain, made=made[0])


def _diagnoses(study: Study) -> Iterator[Cell]:
    from probe.diagnose import parse

    for text in study.diagnoses:
        try:
            several = parse(text)
        except ProbeError as error:
            raise ProbeError(f"diagnoses: {text}: {error}") from None
        for made in several:
            yield Cell(str(made), "diagnosis", spec={"diagnosis": made.to_json()}, made=made)
