"""Two runs side by side: what changed from the one to the other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from probe.engine.batch import Batch
from probe.engine.result import Run
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

PLACES = ("position", "readout", "query")  # dims whose labels are positions of a prompt


@dataclass(frozen=True, eq=False)
class Comparison:
    """What changed from run `a` to run `b`; every difference is b - a.

    Attributes:
        data: xarray.Dataset of differences: every number that both runs captured, aligned by the
            labels of its dims; `logits` [step, vocab]; `kl` [step], KL(a || b) of the next-token
            distributions in nats; `margin` [step] in logits; `kept` [layer, position], -1 where
            only `a` has the token. `step` is the number of the readout.
        summary: one row a quantity: its mean in both runs, how much it changed and where most.
        names: what `a` and `b` are called.
        target, versus: texts of the tokens whose logits make the margin.
        tokens: per step, the most likely tokens of both: step, token, id, a, b (probabilities).
        left_out: variables that could not be aligned, and why.
    """

    data: xr.Dataset
    summary: pd.DataFrame
    names: tuple[str, str]
    target: str
    versus: str
    tokens: pd.DataFrame
    left_out: dict[str, str]

    def figure(self) -> Figure:
        """What became of the answer, and where in the model the runs differ."""
        from probe.plot.compare import comparison

        return comparison(self)


def compare(
    a: Run | Batch,
    b: Run | Batch,
    target: str | int | None = None,
    versus: str | int | None = None,
    *,
    names: tuple[str, str] | None = None,
) -> Comparison:
    """Compare two runs of one vocabulary, for instance without and with an ablation.

    Args:
        a, b: from `model.run`, `model.generate` or `probe.open`.
        target, versus: token (text or id) whose logit, minus the other's, is the margin; by
            default the first choice of `a`, and of the rest the one that `b` likes best.
        names: what to call the two; by default what was ablated.

    Raises:
        ProbeError: runs over different vocabularies, or a token that is not among the likely ones.
    """
    if isinstance(a, Batch) or isinstance(b, Batch):
        raise ProbeError("compare takes two runs; of a batch, one of its runs")
    if a.logits.shape[-1] != b.logits.shape[-1]:
        raise ProbeError(
            f"compare: {a.logits.shape[-1]} and {b.logits.shape[-1]} words; these runs are of "
            "models with different vocabularies"
        )
    steps = min(len(a.logits), len(b.logits))
    log_p, log_q = (_log_softmax(run.logits[:steps]) for run in (a, b))
    own = _id(a, b, target, int(log_p[0].argmax()))
    rest = np.argsort(-log_q[0], kind="stable")
    rival = _id(a, b, versus, int(rest[rest != own][0]))
    margins = [run.logits[:steps, own] - run.logits[:steps, rival] for run in (a, b)]
    kl = (np.exp(log_p) * (log_p - log_q)).sum(-1)
    found, left_out, pairs = _differences(a, b)
    found |= {
        "logits": _array(b.logits[:steps] - a.logits[:steps], ("step", "vocab"), "logit"),
        "kl": _array(kl, ("step",), "nat"),
        "margin": _array(margins[1] - margins[0], ("step",), "logit"),
    }
    target, versus = (_texts(a, b, [token])[0] for token in (own, rival))
    rows = [_row(f"margin {target} - {versus}", margins[0], margins[1], found["margin"])]
    rows.append(_row("KL of the next token", np.nan, np.nan, found["kl"]))
    rows.append(_row("logits", a.logits[:steps], b.logits[:steps], found["logits"]))
    if "kept" in found:
        rows.append(_row("kept", a.kept.values, b.kept.values, found["kept"]))
    rows += [_row(name, x.values, y.values, found[name]) for name, (x, y) in pairs.items()]
    import pandas as pd
    import xarray as xr

    return Comparison(
        data=xr.Dataset(found),
        summary=pd.DataFrame(rows),
        names=names or _names(a, b),
        target=target,
        versus=versus,
        tokens=_tokens(a, b, np.exp(log_p), np.exp(log_q)),
        left_out=left_out,
    )


def _differences(a: Run, b: Run) -> tuple[dict[str, Any], dict[str, str], dict[str, tuple]]:
    """Differences by name, reasons why some are left out, and the aligned pairs."""
    same = a.kept.sizes["position"] == b.kept.sizes["position"]
    found: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    pairs: dict[str, tuple] = {}
    for name, x in a.data.items():
        y = _partner(str(name), x, b.data)
        if y is None:
            left_out[str(name)] = "only the first run has it"
        elif x.dtype.kind not in "fiu" or set(x.dims) != set(y.dims):
            left_out[str(name)] = "text" if x.dtype.kind == "U" else "its dims differ"
        elif not same and set(PLACES) & set(map(str, x.dims)):
            left_out[str(name)] = "the prompts have different positions"
        else:
            shared = {d: _shared(x[d].values, y[d].values) for d in x.dims}
            if all(len(labels) for labels in shared.values()):
                x, y = x.sel(shared), y.sel(shared).transpose(*x.dims)
                pairs[str(name)] = x, y
                found[str(name)] = (y - x).assign_attrs(x.attrs)
            else:
                left_out[str(name)] = "no label is in both"
    for name in b.data:
        if str(name) not in {*found, *left_out}:
            left_out[str(name)] = "only the second run has it"
    if same and a.kept.shape == b.kept.shape:
        found["kept"] = b.kept.astype(int) - a.kept.astype(int)
        found["kept"].attrs = {"units": "1", "description": "-1 where only the first has it"}
    return found, left_out, pairs


def _partner(name: str, x: xr.DataArray, others: xr.Dataset) -> xr.DataArray | None:
    """The variable of the other run that the same capture made, whatever its number there."""
    stem = re.sub(r"_\d+$", "", name)
    alike = [
        other
        for key, other in others.items()
        if re.sub(r"_\d+$", "", str(key)) == stem
        and other.attrs.get("capture") == x.attrs.get("capture")
    ]
    return alike[0] if alike else None


def _shared(first: np.ndarray, second: np.ndarray) -> list:
    """Labels in both, in the order of the first."""
    there = set(second.tolist())
    return [label for label in first.tolist() if label in there]


def _array(values: np.ndarray, dims: tuple[str, ...], units: str) -> xr.DataArray:
    import xarray as xr

    coords = {dim: np.arange(size) for dim, size in zip(dims, values.shape, strict=True)}
    return xr.DataArray(values, dims=dims, coords=coords, attrs={"units": units})


def _row(name: str, x: Any, y: Any, change: xr.DataArray) -> dict[str, Any]:
    """Mean in both runs, mean size of the change, the largest one and its place."""
    values = np.asarray(change.values, dtype=float)
    row: dict[str, Any] = {"quantity": name, "units": change.attrs.get("units", "")}
    row |= {"a": _mean(x), "b": _mean(y), "mean_change": _mean(np.abs(values))}
    if not np.nan_to_num(values).any():
        return row | {"largest": 0.0 if np.isfinite(values).any() else np.nan, "at": ""}
    place = np.unravel_index(int(np.nanargmax(np.abs(values))), values.shape)
    labels = zip(change.dims, place, strict=True)
    at = ", ".join(f"{dim} {change[dim].values[number]}" for dim, number in labels)
    return row | {"largest": float(values[place]), "at": at}


def _mean(values: Any) -> float:
    values = np.asarray(values, dtype=float)
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else float("nan")


def _tokens(a: Run, b: Run, p: np.ndarray, q: np.ndarray, top: int = 5) -> pd.DataFrame:
    """The likeliest tokens of both runs at each step, the likeliest first."""
    import pandas as pd

    rows = []
    for step, (first, second) in enumerate(zip(p, q, strict=True)):
        order = np.argsort(-np.maximum(first, second), kind="stable")[:top]
        for number, text in zip(order.tolist(), _texts(a, b, order.tolist()), strict=True):
            at = {"step": step, "token": text, "id": number}
            rows.append(at | {"a": first[number], "b": second[number]})
    return pd.DataFrame(rows)


def _texts(a: Run, b: Run, ids: list[int]) -> list[str]:
    """Texts of tokens, from whichever run knows them (an opened one knows the likely ones)."""
    if a.decode is None and b.decode is not None:
        return b.decode(ids)
    if a.decode is not None:
        return a.decode(ids)
    known = b.stored | a.stored
    return [known.get(str(number), f"<{number}>") for number in ids]


def _id(a: Run, b: Run, token: str | int | None, default: int) -> int:
    """Id of a token given as text, found among the likely ones of both runs."""
    if token is None:
        return default
    if isinstance(token, int):
        if not 0 <= token < a.logits.shape[-1]:
            raise ProbeError(f"compare: there is no token id {token}")
        return token
    order = np.argsort(-np.maximum(a.logits[0], b.logits[0]), kind="stable")[:1000].tolist()
    for number, text in zip(order, _texts(a, b, order), strict=True):
        if text.strip() == token.strip():
            return number
    raise ProbeError(f"compare: '{token}' is not among the likely tokens; give its id")


def _names(a: Run, b: Run) -> tuple[str, str]:
    """What was ablated in each, as it is written; "a" and "b" where that is the same."""
    from probe.ablate import names
    from probe.spec import from_json

    def text(ablation: dict[str, Any]) -> str:
        try:
            return str(from_json(ablation, names()))
        except ProbeError:  # the module of a user's own ablation is not at hand
            return str(ablation.get("kind"))

    first, second = (
        " + ".join(map(text, run.meta.get("ablations", ()))) or "as is" for run in (a, b)
    )
    return ("a", "b") if first == second else (first, second)


def _log_softmax(logits: Float[np.ndarray, "step vocab"]) -> Float[np.ndarray, "step vocab"]:
    x = logits.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))
