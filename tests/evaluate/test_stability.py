"""Stability of maps: a picture that moves, maps that are the picture, disturbances by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.errors import OptionError
from asd_explain.evaluate.segments import Segment, Smoothing
from asd_explain.evaluate.stability import (
    KINDS,
    consistency_table,
    crop_motion,
    disturbed,
    neighbour_correlations,
    recoded,
    sensitivity,
    temporal_consistency,
    top_overlap,
)
from asd_explain.explain.base import Explainer


def _scene(seed: int = 0, side: int = 180) -> np.ndarray:
    """A soft random picture, grey 0..255."""
    noise = np.random.default_rng(seed).standard_normal((side, side)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.clip(128 + 35 * soft / soft.std(), 30, 225)


def _cut(picture: np.ndarray, right: float, down: float, side: int = 112) -> np.ndarray:
    """The picture's middle after its content has moved right and down."""
    start = (picture.shape[0] - side) / 2
    at = np.array([[1.0, 0, start - right], [0, 1, start - down]])
    return cv2.warpAffine(picture, at, (side, side), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)


def _blob(x: float, y: float, side: int = 112, width: float = 8.0) -> np.ndarray:
    i, j = np.mgrid[:side, :side]
    return np.exp(-((j - x) ** 2 + (i - y) ** 2) / (2 * width**2)).astype(np.float32)


STEPS = np.array([(0, 0), (3, 0), (7, -2), (10.5, -2), (10.5, 4.25), (6, 0)])


def test_a_blob_that_moves_with_the_picture_is_steady() -> None:
    scene = _scene()
    crops = np.stack([_cut(scene, *step) for step in STEPS]).astype(np.uint8)
    maps = np.stack([_blob(50 + x, 60 + y) for x, y in STEPS])
    np.testing.assert_allclose(crop_motion(crops), np.diff(STEPS, axis=0), atol=0.15)
    assert temporal_consistency(maps, crops) == pytest.approx(1, abs=2e-3)
    assert temporal_consistency(maps) < 0.97
    # Standing still while the picture moves is what counts as unsteady then.
    still = np.repeat(maps[:1], len(maps), 0)
    assert temporal_consistency(still) == pytest.approx(1)
    assert temporal_consistency(still, crops) < 0.97


def test_cells_move_in_proportion_to_pixels() -> None:
    scene = _scene(1)
    crops = np.stack([_cut(scene, 8 * k, 0) for k in (0, 1, 0)]).astype(np.uint8)
    cells = np.stack([_blob(6 + k, 6, side=14, width=1.5) for k in (0, 1, 0)])
    assert temporal_consistency(cells, crops) == pytest.approx(1, abs=0.01)
    assert temporal_consistency(cells) < 0.9


def test_a_mouth_that_moves_is_no_motion_of_the_picture() -> None:
    scene = _cut(_scene(2), 0, 0)
    crops = np.repeat(scene[None], 3, 0)
    for t, shift in ((1, 5), (2, -5)):
        crops[t, 70:95, 35:75] = np.roll(scene[70:95, 35:75], shift, 0)
    np.testing.assert_allclose(crop_motion(crops.astype(np.uint8)), 0, atol=0.1)


def test_what_cannot_be_followed_counts_as_still() -> None:
    rng = np.random.default_rng(3)
    unrelated = rng.integers(0, 256, (6, 112, 112), np.uint8)
    assert (np.hypot(*crop_motion(unrelated).T) <= 12).all()
    assert not crop_motion(np.full((4, 112, 112), 77, np.uint8)).any()
    assert crop_motion(np.stack([_scene(4, 112), _scene(5, 112)]).astype(np.uint8)).shape == (1, 2)
    assert crop_motion(unrelated[:1]).shape == (0, 2)


def test_correlations_by_numpy_and_frames_that_have_none() -> None:
    maps = np.random.default_rng(0).random((6, 7, 7)).astype(np.float32)
    maps[2] = 0.5
    maps[4, 0, 0] = np.nan
    found = neighbour_correlations(maps)
    expected = np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1]
    np.testing.assert_allclose(found, [expected] + [np.nan] * 4)
    assert temporal_consistency(maps) == pytest.approx(expected)
    assert np.isnan(temporal_consistency(maps[:1]))
    assert np.isnan(temporal_consistency(maps[:1], np.zeros((1, 112, 112), np.uint8)))
    with pytest.raises(OptionError, match="3 crops for 6 maps"):
        temporal_consistency(maps, np.zeros((3, 112, 112), np.uint8))


