"""`model.sweep`: many ablations of one example, each from where it begins to matter."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probe.ablate.base import Ablation
from probe.ablate.compose import in_order, label
from probe.engine.flow import CHANGES_LENGTH
from probe.engine.forward import as_list, result, run
from probe.engine.health import explain
from probe.engine.hooks import VISION_EVENTS, implements
from probe.engine.result import Run
from probe.engine.reuse import Clean, resume
from probe.engine.session import Session
from probe.engine.vision_edit import EDITS
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

# An ablation that listens to one of these changes what the layers are called with.
WHOLE = (*VISION_EVENTS, *EDITS, "ids", "tables", "evict")
Measure = Callable[[Run], Any] | Any


def sweep(
    model: VideoModel,
    x: Example,
    ablations: Sequence[Any],
    measure: Measure = None,
    *,
    progress: Callable[[], object] = lambda: None,
) -> pd.DataFrame:
    """See `VideoModel.sweep`."""
    import pandas as pd

    lists = [in_order(as_list(one, Ablation)) for one in ablations]
    clean = None
    rows: list[dict[str, Any]] = []
    for given, found, began in runs(model, x, [[], *lists]):
        clean = clean or found
        read = _reader(model, x, clean, measure)
        rows.append({"ablation": label(given), **read(found), "answer": found.tokens[0], **began})
        progress()
    table = pd.DataFrame(rows)
    if "value" in table:
        table.insert(2, "change", table["value"] - table["value"].iloc[0])
    return table


def runs(model: VideoModel, x: Example, lists: Sequence[list[Ablation]]) -> Any:
    """(ablations, run, where it began) of each list, the work before that shared.

    Yields:
        A Run equal to `model.run(x, ablate=...)` to rounding, one after the other.
    """
    starts = [begins(model, x, one) for one in lists]
    wanted = {layer for _, layer, _ in starts if layer is not None}  # n_layers: nothing changes
    suffix = any(row for _, layer, row in starts if layer is not None and layer < model.n_layers)
    clean = untouched(model, x, wanted, suffix) if wanted else None
    caches: dict[int, Any] = {}
    for ablations, (session, layer, row) in zip(lists, starts, strict=True):
        started = time.perf_counter()
        if session is None or layer is None or clean is None:
            found, layer, row = run(model, x, (), ablations), None, 0
        else:
            row = row if clean.keys is not None and row >= clean.horizon else 0
            found = resumed(model, x, session, ablations, clean, layer, row, caches)
        seconds = time.perf_counter() - started
        yield ablations, found, {"from_layer": layer, "from_row": row, "seconds": seconds}


def begins(
    model: VideoModel, x: Example, ablations: list[Ablation]
) -> tuple[Session | None, int | None, int]:
    """A session for the ablations, and the first layer and row that they can change; no layer
    where everything must run again.
    """
    first = int(x.layout.readout[0])
    if any(one.at_decode or one.acts == "logits" or one.listens("prepare") for one in ablations):
        return None, None, 0
    session = Session(model, x, (), ablations)
    active = session.ablations
    if any(implements(one, event) for one, _ in active for event in WHOLE):
        return None, None, 0
    found = [one.affects(session, state) for one, state in active] or [(model.n_layers, first)]
    layer = min(layer for layer, _ in found)
    row = min(row for _, row in found)
    if any(implements(one, event) for one, _ in active for event in CHANGES_LENGTH):
        row = 0  # rows that leave the stream cannot be written into the clean run's keys
    return session, layer, min(row, first)


def untouched(model: VideoModel, x: Example, wanted: set[int], suffix: bool) -> Clean | None:
    """The untouched run; None where its logits do not come from the stream alone."""
    last = model.n_layers - 1
    record = Clean(wanted | {last})
    session = Session(model, x)
    session.flow.record = record
    readout = torch.as_tensor(x.layout.readout, device=model.hf.device)
    with session, torch.no_grad():
        out = model.hf(**session.inputs, use_cache=suffix, logits_to_keep=readout)
        record.deepstack = session.flow.deepstack
        cache = getattr(out, "past_key_values", None) if suffix else None
        if cache is not None:
            record.keys = [layer.keys for layer in cache.layers]
            record.values = [layer.values for layer in cache.layers]
    with Session(model, x) as again, torch.no_grad():
        logits = resume(again, record, last, 0, {})
    given = out.logits[0]
    record.logits = given = given if len(given) == len(readout) else given[readout]
    same = torch.allclose(logits.float(), given.float(), rtol=0, atol=1e-4)
    whole = record.keys is None or all(k.shape[2] == len(x.layout) for k in record.keys)
    return record if same and whole else None


def resumed(
    model: VideoModel,
    x: Example,
    session: Session,
    ablations: list[Ablation],
    clean: Clean,
    layer: int,
    row: int,
    caches: dict,
) -> Run:
    """A session's run from a layer and a row on; see `resume`."""
    with session, torch.no_grad(), session.meter:
        logits: Tensor = resume(session, clean, layer, row, caches)
        session.finish()
    values = logits.float().cpu()
    if not torch.isfinite(values).all():
        raise explain(model, x, ablations)
    return result(session, x, values, x.layout.readout, (), ablations)


def _reader(model: VideoModel, x: Example, clean: Run, measure: Measure) -> Callable:
    """What turns a run into columns."""
    if measure is None:
        from probe.diagnose.margin import margin

        measure = margin(model, x, clean)
    of = getattr(measure, "of", measure)
    if not callable(of):
        raise ProbeError(f"sweep: measure={measure!r}; give a Margin, or a function of a run")

    def read(run: Run) -> dict[str, Any]:
        value = of(run)
        if isinstance(value, dict):
            return value
        if not np.isscalar(value):
            raise ProbeError("sweep: the measure gives a number, or a dict of numbers by name")
        return {"value": value}

    return read
