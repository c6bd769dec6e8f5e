"""Token layout: what every position of the language model's sequence is, and where it was seen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from probe.models import selection
from probe.models.visual import Visual

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Layout:
    """One row per position of the sequence; the object every selection and picture stands on.

    Attributes:
        tokens: text of each token.
        role: role of each position: system, history, template, question, "option k", answer,
            generated, video, image, newline, cls, timestamp, separator.
        group: temporal group of each position, -1 where it has none; numbered over all clips.
        row, col: cell of each position, -1 where it has none.
        visual: which of `visuals` each position belongs to, -1 for none.
        visuals: the clips and images in the order of the prompt.
        seconds: start of each frame in seconds; ends: where it ends. Frames are numbered over all
            clips, in the order the model was given them.
        source_frame: number of each frame in its file.
        last: the final prompt position.
        readout: positions whose logits predict the answer (`last` alone without an answer).
    """

    tokens: tuple[str, ...]
    role: np.ndarray
    group: np.ndarray
    row: np.ndarray
    col: np.ndarray
    visual: np.ndarray
    visuals: tuple[Visual, ...]
    seconds: np.ndarray
    ends: np.ndarray
    source_frame: np.ndarray
    last: int
    readout: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def clips(self) -> tuple[Visual, ...]:
        """The clips among `visuals`."""
        return tuple(visual for visual in self.visuals if visual.kind == "video")

    @property
    def grid(self) -> tuple[int, int] | None:
        """(rows, columns) of tokens in a frame of the first clip; None where there is no grid."""
        return self.clips[0].cells if self.clips else None

    @property
    def frames(self) -> tuple[tuple[int, ...], ...]:
        """Per temporal group, the frames it covers; both numbered over all clips."""
        return tuple(
            tuple(frame + clip.first for frame in frames)
            for clip in self.clips
            for frames in (clip.grid.frames if clip.grid else ())
        )

    @property
    def groups(self) -> tuple[str, ...]:
        """Label of each temporal group: "frame 3", or "frames 2-3" where frames were merged."""
        return tuple(
            f"frame {f[0]}" if len(f) == 1 else f"frames {f[0]}-{f[-1]}" for f in self.frames
        )

    def select(self, what: selection.Selection) -> Int[np.ndarray, " selected"]:
        """Positions that a selection names, sorted.

        Grammar: a role, `text`, `all`, `last`, `readout`, `frame 3`, `frames 2-5`,
        `seconds 1.0-2.5`, `token 17`, `box x0,y0,x1,y1 frames 2-5` (pixels of the given frames),
        `video 1`, `image 0`, joined by ` + `, ` & `, ` - ` from left to right. Integers are taken
        as positions.

        Raises:
            ProbeError: an unknown label or a selection without any token.
        """
        return selection.select(self, what)

    def edges(self, edges: selection.Edges) -> list[tuple[np.ndarray, np.ndarray]]:
        """(source, destination) positions of edges such as "video -> question".

        Raises:
            ProbeError: not an edge, an empty end, or no source before any destination.
        """
        return selection.edges(self, edges)

    def partition(self, by: selection.Partition) -> dict[str, np.ndarray]:
        """Labelled groups of positions: "roles", "text", "frames", "tokens" or named selections.

        "frames" has one group per temporal group and one per other role, so that every position
        is in exactly one group; "text" has the roles that are not visual, and `last`.
        """
        return selection.partition(self, by)

    def extend(self, count: int) -> Layout:
        """The layout with `count` generated tokens after the prompt; they join the readout."""
        new = np.arange(len(self), len(self) + count)
        none = np.full(count, -1)
        return replace(
            self,
            tokens=self.tokens + ("",) * count,
            role=np.concatenate([self.role, np.full(count, "generated", dtype="<U16")]),
            group=np.concatenate([self.group, none]),
            row=np.concatenate([self.row, none]),
            col=np.concatenate([self.col, none]),
            visual=np.concatenate([self.visual, none]),
            readout=np.concatenate([self.readout, new]),
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per token: position, token, role, group, frame, row, col, source_frame,
        start_s, end_s. Seconds run from the first frame of the group to the end of the last.
        """
        import pandas as pd

        first = np.full(len(self), -1)
        source = np.full(len(self), -1)
        start, end = np.full((2, len(self)), np.nan)
        for number, frames in enumerate(self.frames):
            here = self.group == number
            first[here], source[here] = frames[0], self.source_frame[frames[0]]
            start[here], end[here] = self.seconds[frames[0]], self.ends[frames[-1]]
        return pd.DataFrame(
            {
                "position": np.arange(len(self)),
                "token": list(self.tokens),
                "role": self.role,
                "group": self.group,
                "frame": first,
                "row": self.row,
                "col": self.col,
                "source_frame": source,
                "start_s": start,
                "end_s": end,
            }
        )

    def paint(
        self, vector: np.ndarray, size: tuple[int, int] | None = None, clip: int = 0
    ) -> Float[np.ndarray, "time height width"]:
        """Values of the video tokens painted back onto the frames of a clip.

        Args:
            vector: one value per position of the sequence.
            size: (height, width) of the result; the given frames' own size by default.
            clip: which clip.

        Returns:
            Each pixel has the value of the token whose cell it lies in; NaN where there is none.
            Tokens that belong to a frame but have no place in it (the queries of a Q-Former)
            colour the whole frame with their mean.

        Raises:
            ProbeError: no such clip, a vector of another length.
        """
        from probe.errors import ProbeError

        if not 0 <= clip < len(self.clips):
            raise ProbeError(f"paint: this prompt has no clip {clip}; encode it with a video")
        shown = self.clips[clip]
        vector = np.asarray(vector, dtype=float)
        if vector.shape != (len(self),):
            raise ProbeError(
                f"paint: the vector has shape {vector.shape}, the layout {len(self)} positions"
            )
        rows, cols = shown.cells or (1, 1)
        height, width = size or shown.size
        cells = np.full((len(self.frames), rows, cols), np.nan)
        mine = self.visual == self.visuals.index(shown)
        if shown.cells is None:
            for group in np.unique(self.group[mine & (self.group >= 0)]):
                cells[group] = vector[mine & (self.group == group)].mean()
        else:
            placed = mine & (self.group >= 0) & (self.row >= 0)
            cells[self.group[placed], self.row[placed], self.col[placed]] = vector[placed]
        y = np.minimum(((np.arange(height) + 0.5) * rows / height).astype(int), rows - 1)
        x = np.minimum(((np.arange(width) + 0.5) * cols / width).astype(int), cols - 1)
        painted = np.full((shown.frames, height, width), np.nan)
        for values, frames in zip(cells, self.frames, strict=True):
            here = [f - shown.first for f in frames if 0 <= f - shown.first < shown.frames]
            if here:
                painted[here] = values[y][:, x]
        return painted
