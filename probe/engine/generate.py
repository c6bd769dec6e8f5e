"""`model.generate`: transformers' own generation, captured and ablated at every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from probe.ablate.base import Ablation, Ablations
from probe.ablate.compose import in_order, prepared
from probe.capture.base import Capture
from probe.engine import contrast
from probe.engine.collect import finished, kept_table
from probe.engine.cost import cost
from probe.engine.forward import as_list, meta
from probe.engine.health import explain
from probe.engine.memory import refuse
from probe.engine.result import Run
from probe.engine.session import Session
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


def generate(
    model: VideoModel,
    x: Example,
    captures: Sequence[Capture] = (),
    ablations: Ablations = (),
    *,
    max_new_tokens: int = 64,
    seed: int | None = None,
    force: bool = False,
    **generation_kwargs: Any,
) -> Run:
    """See `VideoModel.generate`."""
    captures = as_list(captures, Capture)
    ablations = in_order(as_list(ablations, Ablation))
    given, x = x, prepared(model, x, ablations)
    _check(x, max_new_tokens, generation_kwargs)
    longer = x.layout.extend(max_new_tokens)
    session = Session(model, x, captures, ablations, longer, force=force, given=given)
    refuse(session)
    settings = {"do_sample": False} | generation_kwargs
    beside = contrast.Beside(session, x, max_new_tokens) if contrast.of(session) else None
    processors: Any = settings.pop("logits_processor", None) or []
    processors = [*processors, beside] if beside else [*processors]
    inputs = dict(session.inputs)
    if x is given:  # an example with other tokens has ids that transformers would not find
        inputs.pop("position_ids", None)
    with session, torch.no_grad(), _seeded(model, seed):
        with session.meter:
            out = model.hf.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                return_dict_in_generate=True,
                output_logits=True,
                logits_processor=processors,
                **settings,
            )
        session.finish()
    count = len(x.layout)
    new = out.sequences[0, count:].cpu()
    session.emitted = new.tolist()
    logits = torch.stack([step[0] for step in out.logits]).float().cpu()
    if not torch.isfinite(logits).all():
        raise explain(model, x, ablations)
    logits = beside.finish() if beside else logits
    pieces = model.decode_each(new.tolist())
    layout = replace(x.layout.extend(len(new)), tokens=x.layout.tokens + tuple(pieces))
    readout = np.arange(count - 1, count - 1 + len(new))
    return Run(
        logits=logits.numpy(),
        kept=kept_table(session, len(layout)),
        cost=cost(model, x, session),
        layout=layout,
        text=model.tokenizer.decode(new, skip_special_tokens=True).strip(),
        tokens=pieces,
        meta=meta(model, x, captures, ablations)
        | {"generation": settings, "generated": new.tolist(), "seed": seed}
        | contrast.about(session),
        readout=readout,
        reductions=tuple(session.reductions),
        decode=model.decode_each,
        parts=finished(session),
    )


@contextmanager
def _seeded(model: VideoModel, seed: int | None) -> Iterator[None]:
    """Sampling from a seed; the random state outside is left alone."""
    if seed is None:
        yield
        return
    cuda = [model.hf.device] if model.hf.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        yield


def _check(x: Example, max_new_tokens: int, settings: dict[str, Any]) -> None:
    if x.answer is not None:
        raise ProbeError("generate: this example already has an answer; encode it without one")
    if max_new_tokens < 1:
        raise ProbeError(f"generate: max_new_tokens={max_new_tokens}; ask for at least 1")
    several = settings.get("num_beams", 1) != 1 or settings.get("num_return_sequences", 1) != 1
    if several:
        raise ProbeError(
            "generate: one sequence at a time; use num_beams=1, and model.sequences for several"
        )
    chunked = settings.get("cache_implementation") or settings.get("prefill_chunk_size")
    if chunked or not settings.get("use_cache", True):
        raise ProbeError("generate: only the dynamic cache without chunked prefill is supported")
