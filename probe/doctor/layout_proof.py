"""The layout, proved by pixels: a token changes with its own box of its own frames, and no other.

Attention in the vision tower is switched off (its outputs are set to zero by hooks), so that no
patch hears of another. The cells of all tokens are numbered, and for each binary digit of the
numbers one pass inverts the boxes in the middle of the cells that have it, another of those that
have it not. A token that follows its own digits through all passes sees its cell and nothing else;
so every token is proved with 2 log2(cells) passes of the tower.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from probe.doctor.cells import Canvas
from probe.doctor.check import Check, failed, ok, skipped
from probe.doctor.example import QUESTION, picture
from probe.doctor.mixing import without_mixing
from probe.doctor.subject import Subject, entering
from probe.errors import ProbeError
from probe.models.given import Picture

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.layout import Layout
    from probe.models.video_model import VideoModel

CLIP = "layout proof"
IMAGE = "layout proof, image"
TINY = 1e-4  # of the largest change: what rounding may do to a token that must not change
TODO = (
    "the family's grid does not describe the order or place of the tokens: compare group, row and "
    "col with the order of the vision tower's output, and row_edges and col_edges with its resize"
)


def clip_proof(subject: Subject) -> Check:
    """Every video token of the generated clip moves with the pixels it names, and only them."""
    canvas = Canvas(subject.noise_example.layout, subject.noise.frames)

    def show(pixels: np.ndarray) -> Example:
        clip = replace(subject.noise, frames=pixels)
        return subject.model.encode(clip, QUESTION, frames=None)

    return _prove(CLIP, subject.model, canvas, show)


def image_proof(subject: Subject) -> Check:
    """The same for a generated image, in families that take images."""
    if subject.model.family.image_token is None:
        return skipped(IMAGE, "this family takes no images")
    try:
        shown, x = picture(subject.model)
    except ProbeError as error:
        return skipped(IMAGE, f"refused: {error}")

    def show(pixels: np.ndarray) -> Example:
        return subject.model.encode(Picture(pixels[0]), QUESTION)

    return _prove(IMAGE, subject.model, Canvas(x.layout, shown.pixels[None]), show)


def _prove(
    name: str, model: VideoModel, canvas: Canvas, show: Callable[[np.ndarray], Example]
) -> Check:
    with ExitStack() as stack:
        if canvas.visual.cells is not None:
            stack.enter_context(without_mixing(model))
        before = _embeddings(model, show(canvas.pixels))
        passes = 0
        for pixels, must, may in canvas.edits():
            after = _embeddings(model, show(pixels))
            if [part.shape for part in after] != [part.shape for part in before]:
                return failed(name, "other pixels gave another number of tokens", TODO)
            change = _change(before, after)
            moved = change > TINY
            wrong = np.flatnonzero((moved & ~may) | (must & ~moved))
            if len(wrong) or not moved.any():
                return failed(name, _what(canvas.layout, wrong, moved), TODO)
            passes += 1
    whole = "frames" if canvas.visual.kind == "video" else "image"
    placed = canvas.visual.cells is not None
    own = "pixel box" if placed else f"{whole} (these tokens have no place in one)"
    count = int((canvas.placed if placed else canvas.mine).sum())
    kind = canvas.visual.kind
    return ok(name, f"each of {count} {kind} tokens moves with its own {own}: {passes} passes")


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


def _what(layout: Layout, wrong: np.ndarray, moved: np.ndarray) -> str:
    if not moved.any():
        return "no token changed with the pixels"
    first = int(wrong[0])
    place = f"group {layout.group[first]}, row {layout.row[first]}, col {layout.col[first]}"
    how = "changed with pixels it does not name" if moved[first] else "ignores the pixels it names"
    return f"token {first} ({layout.role[first]}, {place}) {how}; {len(wrong)} tokens are wrong"
