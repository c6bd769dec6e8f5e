"""Gradients of a logit: gradient times input, and attribution patching.

Both are first-order: what the logit would change by, if the model were linear around this run.
They run backward through the decoder once, so they keep its activations of all layers in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.capture.activations import SITES
from probe.capture.base import Capture
from probe.capture.gather import array
from probe.errors import ProbeError
from probe.models.selection import Selection
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session


@dataclass(frozen=True)
class LogitGradient(Capture):
    """Base of captures that read gradients of `target`'s logit (minus that of `versus`).

    Attributes:
        target: a word that is one token after this prompt, or a token id.
        versus: subtract this word's logit.
        step: which readout, 0 for the end of the prompt.
    """

    needs_gradient: ClassVar[bool] = True

    target: str | int
    versus: str | int | None = None
    step: int = 0

    def start(self, session: Session) -> dict:
        """Check what every gradient needs."""
        if session.generating:
            raise ProbeError(
                f"{self.kind}: reads one forward pass; after generate, "
                'model.run(model.force(x, run.meta["generated"]), ...) reads any of its steps'
            )
        readout = session.layout.readout
        if not 0 <= self.step < len(readout):
            raise ProbeError(f"{self.kind}: step {self.step}; this example has {len(readout)}")
        words = [("target", self.target), ("versus", self.versus)]
        ids = [
            session.model.token_id(session.example, word, f"{self.kind} {name}")
            for name, word in words
            if word is not None
        ]
        return {"ids": ids, "row": readout[self.step], "traced": {}}

    def backward(self, session: Session, state: dict, logits: Tensor) -> None:
        """Gradients of the logit (difference) with respect to what was traced."""
        every = len(logits) != len(session.layout.readout)
        row = logits[int(state["row"]) if every else self.step].float()
        goal = row[state["ids"][0]] - (row[state["ids"][1]] if len(state["ids"]) > 1 else 0.0)
        traced = state.pop("traced")
        found = torch.autograd.grad(goal, list(traced.values()), retain_graph=True)
        state["pairs"] = {
            layer: (x.detach()[0], gradient[0])
            for (layer, x), gradient in zip(traced.items(), found, strict=True)
        }

    @property
    def of(self) -> str:
        """What it is a gradient of, for descriptions."""
        versus = "" if self.versus is None else f" minus logit of '{self.versus}'"
        return f"logit of '{self.target}'{versus}"

    def memory(self, session: Session) -> int:
        """The decoder's activations of all layers, kept for the way back (a rough count)."""
        model = session.model
        config = model.hf.config.get_text_config()
        widths = 8 * model.width + 3 * config.intermediate_size
        return model.n_layers * len(session.layout) * widths * model.hf.dtype.itemsize


@dataclass(frozen=True)
class GradientTimesInput(LogitGradient):
    """Gradient times input at the merged embeddings (Shrikumar et al. 2016, arXiv 1605.01713).

    Result: gradient_times_input [position], summed over channels; NaN where a token is dropped
    before the first layer. Paint it onto the frames with `x.layout.paint`.
    """

    def trace(self, session: Session, state: dict, site: str, layer: int, x: Tensor) -> None:
        if site == "residual" and layer == 0:
            state["traced"][0] = x

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        x, gradient = state["pairs"][0]
        values = np.full(len(session.layout), np.nan, np.float32)
        values[session.positions[0]] = (x.float() * gradient.float()).sum(-1).cpu().numpy()
        coords = {"position": np.arange(len(values))}
        about = f"gradient times input at the merged embedding, {self.of}"
        return {self.kind: array(session, values, ["position"], coords, "logit", about)}


@dataclass(frozen=True)
class AttributionPatching(LogitGradient):
    """Attribution patching (Nanda 2023; Syed et al. 2023, arXiv 2310.10348).

    First-order estimate of how the logit (difference) of this run would change, if the activation
    at one place were that of a clean run: (clean - this run's) . gradient, for every place at once.

    Attributes:
        clean: safetensors file of the clean run, with `Activations(site, positions, layers)` at
            least at these positions and layers: `probe.interop.save_activations(run, file)`. The
            two prompts must have the same layout.
        site: "residual" (enters the layer), "attention" or "mlp" (what it adds), or "head".
        positions, layers: where.

    Result: attribution_patching [layer, position], and [layer, position, head] for "head"; NaN
    where a token does not exist in one of the runs.
    """

    clean: str = ""
    site: str = "residual"
    positions: Selection = "all"
    layers: Layers = "all"

    def start(self, session: Session) -> dict:
        if self.site not in SITES:
            raise ProbeError(f'{self.kind}: site "{self.site}"; there are {", ".join(SITES)}')
        state = super().start(session)
        state["layers"] = resolve_layers(self.layers, session.model.n_layers, self.kind)
        state["positions"] = session.layout.select(self.positions)
        state["clean"] = self._clean(session, state)
        return state

    def _clean(self, session: Session, state: dict) -> xr.DataArray:
        """The clean run's activations at these places, not yet read."""
        from probe.interop.safetensors import open_activations, variables

        if not self.clean:
            raise ProbeError(f'{self.kind}: name the clean run\'s file, clean="run.safetensors"')
        sites = {_site(attrs): name for name, attrs in reversed(variables(self.clean).items())}
        if self.site not in sites:
            raise ProbeError(
                f'{self.clean}: has no activations of site "{self.site}"; run the clean example '
                f'with Activations("{self.site}", positions="{self.positions}")'
            )
        found = open_activations(self.clean, sites[self.site])
        wanted = {"layer": list(state["layers"]), "position": state["positions"].tolist()}
        for dim, places in wanted.items():
            missing = sorted(set(places) - set(found[dim].values.tolist()))
            if missing:
                raise ProbeError(f"{self.clean}: {dim} {missing[0]} is not in this file")
        heads = self.site == "head"
        width = session.model.head_dim if heads else session.model.width
        there = found.sizes["head_channel" if heads else "channel"]
        if there != width:
            raise ProbeError(
                f"{self.clean}: {there} channels, this model has {width}; "
                "it is the file of another model"
            )
        return found.sel(wanted)

    def trace(self, session: Session, state: dict, site: str, layer: int, x: Tensor) -> None:
        if site == self.site and layer in state["layers"]:
            state["traced"][layer] = x

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        coords = {"layer": list(state["layers"]), "position": state["positions"]}
        if self.site == "head":
            coords["head"] = list(range(session.model.n_heads))
        values = np.full([len(labels) for labels in coords.values()], np.nan, np.float32)
        for number, layer in enumerate(state["layers"]):
            there = session.positions[layer]
            inside = np.isin(state["positions"], there)
            x, gradient = state["pairs"][layer]
            rows = torch.as_tensor(np.searchsorted(there, state["positions"][inside]))
            x, gradient = x[rows.to(x.device)], gradient[rows.to(x.device)]
            clean = state["clean"].isel(layer=number).values[inside]
            change = torch.from_numpy(clean).to(x.device) - x.float()
            values[number, inside] = (change * gradient.float()).sum(-1).cpu().numpy()
        about = f"(clean - this run) . gradient, {self.site}, {self.of}"
        return {self.kind: array(session, values, list(coords), coords, "logit", about)}


def _site(attrs: dict[str, Any]) -> str | None:
    """The site of the `Activations` that made a variable; None for another capture."""
    from probe.capture import captures
    from probe.spec import parse

    try:
        return getattr(parse(attrs.get("capture", ""), captures())[0], "site", None)
    except ProbeError:
        return None
