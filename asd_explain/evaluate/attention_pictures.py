"""A row of pictures: one frame's crops, and every method's heat over them."""

from __future__ import annotations

import cv2
import numpy as np

from asd_explain.evaluate.segments import Segment
from asd_explain.explain.geometry import drawing_scale
from asd_explain.render.colours import heat_lut, heat_opacity
from asd_explain.render.text import Typeface

_COLUMNS = 5
_GAP = 4
_PAPER = 250


def method_sheet(segment: Segment, heat: dict[str, dict[str, np.ndarray]], frame: int) -> bytes:
    """PNG of one frame: per visual stream the plain crop, then each method's heat, each method on its own scale.

    Args:
        segment: whose crops.
        heat: {method: {stream: (T, 112, 112)}}.
        frame: which of its frames.
    """
    face = Typeface(11)
    tiles = []
    for stream in next(iter(heat.values())):
        crop = segment.crops[stream][frame]
        tiles.append((stream, np.repeat(crop[..., None], 3, -1)))
        for method, maps in heat.items():
            scale = drawing_scale(maps[stream])
            level = np.clip(maps[stream][frame] / scale, 0, 1) if scale > 0 else np.zeros(crop.shape)
            tiles.append((method, _blended(crop, np.nan_to_num(level))))
        tiles += [None] * (-len(tiles) % _COLUMNS)
    side, label = tiles[0][1].shape[0], face.height + 2
    rows = len(tiles) // _COLUMNS
    sheet = np.full((rows * (side + label + _GAP), _COLUMNS * (side + _GAP), 3), _PAPER, np.uint8)
    for i, tile in enumerate(tiles):
        if tile is None:
            continue
        y, x = (i // _COLUMNS) * (side + label + _GAP), (i % _COLUMNS) * (side + _GAP)
        mask = face.mask(face.shorten(tile[0], side))[:, :side]
        words = sheet[y : y + mask.shape[0], x : x + mask.shape[1]]
        words[:] = np.minimum(words, 255 - mask[..., None])
        sheet[y + label : y + label + side, x : x + side] = tile[1]
    return cv2.imencode(".png", sheet[..., ::-1])[1].tobytes()


def _blended(crop: np.ndarray, level: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB of a grey crop under heat in [0, 1], as the video draws it at P = 1."""
    index = np.rint(level * 255).astype(np.uint8)
    opacity = heat_opacity()[index][..., None]
    return np.rint(crop[..., None] * (1 - opacity) + heat_lut()[index] * opacity).astype(np.uint8)
