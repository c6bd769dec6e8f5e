"""`model.run`: one forward pass, captured and ablated."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from probe.ablate.base import Ablation
from probe.capture.base import Capture
from probe.engine.collect import collect, kept_table
from probe.engine.cost import cost
from probe.engine.health import explain
from probe.engine.memory import refuse
from probe.engine.result import Run
from probe.engine.session import Session
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


def run(
    model: VideoModel,
    x: Example,
    captures: Sequence[Capture] = (),
    ablations: Sequence[Ablation] = (),
    *,
    logits: str = "readout",
    force: bool = False,
) -> Run:
    """See `VideoModel.run`; `force` takes the full path of neutral ablations (for tests)."""
    captures, ablations = as_list(captures, Capture), as_list(ablations, Ablation)
    if logits not in ("readout", "all"):
        raise ProbeError(f'logits="{logits}": write "readout" or "all"')
    session = Session(model, x, captures, ablations, force=force)
    refuse(session, all_logits=logits == "all")
    readout = x.layout.readout if logits == "readout" else np.arange(len(x.layout))
    wanted = torch.as_tensor(readout, device=model.hf.device)
    with session, torch.no_grad():
        started = time.perf_counter()
        out = model.hf(**x.inputs, use_cache=False, logits_to_keep=wanted)
        seconds = time.perf_counter() - started
        found = out.logits[0]
        if len(found) != len(readout):  # some families compute every position's logits all the same
            found = found[wanted]
        session.backward(found)
        session.finish()
    values = found.detach().float().cpu()
    if not torch.isfinite(values[np.isin(readout, session.present[-1])]).all():
        raise explain(model, x, ablations)
    return Run(
        data=collect(session),
        logits=values.numpy(),
        kept=kept_table(session, len(x.layout)),
        cost=cost(model, x, session, seconds),
        layout=x.layout,
        text=None,
        tokens=model.decode_each(values.argmax(-1).tolist()),
        meta=meta(model, x, captures, ablations),
        readout=readout,
        decode=model.decode_each,
    )


def as_list(items: Any, kind: type) -> list:
    """Captures or ablations as a list; recipes inside it are flattened.

    Raises:
        ProbeError: something else among them.
    """
    flat: list = []
    for item in items if isinstance(items, list | tuple) else [items]:
        flat.extend(item if isinstance(item, list | tuple) else [item])
    wrong = next((item for item in flat if not isinstance(item, kind)), None)
    if wrong is not None:
        raise ProbeError(
            f"{wrong!r} is not {'an ablation' if kind is Ablation else 'a capture'}; "
            "`probe captures` and `probe ablations` list what there is"
        )
    return flat


def meta(model: VideoModel, x: Example, captures: Sequence, ablations: Sequence) -> dict:
    """What was asked, as plain data."""
    return {
        "model": model.name,
        "dtype": str(model.hf.dtype).removeprefix("torch."),
        "question": x.question,
        "answer": x.answer,
        "options": list(x.options),
        "frames": 0 if x.clip is None else len(x.clip),
        "captures": [capture.to_json() for capture in captures],
        "ablations": [ablation.to_json() for ablation in ablations],
    }
