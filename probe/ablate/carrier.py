"""Carrier: one more token behind each frame, which stands for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.ablate.base import Ablation
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.cost_lengths import Lengths
    from probe.engine.session import Session
    from probe.models.encode import Example
    from probe.models.layout import Layout
    from probe.models.video_model import VideoModel

ROLE = "summary"
READS = ("both", "key", "value")
ROWS = 64  # rows of attention weights at once


@dataclass(frozen=True)
class Carrier(Ablation):
    """A semantic carrier behind each frame: its embedding is the mean of the frame's tokens.

    Carriers have the role "summary" and the group of their frame, so that a `Cache` can keep them
    and let the frames go. The mean is of the merged embeddings that enter layer 0.

    Attributes:
        position: "share": a carrier has the position id of its frame's last token, and all other
            tokens keep theirs; "reindex": ids count up through the longer sequence (one axis).
        embedding: "mean" of the frame, or "token": that of a line break, so that a carrier knows
            its frame by attention alone.
        stream: the order of a stream: tokens of a frame are seen by their own frame and by its
            carrier only; later frames and the text see the carriers.
        reads: what later tokens read of a carrier: its "both" key and value; its "key" (its value
            is 0: it takes attention and gives nothing); its "value" (its key is 0: it is scored
            0 by every query).
    """

    place: ClassVar[str] = "tokens before the language model"
    source: ClassVar[str] = "VideoScan (2025, arXiv 2503.09387)"
    always_shown: ClassVar[tuple[str, ...]] = ("position",)

    position: str = "share"
    embedding: str = "mean"
    stream: bool = False
    reads: str = "both"

    def listens(self, event: str) -> bool:
        if event == "edit":
            return self.stream or self.reads == "value"
        return super().listens(event) and (event != "head_outputs" or self.reads == "key")

    def prepare(self, model: VideoModel, x: Example) -> Example:
        """The example with a carrier behind the last token of each frame."""
        self._check(x)
        if not x.layout.clips:
            return x
        if ROLE in x.layout.role:
            raise ProbeError(f"{self.kind}: the frames have their carriers already")
        last = _ends(x.layout)
        token = model.tokenizer.encode("\n", add_special_tokens=False)[-1]
        return inserted(x, last, token, self.position)

    def _check(self, x: Example) -> None:
        if self.position not in ("share", "reindex"):
            raise ProbeError(f'{self.kind}: position={self.position!r}; write "share", "reindex"')
        if self.embedding not in ("mean", "token"):
            raise ProbeError(f'{self.kind}: embedding={self.embedding!r}; write "mean", "token"')
        if self.reads not in READS:
            raise ProbeError(f"{self.kind}: reads={self.reads!r}; there are {', '.join(READS)}")
        ids = x.inputs.get("position_ids")
        if self.position == "reindex" and ids is not None and ids.dim() == 3:
            raise ProbeError(
                f'{self.kind}: position="reindex" has no meaning for rotary positions with three '
                'axes; use position="share"'
            )

    def effect(self, lengths: Lengths) -> Lengths | None:
        """One more token a frame in every layer, which no choice among visual tokens concerns."""
        if not any(lengths.visual):
            return lengths
        frames = lengths.frames
        return None if frames is None else replace(lengths, text=lengths.text + len(frames))

    def start(self, session: Session) -> dict | None:
        """Neutral without a clip."""
        if ROLE not in session.layout.role:
            return None
        layout = session.layout
        here = np.flatnonzero(layout.role == ROLE)
        video = layout.select("video")
        frames = [video[layout.group[video] == layout.group[at]] for at in here]
        return {"carriers": here, "frames": frames, "fired": self.embedding == "token"}

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> Tensor | None:
        """Carriers enter layer 0 as the mean of their frame."""
        if layer or session.step or self.embedding == "token":
            return None
        rows, changed = session.positions[0], x.clone()
        for carrier, frame in zip(state["carriers"], state["frames"], strict=True):
            inside = torch.as_tensor(np.flatnonzero(np.isin(rows, frame)), device=x.device)
            if len(inside) and carrier in rows:
                at = int(np.searchsorted(rows, carrier))
                changed[at] = x[inside].float().mean(0).to(x.dtype)
                state["fired"] = True
        return changed

    def edit(self, session: Session, state: dict, call: AttentionCall) -> None:
        """Nothing behind its carrier sees a frame; keys of carriers are 0."""
        carriers = state["carriers"]
        rows = call.index(call.positions[call.positions > carriers[0]])
        if self.reads == "value" and len(columns := call.key_index(carriers)) and len(rows):
            query, key = call.query[:, rows], torch.zeros_like(call.key[:, columns])
            call.rescore(rows, columns, query, key)
        if not self.stream:
            return
        until = np.full(len(session.layout), len(session.layout))
        for carrier, frame in zip(carriers, state["frames"], strict=True):
            until[frame] = carrier
        keys = torch.as_tensor(until[call.key_positions], device=call.key.device)
        own = torch.as_tensor(call.positions, device=call.key.device)
        call.hide(rows, lambda some: own[some][:, None] > keys[None])

    def head_outputs(
        self, session: Session, state: dict, call: AttentionCall, y: Tensor
    ) -> Tensor | None:
        """The heads' output without the values of carriers."""
        columns = call.key_index(state["carriers"])
        if self.reads != "key" or not len(columns):
            return None
        y, value = y.clone(), call.value[:, columns].float()
        value = value.repeat_interleave(call.group_size, 0)
        for rows in call.index(call.positions[call.positions > state["carriers"][0]]).split(ROWS):
            given = call.scores(rows).softmax(-1)[:, :, columns] @ value
            y[rows] -= given.transpose(0, 1).to(y.dtype)
        return y

    def finish(self, session: Session, state: dict) -> None:
        """Carriers stood for some token."""
        if not state["fired"]:
            raise ProbeError(f"{self}: no frame is left to stand for; the ablation did not fire")


