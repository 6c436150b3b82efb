"""Compositing on yuv420p planes against a brute-force composite."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.render.canvas import Canvas, Patch
from asd_explain.render.colours import ColourSpace


@dataclass
class FakePlanes:
    y: np.ndarray
    u: np.ndarray
    v: np.ndarray
    full_range: bool = False
    matrix: str = "bt601"


def random_planes(rng: np.random.Generator, width: int, height: int, **kwargs: object) -> FakePlanes:
    y, u, v = (
        rng.integers(0, 256, shape, dtype=np.uint8)
        for shape in ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    )
    return FakePlanes(y, u, v, **kwargs)


def copy_of(planes: FakePlanes) -> FakePlanes:
    return replace(planes, y=planes.y.copy(), u=planes.u.copy(), v=planes.v.copy())


def yuv_by_hand(rgb: np.ndarray, matrix: str, full_range: bool) -> np.ndarray:
    """One pixel, straight from the recommendations' text."""
    red, green, blue = (float(value) / 255 for value in rgb)
    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[matrix]
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    pb, pr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    if full_range:
        return np.array([255 * luma, 128 + 255 * pb, 128 + 255 * pr])
    return np.array([16 + 219 * luma, 128 + 224 * pb, 128 + 224 * pr])


def brute_force(planes: FakePlanes, rgba: np.ndarray, x: int, y: int) -> tuple[np.ndarray, ...]:
    """Composite pixel by pixel in floats; chroma is averaged over 2x2 cells after compositing every pixel."""
    height, width = planes.y.shape
    luma = planes.y.astype(float)
    full = np.stack([np.kron(plane.astype(float), np.ones((2, 2))) for plane in (planes.u, planes.v)])
    for row in range(rgba.shape[0]):
        for column in range(rgba.shape[1]):
            py, px = y + row, x + column
            if 0 <= py < height and 0 <= px < width:
                alpha = rgba[row, column, 3] / 255
                colour = yuv_by_hand(rgba[row, column, :3], planes.matrix, planes.full_range)
                luma[py, px] = luma[py, px] * (1 - alpha) + colour[0] * alpha
                full[:, py, px] = full[:, py, px] * (1 - alpha) + colour[1:] * alpha
    u, v = full.reshape(2, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
    return luma, u, v


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    place=st.tuples(st.integers(-15, 21), st.integers(-15, 17)),
    matrix=st.sampled_from(["bt601", "bt709"]),
    full_range=st.booleans(),
)
def test_blend_equals_brute_force(
    seed: int, size: tuple[int, int], place: tuple[int, int], matrix: str, full_range: bool
) -> None:
    rng = np.random.default_rng(seed)
    planes = random_planes(rng, 20, 16, matrix=matrix, full_range=full_range)
    rgba = rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    rgba[..., 3] *= rng.integers(0, 2, rgba.shape[:2], dtype=np.uint8)  # half of the pixels fully transparent
    before, expected = copy_of(planes), brute_force(planes, rgba, *place)
    Canvas(planes).blend(rgba, *place)
    # two roundings to whole numbers: at most 1 apart, and a little for the alpha of a chroma cell being rounded too
    for got, want in zip((planes.y, planes.u, planes.v), expected, strict=True):
        assert np.abs(got - np.clip(want, 0, 255)).max() <= 1.6
    touched = np.zeros(planes.y.shape, bool)
    for row in range(size[1]):
        for column in range(size[0]):
            py, px = place[1] + row, place[0] + column
            if rgba[row, column, 3] and 0 <= py < 16 and 0 <= px < 20:
                touched[py, px] = True
    cells = touched.reshape(8, 2, 10, 2).any(axis=(1, 3))
    assert (planes.y == before.y)[~touched].all()
    assert (planes.u == before.u)[~cells].all()
    assert (planes.v == before.v)[~cells].all()


def test_every_value_survives_a_transparent_patch() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    planes = FakePlanes(ramp.copy(), ramp[:8, :8].copy(), ramp[8:, 8:].copy())
    Canvas(planes).blend(np.zeros((16, 16, 4), np.uint8), 0, 0)
    assert (planes.y == ramp).all()
    assert (planes.u == ramp[:8, :8]).all()


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full_range", [False, True])
def test_opaque_patch_has_its_own_colour(matrix: str, full_range: bool) -> None:
    planes = random_planes(np.random.default_rng(0), 8, 8, matrix=matrix, full_range=full_range)
    Canvas(planes).blend(np.full((8, 8, 4), (200, 30, 90, 255), np.uint8), 0, 0)
    want = np.rint(yuv_by_hand(np.array([200, 30, 90]), matrix, full_range))
    assert np.abs(np.array([planes.y[4, 4], planes.u[2, 2], planes.v[2, 2]]) - want).max() <= 1


def test_a_white_patch_is_white_and_gray_has_no_chroma() -> None:
    assert ColourSpace("bt709", False).to_yuv(np.array([255, 255, 255])).round().tolist() == [235, 128, 128]
    assert ColourSpace("bt601", True).to_yuv(np.array([77, 77, 77])).round().tolist() == [77, 128, 128]


def test_wrong_patches_and_planes_are_refused() -> None:
    planes = random_planes(np.random.default_rng(0), 8, 8)
    with pytest.raises(ValueError, match="RGBA"):
        Canvas(planes).blend(np.zeros((4, 4, 3), np.uint8), 0, 0)
    patch = Patch.from_rgba(np.zeros((4, 4, 4), np.uint8), ColourSpace("bt601", False), (1, 0))
    with pytest.raises(ValueError, match="parity"):
        Canvas(planes).paste(patch, 2, 2)
    with pytest.raises(ValueError, match="even size"):
        Canvas(FakePlanes(np.zeros((7, 8), np.uint8), np.zeros((3, 4), np.uint8), np.zeros((3, 4), np.uint8)))
    planes.u.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        Canvas(planes)
