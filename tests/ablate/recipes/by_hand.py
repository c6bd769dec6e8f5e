"""The decoder called layer by layer, with the rows and position ids that a test puts in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from probe.ablate.reduction.build import weights
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.weights import Weights
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.ablate.plain import record

Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def embedded(model: VideoModel, x: Example) -> Tensor:
    """[row, channel] that enters the decoder, features of the clip in place."""
    return record(model, x, model.layers[0], inputs=True)


def logits(
    model: VideoModel, h: Tensor, ids: Tensor, changes: Mapping[int, Change] | None = None
) -> np.ndarray:
    """Of the last row.

    Args:
        model: whose layers.
        h: [row, channel].
        ids: [row], or [axis, row].
        changes: by layer, what becomes of (h, ids) before it.
    """
    with torch.no_grad():
        for number, layer in enumerate(model.layers):
            h, ids = (changes or {}).get(number, lambda h, ids: (h, ids))(h, ids)
            tables = model.decoder.rotary_emb(h[None], ids.unsqueeze(-2))
            out = layer(h[None], position_embeddings=tables, attention_mask=None)
            h = (out[0] if isinstance(out, tuple) else out)[0]
        return model.hf.get_output_embeddings()(model.decoder.norm(h[-1])).numpy()


def replaced(x: Example, h: Tensor, video: Tensor) -> Tensor:
    """The rows of the prompt with those of the clip replaced by others [row, channel]."""
    where = x.layout.select("video")
    return torch.cat([h[: where[0]], video, h[where[-1] + 1 :]])


def grid(x: Example, h: Tensor) -> Tensor:
    """[time, row, column, channel] of the clip's rows that have a cell."""
    layout = x.layout
    there = np.flatnonzero((layout.role == "video") & (layout.row >= 0))
    shape = (layout.group[there].max() + 1, layout.row[there].max() + 1, -1, h.shape[1])
    return h[torch.as_tensor(there)].reshape(shape)


def noise(*shape: int, seed: int = 0) -> Candidates:
    """Candidates of a full grid [time, row, col, channel] of noise."""
    return Candidates.grid(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def matrix(one, c: Candidates) -> Weights:
    """What a reduction makes of candidates."""
    return weights(one.steps, c, one.order)
