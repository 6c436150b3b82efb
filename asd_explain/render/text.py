"""Text and small shapes on RGBA sheets.

The typeface is DejaVu Sans, which matplotlib ships, so the picture looks the same on every machine.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from asd_explain.render.colours import Rgb


def font_path(bold: bool = False) -> Path:
    """Where matplotlib keeps DejaVu Sans; matplotlib itself, slow to import, is only looked up."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    package = Path(find_spec("matplotlib").origin).parent
    return package / "mpl-data" / "fonts" / "ttf" / name


class Typeface:
    """DejaVu Sans at one size.

    Args:
        size: em size in pixels, at least 1.
        bold: the bold cut.

    Attributes:
        height: height in pixels of a line's mask, ascenders and descenders included.
    """

    def __init__(self, size: int, bold: bool = False) -> None:
        self.size = size
        # basic layout: the same glyph positions whether or not the optional shaping library is installed
        self._font = ImageFont.truetype(str(font_path(bold)), size, layout_engine=ImageFont.Layout.BASIC)
        self._ascent = round(size * 0.93)
        self.height = self._ascent + round(size * 0.24)

    def width(self, text: str) -> int:
        """Width of the text in pixels."""
        return int(np.ceil(self._font.getlength(text)))

    def mask(self, text: str) -> np.ndarray:
        """Coverage of the text: (height, max(width, 1)) uint8, 0 to 255."""
        image = Image.new("L", (max(self.width(text), 1), self.height), 0)
        ImageDraw.Draw(image).text((0, self._ascent), text, fill=255, font=self._font, anchor="ls")
        return np.asarray(image)

    def shorten(self, text: str, width: int) -> str:
        """The text, cut with an ellipsis where it is wider than `width` pixels; empty where nothing fits."""
        if self.width(text) <= width:
            return text
        for length in range(len(text) - 1, 0, -1):
            cut = text[:length].rstrip() + "…"
            if self.width(cut) <= width:
                return cut
        return ""


class Sheet:
    """An RGBA picture to draw on, transparent at first; drawn once, then cached as a patch.

    Args:
        width, height: size in pixels, at least 1 each.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._rgb = np.zeros((height, width, 3), np.float32)  # alpha multiplied in
        self._alpha = np.zeros((height, width, 1), np.float32)

    def over(self, mask: np.ndarray, x: int, y: int, rgb: Rgb, opacity: float = 1.0) -> None:
        """Lay a colour over the sheet where `mask` (h, w) uint8 says; clipped."""
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + mask.shape[1], self.width), min(y + mask.shape[0], self.height)
        if right <= left or bottom <= top:
            return
        cover = mask[top - y : bottom - y, left - x : right - x, None].astype(np.float32) * (opacity / 255)
        area = (slice(top, bottom), slice(left, right))
        self._rgb[area] += (np.asarray(rgb, np.float32) - self._rgb[area]) * cover
        self._alpha[area] += (1 - self._alpha[area]) * cover

    def rect(self, x0: int, y0: int, x1: int, y1: int, rgb: Rgb, opacity: float = 1.0, radius: int = 0) -> None:
        """Fill the rectangle [x0, x1) x [y0, y1), its corners rounded by `radius` pixels."""
        if x1 > x0 and y1 > y0:
            self.over(rounded_mask(x1 - x0, y1 - y0, radius), x0, y0, rgb, opacity)

    def text(self, face: Typeface, text: str, x: int, y: int, rgb: Rgb, opacity: float = 1.0) -> None:
        """Write a line of text, its mask's upper left corner at (x, y)."""
        if text:
            self.over(face.mask(text), x, y, rgb, opacity)

    def polyline(self, points: np.ndarray, rgb: Rgb, width: int = 1, opacity: float = 1.0) -> None:
        """Draw an antialiased line through (n, 2) float x, y points in pixels (0 is the first pixel's centre)."""
        if len(points) < 1:
            return
        low = np.floor(points.min(axis=0)).astype(int) - width - 1
        high = np.ceil(points.max(axis=0)).astype(int) + width + 2
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        fixed = np.rint((points - low) * 16).astype(np.int32)
        cv2.polylines(mask, [fixed.reshape(-1, 1, 2)], False, 255, width, cv2.LINE_AA, 4)
        self.over(mask, int(low[0]), int(low[1]), rgb, opacity)

    def rgba(self) -> np.ndarray:
        """The sheet as (h, w, 4) uint8 with straight alpha."""
        straight = self._rgb / np.maximum(self._alpha, 1e-6)
        return np.rint(np.clip(np.dstack([straight, self._alpha * 255]), 0, 255)).astype(np.uint8)


def rounded_mask(width: int, height: int, radius: int) -> np.ndarray:
    """Coverage of a rectangle with rounded corners: (height, width) uint8, antialiased by 4 x 4 samples."""
    radius = min(radius, width // 2, height // 2)
    if radius < 1:
        return np.full((height, width), 255, np.uint8)
    mask = np.full((height, width), 255, np.uint8)
    steps = (np.arange(radius * 4) + 0.5) / 4 - radius
    inside = (steps[:, None] ** 2 + steps[None, :] ** 2 <= radius**2).astype(np.float32)
    corner = np.rint(inside.reshape(radius, 4, radius, 4).mean(axis=(1, 3)) * 255).astype(np.uint8)
    mask[:radius, :radius] = corner
    mask[:radius, -radius:] = corner[:, ::-1]
    mask[-radius:, :radius] = corner[::-1]
    mask[-radius:, -radius:] = corner[::-1, ::-1]
    return mask
