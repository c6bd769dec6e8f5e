"""Forward by forward through a cache: a prompt, then token after token, as generation does it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from probe.engine.session import Session
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


def decodes(session: Session) -> bool:
    """Whether the answer of a run has to be fed token by token: something acts at decode time."""
    answered = len(session.layout) > session.layout.last + 1
    return answered and any(ablation.at_decode for ablation, _ in session.ablations)


def prompt_of(x: Example) -> Example:
    """The example without its answer: what the first forward of a generation gets."""
    count, whole = x.layout.last + 1, len(x.layout)
    inputs = {
        name: value[..., :count] if _along_tokens(value, whole) else value
        for name, value in x.inputs.items()
    }
    old = x.layout
    layout = replace(
        old,
        tokens=old.tokens[:count],
        role=old.role[:count],
        group=old.group[:count],
        row=old.row[:count],
        col=old.col[:count],
        visual=old.visual[:count],
        readout=np.array([old.last]),
    )
    return replace(x, inputs=inputs, layout=layout, answer=None)


def answer_ids(x: Example) -> list[int]:
    """Ids of the answer's tokens."""
    return x.inputs["input_ids"][0, x.layout.last + 1 :].tolist()


def _along_tokens(value: Any, length: int) -> bool:
    return value.shape[-1] == length and value.shape[-2:-1] == (1,)


class Stream:
    """One sequence through a model and a cache of its own.

    Attributes:
        model: what runs.
        x: the prompt.
        cache: keys and values so far; None before the prompt.
        count: tokens so far.
    """

    def __init__(self, model: VideoModel, x: Example) -> None:
        self.model, self.x = model, x
        self.cache: Any = None
        self._hf: Any = model.hf
        self.count = len(x.layout)

    def prompt(self) -> Float[Tensor, " vocab"]:
        """The prompt in one forward; logits of the token after it."""
        out = self.model.hf(**self.x.inputs, use_cache=True, logits_to_keep=1)
        inner = getattr(out, "language_model_outputs", None)
        if inner is not None:  # families that wrap a whole language model around the tower
            self._hf = self.model.hf.language_model
        self.cache = (out if inner is None else inner).past_key_values
        return out.logits[0, -1]

    def feed(self, token: int) -> Float[Tensor, " vocab"]:
        """One more token through the cache; logits of the one after it."""
        ids = torch.full((1, 1), token, device=self.model.hf.device)
        more: dict[str, Tensor] = {}
        if "position_ids" in self.x.inputs:
            more["position_ids"] = self.model.position_ids(self.x, np.array([self.count]))
        out = self._hf(
            input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1, **more
        )
        self.count += 1
        return out.logits[0, -1]

    def forced(self, ids: list[int]) -> Float[Tensor, "readout vocab"]:
        """Logits that predict each of these tokens, which follow the prompt one by one."""
        rows = [self.prompt(), *(self.feed(token) for token in ids[:-1])]
        return torch.stack(rows)
