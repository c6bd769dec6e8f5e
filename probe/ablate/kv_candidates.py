"""Cached keys of a layer as candidates of a reduction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.segment import Whole
from probe.ablate.reduction.select import TopK

if TYPE_CHECKING:
    from probe.ablate.reduction.build import Step
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


def aligned(positions: np.ndarray, values: Tensor, wanted: np.ndarray) -> Tensor:
    """Values read at some positions as values at others, 0 where there is none.

    Args:
        positions: sorted layout positions.
        values: [position, ...].
        wanted: sorted layout positions.
    """
    found = values.new_zeros(len(wanted), *values.shape[1:])
    both = torch.as_tensor(np.isin(positions, wanted))
    found[torch.as_tensor(np.isin(wanted, positions))] = values[both]
    return found


def candidates_of(
    session: Session,
    call: AttentionCall,
    positions: np.ndarray,
    readings: dict[Any, Tensor],
    step: Step,
) -> Candidates:
    """Keys of a call as candidates; their features are the keys before rotation.

    Args:
        session: the run.
        call: of the layer whose keys they are.
        positions: layout positions of the candidates, sorted; keys of the call.
        readings: what the step's scores have read, a row a candidate.
        step: how they will be judged; where nothing in it looks at features, there are none.
    """
    layout = session.layout
    group = layout.group[positions]
    known = np.maximum.accumulate(np.where(group >= 0, np.arange(len(group)), -1))
    reads = all(leaf.reads for leaf in step.leaves())
    blind = reads and type(step.select) is TopK and type(step.segment) is Whole
    x = torch.zeros(len(positions), 1) if blind else _raw_keys(call, positions)
    return Candidates(
        x=x,
        frame=np.where(known >= 0, group[np.maximum(known, 0)], 0),
        row=layout.row[positions],
        col=layout.col[positions],
        position=positions,
        mass=session.flow.rows.mass[positions],
        readings=readings,
    )


def _raw_keys(call: AttentionCall, positions: np.ndarray) -> Tensor:
    """[token, kv_head x channel] in float32."""
    raw = call.unrotate(call.key[:, call.key_index(positions)], positions)
    return raw.transpose(0, 1).flatten(1).float()
