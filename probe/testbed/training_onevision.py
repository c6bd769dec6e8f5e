"""The recipe of testbed/onevision: every frame by itself, positions in one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from probe.testbed.training_model import Places


class OneVision:
    """LLaVA-OneVision: 36 tokens a frame, a newline behind the last."""

    name = "onevision"
    span = 1
    video = "<video>"
    weights: Mapping[str, float] = MappingProxyType({"way": 0.5})

    def build(self, seed: int) -> tuple[Any, Any]:
        """The untrained model and its processor."""
        from probe.testbed.architecture import build_model, build_processor
        from probe.testbed.tokenizer import build_tokenizer

        tokenizer = build_tokenizer()
        return build_model(tokenizer, seed), build_processor(tokenizer)

    def vision(self, model: Any) -> Sequence[Any]:
        """Tower and projector."""
        return model.model.vision_tower, model.model.multi_modal_projector

    def tokens(self, model: Any, images: Any) -> Any:
        """The model's own pooled and projected tokens: [frame, 36, width]."""
        found = model.model.get_video_features(
            images.flatten(0, 1)[None],
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
        ).pooler_output
        return found[0, :-1].reshape(len(images), -1, found.shape[-1])

    def after(self, model: Any) -> Any:
        """The newline."""
        return model.model.image_newline[None]

    def places(self, model: Any, head: int, times: np.ndarray | None, count: int) -> Places:
        """One after the other."""
        import torch

        device = model.device
        length = head + (0 if times is None else times.shape[1] * 36 + 1)
        prefix = torch.arange(length, device=device).expand(count, -1)
        return Places(prefix, torch.full((count,), length, device=device))
