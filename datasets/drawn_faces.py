"""Faces that nobody has: portraits drawn from a seed, to talk as the photographs do.

Shaded shapes, no photograph: skull, jaw, hair, eyes, nose and lips of proportions and colours drawn at random, lit from
above. They are meant to pass as faces at the 50 to 100 pixels that a crop gives them: our face detector finds them (a
test holds them to it), and from near they are drawings. Because there are as many as wanted, a network that is tried on
some of them has not seen those.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from asd_explain.datasets.face_geometry import Eye, FaceGeometry

PREFIX = "drawn-"
SIZE = (512, 600)
_SKIN = np.array(((92, 58, 42), (141, 92, 66), (186, 134, 100), (214, 168, 136), (236, 200, 176)), np.float32)
_HAIR = np.array(
    ((22, 18, 16), (60, 40, 28), (110, 78, 46), (176, 138, 84), (150, 146, 142), (120, 54, 30)), np.float32
)
_HAIRCUTS = ("bald", "short", "short", "parted", "long", "long")


@dataclass(frozen=True)
class _Person:
    """What is drawn, in pixels of :data:`SIZE` and RGB 0..255; see :func:`_person`."""

    x: float
    eye_y: float
    half_width: float
    crown_y: float
    chin_y: float
    jaw: float
    squareness: float
    eye_x: float
    eye: tuple[float, float]
    brow: tuple[float, float, float]
    nose_y: float
    nose_width: float
    mouth_y: float
    mouth_half: float
    lips: tuple[float, float]
    smile: float
    hairline_y: float
    haircut: str
    beard: float
    glasses: bool
    neck: float
    shoulders: float
    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    cloth: np.ndarray
    lip_colour: np.ndarray
    light: tuple[float, float]


def _between(colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour between two neighbours of a list."""
    place = rng.uniform(0, len(colours) - 1)
    low = min(int(place), len(colours) - 2)
    mixed = colours[low] + (place - low) * (colours[low + 1] - colours[low])
    return (mixed * rng.uniform(0.92, 1.08, 3)).astype(np.float32)


def _person(seed: int) -> _Person:
    """Proportions and colours, a pure function of the seed."""
    rng = np.random.default_rng((seed, 0xFACE))
    half, height = rng.uniform(76, 98), rng.uniform(196, 236)  # of the face, brow's arch to chin: the detectors' box
    eye_y = rng.uniform(222, 238)
    chin_y = eye_y + 0.64 * height
    mouth_y = eye_y + height * rng.uniform(0.385, 0.43)
    skin = _between(_SKIN, rng)
    redder = np.array((rng.uniform(0.86, 1.04), rng.uniform(0.58, 0.76), rng.uniform(0.58, 0.78)), np.float32)
    return _Person(
        x=256 + rng.uniform(-10, 10),
        eye_y=eye_y,
        half_width=half,
        crown_y=eye_y - height * rng.uniform(0.60, 0.72),
        chin_y=chin_y,
        jaw=rng.uniform(0.62, 0.92),
        squareness=rng.uniform(2.0, 2.9),
        eye_x=half * rng.uniform(0.43, 0.52),
        eye=(half * rng.uniform(0.19, 0.25), half * rng.uniform(0.075, 0.12)),
        brow=(rng.uniform(2.5, 7), rng.uniform(-5, 5), half * rng.uniform(0.22, 0.32)),
        nose_y=eye_y + (mouth_y - eye_y) * rng.uniform(0.60, 0.70),
        nose_width=half * rng.uniform(0.19, 0.31),
        mouth_y=mouth_y,
        mouth_half=half * rng.uniform(0.36, 0.50),
        lips=(height * rng.uniform(0.022, 0.046), height * rng.uniform(0.034, 0.062)),
        smile=rng.uniform(-1.5, 5),
        hairline_y=eye_y - height * rng.uniform(0.34, 0.46),
        haircut=str(rng.choice(_HAIRCUTS)),
        beard=float(rng.choice((0, 0, 0, rng.uniform(0.25, 0.8)))),
        glasses=bool(rng.random() < 0.25),
        neck=rng.uniform(0.56, 0.76),
        shoulders=rng.uniform(150, 225),
        skin=skin,
        hair=_between(_HAIR, rng),
        iris=rng.uniform((40, 40, 30), (110, 120, 130)).astype(np.float32),
        cloth=rng.uniform(25, 215, 3).astype(np.float32),
        lip_colour=(skin * redder).astype(np.float32),
        light=(float(rng.uniform(-0.55, 0.55)), float(rng.uniform(0.35, 0.75))),
    )


