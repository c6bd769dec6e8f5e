"""VisionSimilarity: how alike the layers of a vision tower are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.vision_gather import expected_tokens, hooks, residual_layers, vision_array
from probe.errors import ProbeError
from probe.spec import Layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session

MEASURES = ("cka", "cosine")
TILE = 1 << 22  # Gram entries of all layers in a tile: 16 MB


@dataclass(frozen=True)
class VisionSimilarity(Capture):
    """Linear CKA and mean cosine between the residual streams of the tower's layers.

    Linear CKA (Kornblith et al., 2019) between layers with centred features X and Y [patch,
    channel] is |Y'X|^2 / (|X'X| |Y'Y|) in Frobenius norms; the patches of all frames are the
    samples. Cosine is between the same patch in two layers, mean over patches. A tower finishes a
    layer on all frames before the next one starts, so all pairs of layers need the features of all
    layers at once; they are kept in the model's dtype, of at most `patches` patches spread evenly
    over the clip, and the result is exact for these. Gram matrices are made in tiles.

    Attributes:
        patches: how many patches are kept, evenly spaced; None for all.
        layers: layers of the tower, the number of layers included.

    Result: vision_similarity [measure, vision_layer, other_vision_layer].
    """

    patches: int | None = 2048
    layers: Layers = "all"

    def start(self, session: Session) -> dict:
        if self.patches is not None and self.patches < 2:
            raise ProbeError(f"{self.kind}: patches={self.patches}; at least 2 are compared")
        return {"layers": residual_layers(session, self.layers, self.kind), "kept": {}}

    def vision_residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        if layer not in state["layers"]:
            return
        vision = hooks(session)
        inside = np.flatnonzero(vision.tokens.patch >= 0)
        most = self.patches
        if most is not None and len(inside) > most:
            inside = inside[np.linspace(0, len(inside) - 1, most).round().astype(int)]
        kept = x[torch.as_tensor(inside, device=x.device)]
        state["kept"].setdefault(layer, []).append(kept.cpu())

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        layers = list(state["layers"])
        features = [torch.cat(state["kept"][layer]) for layer in layers]
        values = np.stack([linear_cka(features), mean_cosine(features)])
        coords = {"measure": list(MEASURES), "vision_layer": layers, "other_vision_layer": layers}
        count = len(features[0])
        about = f"linear CKA and mean cosine between layers over {count} patches"
        return {
            self.kind: vision_array(
                session, values, list(coords), coords, "1", about, patches=count
            )
        }

    def memory(self, session: Session) -> int:
        layers = residual_layers(session, self.layers, self.kind)
        patches = expected_tokens(session)
        patches = patches if self.patches is None else min(patches, self.patches)
        itemsize = session.model.hf.dtype.itemsize
        kept = len(layers) * patches * hooks(session).tower.width * itemsize
        return kept + 12 * min(TILE, len(layers) * patches**2)


def linear_cka(features: list[Tensor]) -> Float[np.ndarray, "layer layer"]:
    """Linear CKA between all pairs of [sample, channel] tensors, in tiles of the Gram matrices."""
    count = len(features[0])
    centred = [f.float() - f.float().mean(0) for f in features]
    # A common scale of a layer cancels; it keeps sums of large norms in range.
    centred = [f / f.norm().clamp(min=1e-30) * count**0.5 for f in centred]
    rows = max(1, TILE // (len(features) * count))
    alike = torch.zeros(len(features), len(features), dtype=torch.float64)
    for start in range(0, count, rows):
        grams = torch.stack([(f[start : start + rows] @ f.T).flatten() for f in centred]).double()
        alike += grams @ grams.T
    own = alike.diagonal().sqrt()
    return (alike / (own[:, None] * own)).numpy()


def mean_cosine(features: list[Tensor]) -> Float[np.ndarray, "layer layer"]:
    """Mean over samples of the cosine between the same sample in two tensors."""
    unit = [torch.nn.functional.normalize(f.float(), dim=-1).flatten() for f in features]
    alike = [[(a * b).sum(dtype=torch.float64).item() for b in unit] for a in unit]
    return np.array(alike) / len(features[0])
