"""An ablation that changes nothing and reads scores as a reduction does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from probe.ablate.base import Ablation
from probe.ablate.encoder_readings import Readings, reads_encoder
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.engine.session import Session
from probe.models.encode import Example
from probe.models.selection import Selection
from probe.models.video_model import VideoModel


@dataclass(frozen=True)
class Host(Ablation):
    """Reads `leaves` up to the input of layer `site`."""

    leaves: tuple[Score, ...]
    site: int = 0
    of: Selection = "video"

    def listens(self, event: str) -> bool:
        if event == "vision_attention":
            return reads_encoder(self.leaves)
        return super().listens(event)

    def start(self, session: Session) -> dict:
        there = session.layout.select(self.of)
        return {"there": there, "readings": Readings(session, self.leaves, there, self.site)}

    def vision_attention(self, session, state, call) -> None:
        state["readings"].vision_attention(session, call)

    def attention(self, session, state, call) -> None:
        state["readings"].attention(session, call)

    def reduce(self, session, state, layer, x) -> None:
        state["readings"].entering(session, layer, x)
        if layer != self.site:
            return
        rows = torch.as_tensor(np.searchsorted(session.positions[layer], state["there"]))
        layout, there = session.layout, state["there"]
        state["found"] = Candidates(
            x=x[rows],
            frame=layout.group[there],
            row=layout.row[there],
            col=layout.col[there],
            position=there,
            mass=np.ones(len(there)),
            readings=state["readings"].values(there),
        )


def candidates(
    model: VideoModel, x: Example, *scores: Score, site: int = 0, of: Selection = "video", also=()
) -> Candidates:
    """What a reduction at `site` has to go by, from a run in which nothing is reduced."""
    leaves = tuple(leaf for score in scores for leaf in score.leaves())
    session = Session(model, x, ablations=[*also, Host(leaves, site, of)])
    with session, torch.no_grad():
        model.hf(**x.inputs, use_cache=False)
        session.finish()
    found: Any = session.ablations[-1][1]["found"]
    return found


def score(model: VideoModel, x: Example, one: Score, site: int = 0, **more: Any) -> np.ndarray:
    """A score of the video tokens, [token]."""
    return one.score(candidates(model, x, one, site=site, **more)).numpy()
