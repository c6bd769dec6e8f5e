"""How often a model is right on testbed items, with what confidence."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.testbed.item import Item, items
from probe.testbed.question import TYPES
from probe.testbed.scene import COLORS, MOTIONS, SHAPES

if TYPE_CHECKING:
    import pandas as pd

    from probe.video import Clip

LONGEST = 40


@dataclass(frozen=True)
class Reply:
    """What a model said to one item."""

    item: Item
    text: str

    @property
    def right(self) -> bool:
        """The words of the answer; a caption has the same phrases in any order."""
        if self.item.question.type == "caption":
            return phrases(self.text) == phrases(self.item.question.answer)
        return self.text.strip() == self.item.question.answer

    @property
    def names_right(self) -> bool:
        """A caption with the right objects and colours, whatever it says of their motion."""
        said, known = phrases(self.text), phrases(self.item.question.answer)
        return sorted(part[:2] for part in said) == sorted(part[:2] for part in known)


def phrases(caption: str) -> list[tuple[str, str, str]]:
    """Colour, shape and motion of each phrase of a caption, sorted."""
    form = f"a ({'|'.join(COLORS)}) ({'|'.join(SHAPES)}) (?:moves )?({'|'.join(MOTIONS)})"
    return sorted(re.findall(form, caption))


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    if not count:
        return 0.0, 1.0
    share = right / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def evaluate(
    model: Any,
    split: str = "neutral",
    n: int = 200,
    frames: int = 16,
    seed: int = 0,
    types: Sequence[str] | None = None,
    twins: bool = False,
) -> pd.DataFrame:
    """Accuracy of greedy answers by question type, over real mp4 files.

    Args:
        model: from `probe.load`, or anything with `.hf` and `.processor`.
        split, n, seed, types, twins: as for `items`.
        frames: how many frames the model sees.

    Returns:
        A row for each type and one for "all": type, n, accuracy, low, high (95 % Wilson).
    """
    import pandas as pd

    said = list(replies(model, items(split, n, seed, types, twins), frames))
    groups = {kind: [r for r in said if r.item.question.type == kind] for kind in TYPES}
    rows = [_row(kind, [r.right for r in some]) for kind, some in groups.items() if some]
    if groups["caption"]:
        rows.append(_row("caption, objects", [r.names_right for r in groups["caption"]]))
    rows.append(_row("all", [r.right for r in said]))
    return pd.DataFrame(rows)


def replies(model: Any, asked: Sequence[Item], frames: int, batch: int = 25) -> Iterator[Reply]:
    """What the model answers to each item, in batches of one question type."""
    order = sorted(range(len(asked)), key=lambda n: asked[n].question.type)
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, len(order), batch):
            some = [asked[number] for number in order[start : start + batch]]
            clips = [_read(item.write(Path(folder) / "clip.mp4"), frames) for item in some]
            texts = _generate(model, clips, [item.question.text for item in some])
            yield from map(Reply, some, texts)


def _row(kind: str, right: Sequence[bool]) -> dict[str, Any]:
    low, high = wilson(sum(right), len(right))
    return {"type": kind, "n": len(right), "accuracy": float(np.mean(right)),
            "low": low, "high": high}  # fmt: skip


def _read(path: Path, frames: int) -> Clip:
    from probe.video import read

    return read(path, frames=frames)


def _generate(model: Any, clips: Sequence[Clip], questions: Sequence[str]) -> list[str]:
    import torch

    from probe.models.processing import metadata

    prompts = [
        model.processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        for question in questions
    ]
    inputs = model.processor(
        text=prompts,
        videos=[torch.from_numpy(clip.frames).permute(0, 3, 1, 2) for clip in clips],
        video_metadata=[metadata(clip) for clip in clips],
        do_sample_frames=False,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    ).to(model.hf.device, model.hf.dtype)
    with torch.inference_mode():
        out = model.hf.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
    return model.processor.batch_decode(
        out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
