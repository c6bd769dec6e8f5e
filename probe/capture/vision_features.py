"""VisionFeatures: the vectors before and after the projector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.vision_gather import (
    expected_tokens,
    hooks,
    patch_coords,
    stack_frames,
    vision_array,
)
from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session

AXES = (
    ("before", "projector_input", "vision_channel"),
    ("after", "projector_output", "channel"),
)


@dataclass(frozen=True)
class VisionFeatures(Capture):
    """The vision tower's features as they enter the projector, and as they leave it.

    Attributes:
        place: "before", "after" or "both".

    Result: vision_features_before [frame, projector_input, vision_channel] and
    vision_features_after [frame, projector_output, channel]. Features of a frame are in raster
    order, with coordinates such as projector_input_row, which are -1 for CLS, for the queries of
    a Q-Former, and where tokens are regrouped in a way that is not known. What the model does
    before and after (pooling, newlines) is not in it; `Activations` at layer 0 of the decoder has
    what it gets in the end.
    """

    place: str = "both"

    def start(self, session: Session) -> dict:
        if self.place not in ("before", "after", "both"):
            raise ProbeError(f'{self.kind}: place "{self.place}"; there are before, after, both')
        if hooks(session).tower.projector is None:
            raise ProbeError(
                f"{self.kind}: the family of {session.model.name} names no projector; "
                "Family(projector=...) must"
            )
        return {"before": [], "after": []}

    def vision_features(self, session: Session, state: dict, place: str, x: Tensor) -> None:
        if self.place in (place, "both"):
            state[place].append(x.float().cpu().numpy())

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        vision = hooks(session)
        results = {}
        for place, dim, channel in AXES:
            if not state[place]:
                continue
            tokens = [where.whole for where in vision.features[place]]
            values = stack_frames(
                [
                    np.moveaxis(where.paint(values.T), 0, -1)
                    for where, values in zip(tokens, state[place], strict=True)
                ]
            )
            coords = {"frame": vision.labels_of(tokens)} | patch_coords(tokens, dim)
            coords[channel] = np.arange(values.shape[-1])
            results[f"{self.kind}_{place}"] = vision_array(
                session,
                values,
                ["frame", dim, channel],
                coords,
                "1",
                f"features {place} the projector",
            )
        return results

    def memory(self, session: Session) -> int:
        tokens = expected_tokens(session)
        return 8 * tokens * (hooks(session).tower.width + session.model.width)
