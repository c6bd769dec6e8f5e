"""Reductions inside the vision tower: patches are candidates, and what the prompt loses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probe.ablate.encoder_places import labels_of
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.record import Reduction
from probe.ablate.reduction.weights import Weights
from probe.ablate.sites import Site, Vision
from probe.engine.vision_tokens import VisionTokens, frame_labels
from probe.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from probe.engine.session import Session


def place(session: Session, at: Site, owner: str) -> int | str:
    """The number of the tower's layer behind which a site is, or "out" for the projector's input.

    Raises:
        ProbeError: no such layer.
    """
    layers = len(session.edits.tower.layers)
    if not isinstance(at, Vision):
        if session.edits.tower.projector is None:
            raise ProbeError(f"{owner}: the family names no projector; use at=tokens()")
        return "out"
    number = at.layer if at.layer >= 0 else layers + at.layer
    if not 0 <= number < layers:
        raise ProbeError(
            f"{owner}: vision({at.layer}) does not exist; the tower has layers 0 to {layers - 1}"
        )
    return number


class Patches:
    """Tokens of the tower, and the positions of the prompt that they become.

    Attributes:
        position: of each token; -1 where it becomes none by itself.
        group: of each token, the temporal group of its frame; -1 for an image's.
        whole: tokens of the prompt are not one to one those of the tower, so that only whole
            frames can be taken out.
    """

    def __init__(self, session: Session, tokens: VisionTokens, owner: str) -> None:
        layout = session.layout
        every = np.flatnonzero(layout.visual >= 0)
        seen = every[np.isin(layout.role[every], ("video", "image"))]
        names = np.array(labels_of(layout, every))[np.isin(every, seen)]
        labels = frame_labels(layout, [tokens.frames])
        self.position = np.full(len(tokens), -1)
        self.group = np.full(len(tokens), -1)
        self.whole = False
        self._owner = owner
        self._frames: dict[int, np.ndarray] = {}
        for frame, label in enumerate(labels):
            mine, inside = seen[names == label], np.flatnonzero(tokens.frame == frame)
            if not len(mine):
                raise ProbeError(
                    f"{owner}: the frames of the vision tower are not those of the prompt (images "
                    "beside a clip, or tiles); use at=tokens()"
                )
            self.group[inside] = layout.group[mine].max()
            self._frames[frame] = mine
            if len(mine) == len(inside):
                self.position[inside] = mine
            elif len(mine) == (tokens.patch[inside] >= 0).sum():
                self.position[inside[tokens.patch[inside] >= 0]] = mine
            else:
                self.whole = True

    def left(self, tokens: VisionTokens, alive: np.ndarray) -> np.ndarray:
        """Positions of the prompt that are left of those that the tower has tokens for.

        Raises:
            ProbeError: parts of a frame are gone that the prompt has no tokens of its own for.
        """
        if not self.whole:
            kept = self.position[alive]
            return np.sort(kept[kept >= 0])
        frames, counts = np.unique(tokens.frame[alive], return_counts=True)
        if (counts != np.bincount(tokens.frame)[frames]).any():
            raise ProbeError(
                f"{self._owner}: this family pools or merges the features of a frame after its "
                "vision tower, so single patches have no tokens of their own; take out whole "
                "frames, or use at=tokens()"
            )
        return np.sort(np.concatenate([self._frames[frame] for frame in frames]))

    @property
    def every(self) -> np.ndarray:
        """All positions that the tower has tokens for."""
        return np.sort(np.concatenate(list(self._frames.values())))


def in_tower(
    session: Session,
    state: dict,
    owner: str,
    x: Tensor,
    build: Callable[[Candidates], tuple[Weights, np.ndarray, np.ndarray]],
) -> Weights:
    """Weights over the tokens of the tower that are left; CLS and its like always stay.

    Args:
        session: the run.
        state: of the reduction; what is left of the prompt is kept in it, under "tower".
        owner: its name, for errors.
        x: [token, channel] of the tokens that are left.
        build: of the reduction: its weights over candidates first.
    """
    edits = session.edits
    tokens: VisionTokens = edits.tokens
    alive = np.arange(len(tokens)) if edits.alive is None else edits.alive
    inside = np.flatnonzero(tokens.patch[alive] >= 0)
    ids = alive[inside]
    c = Candidates(
        x=x[torch.as_tensor(inside, device=x.device)],
        frame=tokens.frame[ids],
        row=tokens.row[ids],
        col=tokens.col[ids],
        position=ids,
        mass=edits.mass[ids],
        total=len(tokens),
        readings=state["readings"].patches(ids),
    )
    w = build(c)[0]
    w = replace(w, anchor=np.sort(w.anchor))
    edits.mass[ids[w.anchor]] = w.mass
    front = np.setdiff1d(np.arange(len(alive)), inside)
    # The token in front of the patches of a frame goes with its frame.
    kept = np.isin(tokens.frame[alive[front]], tokens.frame[ids[w.anchor]])
    stay = Weights.selection(front[kept], len(alive))
    full = Weights.stack([w.within(inside, len(alive)), stay]).raster()
    patches = Patches(session, tokens, owner)
    left = patches.left(tokens, alive[full.anchor])
    state["tower"] = w, ids, patches, left
    return full


def in_prompt(state: dict, name: str, rows: np.ndarray) -> tuple[Weights, Reduction]:
    """What a reduction in the tower leaves of the rows that enter the decoder.

    Args:
        state: of the reduction, after `in_tower`.
        name: of the ablation.
        rows: layout positions.

    Returns:
        A selection of the rows, and the record.
    """
    w, ids, patches, left = state["tower"]
    gone = np.setdiff1d(patches.every, left)
    full = Weights.selection(np.flatnonzero(~np.isin(rows, gone)), len(rows))
    if not patches.whole:
        there = patches.position[ids]
        return full, Reduction(name, 0, w, there, there[w.anchor])
    there = rows[np.isin(rows, patches.every)]
    chosen = Weights.selection(np.flatnonzero(np.isin(there, left)), len(there))
    return full, Reduction(name, 0, chosen, there, there[chosen.anchor])
