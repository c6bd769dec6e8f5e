"""Token layout: what every position of the language model's sequence is, and where it was seen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from probe.models import selection

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class VideoGrid:
    """Where the visual tokens of one clip sit, in the order the model receives them.

    Attributes:
        role: per visual token: "video", or what it is instead ("newline", ...).
        group: temporal group of each token, -1 where it has none.
        row, col: cell of each token, -1 where it has none.
        frames: per temporal group, the frames it covers (numbered as the model was given them).
        row_edges, col_edges: per row and column of the grid, the part of the frame's height and
            width (0 to 1) that its token sees before any mixing by attention.
    """

    role: np.ndarray
    group: np.ndarray
    row: np.ndarray
    col: np.ndarray
    frames: tuple[tuple[int, ...], ...]
    row_edges: np.ndarray
    col_edges: np.ndarray


@dataclass(frozen=True)
class Layout:
    """One row per position of the sequence; the object every selection and picture stands on.

    Attributes:
        tokens: text of each token.
        role: role of each position: system, template, question, "option k", answer, generated,
            video, newline, image.
        group, row, col: temporal group and cell of each position, -1 where it has none.
        video: the grid of the clip, or None for a prompt without a clip.
        seconds: start of each frame in seconds; ends: where it ends.
        source_frame: number of each frame in its file.
        frame_size: (height, width) in pixels of the frames as they were given.
        last: the final prompt position.
        readout: positions whose logits predict the answer (`last` alone without an answer).
    """

    tokens: tuple[str, ...]
    role: np.ndarray
    group: np.ndarray
    row: np.ndarray
    col: np.ndarray
    video: VideoGrid | None
    seconds: np.ndarray
    ends: np.ndarray
    source_frame: np.ndarray
    frame_size: tuple[int, int]
    last: int
    readout: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def grid(self) -> tuple[int, int] | None:
        """(rows, columns) of visual tokens in a frame; None without a clip."""
        if self.video is None:
            return None
        return len(self.video.row_edges), len(self.video.col_edges)

    @property
    def groups(self) -> tuple[str, ...]:
        """Label of each temporal group: "frame 3", or "frames 2-3" where frames were merged."""
        return tuple(
            f"frame {f[0]}" if len(f) == 1 else f"frames {f[0]}-{f[-1]}"
            for f in (self.video.frames if self.video else ())
        )

    def select(self, what: selection.Selection) -> Int[np.ndarray, " selected"]:
        """Positions that a selection names, sorted.

        Grammar: a role, `text`, `all`, `last`, `readout`, `frame 3`, `frames 2-5`,
        `seconds 1.0-2.5`, `token 17`, `box x0,y0,x1,y1 frames 2-5` (pixels of the given frames),
        joined by ` + `, ` & `, ` - ` from left to right. Integers are taken as positions.

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
        for number, frames in enumerate(self.video.frames if self.video else ()):
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
        self, vector: np.ndarray, size: tuple[int, int] | None = None
    ) -> Float[np.ndarray, "time height width"]:
        """Values of the video tokens painted back onto the frames.

        Args:
            vector: one value per position of the sequence.
            size: (height, width) of the result; the given frames' own size by default.

        Returns:
            Each pixel has the value of the token whose cell it lies in; NaN where there is none.
        """
        from probe.errors import ProbeError

        if self.video is None or self.grid is None:
            raise ProbeError("paint: this prompt has no clip; encode it with a video")
        vector = np.asarray(vector, dtype=float)
        if vector.shape != (len(self),):
            raise ProbeError(
                f"paint: the vector has shape {vector.shape}, the layout {len(self)} positions"
            )
        rows, cols = self.grid
        height, width = size or self.frame_size
        cells = np.full((len(self.video.frames), rows, cols), np.nan)
        placed = (self.group >= 0) & (self.row >= 0)
        cells[self.group[placed], self.row[placed], self.col[placed]] = vector[placed]
        y = np.minimum(((np.arange(height) + 0.5) * rows / height).astype(int), rows - 1)
        x = np.minimum(((np.arange(width) + 0.5) * cols / width).astype(int), cols - 1)
        painted = np.full((len(self.seconds), height, width), np.nan)
        for number, frames in enumerate(self.video.frames):
            painted[list(frames)] = cells[number][y][:, x]
        return painted
