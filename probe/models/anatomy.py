"""A checkpoint and its parts: where they are in its family, and the shape of its decoder."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from probe.errors import ProbeError
from probe.models.encode import Example, continuation
from probe.models.family import Family, module, of_checkpoint
from probe.models.linear import matrix

# By the model underneath: two VideoModels may share one.
_locks: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()


class Anatomy:
    """A checkpoint and what probe knows about it.

    Attributes:
        hf, processor: the Hugging Face objects underneath.
        name: what it was loaded by.
        family: data of its family.
        lock: held during a run; shared by everything that uses the same `hf`.
        n_layers, n_heads, n_kv_heads, head_dim, width: shape of the text decoder.
        feature_cache: keeps vision features of clips for later runs
            (`probe.study.features.FeatureCache`); None: every run computes them.
    """

    def __init__(self, hf: Any, processor: Any, family: Family, name: str) -> None:
        family = of_checkpoint(family, hf.config)
        self.hf, self.processor, self.family, self.name = hf, processor, family, name
        self.lock = _locks.setdefault(hf, threading.Lock())
        self.feature_cache: Any = None
        config = hf.config.get_text_config()
        self.n_layers: int = config.num_hidden_layers
        self.n_heads: int = config.num_attention_heads
        self.n_kv_heads: int = config.num_key_value_heads
        self.width: int = config.hidden_size
        self.head_dim: int = getattr(config, "head_dim", None) or self.width // self.n_heads

    def __repr__(self) -> str:
        return (
            f"VideoModel({self.name}: {self.family.title}, {self.n_layers} layers, "
            f"{self.n_heads} heads, width {self.width})"
        )

    @property
    def decoder(self) -> Any:
        """The text decoder."""
        return module(self.hf, self.family.decoder)

    @property
    def layers(self) -> Any:
        """The decoder's layers."""
        return self.decoder.layers

    @property
    def vision(self) -> Any:
        """The vision tower; None where the family has none."""
        return None if self.family.vision is None else module(self.hf, self.family.vision)

    @property
    def head(self) -> Any:
        """The unembedding."""
        return module(self.hf, self.family.head)

    def output(self, layer: int) -> Any:
        """The output projection of a layer's attention."""
        return self.layers[layer].get_submodule(self.family.output)

    def mlp_output(self, layer: int) -> Any:
        """The output projection of a layer's MLP, which its hidden units go into; None in a layer
        that has no single one (a mixture of experts).
        """
        mlp = self.layers[layer].get_submodule(self.family.mlp)
        children = dict(mlp.named_children())
        names = () if "experts" in children else ("down_proj", "fc2", "ff_out", "w2")
        return next((children[name] for name in names if name in children), None)

    def output_matrix(self, layer: int) -> Tensor:
        """[width, head x channel]: the map that the output projection is, whatever it is stored as
        (4-bit weights, an adapter beside the weights).
        """
        return matrix(self.output(layer), self.n_heads * self.head_dim)

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    def token_id(self, x: Example, text: str | int, owner: str) -> int:
        """The single token that `text` is when it continues the prompt of `x`; an id is itself.

        Raises:
            ProbeError: not exactly one token, or an id that the vocabulary does not have.
        """
        if isinstance(text, int):
            if not 0 <= text < self.head.weight.shape[0]:
                raise ProbeError(f"{owner}: there is no token id {text} in the vocabulary")
            return text
        found = continuation(self.tokenizer, x.prompt, text)
        if len(found) != 1:
            pieces = ", ".join(repr(piece) for piece in self.decode_each(found))
            raise ProbeError(
                f"{owner}: '{text}' is {len(found)} tokens ({pieces}) after this prompt; "
                "name a word that is one token, or a token id"
            )
        return found[0]

    def decode_each(self, ids: Sequence[int]) -> list[str]:
        """The text of each token by itself."""
        return [self.tokenizer.decode([int(token)]) for token in ids]

    def position_ids(self, x: Example, rows: np.ndarray) -> Tensor:
        """Explicit position ids [1, row], or [3, 1, row] for rotary positions with three axes;
        tokens after the prompt continue from its last id.
        """
        known = x.inputs.get("position_ids")
        if known is None:
            known = torch.arange(x.inputs["input_ids"].shape[1], device=self.hf.device)[None]
        beyond = int(known.max()) + 1 + torch.arange(max(0, int(rows[-1]) + 1 - known.shape[-1]))
        more = beyond.to(known).expand(*known.shape[:-1], -1)
        return torch.cat([known, more], dim=-1)[..., torch.as_tensor(rows, device=known.device)]
