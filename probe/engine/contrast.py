"""A second stream beside a run: the same text under other frames or ablations, its own cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LogitsProcessor

from probe.ablate.compose import prepared
from probe.engine.session import Session
from probe.engine.steps import Stream

if TYPE_CHECKING:
    from probe.models.encode import Example


def of(session: Session) -> tuple[Any, dict] | None:
    """The session's contrast and its state, if it has one."""
    for ablation, state in session.ablations:
        if ablation.acts == "logits":
            return ablation, state
    return None


def about(session: Session) -> dict[str, Any]:
    """What a result says of the second stream: its lengths per layer; nothing without one."""
    found = of(session)
    return {"second_stream": found[1]["second"]} if found else {}


def forced(
    session: Session, x: Example, logits: Float[Tensor, "readout vocab"]
) -> Float[Tensor, "readout vocab"]:
    """The logits of a run against those of its second stream; as they are without a contrast."""
    found = of(session)
    if found is None:
        return logits
    from probe.engine.forward import run

    contrast, state = found
    other, ablations = contrast.stream(session.model, x)
    with session.paused():
        beside = run(session.model, other, ablations=ablations)
    lengths = {"length": beside.cost.length, "kv_length": beside.cost.kv_length}
    state["second"] = {name: list(value) for name, value in lengths.items()}
    second = torch.from_numpy(beside.logits)
    return torch.stack([contrast.mix(state, *rows) for rows in zip(logits, second, strict=True)])


class Beside(LogitsProcessor):
    """Feeds a generation's tokens to its second stream, and mixes the logits of both.

    Attributes:
        rows: mixed logits [vocab] of each step, in float32 on the CPU.
    """

    def __init__(self, session: Session, x: Example, more: int) -> None:
        found = of(session)
        assert found is not None
        self.first, (self.contrast, self.state) = session, found
        other, ablations = self.contrast.stream(session.model, x)
        other = prepared(session.model, other, ablations)
        self.second = Session(session.model, other, (), ablations, layout=other.layout.extend(more))
        self.stream = Stream(session.model, other)
        self.rows: list[Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Logits [1, vocab] of the next token."""
        with self.first.paused(), self.second:
            begun = self.stream.cache is not None
            row = self.stream.feed(int(input_ids[0, -1])) if begun else self.stream.prompt()
        mixed: Any = self.contrast.mix(self.state, scores[0], row.to(scores))[None]
        self.rows.append(mixed[0].float().cpu())
        return mixed

    def finish(self) -> Float[Tensor, "step vocab"]:
        """Let the second stream prove that it is another one; the mixed logits."""
        self.second.finish()
        count, present = len(self.second.prompt), self.second.present
        self.state["second"] = {
            "length": [int((keys < count).sum()) for keys in present],
            "kv_length": [len(keys) for keys in present],
        }
        return torch.stack(self.rows)
