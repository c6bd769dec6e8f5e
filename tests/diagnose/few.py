"""A model whose answer is known to hang on a few visual tokens and on nothing else."""

from __future__ import annotations

import numpy as np
import torch

from probe.diagnose import Case
from tests import tiny

FRAMES = 6
CELLS = 4  # 2 x 2 tokens a frame, each the mean of 2 x 2 patches


def planted(places: list[tuple[int, int]], needed: int) -> Case:
    """A case answered "red" exactly while at least `needed` of some visual tokens are left.

    Channel 0 of the last position is the mean over all rows of what the planted tokens hold, since
    its attention is uniform; channel 1 is 1 for text. "red" is channel 0, "blue" is channel 1.

    Args:
        places: (frame, cell in raster order) of each planted token.
        needed: 1 or more; all of them together must be enough beside every other token.
    """
    model = tiny.build(tiny.EVEN, seed=5)
    for part in model.hf.parameters():
        torch.nn.init.zeros_(part)
    for layer in model.layers:
        torch.nn.init.ones_(layer.input_layernorm.weight)
        torch.nn.init.ones_(layer.post_attention_layernorm.weight)
    torch.nn.init.ones_(model.decoder.norm.weight)
    case = Case(
        model, tiny.example(model, tiny.clip(FRAMES), "Which?"), "red", ("red", "blue", "green")
    )
    text = len(case.x.layout) - FRAMES * CELLS
    reach = (1 - 0.2 / needed) * (text + needed) / needed  # enough for `needed`, not for one less
    if needed == 1:
        reach = 1.2 * (text + FRAMES * CELLS)
    last = model.layers[-1].self_attn
    with torch.no_grad():
        model.hf.get_input_embeddings().weight[:, 1] = 1
        last.v_proj.weight[0, 0] = 1
        last.o_proj.weight[0, 0] = reach * (1 + 0.4 / needed) / np.sqrt(model.width)
        model.head.weight[case.first("red"), 0] = 1
        model.head.weight[case.first("blue"), 1] = 1

    def plant(_module: object, _args: object, out: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(out)
        blocks = out.view(FRAMES, 2, 2, 2, 2, -1)  # frame, row, its half, column, its half
        for frame, cell in places:
            blocks[frame, cell // 2, :, cell % 2, :, 0] = 1
        return out

    model.hf.model.multi_modal_projector.register_forward_hook(plant)
    return case


def numbers(case: Case, places: list[tuple[int, int]]) -> np.ndarray:
    """The planted tokens, by their numbers among the clip's."""
    return np.sort([frame * CELLS + cell for frame, cell in places])
