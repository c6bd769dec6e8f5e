"""Clips, images and a question become the model's inputs and their layout."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError
from probe.models import processing
from probe.models import prompt as prompts
from probe.models.arrange import arrange, readable
from probe.models.expansion import align, recording
from probe.models.given import Picture, Turn
from probe.models.layout import Layout
from probe.video import Clip

if TYPE_CHECKING:
    import torch

    from probe.models.family import Family

Shown = Clip | Sequence[Clip | Picture]  # what stands in place of a clip


@dataclass(frozen=True)
class Example:
    """One encoded example.

    Attributes:
        inputs: what the transformers model is called with; includes `position_ids`, [1, token]
            or [3, 1, token] for rotary positions with three axes.
        layout: what each position is.
        turns: the conversation: texts, clips and pictures as given, the options behind the last
            text.
        question, answer, options: as given.
        prompt: the text after the chat template, placeholders not expanded.
    """

    inputs: dict[str, torch.Tensor]
    layout: Layout
    turns: tuple[Turn, ...]
    question: str
    answer: str | None
    options: tuple[str, ...]
    prompt: str

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The clips in the order of the conversation."""
        return tuple(p for turn in self.turns for p in turn.parts if isinstance(p, Clip))

    @property
    def clip(self) -> Clip | None:
        """The first clip, or None."""
        return self.clips[0] if self.clips else None

    def again(self, model: Any, clips: Sequence[Shown]) -> Example:
        """The same conversation, options and answer with other clips, encoded as `encode` does.

        The tokens of the answer are the same ids, whatever the tokenizer would make of its text.

        Args:
            model: the model that encoded this.
            clips: what is shown in place of each clip, in their order: a clip, or several clips
                and pictures one after another.

        Raises:
            ProbeError: not one entry for each clip, or what `encode` refuses.
        """
        if len(clips) != len(self.clips):
            raise ProbeError(
                f"again: {len(clips)} clips for a conversation with {len(self.clips)}; give one "
                "entry for each"
            )
        turns = _showing(self.turns, clips)
        hf, processor = model.hf, model.processor
        x, _ = _encoded(hf, processor, model.family, turns, self.question, self.options)
        ids = self.inputs["input_ids"][0, self.layout.last + 1 :].tolist()
        if self.answer is None or not ids:
            return x
        return append(x, ids, processor.tokenizer, self.answer)


def encode(
    hf: Any,
    processor: Any,
    family: Family,
    turns: Sequence[Turn],
    answer: str | None = None,
    options: Sequence[str] | None = None,
) -> Example:
    """Encode with the checkpoint's own chat template and processor.

    Args:
        hf, processor, family: the model.
        turns: the conversation; the last is the user's, and its text is the question.
        answer: text that follows the prompt (teacher forcing).
        options: choices, listed behind the question.

    Raises:
        ProbeError: an empty question, a template that loses a text, or a processor that expands
            the prompt in a way the layout does not know.
    """
    question = " ".join(part for part in turns[-1].parts if isinstance(part, str)).strip()
    if not question or turns[-1].role != "user":
        raise ProbeError("the question is empty; ask something, for example --ask 'What moves?'")
    options = tuple(options or ())
    turns = (*turns[:-1], _with_options(turns[-1], _listed(options)))
    x, text = _encoded(hf, processor, family, turns, question, options)
    if answer is None:
        return x
    new = continuation(processor.tokenizer, text, answer)
    if not new:
        raise ProbeError("the answer is empty; leave answer=None to read at the prompt's end")
    return append(x, new, processor.tokenizer, answer)


def _encoded(
    hf: Any,
    processor: Any,
    family: Family,
    turns: tuple[Turn, ...],
    question: str,
    options: tuple[str, ...],
) -> tuple[Example, str]:
    """A conversation with its options in place, and its prompt as the processor expands it."""
    known = prompts.placeholders(processor, hf.config, family)
    prompts.refuse_placeholders(known, turns)
    prompt = prompts.render(processor, family.template, turns)
    spans = prompts.spans(processor, family.template, turns, prompt, _listed(options))
    clips = [part for turn in turns for part in turn.parts if isinstance(part, Clip)]
    pictures = [part for turn in turns for part in turn.parts if isinstance(part, Picture)]
    _check_frames(family, clips)
    copied, recorder = recording(processor)
    process = family.process or processing.process
    try:
        inputs = process(copied, prompt, *processing.tensors(clips, pictures))
    except ValueError as error:
        raise processing.refused(family, clips, error) from error
    text, offsets = inputs.pop("text", recorder.text), inputs.pop("offset_mapping", None)
    ids = inputs["input_ids"][0]
    if offsets is None:
        offsets = _offsets(processor.tokenizer, text, ids)
    expansion = align(prompt, text, prompts.pattern(known, family), recorder.texts(known))
    inputs = {
        name: value.to(hf.device, hf.dtype if value.is_floating_point() else None)
        for name, value in processing.as_tensors(inputs).items()
    }
    if family.takes_positions:
        inputs["position_ids"] = _positions(hf, inputs)
    layout = arrange(
        hf.config, family, processor, inputs, clips, pictures,
        known, expansion, spans, offsets,
    )  # fmt: skip
    return Example(inputs, layout, turns, question, None, options, prompt), text