@given(seed=st.integers(0, 1000), gain=st.floats(1e-12, 1e12))
@settings(max_examples=25, deadline=None)
def test_correlation_does_not_depend_on_the_scale(seed: int, gain: float) -> None:
    maps = np.random.default_rng(seed).random((3, 5, 5))
    np.testing.assert_allclose(neighbour_correlations(maps * gain), neighbour_correlations(maps), atol=1e-5)


def test_smoothing_makes_flicker_steadier(tiny) -> None:
    tiny.map_stride_px, tiny.map_offset_px = 8.0, 0.0
    rng = np.random.default_rng(0)
    raw = (_blob(6, 8, side=14, width=2) + 0.5 * rng.random((20, 14, 14))).astype(np.float32)
    crops = np.repeat(_cut(_scene(), 0, 0)[None], 20, 0).astype(np.uint8)
    smoothings = [Smoothing(), Smoothing(seconds=0.08), Smoothing(seconds=0.2, cells=1.0)]
    rows = consistency_table(tiny, raw, crops, smoothings)
    assert [row.smoothing for row in rows] == smoothings
    assert rows[0].in_place < rows[1].in_place < rows[2].in_place <= 1
    for row in rows:
        assert row.pairs == 19
        assert row.after_motion == pytest.approx(row.in_place)  # nothing moves


def test_overlap_by_hand() -> None:
    a = np.zeros(20)
    a[[0, 1]] = 5, 4
    assert top_overlap(a, a) == 1
    assert top_overlap(a, np.roll(a, 1)) == pytest.approx(1 / 3)
    assert top_overlap(a, np.roll(a, 5)) == 0
    # A single hot pixel, two places: the dark ground is not the second hottest.
    b, c = np.zeros(20), np.zeros(20)
    b[0], c[1] = 1, 1
    assert top_overlap(b, b) == 1
    assert top_overlap(b, c) == 0
    # Two places, three pixels equally hot: all three.
    d = np.zeros(20)
    d[:3] = 1
    assert top_overlap(d, a) == pytest.approx(2 / 3)
    assert np.isnan(top_overlap(0 * a, 0 * a))


def test_unrelated_maps_overlap_by_chance() -> None:
    a, b = np.random.default_rng(0).random((2, 300, 300))
    assert top_overlap(a, b) == pytest.approx(0.1 / (2 - 0.1), abs=0.005)


