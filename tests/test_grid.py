"""The mapping between source frames and the 25-fps grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.grid import GRID_FPS, TimeGrid, nearest
from asd_explain.scoring import GridFeeder

RATES = [10, 15, 24000 / 1001, 24, 25, 30000 / 1001, 30, 50, 60]
steps = st.lists(st.floats(0.005, 0.3), min_size=0, max_size=60)


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("frames", [1, 2, 3, 50, 101])
def test_constant_rates_map_both_ways_within_half_a_step(fps: float, frames: int) -> None:
    grid = TimeGrid(3.2 + np.arange(frames) / fps)
    assert abs((len(grid) - 1) - (frames - 1) / fps * GRID_FPS) <= 0.5 + 1e-5
    assert np.abs(grid.grid_s[grid.grid_of_source] - grid.source_s).max() <= 0.5 / GRID_FPS + 1e-6
    assert np.abs(grid.source_s[grid.source_of_grid] - grid.grid_s).max() <= 0.5 / min(fps, 25) + 1e-6


def test_at_25_fps_the_two_axes_are_one() -> None:
    grid = TimeGrid(np.arange(500) * 0.04 + 7.77)
    np.testing.assert_array_equal(grid.source_of_grid, np.arange(500))
    np.testing.assert_array_equal(grid.grid_of_source, np.arange(500))


@settings(max_examples=60, deadline=None)
@given(steps)
def test_nearest_equals_brute_force(gaps: list[float]) -> None:
    times = np.cumsum([1.0, *gaps])
    query = np.linspace(0.5, times[-1] + 0.5, 37)
    distance = np.abs(times[None] - query[:, None])
    found = distance[np.arange(len(query)), nearest(times, query)]
    np.testing.assert_allclose(found, distance.min(1), atol=1.1e-6)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_feeding_in_a_stream_equals_the_mapping_of_the_whole(gaps: list[float]) -> None:
    times = np.cumsum([1.0, *gaps])
    fed: list[int] = []
    cuts: list[int] = []

    def cut(row: int) -> dict:
        cuts.append(row)
        return {"row": row}

    feeder = GridFeeder(lambda crops: fed.append(crops["row"]))
    for row, time in enumerate(times):
        feeder.push(float(time), lambda row=row: cut(row))
    feeder.flush()
    grid = TimeGrid(times)
    assert len(fed) == len(grid)
    error = np.abs(times[fed] - grid.grid_s) - np.abs(times[grid.source_of_grid] - grid.grid_s)
    assert np.abs(error).max() <= 2.1e-6
    assert len(cuts) == len(set(cuts)), "a crop is cut at most once"


def test_values_map_onto_source_frames() -> None:
    grid = TimeGrid(np.arange(6) / 50)
    np.testing.assert_array_equal(grid.to_source(np.arange(len(grid))), [0, 0, 1, 1, 2, 2])
    with pytest.raises(ValueError, match="grid"):
        grid.to_source(np.zeros(99))
