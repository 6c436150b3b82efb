"""The photographs that talk: where they are, what is where in them, and how they pass for other people."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from asd_explain.datasets.drawn_faces import PREFIX, drawn_face
from asd_explain.datasets.face_geometry import Eye, FaceGeometry, shape_shift
from asd_explain.datasets.speech_synth import DEMO_EXTRA
from asd_explain.errors import AsdExplainError, OptionError


def _points(text: str) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in (pair.split(",") for pair in text.split()))


_HOPPER_OUTLINE = _points(
    "218,31 212,43 196,50 181,64 174,84 160,100 153,110 153,150 152,200 160,226 169,259 177,270 180,283 "
    "189,294 196,299 197,320 183,333 167,343 120,360 97,363 78,369 64,378 52,382 46,389 38,410 29,425 "
    "28,459 19,526 12,599 509,599 508,520 506,437 501,425 493,395 489,390 466,378 420,365 361,340 337,321 "
    "329,311 330,300 336,287 339,271 343,268 354,267 360,262 369,223 366,194 372,189 372,186 368,180 "
    "371,135 369,129 369,103 365,90 353,85 347,70 335,56 315,45 300,42 294,35 281,27 270,24 249,23 "
)
_ASTRONAUT_OUTLINE = _points(
    "201,23 185,38 162,52 157,57 153,68 156,101 168,115 175,129 181,133 181,146 151,152 131,167 122,181 "
    "118,200 91,226 68,243 49,273 41,291 39,305 33,328 36,331 47,336 50,340 48,351 49,369 43,383 38,386 "
    "25,388 20,395 20,419 24,432 23,460 28,489 27,495 22,502 24,511 506,511 506,500 504,491 500,480 "
    "495,470 499,455 495,450 493,421 478,384 452,359 416,344 393,344 365,348 360,342 356,302 343,268 "
    "331,253 303,232 294,210 272,184 263,155 265,142 290,117 300,93 296,59 288,43 274,30 247,18 227,16 "
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
        outline=_HOPPER_OUTLINE,
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
        outline=_ASTRONAUT_OUTLINE,
    ),
}


@dataclass(frozen=True)
class Look:
    """Which photograph, and how it is changed to pass for another person.

    Attributes:
        photo: ``hopper``, ``astronaut``, or ``drawn-SEED`` (:mod:`asd_explain.datasets.drawn_faces`).
        mirrored: flipped left to right.
        warmth: colour shift, -1 (cool) to 1 (warm).
        brightness: gain of the picture, about 0.7 to 1.3.
        saturation: 0 (gray) to about 1.4.
        stretch: width of the picture over its height, about 0.9 to 1.1 (a leaner or a broader face).
        face_fraction: height of the face over height of the panel, where the photograph's size allows it.
        place: how far the face is right of the panel's middle, in panel widths, where the photograph's size allows it.
        gamma: of the gray levels; below 1 lifts the dark ones.
        side_light: -1 (light from the left) to 1 (from the right).
        jaw, brow, nose: other proportions of the face, see :func:`shape_shift`; 0 leaves them.
        backdrop: 0: the photograph's own background; else the seed of a generated one behind the person's outline.
        room: face heights of backdrop added at the left, the top and the right; only with a backdrop.
    """

    photo: str = "hopper"
    mirrored: bool = False
    warmth: float = 0.0
    brightness: float = 1.0
    saturation: float = 1.0
    stretch: float = 1.0
    face_fraction: float = 0.4
    place: float = 0.0
    gamma: float = 1.0
    side_light: float = 0.0
    jaw: float = 0.0
    brow: float = 0.0
    nose: float = 0.0
    backdrop: int = 0
    room: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def _shaped(self) -> bool:
        return any((self.jaw, self.brow, self.nose))

    def padding(self, face_height: float) -> tuple[int, int, int]:
        """Pixels added at the left, the top and the right."""
        left, top, right = (round(side * face_height) if self.backdrop else 0 for side in self.room)
        return left, top, right


def plain_geometry(name: str) -> FaceGeometry:
    """Where things are in a photograph, or a drawn face, as it is.

    Raises:
        OptionError: no such photograph.
    """
    if name in GEOMETRY:
        return GEOMETRY[name]
    return _drawn(name)[1]


def check_photo(name: str) -> None:
    """Raise OptionError where there is no photograph, or drawn face, of that name; nothing is read or drawn."""
    seed = name.removeprefix(PREFIX)
    if name not in GEOMETRY and not (name.startswith(PREFIX) and seed.isascii() and seed.isdigit()):
        raise OptionError(f"no photograph named {name!r}; there are {', '.join(GEOMETRY)} and {PREFIX}SEED")


def _drawn(name: str) -> tuple[np.ndarray, FaceGeometry]:
    """Picture and geometry of a drawn face, by its name."""
    check_photo(name)
    return drawn_face(int(name.removeprefix(PREFIX)))


def geometry_of(look: Look) -> FaceGeometry:
    """Where things are in the photograph of a look, in the pixels of :func:`load_photo`.

    Raises:
        OptionError: no such photograph.
    """
    g = plain_geometry(look.photo)
    padding = look.padding(g.face_height)
    if look.mirrored:
        g = g.mirrored()
    if look._shaped:
        g = g.reshaped(look.jaw, look.brow, look.nose)
    return g.padded(*padding) if any(padding) else g


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


def _read(name: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a photograph's file."""
    picture = cv2.imread(str(photo_path(name)), cv2.IMREAD_COLOR)
    if picture is None:
        raise AsdExplainError(f"the photograph {name} cannot be read; reinstall: {DEMO_EXTRA}")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


