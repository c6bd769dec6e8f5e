"""A conversation as the checkpoint's prompt, and where each text of it lies in the prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from probe.errors import ProbeError
from probe.models.given import Turn
from probe.video import Clip

_MARK = "\ue000probe\ue000"


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of the prompt and the role they have."""

    role: str
    start: int
    end: int


def render(processor: Any, template: str | None, turns: Sequence[Turn]) -> str:
    """The conversation after the chat template, ready for an answer."""
    messages = [{"role": turn.role, "content": [_content(p) for p in turn.parts]} for turn in turns]
    own = getattr(processor, "chat_template", None)
    more = {} if own or template is None else {"chat_template": template}
    try:
        return processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, **more
        )
    except ValueError as error:
        if own or template:
            raise
        raise ProbeError(
            "this checkpoint's processor has no chat template; set processor.chat_template"
        ) from error


def spans(
    processor: Any, template: str | None, turns: Sequence[Turn], prompt: str, listed: Sequence[str]
) -> list[Span]:
    """Where each text of the conversation lies in its prompt.

    Args:
        processor, template, turns: as in `render`.
        prompt: what `render` gave.
        listed: the options at the end of the last text, as they are written there.

    Raises:
        ProbeError: a chat template that does not keep a text.
    """
    found: list[Span] = []
    for number, turn in enumerate(turns):
        last = number == len(turns) - 1
        role = "question" if last else "system" if turn.role == "system" else "history"
        texts = [place for place, part in enumerate(turn.parts) if isinstance(part, str)]
        for place in texts:
            text = str(turn.parts[place])
            marked = Turn(turn.role, (*turn.parts[:place], _MARK, *turn.parts[place + 1 :]))
            shown = render(processor, template, [*turns[:number], marked, *turns[number + 1 :]])
            start = _find(prompt, shown, text, role)
            options = listed if last and place == texts[-1] else []
            end = start + len(text) - sum(len(line) + 1 for line in options)
            found.append(Span(role, start, end))
            for index, line in enumerate(options, 1):
                found.append(Span(f"option {index}", end + 1, end + 1 + len(line)))
                end += 1 + len(line)
    return found


def placeholders(processor: Any, config: Any, family: Any) -> dict[str, set[str]]:
    """The texts that stand for a clip and for an image in a prompt."""
    tokenizer = processor.tokenizer
    found: dict[str, set[str]] = {}
    for kind, name in (("video", family.video_token), ("image", family.image_token)):
        texts = {getattr(processor, f"{kind}_token", None)}
        token_id = None if name is None else getattr(config, name, None)
        if token_id is not None:
            texts.add(tokenizer.convert_ids_to_tokens(token_id))
        found[kind] = {getattr(text, "content", text) for text in texts if text}
    return found


def refuse_placeholders(known: dict[str, set[str]], turns: Sequence[Turn]) -> None:
    """A text that holds a placeholder would be taken for a clip.

    Raises:
        ProbeError: with the placeholder.
    """
    for turn in turns:
        for part in turn.parts:
            for text in sorted(known["video"] | known["image"]):
                if isinstance(part, str) and text in part:
                    raise ProbeError(
                        f"the question must not contain {text}, the placeholder of a video or an "
                        "image; write it another way"
                    )


def pattern(known: dict[str, set[str]], family: Any) -> re.Pattern:
    """What the processor replaces in a prompt by the tokens of a clip or an image."""
    texts = sorted(known["video"] | known["image"], key=len, reverse=True)
    every = "|".join(re.escape(text) for text in texts)
    return re.compile(f"{family.placeholder}|{every}" if family.placeholder else every)


def _content(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "video" if isinstance(part, Clip) else "image"}


def _find(prompt: str, marked: str, part: str, what: str) -> int:
    """Where `part` starts in the prompt; `marked` is the prompt with a mark in its place.

    A search for the words themselves would find them in the template too ("user", "a").
    """
    end = len(prompt) - len(marked.partition(_MARK)[2])
    if _MARK not in marked or prompt[end - len(part) : end] != part:
        name = "system prompt" if what == "system" else what
        raise ProbeError(f"the chat template of this checkpoint does not keep the {name}")
    return end - len(part)
