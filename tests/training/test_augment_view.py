"""Disturbed views: the undisturbed crop, one map for a chunk, what is hidden is hidden, chance only from the seed."""

from __future__ import annotations

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import photo

from asd_explain.datasets.face_clips import WIDE_SCALE, WIDE_SIZE, wide_box
from asd_explain.errors import OptionError
from asd_explain.tracks.crops import OUTSIDE, body_box, crop
from asd_explain.training import augment_view as module
from asd_explain.training.augment_camera import through_jpeg
from asd_explain.training.augment_view import ViewAugment, augment_view, face_boxes_in_body, plain_view

SIZE = (480, 400)
BOX = np.array([170.3, 60.8, 280.6, 200.1])
OFF = ViewAugment.off()


def gray_photo() -> np.ndarray:
    return cv2.cvtColor(photo(*SIZE), cv2.COLOR_RGB2GRAY)


@pytest.fixture(scope="module")
def chunk() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seven frames of a face that drifts through a photograph: wide, bodies, face_in_body."""
    luma, boxes = gray_photo(), BOX + np.linspace(0, 5, 7)[:, None]
    wide = np.stack([crop(luma, wide_box(b), "box", WIDE_SIZE) for b in boxes])
    bodies = np.stack([crop(luma, body_box(b, *SIZE), "box") for b in boxes])
    return wide, bodies, face_boxes_in_body(boxes, SIZE)


def view(chunk: tuple, seed: int = 0, **changes: object) -> module.ViewSample:
    """All off but ``changes``."""
    return augment_view(*chunk, np.random.default_rng(seed), replace(OFF, **changes))


def detail(frames: np.ndarray) -> float:
    return float(np.mean([cv2.Laplacian(f, cv2.CV_64F).var() for f in frames]))


def ramps() -> np.ndarray:
    """(2, 160, 160): gray levels that state the pixel's column and row, and keep off 0, 110 and 255 by themselves."""
    values = np.arange(WIDE_SIZE, dtype=np.uint8) + 48
    return np.stack([np.tile(values, (WIDE_SIZE, 1)), np.tile(values[:, None], (1, WIDE_SIZE))])


def test_the_wide_crop_is_the_caches_wide_crop() -> None:
    assert module.WIDE_SIZE == WIDE_SIZE
    assert pytest.approx(WIDE_SIZE / WIDE_SCALE) == module.BOX_PX


@pytest.mark.parametrize("corner", [(20, 30), (57, 0), (-30, 200)])
def test_plain_view_is_the_crop_of_the_box_where_the_wide_crop_is_one_to_one(corner: tuple[int, int]) -> None:
    """A box of 160 / 1.4 px at whole pixels makes a wide crop that copies pixels: both ways interpolate alike."""
    frame = np.random.default_rng(1).integers(0, 256, (400, 480), dtype=np.uint8)
    centre, half = np.array(corner) + WIDE_SIZE / 2, module.BOX_PX / 2
    box = np.concatenate([centre - half, centre + half])
    wide = crop(frame, wide_box(box), "box", WIDE_SIZE)
    assert np.abs(plain_view(wide[None])[0].astype(int) - crop(frame, box, "box")).max() <= 1


def test_plain_view_is_near_the_crop_of_any_box() -> None:
    frame = cv2.GaussianBlur(gray_photo(), (0, 0), 1.5)
    wide = crop(frame, wide_box(BOX), "box", WIDE_SIZE)
    difference = plain_view(wide[None])[0].astype(int) - crop(frame, BOX, "box")
    assert np.abs(difference).mean() < 0.6
    assert abs(difference.mean()) < 0.1


def test_face_boxes_in_body_against_a_painted_face() -> None:
    boxes = np.array([[200, 100, 260, 180], [10, 20, 60, 70], [440, 300, 500, 380]], float)
    found = face_boxes_in_body(boxes, SIZE)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 112
    for box, inside in zip(boxes, found, strict=True):
        x1, y1, x2, y2 = box.astype(int)
        luma = np.zeros((SIZE[1], SIZE[0]), np.uint8)
        luma[y1:y2, x1:x2] = 255
        rows, columns = np.nonzero(crop(luma, body_box(box, *SIZE), "box") > 127)
        by_sight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(inside, by_sight, atol=1)


