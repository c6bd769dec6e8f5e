"""Patch: activations of another run, put in at named places of this one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.ablate.base import Ablation
from probe.ablate.scale import chosen, resolve_heads
from probe.ablate.stored import Stored, hold, matched, plain
from probe.capture.activations import SITES
from probe.errors import ProbeError
from probe.models.selection import NoClip, Selection
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

TILE = 64  # rows that are computed anew at once


@dataclass(frozen=True)
class Patch(Ablation):
    """Put the activations of another run in the place of this run's.

    A clean run into a corrupted one is denoising, a corrupted one into a clean one noising; a
    run into itself with `at="frame 0", to="frame 3"` carries one frame over to another. In
    families that add vision features after early layers, those of this run are still added.

    Attributes:
        run: the other run, with `Activations(site, positions)`, or the safetensors file of one
            (`probe.interop.save_activations`); a file must be of a prompt with this layout.
        at: which positions of the other run; [] is neutral.
        layers: which layers.
        site: "residual" (enters the layer), "attention" or "mlp" (what it adds), "head" (each
            head's mix of values before the output projection).
        heads: which heads, where the site is "head".
        to: which positions here take them, in order and as many; `at` by default. They are
            positions of the prompt: generated tokens are never patched.
        readers: only what the attention of these rows reads of the patched tokens is the other
            run's, and all other rows go on as before: the direct path from the tokens, as they
            enter a layer, to these rows. Takes a run with `KeysValues(positions)`; the tokens
            keep their positions. "readout" and "text" include generated tokens.
    """

    place: ClassVar[str] = "heads and MLPs"
    source: ClassVar[str] = "activation and path patching (arXiv 2202.05262, 2304.05969)"
    always_shown: ClassVar[tuple[str, ...]] = ("at", "layers")

    run: Any
    at: Selection = "all"
    layers: Layers = "all"
    site: str = "residual"
    heads: Layers = "all"
    to: Selection | None = None
    readers: Selection | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "run", hold(self.run))
        super().__post_init__()

    def to_json(self) -> dict[str, Any]:
        return plain(super().to_json())

    @property
    def acts(self) -> str:
        if self.readers is not None:
            return "attention mask"
        return "residual stream" if self.site == "residual" else self.place

    def listens(self, event: str) -> bool:
        used = {"residual": "residual", "head": "head_outputs"}.get(self.site, "output")
        if self.readers is not None:
            used = "head_outputs"
        unused = event in ("residual", "head_outputs", "output") and event != used
        return super().listens(event) and not unused

    def start(self, session: Session) -> dict | None:
        self._check()
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        heads = resolve_heads(self.heads, session.model.n_heads, self.kind)
        if chosen(session, self.at if self.to is None else self.to) is None:
            return None
        try:
            there, here = matched(self.run, self.at, self.to, session, self.kind)
        except NoClip as error:  # this prompt has a clip, the other one has not
            raise ProbeError(f"{self.kind}: the other run: {error}") from None
        state = {"layers": layers, "heads": heads, "there": there, "here": here, "fired": False}
        sites = (self.site,) if self.readers is None else ("key", "value")
        state["stored"] = {site: Stored(self.run, session, site, self.kind) for site in sites}
        for stored in state["stored"].values():
            stored.check(layers, there)
        if self.readers is not None:
            state["readers"] = self._readers(session, self.readers, there, here)
        return state

    def _check(self) -> None:
        if self.site not in SITES:
            raise ProbeError(f'{self.kind}: site "{self.site}"; there are {", ".join(SITES)}')
        if self.site != "head" and self.heads != "all":
            raise ProbeError(f'{self.kind}: site "{self.site}" has no heads; write site="head"')
        if self.readers is not None and self.site != "residual":
            raise ProbeError(
                f"{self.kind}: readers= follows the stream that enters a layer; "
                'leave site="residual"'
            )

    def _readers(
        self, session: Session, named: Selection, there: np.ndarray, here: np.ndarray
    ) -> np.ndarray:
        if not np.array_equal(there, here):
            raise ProbeError(
                f"{self.kind}: with readers= the tokens keep their positions (keys are rotated); "
                "at and to must be the same positions in both runs"
            )
        readers = session.layout.select(named)
        if readers[-1] < here[0]:
            raise ProbeError(f"{self.kind}: readers={named!r} come before the tokens")
        return readers

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> Tensor | None:
        if self.site != "residual" or self.readers is not None:
            return None
        return self._put(session, state, layer, x)

    def output(
        self, session: Session, state: dict, layer: int, part: str, y: Tensor
    ) -> Tensor | None:
        return self._put(session, state, layer, y) if part == self.site else None

    def head_outputs(
        self, session: Session, state: dict, call: AttentionCall, y: Tensor
    ) -> Tensor | None:
        if self.readers is not None:
            return self._read(state, call, y)
        return self._put(session, state, call.layer, y) if self.site == "head" else None

    def _put(self, session: Session, state: dict, layer: int, y: Tensor) -> Tensor | None:
        """[row, ...] with the other run's values at the rows that are patched."""
        here = session.positions[layer]
        rows = np.flatnonzero(np.isin(here, state["here"]))
        if layer not in state["layers"] or not len(rows):
            return None
        order = np.searchsorted(state["here"], here[rows])
        new = state["stored"][self.site].of(layer, state["there"][order]).to(y)
        changed, index = y.clone(), torch.as_tensor(rows, device=y.device)
        if self.site == "head":
            heads = torch.as_tensor(state["heads"], device=y.device)
            changed[index[:, None], heads] = new[:, heads]
        else:
            changed[index] = new
        state["fired"] |= not torch.equal(changed, y)
        return changed

    def _read(self, state: dict, call: AttentionCall, y: Tensor) -> Tensor | None:
        """[row, head, channel] with what the readers read of the patched tokens replaced."""
        rows, columns = call.index(state["readers"]), call.key_index(state["here"])
        if call.layer not in state["layers"] or not len(rows) or not len(columns):
            return None
        for edited, scored, _, _ in call.edits.scored:
            if torch.isin(edited, rows).any() and torch.isin(scored, columns).any():
                raise ProbeError(
                    f"{self}: another ablation scores these edges by vectors of its own (NoRope, "
                    "Rope), which would not be the other run's; use one of the two"
                )
        known = call.key_positions[columns.cpu().numpy()]
        vectors = {"key": call.key.clone(), "value": call.value.clone()}
        for site, vector in vectors.items():
            theirs = state["stored"][site].of(call.layer, known).transpose(0, 1).to(vector)
            state["fired"] |= not torch.equal(vector[:, columns], theirs)
            vector[:, columns] = theirs
        other = replace(call, **vectors, _weights={})
        changed = y.clone()
        for part in rows.split(TILE):
            changed[part] += (_mixed(other, part) - _mixed(call, part)).to(y)
        return changed

    def affects(self, session: Session, state: dict) -> tuple[int, int]:
        rows = state["here"] if self.readers is None else state["readers"]
        return state["layers"][0], int(rows[0])

    def finish(self, session: Session, state: dict) -> None:
        if not state["fired"] and not session.force:
            raise ProbeError(
                f"{self}: the other run's activations are the same numbers as this run's; "
                "the ablation did not fire"
            )


def _mixed(call: AttentionCall, rows: Tensor) -> Tensor:
    """[row, head, channel] in float32: the heads' mixes of values, edits applied."""
    weights = call.scores(rows).softmax(-1).nan_to_num()
    grouped = weights.view(call.key.shape[0], -1, *weights.shape[1:])
    return (grouped @ call.value.float()[:, None]).flatten(0, 1).transpose(0, 1)
