"""Is this exact? Checks that every report makes on its own run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probe.ablate.knockout import Knockout
from probe.ablate.reduce import fastv

if TYPE_CHECKING:
    import pandas as pd

    from probe.engine.result import Run
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


def checks(
    model: VideoModel, x: Example, plain: Run, captured: Run, generated: Run
) -> pd.DataFrame:
    """name, value, limit, passed; a value over its limit means a number that cannot be trusted.

    Limits are those of float32; in half precision they are a thousand times wider.
    """
    import pandas as pd

    scale = 1.0 if model.hf.dtype.itemsize == 4 else 1000.0
    sums = captured.data.attention_mass.sum("key_group").values
    k = min(2, model.n_layers - 1)
    short = model.run(x, ablate=[fastv(k=k, keep=0.5)])
    gone = tuple(np.flatnonzero(~short.kept.values[-1]).tolist())
    hidden = model.run(x, ablate=[Knockout((gone, "all"), layers=range(k, model.n_layers))])
    forced = model.run(model.force(x, generated.meta["generated"]))
    rows = [
        ("attention mass sums to 1", np.abs(sums - 1).max(), 1e-5 * scale),
        (
            "contributions sum to the logit difference",
            abs(float(captured.data.contributions_error)),
            1e-4 * scale,
        ),
        ("capturing changes no logit", np.abs(plain.logits - captured.logits).max(), 0.0),
        (
            "dropping tokens equals masking them",
            np.abs(short.logits - hidden.logits).max(),
            1e-4 * scale,
        ),
        (
            "generation with a cache equals one full pass",
            np.abs(forced.logits - generated.logits).max(),
            1e-3 * scale,
        ),
    ]
    table = pd.DataFrame(rows, columns=["name", "value", "limit"])
    return table.assign(passed=table["value"] <= table["limit"])
