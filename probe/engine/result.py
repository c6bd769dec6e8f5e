"""Run: what one forward pass or one generation gave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from probe.ablate.reduction.record import Reduction
from probe.engine.collect import collect
from probe.engine.cost import Cost
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from probe.models.layout import Layout

STORED = 50  # alternatives per readout whose text is stored with a saved run


@dataclass(frozen=True)
class Run:
    """Result of `model.run` and `model.generate`.

    Attributes:
        logits: [readout, vocab] in float32; one row per step after `generate`.
        kept: [layer, position], True where a token exists in a layer.
        cost: lengths, cache sizes, multiply-accumulates, time.
        layout: what each position is (None after `probe.open`).
        text: the generated answer; None after `run`.
        tokens: the most likely token of each readout, or the generated tokens.
        meta: model, question, captures, ablations: what was asked.
        readout: positions whose logits these are.
        reductions: what every reduction of tokens did, in order.
    """

    logits: Float[np.ndarray, "readout vocab"]
    kept: xr.DataArray
    cost: Cost
    layout: Layout | None
    text: str | None
    tokens: list[str]
    meta: dict[str, Any]
    readout: np.ndarray
    reductions: tuple[Reduction, ...] = ()
    decode: Callable[[Sequence[int]], list[str]] | None = field(default=None, repr=False)
    stored: dict[str, str] = field(default_factory=dict, repr=False)
    parts: Sequence[tuple[Any, dict[str, xr.DataArray]]] = field(default=(), repr=False)
    opened: xr.Dataset | None = field(default=None, repr=False)

    @cached_property
    def data(self) -> xr.Dataset:
        """Everything captured, in one Dataset; made of the parts when it is first asked for."""
        return collect(self.parts) if self.opened is None else self.opened

    def of(self, capture: Any) -> xr.DataArray:
        """The first array of one of the captures that were asked for, under its own labels.

        In `data` captures share dims, and a label that one of them lacks is NaN there; here
        there are none but its own.

        Raises:
            ProbeError: a capture that this run does not have (or one opened from disk).
        """
        found = next((arrays for made, arrays in self.parts if made == capture), None)
        if found is None:
            raise ProbeError(f"run.of({capture}): this run did not capture it")
        return next(iter(found.values()))

    def top(self, k: int = 5, readout: int = -1) -> pd.DataFrame:
        """The k most likely next tokens at a readout: token, id, probability, logit.

        Args:
            k: how many.
            readout: which row of `logits`; the last by default.
        """
        import pandas as pd

        row = self.logits[readout]
        ids = np.argsort(-row, kind="stable")[:k]
        probability = np.exp(row - _logsumexp(row))
        return pd.DataFrame(
            {
                "token": self._texts(ids.tolist()),
                "id": ids,
                "probability": probability[ids],
                "logit": row[ids],
            }
        )

    def save(self, path: str | Path) -> Path:
        """Write everything to a zarr folder, whole or not at all; `probe.open` reads it.

        Raises:
            ProbeError: a folder that cannot be written, or one that is there already.
        """
        import xarray as xr

        path = Path(path)
        if path.exists():
            raise ProbeError(f"{path}: is there already; choose another path or remove it")
        ids = np.unique(np.argsort(-self.logits, axis=-1, kind="stable")[:, :STORED])
        header = {
            "cost": self.cost.to_json(),
            "meta": self.meta,
            "text": self.text,
            "tokens": self.tokens,
            "stored": dict(zip(map(str, ids), self._texts(ids.tolist()), strict=True)),
        }
        values = xr.Dataset(
            {"logits": (("readout", "vocab"), self.logits), "kept": self.kept},
            coords={"readout": self.readout},
            attrs={"run": json.dumps(header)},
        )
        part = path.with_name(f".{path.name}.part")
        # Format 3 has no specification for arrays of text yet, and zarr warns of it.
        how: dict[str, Any] = {"mode": "a", "consolidated": False, "zarr_format": 2}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(part, ignore_errors=True)
            values.to_zarr(part, group="run", **how)
            self.data.to_zarr(part, group="data", **how)
            part.rename(path)
        except OSError as error:
            raise ProbeError(f"{path}: cannot be written ({error.strerror or error})") from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return path

    def _texts(self, ids: list[int]) -> list[str]:
        if self.decode is not None:
            return self.decode(ids)
        return [self.stored.get(str(token), f"<{token}>") for token in ids]


def open_run(path: str | Path) -> Run:
    """Read a saved run.

    Raises:
        ProbeError: not a saved run.
    """
    import xarray as xr

    try:
        values = xr.open_zarr(path, group="run", consolidated=False).load()
        data = xr.open_zarr(path, group="data", consolidated=False)
        header = json.loads(values.attrs["run"])
    except (OSError, KeyError, ValueError):
        raise ProbeError(f"{path}: not a run saved by probe") from None
    return Run(
        opened=data,
        logits=values["logits"].values,
        kept=values["kept"],
        cost=Cost.from_json(header["cost"]),
        layout=None,
        text=header["text"],
        tokens=header["tokens"],
        meta=header["meta"],
        readout=values["readout"].values,
        stored=header["stored"],
    )


def _logsumexp(row: np.ndarray) -> float:
    top = row.max()
    return float(top + np.log(np.exp(row - top).sum()))