@given(seed=st.integers(0, 1000), levels=st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_overlap_is_symmetric_and_at_most_one(seed: int, levels: int) -> None:
    a, b = np.random.default_rng(seed).integers(0, levels, (2, 9, 9))
    assert 0 <= top_overlap(a, b) <= 1
    assert top_overlap(a, b) == top_overlap(b, a)
    assert top_overlap(a, a) == 1


class PictureHeat(Explainer):
    """The map is the picture itself; ``blind`` shows the same map whatever the picture."""

    name = "picture"

    def __init__(self, needs_gradient: bool = False, blind: bool = False) -> None:
        self.needs_gradient, self.blind = needs_gradient, blind

    def heat(self, model, inputs, target=1, output=None):
        del model, target
        assert (output is None) == self.needs_gradient
        pictures = {stream: values[0].float() for stream, values in inputs.items() if stream != "audio"}
        fixed = torch.arange(112.0).expand(112, 112)
        return {stream: fixed.expand_as(values) if self.blind else values for stream, values in pictures.items()}


@pytest.fixture
def segment() -> Segment:
    scenes = {"face": _scene(0), "body": _scene(1)}
    crops = {
        stream: np.stack([_cut(scene, np.sin(t), 0) for t in range(6)]).astype(np.uint8)
        for stream, scene in scenes.items()
    }
    mfcc = np.random.default_rng(0).standard_normal((24, 13)).astype(np.float32)
    return Segment("clip#0@0", "clip", "real", crops, mfcc)


@pytest.mark.parametrize("needs_gradient", [False, True])
def test_a_map_that_is_the_picture(tiny_body, segment: Segment, needs_gradient: bool) -> None:
    rows = sensitivity(PictureHeat(needs_gradient), tiny_body, segment, seed=3)
    assert [(row.kind, row.stream) for row in rows] == [(kind, s) for kind in KINDS for s in ("face", "body")]
    noise, shift, recoding = rows[::2]
    # Noise of sigma n on a picture of standard deviation s correlates with it by s / sqrt(s^2 + n^2); its rounding
    # adds a variance of 1/12.
    s = np.mean([crop.std() for crop in segment.crops["face"]])
    assert noise.correlation == pytest.approx(s / np.sqrt(s**2 + 4 + 1 / 12), abs=2e-4)
    assert noise.crop_change == pytest.approx(2 * np.sqrt(2 / np.pi), abs=0.06)
    # Moved back, the shifted picture is the picture.
    assert shift.correlation == pytest.approx(1)
    assert shift.overlap == pytest.approx(1)
    assert 0.9 < recoding.correlation < 1
    assert recoding.crop_change > 0
    for row in rows:
        assert row.frames == 6
        assert 0 < row.overlap <= 1 + 1e-9
        assert 0 <= row.p_change <= 1


def test_p_moves_as_the_network_says(tiny_body, segment: Segment) -> None:
    segment.mfcc[:] = 18.0  # loud, so that only the picture decides
    rows = sensitivity(PictureHeat(), tiny_body, segment, ["noise"], seed=1)
    changed, _ = disturbed(segment, "noise", 1)
    p = []
    for one in (segment, changed):
        inputs = {stream: torch.from_numpy(values)[None] for stream, values in one.crops.items()}
        p.append(tiny_body(**inputs, audio=torch.from_numpy(segment.mfcc)[None]).p_speaking[0])
    assert rows[0].p_change == pytest.approx(float((p[0] - p[1]).abs().mean()))
    assert rows[0].p_change > 0


def test_a_blind_map_is_steady_but_for_the_way_back(tiny_body, segment: Segment) -> None:
    for row in sensitivity(PictureHeat(blind=True), tiny_body, segment, ["noise", "recoding"]):
        assert row.correlation == pytest.approx(1)
        assert row.overlap == pytest.approx(1)


def test_constant_maps_and_single_frames(tiny_body, segment: Segment) -> None:
    flat = Segment("a", "a", "real", {"face": np.full((1, 112, 112), 9, np.uint8)}, None)
    for row in sensitivity(PictureHeat(), tiny_body, flat, ["shift", "recoding"]):
        assert row.frames == 0
        assert np.isnan([row.correlation, row.overlap]).all()
        assert row.p_change == 0
    with pytest.raises(OptionError, match="sneeze"):
        sensitivity(PictureHeat(), tiny_body, segment, ["noise", "sneeze"])


@pytest.mark.parametrize("kind", KINDS)
def test_disturbances_are_repeatable_and_leave_the_rest_alone(segment: Segment, kind: str) -> None:
    before = {stream: crops.copy() for stream, crops in segment.crops.items()}
    first, moved = disturbed(segment, kind, 5)
    again, _ = disturbed(segment, kind, 5)
    assert first.mfcc is segment.mfcc
    assert first.name == segment.name
    for stream, crops in first.crops.items():
        assert crops.dtype == np.uint8
        assert crops.shape == before[stream].shape
        assert (crops != before[stream]).any()
        np.testing.assert_array_equal(crops, again.crops[stream])
        np.testing.assert_array_equal(segment.crops[stream], before[stream])
    assert (moved == (0, 0)) == (kind != "shift")


def test_shifts_go_all_four_ways_by_one_pixel(segment: Segment) -> None:
    seen = set()
    for seed in range(30):
        changed, (right, down) = disturbed(segment, "shift", seed)
        seen.add((right, down))
        inner = changed.crops["face"][:, 2 + down : 110 + down, 2 + right : 110 + right]
        np.testing.assert_array_equal(inner, segment.crops["face"][:, 2:110, 2:110])
    assert seen == {(1, 0), (-1, 0), (0, 1), (0, -1)}


def test_recoding_loses_more_at_a_higher_quantiser_and_keeps_the_order(segment: Segment) -> None:
    ramp = np.repeat(np.arange(0, 250, 25, dtype=np.uint8), 112 * 112).reshape(-1, 112, 112)
    assert np.abs(recoded(ramp).astype(int) - ramp).max() <= 4  # full range stays full range
    faces = segment.crops["face"].astype(int)
    fine, coarse = (np.abs(recoded(segment.crops["face"], crf) - faces).mean() for crf in (10, 45))
    assert fine < 1.5 < coarse


def test_recoding_without_x264(segment: Segment, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr("av.codecs_available", {"mpeg4"})
    faces = segment.crops["face"]
    change = np.abs(recoded(faces).astype(int) - faces)
    assert 0 < change.mean() < 4
    assert "MPEG-4" in caplog.text
