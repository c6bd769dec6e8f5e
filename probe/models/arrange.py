"""The layout of an encoded example: a role and a place for every token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError
from probe.models.layout import Layout
from probe.models.visual import Visual

if TYPE_CHECKING:
    from probe.models.expansion import Expansion
    from probe.models.family import Family
    from probe.models.given import Picture
    from probe.models.prompt import Span
    from probe.video import Clip


def arrange(
    config: Any,
    family: Family,
    processor: Any,
    inputs: dict[str, Any],
    clips: Sequence[Clip],
    pictures: Sequence[Picture],
    known: dict[str, set[str]],
    expansion: Expansion,
    spans: Sequence[Span],
    offsets: Sequence[tuple[int, int]],
) -> Layout:
    """The layout of a processor's output.

    Args:
        config, family, processor, inputs: of the model; what the processor gave.
        clips, pictures: in the order of the conversation.
        known: the texts that stand for a clip and for an image.
        expansion: the prompt in its expanded text.
        spans: roles of characters of the prompt.
        offsets: characters of each token in the expanded text.

    Raises:
        ProbeError: counts that do not fit the family's grid.
    """
    tokenizer = processor.tokenizer
    ids = inputs["input_ids"][0].cpu().numpy()
    starts, ends = np.asarray(offsets).T
    role = np.full(len(ids), "template", dtype="<U16")
    for span in spans:
        begin, stop = expansion.at(span.start), expansion.at(span.end)
        role[(starts < stop) & (ends > begin)] = span.role
    visuals = _visuals(clips, pictures, known, expansion)
    group, row, col, which = np.full((4, len(ids)), -1)
    for number, (start, stop) in enumerate(expansion.inserted):
        inside = (starts >= start) & (ends <= stop) & (ends > starts)
        which[inside] = number
        role[inside] = "separator"
        if family.timestamps is not None and visuals[number].kind == "video":
            role[np.flatnonzero(inside)[_dates(tokenizer, ids[inside], family)]] = "timestamp"
    groups = 0
    used: dict[int, int] = {}
    for number, visual in enumerate(visuals):
        token_id = _placeholder(config, family, visual.kind)
        here = ids == token_id
        tokens = (here & (which == number)).sum() if expansion.inserted else here.sum()
        visual = replace(visual, tokens=int(tokens), seen=seen(processor, visual))
        grid = family.grid(config, inputs, visual)
        places = np.flatnonzero(ids == token_id)[used.get(token_id, 0) :][: len(grid.role)]
        used[token_id] = used.get(token_id, 0) + len(grid.role)
        if len(places) != len(grid.role):
            raise _wrong_count(family, int((ids == token_id).sum()), used[token_id])
        role[places], row[places], col[places] = grid.role, grid.row, grid.col
        group[places] = np.where(grid.group >= 0, grid.group + groups, -1)
        which[places] = number
        groups += len(grid.frames)
        visuals[number] = replace(visual, grid=grid)
    for token_id, count in used.items():
        if (ids == token_id).sum() != count:
            raise _wrong_count(family, int((ids == token_id).sum()), count)
    _date(role, group, which, family.timestamp_follows)
    seconds, lasts = _times(clips)
    return Layout(
        tokens=tuple(readable(tokenizer, t) for t in tokenizer.convert_ids_to_tokens(ids.tolist())),
        role=role,
        group=group,
        row=row,
        col=col,
        visual=which,
        visuals=tuple(visuals),
        seconds=seconds,
        ends=lasts,
        source_frame=np.concatenate([np.zeros(0, int), *(clip.source_frames for clip in clips)]),
        last=len(ids) - 1,
        readout=np.array([len(ids) - 1]),
    )


def readable(tokenizer: Any, token: str) -> str:
    """A token as text; special tokens as they are written."""
    if token in tokenizer.all_special_tokens or re.fullmatch(r"<.*>", token):
        return token
    return tokenizer.convert_tokens_to_string([token])


def _visuals(
    clips: Sequence[Clip],
    pictures: Sequence[Picture],
    known: dict[str, set[str]],
    expansion: Expansion,
) -> list[Visual]:
    """Clips and images in the order of the prompt, which is the template's choice."""
    first = np.cumsum([0, *(len(clip) for clip in clips)])
    shown = [
        Visual("video", number, len(clip), tuple(clip.frames.shape[1:3]), first=int(first[number]))
        for number, clip in enumerate(clips)
    ]
    stills = [
        Visual("image", number, 1, tuple(picture.pixels.shape[:2]))
        for number, picture in enumerate(pictures)
    ]
    if not expansion.replaced:  # a processor that puts visual tokens before the prompt
        return [*shown, *stills]
    left = {"video": shown, "image": stills}
    if not stills or not shown:
        ordered = [*shown, *stills]
    else:
        kinds = [
            "image" if any(text in replaced for text in known["image"]) else "video"
            for replaced in expansion.replaced
        ]
        ordered = [left[kind].pop(0) for kind in kinds if left[kind]]
    if len(ordered) != len(expansion.replaced) or len(ordered) != len(clips) + len(pictures):
        raise ProbeError(
            f"the chat template has places for {len(expansion.replaced)} clips and images, "
            f"and {len(clips) + len(pictures)} were given"
        )
    return ordered


