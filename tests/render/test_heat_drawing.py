"""Where heat lies, how hot looks, and that no heat draws nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.render.colours import (
    HEAT_OPACITY,
    OKABE_ITO,
    ColourSpace,
    assign_colours,
    heat_lut,
    heat_opacity,
    lightness,
    text_colour,
)
from asd_explain.render.heat import HeatPainter, heat_index, heat_region, upsample
from asd_explain.render.placement import Rect
from asd_explain.render.scene import TimelineTrack

SPACE = ColourSpace("bt709", False)


def test_hotter_is_lighter_and_more_opaque() -> None:
    light = [lightness(rgb) for rgb in heat_lut()]
    assert all(b > a for a, b in pairwise(light[::4]))  # neighbours may tie or waver in the last of 8 bits
    assert light[-1] > light[0] + 0.5
    opacity = heat_opacity()
    assert (np.diff(opacity) >= 0).all()
    assert opacity[0] == 0
    assert opacity[-1] == pytest.approx(HEAT_OPACITY)


def test_luma_of_a_patch_grows_with_heat_and_with_p() -> None:
    painter = HeatPainter(SPACE)
    heat = np.tile(np.linspace(0, 1, 14, dtype=np.float32), (14, 1))
    box = np.array([0, 0, 140, 140])
    region = heat_region(box, box, 140, 140)
    patch = painter.patch(heat, box, region, 1.0)
    keep = patch.y_keep[70].astype(int)
    assert (np.diff(keep) <= 0).all()
    assert keep[0] == 255
    assert keep[-1] == pytest.approx(255 * (1 - HEAT_OPACITY), abs=1)
    half = painter.patch(heat, box, region, 0.5)
    assert 255 - half.y_keep[70, -1] == pytest.approx((255 - keep[-1]) / 2, abs=1)


@pytest.mark.parametrize("p", [0.0, float("nan"), 0.001])
def test_silent_faces_have_no_heat(p: float) -> None:
    box = np.array([0, 0, 40, 40])
    assert HeatPainter(SPACE).patch(np.ones((7, 7), np.float32), box, Rect(0, 0, 40, 40), p) is None


@pytest.mark.parametrize(
    "heat", [None, np.zeros((14, 14)), np.full((3, 3), np.nan), np.zeros((0, 0)), -np.ones((4, 4))]
)
def test_maps_without_heat_draw_nothing(heat: np.ndarray | None) -> None:
    assert heat_index(heat, np.array([0, 0, 40, 40]), Rect(0, 0, 40, 40)) is None


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.sampled_from([(1, 1), (2, 3), (14, 14), (112, 112), (5, 40)]),
)
def test_region_lies_inside_window_box_and_frame_and_upsampling_does_not_overshoot(
    seed: int, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    window, box = (np.sort(rng.uniform(-40, 140, (2, 2)), axis=0).ravel() for _ in range(2))
    region = heat_region(window, box, 100, 80)
    if region is None:
        return
    assert region.x0 >= max(window[0], box[0], 0)
    assert region.y0 >= max(window[1], box[1], 0)
    assert region.x1 <= min(window[2], box[2], 100)
    assert region.y1 <= min(window[3], box[3], 80)
    assert not any(value % 2 for value in (region.x0, region.y0, region.x1, region.y1))
    heat = rng.random(shape).astype(np.float32)
    for step in (1, 2):
        large = upsample(heat, window, region, step)
        assert large.shape == (region.height // step, region.width // step)
        assert large.min() >= heat.min()
        assert large.max() <= heat.max()


def test_cells_tile_the_window() -> None:
    heat = np.zeros((14, 14), np.float32)
    heat[3, 10] = 1
    window = np.array([10.0, 20.0, 150.0, 160.0])  # ten pixels a cell
    large = upsample(heat, window, Rect(10, 20, 150, 160))
    row, column = np.unravel_index(large.argmax(), large.shape)
    assert (row // 10, column // 10) == (3, 10)
    centre = (large * np.arange(140)).sum() / large.sum()
    assert centre == pytest.approx(10 * 10 + 4.5, abs=0.2)


def test_a_part_of_the_window_is_cut_from_the_whole() -> None:
    heat = np.random.default_rng(1).random((14, 14)).astype(np.float32)
    window = np.array([-33.3, -7.7, 160.2, 171.9])
    whole, part = (upsample(heat, window, rect) for rect in (Rect(-30, -6, 160, 170), Rect(20, 30, 90, 100)))
    assert np.allclose(part, whole[36:106, 50:120], atol=1e-5)


def test_linear_maps_are_kept_by_the_cubic() -> None:
    heat = np.tile(np.arange(20, dtype=np.float32), (20, 1))
    large = upsample(heat, np.array([0, 0, 200, 200]), Rect(40, 40, 160, 160))
    assert np.allclose(large[0], (np.arange(40, 160) + 0.5) / 10 - 0.5, atol=1e-3)


def test_holes_are_left_free() -> None:
    box = np.array([0, 0, 60, 60])
    patch = HeatPainter(SPACE).patch(np.ones((4, 4)), box, Rect(0, 0, 60, 60), 1.0, (Rect(10, 10, 31, 31),))
    assert (patch.y_keep[11:31, 11:31] == 255).all()
    assert (patch.c_keep[5:16, 5:16] == 255).all()
    assert (patch.y_keep[40:, 40:] < 255).all()


def test_tracks_seen_together_have_different_colours() -> None:
    def track(track_id: int, start: float, end: float) -> TimelineTrack:
        times = np.linspace(start, end, 10)
        return TimelineTrack(track_id, times, np.full(10, 0.5))

    together = [track(i, 0.1 * i, 10) for i in range(7)]
    later = [track(20 + i, 11 + i, 11.5 + i) for i in range(20)]
    colours = assign_colours(together + later)
    assert len({colours[i] for i in range(7)}) == 7
    assert len(colours) == 27
    assert all(colours[20 + i] != colours[21 + i] for i in range(19))
    assert set(assign_colours([track(i, 0, 10) for i in range(20)]).values()) == set(OKABE_ITO)


def test_text_can_be_read_on_every_track_colour() -> None:
    for rgb in OKABE_ITO:
        ink, ground = (lightness(colour) + 0.05 for colour in (text_colour(rgb), rgb))
        assert max(ink, ground) / min(ink, ground) > 4.5  # WCAG 2.1 AA
