"""The tokens of clips for stage 2, kept from one pass over all frames or made at every step."""

from __future__ import annotations

from typing import Any

import numpy as np

from probe.testbed.training_clips import Pool
from probe.testbed.training_model import Recipe, grouped
from probe.testbed.training_vision import pixels


class Kept:
    """Tokens of single frames, looked up: float16 [clip, time, 36, width]."""

    def __init__(self, tokens: Any, device: Any = "cpu") -> None:
        self.tokens, self.device = tokens, device

    def __call__(self, source: np.ndarray, times: np.ndarray, rng: np.random.Generator) -> Any:
        """Tokens [clip, frame, 36, width] of frames `times` of the clips `source`."""
        import torch

        found = self.tokens[torch.from_numpy(source), torch.from_numpy(times)]
        return found.float().to(self.device)


class Live:
    """Tokens of groups of frames, made anew with new noise; the tower does not learn."""

    def __init__(self, recipe: Recipe, model: Any, pool: Pool) -> None:
        self.recipe, self.model, self.pool = recipe, model, pool

    def __call__(self, source: np.ndarray, times: np.ndarray, rng: np.random.Generator) -> Any:
        """Tokens [clip, group, 36, width] of frames `times` of the clips `source`."""
        import torch

        noise = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        span, device = self.recipe.span, self.model.device
        frames = self.pool.frames[grouped(source, span), grouped(times, span)]
        clips, groups = frames.shape[:2]
        images = pixels(frames.reshape(-1, *frames.shape[3:]), noise).to(device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            found = self.recipe.tokens(self.model, images.unflatten(0, (clips * groups, span)))
        return found.float().unflatten(0, (clips, groups))


def keep(recipe: Recipe, model: Any, pool: Pool, seed: int, batch: int = 96) -> Any:
    """Tokens of every frame of the pool: float16 [clip, time, 36, width]."""
    import torch

    device = next(model.parameters()).device
    noise = torch.Generator().manual_seed(seed)
    count, time = pool.frames.shape[:2]
    flat = pool.frames.reshape(count * time, *pool.frames.shape[2:])
    width = model.config.text_config.hidden_size
    found = torch.empty(count * time, 36, width, dtype=torch.float16)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        for start in range(0, len(flat), batch):
            images = pixels(flat[start : start + batch], noise).to(device)
            found[start : start + batch] = recipe.tokens(model, images[:, None]).half().cpu()
    return found.view(count, time, 36, width)
