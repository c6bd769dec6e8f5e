"""Stage 1: the vision tower and projector learn what each cell of a frame shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from probe.testbed.scene import COLORS, SHAPES
from probe.testbed.training_clips import MIXED, Pool
from probe.testbed.training_state import Checkpoint

IGNORE = -100


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


def pooled(model: Any, images: Any) -> Any:
    """The model's own pooled and projected tokens: [frames, 36, width]."""
    found = model.model.get_video_features(
        images[None], vision_feature_layer=-1, vision_feature_select_strategy="full"
    ).pooler_output
    return found[0, :-1].reshape(len(images), -1, found.shape[-1])


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


def train(
    model: Any,
    pool: Pool,
    steps: int,
    seed: int,
    report: Callable[..., None],
    path: Path,
    batch: int = 64,
) -> None:
    """Train tower and projector in place; the heads are thrown away. Resumes from `path`."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.manual_seed(seed)
    device = next(model.parameters()).device
    width = model.config.text_config.hidden_size
    heads = nn.ModuleDict(
        {
            "shape": nn.Linear(width, len(SHAPES) + 1),
            "color": nn.Linear(width, len(COLORS) + 2),
            "way": nn.Linear(width, 2),
        }
    ).to(device)
    inner = model.model
    vision = [*inner.vision_tower.parameters(), *inner.multi_modal_projector.parameters()]
    optimizer = torch.optim.AdamW([*vision, *heads.parameters()], lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / 100, max(0.02, 1 - s / steps))
    )
    state = Checkpoint(path, model=model, heads=heads, optimizer=optimizer, schedule=schedule)
    for step in range(state.load(), steps):
        rng = np.random.default_rng([seed, 1, step])
        noise = torch.Generator().manual_seed(seed * 1_000_003 + step)
        clips = rng.integers(len(pool), size=batch)
        times = rng.integers(pool.frames.shape[1], size=batch)
        images = pixels(pool.frames[clips, times], noise).to(device)
        shape, color, _, way, inside = (
            torch.from_numpy(part).to(device) for part in targets(pool, clips, times)
        )
        with torch.autocast(device.type, torch.bfloat16):
            tokens = pooled(model, images)
        tokens = tokens.float()
        says = {name: head(tokens) for name, head in heads.items()}
        loss_shape = F.cross_entropy(says["shape"].flatten(0, 1), shape.flatten())
        loss_color = F.cross_entropy(says["color"].flatten(0, 1), color.flatten())
        miss = F.smooth_l1_loss(says["way"], way, reduction="none").mean(-1)
        loss_way = (miss * inside).sum() / inside.sum().clamp(min=1)
        loss = loss_shape + loss_color + 0.5 * loss_way
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*vision, *heads.parameters()], 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            report(
                stage=1,
                step=step,
                loss=loss.item(),
                shape=_right(says["shape"], shape, inside),
                color=_right(says["color"], color, inside),
                way=loss_way.item(),
            )
        if (step + 1) % 250 == 0 or step == steps - 1:
            state.save(step + 1)


def _right(logits: Any, label: Any, inside: Any) -> float:
    return (logits.argmax(-1) == label)[inside].float().mean().item()


def restore(model: Any, path: Path) -> None:
    """Load what stage 1 learned into the model."""
    Checkpoint(path, model=model).load()
