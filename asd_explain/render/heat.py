"""Heat over a face or a body: where it lies, how it is enlarged, how it is mixed in."""

from __future__ import annotations

import cv2
import numpy as np

from asd_explain.render.canvas import Patch
from asd_explain.render.colours import ColourSpace, heat_lut, heat_opacity
from asd_explain.render.placement import Rect


def heat_region(window: np.ndarray, box: np.ndarray, width: int, height: int) -> Rect | None:
    """The pixels on which heat may lie: inside window, box and frame alike, on even borders; None where there are none.

    The borders are even so that no chroma cell is shared with a pixel outside.
    """
    corners = np.stack([np.asarray(window, float), np.asarray(box, float), [0, 0, width, height]])
    if not np.isfinite(corners).all():
        return None
    x0, y0 = (2 * int(np.ceil(value / 2)) for value in corners[:, :2].max(axis=0))
    x1, y1 = (2 * int(np.floor(value / 2)) for value in corners[:, 2:].min(axis=0))
    return Rect(x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def upsample(heat: np.ndarray, window: np.ndarray, region: Rect) -> np.ndarray:
    """The heat at the pixel centres of `region`, whose cells tile `window`: bicubic, never beyond the map's extremes.

    Keys' cubic convolution with a = -0.5 (Keys, 1981), the outermost cells repeated outwards; a map finer than the
    pixels is averaged down first.

    Args:
        heat: (h, w) float.
        window: (4,) x1 y1 x2 y2 in pixels, not empty.
        region: the pixels wanted, inside the window.

    Returns:
        (region.height, region.width) float32.
    """
    heat = np.asarray(heat, np.float32)
    x0, y0, x1, y1 = (float(value) for value in window)
    coarse = (max(min(heat.shape[1], round(x1 - x0)), 1), max(min(heat.shape[0], round(y1 - y0)), 1))
    if coarse != (heat.shape[1], heat.shape[0]):
        heat = cv2.resize(heat, coarse, interpolation=cv2.INTER_AREA).reshape(coarse[1], coarse[0])
    down = _cubic_weights(region.y0, region.y1, y0, y1, heat.shape[0])
    across = _cubic_weights(region.x0, region.x1, x0, x1, heat.shape[1])
    return np.clip(down @ heat @ across.T, heat.min(), heat.max())


class HeatPainter:
    """Turns heat maps into patches.

    Args:
        space: the colour space of the planes they go on.
    """

    def __init__(self, space: ColourSpace) -> None:
        self._yuv = space.to_yuv(heat_lut())
        self._opacity = heat_opacity()
        self._tables: dict[int, np.ndarray] = {}

    def patch(
        self, heat: np.ndarray | None, window: np.ndarray, region: Rect, p: float, holes: tuple[Rect, ...] = ()
    ) -> Patch | None:
        """The heat of one region as a patch that goes to the region's corner; None where there is nothing to draw.

        Args:
            heat: (h, w) in [0, 1], values that are not finite counting as 0; or None.
            window: (4,) pixels that the map's cells tile.
            region: even pixels inside the window, from `heat_region`.
            p: P(speaking), which the opacity is multiplied by.
            holes: rectangles in pixels that are left free.
        """
        index = heat_index(heat, window, region)
        strength = round(255 * min(max(p, 0.0), 1.0)) if p == p else 0
        if index is None or strength == 0:
            return None
        for hole in holes:
            index[
                max(hole.y0 - region.y0, 0) : max(hole.y1 - region.y0, 0),
                max(hole.x0 - region.x0, 0) : max(hole.x1 - region.x0, 0),
            ] = 0
        y, u, v, keep = self._premultiplied(strength)
        cells = (region.width // 2, region.height // 2)
        half = [cv2.resize(cv2.LUT(index, t), cells, interpolation=cv2.INTER_AREA) for t in (u, v, keep)]
        half = [plane.reshape(cells[1], cells[0]) for plane in half]
        return Patch(y=cv2.LUT(index, y), y_keep=cv2.LUT(index, keep), u=half[0], v=half[1], c_keep=half[2])

    def _premultiplied(self, strength: int) -> np.ndarray:
        """Lookup tables (4, 256) uint8 for Y, U, V times alpha and for 255 minus alpha."""
        table = self._tables.get(strength)
        if table is None:
            alpha = np.rint(self._opacity * strength)
            colours = self._yuv.T * (alpha / 255)
            table = np.rint(np.vstack([colours, 255 - alpha])).astype(np.uint8)
            self._tables[strength] = table
        return table


def heat_index(heat: np.ndarray | None, window: np.ndarray, region: Rect) -> np.ndarray | None:
    """The heat on the region's pixels in 256 steps, (height, width) uint8; None for a map without any heat."""
    if heat is None or np.size(heat) == 0:
        return None
    clean = np.clip(np.nan_to_num(np.asarray(heat, np.float32), nan=0.0, posinf=0.0, neginf=0.0), 0.0, 1.0)
    if not clean.any():
        return None
    return (upsample(clean, window, region) * 255 + 0.5).astype(np.uint8)


def _cubic_weights(first: int, last: int, low: float, high: float, cells: int) -> np.ndarray:
    """(last - first, cells) float32: what each cell of [low, high] gives to the centre of each pixel."""
    position = (np.arange(first, last) + 0.5 - low) / (high - low) * cells - 0.5
    base = np.floor(position)
    rest = position - base
    weights = np.zeros((last - first, cells), np.float32)
    rows = np.arange(last - first)
    for offset in (-1, 0, 1, 2):
        distance = np.abs(rest - offset)
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        column = np.clip(base + offset, 0, cells - 1).astype(int)
        weights[rows, column] += np.where(distance <= 1, near, far).astype(np.float32)
    return weights
