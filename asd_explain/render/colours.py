"""Colours: the heat scale, one colour a track, and RGB to YUV.

Track colours are those of Okabe and Ito ("Color Universal Design", 2008), chosen to be told apart under every common
form of colour blindness. The heat scale is matplotlib's viridis (van der Walt and Smith, 2015), perceptually uniform
and monotone in lightness; its hues, blue-green to yellow, do not occur in skin, which inferno's reds and oranges do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from asd_explain.render.scene import TimelineTrack

Rgb = tuple[int, int, int]

#: Okabe-Ito without black, ordered so that the first few differ most on dark and on light ground.
OKABE_ITO: tuple[Rgb, ...] = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (204, 121, 167),  # reddish purple
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermillion
    (0, 114, 178),  # blue
)
INK: Rgb = (16, 18, 22)
PAPER: Rgb = (244, 245, 247)
MUTED: Rgb = (178, 184, 192)
#: Shares are drawn in greys: colour already means "which track" and "how hot".
STREAM_GREYS: dict[str, Rgb] = {"audio": (236, 238, 241), "face": (160, 167, 177), "body": (92, 99, 110)}

#: Heat below this stays fully transparent, so that the face remains visible.
HEAT_FLOOR = 0.10
#: Opacity of the hottest cell at P(speaking) = 1.
HEAT_OPACITY = 0.72
_HEAT_START = 0.28  # viridis below this is nearly black: it would read as shadow on the face

_LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
_MATRIX_NAMES = {
    "bt601": "bt601",
    "smpte170m": "bt601",
    "smpte240m": "bt601",
    "bt470bg": "bt601",
    "bt470m": "bt601",
    "fcc": "bt601",
    "bt709": "bt709",
    "bt2020": "bt2020",
    "bt2020nc": "bt2020",
    "bt2020c": "bt2020",
}


@dataclass(frozen=True)
class ColourSpace:
    """How a clip's planes hold colour: `matrix` by FFmpeg's names (unknown ones count as bt601), and the range."""

    matrix: str
    full_range: bool

    def transform(self) -> np.ndarray:
        """The (3, 4) float32 affine map from RGB in 0..255 to this space's Y, U, V (ITU-R BT.601, BT.709, BT.2020)."""
        kr, kb = _LUMA_WEIGHTS[_MATRIX_NAMES.get(self.matrix, "bt601")]
        luma = np.array([kr, 1 - kr - kb, kb])
        blue = (np.array([0, 0, 1.0]) - luma) / (2 * (1 - kb))
        red = (np.array([1.0, 0, 0]) - luma) / (2 * (1 - kr))
        luma_gain, chroma_gain, black = (1.0, 1.0, 0.0) if self.full_range else (219 / 255, 224 / 255, 16.0)
        gains = np.array([luma_gain, chroma_gain, chroma_gain])[:, None]
        offsets = np.array([[black], [128.0], [128.0]])
        return np.hstack([np.stack([luma, blue, red]) * gains, offsets]).astype(np.float32)

    def to_yuv(self, rgb: np.ndarray) -> np.ndarray:
        """Convert (..., 3) RGB in 0..255 to (..., 3) float32 Y, U, V in this space."""
        matrix = self.transform()
        return np.asarray(rgb, np.float32) @ matrix[:, :3].T + matrix[:, 3]


def heat_lut() -> np.ndarray:
    """The heat scale: (256, 3) uint8 RGB from heat 0 to heat 1, lightness growing."""
    # OpenCV carries the same table; importing matplotlib for it would cost a third of a second a run.
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    positions = _HEAT_START + (1 - _HEAT_START) * np.linspace(0, 1, 256)
    return table[np.rint(positions * 255).astype(int)].copy()


def heat_opacity() -> np.ndarray:
    """Opacity of the heat at P(speaking) = 1: (256,) float32 in [0, `HEAT_OPACITY`], never falling.

    Zero up to `HEAT_FLOOR`, then a smooth ramp.
    """
    ramp = np.clip((np.linspace(0, 1, 256) - HEAT_FLOOR) / (0.85 - HEAT_FLOOR), 0, 1)
    return (HEAT_OPACITY * ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def lightness(rgb: Sequence[float]) -> float:
    """Relative luminance of an sRGB colour, 0 black to 1 white (WCAG 2.1)."""
    values = np.asarray(rgb, float) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def text_colour(background: Sequence[float]) -> Rgb:
    """Ink or paper, whichever has the higher WCAG contrast on this background."""
    ground = lightness(background) + 0.05
    return INK if ground / (lightness(INK) + 0.05) > (lightness(PAPER) + 0.05) / ground else PAPER


def assign_colours(tracks: Sequence[TimelineTrack]) -> dict[int, Rgb]:
    """Give every track a colour, so that tracks seen at the same time differ while there are colours enough.

    Tracks are taken in order of their first time; each takes, of the colours that no track still running holds, the one
    unused for longest (all are held with more than seven faces at once: then the one held longest is shared).
    """
    last_end = {index: -np.inf for index in range(len(OKABE_ITO))}
    last_taken = dict.fromkeys(last_end, -1)
    colours: dict[int, Rgb] = {}
    ordered = sorted((t for t in tracks if len(t.times_s)), key=lambda t: (float(t.times_s[0]), t.track_id))
    for turn, track in enumerate(ordered):
        start = float(track.times_s[0])
        free = [index for index, end in last_end.items() if end < start] or list(last_end)
        index = min(free, key=lambda i: (last_taken[i], i))
        colours[track.track_id] = OKABE_ITO[index]
        last_end[index] = max(last_end[index], float(track.times_s[-1]))
        last_taken[index] = turn
    return colours


def track_colour(colours: dict[int, Rgb], track_id: int) -> Rgb:
    """The colour of a track; one that has no curve in the scene gets a colour by its id."""
    return colours.get(track_id) or OKABE_ITO[track_id % len(OKABE_ITO)]
