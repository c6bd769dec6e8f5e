"""Position ids after a reduction: contiguous again, or those of the tokens that were merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probe.ablate.reduction.weights import Weights

if TYPE_CHECKING:
    from probe.engine.session import Session

POLICIES = ("keep", "reindex", "mean", "first")


def renumber(session: Session, layer: int, policy: str, rows: np.ndarray, w: Weights) -> None:
    """Give the rows that a reduction leaves new position ids, from a layer on.

    Args:
        session: the run.
        layer: first layer that gets them.
        policy: "reindex", "mean" or "first".
        rows: layout positions of the inputs of the reduction.
        w: its weights over all rows, text included, in the order of the sequence.
    """
    known = session.flow.ids(layer)
    ids = known.clone()
    kept = rows[w.anchor]
    here = torch.as_tensor(rows, device=ids.device)
    there = torch.as_tensor(kept, device=ids.device)
    later = np.arange(session.flow.rows.count, known.shape[-1])
    if policy == "reindex":
        order = torch.as_tensor(np.concatenate([kept, later]), device=ids.device)
        visual = session.layout.group[order.cpu().numpy()] >= 0
        visual &= np.isin(session.layout.role[order.cpu().numpy()], ("video", "image"))
        flat = known[..., order].reshape(-1, len(order))
        ids[..., order] = (_compact(flat, visual) if len(flat) > 1 else _contiguous(flat)).view_as(
            ids[..., order]
        )
    else:
        ids[..., there] = _merged(known[..., here], policy, w)
    session.flow.rows.numbers[layer:] = [ids] * (session.model.n_layers - layer)


def _contiguous(ids: Tensor) -> Tensor:
    """One axis: one up for each token, from the first one's."""
    return ids[:, :1] + torch.arange(ids.shape[1], device=ids.device)


def _compact(ids: Tensor, visual: np.ndarray) -> Tensor:
    """Three axes [axis, token]: text counts up on all of them; in a run of visual tokens rows and
    columns have the ranks of their ids, and time steps of equal length, as transformers'
    get_rope_index gives a smaller grid; text goes on behind rows and columns.
    """
    new = ids.clone()
    start = ids[:, 0].max()
    cuts = np.flatnonzero(np.diff(visual.astype(int))) + 1
    for part in np.split(np.arange(len(visual)), cuts):
        if visual[part[0]]:
            found = torch.stack([torch.unique(i[part], return_inverse=True)[1] for i in ids])
            steps = torch.unique(ids[0, part]).diff()  # in Qwen2.5-VL one a second or so
            found = found.to(ids)
            found[0] *= steps.min() if len(steps) else 1
            extent = found[1:].max() + 1
        else:
            found = torch.arange(len(part), device=ids.device).expand(len(ids), -1).to(ids)
            extent = len(part)
        new[:, part] = start + found
        start = start + extent
    return new


def _merged(ids: Tensor, policy: str, w: Weights) -> Tensor:
    """[.., out] from the ids [.., input] of the entries of each row."""
    flat = ids.reshape(-1, ids.shape[-1]).double().cpu().numpy()
    out = np.empty((len(flat), len(w)))
    count = np.bincount(w.row, minlength=len(w))
    for axis, values in enumerate(flat):
        if policy == "mean":
            out[axis] = np.floor(np.bincount(w.row, values[w.col], minlength=len(w)) / count)
        else:
            lowest = np.full(len(w), np.inf)
            np.minimum.at(lowest, w.row, values[w.col])
            out[axis] = lowest
    return torch.as_tensor(out, device=ids.device).to(ids).view(*ids.shape[:-1], len(w))
