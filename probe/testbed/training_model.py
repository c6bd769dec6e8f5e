"""What training must know about a model: how it sees frames, and where its tokens stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

FPS = 8


@dataclass(frozen=True)
class Places:
    """Rotary positions as the decoder's `rotary_emb` takes them.

    Attributes:
        prefix: [clip, token], or [axis, clip, token] where positions have three axes.
        after: the position of the first token behind the prefix, for each clip.
    """

    prefix: Any
    after: Any


@runtime_checkable
class Recipe(Protocol):
    """One of the testbed's models, as training sees it.

    Attributes:
        name: of the checkpoint.
        span: frames that share a token.
        video: the clip's placeholder in the chat template.
        weights: of the losses of stage 1 by name, 1 where not named.
    """

    name: str
    span: int
    video: str
    weights: Mapping[str, float]

    def build(self, seed: int) -> tuple[Any, Any]:
        """The model before training and its processor."""
        ...

    def vision(self, model: Any) -> Sequence[Any]:
        """The modules that stage 1 trains and stage 2 leaves alone."""
        ...

    def tokens(self, model: Any, images: Any) -> Any:
        """Tokens [group, 36, width] of groups of frames [group, span, 3, height, width]."""
        ...

    def after(self, model: Any) -> Any:
        """Embeddings [token, width] that follow the frames."""
        ...

    def places(self, model: Any, head: int, times: np.ndarray | None, count: int) -> Places:
        """Positions of `head` tokens, then of the clip whose frames [clip, frame] are given."""
        ...


def recipe_of(name: str) -> Recipe:
    """The recipe of a checkpoint.

    Raises:
        KeyError: there is none of that name.
    """
    from probe.testbed.training_onevision import OneVision
    from probe.testbed.training_qwen import Qwen

    known: dict[str, Recipe] = {recipe.name: recipe for recipe in (OneVision(), Qwen())}
    if name not in known:
        raise KeyError(f"no recipe {name}; there is {', '.join(known)}")
    return known[name]


def grouped(times: np.ndarray, span: int) -> np.ndarray:
    """Frames [clip, frame] in groups [clip, group, span]; the last is repeated where one lacks."""
    lacking = -times.shape[1] % span
    full = np.concatenate([times, np.repeat(times[:, -1:], lacking, 1)], 1)
    return full.reshape(len(times), -1, span)
