"""Orders, baselines and ROAD's imputation against dense and hand-made references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.errors import OptionError
from asd_explain.evaluate.masking import ROAD_NOISE, baseline, linear_fill, order, road_impute


def test_the_largest_goes_first() -> None:
    heat = np.array([[[0.1, 3.0], [2.0, 1.0]], [[4.0, 0.0], [1.0, 2.0]]], np.float32)
    assert order(heat, "frame").tolist() == [[[0.75, 0.0], [0.25, 0.5]], [[0.0, 0.75], [0.5, 0.25]]]
    # Means over time: 2.05, 1.5, 1.25 and 1.3.
    heat[1, 1], heat[1, 0, 1], heat[0, 1] = [0.5, 1.5], 0.0, [2.0, 1.1]
    assert order(heat, "tube").tolist() == [[[0.0, 0.25], [0.75, 0.5]]] * 2
    assert order(heat, "tube").dtype == np.float32


def test_unknown_moves_and_baselines_are_named() -> None:
    with pytest.raises(OptionError, match="frame, tube"):
        order(np.zeros((1, 2, 2)), "clip")
    with pytest.raises(OptionError, match="blur, mean"):
        baseline(np.zeros((1, 8, 8), np.uint8), "black")


def test_a_constant_map_is_one_random_order() -> None:
    ranks = order(np.zeros((3, 40, 40)), "frame")
    assert (ranks == ranks[:1]).all()  # no flicker
    assert (ranks == order(np.full((3, 40, 40), 7.0), "tube")).all()  # the same for every map
    assert np.sort(ranks[0].ravel()).tolist() == (np.arange(1600, dtype=np.float64) / 1600).astype(np.float32).tolist()
    first = ranks[0] < 0.5
    assert abs(first[:20].mean() - 0.5) < 0.06  # no raster scan, from no side
    assert abs(first[:, :20].mean() - 0.5) < 0.06


def test_what_is_not_finite_comes_last() -> None:
    heat = np.array([[[-5.0, np.nan], [np.inf, 1.0]], [[-5.0, 3.0], [-np.inf, np.nan]]])
    frame = order(heat, "frame")
    assert frame[0, 0, 0] == 0.25
    assert frame[0, 1, 1] == 0.0
    assert frame[1, 0].tolist() == [0.25, 0.0]
    # Over time what is finite counts: -5, 3, nothing, 1.
    assert order(heat, "tube")[0].tolist() == [[0.5, 0.0], [0.75, 0.25]]
    assert np.isfinite(order(np.full((2, 4, 4), np.nan), "tube")).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(1, 3), levels=st.integers(1, 40))
def test_only_the_order_of_the_heat_counts(seed: int, length: int, levels: int) -> None:
    # Whole numbers, so that equal stays equal and different stays different under the transforms.
    heat = np.random.default_rng(seed).integers(0, levels, (length, 5, 6)).astype(np.float64)
    ranks = order(heat, "frame")
    assert (ranks == order(heat**3 + 2, "frame")).all()
    assert (order(heat, "tube") == order(8 * heat - 1024, "tube")).all()
    for h, r in zip(heat, ranks, strict=True):
        assert (np.diff(h.ravel()[np.argsort(r.ravel())]) <= 0).all()
        assert sorted(np.rint(30 * r.ravel())) == list(range(30))


def test_baselines() -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (3, 112, 112), np.uint8)
    crops[1] //= 2
    mean = baseline(crops, "mean")
    assert mean.shape == crops.shape
    assert mean.dtype == np.uint8
    assert np.unique(mean).tolist() == [round(float(crops.mean()))]
    blur = baseline(crops, "blur")
    assert blur.dtype == np.uint8
    assert abs(blur[0].mean() - crops[0].mean()) < 2  # each frame by itself
    assert abs(blur[1].mean() - crops[1].mean()) < 2
    assert blur[0].std() < 0.1 * crops[0].std()
    line = np.zeros((1, 112, 112), np.uint8)
    line[:, :, 56] = 255
    # A Gaussian of 10 px at its middle: 255 / (10 sqrt(2 pi)) = 10.2.
    assert baseline(line, "blur")[0, 56, 56] == pytest.approx(10.2, abs=1)
    assert baseline(line, "blur")[0, 56, 76] == pytest.approx(10.2 * np.exp(-2), abs=1)


def _dense_fill(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The definition, pixel by pixel, in a dense system."""
    height, width = mask.shape
    a, b = np.eye(mask.size), picture.astype(np.float64).ravel().copy()
    for y, x in zip(*np.nonzero(mask), strict=True):
        i = y * width + x
        b[i] = 0
        around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
        inside = [(dy, dx) for dy, dx in around if 0 <= y + dy < height and 0 <= x + dx < width]
        weights = {(dy, dx): 1 / 6 if dy * dx == 0 else 1 / 12 for dy, dx in inside}
        for (dy, dx), weight in weights.items():
            a[i, (y + dy) * width + x + dx] = -weight / sum(weights.values())
    return np.linalg.solve(a, b).reshape(mask.shape)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 6),
    width=st.integers(2, 6),
    share=st.sampled_from([0.2, 0.6, 0.9]),
)
def test_filling_equals_the_dense_system(seed: int, height: int, width: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (2, height, width), np.uint8)
    mask = rng.random((height, width)) < share
    mask[0, 0] = False
    filled = linear_fill(pictures, mask)
    for picture, found in zip(pictures, filled, strict=True):
        np.testing.assert_allclose(found, _dense_fill(picture, mask), atol=1e-8)
    assert (filled[:, ~mask] == pictures[:, ~mask]).all()


