"""Plain transformers with hooks and edits of the tests' own: what ablations are held to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from probe.ablate import Ablation
from probe.capture import Activations
from probe.capture.keys_values import KeysValues
from probe.engine.result import Run
from probe.models.encode import Example
from probe.models.loading import load
from probe.models.video_model import VideoModel
from tests.families import models

FAMILIES = ["qwen2_5_vl", "internvl"]
NAMES = ["tiny", "other", *FAMILIES]
EVERY = [Activations(site, "all") for site in ("residual", "attention", "mlp", "head")]


def named(request: Any, name: str) -> VideoModel:
    """A fixture's model, or a family's."""
    return models.build(name) if name in models.NAMES else request.getfixturevalue(name)


def show(model: VideoModel, seed: int = 0, **more: Any) -> Example:
    """Noise frames and a question; another seed gives other frames and the same layout."""
    from tests import tiny

    clip = tiny.clip(model.family.frames or 5, 40, 60, seed)
    return model.encode(clip, "What moves?", frames=None, **more)


def two(model: VideoModel, **more: Any) -> tuple[Example, Example, Run]:
    """An example, another one of the same layout, and the other's run with all activations."""
    x, y = show(model, **more), show(model, seed=7, **more)
    return x, y, model.run(y, [*EVERY, KeysValues()])


def edited(model: VideoModel, edit: Callable[[VideoModel], None]) -> VideoModel:
    """A deep copy of the model, changed; the original stays as it is."""
    other = load((copy.deepcopy(model.hf), model.processor))
    with torch.no_grad():
        edit(other)
    return other


def logits(model: VideoModel, x: Example) -> np.ndarray:
    """[readout, vocab] of plain transformers."""
    with torch.no_grad():
        out = model.hf(**x.inputs, use_cache=False).logits[0]
    return out[x.layout.readout].numpy()


def generated(model: VideoModel, x: Example, count: int = 4) -> np.ndarray:
    """[step, vocab] of plain transformers' greedy generation."""
    inputs = {name: value for name, value in x.inputs.items() if name != "position_ids"}
    with torch.no_grad():
        out = model.hf.generate(
            **inputs,
            max_new_tokens=count,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    return torch.cat(out.logits).numpy()


class Rows:
    """Positions of the rows of each forward, for hooks that see the whole prompt and then one
    token at a time.
    """

    def __init__(self) -> None:
        self.next = 0

    def of(self, x: Tensor) -> np.ndarray:
        rows = np.arange(self.next, self.next + x.shape[1])
        self.next += x.shape[1]
        return rows


@contextmanager
def changed(module: nn.Module, change: Callable[[Tensor, np.ndarray], Tensor]) -> Iterator[None]:
    """What a module puts out is changed: (output [row, channel], positions) -> output."""
    rows = Rows()

    def hook(module: nn.Module, args: tuple, output: Any) -> Any:
        y = output[0] if isinstance(output, tuple) else output
        new = change(y[0].clone(), rows.of(y))[None]
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = module.register_forward_hook(hook)
    yield
    handle.remove()


@contextmanager
def given(module: nn.Module, change: Callable[[Tensor, np.ndarray], Tensor]) -> Iterator[None]:
    """What a module is given is changed: (input [row, channel], positions) -> input."""
    rows = Rows()

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        x = args[0] if args else kwargs["hidden_states"]
        new = change(x[0].clone(), rows.of(x))[None]
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    yield
    handle.remove()


def record(model: VideoModel, x: Example, module: nn.Module, inputs: bool = False) -> Tensor:
    """[row, channel]: what a module puts out (or is given) in the plain model."""
    seen: list[Tensor] = []

    def see(y: Tensor, rows: np.ndarray) -> Tensor:
        seen.append(y.clone())
        return y

    with (given if inputs else changed)(module, see):
        logits(model, x)
    return seen[0]


def part(model: VideoModel, layer: int, name: str) -> nn.Module:
    """The module whose output "attention" or "mlp" adds to the residual stream."""
    return model.layers[layer].get_submodule(
        dict(zip(("attention", "mlp"), model.family.added, strict=True))[name]
    )


def columns(model: VideoModel, head: int) -> slice:
    """Channels of a head in the input of the output projection."""
    return slice(head * model.head_dim, (head + 1) * model.head_dim)


@dataclass(frozen=True)
class Absent(Ablation):
    """Some tokens pass a layer by."""

    layer: int = 0
    what: str = "video"

    def bypass(self, session: Any, state: dict, layer: int, x: Tensor) -> np.ndarray | None:
        if layer != self.layer:
            return None
        gone = session.layout.select(self.what)
        return np.flatnonzero(~np.isin(session.positions[layer], gone))
