"""The fraction of visual tokens that each layer needs for the answer, by G-Search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probe.ablate.recipes.schedules import g_search

if TYPE_CHECKING:
    from probe.diagnose.keeping import Keeping


def needed(keeping: Keeping) -> dict[str, Any]:
    """From the first layer to the last the smallest rate that keeps the answer.

    `probe.ablate.g_search` (Zhao et al.) on one example, with 1 for a kept and 0 for a lost answer
    as its measure. Layer 0 keeps every token: no attention has been read before it.

    Returns:
        needed: mean over layers; needed_margin; needed_by_layer [layer].
    """
    import xarray as xr

    case = keeping.case
    found = g_search(case.model, [case.x], 0.0, lambda run: float(keeping.of(run) > 0))
    run = case.model.run(case.x, ablate=found) if found else case.run
    counts = run.kept.values[:, keeping.tokens].sum(1).astype(float)
    by_layer = xr.DataArray(
        counts,
        {"layer": np.arange(len(counts))},
        ["layer"],
        attrs={"units": "token", "description": "visual tokens in each layer that keep the answer"},
    )
    return {
        "needed": float(counts.mean()),
        "needed_margin": keeping.of(run),
        "needed_by_layer": by_layer,
    }