def test_a_plane_goes_on_through_a_hole() -> None:
    y, x = np.mgrid[:30, :40]
    plane = np.stack([3 * y + 2 * x + 5, 200 - 4 * y]).astype(np.uint8)
    mask = np.zeros((30, 40), bool)
    mask[3:25, 7:30] = True
    mask[10:12, 10:20] = False
    np.testing.assert_allclose(linear_fill(plane, mask), plane, atol=1e-9)
    assert (road_impute(plane, mask, np.random.default_rng(0), noise=0) == plane).all()


def test_nothing_and_everything_removed() -> None:
    crops = np.stack([np.full((8, 9), 10), np.arange(72).reshape(8, 9)]).astype(np.uint8)
    everything = np.ones((8, 9), bool)
    filled = linear_fill(crops, everything)
    assert (filled[0] == 10).all()
    assert (filled[1] == 35.5).all()
    assert (road_impute(crops, ~everything, np.random.default_rng(0)) == crops).all()
    assert (crops[1].ravel() == np.arange(72)).all()  # not written into
    one_left = everything.copy()
    one_left[4, 4] = False
    np.testing.assert_allclose(linear_fill(crops, one_left)[1], crops[1, 4, 4])


def test_noise_is_small_the_same_in_all_frames_and_on_the_hole_only() -> None:
    crops = np.full((3, 112, 112), 120, np.uint8)
    mask = np.zeros((112, 112), bool)
    mask[20:90, 10:100] = True
    noisy = road_impute(crops, mask, np.random.default_rng(5)).astype(int) - 120
    assert noisy.dtype.kind == "i"
    assert (noisy == noisy[:1]).all()
    assert (noisy[:, ~mask] == 0).all()
    assert noisy[0, mask].std() == pytest.approx(ROAD_NOISE, rel=0.05)
    assert (road_impute(crops, mask, np.random.default_rng(5)).astype(int) - 120 == noisy).all()
    white = road_impute(np.full((1, 112, 112), 255, np.uint8), mask, np.random.default_rng(5))
    assert white.min() > 230  # cut off at 255, not turned over


def test_a_mask_for_each_frame() -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (3, 12, 10), np.uint8)
    masks = rng.random((3, 12, 10)) < 0.5
    found = road_impute(crops, masks, rng, noise=0)
    for crop, mask, filled in zip(crops, masks, found, strict=True):
        assert (filled == road_impute(crop[None], mask, rng, noise=0)[0]).all()