def test_off_is_the_plain_view(chunk: tuple) -> None:
    sample = view(chunk)
    np.testing.assert_array_equal(sample.face, plain_view(chunk[0]))
    np.testing.assert_array_equal(sample.body, chunk[1])
    assert (sample.mouth_hidden, sample.flipped, sample.small_px) == (False, False, None)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.sampled_from([1, 2, 7]))
def test_shapes_chance_and_inputs(chunk: tuple, seed: int, n: int) -> None:
    """Any chunk, however long, comes out whole; the same seed gives the same; the inputs stay as they were."""
    given = [a[:n].copy() for a in chunk]
    config = replace(ViewAugment(), occlude_mouth=0.5, occlude_other=0.5, compress=0.5, noise=0.5, blur=0.5)
    first, again = (augment_view(*given, np.random.default_rng(seed), config) for _ in range(2))
    alone = augment_view(given[0], None, None, np.random.default_rng(seed), config)
    for frames in (first.face, first.body):
        assert frames.shape == (n, 112, 112)
        assert frames.dtype == np.uint8
        assert frames.flags.c_contiguous
    np.testing.assert_array_equal(first.face, again.face)
    np.testing.assert_array_equal(first.body, again.body)
    assert alone.body is None
    np.testing.assert_array_equal(first.face, alone.face)
    for before, after in zip(chunk, given, strict=True):
        np.testing.assert_array_equal(before[:n], after)


def test_seeds_differ(chunk: tuple) -> None:
    faces = {augment_view(*chunk, np.random.default_rng(s), ViewAugment()).face.tobytes() for s in range(8)}
    assert len(faces) == 8


@pytest.mark.parametrize("seed", range(5))
def test_flip_mirrors_face_and_body_and_nothing_else(chunk: tuple, seed: int) -> None:
    config = replace(ViewAugment(), occlude_mouth=0.5, noise=0.5)
    straight, mirrored = (
        augment_view(*chunk, np.random.default_rng(seed), replace(config, flip=p)) for p in (0.0, 1.0)
    )
    assert mirrored.flipped
    assert not straight.flipped
    np.testing.assert_array_equal(mirrored.face[:, :, ::-1], straight.face)
    np.testing.assert_array_equal(mirrored.body[:, :, ::-1], straight.body)


def test_flipping_a_mirrored_wide_crop_gives_the_plain_view(chunk: tuple) -> None:
    wide, bodies, inside = chunk
    twice = view((wide[:, :, ::-1], bodies[:, :, ::-1], inside), flip=1.0)
    # The warp rounds places to 1/32 px, not the same way from either side.
    assert np.abs(twice.face.astype(int) - plain_view(wide)).mean() < 0.3
    np.testing.assert_array_equal(twice.body, bodies)


@pytest.mark.parametrize("seed", range(12))
def test_the_box_changes_within_its_ranges(seed: int) -> None:
    """Read the map off pictures whose levels state the place."""
    config = replace(OFF, jitter=1.0, wobble=0.0, max_zoom=0.15, max_shift=0.08, max_turn_deg=8)
    n = 3
    x, y = (
        augment_view(np.repeat(ramp[None], n, 0), None, None, np.random.default_rng(seed), config).face
        for ramp in ramps()
    )
    np.testing.assert_array_equal(x[0], x[n - 1])  # one map for the chunk
    rows, columns = np.mgrid[16:96, 16:96]
    places = np.stack([columns + 0.5 - 56, rows + 0.5 - 56, np.ones_like(rows)], -1).reshape(-1, 3) / [112, 112, 1]
    seen = np.stack([x[0, 16:96, 16:96], y[0, 16:96, 16:96]], -1).reshape(-1, 2) - 48 + 0.5 - WIDE_SIZE / 2
    fit, *_ = np.linalg.lstsq(places, seen / module.BOX_PX, rcond=None)
    scales = np.linalg.norm(fit[:2], axis=1)
    turn = np.degrees(np.arctan2(fit[0, 1], fit[0, 0]))
    assert np.all((scales > 0.85 * 0.95 - 0.01) & (scales < 1.15 * 1.05 + 0.01))
    assert 0.9 < scales[0] / scales[1] < 1.11
    assert abs(turn) < 8.2
    assert np.abs(fit[2]).max() < 0.085
    assert np.abs(fit[:2] - np.eye(2)).max() > 0.003


