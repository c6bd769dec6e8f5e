"""SparseFeatures: a user's sparse autoencoder reads the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.gather import array
from probe.errors import ProbeError
from probe.models.selection import Selection
from probe.spec import resolve_layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session

NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


@dataclass(frozen=True)
class Autoencoder:
    """encode(x) = act((x - shift) W_enc + b_enc) and decode(f) = f W_dec + b_dec.

    Attributes:
        W_enc, b_enc, W_dec, b_dec: weights.
        activation: "relu"; "topk 32", the 32 largest after relu; or "jumprelu", what exceeds
            `threshold` (one number a feature).
        center: subtract b_dec from the input (shift = b_dec, else 0).
    """

    W_enc: Float[Tensor, "channel feature"]
    b_enc: Float[Tensor, " feature"]
    W_dec: Float[Tensor, "feature channel"]
    b_dec: Float[Tensor, " channel"]
    threshold: Float[Tensor, " feature"] | None = None
    activation: str = "relu"
    center: bool = False

    def encode(self, x: Float[Tensor, "row channel"]) -> Float[Tensor, "row feature"]:
        """Feature activations."""
        features = (x - self.b_dec if self.center else x) @ self.W_enc + self.b_enc
        if self.threshold is not None:
            return torch.where(features > self.threshold, features, 0.0)
        features = features.relu()
        if self.activation == "relu":
            return features
        top = features.topk(int(self.activation.split()[1]), dim=-1)
        return torch.zeros_like(features).scatter(-1, top.indices, top.values)

    def decode(self, features: Float[Tensor, "row feature"]) -> Float[Tensor, "row channel"]:
        """The vectors that feature activations stand for."""
        return features @ self.W_dec + self.b_dec


def autoencoder(spec: Any, session: Session) -> Autoencoder:
    """The autoencoder that a capture or an ablation names, in float32 on the model's device.

    Raises:
        ProbeError: a file or arrays that are none, shapes that do not fit the model.
    """
    owner, width = spec.kind, session.model.width
    if isinstance(spec.weights, str):
        from probe.interop.safetensors import read_tensors

        found = read_tensors(spec.weights)
    else:
        found = {
            name: torch.tensor(values, dtype=torch.float32)
            for name, values in zip(NAMES, spec.weights, strict=False)
        }
    missing = [name for name in NAMES if name not in found]
    if missing:
        raise ProbeError(
            f"{owner}: the autoencoder lacks {missing[0]}; give a safetensors file with "
            f"{', '.join(NAMES)}, or these arrays in this order"
        )
    size = found["b_enc"].shape[0]
    sizes = [(width, size), (size,), (size, width), (width,)]
    shapes: dict[str, tuple[int, ...]] = dict(zip(NAMES, sizes, strict=True))
    name, _, count = spec.activation.partition(" ")
    known = (name in ("relu", "jumprelu") and not count) or (name == "topk" and count.isdigit())
    if not known or (name == "topk" and not 1 <= int(count) <= size):
        raise ProbeError(
            f'{owner}: activation "{spec.activation}"; write "relu", "jumprelu" or "topk 32"'
        )
    if name == "jumprelu":
        if "threshold" not in found:
            raise ProbeError(f'{owner}: activation "jumprelu" needs the tensor "threshold"')
        shapes["threshold"] = (size,)
    for name, shape in shapes.items():
        if tuple(found[name].shape) != shape:
            raise ProbeError(
                f"{owner}: {name} has shape {tuple(found[name].shape)}, it should be {shape} "
                f"(this model has width {width})"
            )
    device = session.model.hf.device
    weights = {name: found[name].to(device, torch.float32) for name in shapes}
    return Autoencoder(**weights, activation=spec.activation, center=spec.center)


@dataclass(frozen=True)
class SparseFeatures(Capture):
    """Feature activations of a sparse autoencoder on the residual stream that enters a layer.

    Attributes:
        weights: safetensors file with W_enc [channel, feature], b_enc, W_dec [feature, channel]
            and b_dec, or these four arrays.
        layer: the layer whose input it was trained on.
        positions: a selection; in `generate` each step's own token.
        features: numbers of the features to keep; all by default.
        activation: "relu", "topk 32", or "jumprelu" with a tensor `threshold` in the file.
        center: subtract b_dec from the input before encoding.

    Results, NaN where a token does not exist:
        sparse_features [position, feature].
        sparse_features_error [position]: part of the squared norm that decoding does not recover.
    """

    weights: str | Sequence
    layer: int
    positions: Selection = "readout"
    features: Sequence[int] | np.ndarray | None = None
    activation: str = "relu"
    center: bool = False

    def __str__(self) -> str:
        return short(self, super().__str__())

    def start(self, session: Session) -> dict:
        layer = resolve_layers(self.layer, session.model.n_layers, self.kind)[0]
        code = autoencoder(self, session)
        size = len(code.b_enc)
        kept = np.arange(size) if self.features is None else np.asarray(self.features)
        if not len(kept) or kept.min() < 0 or kept.max() >= size:
            raise ProbeError(f"{self.kind}: features {self.features}; there are 0 to {size - 1}")
        positions = session.layout.select(self.positions)
        return {"code": code, "layer": layer, "kept": kept, "positions": positions, "steps": []}

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        if layer != state["layer"]:
            return
        there, wanted = session.positions[layer], state["positions"]
        inside = np.isin(wanted, there)
        rows = np.searchsorted(there, wanted[inside])
        if session.generating:
            inside, rows = np.ones(1, bool), np.array([len(x) - 1])
        x = x[torch.as_tensor(rows, device=x.device)].float()
        features = state["code"].encode(x)
        lost = (x - state["code"].decode(features)).square().sum(-1) / x.square().sum(-1)
        found = np.full((len(inside), len(state["kept"])), np.nan, np.float32)
        found[inside] = features.cpu().numpy()[:, state["kept"]]
        error = np.full(len(inside), np.nan, np.float32)
        error[inside] = lost.cpu().numpy()
        state["steps"].append((found, error))

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        found, error = (np.stack(parts) for parts in zip(*state["steps"], strict=True))
        coords = {"position": state["positions"], "feature": state["kept"]}
        dims = ["position", "feature"]
        if session.generating:
            found, error, dims = found[:, 0], error[:, 0], ["feature"]
            coords.pop("position")
        else:
            found, error = found[0], error[0]
        about = f"feature activation on the residual stream that enters layer {state['layer']}"
        lost = "part of the stream's squared norm that decoding does not recover"
        rest = {dim: coords[dim] for dim in dims[:-1]}
        return {
            self.kind: array(session, found, dims, coords, "1", about),
            f"{self.kind}_error": array(session, error, dims[:-1], rest, "1", lost),
        }

    def memory(self, session: Session) -> int:
        if isinstance(self.weights, str):
            from safetensors import safe_open

            with safe_open(self.weights, framework="np") as file:
                size = file.get_slice("b_enc").get_shape()[0]
        else:
            size = len(self.weights[1])
        return 8 * size * (len(session.layout.select(self.positions)) + session.model.width)


def short(spec: Any, text: str) -> str:
    """The text of a spec whose weights are arrays, without their numbers."""
    if isinstance(spec.weights, str):
        return text
    return f"{type(spec).__name__}(weights=[...], layer={spec.layer})"
