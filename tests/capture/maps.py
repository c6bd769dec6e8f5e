"""Attention statistics by their definitions, from the dense map."""

from __future__ import annotations

import numpy as np
import xarray as xr

from probe.models.layout import Layout

TOLERANCE = 1e-5


def mass(weights: np.ndarray, layout: Layout, queries, keys) -> np.ndarray:
    """[layer, head, query_group, key_group] by its definition."""
    rows = layout.partition(queries).values()
    columns = layout.partition(keys).values()
    summed = np.stack([weights[..., k].sum(-1) for k in columns], -1)
    return np.stack([summed[:, :, q].mean(2) for q in rows], 2)


def entropy(weights: np.ndarray, layout: Layout, queries) -> np.ndarray:
    safe = np.where(weights > 0, weights, 1).astype(np.float64)
    each = -(weights * np.log(safe)).sum(-1)
    return np.stack([each[:, :, q].mean(2) for q in layout.partition(queries).values()], 2)


def received(weights: np.ndarray, layout: Layout, queries) -> np.ndarray:
    return np.stack([weights[:, :, q].mean(2) for q in layout.partition(queries).values()], 2)


def close(found: xr.DataArray, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=tolerance)


def xlogx(p: np.ndarray) -> np.ndarray:
    return p * np.log(np.where(p > 0, p, 1))
