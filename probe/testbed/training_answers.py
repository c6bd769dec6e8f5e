"""Stage 2: the decoder learns to answer, over a frozen vision tower."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probe.testbed.question import TYPES
from probe.testbed.scene import MOTIONS
from probe.testbed.training_clips import Pool
from probe.testbed.training_forward import forward, prefix_embeddings
from probe.testbed.training_state import Checkpoint
from probe.testbed.training_text import Packed, Pair, Prompts, blind_pairs, pack
from probe.testbed.training_vision import IGNORE, pixels, pooled, targets

SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True)
class Phase:
    """A part of stage 2.

    Attributes:
        steps: how many.
        clips, tokens: clips in a batch at 8 frames, and question tokens behind each.
        frames: numbers of frames, drawn evenly.
        dense: weight of the labels on video tokens.
        weights: of the loss, by question type.
        crowd: how often clips with 0 to 4 objects are drawn, against their share in the pool.
    """

    steps: int
    clips: int
    tokens: int
    frames: tuple[int, ...]
    dense: float
    weights: tuple[float, ...] = (1.0,) * len(TYPES)
    crowd: tuple[float, ...] = (1.0,) * 5


def features(model: Any, pool: Pool, seed: int, batch: int = 96) -> Any:
    """Pooled and projected tokens of every frame: float16 [clip, time, 36, width]."""
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
            found[start : start + batch] = pooled(model, images).half().cpu()
    return found.view(count, time, 36, width)


def sample_times(count: int, total: int, rng: np.random.Generator) -> np.ndarray:
    """Which frames to show: evenly spread, sometimes with some dropped and repeated."""
    if rng.random() < 0.12:
        return np.sort(rng.choice(total, count, replace=rng.random() < 0.5))
    even = np.linspace(0, total - 1, count)
    if rng.random() < 0.5:
        even = (np.arange(count) + 0.5) * total / count - 0.5
    if rng.random() < 0.3:
        even = even + rng.uniform(-0.5, 0.5)
    return np.clip(np.rint(even), 0, total - 1).astype(int)


class Trainer:
    """Holds what every step of stage 2 needs."""

    def __init__(
        self, model: Any, prompts: Prompts, pool: Pool, tokens: Any, pairs: Sequence[list[Pair]]
    ) -> None:
        from torch import nn

        self.model, self.prompts, self.pool = model, prompts, pool
        self.tokens, self.pairs = tokens, pairs
        self.device = next(model.parameters()).device
        width = model.config.text_config.hidden_size
        self.heads = nn.ModuleDict(
            {"motion": nn.Linear(width, len(MOTIONS)), "late": nn.Linear(width, 2),
             "count": nn.Linear(width, 5)}
        ).to(self.device)  # fmt: skip
        self.blank = [n for n, scene in enumerate(pool.scenes) if scene.medium != "scene"]

    def batch(
        self, clips: np.ndarray, count: int, tokens: int, rng: np.random.Generator
    ) -> tuple[Any, Packed, np.ndarray]:
        """Features of `count` frames of some clips, packed pairs, and the frames' times."""
        import torch

        total = self.tokens.shape[1]
        times = np.stack([sample_times(count, total, rng) for _ in clips])
        source = np.repeat(clips[:, None], count, 1)
        for row in np.flatnonzero(rng.random(len(clips)) < 0.06):
            lost = rng.choice(count, rng.integers(1, count // 4 + 1), replace=False)
            source[row, lost] = rng.choice(self.blank)
        shown = self.tokens[torch.from_numpy(source), torch.from_numpy(times)]
        packed = pack([self.pairs[clip] for clip in clips], tokens, rng)
        return shown.float().to(self.device), packed, times

    def losses(self, shown: Any, packed: Packed, head: tuple[int, ...]) -> tuple[Any, Any, Any]:
        """Loss of each answer token, where it was right, and the prefix in the middle."""
        import torch
        import torch.nn.functional as F

        count = len(packed.ids)
        prefix = prefix_embeddings(self.model, shown, head, count)
        hidden, middle = forward(self.model, prefix, packed)
        target = torch.from_numpy(packed.target).to(self.device)
        asked = target != -100
        logits = self.model.lm_head(hidden[asked]).float()
        loss = F.cross_entropy(logits, target[asked], reduction="none")
        return loss, logits.argmax(-1) == target[asked], middle[:, len(head) :]

    def dense(self, middle: Any, clips: np.ndarray, times: np.ndarray) -> Any:
        """Loss of labels on the video tokens of all frames but the first."""
        import torch
        import torch.nn.functional as F

        count, frames = times.shape
        flat = targets(self.pool, np.repeat(clips, frames), times.ravel())
        motion = flat[2].reshape(count, frames, 36)
        inside = flat[4].reshape(count, frames, 36)
        first = self.pool.things[clips][:, :, 3].astype(np.int64)
        which = np.maximum(self.pool.cells[np.repeat(clips, frames), times.ravel()], 0)
        begins = np.take_along_axis(first, which.reshape(count, -1).astype(np.int64), 1)
        late = np.where(inside, begins.reshape(count, frames, 36) > 0, IGNORE)
        seen = (first >= 0)[:, None] & (first[:, None] <= times[:, :, None])
        number = np.where(inside, seen.sum(-1)[:, :, None], IGNORE)
        states = middle[:, : frames * 36].float().view(count, frames, 36, -1)[:, 1:]
        total = 0.0
        for name, label in (("motion", motion), ("late", late), ("count", number)):
            goal = torch.from_numpy(label[:, 1:].astype(np.int64)).to(self.device).flatten()
            total = total + F.cross_entropy(self.heads[name](states).flatten(0, 2), goal)
        return total

    def accuracy(self, clips: np.ndarray, count: int, seed: int) -> dict[str, float]:
        """Share of visible answers that are right in every token, by type; teacher-forced."""
        import torch

        rng = np.random.default_rng([seed, 9])
        right: dict[str, list[bool]] = {kind: [] for kind in TYPES}
        for start in range(0, len(clips), 50):
            shown, packed, _ = self.batch(clips[start : start + 50], count, 220, rng)
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
                _, hit, _ = self.losses(shown, packed, self.prompts.head)
            asked = packed.target != -100
            rows = np.nonzero(asked)[0]
            key = rows * 1000 + packed.segment[asked]
            hit = hit.cpu().numpy()
            for one in np.unique(key):
                where = key == one
                if packed.visible[asked][where][0]:
                    kind = TYPES[packed.kind[asked][where][0]]
                    right[kind].append(bool(hit[where].all()))
        return {kind: float(np.mean(found)) for kind, found in right.items() if found}


def train(
    trainer: Trainer,
    phases: Sequence[Phase],
    seed: int,
    report: Callable[..., None],
    path: Path,
    held: int = 400,
    every: int = 400,
    until: int | None = None,
    rate: float = 1e-3,
) -> None:
    """Train the decoder in place.

    Args:
        trainer, phases, seed: what to train, how long, and the seed of every step.
        report: called with numbers every 50 steps.
        path: saved to every `every` steps, and resumed from.
        held: clips at the end of the pool that are kept for the accuracy in the log.
        until: stop after this step.
        rate: the highest learning rate.
    """
    import torch
    from torch import nn

    model = trainer.model
    model.model.vision_tower.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(False)
    learning = [p for p in model.parameters() if p.requires_grad] + [*trainer.heads.parameters()]
    optimizer = torch.optim.AdamW(learning, lr=rate, betas=(0.9, 0.98), weight_decay=0.02)
    steps = sum(phase.steps for phase in phases)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / 150, max(0.02, 1 - s / steps))
    )
    state = Checkpoint(
        path, model=model, heads=trainer.heads, optimizer=optimizer, schedule=schedule
    )
    clips_known = len(trainer.pool) - held
    crowd = [len(scene.things) for scene in trainer.pool.scenes[:clips_known]]
    which = [phase for phase in phases for _ in range(phase.steps)]
    running = np.zeros((2, len(TYPES)))
    for step in range(state.load(), until or steps):
        phase, rng = which[step], np.random.default_rng([seed, 2, step])
        count = int(rng.choice(phase.frames))
        size = max(8, phase.clips * 8 // max(8, count))
        head = trainer.prompts.head_with(SYSTEM) if rng.random() < 0.03 else trainer.prompts.head
        share = np.array(phase.crowd)[crowd]
        clips = rng.choice(clips_known, size=size, p=share / share.sum())
        shown, packed, times = trainer.batch(clips, count, phase.tokens, rng)
        blind_step = step % 25 == 12
        if blind_step:
            packed = pack([blind_pairs(trainer.prompts, rng, 14) for _ in clips], 192, rng)
        with torch.autocast(trainer.device.type, torch.bfloat16):
            each, hit, middle = trainer.losses(None if blind_step else shown, packed, head)
        weight = torch.tensor(phase.weights).to(each)[packed.kind[packed.target != -100]]
        loss = (each * weight).mean()
        total = loss
        if phase.dense and not blind_step:
            total = total + phase.dense * trainer.dense(middle, clips, times)
        optimizer.zero_grad()
        total.backward()
        norm = nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        if not blind_step:
            asked = packed.target != -100
            chosen = packed.visible[asked]
            kinds, hit = packed.kind[asked][chosen], hit.cpu().numpy()[chosen]
            running += [np.bincount(kinds[hit], minlength=7), np.bincount(kinds, minlength=7)]
        if (step + 1) % 50 == 0:
            shares = dict(zip(TYPES, running[0] / running[1].clip(1), strict=True))
            report(stage=2, step=step + 1, loss=loss.item(), total=total.item(), norm=float(norm),
                   **shares)  # fmt: skip
            running[:] = 0
        if (step + 1) % every == 0 or step + 1 == steps:
            state.save(step + 1)
            unseen = np.arange(clips_known, len(trainer.pool))
            for frames in (4, 8, 16)[: 3 if held >= 100 else 0]:
                report(stage=2, step=step + 1, frames=frames,
                       **trainer.accuracy(unseen, frames, seed))  # fmt: skip
