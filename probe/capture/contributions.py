"""Contributions: what each layer, head and group of tokens adds to the answer's logit.

The final residual is the embedding plus the outputs of every attention and MLP. With the last
norm's scale frozen each term's product with the unembedding direction is its contribution, and
the contributions sum to the logit (or logit difference). A head's contribution splits exactly over
groups of source tokens: sum_j in group A[q, j] v_j W_O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.frozen_norm import gain, scale
from probe.capture.gather import array
from probe.errors import ProbeError
from probe.models.selection import Partition

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

PARTS = ("embedding", "attention", "mlp", "deepstack")


@dataclass(frozen=True)
class Contributions(Capture):
    """Direct contributions to the logit of `target` (minus that of `versus`) at one readout.

    Attributes:
        target: a word that is one token after this prompt, or a token id. In `generate` None
            takes the token that each step emits.
        versus: subtract this word's logit: the field's usual logit difference.
        step: which readout, 0 for the end of the prompt; `generate` reads every step.
        sources: groups of source tokens: "frames" (sums to the head's contribution), "roles", or
            a list of selections.
        by_position: also give each single token's share (in `run`, with a target).

    Results:
        contributions [layer, part]: embedding (in layer 0), attention, mlp, and deepstack in
            families that add vision features after early layers; sums to the logit.
        contributions_attention [layer, head, source_group].
        contributions_position [layer, position]: what attention brought from each token, summed
            over heads.
        contributions_logit: the logit (difference) itself; `contributions_error`: sum minus it.
    """

    target: str | int | None = None
    versus: str | int | None = None
    step: int = 0
    sources: Partition = "frames"
    by_position: bool = False

    def start(self, session: Session) -> dict:
        if self.target is None and not session.generating:
            raise ProbeError(f"{self.kind}: name a target, for example Contributions('red')")
        readout = session.layout.readout
        if not 0 <= self.step < len(readout):
            raise ProbeError(f"{self.kind}: step {self.step}; this example has {len(readout)}")
        ids = {
            name: session.model.token_id(session.example, text, f"{self.kind} {name}")
            for name, text in (("target", self.target), ("versus", self.versus))
            if text is not None
        }
        if self.by_position and (session.generating or self.target is None):
            raise ProbeError(f"{self.kind}: by_position needs model.run and a target")
        groups = session.layout.partition(self.sources)
        state = {"ids": ids, "row": readout[self.step], "groups": groups, "steps": []}
        if self.by_position:
            norm, head = session.model.decoder.norm, session.model.head.weight.detach()
            versus = head[ids["versus"]].float() if "versus" in ids else 0
            way = head[ids["target"]].float() - versus
            state["direction"] = gain(norm, session.model.width).to(way) * way
            state["positions"] = np.zeros((session.model.n_layers, len(session.layout)))
        return state

    def embedding(self, session: Session, state: dict, x: Tensor) -> None:
        row = self._row(session, state, 0, x)
        state["steps"].append({"embedding": row, "mixed": {}, "through": {}})

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        row = call.positions[-1:] if session.generating else np.array([state["row"]])
        weights = call.weights(call.index(row))[:, 0]
        onehot = torch.zeros(len(state["groups"]), call.key.shape[1], device=call.key.device)
        for number, positions in enumerate(state["groups"].values()):
            onehot[number, call.key_index(positions)] = 1
        values = call.value.float().repeat_interleave(call.group_size, 0)
        mixed = (weights[:, None] * onehot) @ values
        step = state["steps"][-1]
        step["mixed"][call.layer] = mixed.cpu()
        step["through"][call.layer] = self._after(session, call, int(call.index(row)[0]))
        if self.by_position:
            after = step["through"][call.layer]
            way = state["direction"].float().to(values.device)
            way = way if after is None else way * after.to(way)
            by_head = way @ session.model.output_matrix(call.layer).to(way)
            each = torch.einsum("hnd,hd->hn", values, by_head.view(call.heads, -1))
            each = (weights * each).sum(0).cpu().numpy()
            state["positions"][call.layer, call.key_positions] = each

    def output(self, session: Session, state: dict, layer: int, part: str, y: Tensor) -> None:
        state["steps"][-1][part, layer] = self._row(session, state, layer, y)

    def final(self, session: Session, state: dict, x: Tensor) -> None:
        state["steps"][-1]["final"] = self._row(session, state, session.model.n_layers - 1, x)

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        stacked = any(key[0] == "deepstack" for step in state["steps"] for key in step)
        state["parts"] = list(PARTS if stacked else PARTS[:3])
        results = [self._step(session, state, number) for number in range(len(state["steps"]))]
        layers = np.arange(session.model.n_layers)
        heads = np.arange(session.model.n_heads)
        of = (
            f"logit of '{self.target}'" if self.target is not None else "logit of the emitted token"
        )
        of += f" minus logit of '{self.versus}'" if self.versus is not None else ""

        def made(name: str, dims: list[str], coords: dict) -> xr.DataArray:
            values = np.stack([result[name] for result in results])
            values = values if session.generating else np.asarray(values[0])
            return array(session, values, dims, coords, "logit", f"contribution to the {of}")

        tables = {"layer": layers, "head": heads, "source_group": list(state["groups"])}
        parts = made("parts", ["layer", "part"], {"layer": layers, "part": state["parts"]})
        found = {
            self.kind: parts,
            f"{self.kind}_attention": made("heads", ["layer", "head", "source_group"], tables),
            f"{self.kind}_logit": made("logit", [], {}),
            f"{self.kind}_error": made("error", [], {}),
        }
        if self.by_position:
            values = state["positions"] * results[0]["scale"]
            coords = {"layer": layers, "position": np.arange(values.shape[1])}
            name = f"{self.kind}_position"
            about = f"contribution of the token through attention to the {of}"
            found[name] = array(session, values, ["layer", "position"], coords, "logit", about)
        return found

    def memory(self, session: Session) -> int:
        groups = len(session.layout.partition(self.sources))
        shape = session.model.n_layers * session.model.n_heads * session.model.head_dim
        steps = len(session.layout.readout) if session.generating else 1
        return 4 * steps * shape * groups

    def _row(self, session: Session, state: dict, layer: int, x: Tensor) -> Tensor:
        positions = session.positions[layer]
        row = -1 if session.generating else int(np.searchsorted(positions, state["row"]))
        return x[row].detach().float().cpu()

    def _after(self, session: Session, call: AttentionCall, row: int) -> Tensor | None:
        """Per channel, what a norm behind the attention multiplies its output with at this row;
        None in families without one.
        """
        family = session.model.family
        if family.added[0] == family.attention:
            return None
        norm = session.model.layers[call.layer].get_submodule(family.added[0])
        own = session.model.output(call.layer)(call.output[row].flatten())
        return (gain(norm, session.model.width) * scale(norm, own)).cpu()

    def _step(self, session: Session, state: dict, number: int) -> dict[str, np.ndarray]:
        model = session.model
        step: dict[Any, Any] = state["steps"][number]
        final = step["final"].double()
        direction, bias = self._direction(session, state, number)
        norm = model.decoder.norm
        scaled = scale(norm, final)
        direction = direction * gain(norm, model.width).cpu().double() * scaled
        parts = np.zeros((model.n_layers, len(state["parts"])))
        heads = np.zeros((model.n_layers, model.n_heads, len(state["groups"])))
        parts[0, 0] = float(step["embedding"].double() @ direction)
        for layer in range(model.n_layers):
            parts[layer, 1] = float(step["attention", layer].double() @ direction)
            parts[layer, 2] = float(step["mlp", layer].double() @ direction)
            if ("deepstack", layer) in step:
                parts[layer, 3] = float(step["deepstack", layer].double() @ direction)
            after = step["through"][layer]
            way = direction if after is None else direction * after.double()
            by_head = way @ model.output_matrix(layer).cpu().double()
            by_head = by_head.view(model.n_heads, -1)
            mixed = step["mixed"][layer].double()
            heads[layer] = torch.einsum("hgd,hd->hg", mixed, by_head).numpy()
        logit = float(final @ direction)
        error = np.array(parts.sum() - logit)
        logit = np.array(logit + bias)
        return {
            "parts": parts,
            "heads": heads,
            "logit": logit,
            "error": error,
            "scale": np.array(scaled),
        }

    def _direction(self, session: Session, state: dict, number: int) -> tuple[Tensor, float]:
        head = session.model.head
        weight = head.weight.detach()
        ids = dict(state["ids"])
        if "target" not in ids:
            ids["target"] = session.emitted[number]
        bias = getattr(head, "bias", None)
        plus = weight[ids["target"]].cpu().double()
        offset = float(bias[ids["target"]].detach()) if bias is not None else 0.0
        if "versus" in ids:
            plus = plus - weight[ids["versus"]].cpu().double()
            offset -= float(bias[ids["versus"]].detach()) if bias is not None else 0.0
        return plus, offset
