"""What the networks see of a face: 112 x 112 windows cut straight from the luma plane.

The published networks were trained with ``cv2.resize``'s plain bilinear interpolation, without smoothing before
shrinking. Crops are cut the same way, even where a face is far larger than 112 px, because a network should get the
texture (and the aliasing) that it has learnt. Windows lie at sub-pixel positions, where the published code rounded
them to whole pixels, so that a slowly moving face does not jitter.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

CROP_SIZE = 112
OUTSIDE = 110  # gray outside the frame, the published pipeline's padding value


@dataclass(frozen=True)
class CropGeometry:
    """Where the network's square window lies, given a face box.

    Attributes:
        name: ``demo``: with h = half of the longer box side and (cx, cy) the box's centre, the window is the square
            [cx - 0.7 h, cx + 0.7 h] x [cy - 0.3 h, cy + 1.1 h]. The published demo cuts x +- 1.4 h, y from -h to
            +1.8 h, resizes that to 224 x 224 and hands the centre 112 x 112 to the network: this window.
            ``box``: the box itself, its aspect ratio not kept (AVA and WASD training).
    """

    name: str


GEOMETRIES = {name: CropGeometry(name) for name in ("demo", "box")}
BODY_GEOMETRY = "box"  # how bodies are cut, whatever the faces' geometry


def _geometry(geometry: CropGeometry | str) -> CropGeometry:
    name = geometry if isinstance(geometry, str) else geometry.name
    if name not in GEOMETRIES:
        raise ValueError(f"no crop geometry called {name!r}; there are {', '.join(GEOMETRIES)}")
    return GEOMETRIES[name]


def crop_window(box: np.ndarray, geometry: CropGeometry | str) -> np.ndarray:
    """The part of the frame that a crop shows, and over which its heat is to be drawn.

    Args:
        box: (4,) or (n, 4) x1 y1 x2 y2 in pixels.
        geometry: one of ``GEOMETRIES`` or its name.

    Returns:
        The same shape, float32: x1 y1 x2 y2 in pixels. May leave the frame.
    """
    geometry = _geometry(geometry)
    box = np.asarray(box, np.float64)
    if geometry.name == "box":
        return box.astype(np.float32)
    x1, y1, x2, y2 = np.moveaxis(box, -1, 0)
    half = np.maximum(x2 - x1, y2 - y1) / 2
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    window = [cx - 0.7 * half, cy - 0.3 * half, cx + 0.7 * half, cy + 1.1 * half]
    return np.stack(window, axis=-1).astype(np.float32)


def crop(luma: np.ndarray, box: np.ndarray, geometry: CropGeometry | str, size: int = CROP_SIZE) -> np.ndarray:
    """Cut the window of one box out of a frame.

    Args:
        luma: (H, W) uint8, full range.
        box: (4,) x1 y1 x2 y2 in pixels; pixel (i, j) covers [j, j + 1] x [i, i + 1].
        geometry: one of ``GEOMETRIES`` or its name.
        size: side of the crop in pixels.

    Returns:
        (size, size) uint8, bilinear (``cv2.resize``'s mapping of pixel centres); ``OUTSIDE`` beyond the frame.

    Raises:
        ValueError: the box is not finite or has no area.
    """
    x1, y1, x2, y2 = crop_window(box, geometry).astype(np.float64)
    if not (x2 > x1 and y2 > y1 and np.isfinite([x1, y1, x2, y2]).all()):
        raise ValueError(f"cannot cut a crop from the box {np.asarray(box).tolist()}")
    height, width = luma.shape
    step_x, step_y = (x2 - x1) / size, (y2 - y1) / size
    # Only the touched part of the frame goes into the warp, with a pixel around it for the interpolation.
    left, top = max(0, int(np.floor(x1)) - 1), max(0, int(np.floor(y1)) - 1)
    right, bottom = min(width, int(np.ceil(x2)) + 1), min(height, int(np.ceil(y2)) + 1)
    if left >= right or top >= bottom:
        return np.full((size, size), OUTSIDE, np.uint8)
    # Output pixel centre (i + 0.5) * step + x1, minus the half pixel by which OpenCV's coordinates are off centres.
    to_source = np.array(
        [[step_x, 0, x1 + step_x / 2 - 0.5 - left], [0, step_y, y1 + step_y / 2 - 0.5 - top]], np.float64
    )
    return cv2.warpAffine(
        luma[top:bottom, left:right],
        to_source,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=OUTSIDE,
    )


def body_box(face_box: np.ndarray, width: int, height: int) -> np.ndarray:
    """Derive a body box from a face box, for clips without body annotation.

    With s = sqrt(face width x face height): three s wide around the face's centre (about the shoulders' width), from
    0.4 s above the face (the hair) down to 4.5 s below the face's top (about the hips), clipped to the frame. These are
    an upright adult's proportions with a face box from brow to chin; WASD's annotated bodies of people who sit or
    stand before a camera look like this, a lying or turned person's do not.

    Args:
        face_box: (4,) or (n, 4) x1 y1 x2 y2 in pixels, with some part inside the frame.
        width: frame width in pixels.
        height: frame height in pixels.

    Returns:
        The same shape, float32, inside [0, width] x [0, height], at least one pixel wide and high.
    """
    x1, y1, x2, y2 = np.moveaxis(np.asarray(face_box, np.float64), -1, 0)
    s = np.sqrt(np.maximum(x2 - x1, 1) * np.maximum(y2 - y1, 1))
    cx = (x1 + x2) / 2
    left = np.clip(cx - 1.5 * s, 0, width - 1)
    right = np.clip(cx + 1.5 * s, left + 1, width)
    top = np.clip(y1 - 0.4 * s, 0, height - 1)
    bottom = np.clip(y1 + 4.5 * s, top + 1, height)
    return np.stack([left, top, right, bottom], axis=-1).astype(np.float32)
