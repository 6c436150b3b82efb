"""What comes before a face: hands, microphones, cups. In the coordinates of the face, so that it moves with it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from asd_explain.tracks.crops import CROP_SIZE

#: The wide crop as :mod:`asd_explain.datasets.face_clips` cuts it: its side, and that of the face box in it, px.
WIDE_SIZE = 160
BOX_PX = WIDE_SIZE / 1.4

#: Places of the wide crop's pixels in sides of the box, counted from its upper left corner.
_Y, _X = ((np.mgrid[:WIDE_SIZE, :WIDE_SIZE] + 0.5 - WIDE_SIZE / 2) / BOX_PX + 0.5).astype(np.float32)


@dataclass(frozen=True)
class Cover:
    """Something before the face, in the wide crop's coordinates: (160, 160) float32 opacity and gray levels."""

    opacity: np.ndarray
    levels: np.ndarray
    first: int
    last: int

    def paint_wide(self, wide: np.ndarray) -> None:
        rows, columns = np.flatnonzero(self.opacity.any(1)), np.flatnonzero(self.opacity.any(0))
        if not rows.size:
            return
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        opacity, levels = self.opacity[part], self.levels[part]
        region = wide[self.first : self.last, part[0], part[1]]
        region[:] = np.rint(region * (1 - opacity) + opacity * levels)

    def paint_bodies(self, bodies: np.ndarray, face_in_body: np.ndarray) -> None:
        half = WIDE_SIZE / BOX_PX / 2
        for body, box in zip(bodies[self.first : self.last], face_in_body[self.first : self.last], strict=True):
            centre, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
            x1, y1 = np.rint(centre - half * sides).astype(int)
            width, height = np.maximum(np.rint(2 * half * sides).astype(int), 1)
            left, top, right, bottom = max(x1, 0), max(y1, 0), min(x1 + width, CROP_SIZE), min(y1 + height, CROP_SIZE)
            if left >= right or top >= bottom:
                continue
            part = np.s_[top - y1 : bottom - y1, left - x1 : right - x1]
            opacity, levels = (
                cv2.resize(a, (int(width), int(height)), interpolation=cv2.INTER_AREA)[part]
                for a in (self.opacity, self.levels)
            )
            region = body[top:bottom, left:right]
            region[:] = np.rint(region * (1 - opacity) + opacity * levels)


def _blob(cx: float, cy: float, half_x: float, half_y: float, power: float, turn_deg: float, soft: float) -> np.ndarray:
    """(160, 160) float32 opacity of a turned superellipse: 1 within, falling to 0 over ``soft`` of its radius."""
    cos, sin = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    x, y = _X - np.float32(cx), _Y - np.float32(cy)
    along, across = np.abs(cos * x + sin * y) / half_x, np.abs(cos * y - sin * x) / half_y
    radius = (along**power + across**power) ** (1 / power)
    return np.clip((1 + soft - radius) / soft, 0, 1).astype(np.float32)


def _draw_levels(wide: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(160, 160) float32 gray levels of a surface: plain, a piece of the picture from above the mouth, or a hand."""
    kind = rng.choice(3, p=(0.3, 0.35, 0.35))
    frame = wide[rng.integers(len(wide))]
    if kind == 0:
        levels = np.full((WIDE_SIZE, WIDE_SIZE), rng.uniform(10, 245), np.float32)
        grain = rng.uniform(0, 6)
    elif kind == 1:
        height, width = rng.integers(24, 72), rng.integers(24, 120)
        top, left = rng.integers(0, WIDE_SIZE // 2 - height + 1), rng.integers(0, WIDE_SIZE - width + 1)
        piece = frame[top : top + height, left : left + width]
        levels = cv2.resize(piece, (WIDE_SIZE, WIDE_SIZE), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        grain = rng.uniform(0, 3)
    else:
        # Skin as bright as the forehead or so, with the ridges and the shadows of fingers side by side.
        skin = float(np.median(frame[40:70, 50:110])) * rng.uniform(0.75, 1.25)
        across = np.deg2rad(rng.uniform(0, 180))
        phase = 2 * np.pi * (np.cos(across) * _X + np.sin(across) * _Y) / rng.uniform(0.13, 0.25) + rng.uniform(0, 6.3)
        fingers = rng.uniform(0.05, 0.25) * (np.abs(np.sin(phase / 2)) ** 0.5 - 0.8)
        levels = (skin * (1 + fingers)).astype(np.float32)
        grain = rng.uniform(1, 4)
    coarse = rng.standard_normal((5, 5)).astype(np.float32)
    shading = cv2.resize(coarse, (WIDE_SIZE, WIDE_SIZE), interpolation=cv2.INTER_CUBIC) * np.float32(rng.uniform(0, 12))
    fine = rng.standard_normal((WIDE_SIZE, WIDE_SIZE), dtype=np.float32) * np.float32(grain)
    return np.clip(levels + shading + fine, 0, 255)


def draw_mouth_cover(wide: np.ndarray, rng: np.random.Generator) -> Cover:
    """Over the lower 45 % or so of the box: always over [0.22, 0.78] x [0.64, 0.98] of it, where a mouth is."""
    opacity = _blob(
        cx=rng.uniform(0.45, 0.55),
        cy=rng.uniform(0.83, 0.87),
        half_x=rng.uniform(0.48, 0.66),
        half_y=rng.uniform(0.30, 0.35),
        power=rng.uniform(2.8, 5.0),
        turn_deg=rng.uniform(-5, 5),
        soft=rng.uniform(0.02, 0.1),
    )
    return Cover(opacity, _draw_levels(wide, rng), 0, len(wide))


def draw_other_cover(wide: np.ndarray, rng: np.random.Generator) -> Cover:
    """Over the upper half of the box or its sides, never over the mouth, for at least a third of the chunk."""
    if rng.random() < 0.6:
        place = {"cx": rng.uniform(0, 1), "cy": rng.uniform(0, 0.28)}
        half = {"half_x": rng.uniform(0.15, 0.6), "half_y": rng.uniform(0.08, 0.22)}
        turn = 0.0
    else:
        side = rng.choice((-1, 1))
        place = {"cx": 0.5 + side * rng.uniform(0.42, 0.55), "cy": rng.uniform(0, 1)}
        half = {"half_x": rng.uniform(0.06, 0.14), "half_y": rng.uniform(0.15, 0.6)}
        turn = rng.uniform(-5, 5)
    opacity = _blob(**place, **half, power=rng.uniform(2, 5), turn_deg=turn, soft=rng.uniform(0.02, 0.1))
    n = len(wide)
    length = int(np.ceil(n * rng.uniform(1 / 3, 1.5)))
    first = 0 if length >= n else int(rng.integers(0, n - length + 1))
    return Cover(opacity, _draw_levels(wide, rng), first, min(first + length, n))
