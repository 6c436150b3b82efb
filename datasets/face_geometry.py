"""Where things are in a portrait, in its pixels, and how smooth warps move them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Eye:
    """One eye: centre, half width, and how far the lids stand above and below the centre line, px."""

    x: float
    y: float
    half_width: float
    up: float
    down: float


@dataclass(frozen=True)
class FaceGeometry:
    """Where things are in a photograph, in its pixels, measured by eye and with YuNet's landmarks.

    Attributes:
        size: width and height of the photograph.
        face: xyxy box as a face detector draws it.
        body: xyxy box of the whole person.
        head: centre x, y, half width, height above and below the centre of the head with hair or hat.
        pivot: the point of the neck about which the head turns.
        eyes: both eyes.
        lip_x: x of the points of the lip lines; the first and last are the corners of the mouth.
        upper_lip: y of the upper lip's lower edge at those points.
        lower_lip: y of the lower lip's upper edge; the same numbers where the mouth is shut.
        lips: y of the upper lip's upper edge and of the lower lip's lower edge.
        nose_y, chin_y: base of the nose and lowest point of the chin.
        jaw_half_width: distance from the mouth's centre at which the cheeks no longer follow the jaw.
        rest: part of the photo's own gap between the lips that stays open when the mouth is at rest.
        teeth: draw teeth (a photograph with a shut mouth shows none).
        outline: points x, y of the person's outline, clockwise or not, closed along the photograph's lower edge.
    """

    size: tuple[int, int]
    face: tuple[float, float, float, float]
    body: tuple[float, float, float, float]
    head: tuple[float, float, float, float, float]
    pivot: tuple[float, float]
    eyes: tuple[Eye, Eye]
    lip_x: tuple[float, ...]
    upper_lip: tuple[float, ...]
    lower_lip: tuple[float, ...]
    lips: tuple[float, float]
    nose_y: float
    chin_y: float
    jaw_half_width: float
    rest: float
    teeth: bool
    outline: tuple[tuple[float, float], ...] = ()

    @property
    def face_width(self) -> float:
        """Width of the face box, px."""
        return self.face[2] - self.face[0]

    @property
    def face_height(self) -> float:
        """Height of the face box, px."""
        return self.face[3] - self.face[1]

    def mirrored(self) -> FaceGeometry:
        """The geometry of the photograph flipped left to right."""
        right = self.size[0] - 1

        def box(b: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
            return (right - b[2], b[1], right - b[0], b[3])

        return replace(
            self,
            face=box(self.face),
            body=box(self.body),
            head=(right - self.head[0], *self.head[1:]),
            pivot=(right - self.pivot[0], self.pivot[1]),
            eyes=(replace(self.eyes[1], x=right - self.eyes[1].x), replace(self.eyes[0], x=right - self.eyes[0].x)),
            lip_x=tuple(right - x for x in reversed(self.lip_x)),
            upper_lip=tuple(reversed(self.upper_lip)),
            lower_lip=tuple(reversed(self.lower_lip)),
            outline=tuple((right - x, y) for x, y in self.outline),
        )

    def padded(self, left: int, top: int, right: int) -> FaceGeometry:
        """The geometry of the photograph with so many pixels added at three of its sides."""

        def box(b: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
            return (b[0] + left, b[1] + top, b[2] + left, b[3] + top)

        return replace(
            self,
            size=(self.size[0] + left + right, self.size[1] + top),
            face=box(self.face),
            body=box(self.body),
            head=(self.head[0] + left, self.head[1] + top, *self.head[2:]),
            pivot=(self.pivot[0] + left, self.pivot[1] + top),
            eyes=tuple(replace(e, x=e.x + left, y=e.y + top) for e in self.eyes),
            lip_x=tuple(x + left for x in self.lip_x),
            upper_lip=tuple(y + top for y in self.upper_lip),
            lower_lip=tuple(y + top for y in self.lower_lip),
            lips=(self.lips[0] + top, self.lips[1] + top),
            nose_y=self.nose_y + top,
            chin_y=self.chin_y + top,
            outline=tuple((x + left, y + top) for x, y in self.outline),
        )

    def reshaped(self, jaw: float, brow: float, nose: float) -> FaceGeometry:
        """The geometry of the photograph with a face of other proportions (see :func:`shape_shift`)."""
        points = [(self.face[0], 0.5 * (self.face[1] + self.face[3])), (self.face[2], self.face[3])]
        points += [(self.face[0], self.face[1]), (self.lip_x[0], self.nose_y), (self.face[0], self.chin_y)]
        points += [(e.x + side * e.half_width, e.y) for e in self.eyes for side in (-1, 1)]
        points += [*zip(self.lip_x, self.upper_lip, strict=True), *zip(self.lip_x, self.lower_lip, strict=True)]
        middle = (self.lip_x[0] + self.lip_x[-1]) / 2
        points += [(middle, self.lips[0]), (middle, self.lips[1])]
        old = np.array(points, np.float32)
        new = old.copy()
        for _ in range(12):
            new = old - np.stack(shape_shift(self, new[:, 0], new[:, 1], jaw, brow, nose), axis=1)
        moved = [(float(x), float(y)) for x, y in new]
        count = len(self.lip_x)
        eyes = [
            replace(e, x=(a[0] + b[0]) / 2, y=(a[1] + b[1]) / 2, half_width=(b[0] - a[0]) / 2)
            for e, a, b in zip(self.eyes, moved[5:9:2], moved[6:9:2], strict=True)
        ]
        upper, lower = moved[9 : 9 + count], moved[9 + count : 9 + 2 * count]
        half = (self.face[2] + self.face[0]) / 2 - moved[0][0]
        centre = (self.face[2] + self.face[0]) / 2
        return replace(
            self,
            face=(centre - half, moved[2][1], centre + half, moved[1][1]),
            eyes=(eyes[0], eyes[1]),
            lip_x=tuple((u[0] + v[0]) / 2 for u, v in zip(upper, lower, strict=True)),
            upper_lip=tuple(u[1] for u in upper),
            lower_lip=tuple(max(u[1], v[1]) for u, v in zip(upper, lower, strict=True)),
            lips=(moved[-2][1], moved[-1][1]),
            nose_y=moved[3][1],
            chin_y=moved[4][1],
            jaw_half_width=self.jaw_half_width * (1 + jaw),
        )


def shape_shift(
    g: FaceGeometry, x: np.ndarray, y: np.ndarray, jaw: float, brow: float, nose: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where a reshaped photograph's point x, y comes from, less x, y: smooth, and nothing beyond the head.

    Args:
        g: the geometry of the unchanged photograph.
        x, y: points, px, of any shape.
        jaw, brow: about how much wider the lower and the upper face get; -0.12 to 0.12.
        nose: how far nose and mouth go down, in face heights; -0.04 to 0.04.
    """
    width, height = np.float32(g.face_width), np.float32(g.face_height)
    centre = np.float32((g.face[0] + g.face[2]) / 2)
    across = (x - centre) / width
    near = np.exp(-((across / 0.95) ** 4))
    low = np.exp(-(((y - np.float32(g.face[1] + 0.80 * height)) / (0.34 * height)) ** 2))
    high = np.exp(-(((y - np.float32(g.face[1] + 0.20 * height)) / (0.34 * height)) ** 2))
    middle = np.exp(-(((y - np.float32(g.face[1] + 0.66 * height)) / (0.24 * height)) ** 2))
    dx = -across * width * near * (jaw * low + brow * high)
    return dx.astype(np.float32), (-nose * height * middle * near).astype(np.float32)
