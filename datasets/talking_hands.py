"""A drawn forearm with a hand, in front of a talking photograph's body.

The photographs show no hands that could move, so these are generated: a sleeve in the gray and colour of the
photograph's own shoulder and a hand of rounded strokes in the colour of its cheek, shaded as if lit from above. They
are meant to be seen at the few dozen pixels that a body crop gives them; from near they look like a mitten. Nothing
about their motion is measured from people (:mod:`asd_explain.datasets.talking_motion`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from asd_explain.datasets.face_geometry import FaceGeometry

_SPRITE = 160  # px, side of a hand's drawing
_UNIT = 58.0  # px of the drawing in half a hand's length


@dataclass(frozen=True)
class Hand:
    """One hand at one moment.

    Attributes:
        side: -1 the picture's left, 1 its right.
        x, y: middle of the palm from the neck's pivot, in face heights, outwards and down.
        angle: of the hand against the forearm's direction, radians, positive towards the body's middle.
        spread: 0 (fist) to 1 (open hand).
    """

    side: int
    x: float
    y: float
    angle: float = 0.0
    spread: float = 0.6


@lru_cache(maxsize=16)
def _sprite(spread: int) -> tuple[np.ndarray, np.ndarray]:
    """Cover and shade (``_SPRITE``, ``_SPRITE``) float32 of a hand whose fingers point up; ``spread`` in eighths."""
    open_part = spread / 8
    y, x = np.meshgrid(*(np.arange(_SPRITE, dtype=np.float32) - _SPRITE / 2 + 0.5,) * 2, indexing="ij")
    x, y = x / _UNIT, y / _UNIT

    def stroke(x1: float, y1: float, x2: float, y2: float, radius: float) -> np.ndarray:
        """Height of a round bar over the picture plane; negative outside."""
        dx, dy = x2 - x1, y2 - y1
        t = np.clip(((x - x1) * dx + (y - y1) * dy) / max(dx * dx + dy * dy, 1e-6), 0, 1)
        return radius - np.hypot(x - x1 - t * dx, y - y1 - t * dy)

    length = 0.28 + 0.42 * open_part
    parts = [stroke(-0.12, 0.05, 0.12, 0.05, 0.34), stroke(0.0, 0.2, 0.0, 0.7, 0.24)]
    for k, reach in zip((-1.5, -0.5, 0.5, 1.5), (0.85, 1.0, 0.97, 0.78), strict=True):
        fan = 0.09 * k * (0.5 + open_part)
        parts.append(stroke(0.17 * k, -0.15, 0.17 * k + fan * length, -0.25 - length * reach, 0.095))
    parts.append(stroke(0.3, 0.12, 0.42 + 0.2 * open_part, -0.18 - 0.2 * open_part, 0.11))
    field = np.max(parts, axis=0)
    cover = np.clip(field * _UNIT / 1.2 + 0.5, 0, 1)
    # between two fingers the strokes meet in a crease, which the shade shows
    crease = np.clip(field / 0.09, 0, 1)
    relief = cv2.GaussianBlur(np.sqrt(np.clip(field, 0, 0.3)), (0, 0), 1.5)
    slope = cv2.Sobel(relief, cv2.CV_32F, 0, 1, ksize=3)
    shade = np.clip(0.70 + 0.28 * crease + 1.2 * slope, 0.4, 1.15)
    return cover.astype(np.float32), shade.astype(np.float32)


class HandPainter:
    """Paints hands over panels of one photograph.

    Args:
        geometry: of the photograph.
        photo: (H, W, 3) uint8 RGB, where the colours of sleeve and skin are taken.
    """

    def __init__(self, geometry: FaceGeometry, photo: np.ndarray) -> None:
        self.geometry = g = geometry
        h = g.face_height
        middle = (g.face[0] + g.face[2]) / 2
        eye_y = (g.eyes[0].y + g.eyes[1].y) / 2
        self.skin = self._colour(photo, middle, (eye_y + g.nose_y) / 2, 0.30 * h, 0.08 * h)
        self.sleeve = {
            side: self._colour(photo, g.pivot[0] + side * 0.72 * h, g.pivot[1] + 0.62 * h, 0.12 * h, 0.12 * h)
            for side in (-1, 1)
        }
        rng = np.random.default_rng(5)
        folds = cv2.GaussianBlur(rng.standard_normal((64, 64)).astype(np.float32), (0, 0), 2.5)
        self._folds = folds / folds.std()

    @staticmethod
    def _colour(photo: np.ndarray, x: float, y: float, half_w: float, half_h: float) -> np.ndarray:
        rows = slice(max(0, int(y - half_h)), int(y + half_h) + 1)
        cols = slice(max(0, int(x - half_w)), int(x + half_w) + 1)
        patch = photo[rows, cols].reshape(-1, 3)
        return np.median(patch, axis=0).astype(np.float32) if len(patch) else np.full(3, 90, np.float32)

    def paint(self, panel: np.ndarray, hand: Hand, pose, left: float, top: float, step_x: float, step_y: float) -> None:
        """Paint a hand over a panel, in place.

        Args:
            panel: (H, W, 3) uint8 RGB.
            hand: where it is.
            pose: the person's pose, whose sway and lean the hand follows.
            left, top: photo pixel at the panel's left upper corner.
            step_x, step_y: photo pixels in a panel pixel.
        """
        g = self.geometry
        h = g.face_height
        grow = pose.lean_in
        px = g.pivot[0] + (pose.sway[0] + 0.6 * pose.lean[0]) * h
        py = g.pivot[1] + (pose.sway[1] + 0.6 * pose.lean[1]) * h
        palm = np.array([px + hand.side * hand.x * h * grow, py + hand.y * h])
        elbow = np.array([px + hand.side * (0.55 + 0.75 * hand.x) * h * grow, py + (hand.y + 1.35) * h])
        along = elbow - palm
        along /= np.linalg.norm(along)
        wrist = palm + along * 0.34 * h
        reach = 0.62 * h
        x1, x2 = min(palm[0], elbow[0]) - reach, max(palm[0], elbow[0]) + reach
        y1, y2 = palm[1] - reach, max(palm[1], elbow[1]) + reach
        rows = slice(max(0, int((y1 - top) / step_y)), min(panel.shape[0], int((y2 - top) / step_y) + 1))
        cols = slice(max(0, int((x1 - left) / step_x)), min(panel.shape[1], int((x2 - left) / step_x) + 1))
        if rows.start >= rows.stop or cols.start >= cols.stop:
            return
        patch = panel[rows, cols].astype(np.float32)
        x = (left + (np.arange(cols.start, cols.stop, dtype=np.float32) + 0.5) * step_x)[None, :]
        y = (top + (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) * step_y)[:, None]
        self._paint_palm(patch, hand, palm, along, left, top, step_x, step_y, rows, cols)
        # the sleeve: a cone from wrist to elbow
        t = (x - np.float32(wrist[0])) * np.float32(along[0]) + (y - np.float32(wrist[1])) * np.float32(along[1])
        off = (y - np.float32(wrist[1])) * np.float32(along[0]) - (x - np.float32(wrist[0])) * np.float32(along[1])
        radius = np.float32(0.24 * h) + np.float32(0.12) * np.clip(t, 0, None)
        cover = np.clip((radius - np.abs(off)) / step_y + 0.5, 0, 1) * np.clip(t / step_y + 0.5, 0, 1)
        shadow = np.clip(1 - np.abs(off) / (radius * 1.5), 0, 1) * np.clip(t / (0.1 * h) + 0.5, 0, 1)
        patch *= (1 - 0.28 * shadow * (1 - cover))[..., None]
        index = (((t / (0.05 * h)).astype(np.int32) % 64), ((off / (0.05 * h)).astype(np.int32) % 64))
        shade = np.sqrt(np.clip(1 - (off / radius) ** 2, 0.05, 1)) * (0.96 + 0.05 * self._folds[index]) + np.float32(
            0.06
        )
        cuff = np.exp(-(((t - np.float32(0.05 * h)) / np.float32(0.02 * h)) ** 2))
        colour = self.sleeve[hand.side] + 10
        patch += cover[..., None] * (colour * (shade * (1 - 0.3 * cuff))[..., None] - patch)
        panel[rows, cols] = np.clip(patch + 0.5, 0, 255).astype(np.uint8)

    def _paint_palm(self, patch, hand: Hand, palm, along, left, top, step_x, step_y, rows, cols) -> None:
        cover, shade = _sprite(round(8 * float(np.clip(hand.spread, 0, 1))))
        # the drawing's up is against the forearm's direction, turned by the hand's angle
        turn = np.arctan2(along[0], along[1]) * -1 + hand.side * -hand.angle
        c, s = np.cos(turn), np.sin(turn)
        scale = _UNIT / (0.46 * self.geometry.face_height)  # drawing px in a photo px
        # patch px (u, v) -> photo px -> drawing px
        ox = left + (cols.start + 0.5) * step_x - palm[0]
        oy = top + (rows.start + 0.5) * step_y - palm[1]
        flip = -hand.side  # thumbs point to the middle
        rotate = np.array([[c, s], [-s, c]]) * scale
        rotate[0] *= flip
        matrix = np.empty((2, 3))
        matrix[:, 0], matrix[:, 1] = rotate[:, 0] * step_x, rotate[:, 1] * step_y
        matrix[:, 2] = rotate @ np.array([ox, oy]) + _SPRITE / 2 - 0.5
        size, flags = (patch.shape[1], patch.shape[0]), cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        cover = cv2.warpAffine(cover, matrix, size, flags=flags)
        shade = cv2.warpAffine(shade, matrix, size, flags=flags)
        patch += cover[..., None] * (self.skin * shade[..., None] - patch)
