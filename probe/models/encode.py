"""A clip and a question become the model's inputs and their layout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError
from probe.models.layout import Layout

if TYPE_CHECKING:
    import torch

    from probe.models.family import Family
    from probe.video import Clip


_MARK = "\ue000probe\ue000"


@dataclass(frozen=True)
class Example:
    """One encoded example.

    Attributes:
        inputs: what the transformers model is called with; includes `position_ids`.
        layout: what each position is.
        clip: the frames the model sees, or None.
        question, answer, options: as given.
        prompt: the text after the chat template, placeholders not expanded.
    """

    inputs: dict[str, torch.Tensor]
    layout: Layout
    clip: Clip | None
    question: str
    answer: str | None
    options: tuple[str, ...]
    prompt: str


def encode(
    hf: Any,
    processor: Any,
    family: Family,
    clip: Clip | None,
    question: str,
    answer: str | None = None,
    options: Sequence[str] | None = None,
    system: str | None = None,
) -> Example:
    """Encode with the checkpoint's own chat template and processor.

    Raises:
        ProbeError: an empty question, or a template that loses it.
    """
    import torch

    if not question or not question.strip():
        raise ProbeError("the question is empty; ask something, for example --ask 'What moves?'")
    question, system = question.strip(), (system or "").strip()
    lines = [
        f"{chr(65 + number)}. {option}".rstrip() for number, option in enumerate(options or ())
    ]
    asked = "\n".join([question, *lines])
    tokenizer = processor.tokenizer
    video_id = getattr(hf.config, family.video_token)
    placeholder = tokenizer.convert_ids_to_tokens(video_id)
    _check_placeholders(hf.config, tokenizer, placeholder, asked + system)

    def render(asked: str, system: str) -> str:
        content = [{"type": "video"}] if clip is not None else []
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": asked}]}]
        if system:
            text = [{"type": "text", "text": system}]
            messages.insert(0, {"role": "system", "content": text})
        return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    prompt = render(asked, system)
    inputs = dict(processor(text=[prompt], return_tensors="pt", **_video_arguments(clip)))
    ids = inputs["input_ids"][0]
    repeated = int((ids == video_id).sum())

    def expand(text: str) -> str:
        return text.replace(placeholder, placeholder * repeated) if repeated else text

    text = expand(prompt)
    offsets = _offsets(tokenizer, text, ids)
    start = _find(text, expand(render(_MARK, system)), asked, "question")
    spans = {"question": (start, start + len(question))}
    for number, line in enumerate(lines, 1):
        before = spans["question" if number == 1 else f"option {number - 1}"][1] + 1
        spans[f"option {number}"] = (before, before + len(line))
    if system:
        start = _find(text, expand(render(asked, _MARK)), system, "system prompt")
        spans["system"] = (start, start + len(system))
    role = _roles(offsets, spans)
    inputs["position_ids"] = torch.arange(len(ids))[None]
    inputs = {
        name: value.to(hf.device, hf.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor)
    }
    layout = _layout(hf.config, family, tokenizer, ids, role, video_id, inputs, clip)
    x = Example(inputs, layout, clip, question, None, tuple(options or ()), prompt)
    if answer is None:
        return x
    new = continuation(tokenizer, text, answer)
    if not new:
        raise ProbeError("the answer is empty; leave answer=None to read at the prompt's end")
    return append(x, new, tokenizer, answer)


def append(x: Example, ids: Sequence[int], tokenizer: Any, answer: str) -> Example:
    """The example followed by an answer's tokens (teacher forcing); the readout covers them."""
    import torch

    inputs = dict(x.inputs)
    count = len(x.layout)
    for name, value in x.inputs.items():
        if value.dim() == 2 and value.shape[-1] == count:
            fill = 1 if name == "attention_mask" else 0
            inputs[name] = value.new_full((1, count + len(ids)), fill)
            inputs[name][:, :count] = value
    first = int(x.inputs["position_ids"].max()) + 1
    inputs["input_ids"][0, count:] = torch.as_tensor(list(ids))
    inputs["position_ids"][0, count:] = torch.arange(first, first + len(ids))
    texts = tuple(_readable(tokenizer, t) for t in tokenizer.convert_ids_to_tokens(list(ids)))
    longer = x.layout.extend(len(ids))
    role = longer.role.copy()
    role[count:] = "answer"
    layout = replace(longer, tokens=x.layout.tokens + texts, role=role, readout=longer.readout[:-1])
    return replace(x, inputs=inputs, layout=layout, answer=answer)


