"""Activation patching over layers and groups of tokens: where the difference between clips is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.ablate.patch import Patch
from probe.capture.activations import SITES, Activations
from probe.capture.keys_values import KeysValues
from probe.diagnose.margin import Margin
from probe.errors import ProbeError
from probe.models.selection import Partition, Selection
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.result import Run
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

DIRECTIONS = ("denoising", "noising")
Measure = Margin | Callable[["Run"], float]


def patching(
    model: VideoModel,
    clean: Example,
    corrupted: Example,
    measure: Measure,
    sites: str | Sequence[str] = "residual",
    groups: Partition = "frames",
    layers: Layers = "all",
    *,
    directions: Sequence[str] = DIRECTIONS,
    readers: Selection | None = None,
    progress: Callable[[], object] = lambda: None,
) -> xr.DataArray:
    """Which layers and tokens carry what distinguishes two clips (Meng et al. 2022,
    arXiv 2202.05262; Heimersheim & Nanda 2024, arXiv 2404.15255).

    One resumed run a cell (`model.sweep`). Where the two runs have the same activations (text
    before the clip) the share is 0 without a run.

    Args:
        model: the model.
        clean, corrupted: two examples with the same layout, for instance the same question over
            a clip and over another one that changes the answer.
        measure: a `Margin`, or a function of a run that gives a number.
        sites: "residual" (enters the layer), "attention", "mlp" (what it adds), "head" (all
            heads' mixes of values), or several of them.
        groups: groups of positions, as in `layout.partition`: "frames", "roles", or selections.
        layers: which layers, one at a time.
        directions: "denoising" puts clean activations into the corrupted run, "noising"
            corrupted ones into the clean run.
        readers: follow only the direct path from the group, as it enters the layer, to what the
            attention of these rows reads of it (path patching; the site is "residual").
        progress: called after each run.

    Returns:
        patching [direction, site, layer, group]: the share of the measure's difference between
        the two runs that the place recovers (denoising) or destroys (noising); 1 is all of it.
        `attrs` has the two untouched measures.

    Raises:
        ProbeError: two layouts, or a measure that does not tell the two examples apart.
    """
    import xarray as xr

    sites = [sites] if isinstance(sites, str) else list(sites)
    _check(clean, corrupted, sites, directions, readers)
    numbers = resolve_layers(layers, model.n_layers, "patching")
    named = clean.layout.partition(groups)
    of = measure.of if isinstance(measure, Margin) else measure
    wanted: list[Any] = [Activations(site, "all", numbers) for site in sites]
    if readers is not None:
        wanted = [KeysValues("all", numbers)]
    runs = {"clean": model.run(clean, wanted), "corrupted": model.run(corrupted, wanted)}
    high, low = float(of(runs["clean"])), float(of(runs["corrupted"]))
    if not np.isfinite(high - low) or abs(high - low) < 1e-6:
        raise ProbeError(
            f"patching: the measure is {high:.6g} on the clean and {low:.6g} on the corrupted "
            "example; choose two that it tells apart"
        )
    shape = (len(sites), len(numbers), len(named))
    found = np.zeros((len(directions), *shape))
    groups_of = [positions.tolist() for positions in named.values()]
    places = [
        place
        for place in np.ndindex(*shape)
        if not _same(runs, _variables(place[0], readers), numbers[place[1]], groups_of[place[2]])
    ]
    for number, direction in enumerate(directions):
        denoise = direction == "denoising"
        source, target = runs["clean" if denoise else "corrupted"], corrupted if denoise else clean
        patches = [
            Patch(source, groups_of[group], numbers[layer], sites[site], readers=readers)
            for site, layer, group in places
        ]
        table = model.sweep(target, patches, lambda run: float(of(run)), progress=progress)
        for place, value in zip(places, table["value"].iloc[1:], strict=True):
            found[(number, *place)] = value - low if denoise else high - value
    found /= high - low
    coords = {"direction": list(directions), "site": sites, "layer": list(numbers)}
    return xr.DataArray(
        found,
        dims=("direction", "site", "layer", "group"),
        coords={**coords, "group": list(named)},
        name="patching",
        attrs={
            "units": "share",
            "description": "share of the measure's difference that the place recovers or destroys",
            "clean": high,
            "corrupted": low,
        },
    )


def _variables(site: int, readers: Selection | None) -> list[str]:
    """Names in a run's data of what is put in, by the number of the site."""
    if readers is not None:
        return ["activations_key", "activations_value"]
    return ["activations" if site == 0 else f"activations_{site + 1}"]


def _same(runs: dict[str, Run], variables: list[str], layer: int, positions: list[int]) -> bool:
    """The two runs have the same numbers at a place, so that patching it changes nothing."""
    places = {"layer": layer, "position": positions}
    one, other = runs["clean"].data, runs["corrupted"].data
    return all(
        np.array_equal(one[name].sel(places).values, other[name].sel(places).values)
        for name in variables
    )


def _check(
    clean: Example,
    corrupted: Example,
    sites: Sequence[str],
    directions: Sequence[str],
    readers: Selection | None,
) -> None:
    one, other = clean.layout, corrupted.layout
    if len(one) != len(other) or any(
        not np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("role", "group", "row", "col")
    ):
        raise ProbeError(
            f"patching: the two examples have different layouts ({len(one)} and {len(other)} "
            "tokens); use clips of the same frames and size, and questions of the same length"
        )
    for kind, given, known in (("site", sites, SITES), ("direction", directions, DIRECTIONS)):
        wrong = next((name for name in given if name not in known), None)
        if wrong is not None or not given:
            raise ProbeError(f'patching: {kind} "{wrong}"; there are {", ".join(known)}')
    if readers is not None and list(sites) != ["residual"]:
        raise ProbeError('patching: readers= follows the residual stream; leave sites="residual"')