def _ends(layout: Layout) -> np.ndarray:
    """Position of the last token of each frame that has tokens."""
    video = layout.role == "video"
    groups = np.unique(layout.group[video & (layout.group >= 0)])
    return np.array([np.flatnonzero(video & (layout.group == g))[-1] for g in groups])


def inserted(x: Example, after: np.ndarray, token: int, position: str) -> Example:
    """The example with a token behind each of some positions.

    Args:
        x: the example.
        after: positions, sorted; a new one takes the group and the clip of the one before it.
        token: id of the new tokens.
        position: "share" or "reindex", as in `Carrier`.
    """
    old, count = x.layout, len(x.layout)
    inputs: dict[str, Any] = {}
    where = torch.as_tensor(np.sort(np.concatenate([np.arange(count), after])))
    new = np.zeros(len(where), bool)
    new[after + 1 + np.arange(len(after))] = True
    mark = torch.as_tensor(new)
    fills = {"input_ids": token, "attention_mask": 1}
    for name, value in x.inputs.items():
        if value.shape[-1] != count or value.shape[-2:-1] != (1,):
            inputs[name] = value
            continue
        inputs[name] = value[..., where.to(value.device)]
        if name != "position_ids":
            inputs[name][..., mark.to(value.device)] = fills.get(name, 0)
        elif position == "reindex":
            counted = torch.arange(len(where), device=value.device)
            inputs[name] = counted.expand_as(inputs[name]).to(value)
    index = where.numpy()
    role = old.role[index].astype("<U16")
    role[new] = ROLE
    tokens = np.array(old.tokens, dtype=object)[index]
    tokens[new] = f"<{ROLE}>"
    places = {name: np.where(new, -1, getattr(old, name)[index]) for name in ("row", "col")}
    moved = np.flatnonzero(~new)
    layout = replace(
        old,
        tokens=tuple(tokens.tolist()),
        role=role,
        group=old.group[index],
        visual=old.visual[index],
        last=int(moved[old.last]),
        readout=moved[old.readout],
        **places,
    )
    return replace(x, inputs=inputs, layout=layout)
