"""Attention of a tower that calls torch's fused function itself, past transformers' interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Watch(TorchFunctionMode):
    """While it is on, in one thread, tells each call of `scaled_dot_product_attention`.

    Towers from timm (Perception LM's) attend that way. The call itself is left as it is.
    """

    def __init__(self, seen: Callable[..., None]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """See `torch.overrides.TorchFunctionMode`."""
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, key = args[:2] if len(args) > 1 else (kwargs["query"], kwargs["key"])
            mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
            self.seen(query, key, mask, kwargs.get("scale") or query.shape[-1] ** -0.5)
        return func(*args, **kwargs)
