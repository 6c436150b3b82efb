"""Where a map's cells lie on the crop, and how they are drawn there."""

from __future__ import annotations

import cv2
import numpy as np

from asd_explain.errors import OptionError

#: Two heats closer than this share of the map's largest count as equal; a map without larger differences is constant.
TIE = 1e-6
INTERPOLATIONS = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST}


def upsample(
    heat: np.ndarray,
    stride_px: float | tuple[float, float],
    offset_px: float | tuple[float, float],
    size: int | tuple[int, int] = 112,
    interpolation: str = "bicubic",
) -> np.ndarray:
    """Upsample a map onto its crop with every cell where the network's strides put its centre.

    A network with stride 8 and symmetric padding centres cell i on pixel 8 i, not on 8 i + 3.5 as resizing a picture
    would assume; the difference is 3 % of the crop. Outside the outermost centres the outermost cells are repeated.

    Args:
        heat: (h, w) float32.
        stride_px: distance of two cells' centres in crop pixels; one number, or (down, across).
        offset_px: pixel that cell 0 is centred on, likewise.
        size: side of the crop in pixels, or (H, W).
        interpolation: "bicubic", "bilinear" or "nearest".

    Returns:
        (H, W) float32 within the range of ``heat``: the overshoot of bicubic interpolation is cut off.

    Raises:
        OptionError: for an unknown interpolation.
    """
    if interpolation not in INTERPOLATIONS:
        raise OptionError(f"unknown interpolation {interpolation!r}; choose one of {', '.join(INTERPOLATIONS)}")
    heat = np.ascontiguousarray(heat, np.float32)
    # warpAffine with WARP_INVERSE_MAP: source cell = (pixel - offset) / stride
    (down, across), (top, left), (height, width) = map(_both, (stride_px, offset_px, size))
    inverse = np.array([[1 / across, 0, -left / across], [0, 1 / down, -top / down]])
    flags = INTERPOLATIONS[interpolation] | cv2.WARP_INVERSE_MAP
    drawn = cv2.warpAffine(heat, inverse, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.clip(drawn, heat.min(), heat.max())


def _both(value: float | tuple[float, float]) -> tuple[float, float]:
    return value if isinstance(value, tuple) else (value, value)


def over_picture(cells: tuple[int, int], size: tuple[int, int]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Strides and offsets for :func:`upsample` by which (h, w) cells cover a picture of (H, W) pixels from edge to
    edge, as resizing it would have it."""
    strides = size[0] / cells[0], size[1] / cells[1]
    return strides, ((strides[0] - 1) / 2, (strides[1] - 1) / 2)


def drawing_scale(heat: np.ndarray, percentile: float = 99.0) -> float:
    """One scale for a whole track: the given percentile of its frames' maxima; 0 where there is nothing to draw.

    Args:
        heat: (T, h, w), >= 0; frames that are not finite or constant do not count.
        percentile: robust against single frames that flare up.
    """
    drawable = drawable_frames(heat)
    if not drawable.any():
        return 0.0
    return float(np.percentile(heat[drawable].max((1, 2)), percentile))


def drawable_frames(heat: np.ndarray) -> np.ndarray:
    """(T,) bool: frames whose map (h, w) is finite and not constant, whatever its scale; the others draw nothing."""
    flat = np.asarray(heat, np.float64).reshape(len(heat), -1)
    finite = np.isfinite(flat).all(1)
    if not flat.shape[1]:
        return np.zeros(len(flat), bool)
    flat = np.where(finite[:, None], flat, 0.0)
    return finite & (np.ptp(flat, axis=1) > TIE * np.abs(flat).max(1))
