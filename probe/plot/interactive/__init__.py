"""The figures for reading, with plotly: hover for values, move a slider through the frames."""

from probe.plot.interactive.charts import contributions, curves, generated_tokens
from probe.plot.interactive.frames import attention_map

__all__ = ["attention_map", "contributions", "curves", "generated_tokens"]
