"""What a video token should know in the middle of the decoder, for the dense labels of stage 2."""

from __future__ import annotations

import numpy as np

from probe.testbed.training_clips import Pool
from probe.testbed.training_vision import IGNORE


def video_labels(pool: Pool, clips: np.ndarray, groups: np.ndarray) -> dict[str, np.ndarray]:
    """Labels of cells [clip, group, 36], `IGNORE` where they show no object.

    Args:
        pool: the clips.
        clips: which of them.
        groups: frames [clip, group, span]; the cell shows what it does in the last of a group,
            or in the first where there is nothing in the last.

    Returns:
        motion: of the object. late: it was not there from the start. count: objects so far.
    """
    cells = pool.cells[clips[:, None, None], groups].astype(np.int64)
    shows = np.where(cells[:, :, -1] >= 0, cells[:, :, -1], cells[:, :, 0])
    inside = shows >= 0
    row, which = np.arange(len(clips))[:, None, None], np.maximum(shows, 0)
    things = pool.things[clips].astype(np.int64)
    first = things[:, :, 3]
    seen = (first >= 0)[:, None] & (first[:, None] <= groups[:, :, -1, None])
    return {
        "motion": np.where(inside, things[:, :, 2][row, which], IGNORE),
        "late": np.where(inside, first[row, which] > 0, IGNORE),
        "count": np.where(inside, seen.sum(-1)[:, :, None], IGNORE),
    }
