"""`model.run`: one forward pass, captured and ablated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probe.ablate.base import Ablation, Ablations
from probe.ablate.compose import in_order, label, prepared
from probe.capture.base import Capture
from probe.engine import contrast, steps
from probe.engine.collect import finished, kept_table
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
    ablations: Ablations = (),
    *,
    logits: str = "readout",
    force: bool = False,
) -> Run:
    """See `VideoModel.run`; `force` takes the full path of neutral ablations (for tests)."""
    captures = as_list(captures, Capture)
    ablations = in_order(as_list(ablations, Ablation))
    given, x = x, prepared(model, x, ablations)
    if logits not in ("readout", "all"):
        raise ProbeError(f'logits="{logits}": write "readout" or "all"')
    session = Session(model, x, captures, ablations, force=force, given=given)
    by_step = steps.decodes(session)
    late = [a for a, _ in session.ablations if (by_step and a.at_decode) or a.acts == "logits"]
    if late and logits == "all":
        raise ProbeError(f'{late[0]}: it acts where the answer is read; use logits="readout"')
    if by_step:
        prompt = steps.prompt_of(x)
        session = Session(model, prompt, captures, ablations, x.layout, force=force, given=given)
    refuse(session, all_logits=logits == "all")
    readout = x.layout.readout if logits == "readout" else np.arange(len(x.layout))
    with session, torch.no_grad():
        with session.meter:
            found = _step_by_step(session, x) if by_step else _at_once(session, x, readout)
        session.backward(found)
        values = found.detach().float().cpu()
        there = torch.from_numpy(np.isin(readout, session.present[-1]))
        finite = bool(torch.isfinite(values[there]).all())
        if finite:
            values = contrast.forced(session, x, values)
        session.finish()
    if not finite:
        raise explain(model, x, ablations)
    return result(session, x, values, readout, captures, ablations)


def result(
    session: Session,
    x: Example,
    values: Tensor,
    readout: np.ndarray,
    captures: Sequence[Capture],
    ablations: Sequence[Ablation],
) -> Run:
    """What a finished session gave.

    Args:
        session: after its forward pass.
        x: the example that ran.
        values: logits [readout, vocab] in float32, on the CPU.
        readout: positions whose logits these are.
        captures, ablations: what was asked.
    """
    model = session.model
    return Run(
        logits=values.numpy(),
        kept=kept_table(session, len(x.layout)),
        cost=cost(model, x, session),
        layout=x.layout,
        text=None,
        tokens=model.decode_each(values.argmax(-1).tolist()),
        meta=meta(model, x, captures, ablations) | contrast.about(session),
        readout=readout,
        reductions=tuple(session.reductions),
        decode=model.decode_each,
        parts=finished(session),
    )


def _at_once(session: Session, x: Example, readout: np.ndarray) -> Tensor:
    """Logits [readout, vocab] of one forward over prompt and answer."""
    model = session.model
    wanted = torch.as_tensor(readout, device=model.hf.device)
    found = model.hf(**session.inputs, use_cache=False, logits_to_keep=wanted).logits[0]
    # Some families compute every position's logits all the same.
    return found if len(found) == len(readout) else found[wanted]


def _step_by_step(session: Session, x: Example) -> Tensor:
    """The same of the prompt, then of each token of the answer through the cache."""
    ids = steps.answer_ids(x)
    session.emitted = ids
    return steps.Stream(session.model, session.example).forced(ids)


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
        "length": len(x.layout),
        "captures": [capture.to_json() for capture in captures],
        "ablations": [ablation.to_json() for ablation in ablations],
        "ablated": label(ablations),
    }
