"""Portraits with things that can be put on or taken off: glasses, hats, lipstick, rouge, powder, a blurred lens.

Everything worn is painted into the photograph before it moves, so that it follows head and mouth. Sizes are in
distances between the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from asd_explain.datasets.portraits import FaceGeometry, Look, load_photo
from asd_explain.datasets.talking_face import Pose, TalkingFace

#: Width and height of an aligned picture of CelebA, px.
SIZE = (178, 218)
#: About where CelebA's aligned pictures have both eyes, the nose and the corners of the mouth, px.
ALIGNED = np.array([(69.5, 111.5), (108.0, 111.5), (88.5, 136.0), (72.0, 152.5), (105.5, 152.5)], np.float32)
_PANEL = (264, 324)
_FACE_FRACTION = 0.37
_FINE = 4  # masks are drawn so many times finer than the photograph


@dataclass(frozen=True)
class Worn:
    """What is put on a face, and how the picture is taken.

    Attributes:
        glasses, hat, lipstick: colours, RGB 0..255, or None.
        rouge, powder: opacity of red cheeks and of pale skin, 0 for none.
        blur_px: standard deviation of the lens's blur, px of the aligned picture; 0 for none.
    """

    glasses: tuple[int, int, int] | None = None
    hat: tuple[int, int, int] | None = None
    lipstick: tuple[int, int, int] | None = None
    rouge: float = 0.0
    powder: float = 0.0
    blur_px: float = 0.0


class DressedFace(TalkingFace):
    """A talking face that wears something."""

    def __init__(self, look: Look, worn: Worn) -> None:
        super().__init__(look, *_PANEL, torso=False)
        photo = _dress(load_photo(look), self.geometry, worn)
        if self._reduce != 1.0:
            size = self._source.shape[1::-1]
            photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        self._source = photo
        self.worn = worn

    def picture(self, pose: Pose, shift_px: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The face as CelebA would have aligned it.

        Args:
            pose: of the head.
            shift_px: (5, 2) by which the landmarks that the alignment goes by are off.

        Returns:
            ((218, 178, 3) uint8 RGB, (5, 2) landmarks px, (4,) face box xyxy px, not clipped).
        """
        panel, points = self.render(pose), self.landmarks(pose)
        move, _ = cv2.estimateAffinePartial2D(points + shift_px, ALIGNED, method=cv2.LMEDS)
        scale = float(np.hypot(move[0, 0], move[1, 0]))
        if scale < 0.9:
            panel = cv2.GaussianBlur(panel, (0, 0), 0.45 * np.sqrt(1 / scale**2 - 1) + 1e-3)
        picture = cv2.warpAffine(panel, move, SIZE, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        if self.worn.blur_px:
            picture = cv2.GaussianBlur(picture, (0, 0), self.worn.blur_px)
        box = self.face_box(pose).reshape(2, 2)
        corners = np.array([(x, y) for x in box[:, 0] for y in box[:, 1]], np.float32)
        corners = corners @ move[:, :2].T + move[:, 2]
        return picture, points @ move[:, :2].T + move[:, 2], np.r_[corners.min(0), corners.max(0)]


def _dress(photo: np.ndarray, g: FaceGeometry, worn: Worn) -> np.ndarray:
    picture = photo.astype(np.float32)
    apart = abs(g.eyes[1].x - g.eyes[0].x)
    if worn.powder:
        _powder(picture, g, worn.powder)
    if worn.rouge:
        _rouge(picture, g, apart, worn.rouge)
    if worn.lipstick is not None:
        _lipstick(picture, g, worn.lipstick)
    if worn.hat is not None:
        _hat(picture, g, apart, worn.hat)
    if worn.glasses is not None:
        _glasses(picture, g, apart, worn.glasses)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


class _Mask:
    """An opacity drawn finely over the part x1 y1 x2 y2 of a photograph."""

    def __init__(self, picture: np.ndarray, box: tuple[float, float, float, float]) -> None:
        height, width = picture.shape[:2]
        self.x1, self.y1 = max(0, int(box[0])), max(0, int(box[1]))
        x2, y2 = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
        self.part = picture[self.y1 : y2, self.x1 : x2]
        self.fine = np.zeros((self.part.shape[0] * _FINE, self.part.shape[1] * _FINE), np.uint8)

    def at(self, x: float, y: float) -> tuple[int, int]:
        return round((x - self.x1 + 0.5) * _FINE), round((y - self.y1 + 0.5) * _FINE)

    def polygon(self, points: list[tuple[float, float]]) -> None:
        cv2.fillPoly(self.fine, [np.array([self.at(*p) for p in points], np.int32)], 255)

    def opacity(self, soft_px: float = 0.0) -> np.ndarray:
        """(h, w, 1) float32."""
        size = self.part.shape[1::-1]
        mask = cv2.resize(self.fine, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        return (cv2.GaussianBlur(mask, (0, 0), soft_px) if soft_px else mask)[..., None]

    def blend(self, colour: np.ndarray, opacity: np.ndarray) -> None:
        self.part += opacity * (colour - self.part)


def _powder(picture: np.ndarray, g: FaceGeometry, amount: float) -> None:
    """Skin of the face lighter and less red; what is dark in it (eyes, brows, frames) stays."""
    x1, y1, x2, y2 = g.face
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    r = np.hypot((x - (x1 + x2) / 2) / (0.56 * (x2 - x1)), (y - (y1 + y2) / 2) / (0.56 * (y2 - y1)))
    level = picture.max(-1)
    skin = np.clip((1.15 - r) / 0.3, 0, 1) * np.clip((level - 70) / 60, 0, 1)
    gray = picture.mean(-1, keepdims=True)
    pale = 0.5 * gray + 0.5 * np.array((236, 224, 218), np.float32)
    picture += (amount * skin)[..., None] * (pale - picture)


def _rouge(picture: np.ndarray, g: FaceGeometry, apart: float, amount: float) -> None:
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    for eye, side in zip(sorted(g.eyes, key=lambda e: e.x), (-1, 1), strict=True):
        cx, cy = eye.x + side * 0.12 * apart, 0.45 * eye.y + 0.55 * g.nose_y + 0.12 * apart
        blob = amount * np.exp(-(((x - cx) / (0.26 * apart)) ** 2) - ((y - cy) / (0.2 * apart)) ** 2)
        picture += blob[..., None] * (np.array((214, 58, 74), np.float32) - picture)


def _lipstick(picture: np.ndarray, g: FaceGeometry, colour: tuple[int, int, int]) -> None:
    xs, upper, lower = np.array(g.lip_x), np.array(g.upper_lip), np.array(g.lower_lip)
    across = np.clip(1 - ((xs - xs.mean()) / ((xs[-1] - xs[0]) / 2)) ** 2, 0, 1) ** 0.6
    top = upper + (g.lips[0] - upper.min()) * across * (g.lips[0] < upper.min())
    bottom = lower + (g.lips[1] - lower.max()) * across
    mask = _Mask(picture, (xs[0] - 3, g.lips[0] - 3, xs[-1] + 3, g.lips[1] + 3))
    mask.polygon([*zip(xs, top, strict=True), *reversed([*zip(xs, upper, strict=True)])])
    mask.polygon([*zip(xs, lower, strict=True), *reversed([*zip(xs, bottom, strict=True)])])
    opacity = 0.75 * mask.opacity(0.02 * (xs[-1] - xs[0]))
    light = mask.part.mean(-1, keepdims=True)
    mask.blend(np.array(colour, np.float32) * np.clip(light / 130, 0.4, 1.5), opacity)


def _hat(picture: np.ndarray, g: FaceGeometry, apart: float, colour: tuple[int, int, int]) -> None:
    """A knitted cap: down to the brows, over the hair, with a turned-up edge."""
    cx, _, half, _, _ = g.head
    edge = min(eye.y for eye in g.eyes) - 0.55 * apart
    top = g.head[1] - 1.08 * g.head[3]
    half *= 1.04
    mask = _Mask(picture, (cx - half - 2, top - 2, cx + half + 2, edge + 0.2 * apart))
    angle = np.linspace(np.pi, 2 * np.pi, 60)
    mask.polygon([(cx + half * np.cos(a), edge + (edge - top) * np.sin(a)) for a in angle])
    x = np.arange(mask.part.shape[1], dtype=np.float32)
    round_off = 1 - 0.35 * np.abs((x + mask.x1 - cx) / half) ** 2
    knit = round_off * (1 + 0.12 * np.sin(x * 2 * np.pi / (0.16 * apart)))
    mask.blend(np.array(colour, np.float32) * knit[None, :, None], mask.opacity(0.01 * apart))
    band = _Mask(picture, (cx - half - 2, edge - 0.35 * apart, cx + half + 2, edge + 0.2 * apart))
    low, high = edge + 0.06 * apart, edge - 0.28 * apart
    bend = 0.08 * apart
    xs = np.linspace(-1, 1, 40)
    band.polygon(
        [(cx + half * t, low + bend * (1 - t * t)) for t in xs]
        + [(cx + half * t, high + bend * (1 - t * t)) for t in xs[::-1]]
    )
    x = np.arange(band.part.shape[1], dtype=np.float32)
    knit = 0.78 * (1 - 0.35 * np.abs((x + band.x1 - cx) / half) ** 2) * (1 + 0.2 * np.sin(x * 40 / apart))
    band.blend(np.array(colour, np.float32) * knit[None, :, None], band.opacity(0.01 * apart))


def _glasses(picture: np.ndarray, g: FaceGeometry, apart: float, colour: tuple[int, int, int]) -> None:
    left, right = sorted(g.eyes, key=lambda e: e.x)
    x1, x2 = g.face[0] - 0.05 * g.face_width, g.face[2] + 0.05 * g.face_width
    middle = (left.y + right.y) / 2 + 0.08 * apart
    mask = _Mask(picture, (x1 - 3, middle - apart, x2 + 3, middle + apart))
    radii = (round(0.40 * apart * _FINE), round(0.32 * apart * _FINE))
    thick = max(2, round(0.075 * apart * _FINE))
    glass = np.zeros_like(mask.fine)
    for eye in (left, right):
        place = mask.at(eye.x, eye.y + 0.08 * apart)
        cv2.ellipse(glass, place, radii, 0, 0, 360, 255, -1)
        cv2.ellipse(mask.fine, place, radii, 0, 0, 360, 255, thick)
    inner = 0.40 * apart
    for a, b in ((left.x + inner, right.x - inner), (left.x - inner, x1), (right.x + inner, x2)):
        cv2.line(mask.fine, mask.at(a, middle - 0.04 * apart), mask.at(b, middle - 0.06 * apart), 255, thick)
    shine = cv2.resize(glass, mask.part.shape[1::-1], interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    mask.blend(np.array((190, 205, 215), np.float32), 0.12 * shine)
    mask.blend(np.array(colour, np.float32), mask.opacity())
