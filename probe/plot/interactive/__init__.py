"""The figures for reading, with plotly: hover for values, move a slider through the frames."""

from probe.plot.interactive.answer import contributions, generated_tokens
from probe.plot.interactive.curves import drop_from_layer, kept_tokens
from probe.plot.interactive.frames import attention_map, frame_player

__all__ = [
    "attention_map",
    "contributions",
    "drop_from_layer",
    "frame_player",
    "generated_tokens",
    "kept_tokens",
]
