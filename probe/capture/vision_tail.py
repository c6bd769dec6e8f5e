"""The tail of a distribution of norms: the signature of a few tokens that dominate."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

TAIL = {
    "p99/p50": "p99/p50 is the 99th percentile over the median",
    "top 1 % share": "top 1 % share is the part of the summed norm in the largest 1 % of tokens",
    "modes": "modes is the number of peaks of the density of the log norm",
}
FINE, LEAST, MOST = 8, 0.01, 1 << 16  # steps a bandwidth; lowest peak; steps in all


def norm_tail(norms: Float[np.ndarray, "*any"]) -> Float[np.ndarray, " tail"]:
    """p99/p50, share of the summed norm in the largest 1 %, number of modes of the log norm.

    PLLaVA (Xu et al., 2024) reports a widening, two-peaked histogram where a few visual tokens
    come to dominate. A mode is a peak of a Gaussian kernel density (bandwidth by Silverman's rule)
    that is at least 1 % as high as the highest.

    Args:
        norms: not negative; NaN does not count.
    """
    from scipy.signal import find_peaks

    values = np.sort(norms[np.isfinite(norms)].astype(np.float64))
    if not len(values):
        return np.full(len(TAIL), np.nan)
    middle, high = np.percentile(values, [50, 99])
    top = max(1, round(0.01 * len(values)))
    share = values[-top:].sum() / values.sum() if values.sum() else np.nan
    logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    quartiles = np.subtract(*np.percentile(logs, [75, 25]))
    spread = min(logs.std(), quartiles / 1.349) or logs.std()
    modes = 1
    if spread > 1e-9 * max(1, np.abs(logs).max()):
        width = 0.9 * spread * len(logs) ** -0.2
        # A histogram convolved with the kernel, in steps that are small against the bandwidth.
        low, span = logs[0] - 4 * width, logs[-1] - logs[0] + 8 * width
        steps = min(MOST, int(span / width * FINE) + 1)
        counts = np.histogram(logs, steps, (low, low + span))[0]
        step = span / steps
        reach = int(4 * width / step) + 1
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / width) ** 2)
        density = np.pad(np.convolve(counts, kernel), 1)
        modes = len(find_peaks(density, height=LEAST * density.max())[0])
    return np.array([high / middle if middle else np.nan, share, modes], np.float64)