def _placeholder(config: Any, family: Family, kind: str) -> int:
    name = family.video_token if kind == "video" else family.image_token
    if name is None:
        raise ProbeError(f"{family.title}: probe has no layout for images of this family")
    return int(getattr(config, name))


def _wrong_count(family: Family, made: int, expected: int) -> ProbeError:
    return ProbeError(
        f"{family.title}: the processor made {made} visual tokens, the layout expects {expected}; "
        "the processor's settings do not fit the checkpoint"
    )


def seen(processor: Any, visual: Visual) -> tuple[float, float, float, float]:
    """(top, bottom, left, right) of the part that a processor's resizing and centre crop pass on,
    as parts of the given frame; below 0 and above 1 where it pads.
    """
    name = "video_processor" if visual.kind == "video" else "image_processor"
    component: Any = getattr(processor, name, None)
    if not getattr(component, "do_center_crop", False):
        return 0.0, 1.0, 0.0, 1.0
    sides = list(visual.size)
    if component.do_resize:
        size = dict(component.size)
        if short := size.get("shortest_edge"):
            sides = [int(short * side / min(sides)) for side in sides]
        else:
            sides = [size["height"], size["width"]]
    found = []
    for side, crop in zip(
        sides, (component.crop_size[s] for s in ("height", "width")), strict=True
    ):
        start = int((side - crop) / 2) if crop <= side else -((crop - side) // 2)
        found += [start / side, (start + crop) / side]
    return found[0], found[1], found[2], found[3]


def _dates(tokenizer: Any, ids: np.ndarray, family: Family) -> np.ndarray:
    """Numbers of the tokens, inside a clip's expansion, that write a time: text on the line of the
    visual token that it belongs to.
    """
    added = tokenizer.get_added_vocab()
    texts = tokenizer.convert_ids_to_tokens(ids.tolist())
    order = range(len(ids)) if family.timestamp_follows else range(len(ids) - 1, -1, -1)
    found, near = [], False
    for place in order:
        text = readable(tokenizer, texts[place])
        if texts[place] in added:
            near = True
        elif "\n" in text:
            near = False
        elif near and text.strip():
            found.append(place)
    return np.array(sorted(found), dtype=int)


def _date(role: np.ndarray, group: np.ndarray, which: np.ndarray, follows: bool) -> None:
    """Give each timestamp the temporal group of the visual token beside it."""
    order = range(len(role)) if follows else range(len(role) - 1, -1, -1)
    beside = 0
    for position in order:
        if group[position] >= 0:
            beside = position
        elif role[position] == "timestamp" and which[beside] == which[position]:
            group[position] = group[beside]


def _times(clips: Sequence[Clip]) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of each frame in seconds, clip after clip."""
    starts, ends = [np.zeros(0)], [np.zeros(0)]
    for clip in clips:
        seconds = np.asarray(clip.seconds, dtype=float)
        step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
        starts.append(seconds)
        ends.append(np.append(seconds[1:], seconds[-1] + step))
    return np.concatenate(starts), np.concatenate(ends)
