"""The attention that a layer is about to compute: its queries and keys, and nothing further."""

from __future__ import annotations

from typing import Any

from probe.engine.call import AttentionCall


class Peeked(Exception):
    """Unwinds a layer's forward once its attention function has its arguments."""

    def __init__(self, call: AttentionCall) -> None:
        self.call = call


def peek(layer: Any, args: tuple, kwargs: dict) -> AttentionCall:
    """Run a decoder layer up to its attention function, without its cache."""
    try:
        layer(*args, **{k: v for k, v in kwargs.items() if k != "past_key_values"})
    except Peeked as found:
        return found.call
    raise RuntimeError("the layer's attention was never reached")