@lru_cache(maxsize=16)
def load_photo(look: Look) -> np.ndarray:
    """The photograph of a look: (H, W, 3) uint8 RGB."""
    g = plain_geometry(look.photo)
    rgb = _read(look.photo) if look.photo in GEOMETRY else _drawn(look.photo)[0]
    if look.mirrored:
        rgb, g = np.ascontiguousarray(rgb[:, ::-1]), g.mirrored()
    if look._shaped:
        x, y = np.meshgrid(np.arange(g.size[0], dtype=np.float32), np.arange(g.size[1], dtype=np.float32))
        dx, dy = shape_shift(g, x, y, look.jaw, look.brow, look.nose)
        rgb = cv2.remap(rgb, x + dx, y + dy, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    rgb = rgb.astype(np.float32) * look.brightness
    gray = rgb @ np.array((0.299, 0.587, 0.114), np.float32)
    rgb = gray[..., None] + (rgb - gray[..., None]) * look.saturation
    rgb *= 1 + look.warmth * np.array((0.06, 0.0, -0.12), np.float32)
    if look.gamma != 1.0:
        rgb = 255 * (np.clip(rgb, 0, 255) / 255) ** np.float32(look.gamma)
    if look.side_light:
        across = (np.arange(g.size[0], dtype=np.float32) - (g.face[0] + g.face[2]) / 2) / g.face_width
        rgb *= (1 + 0.4 * look.side_light * np.tanh(1.5 * across))[None, :, None]
    if look.backdrop:
        padding = look.padding(plain_geometry(look.photo).face_height)
        rgb = np.pad(rgb, ((padding[1], 0), (padding[0], padding[2]), (0, 0)))
        behind = _backdrop(rgb.shape[0], rgb.shape[1], look.backdrop)
        alpha = person_mask(geometry_of(look), soft=0.006)[..., None]
        rgb = behind + alpha * (rgb - behind)
    return np.ascontiguousarray(np.clip(rgb + 0.5, 0, 255).astype(np.uint8))


def person_mask(g: FaceGeometry, soft: float, grow: float = 0.0) -> np.ndarray:
    """(H, W) float32: 1 inside the person's outline, 0 outside.

    Args:
        g: the geometry.
        soft: standard deviation of the border's blur, in face heights.
        grow: how far the outline is moved outwards first, in face heights.
    """
    mask = np.zeros((g.size[1], g.size[0]), np.uint8)
    cv2.fillPoly(mask, [np.rint(np.array(g.outline) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    if grow > 0:
        side = 2 * round(grow * g.face_height) + 1
        mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    sigma = max(0.5, soft * g.face_height)
    return cv2.GaussianBlur(mask, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE).astype(np.float32) / 255


def _backdrop(height: int, width: int, seed: int) -> np.ndarray:
    """(height, width, 3) float32 RGB: a wall out of focus with a gradient, clouds and a few upright and level edges."""
    rng = np.random.default_rng((seed, 11))
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    base = rng.uniform(40, 200) + rng.uniform(-40, 40) * x + rng.uniform(-40, 40) * y
    clouds = cv2.resize(rng.standard_normal((6, 6)), (width, height), interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(rng.standard_normal((40, 40)), (width, height), interpolation=cv2.INTER_CUBIC)
    picture = base + rng.uniform(0, 22) * clouds + rng.uniform(0, 8) * fine
    for _ in range(rng.integers(0, 7)):
        (x1, x2), (y1, y2) = np.sort(rng.uniform(-1.2, 1.2, 2)), np.sort(rng.uniform(-1.2, 1.2, 2))
        picture = np.where((x > x1) & (x < x2) & (y > y1) & (y < y2), picture + rng.uniform(-60, 60), picture)
    picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), float(rng.uniform(0.8, 9)))
    tint = 1 + rng.uniform(-0.15, 0.15, 3)
    return np.clip(picture[..., None] * tint, 0, 255).astype(np.float32)