def append(x: Example, ids: Sequence[int], tokenizer: Any, answer: str) -> Example:
    """The example followed by an answer's tokens (teacher forcing); the readout covers them."""
    import torch

    inputs = dict(x.inputs)
    count = len(x.layout)
    for name, value in x.inputs.items():
        if value.shape[-1] == count and value.shape[-2:-1] == (1,):
            fill = 1 if name == "attention_mask" else 0
            inputs[name] = value.new_full((*value.shape[:-1], count + len(ids)), fill)
            inputs[name][..., :count] = value
    inputs["input_ids"][0, count:] = torch.as_tensor(list(ids))
    if "position_ids" in inputs:
        first = int(x.inputs["position_ids"].max()) + 1
        inputs["position_ids"][..., count:] = torch.arange(first, first + len(ids))
    texts = tuple(readable(tokenizer, t) for t in tokenizer.convert_ids_to_tokens(list(ids)))
    longer = x.layout.extend(len(ids))
    role = longer.role.copy()
    role[count:] = "answer"
    readout = np.arange(x.layout.last, len(longer) - 1)
    layout = replace(longer, tokens=x.layout.tokens + texts, role=role, readout=readout)
    return replace(x, inputs=inputs, layout=layout, answer=answer)


def continuation(tokenizer: Any, text: str, more: str) -> list[int]:
    """Token ids of `more` as it would follow `text`."""
    before = tokenizer(text)["input_ids"]
    both = tokenizer(text + more)["input_ids"]
    if both[: len(before)] == before:
        return both[len(before) :]
    return tokenizer(more, add_special_tokens=False)["input_ids"]


def _listed(options: Sequence[str]) -> list[str]:
    return [f"{chr(65 + number)}. {option}".rstrip() for number, option in enumerate(options)]


def _with_options(turn: Turn, listed: Sequence[str]) -> Turn:
    last = max(place for place, part in enumerate(turn.parts) if isinstance(part, str))
    asked = "\n".join([str(turn.parts[last]), *listed])
    return Turn(turn.role, (*turn.parts[:last], asked, *turn.parts[last + 1 :]))


def _showing(turns: Sequence[Turn], clips: Sequence[Shown]) -> tuple[Turn, ...]:
    """The conversation with other visual parts in place of its clips."""
    shown = iter(clips)
    changed = []
    for turn in turns:
        parts: list[str | Clip | Picture] = []
        for part in turn.parts:
            new = next(shown) if isinstance(part, Clip) else part
            parts.extend([new] if isinstance(new, str | Clip | Picture) else new)
        changed.append(Turn(turn.role, tuple(parts)))
    return tuple(changed)


def _check_frames(family: Family, clips: Sequence[Clip]) -> None:
    for clip in clips:
        if family.frames is not None and len(clip) != family.frames:
            raise ProbeError(
                f"{family.title} takes {family.frames} frames a clip, not {len(clip)}; "
                f"encode with frames={family.frames}"
            )


def _positions(hf: Any, inputs: dict[str, Any]) -> Any:
    """Position ids as the model would make them from the whole inputs; it falls back to one axis
    where it has to make them from embeddings alone.
    """
    import torch

    ids = inputs["input_ids"]
    three_axes = getattr(getattr(hf, "model", None), "get_rope_index", None)
    if three_axes is None:
        return torch.arange(ids.shape[1], device=ids.device)[None]
    takes = inspect.signature(three_axes).parameters
    return three_axes(**{name: value for name, value in inputs.items() if name in takes})[0]


def _offsets(tokenizer: Any, text: str, ids: torch.Tensor) -> list[tuple[int, int]]:
    """Each token's characters in the expanded prompt."""
    if not getattr(tokenizer, "is_fast", False):
        raise ProbeError("this checkpoint's tokenizer has no offsets; load its fast tokenizer")
    encoded = tokenizer(text, return_offsets_mapping=True)
    if encoded["input_ids"] != ids.tolist():
        raise ProbeError("the processor expands this prompt in a way the layout does not know")
    return encoded["offset_mapping"]
