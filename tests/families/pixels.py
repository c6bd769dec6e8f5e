"""The layout proved by pixels: what changes in a frame may change only the tokens it names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from probe.models.encode import Example, encode
from probe.models.given import Picture
from probe.models.video_model import VideoModel
from probe.models.visual import Visual
from probe.video import Clip


def prove(
    model: VideoModel, x: Example, clip: Clip | Picture, margin: float = 0.0, exact: bool = True
) -> None:
    """Change one cell of one frame after another, and see which embeddings change.

    Attention outside the decoder adds nothing meanwhile, so that no patch hears of another.

    Args:
        model: with random weights.
        x: an example with this clip or image, encoded by `model`.
        clip: of noise.
        margin: part of a cell left as it is along each of its sides; for frames that the
            processor resizes, as the resampling of a pixel reaches into the cells beside it.
        exact: every token that the layout names must change; False where a token's cell holds
            patches that it reads with a weight of zero.
    """
    visual = _shown(x, clip)
    assert visual.grid is not None and visual.cells is not None
    height, width = visual.size
    rows, cols = visual.cells
    before = embeddings(model, x)
    cells = {(0, 0), (0, cols - 1), (rows - 1, 0), (rows // 2, cols // 3)}
    boxes = [
        (
            *_inside(visual.grid.row_edges[row], height, margin),
            *_inside(visual.grid.col_edges[col], width, margin),
        )
        for row, col in sorted(cells)
    ]
    for frame in range(visual.frames):
        term = visual.label if isinstance(clip, Picture) else f"frame {visual.first + frame}"
        for y0, y1, x0, x1 in [*boxes, (0, height, 0, width)]:
            pixels = _pixels(clip).copy()
            pixels[frame, y0:y1, x0:x1] = 255 - pixels[frame, y0:y1, x0:x1]
            changed = _with(model, x, clip, pixels)
            assert changed.inputs["input_ids"].equal(x.inputs["input_ids"])
            after = embeddings(model, changed)
            moved = set(np.flatnonzero((after != before).any(1)).tolist())
            box = f"box {x0},{y0},{x1},{y1} {term}"
            named = set(x.layout.select(box).tolist())
            assert moved <= named, f"{box}: {sorted(moved - named)} changed and were not named"
            assert moved, f"{box}: nothing changed"
            assert not exact or moved == named, f"{box}: {sorted(named - moved)} did not change"


def embeddings(model: VideoModel, x: Example) -> np.ndarray:
    """[position, width]: what enters the first layer of the decoder, without vision attention."""
    seen: list[torch.Tensor] = []
    handle = model.decoder.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    try:
        with torch.no_grad(), without_mixing(model):
            model.hf(**x.inputs)
    finally:
        handle.remove()
    return seen[0][0].numpy()


@contextmanager
def without_mixing(model: VideoModel) -> Iterator[None]:
    """Attention modules outside the decoder give zeros; pooling in a projector is no mixing."""
    outside = (f"{model.family.decoder}.", f"{model.family.projector}.")
    found = [
        module
        for name, module in model.hf.named_modules()
        if "Attention" in type(module).__name__ and not name.startswith(outside)
    ]
    assert found, f"no attention in the vision side of {type(model.hf).__name__}"
    handles = [module.register_forward_hook(_silence) for module in found]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _silence(module: Any, args: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return (torch.zeros_like(output[0]), *output[1:])
    return torch.zeros_like(output)


def _inside(edges: np.ndarray, size: int, margin: float) -> tuple[int, int]:
    first, final = (float(edge) * size for edge in edges)
    kept = margin * (final - first)
    start, end = np.ceil(first + kept - 1e-6), np.floor(final - kept + 1e-6)
    assert end > start, f"a cell of {final - first:.1f} pixels with a margin of {margin}"
    return max(0, int(start)), min(size, int(end))


def _pixels(clip: Clip | Picture) -> np.ndarray:
    return clip.pixels[None] if isinstance(clip, Picture) else clip.frames


def _shown(x: Example, clip: Clip | Picture) -> Visual:
    same = [p for turn in x.turns for p in turn.parts if type(p) is type(clip)]
    number = next(n for n, part in enumerate(same) if part is clip)
    kind = "image" if isinstance(clip, Picture) else "video"
    return next(v for v in x.layout.visuals if v.label == f"{kind} {number}")


def _with(model: VideoModel, x: Example, clip: Clip | Picture, pixels: np.ndarray) -> Example:
    """The example with other pixels in one of its clips or images."""
    other: Clip | Picture = (
        replace(clip, pixels=pixels[0])
        if isinstance(clip, Picture)
        else replace(clip, frames=pixels)
    )
    turns = [
        replace(turn, parts=tuple(other if part is clip else part for part in turn.parts))
        for turn in x.turns
    ]
    return encode(model.hf, model.processor, model.family, turns)
