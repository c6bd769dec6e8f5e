"""Stage 2: the decoder learns to answer, over a frozen vision tower."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probe.testbed.question import TYPES
from probe.testbed.scene import MOTIONS
from probe.testbed.training_batches import Batches
from probe.testbed.training_clips import Pool
from probe.testbed.training_forward import forward, prefix_embeddings
from probe.testbed.training_labels import video_labels
from probe.testbed.training_model import Recipe, grouped
from probe.testbed.training_plan import Phase, sample_times
from probe.testbed.training_state import Checkpoint
from probe.testbed.training_text import Packed, Pair, Prompts, pack


class Trainer:
    """Holds what every step of stage 2 needs."""

    def __init__(
        self,
        recipe: Recipe,
        model: Any,
        prompts: Prompts,
        pool: Pool,
        see: Callable[[np.ndarray, np.ndarray, np.random.Generator], Any],
        pairs: Sequence[list[Pair]],
    ) -> None:
        from torch import nn

        self.recipe, self.model, self.prompts, self.pool = recipe, model, prompts, pool
        self.see, self.pairs = see, pairs
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
        """Tokens of `count` frames of some clips, packed pairs, and the frames' times."""
        total = self.pool.cells.shape[1]
        times = np.stack([sample_times(count, total, rng) for _ in clips])
        source = np.repeat(clips[:, None], count, 1)
        for row in np.flatnonzero(rng.random(len(clips)) < 0.06):
            lost = rng.choice(count, rng.integers(1, count // 4 + 1), replace=False)
            source[row, lost] = rng.choice(self.blank)
        packed = pack([self.pairs[clip] for clip in clips], tokens, rng)
        return self.see(source, times, rng), packed, times

    def losses(
        self, shown: Any, packed: Packed, head: tuple[int, ...], times: np.ndarray | None
    ) -> tuple[Any, Any, Any]:
        """Loss of each answer token, where it was right, and the clip in the middle."""
        import torch
        import torch.nn.functional as F

        count = len(packed.ids)
        prefix = prefix_embeddings(self.recipe, self.model, shown, head, count)
        places = self.recipe.places(self.model, len(head), times, count)
        hidden, middle = forward(self.model, prefix, places, packed)
        target = torch.from_numpy(packed.target).to(self.device)
        asked = target != -100
        logits = self.model.lm_head(hidden[asked]).float()
        loss = F.cross_entropy(logits, target[asked], reduction="none")
        return loss, logits.argmax(-1) == target[asked], middle[:, len(head) :]

    def dense(self, middle: Any, clips: np.ndarray, times: np.ndarray) -> Any:
        """Loss of labels on the video tokens; of all but the first frame where they see one."""
        import torch
        import torch.nn.functional as F

        skip = 1 if self.recipe.span == 1 else 0
        groups = grouped(times, self.recipe.span)
        labels = video_labels(self.pool, clips, groups)
        states = middle[:, : groups.shape[1] * 36].float()
        states = states.unflatten(1, (groups.shape[1], 36))[:, skip:]
        total = 0.0
        for name, label in labels.items():
            goal = torch.from_numpy(label[:, skip:].astype(np.int64)).to(self.device).flatten()
            total = total + F.cross_entropy(self.heads[name](states).flatten(0, 2), goal)
        return total

    def accuracy(self, clips: np.ndarray, count: int, seed: int) -> dict[str, float]:
        """Share of visible answers that are right in every token, by type; teacher-forced."""
        import torch

        rng = np.random.default_rng([seed, 9])
        right: dict[str, list[bool]] = {kind: [] for kind in TYPES}
        for start in range(0, len(clips), 50):
            shown, packed, times = self.batch(clips[start : start + 50], count, 220, rng)
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
                _, hit, _ = self.losses(shown, packed, self.prompts.head, times)
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
    for module in trainer.recipe.vision(model):
        module.requires_grad_(False)
    learning = [p for p in model.parameters() if p.requires_grad] + [*trainer.heads.parameters()]
    optimizer = torch.optim.AdamW(learning, lr=rate, betas=(0.9, 0.98), weight_decay=0.02)
    steps = sum(phase.steps for phase in phases)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / 150, max(0.02, 1 - s / steps))
    )
    state = Checkpoint(
        path, model=model, heads=trainer.heads, optimizer=optimizer, schedule=schedule
    )
    known = len(trainer.pool) - held
    batches = Batches(trainer, phases, seed, known)
    start = state.load()
    running = np.zeros((2, len(TYPES)))
    for step, batch in enumerate(batches.ahead(start, until or steps), start):
        phase, packed, times = batch.phase, batch.packed, batch.times
        with torch.autocast(trainer.device.type, torch.bfloat16):
            each, hit, middle = trainer.losses(batch.shown, packed, batch.head, times)
        weight = torch.tensor(phase.weights).to(each)[packed.kind[packed.target != -100]]
        loss = (each * weight).mean()
        total = loss
        if phase.dense and times is not None:
            total = total + phase.dense * trainer.dense(middle, batch.clips, times)
        optimizer.zero_grad()
        total.backward()
        norm = nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        if times is not None:
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
            unseen = np.arange(known, len(trainer.pool))
            for frames in (4, 8, 16)[: 3 if held >= 100 else 0]:
                report(stage=2, step=step + 1, frames=frames,
                       **trainer.accuracy(unseen, frames, seed))  # fmt: skip
