"""The batches of stage 2, each made while the one before it is learned from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.testbed.training_plan import Phase
from probe.testbed.training_text import Packed, blind_pairs, pack

if TYPE_CHECKING:
    from probe.testbed.training_answers import Trainer

SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Attributes:
        phase: where in training it is.
        clips: which clips.
        times: their frames [clip, frame], or None in a step without clips.
        shown: their tokens [clip, group, 36, width], or None.
        packed: the questions.
        head: tokens before the clip, or before the question.
    """

    phase: Phase
    clips: np.ndarray
    times: np.ndarray | None
    shown: Any
    packed: Packed
    head: tuple[int, ...]


class Batches:
    """Makes the batch of any step; it follows the step's number alone.

    Args:
        trainer: has the clips, their questions and what sees.
        phases: of training.
        seed: of every step.
        known: clips from the beginning of the pool to learn from.
    """

    def __init__(self, trainer: Trainer, phases: Sequence[Phase], seed: int, known: int) -> None:
        self.trainer, self.seed, self.known = trainer, seed, known
        self.which = [phase for phase in phases for _ in range(phase.steps)]
        self.crowd = [len(scene.things) for scene in trainer.pool.scenes[:known]]

    def __call__(self, step: int) -> Batch:
        """The batch of a step; one in 25 has no clip."""
        trainer, phase = self.trainer, self.which[step]
        rng = np.random.default_rng([self.seed, 2, step])
        count = int(rng.choice(phase.frames))
        size = max(8, phase.clips * 8 // max(8, count))
        head = trainer.prompts.head_with(SYSTEM) if rng.random() < 0.03 else trainer.prompts.head
        share = np.array(phase.crowd)[self.crowd]
        clips = rng.choice(self.known, size=size, p=share / share.sum())
        shown, packed, times = trainer.batch(clips, count, phase.tokens, rng)
        if step % 25 == 12:
            packed = pack([blind_pairs(trainer.prompts, rng, 14) for _ in clips], 192, rng)
            return Batch(phase, clips, None, None, packed, trainer.prompts.blind_head)
        return Batch(phase, clips, times, shown, packed, head)

    def ahead(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps `start` to `stop`, each begun before it is asked for."""
        with ThreadPoolExecutor(1) as worker:
            waiting = [worker.submit(self, step) for step in range(start, min(start + 1, stop))]
            for step in range(start, stop):
                batch = waiting.pop().result()
                if step + 1 < stop:
                    waiting.append(worker.submit(self, step + 1))
                yield batch
