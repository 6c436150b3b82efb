"""Compositing RGBA patches straight on yuv420p planes, in place.

The decoder gives yuv420p and the encoder takes it: going through RGB for a whole frame would cost more than everything
that is drawn, and would change every pixel. So patches are converted instead, once, with their alpha multiplied in
("over" of Porter and Duff, 1984), and only the pixels under them change.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from asd_explain.render.colours import ColourSpace
from asd_explain.render.scene import YuvPlanes


@dataclass(frozen=True)
class Patch:
    """A picture ready to be composited: alpha already multiplied in.

    Attributes:
        y: (h, w) uint8, luma times alpha.
        y_keep: (h, w) uint8, 255 minus alpha: how much of the picture below stays.
        u, v: (hc, wc) uint8, mean over each 2x2 cell of chroma times alpha.
        c_keep: (hc, wc) uint8, 255 minus the mean alpha of the cell.
        parity: (x mod 2, y mod 2) of the places where the patch may go: it fixes which pixels share a chroma cell.
    """

    y: np.ndarray
    y_keep: np.ndarray
    u: np.ndarray
    v: np.ndarray
    c_keep: np.ndarray
    parity: tuple[int, int] = (0, 0)

    @classmethod
    def from_rgba(cls, rgba: np.ndarray, space: ColourSpace, parity: tuple[int, int] = (0, 0)) -> Patch:
        """Convert an (h, w, 4) uint8 picture with straight alpha; h and w at least 1.

        Raises:
            ValueError: when `rgba` has another shape or type.
        """
        if rgba.ndim != 3 or rgba.shape[2] != 4 or rgba.dtype != np.uint8 or 0 in rgba.shape:
            raise ValueError(f"an RGBA patch is (h, w, 4) uint8 and not empty, got {rgba.shape} {rgba.dtype}")
        alpha = rgba[..., 3].astype(np.float32) / 255
        yuv = cv2.transform(rgba[..., :3].astype(np.float32), space.transform()).reshape(*rgba.shape[:2], 3)
        yuv *= alpha[..., None]
        chroma = _cell_mean(np.dstack([yuv[..., 1:], alpha]), parity)
        return cls(
            y=_to_uint8(yuv[..., 0]),
            y_keep=255 - rgba[..., 3],
            u=_to_uint8(chroma[..., 0]),
            v=_to_uint8(chroma[..., 1]),
            c_keep=255 - _to_uint8(chroma[..., 2] * 255),
            parity=parity,
        )


class Canvas:
    """Draws on yuv420p planes in place; pixels outside the patches stay bit-identical.

    Args:
        planes: the picture; its arrays are changed.

    Raises:
        ValueError: when the planes are not uint8, not writable, of odd size or do not fit together.
    """

    def __init__(self, planes: YuvPlanes) -> None:
        height, width = planes.y.shape
        cells = (height // 2, width // 2)
        if height % 2 or width % 2 or planes.u.shape != cells or planes.v.shape != cells:
            raise ValueError(
                f"planes are not yuv420p of even size: y {planes.y.shape}, u {planes.u.shape}, v {planes.v.shape}"
            )
        for plane in (planes.y, planes.u, planes.v):
            if plane.dtype != np.uint8 or plane.strides[1] != 1 or not plane.flags.writeable:
                raise ValueError("planes must be writable uint8 arrays with contiguous rows")
        self.planes = planes
        self.width, self.height = width, height
        self.space = ColourSpace(planes.matrix, planes.full_range)

    def blend(self, rgba: np.ndarray, x: int, y: int) -> None:
        """Composite an (h, w, 4) uint8 picture with straight alpha, its upper left pixel at (x, y); clipped."""
        self.paste(Patch.from_rgba(rgba, self.space, (x % 2, y % 2)), x, y)

    def paste(self, patch: Patch, x: int, y: int) -> None:
        """Composite a prepared patch, its upper left pixel at (x, y); clipped at the borders.

        Raises:
            ValueError: when the patch was prepared for another parity than that of (x, y).
        """
        if (x % 2, y % 2) != patch.parity:
            raise ValueError(f"patch prepared for parity {patch.parity} cannot go to ({x}, {y})")
        _mix(self.planes.y, x, y, [(self.planes.y, patch.y)], patch.y_keep)
        _mix(self.planes.u, x // 2, y // 2, [(self.planes.u, patch.u), (self.planes.v, patch.v)], patch.c_keep)


def _mix(like: np.ndarray, x: int, y: int, pairs: list[tuple[np.ndarray, np.ndarray]], keep: np.ndarray) -> None:
    """plane = plane * keep / 255 + patch for each (plane, patch), clipped to the plane's size."""
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + keep.shape[1], like.shape[1]), min(y + keep.shape[0], like.shape[0])
    if right <= left or bottom <= top:
        return
    inside = (slice(top - y, bottom - y), slice(left - x, right - x))
    for plane, patch in pairs:
        target = plane[top:bottom, left:right]
        cv2.multiply(target, keep[inside], dst=target, scale=1 / 255)
        cv2.add(target, patch[inside], dst=target)


def _cell_mean(values: np.ndarray, parity: tuple[int, int]) -> np.ndarray:
    """Mean of (h, w, c) over the 2x2 chroma cells, pixels outside counting as zero: (hc, wc, c)."""
    height, width = values.shape[:2]
    before_x, before_y = parity
    after_x, after_y = (before_x + width) % 2, (before_y + height) % 2
    padded = cv2.copyMakeBorder(values, before_y, after_y, before_x, after_x, cv2.BORDER_CONSTANT, value=0)
    cells = (padded.shape[1] // 2, padded.shape[0] // 2)
    return cv2.resize(padded, cells, interpolation=cv2.INTER_AREA).reshape(cells[1], cells[0], -1)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
