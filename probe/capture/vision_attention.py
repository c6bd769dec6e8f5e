"""VisionAttention: which patches of a frame the vision tower attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probe.capture.base import Capture
from probe.capture.vision_gather import (
    attention_layers,
    by_frame,
    expected_tokens,
    hooks,
    patch_coords,
    put,
    vision_array,
)
from probe.errors import ProbeError
from probe.spec import Layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session
    from probe.engine.vision_call import VisionCall

CLS, RECEIVED = "cls", "received (proxy)"
ABOUT = {
    CLS: "attention weight from CLS to the patch; with the weight on CLS itself it sums to 1",
    RECEIVED: (
        "attention weight the patch receives, mean over the patches it shares attention with; "
        "a proxy for the attention of a CLS token"
    ),
}


@dataclass(frozen=True)
class VisionAttention(Capture):
    """Attention to each patch, by layer, head and frame of the vision tower.

    The query is CLS where the tower has one. Where it has none, each patch's mean received
    attention stands in for it, over all patches of its attention block: its frame, or its window
    in the windowed layers of Qwen2.5-VL. The label of `vision_query` says which it is.

    Attributes:
        query: "auto", "cls" or "received".
        layers: layers of the tower.

    Result: vision_attention [vision_layer, vision_head, vision_query, frame, patch], 0 to 1, with
    coordinates patch_row and patch_col; where the tower has a pooling head that runs, also
    vision_attention_pooling [vision_head, frame, patch], from its learned query.
    """

    query: str = "auto"
    layers: Layers = "all"

    def start(self, session: Session) -> dict:
        if self.query not in ("auto", "cls", "received"):
            raise ProbeError(f'{self.kind}: query "{self.query}"; there are auto, cls, received')
        hooks(session).wanted.add(self.query)
        return {"layers": attention_layers(session, self.layers, self.kind)}

    def vision_attention(self, session: Session, state: dict, call: VisionCall) -> None:
        if call.pooling:
            put(session, state, call.layer, call.tokens, call.first_row().transpose(0, 1))
            state["pooled"] = call.layer
            return
        if call.layer not in state["layers"]:
            return
        state["label"] = self._label(session, call)
        found = call.statistics()
        values = found.cls if state["label"] == CLS else found.received
        assert values is not None
        put(session, state, call.layer, call.tokens, values.transpose(0, 1))

    def _label(self, session: Session, call: VisionCall) -> str:
        if self.query == "cls" and not call.prefix:
            raise ProbeError(
                f"{self.kind}: the vision tower of {session.model.name} has no CLS token; write "
                'query="received"'
            )
        return CLS if call.prefix and self.query != "received" else RECEIVED

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        vision, label = hooks(session), state["label"]
        values = by_frame(state, session, state["layers"], mean=False)
        dims = ["vision_layer", "vision_head", "vision_query", "frame", "patch"]
        coords = {
            "vision_layer": list(state["layers"]),
            "vision_head": np.arange(values.shape[1]),
            "vision_query": [label],
            "frame": vision.labels,
        } | patch_coords(vision.forwards)
        proxy = label == RECEIVED
        results = {
            self.kind: vision_array(
                session, values[:, :, None], dims, coords, "1", ABOUT[label], proxy=str(proxy)
            )
        }
        if "pooled" in state:
            values = by_frame(state, session, [state["pooled"]], mean=False)[0]
            del coords["vision_layer"], coords["vision_query"]
            about = (
                "attention weight from the learned query of the tower's pooling head to the patch; "
                "a proxy for the attention of a CLS token"
            )
            dims = ["vision_head", "frame", "patch"]
            results[f"{self.kind}_pooling"] = vision_array(
                session, values, dims, coords, "1", about, proxy="True"
            )
        return results

    def memory(self, session: Session) -> int:
        layers = attention_layers(session, self.layers, self.kind)
        return 4 * (len(layers) + 1) * hooks(session).tower.heads * expected_tokens(session)


def outlier_patches(attention: xr.DataArray, k: int = 10, layer: int = -2) -> xr.DataArray:
    """The k patches of each frame with the highest attention, mean over heads.

    DAMRO (Gong et al., 2024) calls them outlier tokens and takes the 10 (LLaVA) or 4
    (InstructBLIP) patches with the highest CLS attention in the layer before the last.

    Args:
        attention: `vision_attention` of a run.
        k: how many of each frame.
        layer: number of the layer among those captured; -2 is the last but one.

    Returns:
        [frame, patch], True for an outlier.

    Raises:
        ProbeError: more than the patches of a frame.
    """
    mean = attention.isel(vision_layer=layer, vision_query=0).mean("vision_head", skipna=False)
    if not 1 <= k <= mean.sizes["patch"]:
        raise ProbeError(f"outlier_patches: k={k} of {mean.sizes['patch']} patches of a frame")
    values = mean.transpose("frame", "patch").fillna(-np.inf)
    rank = (-values.values).argsort(-1, kind="stable").argsort(-1, kind="stable")
    outlier = (rank < k) & np.isfinite(values.values)
    label = str(attention.coords["vision_query"].values[0])
    attrs = {"description": f"among the {k} patches of the frame with most attention: {label}"}
    return values.copy(data=outlier).assign_attrs(attrs).rename("outlier_patches")
