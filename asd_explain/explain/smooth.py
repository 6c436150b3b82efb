"""Smoothing of heat along time and, slightly, over cells.

Not cosmetics: a mask that changes from frame to frame is motion to a network that looks for moving lips, so an
unsmoothed per-frame map is a worse explanation by deletion than the same maps averaged over time.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d, gaussian_filter

from asd_explain.grid import GRID_FPS

REACH_SIGMAS = 3.0


def _weights(sigma_frames: float) -> np.ndarray:
    reach = max(1, int(np.ceil(REACH_SIGMAS * sigma_frames)))
    return np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_frames) ** 2)


def smooth_in_time(values: np.ndarray, seconds: float, fps: float = GRID_FPS) -> np.ndarray:
    """Gaussian average along the first axis; frames without finite values neither count nor spread.

    The kernel is cut off at the ends and renormalised there, so a constant stays the same constant. One track is one
    shot, so nothing is ever averaged across a cut.

    Args:
        values: (T, ...) float.
        seconds: standard deviation of the Gaussian; 0 leaves the values as they are.
        fps: rate of the first axis.

    Returns:
        Array of the same shape, float32. Frames that were not finite stay so.
    """
    values = np.asarray(values, np.float32)
    if seconds * fps < 1e-3 or len(values) < 2:
        return values.copy()
    flat = values.reshape(len(values), -1)
    usable = np.isfinite(flat).all(1)
    weights = _weights(seconds * fps)
    if len(weights) > 2 * len(values) + 1:
        middle = len(weights) // 2
        weights = weights[middle - len(values) : middle + len(values) + 1]
    total = correlate1d(usable.astype(np.float64), weights, mode="constant")
    # scipy sums in float64 whatever the arrays' type.
    smoothed = correlate1d(np.where(usable[:, None], flat, np.float32(0)), weights, axis=0, mode="constant")
    smoothed /= np.maximum(total, 1e-12)[:, None].astype(np.float32)
    smoothed[~usable] = flat[~usable]
    return smoothed.reshape(values.shape)


def smooth_heat(heat: np.ndarray, seconds: float, cells: float = 0.0, fps: float = GRID_FPS) -> np.ndarray:
    """Heat (T, h, w) smoothed along time and, with a Gaussian of ``cells`` cells, over space (edges replicated)."""
    smoothed = smooth_in_time(heat, seconds, fps)
    if cells > 0 and smoothed.size:
        smoothed = gaussian_filter(smoothed, (0.0, cells, cells), mode="nearest")
    return smoothed
