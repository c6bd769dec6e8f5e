"""VisualInfluence: does the clip count for less the longer the answer gets?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float

from probe.ablate.knockout import Knockout
from probe.ablate.recipes.rotary import edvt
from probe.capture.mass import AttentionMass
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.margin import log_softmax
from probe.diagnose.pool_rows import append, of_sums, quotient, ratio
from probe.diagnose.signals.answer import ends
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

    from probe.diagnose.case import Case
    from probe.models.encode import Example

CUT = "video -> all - video"
LEAST = 3


@dataclass(frozen=True)
class VisualInfluence(Diagnosis):
    """Attention to the clip and its causal effect, by generated token, with dilution removed.

    Teacher-forced on the model's own greedy answer, or on `text`. At step t, read where the token
    is predicted: the share of attention on the clip's tokens (mean over layers and heads), the
    log of that share over the uniform one, N / (N + S + t) with N clip tokens and N + S + t
    tokens so far (longer text dilutes every share, whatever the model looks at), and the
    influence KL(p(.|clip, y<t) || p(.|clip cut from all other tokens in every layer, y<t)), nats.

    Values: `mass`, `log_share`, `influence` (means over steps) and their least-squares slopes by
    token, `mass_slope` (with dilution), `log_share_slope` (without), `influence_slope`; `tokens`;
    `perplexity` of the text; the same with `_edvt` behind it, under EDVT in place of rotation
    between clip and text. Slopes are NaN below three tokens. Arrays [step]: `log_share_by_step`,
    `influence_by_step`, and under EDVT.

    Pooled: means, and `edvt_slope_ratio`, mean log_share_slope_edvt over mean log_share_slope:
    EDVT flattens the curve where it is between -.5 and .5; `edvt_influence_ratio` the same for
    influence, and `edvt_perplexity_ratio`, a ratio of geometric means: far above 1, EDVT without
    training breaks the model, and a flat curve says nothing.

    Vista-LLaMA (Ma et al. 2023, arXiv 2312.08870) shows the mass falling with length, and flat
    with EDVT; its exact normalisation is not published, and the share over the uniform one is
    ours. Costs a generation and four forward passes, two without `edvt`.

    Attributes:
        text: what is forced in place of the model's own answer.
        edvt: measure under EDVT too.
        max_new_tokens: of the model's own answer.

    Raises:
        ProbeError: an empty answer.
    """

    text: str | None = None
    edvt: bool = True
    max_new_tokens: int = 64

    section: ClassVar[str] = "hallucination"
    source: ClassVar[str] = "after Vista-LLaMA (arXiv 2312.08870)"

    def measure(self, case: Case) -> Values:
        """The curves of one case, and their slopes."""
        forced = self.forced(case)
        found = curves(case, forced, ())
        if self.edvt:
            other = curves(case, forced, edvt())
            found |= {f"{name}_edvt": value for name, value in other.items()}
        values: dict[str, Any] = {"tokens": float(len(forced.layout.readout))}
        for name, curve in found.items():
            kind = name.removesuffix("_edvt")
            end = name.removeprefix(kind)
            if kind == "nll":
                values[f"perplexity{end}"] = float(np.exp(curve.mean()))
                continue
            values[f"{kind}{end}"] = float(curve.mean())
            values[f"{kind}_slope{end}"] = slope(curve)
            if kind != "mass":
                values[f"{kind}_by_step{end}"] = by_step(kind, curve)
        return values

    def forced(self, case: Case) -> Example:
        """The case followed by the text."""
        if self.text is not None:
            from probe.models.encode import continuation

            ids = continuation(case.model.tokenizer, case.x.prompt, self.text)
        else:
            run = case.model.generate(case.x, max_new_tokens=self.max_new_tokens)
            closing = ends(case.model)
            ids = [token for token in run.meta["generated"] if token not in closing]
        if not ids:
            raise ProbeError("visual_influence: the model's answer is empty; give text=")
        return case.model.force(case.x, ids)

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        """Means, and what EDVT does to the slopes."""
        rows = []
        if "log_share_edvt" in table:
            for kind, name in (("log_share", "slope"), ("influence", "influence")):
                top, bottom = table[f"{kind}_slope_edvt"], table[f"{kind}_slope"]
                rows.append(ratio(f"edvt_{name}_ratio", table, top, bottom))
            change = np.log(table["perplexity_edvt"]) - np.log(table["perplexity"])
            columns = {"change": change, "one": np.ones(len(table))}
            rows.append(of_sums("edvt_perplexity_ratio", table, columns, _geometric))
        return append(super().pool(table), rows)


def _geometric(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.exp(quotient(top, bottom))


def curves(case: Case, forced: Example, more: Any) -> dict[str, Float[np.ndarray, " step"]]:
    """Mass, log share, influence and negative log-likelihood of each token.

    Args:
        case: its model runs.
        forced: the example with its answer.
        more: ablations under which all is measured.
    """
    under = list(more) if isinstance(more, list | tuple) else [more]
    places = forced.layout.readout
    capture = AttentionMass(queries=[f"token {place}" for place in places], keys=["video"])
    plain = case.model.run(forced, [capture], ablate=under)
    cut = case.model.run(forced, ablate=[*under, Knockout(CUT)])
    log_p, log_q = log_softmax(plain.logits), log_softmax(cut.logits)
    mass = plain.of(capture).mean(["layer", "head"]).values[:, 0].astype(float)
    tokens = len(forced.layout.select("video"))
    ids = forced.inputs["input_ids"][0, places + 1].cpu().numpy()
    return {
        "mass": mass,
        "log_share": np.log(mass) - np.log(tokens / (places + 1)),
        "influence": np.maximum((np.exp(log_p) * (log_p - log_q)).sum(-1), 0),
        "nll": -log_p[np.arange(len(ids)), ids],
    }


def slope(curve: Float[np.ndarray, " step"]) -> float:
    """Least-squares slope by step; NaN with fewer than three steps or where one is not finite."""
    if len(curve) < LEAST or not np.isfinite(curve).all():
        return float("nan")
    steps = np.arange(len(curve)) - (len(curve) - 1) / 2
    return float(steps @ curve / (steps @ steps))


def by_step(kind: str, curve: Float[np.ndarray, " step"]) -> Any:
    """A curve with its labels."""
    import xarray as xr

    units = {"log_share": "1", "influence": "nats"}[kind]
    about = {
        "log_share": "log of the attention share on the clip over the uniform share",
        "influence": "KL of the next-token distributions with the clip and with it cut off",
    }[kind]
    steps = {"step": np.arange(len(curve))}
    return xr.DataArray(
        curve, dims="step", coords=steps, attrs={"units": units, "description": about}
    )
