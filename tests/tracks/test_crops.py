"""Crops: the published demo's window, the exact box, the border, the derived body."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.tracks.crops import GEOMETRIES, OUTSIDE, body_box, crop, crop_window


def noise(height: int = 240, width: int = 320, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def demo_by_brute_force(luma: np.ndarray, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    """The published procedure, step by step: pad all, slice, resize to 224, keep the centre 112."""
    half = max(x2 - x1, y2 - y1) / 2
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    pad = int(half * 1.8)
    padded = np.pad(luma, pad, constant_values=110)
    top, bottom = int(cy + pad - half), int(cy + pad + 1.8 * half)
    left, right = int(cx + pad - 1.4 * half), int(cx + pad + 1.4 * half)
    return cv2.resize(padded[top:bottom, left:right], (224, 224))[56:168, 56:168]


# Sides are multiples of ten, so that the procedure's rounding to whole pixels has nothing to round.
@pytest.mark.parametrize(
    "box",
    [
        (100, 60, 200, 160),
        (100, 60, 150, 80),
        (90, 80, 110, 100),
        (0, 0, 60, 60),
        (-20, -10, 80, 90),
        (260, 150, 340, 250),
    ],
)
def test_demo_crop_equals_the_published_procedure(box: tuple[int, int, int, int]) -> None:
    luma = noise()
    ours = crop(luma, np.array(box), "demo").astype(int)
    assert np.abs(ours - demo_by_brute_force(luma, *box)).max() <= 1


def test_box_crop_equals_slice_and_resize_away_from_the_rim() -> None:
    luma = noise()
    ours = crop(luma, np.array([40, 30, 250, 200]), GEOMETRIES["box"]).astype(int)
    reference = cv2.resize(luma[30:200, 40:250], (112, 112)).astype(int)
    # White noise is the worst case: the warp rounds positions to fractions of a pixel that cv2.resize does not.
    assert np.abs(ours - reference).max() <= 4
    assert np.abs(ours - reference).mean() < 0.7
    # Enlarging, cv2.resize repeats the slice's rim where the warp sees the frame's next pixel.
    ours = crop(luma, np.array([40, 30, 100, 80]), "box").astype(int)
    reference = cv2.resize(luma[30:80, 40:100], (112, 112)).astype(int)
    assert np.abs(ours - reference)[2:-2, 2:-2].max() <= 6


def test_window_of_the_demo_geometry() -> None:
    # half = 50, centre (140, 150): x +- 35, y from -15 to +55
    assert crop_window(np.array([100, 100, 180, 200]), "demo").tolist() == [105, 135, 175, 205]
    box = np.array([3.5, -2, 10, 20], np.float32)
    assert crop_window(box, "box").tolist() == box.tolist()
    both = crop_window(np.stack([box, box + 1]), "demo")
    assert both.shape == (2, 4)
    assert np.allclose(both[0], crop_window(box, "demo"))


@pytest.mark.parametrize("geometry", ["demo", "box"])
def test_outside_the_frame_is_padding_gray(geometry: str) -> None:
    luma = np.full((100, 100), 200, np.uint8)
    assert (crop(luma, np.array([300, 300, 340, 340]), geometry) == OUTSIDE).all()
    assert (crop(luma, np.array([-90, -90, -50, -50]), geometry) == OUTSIDE).all()
    partly = crop(luma, np.array([60, 20, 140, 80]), geometry)
    assert (partly[:, -20:] == OUTSIDE).all()
    assert (partly[20:50, :10] == 200).all()


def test_crop_moves_with_the_box_by_less_than_a_pixel() -> None:
    # A ramp of two gray levels a pixel: the crop's values tell exactly where it was cut.
    luma = np.tile(np.arange(120, dtype=np.uint8) * 2, (120, 1))
    first = crop(luma, np.array([30, 30, 86, 86]), "box").astype(float)
    shifted = crop(luma, np.array([30.5, 30, 86.5, 86]), "box").astype(float)
    assert np.abs((shifted - first) - 1).max() <= 1
    assert abs((shifted - first).mean() - 1) < 0.05


def test_crop_reads_views_and_tiny_frames() -> None:
    frame = noise(100, 200)
    box = np.array([20, 20, 80, 80])
    assert np.array_equal(crop(frame[:, :100], box, "demo"), crop(frame[:, :100].copy(), box, "demo"))
    assert crop(noise(8, 8), np.array([0, 0, 8, 8]), "demo").shape == (112, 112)
    assert crop(frame, box, "box", size=32).shape == (32, 32)


@pytest.mark.parametrize("box", [[10, 10, 10, 20], [10, 10, 5, 20], [np.nan, 0, 10, 10], [0, 0, np.inf, 10]])
def test_crop_refuses_a_box_without_area(box: list[float]) -> None:
    with pytest.raises(ValueError, match="cannot cut"):
        crop(noise(), np.array(box), "box")


def test_unknown_geometry() -> None:
    with pytest.raises(ValueError, match="demo, box"):
        crop_window(np.zeros(4), "portrait")


def test_body_box_proportions_and_batches() -> None:
    face = np.array([500, 100, 600, 200])
    assert body_box(face, 1280, 720).tolist() == [400, 60, 700, 550]
    assert body_box(np.stack([face, face]), 1280, 720).shape == (2, 4)


coordinate = st.floats(-100, 400)


@settings(max_examples=60, deadline=None)
@given(coordinate, coordinate, st.floats(1, 300), st.floats(1, 300))
def test_body_box_stays_in_the_frame_and_holds_the_face(x: float, y: float, w: float, h: float) -> None:
    width, height = 320, 240
    x1, y1, x2, y2 = body_box(np.array([x, y, x + w, y + h]), width, height)
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    inside = np.clip([x, y, x + w, y + h], 0, [width, height, width, height])
    if 0.5 < w / h < 2 and inside[2] - inside[0] > 1 and inside[3] - inside[1] > 1:
        # within the proportions of real faces, the visible face lies in the body box
        assert x1 <= inside[0] + 1e-3
        assert y1 <= inside[1] + 1e-3
        assert x2 >= inside[2] - 1e-3
        assert y2 >= inside[3] - 1e-3
