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


def upsample(heat: np.ndarray, window: np.ndarray, region: Rect, step: int = 1) -> np.ndarray:
    """The heat on `region`, whose cells tile `window`: bicubic, never beyond the map's extremes.

    Keys' cubic convolution with a = -0.5 (Keys, 1981), the outermost cells repeated outwards; a map finer than what is
    wanted is averaged down first.

    Args:
        heat: (h, w) float.
        window: (4,) x1 y1 x2 y2 in pixels, not empty.
        region: the pixels wanted, inside the window.
        step: one value for each block of step x step pixels, at the block's centre; divides the region's sides.

    Returns:
        (region.height / step, region.width / step) float32.
    """
    heat = np.asarray(heat, np.float32)
    x0, y0, x1, y1 = (float(value) for value in window)
    coarse = (
        max(min(heat.shape[1], round((x1 - x0) / step)), 1),
        max(min(heat.shape[0], round((y1 - y0) / step)), 1),
    )
    if coarse != (heat.shape[1], heat.shape[0]):
        heat = cv2.resize(heat, coarse, interpolation=cv2.INTER_AREA).reshape(coarse[1], coarse[0])
    x, y = (np.arange(low + step / 2, high, step) for low, high in ((region.x0, region.x1), (region.y0, region.y1)))
    columns, column_weights = _cubic_taps((x - x0) / (x1 - x0) * heat.shape[1], heat.shape[1])
    rows, row_weights = _cubic_taps((y - y0) / (y1 - y0) * heat.shape[0], heat.shape[0])
    across = (heat[:, columns] * column_weights).sum(axis=1)
    enlarged = across[rows[0]] * row_weights[0][:, None]
    for row, weight in zip(rows[1:], row_weights[1:], strict=True):
        enlarged += across[row] * weight[:, None]
    return np.clip(enlarged, heat.min(), heat.max(), out=enlarged)


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
        cells = heat_index(heat, window, region, step=2)  # at the centres of the chroma cells
        strength = round(255 * min(max(p, 0.0), 1.0)) if p == p else 0
        if cells is None or strength == 0:
            return None
        for hole in holes:
            rows = slice(max(hole.y0 // 2 - region.y0 // 2, 0), max(-(-hole.y1 // 2) - region.y0 // 2, 0))
            columns = slice(max(hole.x0 // 2 - region.x0 // 2, 0), max(-(-hole.x1 // 2) - region.x0 // 2, 0))
            cells[rows, columns] = 0
        # the map is smooth at this scale: between the chroma cells' centres a linear ramp is as good as a cubic
        pixels = cv2.resize(cells, (region.width, region.height), interpolation=cv2.INTER_LINEAR)
        y, u, v, keep = self._premultiplied(strength)
        return Patch(
            y=cv2.LUT(pixels, y),
            y_keep=cv2.LUT(pixels, keep),
            u=cv2.LUT(cells, u),
            v=cv2.LUT(cells, v),
            c_keep=cv2.LUT(cells, keep),
        )

    def _premultiplied(self, strength: int) -> np.ndarray:
        """Lookup tables (4, 256) uint8 for Y, U, V times alpha and for 255 minus alpha."""
        table = self._tables.get(strength)
        if table is None:
            alpha = np.rint(self._opacity * strength)
            colours = self._yuv.T * (alpha / 255)
            table = np.rint(np.vstack([colours, 255 - alpha])).astype(np.uint8)
            self._tables[strength] = table
        return table


def heat_index(heat: np.ndarray | None, window: np.ndarray, region: Rect, step: int = 1) -> np.ndarray | None:
    """The heat on the region in 256 steps, uint8, arguments as for `upsample`; None for a map without any heat."""
    if heat is None or np.size(heat) == 0:
        return None
    clean = np.clip(np.nan_to_num(np.asarray(heat, np.float32), nan=0.0, posinf=0.0, neginf=0.0), 0.0, 1.0)
    if not clean.any():
        return None
    return (upsample(clean, window, region, step) * 255 + 0.5).astype(np.uint8)


def _cubic_taps(place: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """The four cells around each place, and their weights.

    Args:
        place: (n,) places in units of cells, 0 the lower border of the first cell.
        cells: how many there are.

    Returns:
        (4, n) indices, those outside moved to the outermost cell, and (4, n) float32 weights summing to 1.
    """
    base = np.floor(place - 0.5)
    offsets = np.arange(-1, 3)[:, None]
    distance = np.abs(place - 0.5 - base - offsets)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    taps = np.clip(base + offsets, 0, cells - 1).astype(np.intp)
    return taps, np.where(distance <= 1, near, far).astype(np.float32)
