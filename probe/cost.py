"""Cost of a model on a clip, with and without ablations, stated without running anything.

    from probe.cost import Shape, predict

    shape = Shape.of(AutoConfig.from_pretrained("llava-hf/llava-onevision-qwen2-7b-ov-hf"))
    predict(shape, (32 * 196, 20), "fastv(k=2, keep=0.2)").to_frame()

`run.cost` is what a run did cost; `beside` puts several runs next to one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from probe.engine.cost import Cost
from probe.engine.cost_counts import (
    CONVENTIONS,
    decode_macs,
    generation_macs,
    kv_bytes,
    layer_macs,
    layer_macs_3ndm,
    layer_macs_fastv,
    prefill_macs,
    tower_macs,
    unembedding_macs,
)
from probe.engine.cost_lengths import Lengths, lengths, lengths_of
from probe.engine.cost_predict import Prediction, predict
from probe.engine.cost_shape import Shape, TowerShape
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

    from probe.engine.result import Run

__all__ = [
    "CONVENTIONS",
    "Cost",
    "Lengths",
    "Prediction",
    "Shape",
    "TowerShape",
    "beside",
    "decode_macs",
    "generation_macs",
    "kv_bytes",
    "layer_macs",
    "layer_macs_3ndm",
    "layer_macs_fastv",
    "lengths",
    "lengths_of",
    "predict",
    "prefill_macs",
    "tower_macs",
    "unembedding_macs",
]

COLUMNS = {
    "prefill MACs, true": "macs",
    "prefill MACs, fastv": "macs_fastv",
    "prefill MACs, 3ndm": "macs_3ndm",
    "prefill MACs, with vision": "macs_with_vision",
    "decode MACs, true": "macs_decode",
    "KV bytes": "kv_bytes",
    "seconds": "seconds",
    "seconds before the decoder": "before_decoder_seconds",
    "seconds to the first token": "first_token_seconds",
    "decode tokens per second": "decode_tokens_per_second",
    "peak memory": "peak_memory",
}


def beside(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Costs of several runs of one example, side by side.

    Args:
        runs: by the names of their rows; the first is what the others are measured against.

    Returns:
        One row a run, one column a quantity and, for each, one "x first" with the ratio to the
        first run. Every column keeps to one convention.

    Raises:
        ProbeError: no run.
    """
    import pandas as pd

    if not runs:
        raise ProbeError('beside: no run; write beside({"as is": run, "fastv": other})')
    rows = {
        name: {column: getattr(run.cost, field) for column, field in COLUMNS.items()}
        for name, run in runs.items()
    }
    frame = pd.DataFrame.from_dict(rows, orient="index").astype(float)
    for column in COLUMNS:
        first = frame[column].iloc[0]
        frame[f"{column}, x first"] = frame[column] / first if first else float("nan")
    return frame
