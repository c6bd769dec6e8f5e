"""How much memory a run will take, stated before it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from probe.capture.base import Capture
from probe.engine.session import Session
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


def estimate(model: VideoModel, x: Example, captures: Sequence[Capture] = ()) -> pd.DataFrame:
    """Columns part and bytes: the forward pass itself, then each capture, then the sum."""
    import pandas as pd

    from probe.engine.forward import as_list

    session = Session(model, x, as_list(captures, Capture))
    rows = [("forward pass", _forward(session))]
    rows += [(str(capture), capture.memory(session)) for capture, _ in session.captures]
    rows.append(("together", sum(size for _, size in rows)))
    return pd.DataFrame(rows, columns=["part", "bytes"])


def refuse(session: Session, all_logits: bool = False) -> None:
    """Stop before a run that cannot fit.

    Raises:
        ProbeError: with the numbers.
    """
    sizes = {str(capture): capture.memory(session) for capture, _ in session.captures}
    if all_logits:
        vocabulary = session.model.hf.config.get_text_config().vocab_size
        sizes['logits="all"'] = len(session.layout) * vocabulary * 8
    free = _free(session.model)
    wanted = sum(sizes.values())
    if sizes and free is not None and wanted > free:
        largest = max(sizes, key=sizes.__getitem__)
        raise ProbeError(
            f"{largest} would take {_readable(sizes[largest])}, everything asked for "
            f"{_readable(wanted)}, and {_readable(free)} are free; name fewer layers or positions"
        )


def _forward(session: Session) -> int:
    """Rough peak of the activations of one layer: residuals, projections and the MLP."""
    config = session.model.hf.config.get_text_config()
    widths = 6 * config.hidden_size + 3 * config.intermediate_size
    return len(session.layout) * widths * session.model.hf.dtype.itemsize


def _free(model: VideoModel) -> int | None:
    if model.hf.device.type == "cuda":
        return torch.cuda.mem_get_info(model.hf.device)[0]
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def _readable(size: int | float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