def test_beyond_the_wide_crop_lies_the_published_gray() -> None:
    wide = np.zeros((1, WIDE_SIZE, WIDE_SIZE), np.uint8)
    config = replace(OFF, jitter=1.0, max_zoom=0.5, max_shift=0.5)
    views = [augment_view(wide, None, None, np.random.default_rng(s), config).face for s in range(20)]
    assert {0, OUTSIDE} == {int(v) for f in views for v in (f.min(), f.max())}


def test_wobble_is_smooth_and_of_its_size() -> None:
    config = replace(OFF, jitter=1.0, max_zoom=0.0, max_shift=0.0, max_turn_deg=0.0, wobble=0.02)
    spreads, steps = [], []
    for seed in range(200):
        shift = module._draw_maps(100, np.random.default_rng(seed), config)[:, :, 2]
        spreads.append(np.mean(shift**2))
        steps.append(np.mean(np.diff(shift, axis=0) ** 2))
    # The standard deviation is uniform in [0, w]: its mean square is w^2 / 3.
    assert np.mean(spreads) == pytest.approx(0.02**2 / 3, rel=0.2)
    assert np.mean(steps) < np.mean(spreads) / 4


@pytest.mark.parametrize("seed", range(6))
def test_face_and_body_go_through_one_map_of_the_scene(seed: int) -> None:
    """A spot off the face's centre lands on the same place of the scene in both."""
    spot, inside = np.array([0.2, -0.15]), np.array([[30.0, 20.0, 80.0, 90.0]])
    sides, centre = inside[0, 2:] - inside[0, :2], np.array([55.0, 55.0])
    wide, body = (np.zeros((1, s, s), np.uint8) for s in (WIDE_SIZE, 112))
    cv2.circle(wide[0], [round(v) for v in (WIDE_SIZE / 2 - 0.5 + module.BOX_PX * spot).tolist()], 3, 255, -1)
    cv2.circle(body[0], [round(v) for v in (centre + sides * spot - 0.5).tolist()], 2, 255, -1)
    sample = view((wide, body, inside), seed, jitter=1.0, wobble=0.0)
    at = []
    for frame in (sample.face[0], sample.body[0]):
        weights = np.where(frame == OUTSIDE, 0, frame).astype(float)
        rows, columns = np.mgrid[:112, :112] + 0.5
        at.append(np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum())
    np.testing.assert_allclose(at[0] / 112 - 0.5, (at[1] - centre) / sides, atol=0.02)


@pytest.mark.parametrize("seed", range(12))
def test_a_hidden_mouth_is_nowhere_to_be_seen(chunk: tuple, seed: int) -> None:
    """Nothing of the mouth's pixels goes into the view, whatever they are; the eyes stay."""
    wide, bodies, inside = chunk
    low, high = np.array([0.22, 0.64]), np.array([0.78, 0.98])
    other_wide, other_bodies = wide.copy(), bodies.copy()
    x1, y1 = np.ceil(WIDE_SIZE / 2 + module.BOX_PX * (low - 0.5)).astype(int)
    x2, y2 = np.floor(WIDE_SIZE / 2 + module.BOX_PX * (high - 0.5)).astype(int)
    other_wide[:, y1:y2, x1:x2] = 255 - other_wide[:, y1:y2, x1:x2]
    sides = inside[:, 2:] - inside[:, :2]
    for frame, a, b in zip(
        other_bodies, inside[:, :2] + low * sides + 1, inside[:, :2] + high * sides - 1, strict=True
    ):
        (x1, y1), (x2, y2) = np.ceil(a).astype(int), np.floor(b).astype(int)
        frame[y1:y2, x1:x2] = 255 - frame[y1:y2, x1:x2]
    changes = {"occlude_mouth": 1.0, "jitter": 0.5}
    sample, other = view(chunk, seed, **changes), view((other_wide, other_bodies, inside), seed, **changes)
    assert sample.mouth_hidden
    np.testing.assert_array_equal(sample.face, other.face)
    np.testing.assert_array_equal(sample.body, other.body)
    plain = view(chunk, seed, occlude_mouth=1.0)
    np.testing.assert_array_equal(plain.face[:, :44], plain_view(wide)[:, :44])