def _grid() -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.meshgrid(*(np.arange(side, dtype=np.float32) for side in SIZE)))


def _soft(distance: np.ndarray, width: float = 1.5) -> np.ndarray:
    """Cover of a shape: 1 where a distance in pixels is well below zero, 0 well above."""
    return np.clip(0.5 - distance / width, 0, 1)


def _ellipse(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    """About the distance in pixels to an ellipse, negative inside."""
    return (np.hypot((x - cx) / rx, (y - cy) / ry) - 1) * min(rx, ry)


class _Drawing:
    """One portrait on its way."""

    def __init__(self, p: _Person, seed: int) -> None:
        self.p, self.rng = p, np.random.default_rng((seed, 0xB1))
        self.x, self.y = _grid()
        self.u = (self.x - p.x) / p.half_width
        self.picture = np.full((*self.x.shape, 3), 128, np.float32)
        self.cover = np.zeros(self.x.shape, np.float32)

    def put(self, cover: np.ndarray, colour: np.ndarray, person: bool = True) -> None:
        """Blend a colour, (3,) or (H, W, 3), over the picture."""
        self.picture += cover[..., None] * (colour - self.picture)
        if person:
            self.cover = np.maximum(self.cover, cover)

    def shade(self, amount: np.ndarray) -> None:
        """Multiply the picture's brightness by 1 + amount."""
        self.picture *= 1 + amount[..., None]

    def clouds(self, cells: int, size: float) -> np.ndarray:
        """(H, W) smooth noise of standard deviation about ``size``."""
        small = self.rng.standard_normal((cells, cells)).astype(np.float32) * size
        return cv2.resize(small, SIZE, interpolation=cv2.INTER_CUBIC)

    def head(self) -> np.ndarray:
        """Distance to the head's outline: a dome above the eyes, below them a jaw that narrows."""
        p = self.p
        up, down = p.eye_y - p.crown_y, p.chin_y - p.eye_y
        v = np.where(self.y < p.eye_y, (p.eye_y - self.y) / up, (self.y - p.eye_y) / down)
        narrow = np.where(self.y < p.eye_y, 1.0, 1 - (1 - p.jaw) * np.clip(v, 0, 1) ** 1.6)
        r = (np.abs(self.u / narrow) ** p.squareness + np.clip(v, 0, None) ** p.squareness) ** (1 / p.squareness)
        return (r - 1) * p.half_width

    def body(self) -> None:
        """Shoulders in cloth, and the neck."""
        p = self.p
        top = p.chin_y + 46
        slope = top + 0.0016 * (self.x - p.x) ** 2 * (190 / p.shoulders)
        rounded = np.maximum(slope - self.y, np.abs(self.x - p.x) - p.shoulders)
        folds = 1 + self.clouds(7, 0.10) - 0.12 * np.abs(self.x - p.x) / p.shoulders
        self.put(_soft(rounded, 6), p.cloth * folds[..., None])
        neck = (np.abs(self.u) - p.neck) * p.half_width
        neck = np.maximum(neck, np.maximum(p.eye_y - self.y, self.y - top - 26 + 60 * self.u**2))
        dark = 0.80 - 0.22 * np.exp(-(((self.y - p.chin_y) / 26) ** 2))
        self.put(_soft(neck, 4), p.skin * dark[..., None])

    def skull(self, head: np.ndarray) -> None:
        """Long hair behind, ears, and the shaded skin of the face."""
        p = self.p
        strands = 1 + 0.16 * np.sin(self.x / 3.1 + self.clouds(9, 2.0)) * 0.5 + self.clouds(20, 0.08)
        if p.haircut == "long":
            behind = np.minimum(
                _ellipse(self.x, self.y, p.x, p.eye_y - 6, 1.32 * p.half_width, p.eye_y - p.crown_y + 12),
                np.maximum(np.abs(self.u) - 1.30, (np.abs(self.y - p.eye_y - 80) - 100) / p.half_width) * p.half_width,
            )
            self.put(_soft(behind, 8), p.hair * 0.8 * strands[..., None])
            neck = _soft(np.maximum((np.abs(self.u) - p.neck) * p.half_width, np.abs(self.y - p.chin_y) - 70), 6)
            self.put(neck, p.skin * 0.66)
        for side in (-1, 1):
            ear = _ellipse(self.x, self.y, p.x + side * 1.0 * p.half_width, p.eye_y + 18, 0.13 * p.half_width, 30)
            self.put(_soft(ear, 3), p.skin * 0.86)
        v = (self.y - p.eye_y - 20) / (p.chin_y - p.crown_y) * 2
        lit = 0.16 * p.light[0] * self.u - 0.10 * p.light[1] * v - 0.24 * np.clip(self.u**2 + 0.35 * v**2, 0, 1.3)
        skin = p.skin * (1.10 + lit + self.clouds(8, 0.02) + self.clouds(90, 0.012))[..., None]
        self.put(_soft(head, 2), skin)
        self.strands = strands

    def features(self, head: np.ndarray) -> None:
        """Sockets, eyes, brows, nose, lips, beard, spectacles."""
        p, x, y = self.p, self.x, self.y
        inside = _soft(head, 2)
        for side in (-1, 1):
            cx, (rx, ry) = p.x + side * p.eye_x, p.eye
            self.shade(-0.20 * inside * np.exp(-(((x - cx) / (1.7 * rx)) ** 2) - ((y - p.eye_y + 3) / (2.6 * ry)) ** 2))
            lid = p.eye_y - ry * np.clip(1 - ((x - cx) / rx) ** 2, 0, None)
            under = p.eye_y + 0.8 * ry * np.clip(1 - ((x - cx) / rx) ** 2, 0, None)
            opened = _soft(np.maximum(lid - y, y - under), 1.6) * _soft(np.abs(x - cx) - rx, 2)
            self.put(opened, np.array((226, 220, 214), np.float32))
            self.put(opened * _soft(np.hypot(x - cx, y - p.eye_y) - 0.95 * ry, 1.6), p.iris)
            self.put(opened * _soft(np.hypot(x - cx, y - p.eye_y) - 0.42 * ry, 1.4), np.full(3, 12, np.float32))
            self.put(_soft(np.hypot(x - cx - 2, y - p.eye_y + 2) - 1.3, 1.2), np.full(3, 245, np.float32))
            lash = np.exp(-(((y - lid) / 1.7) ** 2)) * _soft(np.abs(x - cx) - 1.05 * rx, 3)
            self.put(0.8 * lash, p.hair * 0.4)
            thick, tilt, reach = p.brow
            along = (x - cx) / reach
            line = p.eye_y - 0.27 * p.half_width + side * tilt * along * -0.6 + 4.5 * along**2
            brow = np.exp(-(((y - line) / thick) ** 2)) * _soft(np.abs(x - cx) - reach, 9)
            self.put(0.75 * brow * inside, p.hair * 0.75)
        bridge = np.exp(-(((x - p.x) / (0.4 * p.nose_width)) ** 2)) * _soft(
            np.abs(y - (p.eye_y + p.nose_y) / 2) - 30, 26
        )
        self.shade(0.11 * bridge)
        flank = np.exp(-((((x - p.x) * np.sign(p.light[0] or 1) + 0.8 * p.nose_width) / (0.5 * p.nose_width)) ** 2))
        self.shade(-0.13 * flank * _soft(np.abs(y - p.nose_y + 22) - 24, 22))
        self.shade(0.10 * np.exp(-(((x - p.x) / 8) ** 2) - ((y - p.nose_y + 8) / 8) ** 2))
        for side in (-1, 1):
            hole = _ellipse(x, y, p.x + side * 0.46 * p.nose_width, p.nose_y, 0.24 * p.nose_width, 3.0)
            self.put(0.75 * _soft(hole, 3), p.skin * 0.34)
        self.shade(-0.14 * np.exp(-(((x - p.x) / (0.9 * p.nose_width)) ** 2) - ((y - p.nose_y - 5) / 5) ** 2))
        for side in (-1, 1):  # the fold from nose to mouth
            fold = p.x + side * (
                p.nose_width + (y - p.nose_y) / (p.mouth_y - p.nose_y) * (p.mouth_half - p.nose_width + 6)
            )
            near = _soft(np.abs(y - (p.nose_y + p.mouth_y) / 2) - 0.4 * (p.mouth_y - p.nose_y), 12)
            self.shade(-0.08 * near * np.exp(-(((x - fold) / 4) ** 2)))
        if p.beard:
            low = _soft(p.nose_y + 8 + 30 * np.clip(np.abs(self.u) - 0.3, 0, None) - y, 22) * inside
            self.put(p.beard * low * (1 + self.clouds(60, 0.2)), p.hair * 0.8)
        self._lips(inside)
        if p.glasses:
            for side in (-1, 1):
                ring = np.abs(
                    _ellipse(x, y, p.x + side * p.eye_x, p.eye_y + 3, 0.33 * p.half_width, 0.26 * p.half_width)
                )
                self.put(0.85 * _soft(ring - 1.8, 1.6), np.full(3, 30, np.float32))
            bar = np.maximum(np.abs(x - p.x) - p.eye_x + 0.33 * p.half_width, np.abs(y - p.eye_y) - 1.8)
            self.put(0.85 * _soft(bar, 1.6), np.full(3, 30, np.float32))

    def _lips(self, inside: np.ndarray) -> None:
        p, y = self.p, self.y
        across = (self.x - p.x) / p.mouth_half
        arch = np.clip(1 - across**2, 0, None)
        line = lip_line(p, self.x)
        upper = line - p.lips[0] * np.sqrt(arch) * (1 - 0.22 * np.exp(-((across / 0.2) ** 2)))
        lower = line + p.lips[1] * arch**0.75
        shown = _soft(np.maximum(upper - y, y - lower), 2) * _soft(np.abs(across) * p.mouth_half - p.mouth_half, 2)
        full = np.where(
            y < line, 0.86, 1.02 + 0.16 * np.exp(-(((y - line - 0.5 * p.lips[1]) / 4) ** 2) - (across / 0.5) ** 2)
        )
        self.put(0.9 * shown * inside, p.lip_colour * full[..., None])
        shut = np.exp(-(((y - line) / 1.5) ** 2)) * _soft(np.abs(across) - 1.0, 0.15)
        self.put(0.75 * shut, p.lip_colour * 0.38)
        self.shade(-0.12 * np.exp(-(((y - line - p.lips[1] - 7) / 6) ** 2) - (across / 0.7) ** 2))

    def hair(self, head: np.ndarray) -> None:
        """The hair over the forehead."""
        p = self.p
        if p.haircut == "bald":
            return
        side = 0.5 if p.haircut == "parted" else 0.0
        line = p.hairline_y + 34 * (self.u - side) ** 2 + self.clouds(12, 2.5)
        if p.haircut != "long":
            line = np.where(np.abs(self.u) > 0.86, p.eye_y + 2, line)
        top = np.maximum(head - 0.08 * p.half_width, self.y - line)
        self.put(_soft(top, 4), p.hair * (self.strands + 0.14 * np.exp(-((self.u - p.light[0]) ** 2) / 0.2))[..., None])


def lip_line(p: _Person, x: np.ndarray) -> np.ndarray:
    """y where the lips meet at x."""
    across = (np.asarray(x, np.float32) - p.x) / p.mouth_half
    return p.mouth_y - p.smile * np.clip(across**2, 0, 1.4) + 1.2 * np.exp(-((across / 0.25) ** 2))


@lru_cache(maxsize=64)
def drawn_face(seed: int) -> tuple[np.ndarray, FaceGeometry]:
    """A portrait: (600, 512, 3) uint8 RGB, not to be written to, and where things are in it."""
    p = _person(seed)
    drawing = _Drawing(p, seed)
    head = drawing.head()
    drawing.body()
    drawing.skull(head)
    drawing.features(head)
    drawing.hair(head)
    picture = cv2.GaussianBlur(drawing.picture, (0, 0), 1.1) + drawing.rng.normal(0, 2.0, drawing.picture.shape)
    rgb = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    rgb.flags.writeable = False
    return rgb, _geometry(p, drawing.cover)


def _geometry(p: _Person, cover: np.ndarray) -> FaceGeometry:
    mask = (cover > 0.5).astype(np.uint8)
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = cv2.approxPolyDP(max(found, key=cv2.contourArea), 1.2, True)[:, 0].astype(float)
    lip_x = tuple(float(p.x + p.mouth_half * t) for t in np.linspace(-1, 1, 9))
    lip_y = tuple(map(float, lip_line(p, np.array(lip_x))))
    height = (p.chin_y - p.eye_y) / 0.64
    body = (*outline.min(0), *outline.max(0))
    return FaceGeometry(
        size=SIZE,
        face=(p.x - 0.97 * p.half_width, p.chin_y - height, p.x + 0.97 * p.half_width, p.chin_y + 2),
        body=tuple(map(float, body)),
        head=(p.x, p.eye_y, 1.35 * p.half_width, p.eye_y - p.crown_y + 16, p.chin_y - p.eye_y + 12),
        pivot=(p.x, p.chin_y + 46),
        eyes=tuple(Eye(p.x + side * p.eye_x, p.eye_y, p.eye[0], p.eye[1], 0.8 * p.eye[1]) for side in (-1, 1)),
        lip_x=lip_x,
        upper_lip=lip_y,
        lower_lip=lip_y,
        lips=(p.mouth_y - p.lips[0], p.mouth_y + p.lips[1]),
        nose_y=p.nose_y,
        chin_y=p.chin_y,
        jaw_half_width=0.62 * p.half_width,
        rest=0.0,
        teeth=True,
        outline=tuple(map(tuple, outline.tolist())),
    )
