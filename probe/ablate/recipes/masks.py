"""Masks: neighbour attention among visual tokens, and layers in which text sees none."""

from __future__ import annotations

from probe.ablate.mask import Mask
from probe.ablate.recipe import recipe
from probe.errors import ProbeError
from probe.spec import Layers


@recipe(
    paper="YOPO (Zhang et al. 2024, arXiv 2410.06169)",
    stages="neighbour attention; head pruning, FFN slicing and layer drop are recipes of their own",
    note="The paper has images; `frames` on both sides is for video. As coded the mask takes the "
    "place of the causal one, so that later neighbours are seen too.",
)
def yopo_neighbour(radius: int = 1, frames: int = 0, variant: str = "code") -> Mask:
    """Visual tokens see visual tokens in a window of (2 radius + 1)^2 of their frame.

    Args:
        radius: 1 for 3 x 3, 3 for 7 x 7.
        frames: frames before and after that count as near.
        variant: "code" shows later neighbours, "paper" keeps the order.

    Raises:
        ProbeError: another variant.
    """
    if variant not in ("code", "paper"):
        raise ProbeError(f'yopo_neighbour: variant="{variant}"; it is "paper" or "code"')
    causal = "replace" if variant == "code" else "keep"
    return Mask("neighbour", radius=radius, frames=frames, causal=causal)


@recipe(
    paper="LLaVA-Mini (Zhang et al. 2025, arXiv 2501.03895), section 3",
    note="The paper's blocks have 4 of 32 layers; `windows(visual_blackout(), 4, model.n_layers, "
    '"blocks")` is its figure.',
)
def visual_blackout(layers: Layers = "all", frozen: bool = False) -> Mask:
    """Text sees nothing visual in some layers.

    Args:
        layers: which.
        frozen: the visual tokens pass these layers by, rather than go on among themselves.
    """
    return Mask("blackout", layers=layers, frozen=frozen)