def _video_arguments(clip: Clip | None) -> dict[str, Any]:
    if clip is None:
        return {}
    import torch
    from transformers.video_utils import VideoMetadata

    lasts = clip.seconds[-1] - clip.seconds[0]
    rate = (len(clip) - 1) / lasts if lasts > 0 else 1.0
    height, width = clip.frames.shape[1:3]
    metadata = VideoMetadata(
        total_num_frames=len(clip),
        fps=float(rate),
        width=int(width),
        height=int(height),
        duration=float(len(clip) / rate),
        frames_indices=list(range(len(clip))),
    )
    frames = torch.from_numpy(np.ascontiguousarray(clip.frames)).permute(0, 3, 1, 2)
    return {"videos": [frames], "do_sample_frames": False, "video_metadata": [metadata]}


def _check_placeholders(config: Any, tokenizer: Any, video: str, text: str) -> None:
    image_id = getattr(config, "image_token_id", None)
    images = [] if image_id is None else [tokenizer.convert_ids_to_tokens(image_id)]
    for placeholder in [video, *images]:
        if placeholder in text:
            raise ProbeError(
                f"the question must not contain {placeholder}, the placeholder of a video or an "
                "image; write it another way"
            )


def _offsets(tokenizer: Any, text: str, ids: torch.Tensor) -> list[tuple[int, int]]:
    """Each token's characters in the prompt whose placeholders are expanded."""
    encoded = tokenizer(text, return_offsets_mapping=True)
    if encoded["input_ids"] != ids.tolist():
        raise ProbeError("the processor expands this prompt in a way the layout does not know")
    return encoded["offset_mapping"]


def _find(text: str, marked: str, part: str, what: str) -> int:
    """Where `part` starts in the prompt; `marked` is the prompt with a mark in its place.

    A search for the words themselves would find them in the template too ("user", "a").
    """
    end = len(text) - len(marked.partition(_MARK)[2])
    if _MARK not in marked or text[end - len(part) : end] != part:
        raise ProbeError(f"the chat template of this checkpoint does not keep the {what}")
    return end - len(part)


def _roles(offsets: list, spans: dict[str, tuple[int, int]]) -> np.ndarray:
    role = np.full(len(offsets), "template", dtype="<U16")
    for name, (start, end) in spans.items():
        for position, (a, b) in enumerate(offsets):
            if a < end and b > start:
                role[position] = name
    return role


def continuation(tokenizer: Any, text: str, more: str) -> list[int]:
    """Token ids of `more` as it would follow `text`."""
    before = tokenizer(text)["input_ids"]
    both = tokenizer(text + more)["input_ids"]
    if both[: len(before)] == before:
        return both[len(before) :]
    return tokenizer(more, add_special_tokens=False)["input_ids"]


def _layout(config, family, tokenizer, ids, role, video_id, inputs, clip) -> Layout:
    frames = 0 if clip is None else len(clip)
    grid = family.grid(config, inputs, frames) if clip is not None else None
    group, row, col = np.full((3, len(ids)), -1)
    places = np.flatnonzero(ids.numpy() == video_id)
    if grid is not None:
        if len(places) != len(grid.role):
            raise ProbeError(
                f"{family.title}: the processor made {len(places)} visual tokens, the layout "
                f"expects {len(grid.role)}; the processor's settings do not fit the checkpoint"
            )
        role[places] = grid.role
        group[places], row[places], col[places] = grid.group, grid.row, grid.col
    seconds = np.zeros(0) if clip is None else np.asarray(clip.seconds, dtype=float)
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
    ends = np.append(seconds[1:], seconds[-1] + step) if len(seconds) else seconds
    tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
    return Layout(
        tokens=tuple(_readable(tokenizer, token) for token in tokens),
        role=role,
        group=group,
        row=row,
        col=col,
        video=grid,
        seconds=seconds,
        ends=ends,
        source_frame=np.zeros(0, int) if clip is None else np.asarray(clip.source_frames),
        frame_size=(0, 0) if clip is None else tuple(clip.frames.shape[1:3]),
        last=len(ids) - 1,
        readout=np.array([len(ids) - 1]),
    )


def _readable(tokenizer: Any, token: str) -> str:
    if token in tokenizer.all_special_tokens or re.fullmatch(r"<.*>", token):
        return token
    return tokenizer.convert_tokens_to_string([token])
