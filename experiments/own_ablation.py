"""An ablation and a score of one's own, beside what is built in, on one testbed clip.

    python experiments/own_ablation.py

`TimeBlur` mixes each visual token with the tokens of its cell in neighbouring frames: from which
layer on does the answer not need to know what was when? `Centre` is a score that looks at nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from probe import ProbeError
from probe.ablate import Ablation
from probe.ablate.reduction.parts import Score
from probe.spec import resolve_layers


@dataclass(frozen=True)
class TimeBlur(Ablation):
    """Each visual token that enters a layer becomes the mean of its cell over nearby frames.

    Attributes:
        layer: which layer; 0-based.
        radius: frames before and after; 0 is neutral.
    """

    place: ClassVar[str] = "residual stream"
    layer: int = 0
    radius: int = 1

    def start(self, session):
        resolve_layers(self.layer, session.model.n_layers, self.kind)
        if self.radius < 0:
            raise ProbeError(f"{self.kind}: radius={self.radius}; it is a number of frames")
        video = session.layout.clips and session.layout.select("video")
        if not len(video) or (self.radius == 0 and not session.force):
            return None  # nothing to do: the run is bit-identical to the untouched one
        return {"video": video, "fired": False}

    def residual(self, session, state, layer, x):
        rows = np.flatnonzero(np.isin(session.positions[layer], state["video"]))
        if layer != self.layer or not len(rows):
            return None
        layout, here = session.layout, session.positions[layer][rows]
        cell = layout.row[here] * 10_000 + layout.col[here]
        near = np.abs(layout.group[here][:, None] - layout.group[here]) <= self.radius
        near = torch.tensor(near & (cell[:, None] == cell), dtype=x.dtype, device=x.device)
        changed = x.clone()
        changed[rows] = near / near.sum(1, keepdim=True) @ x[rows]
        state["fired"] |= not torch.allclose(changed, x)
        return changed

    def affects(self, session, state):  # `model.sweep` begins there
        return self.layer, int(state["video"][0])

    def neutral(self):  # for `probe.doctor`
        return replace(self, radius=0)

    def finish(self, session, state):
        if not state["fired"] and not session.force:
            raise ProbeError(f"{self}: nearby frames are equal; the ablation did not fire")


@dataclass(frozen=True)
class Centre(Score):
    """Tokens near the middle of their frame: a control for scores that look there anyway."""

    def score(self, c):
        away = [np.abs(cells - cells.max() / 2) for cells in (c.row, c.col)]
        return -torch.from_numpy(np.hypot(*away))


def main() -> None:
    """Both, over layers and beside built-in ones."""
    import probe
    from probe import testbed
    from probe.ablate import Knockout, LastQuery, Reduce, Uniform, layer

    model = probe.load("testbed/onevision")
    item = testbed.items("neutral", n=1, seed=1012, types=["direction"])[0]
    x = model.encode(item.frames(), item.question.text, seconds=np.arange(16) / 8)
    blurred = [TimeBlur(layer=k, radius=16) for k in range(model.n_layers)]
    scores = [LastQuery(), Uniform(), Centre()]
    kept = [Reduce(at=layer(2), score=score, keep=0.1) for score in scores]
    both = [TimeBlur(layer=3), Knockout("video -> question")]
    print(item.question.text, "right:", item.question.answer)
    table = model.sweep(x, [*blurred, *kept, both])
    print(table.drop(columns="seconds").round(2).to_string(index=False))


if __name__ == "__main__":
    main()
