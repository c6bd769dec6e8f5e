"""Stage 1: what sees learns what each cell of a frame, or of a group of frames, shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from probe.testbed.scene import COLORS, SHAPES
from probe.testbed.training_clips import MIXED, Pool
from probe.testbed.training_heads import Heads
from probe.testbed.training_model import Recipe
from probe.testbed.training_state import Checkpoint

IGNORE = -100
GAPS = (0.1, 0.35, 0.25, 0.1, 0.1, 0.1)
LIKE = 4


def pixels(frames: np.ndarray, generator: Any = None) -> Any:
    """uint8 frames [n, height, width, 3] as the model's input [n, 3, height, width].

    With a generator they are degraded a little, as video coding does: colour at half the
    resolution, some noise, sometimes a slight blur.
    """
    import torch
    import torch.nn.functional as F

    rgb = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
    if generator is not None:
        light = (0.299 * rgb[:, 0] + 0.587 * rgb[:, 1] + 0.114 * rgb[:, 2])[:, None]
        color = F.avg_pool2d(rgb - light, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        count = len(rgb)
        blur = (torch.rand(count, 1, 1, 1, generator=generator) < 0.3).float()
        light = torch.lerp(light, F.avg_pool2d(light, 3, 1, 1, count_include_pad=False), blur * 0.6)
        spread = 0.012 * torch.rand(count, 1, 1, 1, generator=generator)
        rgb = light + color + spread * torch.randn(rgb.shape, generator=generator)
        rgb = rgb.clamp(0, 1)
    return (rgb - 0.5) / 0.5


def targets(pool: Pool, clips: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, ...]:
    """Shape, colour, motion and the way to the object's centre for cells [n, 36] of frames."""
    cells = pool.cells[clips, times].astype(np.int64)
    inside = cells >= 0
    which = np.where(inside, cells, 0)
    things = pool.things[clips].astype(np.int64)[np.arange(len(clips))[:, None], which]
    centres = pool.centres[clips, times][np.arange(len(clips))[:, None], which]
    columns = np.arange(cells.shape[1])
    middle = np.stack([columns % 6 * 16 + 8, columns // 6 * 16 + 8], -1)
    shape = np.where(inside, things[..., 0], len(SHAPES))
    color = np.where(inside, things[..., 1], len(COLORS) + 1)
    motion = np.where(inside, things[..., 2], IGNORE)
    unclear = cells == MIXED
    shape[unclear] = color[unclear] = IGNORE
    way = (centres - middle).astype(np.float32) / 16
    return shape, color, motion, way, inside


def draw_times(span: int, count: int, total: int, rng: np.random.Generator) -> np.ndarray:
    """Frames [group, span] to learn from: two of a group are 0 to 5 apart, mostly few."""
    first = rng.integers(total, size=count)
    if span == 1:
        return first[:, None]
    gap = rng.choice(len(GAPS), size=count, p=GAPS)
    return np.stack([first, np.minimum(first + gap, total - 1)], 1)


def group_targets(pool: Pool, clips: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    """Labels of cells [group, 36, span]: those of each frame, and how the object moved between.

    The motion is known where the object is there in the first frame and in the last; `move` is
    its way between them in cells.
    """
    names = ("shape", "color", "motion", "way", "inside")
    frames = [targets(pool, clips, column) for column in times.T]
    found = {
        name: np.stack(part, 2) for name, part in zip(names, zip(*frames, strict=True), strict=True)
    }
    cells = pool.cells[clips[:, None], times].astype(np.int64)
    which = np.where(cells[:, -1] >= 0, cells[:, -1], cells[:, 0])
    row, thing = np.arange(len(clips))[:, None], np.maximum(which, 0)
    centres = pool.centres[clips[:, None], times]
    there = (centres != 0).any(-1).all(1)
    known = (which >= 0) & there[row, thing]
    moved = (centres[:, -1] - centres[:, 0])[row, thing] / 16
    apart = (times[:, -1] > times[:, 0])[:, None]
    motion = pool.things[clips, :, 2].astype(np.int64)[row, thing]
    found["move"] = np.where(known[..., None], moved, 0).astype(np.float32)
    found["moves"] = known
    found["motion"] = np.where(known & apart, motion, IGNORE)
    return found


def train(
    recipe: Recipe,
    model: Any,
    pool: Pool,
    steps: int,
    seed: int,
    report: Callable[..., None],
    path: Path,
    batch: int = 64,
    like: Callable[[Any], Any] | None = None,
) -> None:
    """Train what sees in place; the heads are thrown away. Resumes from `path`.

    Args:
        recipe, model, pool, steps, seed: what to train, on what, how long.
        report: called with numbers every 50 steps.
        path: saved to every 250 steps, and resumed from.
        batch: groups of frames in a step.
        like: another model's tokens of groups [group, span, 3, height, width], that ours are
            drawn towards; asked for a quarter of the groups.
    """
    import torch
    from torch import nn

    torch.manual_seed(seed)
    device = next(model.parameters()).device
    heads = Heads(model.config.text_config.hidden_size, recipe.span).to(device)
    vision = [p for module in recipe.vision(model) for p in module.parameters()]
    optimizer = torch.optim.AdamW([*vision, *heads.parameters()], lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / 100, max(0.02, 1 - s / steps))
    )
    state = Checkpoint(path, model=model, heads=heads, optimizer=optimizer, schedule=schedule)
    for step in range(state.load(), steps):
        rng = np.random.default_rng([seed, 1, step])
        noise = torch.Generator().manual_seed(seed * 1_000_003 + step)
        clips = rng.integers(len(pool), size=batch)
        times = draw_times(recipe.span, batch, pool.frames.shape[1], rng)
        shown = pool.frames[clips[:, None], times]
        images = pixels(shown.reshape(-1, *shown.shape[2:]), noise).to(device)
        images = images.unflatten(0, times.shape)
        labels = {
            name: torch.from_numpy(part).to(device)
            for name, part in group_targets(pool, clips, times).items()
        }
        with torch.autocast(device.type, torch.bfloat16):
            tokens = recipe.tokens(model, images)
        losses, right = heads(tokens.float(), labels)
        if like is not None:
            some = images[: batch // LIKE]
            losses["like"] = (tokens[: len(some)].float() - like(some)).square().mean()
        loss = torch.stack([recipe.weights.get(name, 1.0) * losses[name] for name in losses]).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*vision, *heads.parameters()], 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            rest = {name: part.item() for name, part in losses.items() if name not in right}
            report(stage=1, step=step, loss=loss.item(), **right, **rest)
        if (step + 1) % 250 == 0 or step == steps - 1:
            state.save(step + 1)


def restore(model: Any, path: Path) -> None:
    """Load what stage 1 learned into the model."""
    Checkpoint(path, model=model).load()
