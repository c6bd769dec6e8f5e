"""The layout, proved by pixels: a token changes with its own box of its own frames, and no other.

Attention in the vision tower is switched off (its outputs are set to zero by hooks), so that no
patch hears of another. The cells of all tokens are numbered, and for each binary digit of the
numbers one pass inverts the boxes in the middle of the cells that have it, another of those that
have it not. A token that follows its own digits through all passes sees its cell and nothing else;
so every token is proved with 2 log2(cells) passes of the tower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from probe.doctor.check import Check, failed, ok
from probe.doctor.example import QUESTION
from probe.doctor.subject import Subject, entering

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.layout import Visual
    from probe.models.video_model import VideoModel

NAME = "layout proof"
MIDDLE = 0.2  # half the part of a cell, around its centre, that is inverted
TINY = 1e-4  # of the largest change: what rounding may do to a token that must not change
TODO = (
    "the family's grid does not describe the order or place of the tokens: compare group, row and "
    "col with the order of the vision tower's output, and row_edges and col_edges with its resize"
)


def layout_proof(subject: Subject) -> Check:
    """Every video token of the generated clip moves with the pixels it names, and only them."""
    model, x = subject.model, subject.noise_example
    clip = x.layout.clips[0]
    with ExitStack() as stack:
        if clip.cells is not None and model.vision is not None:
            stack.enter_context(without_mixing(model.vision))
        before = _embeddings(model, x)
        passes = 0
        for pixels, must, may in _edits(subject):
            after = _embeddings(model, _shown(subject, pixels))
            if [part.shape for part in after] != [part.shape for part in before]:
                return failed(NAME, "other pixels gave another number of tokens", TODO)
            change = _change(before, after)
            moved = change > TINY
            wrong = np.flatnonzero((moved & ~may) | (must & ~moved))
            if len(wrong) or not moved.any():
                return failed(NAME, _what(x, wrong, moved, must), TODO)
            passes += 1
    placed = "pixel box" if clip.cells is not None else "frames (these tokens have no place in one)"
    tokens = int(((x.layout.role == "video") & (x.layout.group >= 0)).sum())
    return ok(NAME, f"each of {tokens} video tokens moves with its own {placed}: {passes} passes")


@contextmanager
def without_mixing(vision: nn.Module) -> Iterator[None]:
    """The attention of the tower's layers adds nothing while this is on."""
    handles = [module.register_forward_hook(_zero) for module in attentions(vision)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attentions(vision: nn.Module) -> list[nn.Module]:
    """The innermost attention modules of a tower's layers (what stands in its module lists)."""
    inside = {
        module
        for layers in vision.modules()
        if isinstance(layers, nn.ModuleList | nn.Sequential)
        for module in layers.modules()
        if _is_attention(module)
    }
    found = [module for module in vision.modules() if module in inside]
    return [m for m in found if not any(_is_attention(c) for c in m.modules() if c is not m)]


def _is_attention(module: nn.Module) -> bool:
    name = type(module).__name__
    return "Attention" in name and "Pool" not in name


def _zero(module: nn.Module, args: tuple, output: Any) -> Any:
    if isinstance(output, tuple):
        return (torch.zeros_like(output[0]), *output[1:])
    return torch.zeros_like(output)


def _edits(subject: Subject) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(pixels, tokens that must change, tokens that may) of each pass."""
    layout, frames = subject.noise_example.layout, subject.noise.frames
    clip = layout.clips[0]
    video = layout.role == "video"
    for frame in sorted({0, 1, len(frames) // 2, len(frames) - 1} & set(range(len(frames)))):
        pixels = frames.copy()
        pixels[frame] = 255 - pixels[frame]
        here = _of_groups(layout, [g for g, f in enumerate(layout.frames) if frame in f])
        yield pixels, here & video & _seen(layout, clip), here
    if clip.cells is None:
        return
    rows, cols = clip.cells
    code = np.arange(len(layout.frames) * rows * cols).reshape(len(layout.frames), rows, cols)
    boxes = _boxes(clip)
    for digit in range(max(1, int(code.max()).bit_length())):
        for wanted in (1, 0):
            chosen = (code >> digit & 1) == wanted
            if chosen.any():
                yield _inverted(layout, frames, chosen, boxes), *_concerned(layout, chosen, boxes)


def _boxes(clip: Visual) -> tuple[np.ndarray, np.ndarray]:
    """[row, 2] and [col, 2]: pixels around the centre of each cell, inside the frame."""
    assert clip.grid is not None
    found = []
    for edges, side in zip((clip.grid.row_edges, clip.grid.col_edges), clip.size, strict=True):
        centre, width = edges.mean(1) * side, (edges[:, 1] - edges[:, 0]) * side
        first = np.floor(centre - MIDDLE * width).astype(int)
        last = np.maximum(np.ceil(centre + MIDDLE * width).astype(int), first + 1)
        found.append(np.clip(np.stack([first, last], 1), 0, side))
    return found[0], found[1]


def _inverted(layout: Any, frames: np.ndarray, chosen: np.ndarray, boxes: tuple) -> np.ndarray:
    pixels = frames.copy()
    for group, row, col in np.argwhere(chosen):
        (y0, y1), (x0, x1) = boxes[0][row], boxes[1][col]
        for frame in set(layout.frames[group]):
            pixels[frame, y0:y1, x0:x1] = 255 - frames[frame, y0:y1, x0:x1]
    return pixels


def _concerned(layout: Any, chosen: np.ndarray, boxes: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Tokens whose own cell is chosen, and those whose cell a chosen box touches.

    Cells of some families overlap (bilinear pooling), so that one box is seen by several tokens.
    """
    clip = layout.clips[0]
    touched = [
        (edges[:, :1] * side < box[None, :, 1]) & (edges[:, 1:] * side > box[None, :, 0])
        for edges, side, box in zip(
            (clip.grid.row_edges, clip.grid.col_edges), clip.size, boxes, strict=True
        )
    ]
    near = np.einsum("ri,cj,gij->grc", touched[0], touched[1], chosen) > 0
    placed = (layout.group >= 0) & (layout.row >= 0) & (layout.role == "video")
    where = layout.group[placed], layout.row[placed], layout.col[placed]
    must, may = np.zeros((2, len(layout)), bool)
    must[placed], may[placed] = chosen[where], near[where]
    empty = (boxes[0][:, 0] == boxes[0][:, 1])[:, None] | (boxes[1][:, 0] == boxes[1][:, 1])
    must[placed] &= ~empty[where[1:]]
    # A token of a frame without a place in it (a class token) may see all of the frame.
    may |= ~placed & _of_groups(layout, np.flatnonzero(chosen.any((1, 2))))
    return must, may


def _of_groups(layout: Any, groups: Any) -> np.ndarray:
    shown = np.isin(layout.role, ("timestamp", "separator"), invert=True)
    return np.isin(layout.group, groups) & (layout.group >= 0) & shown


def _seen(layout: Any, clip: Visual) -> np.ndarray:
    """Tokens that see pixels of the frame at all: not those of a padded border."""
    if clip.cells is None or clip.grid is None:
        return np.ones(len(layout), bool)
    rows, cols = ((e[:, 1] > 0) & (e[:, 0] < 1) for e in (clip.grid.row_edges, clip.grid.col_edges))
    placed = (layout.row >= 0) & (layout.col >= 0) & (layout.visual == 0)
    found = np.zeros(len(layout), bool)
    found[placed] = rows[layout.row[placed]] & cols[layout.col[placed]]
    return found


def _shown(subject: Subject, pixels: np.ndarray) -> Example:
    clip = replace(subject.noise, frames=pixels)
    return subject.model.encode(clip, QUESTION, frames=None)


def _embeddings(model: VideoModel, x: Example) -> list[torch.Tensor]:
    """[position, channel]: the merged embeddings, and features that are added in later layers."""
    seen = entering(model, x)
    merged = seen["inputs_embeds"][0].float()
    features, mask = seen.get("deepstack_visual_embeds"), seen.get("visual_pos_masks")
    parts = [merged]
    if features is not None and mask is not None:
        for each in features:
            full = merged.new_zeros(len(merged), each.shape[-1])
            full[mask[0].to(full.device)] = each.float().to(full.device)
            parts.append(full)
    return parts


def _change(before: list[torch.Tensor], after: list[torch.Tensor]) -> np.ndarray:
    """[position]: the largest change of a token, each part relative to the largest there."""
    found = []
    for one, other in zip(before, after, strict=True):
        change = (other - one).abs().amax(1)
        found.append(change / change.max().clamp(min=1e-30))
    return torch.stack(found).amax(0).cpu().numpy()


def _what(x: Example, wrong: np.ndarray, moved: np.ndarray, must: np.ndarray) -> str:
    if not moved.any():
        return "no token changed with the pixels"
    first = int(wrong[0])
    layout = x.layout
    place = f"group {layout.group[first]}, row {layout.row[first]}, col {layout.col[first]}"
    how = "changed with pixels it does not name" if moved[first] else "ignores the pixels it names"
    return f"token {first} ({layout.role[first]}, {place}) {how}; {len(wrong)} tokens are wrong"
