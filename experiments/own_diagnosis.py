"""A diagnosis of one's own, on testbed items; in a study it is one more line.

    python experiments/own_diagnosis.py
    cd experiments && probe diagnose own_diagnosis:LastGlance clip.mp4 --ask "What moves?"

`LastGlance` asks from which layer on the text can do without the video.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from probe.ablate import Knockout
from probe.diagnose import Diagnosis
from probe.diagnose.pool import means


@dataclass(frozen=True)
class LastGlance(Diagnosis):
    """The first layer from which on the text keeps its answer without looking at the video.

    Attributes:
        keep: part of the margin of the right answer that must be left.
    """

    needs: ClassVar[tuple[str, ...]] = ("clip", "gold")
    keep: float = 0.9

    def measure(self, case):
        layers = np.arange(case.model.n_layers)
        cuts = [[Knockout("video -> text", layers=f"{layer}-")] for layer in layers]
        full, *cut = case.sweep(cuts)["value"]  # the untouched run comes first
        enough = np.flatnonzero(np.array([*cut, full]) >= self.keep * full)
        return {
            "margin": full,
            "last_glance": float(enough[0]) if full > 0 else float("nan"),
            "cut": xr.DataArray(cut, {"layer": layers}, ["layer"], attrs={"units": "nats"}),
        }

    def pool(self, table):
        wrong = float(table["last_glance"].isna().mean())
        of_all = {"value": wrong, "n": len(table), "clusters": table["video"].nunique()}
        rows = [means(table), pd.DataFrame([{"name": "wrong without any cut", **of_all}])]
        return pd.concat(rows, ignore_index=True)


def main() -> None:
    """A few items of the testbed."""
    import probe
    from probe import testbed
    from probe.diagnose import case_of, diagnose

    model, one = probe.load("testbed/onevision"), LastGlance()
    rows = []
    for item in testbed.items("neutral", n=12, seed=5):
        case = case_of(model, item)
        values = diagnose(case, [one])[one]
        rows.append({"sample": case.id, "video": case.video, **values})
    table = pd.DataFrame(rows)
    print(one.pool(table.drop(columns="cut")).round(2).to_string(index=False))
    print("\nmargin of the right answer, the video cut off from each layer on:")
    print(sum(table["cut"]).round(1).values / len(table))


if __name__ == "__main__":
    main()
