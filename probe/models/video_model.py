"""VideoModel: a checkpoint one can encode for, run, ablate and generate with."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from probe.errors import ProbeError
from probe.models.encode import Example, append, continuation, encode
from probe.models.family import Family, module
from probe.models.given import Turn, turns, visual

if TYPE_CHECKING:
    import pandas as pd

    from probe.ablate.base import Ablation
    from probe.capture.base import Capture
    from probe.engine.result import Run


# By the model underneath: two VideoModels may share one.
_locks: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()


class VideoModel:
    """A video multimodal LLM and what probe knows about it.

    Attributes:
        hf, processor: the Hugging Face objects underneath.
        name: what it was loaded by.
        family: data of its family.
        n_layers, n_heads, n_kv_heads, head_dim, width: shape of the text decoder.
    """

    def __init__(self, hf: Any, processor: Any, family: Family, name: str) -> None:
        family = family if family.adapt is None else family.adapt(family, hf.config)
        self.hf, self.processor, self.family, self.name = hf, processor, family, name
        self.lock = _locks.setdefault(hf, threading.Lock())
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
        """The vision tower."""
        return module(self.hf, self.family.vision)

    @property
    def head(self) -> Any:
        """The unembedding."""
        return module(self.hf, self.family.head)

    def output(self, layer: int) -> Any:
        """The output projection of a layer's attention."""
        return self.layers[layer].get_submodule(self.family.output)

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    def encode(
        self,
        video: Any,
        question: str,
        answer: str | None = None,
        options: Sequence[str] | None = None,
        frames: int | None = 16,
        *,
        fps: float | None = None,
        times: Sequence[float] | np.ndarray | None = None,
        seconds: Sequence[float] | np.ndarray | None = None,
        stream: int | None = None,
        allow_partial: bool = False,
        system: str | None = None,
    ) -> Example:
        """Encode a clip and a question with the checkpoint's own processor and template.

        Args:
            video: path, array [time, height, width, 3] of uint8, a `Clip`, or None for no clip;
                an image is a path with an image's ending, an array [height, width, 3] or a PIL
                image. A list of them puts several before the question.
            question: what is asked.
            answer: text that follows the prompt (teacher forcing); the readout covers it.
            options: choices, listed in the prompt as "A. ...".
            frames: number of frames, uniformly over the clip; an array or a `Clip` with no more
                frames than this is taken as it is.
            fps, times: sample at a rate, or at given seconds, instead.
            seconds: times of the frames of an array.
            stream: number of the video stream in the file.
            allow_partial: accept a file that ends early.
            system: system prompt.

        Raises:
            ProbeError: bad input; one line that says what and what to do.
        """
        how: dict[str, Any] = {"fps": fps, "times": times, "stream": stream}
        how |= {"frames": frames, "allow_partial": allow_partial}
        if seconds is not None:
            how["seconds"] = seconds
        given = video if isinstance(video, list | tuple) else [] if video is None else [video]
        shown = [visual(one, **how) for one in given]
        talk = [Turn("user", (*shown, (question or "").strip()))]
        if system and system.strip():
            talk.insert(0, Turn("system", (system.strip(),)))
        return encode(self.hf, self.processor, self.family, talk, answer, options)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        answer: str | None = None,
        options: Sequence[str] | None = None,
        **how: Any,
    ) -> Example:
        """Encode a conversation of several turns, with clips and images anywhere in it.

        Args:
            messages: [{"role": "user", "content": [{"type": "video", "video": "clip.mp4"},
                {"type": "text", "text": "What moves?"}]}, ...]; the last is the user's, and its
                text has the role "question", earlier ones "history".
            answer, options: as in `encode`.
            how: how clips are read: frames, fps, times, stream, allow_partial.

        Raises:
            ProbeError: bad input; one line that says what and what to do.
        """
        talk = turns(messages, **how)
        if not talk:
            raise ProbeError("chat: there is no message")
        return encode(self.hf, self.processor, self.family, talk, answer, options)

    def force(self, x: Example, ids: Sequence[int]) -> Example:
        """The example followed by these tokens as its answer, for instance generated ones."""
        return append(x, ids, self.tokenizer, self.tokenizer.decode(list(ids)))

    def run(
        self,
        x: Example,
        capture: Sequence[Capture] = (),
        ablate: Sequence[Ablation] = (),
        *,
        logits: str = "readout",
    ) -> Run:
        """One forward pass over the example, captured and ablated.

        Args:
            x: from `encode`.
            capture: what to read out.
            ablate: what to change.
            logits: "readout" for the readout positions, "all" for every position.

        Raises:
            ProbeError: bad arguments (before anything runs), not enough memory, an ablation that
                changed nothing, NaN or Inf in the logits.
        """
        from probe.engine.forward import run

        return run(self, x, capture, ablate, logits=logits)

    def generate(
        self,
        x: Example,
        capture: Sequence[Capture] = (),
        ablate: Sequence[Ablation] = (),
        **generation_kwargs: Any,
    ) -> Run:
        """Generate an answer; captures have a `step` dim, one entry per generated token.

        `generation_kwargs` go to transformers' `generate`; greedy, at most 64 new tokens, by
        default.
        """
        from probe.engine.generate import generate

        return generate(self, x, capture, ablate, **generation_kwargs)

    @contextmanager
    def ablated(self, x: Example, ablate: Sequence[Ablation]) -> Iterator[Any]:
        """The Hugging Face model with ablations on, for a user's own loop over `x.inputs`."""
        from probe.engine.session import Session

        with Session(self, x, (), ablate, layout=x.layout.extend(4096)) as session:
            yield self.hf
            session.finish()

    def estimate(self, x: Example, capture: Sequence[Capture] = ()) -> pd.DataFrame:
        """Memory in bytes that each part of a run will take, before it runs."""
        from probe.engine.memory import estimate

        return estimate(self, x, capture)

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
