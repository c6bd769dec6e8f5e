"""The margin: how far the answer is ahead of its best rival, in logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probe.engine.result import Run
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


@dataclass(frozen=True)
class Margin:
    """logit(target) - logit(versus) of the first token after the prompt.

    Attributes:
        target, versus: texts of the two tokens.
        target_id, versus_id: their ids.
    """

    target: str
    versus: str
    target_id: int
    versus_id: int

    def of(self, run: Run) -> float:
        """The margin in a run, read at the end of the prompt."""
        return float(run.logits[0, self.target_id] - run.logits[0, self.versus_id])

    def probability(self, run: Run) -> float:
        """Probability of the target at the end of the prompt."""
        row = run.logits[0].astype(np.float64)
        return float(np.exp(row[self.target_id] - row.max()) / np.exp(row - row.max()).sum())


def log_softmax(logits: Float[np.ndarray, "*row vocab"]) -> Float[np.ndarray, "*row vocab"]:
    """Log-probabilities in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def margin(
    model: VideoModel,
    x: Example,
    run: Run,
    target: str | None = None,
    options: Sequence[str] = (),
) -> Margin:
    """The margin that fits an example: the target against its best rival.

    Args:
        model, x: what ran on what.
        run: the run with everything; names the rival, and the target where none is given.
        target: the answer in question; the model's own first token by default.
        options: where given, the rival is the best first token among the other options.

    A text of several tokens is represented by its first.
    """
    from probe.models.encode import continuation

    def first(text: str) -> int:
        return continuation(model.tokenizer, x.prompt, text)[0]

    row = run.logits[0]
    own = first(target) if target else int(row.argmax())
    rivals = {first(option) for option in options} - {own}
    order = np.argsort(-row, kind="stable").tolist()
    rival = max(rivals, key=lambda i: row[i]) if rivals else next(i for i in order if i != own)
    names = model.decode_each([own, rival])
    return Margin(names[0], names[1], own, int(rival))