def test_other_covers_leave_the_mouth_alone(chunk: tuple) -> None:
    plain, touched = plain_view(chunk[0]), 0
    for seed in range(40):
        sample = view(chunk, seed, occlude_other=1.0)
        assert not sample.mouth_hidden
        np.testing.assert_array_equal(sample.face[:, 72:109, 34:78], plain[:, 72:109, 34:78])
        touched += bool((sample.face != plain).any())
    assert touched >= 36


def test_the_face_is_hidden_in_the_body_only(chunk: tuple) -> None:
    wide, bodies, inside = chunk
    grays = set()
    for seed in range(10):
        sample = view(chunk, seed, hide_face_in_body=1.0)
        np.testing.assert_array_equal(sample.face, plain_view(wide))
        for frame, before, (x1, y1, x2, y2) in zip(sample.body, bodies, inside, strict=True):
            middle = frame[int(y1) + 4 : int(y2) - 4, int(x1) + 4 : int(x2) - 4]
            assert middle.min() == middle.max()
            grays.add(int(middle[0, 0]))
            np.testing.assert_array_equal(frame[-20:], before[-20:])
    assert OUTSIDE in grays
    assert len(grays) > 1


def test_small_faces_lose_detail_and_say_how_small(chunk: tuple) -> None:
    fine = np.random.default_rng(0).integers(0, 256, chunk[0].shape, dtype=np.uint8)
    for seed in range(8):
        sample = view((fine, *chunk[1:]), seed, small=1.0)
        assert 16 <= sample.small_px <= 40
        assert detail(sample.face) < 0.3 * detail(plain_view(fine))
        assert detail(sample.body) <= detail(chunk[1])
    assert view(chunk, small=1.0, small_px=(24, 24)).small_px == 24


def test_the_body_shrinks_to_the_same_resolution_as_the_face() -> None:
    """A face of 16 px that takes half of the body's crop leaves 32 px to the body: steps are 3.5 px."""
    stripes = np.tile(np.uint8([255, 0] * 56), (1, 112, 1))
    wide, inside = np.zeros((1, WIDE_SIZE, WIDE_SIZE), np.uint8), np.array([[28.0, 0, 84, 56]])
    seen = [view((wide, stripes, inside), s, small=1.0, small_px=(16, 16)).body for s in range(8)]
    assert max(np.abs(np.diff(body.astype(float), axis=2)).mean() for body in seen) < 255 / 3.5 * 1.2
    whole = np.array([[52.0, 0, 60, 8]])  # a face of 8 px in the body's crop: 16 px of face need no shrinking of it
    np.testing.assert_array_equal(view((wide, stripes, whole), small=1.0, small_px=(16, 16)).body, stripes)


def test_blur_takes_detail_and_noise_and_compression_change_it(chunk: tuple) -> None:
    plain = plain_view(chunk[0])
    for seed in range(8):
        assert detail(view(chunk, seed, blur=1.0).face) < detail(plain)
        assert detail(view(chunk, seed, noise=1.0).face) > detail(plain)
        squeezed = view(chunk, seed, compress=1.0).face
        assert 0 < np.abs(squeezed.astype(int) - plain).mean() < 12


