"""Regions of crops: hand-drawn faces, laws of a partition, gaps in what is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.errors import OptionError
from asd_explain.evaluate.regions import (
    LONGEST_GAP_FRAMES,
    MOUTH_MARGIN,
    body_regions,
    face_regions,
    known_frames,
)
from asd_explain.evaluate.segments import REGIONS
from asd_explain.tracks.crops import GEOMETRIES, body_box, crop_window

SIZE = (1000, 800)
BOX = np.array([400.0, 200.0, 512.0, 340.0])
# A face from the front: eyes 50 px apart, mouth 40 px wide and 60 px below them, nose tip 25 px above the mouth's line.
POINTS = np.array([[431.0, 250], [481, 250], [456, 285], [436, 310], [476, 310]])


def _frames(n: int = 1) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(BOX[None], n, 0), np.repeat(POINTS[None], n, 0)


def _at(mask: np.ndarray, window: np.ndarray, x: float, y: float) -> bool:
    """The mask (112, 112) at a point of the frame."""
    x1, y1, x2, y2 = window
    return bool(mask[int((y - y1) / (y2 - y1) * 112), int((x - x1) / (x2 - x1) * 112)])


def _region_at(regions: dict[str, np.ndarray], window: np.ndarray, x: float, y: float) -> str:
    (found,) = [name for name, mask in regions.items() if _at(mask[0], window, x, y)]
    return found


def _turned(points: np.ndarray, degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (BOX[:2] + BOX[2:]) / 2
    return (points - middle) @ turn.T + middle


@pytest.mark.parametrize("geometry", list(GEOMETRIES))
def test_a_face_from_the_front(geometry: str) -> None:
    boxes, points = _frames()
    regions = face_regions(boxes, points, None, SIZE, geometry)
    assert tuple(regions) == REGIONS
    window = crop_window(BOX, geometry)
    # 1.4 corner distances wide (428..484), 0.6 x 25 px above the line and 0.9 x 25 px below it (295..332.5).
    for x, y, expected in (
        (456, 310, "mouth"),
        (429, 310, "mouth"),
        (483, 331, "mouth"),
        (427, 310, "rest of face"),
        (456, 293, "rest of face"),
        (456, 334, "rest of face"),
        (456, 285, "rest of face"),
        (431, 253, "eyes"),
        (481, 253, "eyes"),
        (456, 253, "rest of face"),
        (402, 338, "outside"),
    ):
        if window[0] < x < window[2] and window[1] < y < window[3]:
            assert _region_at(regions, window, x, y) == expected, (x, y)
    assert not regions["rest of body"].any()
    assert known_frames(regions).all()
    width, height = window[2:] - window[:2]
    assert regions["mouth"].mean() == pytest.approx(56 * 37.5 / (width * height), rel=0.06)


@given(degrees=st.floats(-60, 60))
@settings(max_examples=15, deadline=None)
def test_a_tilted_face_has_a_tilted_mouth(degrees: float) -> None:
    boxes = BOX[None] + np.array([-40.0, -40, 40, 40])
    regions = face_regions(boxes, _turned(POINTS, degrees)[None], None, SIZE, "box")
    window = boxes[0]
    inside = _turned(np.array([[430.0, 297], [482, 297], [430, 330], [482, 330]]), degrees)
    beside = _turned(np.array([[424.0, 310], [488, 310], [456, 290], [456, 337]]), degrees)
    assert all(_at(regions["mouth"][0], window, *p) for p in inside)
    assert not any(_at(regions["mouth"][0], window, *p) for p in beside)
    for eye in _turned(POINTS[:2], degrees):
        assert _at(regions["eyes"][0], window, *eye)


def test_a_profile_keeps_a_mouth_of_some_width() -> None:
    points = np.array([[450.0, 250], [452, 250], [480, 285], [458, 310], [459, 310]])[None]
    regions = face_regions(BOX[None], points, None, SIZE, "box")
    columns = np.flatnonzero(regions["mouth"][0].any(0))
    # Scale 0.9 x 60 px, corners no closer than half of it: 1.4 x 27 px of 112 px, turned a little by the leaning nose.
    assert 30 < np.ptp(columns) < 48


def test_a_known_mouth_goes_before_the_landmarks() -> None:
    boxes, points = _frames(2)
    true = np.array([[440.0, 300, 470, 320], [np.nan] * 4])
    regions = face_regions(boxes, points, true, SIZE, "box")
    from_points = face_regions(boxes, points, None, SIZE, "box")
    margin = MOUTH_MARGIN * 30
    assert regions["mouth"][0].sum() == pytest.approx((30 + 2 * margin) * (20 + 2 * margin) * 112 / 140, rel=0.05)
    assert _at(regions["mouth"][0], BOX, 440 - margin + 1, 310)
    assert not _at(regions["mouth"][0], BOX, 440 - margin - 1.5, 310)
    np.testing.assert_array_equal(regions["mouth"][1], from_points["mouth"][1])
    np.testing.assert_array_equal(regions["eyes"], from_points["eyes"])
    without = face_regions(boxes, None, true, SIZE, "box")
    assert not without["eyes"].any()
    assert known_frames(without).tolist() == [True, False]


def test_a_gap_is_bridged_along_with_the_moving_box() -> None:
    n = LONGEST_GAP_FRAMES + 2
    shift = np.linspace(0, 60, n) ** 1.5 / 60  # the box does not move evenly, and the face moves with it
    boxes = BOX + shift[:, None] * np.array([1.0, 0, 1, 0])
    points = POINTS + shift[:, None, None] * np.array([1.0, 0])
    gappy = points.copy()
    gappy[1:-1] = np.nan
    whole, bridged = (face_regions(boxes, p, None, SIZE, "box") for p in (points, gappy))
    for region in REGIONS:
        assert (whole[region] != bridged[region]).mean() < 1e-3


def test_long_gaps_and_ends_stay_unknown() -> None:
    boxes, points = _frames(LONGEST_GAP_FRAMES + 5)
    points[1:-2] = np.nan  # one more than is bridged
    points[-1] = np.nan
    regions = face_regions(boxes, points, None, SIZE, "box")
    assert known_frames(regions).tolist() == [True] + [False] * (len(boxes) - 3) + [True, False]
    assert not regions["eyes"][-1].any()
    assert regions["rest of face"][-1].any()
    assert not known_frames(face_regions(boxes[:1], None, None, SIZE, "box")).any()


def test_a_body_under_its_face() -> None:
    boxes, points = _frames()
    regions = body_regions(boxes, points, None, SIZE)
    window = body_box(BOX, *SIZE)
    s = np.sqrt(112 * 140)
    assert _region_at(regions, window, 456, 310) == "mouth"
    assert _region_at(regions, window, 431, 252) == "eyes"
    assert _region_at(regions, window, 456, 280) == "rest of face"
    assert _region_at(regions, window, 456, 190) == "rest of body"  # hair
    assert _region_at(regions, window, 456, 600) == "rest of body"
    assert _region_at(regions, window, 456 + 1.25 * s, 600) == "rest of body"
    assert _region_at(regions, window, 456 + 1.4 * s, 600) == "outside"
    assert _region_at(regions, window, 456 + 1.0 * s, 300) == "outside"  # beside the head
    assert regions["mouth"].sum() == pytest.approx(
        face_regions(boxes, points, None, SIZE, "box")["mouth"].sum() * (112 * 140) / np.prod(window[2:] - window[:2]),
        rel=0.15,
    )
    given_body = body_regions(boxes, points, None, SIZE, bodies=np.array([[300.0, 100, 600, 700]]))
    assert _region_at(given_body, np.array([300, 100, 600, 700]), 456, 310) == "mouth"


def test_beyond_the_frame_is_outside() -> None:
    box = np.array([[-56.0, 200, 56, 340]])
    points = (POINTS - [456, 0])[None]  # half of the face is beyond the left border
    regions = face_regions(box, points, None, SIZE, "box")
    assert regions["outside"][0, :, :56].all()
    assert not regions["outside"][0, 20:92, 56:80].any()


@given(
    n=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    geometry=st.sampled_from([*GEOMETRIES, "body"]),
    known=st.booleans(),
    lost=st.floats(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_every_pixel_is_in_exactly_one_region(n: int, seed: int, geometry: str, known: bool, lost: float) -> None:
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(-50, 900, (n, 2)), rng.uniform(1, 400, (n, 2))
    boxes = np.concatenate((corner, corner + side), 1)
    points = corner[:, None] + side[:, None] * rng.uniform(-0.2, 1.2, (n, 5, 2))
    points[rng.random(n) < lost] = np.nan
    mouths = boxes + rng.uniform(-10, 10, (n, 4)) if known else None
    if geometry == "body":
        regions = body_regions(boxes, points, mouths, SIZE)
    else:
        regions = face_regions(boxes, points, mouths, SIZE, geometry)
    stacked = np.stack(list(regions.values()))
    assert tuple(regions) == REGIONS
    assert stacked.dtype == bool
    assert stacked.shape == (5, n, 112, 112)
    assert (stacked.sum(0) == 1).all()


def test_points_that_fall_together_make_no_nan() -> None:
    boxes, points = _frames()
    regions = face_regions(boxes, np.broadcast_to(points[:, :1], points.shape), None, SIZE, "box")
    assert np.stack(list(regions.values())).sum(0).max() == 1


def test_shapes_that_do_not_agree_are_refused() -> None:
    boxes, points = _frames(2)
    with pytest.raises(OptionError, match="landmarks"):
        face_regions(boxes, points[:1], None, SIZE, "box")
    with pytest.raises(OptionError, match="mouths"):
        face_regions(boxes, points, np.zeros((3, 4)), SIZE, "box")
    with pytest.raises(OptionError, match="face boxes"):
        face_regions(BOX, points, None, SIZE, "box")
    with pytest.raises(OptionError, match="body boxes"):
        body_regions(boxes, points, None, SIZE, bodies=boxes[:1])
    with pytest.raises(ValueError, match="no crop geometry"):
        face_regions(boxes, points, None, SIZE, "oval")
