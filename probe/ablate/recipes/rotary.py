"""Rotary positions: EDVT, dual temporal positions, NTK scaling for more frames than trained."""

from __future__ import annotations

from probe.ablate.base import Ablation
from probe.ablate.mask import Mask
from probe.ablate.norope import NoRope
from probe.ablate.recipe import recipe
from probe.ablate.rope import Rope
from probe.errors import ProbeError


@recipe(
    paper="Vista-LLaMA (Ma et al. 2023, arXiv 2312.08870)",
    note="Trained with it in the paper; on another checkpoint it is an ablation. Text before the "
    "video is read by video tokens with rotation.",
)
def edvt(blend: float = 0.0, video_video: str = "rope") -> NoRope:
    """EDVT, equal distance to every visual token: text reads the video without rotation.

    Args:
        blend: part of the positions that stays, 0 for EDVT and 1 for the model itself.
        video_video: "rope" where the video reads itself as before, "none" without rotation too.

    Raises:
        ProbeError: another word for `video_video`.
    """
    if video_video not in ("rope", "none"):
        raise ProbeError(f'edvt: video_video="{video_video}"; it is "rope" or "none"')
    edges = ["video -> text", "video -> video"] if video_video == "none" else "video -> text"
    return NoRope(edges, blend=blend)


@recipe(
    paper="TC-LLaVA (Gao et al. 2024, arXiv 2409.03206)",
    note="Trained with both in the paper. With three axes the time index is added on all of them. "
    "Text counts on in both indexes, so it advances by 1 + gamma.",
)
def tc_llava(gamma: float = 1.0, mask: bool = True) -> list[Ablation]:
    """Temporal-aware dual rotary positions, and a mask that is causal from frame to frame.

    Args:
        gamma: weight of the time index.
        mask: a visual token sees its whole frame.
    """
    return [Rope(time=gamma), *([Mask("frame_causal")] if mask else [])]


@recipe(
    paper="INTP (Shang et al. 2024, arXiv 2409.12963)",
    stages="NTK scaling of the rotary base; interleaved encoding of the frames is Interleave, the "
    "2-bit cache is not here",
)
def intp_rope(scale: float) -> Rope:
    """Rotary base for `scale` times as many frames as trained for.

    Args:
        scale: given frames over trained ones.
    """
    return Rope(ntk=scale)
