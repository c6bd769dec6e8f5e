"""Every diagnosis that takes visual tokens away, on every family."""

from __future__ import annotations

import numpy as np
import pytest

from probe import ProbeError
from probe.diagnose import (
    Case,
    ComponentSwap,
    Deletion,
    Granularity,
    MaskingNull,
    PoolingTolerance,
    Sensitivity,
)
from tests.families import models

QUICK = ("instructblipvideo",)
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.full) for name in models.NAMES
]
EVERY = [
    ComponentSwap("fastv(k=1, keep={keep})", keep=[0.5], draws=1),
    Deletion(removed=[0.5]),
    MaskingNull(keep=[0.5], draws=1),
    PoolingTolerance(sizes=[4], layer=1, draws=1),
    Sensitivity(keep=[0.5]),
]


@pytest.mark.parametrize("name", NAMES)
def test_numbers_and_arrays_with_labels(name: str) -> None:
    model = models.build(name)
    case = Case(model, models.example(model), "red", ("red", "blue", "green"))
    case.gold = max(case.answers, key=lambda answer: case.run.logits[0][case.first(answer)])
    for one in EVERY:
        for label, value in one.measure(case).items():
            if isinstance(value, float):
                assert np.isfinite(value), f"{one} {label}"
            else:
                assert set(value.dims) == set(value.coords) and value.attrs["units"]
                assert np.isfinite(value.values).all()
    if case.x.layout.grid is None:
        with pytest.raises(ProbeError, match="has no grid"):
            Granularity(reruns=1).measure(case)
    else:
        assert Granularity(reruns=1).measure(case)["oracle"] == 1
