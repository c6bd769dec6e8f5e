"""Ablate: the output of heads, attention, MLPs or layers becomes zero, a mean, or another's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.ablate.scale import PartAblation
from probe.ablate.stored import Stored, hold, layout_of, matched, plain
from probe.errors import ProbeError
from probe.models.selection import NoClip

if TYPE_CHECKING:
    from probe.engine.session import Session
    from probe.models.layout import Layout

WITH = ("zero", "mean", "resample")
AFTER = ("answer", "generated")


@dataclass(frozen=True)
class Ablate(PartAblation):
    """Replace the output of heads, attention, MLPs or whole layers.

    Attributes:
        part, layers, heads, at: as in `PartAblation`. A whole layer with "zero" is skipped: neither
            its attention nor its MLP adds anything.
        with_: "zero"; "mean": over the prompt's positions of the same role, in this forward or in
            `run`; "resample": the output of `run` at the same places (the prompt's alone). Tokens
            after the prompt (answer, generated) take the mean over its text, so that no
            token's mean has a later one in it that generation would not know.
        run: another run with `Activations(part, positions)` (both "attention" and "mlp" for a
            layer), or the safetensors file of one (`probe.interop.save_activations`); a file
            must be of a prompt with this layout.
    """

    source: ClassVar[str] = "zero, mean and resample ablation (arXiv 2211.00593, 2404.15255)"

    with_: str = "zero"
    run: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "run", hold(self.run))
        super().__post_init__()

    def to_json(self) -> dict[str, Any]:
        return plain(super().to_json())

    def start(self, session: Session) -> dict | None:
        if self.with_ not in WITH:
            raise ProbeError(f'{self.kind}: with_="{self.with_}"; there are {", ".join(WITH)}')
        wrong = "zero" if self.run is not None else "resample"
        if self.with_ == wrong:
            needs = "needs" if self.run is None else "takes no"
            raise ProbeError(f'{self.kind}: with_="{self.with_}" {needs} run=')
        state = super().start(session)
        if state is None:
            return None
        sites = ("attention", "mlp") if self.part == "layer" else (self.part,)
        if self.with_ == "resample":
            try:
                there, here = matched(self.run, self.at, None, session, self.kind)
            except NoClip as error:  # this prompt has a clip, the other one has not
                raise ProbeError(f"{self.kind}: the other run: {error}") from None
            state |= {"positions": here, "there": there, "here": here}
        else:
            state |= {"means": {}, "groups": _groups(session.layout, state["positions"])}
        if self.run is not None:
            stored = {site: Stored(self.run, session, site, self.kind) for site in sites}
            if self.with_ == "mean":
                groups = self._elsewhere(session, state["groups"])
            else:
                groups = {"": state["there"]}
            for site in sites:
                for positions in groups.values():
                    stored[site].check(state["layers"], positions)
            state |= {"stored": stored, "elsewhere": groups}
        return state

    def _elsewhere(self, session: Session, groups: dict) -> dict[str, np.ndarray]:
        """The same groups in the other run."""
        layout = layout_of(self.run, session)
        found = {label: _of(layout, label) for label in groups}
        empty = next((label for label, positions in found.items() if not len(positions)), None)
        if empty is not None:
            raise ProbeError(f'{self.kind}: the other run has no token of the role "{empty}"')
        return found

    def see(self, session: Session, state: dict, layer: int, part: str, y: Tensor) -> None:
        """Means are those of the prompt; later forwards use them."""
        if self.with_ != "mean" or session.step:
            return
        for label, (everywhere, _) in state["groups"].items():
            if self.run is not None:
                values = state["stored"][part].of(layer, state["elsewhere"][label])
            else:
                inside = np.flatnonzero(np.isin(session.positions[layer], everywhere))
                values = y[torch.as_tensor(inside, device=y.device)].float()
            if len(values):
                state["means"][layer, part, label] = values.mean(0).to(y.device)

    def change(
        self, session: Session, state: dict, layer: int, part: str, y: Tensor, rows: np.ndarray
    ) -> Tensor:
        positions = session.positions[layer][rows]
        new = torch.zeros_like(y[: len(rows)])
        if self.with_ == "resample":
            order = np.searchsorted(state["here"], positions)
            return state["stored"][part].of(layer, state["there"][order]).to(new)
        for label, (_, mine) in state["groups"].items() if self.with_ == "mean" else ():
            inside = torch.as_tensor(np.flatnonzero(np.isin(positions, mine)), device=y.device)
            if len(inside):
                new[inside] = self._mean(state, layer, part, label).to(new)
        return new

    def _mean(self, state: dict, layer: int, part: str, label: str) -> Tensor:
        if (layer, part, label) not in state["means"]:
            raise ProbeError(
                f"{self}: no token of the role {label} is in layer {layer}, so it has no mean there"
            )
        return state["means"][layer, part, label]

    def affects(self, session: Session, state: dict) -> tuple[int, int]:
        first = int(state["positions"][0])
        if self.with_ == "mean" and self.run is None:  # needs every row that is in the mean
            first = min(first, *(int(every[0]) for every, _ in state["groups"].values()))
        return state["layers"][0], first


def _groups(layout: Layout, positions: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By role: the prompt's positions that are averaged, and those that take their mean."""
    groups: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    label = np.where(np.isin(layout.role, AFTER), "text", layout.role)
    for role in dict.fromkeys(label[positions].tolist()):
        groups[role] = (_of(layout, role), positions[label[positions] == role])
    return groups


def _of(layout: Layout, role: str) -> np.ndarray:
    """Positions of a role; "text" is the prompt's."""
    if role != "text":
        return np.flatnonzero(layout.role == role)
    return layout.select("text")[~np.isin(layout.role[layout.select("text")], AFTER)]
