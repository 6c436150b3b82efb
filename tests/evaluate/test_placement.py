"""Placement of heat: analytic maps, ties, frames that do not count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.errors import OptionError
from asd_explain.evaluate.placement import (
    area_share,
    heat_mass,
    placement_rows,
    pointing_hits,
)
from asd_explain.evaluate.segments import REGIONS
from asd_explain.explain.geometry import drawable_frames

SIDE = 20


def _regions(n: int, unknown: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """Rows 0-3 eyes, 4-11 face, 12-15 mouth, 16-17 body, 18-19 outside; a mouth that is not known is face."""
    regions = {region: np.zeros((n, SIDE, SIDE), bool) for region in REGIONS}
    ends = (("eyes", 0, 4), ("rest of face", 4, 12), ("mouth", 12, 16), ("rest of body", 16, 18), ("outside", 18, 20))
    for region, first, end in ends:
        regions[region][:, first:end] = True
    for t in unknown:
        regions["mouth"][t] = False
        regions["rest of face"][t, 12:16] = True
    return regions


def _point(row: int, column: int = 10) -> np.ndarray:
    heat = np.zeros((SIDE, SIDE), np.float32)
    heat[row, column] = 1
    return heat


def test_pointing_by_hand() -> None:
    mouth = _regions(4)["mouth"]
    heat = np.stack((_point(12), _point(11), _point(15), np.full((SIDE, SIDE), 3.0, np.float32)))
    np.testing.assert_array_equal(pointing_hits(heat, mouth), [1, 0, 1, 0], "an even map points nowhere")
    np.testing.assert_array_equal(pointing_hits(heat, mouth, tolerance_px=1), [1, 1, 1, 0])


def test_tolerance_is_a_disc() -> None:
    mask = np.zeros((1, SIDE, SIDE), bool)
    mask[0, 10, 10] = True
    for row, column, distance in ((13, 10, 3.0), (12, 12, 8**0.5), (13, 11, 10**0.5)):
        for tolerance in (2, 3, 4):
            hit = pointing_hits(_point(row, column)[None], mask, tolerance)
            assert hit[0] == (distance <= tolerance), (row, column, tolerance)


@pytest.mark.parametrize(("inside", "beside", "hit"), [(1, 1, 1), (1, 2, 0), (3, 2, 1), (0, 1, 0)])
def test_ties_hit_when_at_least_half_are_inside(inside: int, beside: int, hit: int) -> None:
    heat = np.zeros((1, SIDE, SIDE), np.float32)
    heat[0, 13, :inside] = 2
    heat[0, 2, :beside] = 2
    assert pointing_hits(heat, _regions(1)["mouth"])[0] == hit


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_what_counts_as_constant_does_not_depend_on_the_scale(scale: float) -> None:
    flat = np.ones((SIDE, SIDE))
    heat = np.stack((flat, flat + _point(13), flat * np.nan, 0 * flat)) * scale
    assert drawable_frames(heat).tolist() == [False, True, False, False]
    np.testing.assert_array_equal(pointing_hits(heat, _regions(4)["mouth"]), [0, 1, np.nan, 0])


def test_a_uniform_map_has_the_mass_of_the_area() -> None:
    regions = _regions(3, unknown=(1,))
    mass, area = heat_mass(np.full((3, SIDE, SIDE), 0.3, np.float32), regions), area_share(regions)
    for region, expected in zip(REGIONS, (0.2, 0.2, 0.4, 0.1, 0.1), strict=True):
        np.testing.assert_allclose(mass[region], [expected, np.nan, expected])
        np.testing.assert_allclose(area[region], [expected, np.nan, expected])


@given(seed=st.integers(0, 10_000), log_scale=st.floats(-30, 30))
@settings(max_examples=25, deadline=None)
def test_mass_sums_to_one_whatever_the_scale(seed: int, log_scale: float) -> None:
    rng = np.random.default_rng(seed)
    heat = rng.random((2, SIDE, SIDE)) * 10**log_scale
    regions = _regions(2)
    mass = heat_mass(heat, regions)
    np.testing.assert_allclose(sum(mass.values()), 1)
    brute = [heat[t][regions["eyes"][t]].sum() / heat[t].sum() for t in range(2)]
    np.testing.assert_allclose(mass["eyes"], brute, rtol=1e-6)


def test_frames_without_heat_have_no_mass() -> None:
    heat = np.stack((_point(13), np.zeros((SIDE, SIDE)), np.full((SIDE, SIDE), np.nan), np.full((SIDE, SIDE), np.inf)))
    mass = heat_mass(heat, _regions(4))
    np.testing.assert_array_equal(mass["mouth"], [1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(mass["eyes"], [0, np.nan, np.nan, np.nan])


def test_rows_keep_speaking_and_silent_frames_apart() -> None:
    #                 speaking: mouth, face, unknown, no heat  | silent: eyes | not known which: mouth
    heat = np.stack((_point(13), _point(6), _point(13), 0 * _point(0), _point(1), _point(13)))
    speaking, silent = placement_rows(
        heat, _regions(6, unknown=(2,)), np.array([1, 1, 1, 1, 0, np.nan]), tolerance_px=0
    )
    assert (speaking.state, speaking.frames, speaking.known, speaking.counted) == ("speaking", 4, 3, 2)
    third = pytest.approx(1 / 3)
    assert speaking.pointing == {"mouth": third, "eyes": 0, "rest of face": third, "rest of body": 0, "outside": 0}
    assert speaking.dead == third, "the frame without heat, of those whose mouth is known"
    assert speaking.mass == {"mouth": 0.5, "eyes": 0, "rest of face": 0.5, "rest of body": 0, "outside": 0}
    assert speaking.enrichment["mouth"] == pytest.approx(0.5 / 0.2)
    assert (silent.state, silent.frames, silent.counted, silent.dead) == ("silent", 1, 1, 0)
    assert silent.mass["eyes"] == 1
    assert silent.pointing["mouth"] == 0
    for row in (speaking, silent):
        assert sum(row.mass.values()) == pytest.approx(1)
        assert sum(row.area.values()) == pytest.approx(1)


def test_rows_of_nothing_are_nan() -> None:
    speaking, silent = placement_rows(_point(13)[None], _regions(1), np.array([True]))
    assert speaking.pointing["mouth"] == 1
    assert (silent.frames, silent.known, silent.counted) == (0, 0, 0)
    assert np.isnan([silent.dead, *silent.mass.values(), *silent.area.values(), *silent.pointing.values()]).all()
    nowhere = _regions(1)
    nowhere["rest of face"] |= nowhere["rest of body"]
    nowhere["rest of body"][:] = False
    row = placement_rows(_point(13)[None], nowhere, np.array([1]))[0]
    assert np.isnan(row.enrichment["rest of body"])
    assert np.isnan(row.pointing["rest of body"])


def test_maps_that_point_nowhere_miss_everything() -> None:
    heat = np.stack((0 * _point(0), np.full((SIDE, SIDE), 3.0), np.full((SIDE, SIDE), np.nan)))
    row = placement_rows(heat, _regions(3), np.ones(3))[0]
    assert (row.frames, row.known, row.counted) == (3, 2, 1), "what is not finite is no map; an even one has heat"
    assert row.dead == 0.5
    assert set(row.pointing.values()) == {0}, "no region gets the hit, not even one of more than half of the pixels"
    dead = placement_rows(heat[:1], _regions(1), np.ones(1))[0]
    assert (dead.known, dead.counted, dead.dead, dead.pointing["mouth"]) == (1, 0, 1, 0)
    assert np.isnan(dead.mass["mouth"])


def test_shapes_that_do_not_agree_are_refused() -> None:
    regions = _regions(2)
    heat = np.ones((2, SIDE, SIDE))
    with pytest.raises(OptionError, match="must agree"):
        pointing_hits(heat[:1], regions["mouth"])
    with pytest.raises(OptionError, match="tolerance"):
        pointing_hits(heat, regions["mouth"], -1)
    with pytest.raises(OptionError, match="must agree"):
        heat_mass(heat[:, :5], regions)
    with pytest.raises(OptionError, match="states"):
        placement_rows(heat, regions, np.ones(3))
