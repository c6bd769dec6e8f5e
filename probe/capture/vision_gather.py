"""What vision captures share: values by layer and token of each forward of the tower, stacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probe.errors import ProbeError
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session
    from probe.engine.vision import VisionHooks
    from probe.engine.vision_tokens import VisionTokens


def hooks(session: Session) -> VisionHooks:
    """The session's hooks in the vision tower."""
    vision: VisionHooks | None = session.vision
    if vision is None:
        raise ProbeError("vision captures need a session that listens to the vision tower")
    return vision


def attention_layers(session: Session, layers: Layers, owner: str) -> tuple[int, ...]:
    """Layers of the tower that are asked for, 0-based."""
    return resolve_layers(layers, len(hooks(session).tower.layers), owner)


def residual_layers(session: Session, layers: Layers, owner: str) -> tuple[int, ...]:
    """As above, and one more, after the last layer."""
    return resolve_layers(layers, len(hooks(session).tower.layers) + 1, owner)


def put(session: Session, state: dict, layer: int, tokens: np.ndarray, values: Tensor) -> None:
    """Keep the values [..., block, token] of some tokens of a layer, in float32 on the CPU."""
    vision = hooks(session)
    key = (len(vision.forwards) - 1, layer)
    kept = values.float().cpu().numpy()
    store = state.setdefault("values", {})
    if key not in store:
        store[key] = np.full((*kept.shape[:-2], len(vision.tokens)), np.nan, np.float32)
    store[key][..., tokens.reshape(-1)] = kept.reshape(*kept.shape[:-2], -1)


def by_frame(state: dict, session: Session, layers: Sequence[int], mean: bool) -> np.ndarray:
    """What was kept, as [layer, ..., frame], mean over tokens, or as [layer, ..., frame, patch].

    Forwards follow each other along `frame`; frames with fewer patches end in NaN.
    """
    kept, forwards = state["values"], hooks(session).forwards
    shape = kept[0, layers[0]].shape[:-1]
    frames, widest = sum(t.frames for t in forwards), max(t.patches for t in forwards)
    sizes = (frames,) if mean else (frames, widest)
    full = np.full((len(layers), *shape, *sizes), np.nan, np.float32)
    first = 0
    for number, tokens in enumerate(forwards):
        part = slice(first, first + tokens.frames)
        first += tokens.frames
        for place, layer in enumerate(layers):
            values = kept.pop((number, layer))  # one copy at a time
            if mean:
                full[place, ..., part] = frame_mean(values, tokens)
            else:
                full[place, ..., part, : tokens.patches] = tokens.paint(values)
    return full


def stack_frames(parts: Sequence[np.ndarray]) -> np.ndarray:
    """[frame, patch, ...] of several forwards as one, filled up with NaN along `patch`."""
    widest = max(part.shape[1] for part in parts)
    full = np.full((sum(map(len, parts)), widest, *parts[0].shape[2:]), np.nan, np.float32)
    first = 0
    for part in parts:
        full[first : first + len(part), : part.shape[1]] = part
        first += len(part)
    return full


def frame_mean(values: np.ndarray, tokens: VisionTokens) -> np.ndarray:
    """Mean over each frame's tokens of [..., token], in float64."""
    starts = np.searchsorted(tokens.frame, np.arange(tokens.frames))
    sums = np.add.reduceat(values.astype(np.float64), starts, axis=-1)
    return (sums / np.bincount(tokens.frame)).astype(np.float32)


def patch_coords(forwards: Sequence[VisionTokens], name: str = "patch") -> dict[str, Any]:
    """Coordinates of a patch dim: its number, and the row and column of each patch.

    Rows and columns are [patch], or [frame, patch] where frames have different grids; -1 where a
    patch has none.
    """
    widest = max(tokens.patches for tokens in forwards)
    cells = np.full((2, sum(tokens.frames for tokens in forwards), widest), -1)
    first = 0
    for tokens in forwards:
        inside = tokens.patch >= 0
        where = tokens.frame[inside] + first, tokens.patch[inside]
        for axis, values in enumerate((tokens.row, tokens.col)):
            cells[axis][where] = values[inside]
        first += tokens.frames
    alike = (cells == cells[:, :1]).all()
    dims, cells = (name, cells[:, 0]) if alike else (("frame", name), cells)
    return {
        name: np.arange(widest),
        f"{name}_row": (dims, cells[0]),
        f"{name}_col": (dims, cells[1]),
    }


def vision_array(
    session: Session,
    values: np.ndarray,
    dims: Sequence[str],
    coords: Mapping[str, Any],
    units: str,
    description: str,
    **attrs: Any,
) -> xr.DataArray:
    """A DataArray with units, a description and the tower's class."""
    import xarray as xr

    tower = hooks(session).tower
    about = {
        "units": units,
        "description": description,
        "dtype": str(session.model.hf.dtype),
        "tower": type(tower.module).__name__,
    }
    if tower.outside:
        about["not_read"] = "attention outside the layers: " + ", ".join(tower.outside)
    return xr.DataArray(values, dims=list(dims), coords=dict(coords), attrs=about | attrs)


def expected_tokens(session: Session) -> int:
    """Tokens of the tower before it has run, from the processor's output."""
    inputs = session.example.inputs
    grids = [grid for name, grid in inputs.items() if name.endswith("grid_thw")]
    if grids:
        return sum(int(grid.prod(-1).sum()) for grid in grids)
    convolution, count = hooks(session).tower.convolution, 0
    for name, pixels in inputs.items():
        if not name.startswith("pixel_values") or not torch.is_tensor(pixels):
            continue
        if convolution is None:
            count += int(np.prod(pixels.shape[:-1]))
            continue
        sides = zip(pixels.shape[-2:], convolution.kernel_size, strict=True)
        high, wide = (size // patch for size, patch in sides)
        count += int(np.prod(pixels.shape[:-3])) * (high * wide + 1)
    return count
