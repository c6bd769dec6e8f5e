"""Activations of another run, in memory or in a file, as ablations put them in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session
    from probe.models.layout import Layout
    from probe.models.selection import Selection

MEMORY = "memory:"


@dataclass(frozen=True)
class Held:
    """A run in memory as part of a frozen description; two of the same run are equal.

    Attributes:
        digest: of what was asked and of the last logits.
        run: the run.
    """

    digest: str
    run: Any = field(compare=False, repr=False)

    def __repr__(self) -> str:
        return json.dumps(f"{MEMORY}{self.digest}")


def hold(run: Any) -> Any:
    """A run becomes hashable; a file's name stays as it is."""
    from probe.engine.result import Run

    if not isinstance(run, Run):
        return run
    asked = json.dumps(run.meta, sort_keys=True, default=str).encode()
    digest = hashlib.sha256(asked + run.logits[-1].tobytes()).hexdigest()[:12]
    return Held(digest, run)


def plain(data: dict[str, Any]) -> dict[str, Any]:
    """JSON of an ablation, with the digest in place of a run in memory.

    It says what was done; to do it again the run has to be saved to a file.
    """
    return {k: f"{MEMORY}{v.digest}" if isinstance(v, Held) else v for k, v in data.items()}


class Stored:
    """Activations at one site of another run, read layer by layer.

    Args:
        run: a `Held` run, or the name of a file from `probe.interop.save_activations`.
        session: the run that they go into.
        site: "residual", "attention", "mlp", "head", "key" or "value".
        owner: who asks, for messages.

    Raises:
        ProbeError: no such activations, or those of another model.
    """

    def __init__(self, run: Any, session: Session, site: str, owner: str) -> None:
        self.name, self.owner, self.site = _name(run), owner, site
        self.candidates = [array for array in _arrays(run, owner) if _site(array.attrs) == site]
        if not self.candidates:
            raise ProbeError(
                f"{owner}: {self.name} has no activations of site "
                f'"{site}"; run the other example with {_capture(site)}'
            )
        whole = self.candidates[0]
        if "step" in whole.dims:
            raise ProbeError(
                f"{owner}: {self.name} is of generate, which has steps and no positions; "
                'model.run(model.force(x, run.meta["generated"]), ...) has them'
            )
        width = session.model.width if whole.dims[-1] == "channel" else session.model.head_dim
        heads = session.model.n_kv_heads if "kv_head" in whole.dims else session.model.n_heads
        shape = (heads, width) if whole.dims[-1] == "head_channel" else (width,)
        if whole.shape[2:] != shape:
            raise ProbeError(
                f"{owner}: {self.name} has activations of shape {whole.shape[2:]}, this model "
                f"{shape}; it is of another model"
            )

    def of(self, layer: int, positions: np.ndarray) -> Tensor:
        """[position, ...] in float32 on the CPU; only these numbers are read from a file.

        Raises:
            ProbeError: a layer or a position that is not there.
        """
        for array in self._with(layer, positions):
            found = array.sel(layer=layer, position=positions.tolist()).values
            if np.isfinite(found).all():
                return torch.from_numpy(np.ascontiguousarray(found, np.float32))
        raise self._missing(layer, positions)

    def check(self, layers: tuple[int, ...], positions: np.ndarray) -> None:
        """These layers and positions are among the labels; nothing is read yet.

        Raises:
            ProbeError: a layer or a position that is not there.
        """
        for layer in layers:
            if not self._with(layer, positions):
                raise self._missing(layer, positions)

    def _with(self, layer: int, positions: np.ndarray) -> list[xr.DataArray]:
        return [
            array
            for array in self.candidates
            if layer in array["layer"].values and np.isin(positions, array["position"].values).all()
        ]

    def _missing(self, layer: int, positions: np.ndarray) -> ProbeError:
        return ProbeError(
            f"{self.owner}: {self.name} has no activations of {_shown(positions)} in layer {layer} "
            f"(not captured, or dropped there); run the other example with {_capture(self.site)}"
        )


def layout_of(run: Any, session: Session) -> Layout:
    """The layout of the other run; that of this prompt, where it is not known (a file)."""
    known = run.run.layout if isinstance(run, Held) else None
    return session.example.layout if known is None else known


def matched(
    run: Any, at: Selection, to: Selection | None, session: Session, owner: str
) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the other run, and where in this prompt each of them goes, in order.

    Raises:
        ProbeError: the two do not have the same number of tokens.
    """
    here = session.example.layout.select(at if to is None else to)
    there = layout_of(run, session).select(at)
    if len(there) != len(here):
        where = f"at={at!r}" if to is None else f"at={at!r}, to={to!r}"
        raise ProbeError(
            f"{owner}: {len(there)} tokens of the other run for {len(here)} here ({where}); "
            "select as many"
        )
    return there, here


def _arrays(run: Any, owner: str) -> list[xr.DataArray]:
    if isinstance(run, Held):
        return list(run.run.data.data_vars.values())
    from probe.interop.safetensors import open_activations, variables

    if not isinstance(run, str) or not run:
        raise ProbeError(
            f"{owner}: run={run!r}; give a run with Activations, or the file of one from "
            "probe.interop.save_activations(run, file)"
        )
    if run.startswith(MEMORY):
        raise ProbeError(
            f"{owner}: {run} was a run in memory, which is gone; save such a run with "
            "probe.interop.save_activations(run, file) and name the file"
        )
    return [open_activations(run, name) for name in variables(run)]


def _site(attrs: dict[Any, Any]) -> str | None:
    """The site of the capture that made a variable; None for another capture."""
    if "site" in attrs:
        return attrs["site"]
    from probe.capture import Activations, captures
    from probe.spec import parse

    try:
        made = parse(attrs.get("capture", ""), captures())[0]
    except ProbeError:
        return None
    return made.site if isinstance(made, Activations) else None


def _capture(site: str) -> str:
    if site in ("key", "value"):
        return 'KeysValues(positions="all")'
    return f'Activations("{site}", positions="all")'


def _name(run: Any) -> str:
    return "the run" if isinstance(run, Held) else str(run)


def _shown(positions: np.ndarray) -> str:
    if len(positions) == 1:
        return f"position {positions[0]}"
    return f"positions {positions[0]} to {positions[-1]} ({len(positions)} of them)"