def test_tone_keeps_the_order_of_levels() -> None:
    levels = np.tile(np.arange(WIDE_SIZE, dtype=np.uint8) + 40, (1, WIDE_SIZE, 1))
    for seed in range(8):
        face = augment_view(levels, None, None, np.random.default_rng(seed), replace(OFF, tone=1.0)).face[0]
        assert (np.diff(face.astype(int), axis=1) >= 0).all()
        assert (face != plain_view(levels)[0]).any()


@pytest.mark.parametrize("side", [17, 40, 112])
def test_frames_of_a_jpeg_pile_do_not_touch(side: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, side, side), dtype=np.uint8)
    quality = np.array([10, 40, 10, 40, 10])
    together = through_jpeg(frames, quality)
    for i in range(5):
        np.testing.assert_array_equal(together[i], through_jpeg(frames[i : i + 1], quality[i : i + 1])[0])


def test_jpeg_blocks_beyond_the_frame_hold_its_own_edge() -> None:
    bright = np.full((2, 17, 17), 200, np.uint8)
    assert np.abs(through_jpeg(bright, np.array([10, 10])).astype(int) - 200).max() <= 6


def test_jpeg_piles_end_where_the_format_does() -> None:
    frames = np.full((600, 112, 112), 77, np.uint8)
    assert np.abs(through_jpeg(frames, np.full(600, 30)).astype(int) - 77).max() <= 3


@pytest.mark.parametrize(
    ("wide", "bodies", "inside"),
    [
        (np.zeros((0, 160, 160), np.uint8), None, None),
        (np.zeros((2, 112, 112), np.uint8), None, None),
        (np.zeros((2, 160, 160), np.float32), None, None),
        (np.zeros((160, 160), np.uint8), None, None),
        (np.zeros((2, 160, 160), np.uint8), np.zeros((3, 112, 112), np.uint8), np.ones((2, 4))),
        (np.zeros((2, 160, 160), np.uint8), np.zeros((2, 112, 112), np.uint8), None),
        (np.zeros((2, 160, 160), np.uint8), np.zeros((2, 112, 112), np.uint8), np.ones((3, 4))),
        (np.zeros((2, 160, 160), np.uint8), np.zeros((2, 112, 112), np.uint8), np.full((2, 4), np.nan)),
    ],
)
def test_other_arrays_are_refused(wide: np.ndarray, bodies: np.ndarray | None, inside: np.ndarray | None) -> None:
    with pytest.raises(OptionError) as told:
        augment_view(wide, bodies, inside, np.random.default_rng(0), OFF)
    assert "\n" not in str(told.value)


def test_plain_view_and_boxes_refuse_too() -> None:
    with pytest.raises(OptionError, match="at least one frame"):
        plain_view(np.zeros((0, 160, 160), np.uint8))
    with pytest.raises(OptionError, match="not finite"):
        face_boxes_in_body(np.array([[0, 0, np.nan, 4]]), SIZE)
    with pytest.raises(OptionError, match="boxes must be"):
        face_boxes_in_body(np.zeros(4), SIZE)


def test_options_from_a_table() -> None:
    config = ViewAugment.from_table({"flip": 0, "small_px": [20, 30], "wobble": 0.005})
    assert (config.flip, config.small_px, config.wobble, config.jitter) == (0, (20, 30), 0.005, 0.9)
    assert {f.name for f in fields(ViewAugment)} >= {"occlude_mouth", "hide_face_in_body", "max_turn_deg"}


@pytest.mark.parametrize(
    "table",
    [
        {"flips": 0.5},
        {"flip": 1.1},
        {"flip": -0.1},
        {"flip": float("nan")},
        {"flip": True},
        {"flip": "often"},
        {"max_zoom": 0.9},
        {"wobble": float("inf")},
        {"small_px": [40, 16]},
        {"small_px": [16]},
        {"small_px": 16},
        {"quality": [0, 50]},
    ],
)
def test_useless_options_are_refused_by_name(table: dict) -> None:
    with pytest.raises(OptionError, match=f"view.*{next(iter(table))}"):
        ViewAugment.from_table(table)
