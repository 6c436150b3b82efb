"""Modality shares, smoothing and drawing geometry: laws and hand-computed answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.errors import OptionError
from asd_explain.explain.geometry import drawable_frames, drawing_scale, upsample
from asd_explain.explain.shares import KINDS, modality_shares
from asd_explain.explain.smooth import smooth_heat, smooth_in_time
from asd_explain.models.output import Output


def _output(audio: list[float], face: list[float], gate_a: float = 0.5, gate_f: float = 0.5) -> Output:
    values = {"audio": torch.tensor([[audio]]), "face": torch.tensor([[face]])}
    gates = {"audio": torch.full_like(values["audio"], gate_a), "face": torch.full_like(values["face"], gate_f)}
    fusion = torch.cat(list(gates.values()), -1)
    return Output(logits=torch.zeros(1, 1, 2), gates=gates, standardised=values, fusion=fusion)


def test_shares_by_hand() -> None:
    streams, shares = modality_shares(_output([1.0, -2.0], [3.0, 4.0, -2.0], 0.5, 0.25))
    # audio 0.5 * 3 = 1.5, face 0.25 * 9 = 2.25
    assert streams == ["audio", "face"]
    assert shares[0, 0].tolist() == pytest.approx([0.4, 0.6])
    _, published = modality_shares(_output([1.0], [3.0], 0.2, 0.6), "mean-gate")
    assert published[0, 0].tolist() == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("kind", KINDS)
def test_shares_sum_to_one_even_for_nothing(kind: str) -> None:
    for output in (_output([0.0], [0.0]), _output([0.0], [0.0], 0.0, 0.0), _output([1e-30], [1e30])):
        _, shares = modality_shares(output, kind)
        assert shares.sum().item() == pytest.approx(1.0)
        assert (shares >= 0).all()


def test_unknown_kind_of_shares_is_refused() -> None:
    with pytest.raises(OptionError, match="votes"):
        modality_shares(_output([1.0], [1.0]), "votes")


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 60),
    seconds=st.floats(0, 5),
    fps=st.sampled_from([10.0, 25.0, 60.0]),
    value=st.floats(0, 100),
)
def test_a_constant_stays_the_same_constant(length: int, seconds: float, fps: float, value: float) -> None:
    smoothed = smooth_in_time(np.full((length, 2), value, np.float32), seconds, fps)
    np.testing.assert_allclose(smoothed, value, rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(2, 50), seconds=st.floats(0.01, 2), seed=st.integers(0, 99))
def test_smoothing_stays_within_the_range_and_is_symmetric_in_time(length: int, seconds: float, seed: int) -> None:
    values = np.random.default_rng(seed).random((length, 3)).astype(np.float32)
    smoothed = smooth_in_time(values, seconds)
    assert smoothed.min() >= values.min() - 1e-6
    assert smoothed.max() <= values.max() + 1e-6
    np.testing.assert_allclose(smooth_in_time(values[::-1], seconds)[::-1], smoothed, atol=1e-5)


def test_gaussian_weights_by_brute_force() -> None:
    values = np.random.default_rng(0).random((40, 1)).astype(np.float32)
    sigma = 0.1 * 25
    reach = int(np.ceil(3 * sigma))
    for i in (0, 5, 20, 39):
        j = np.arange(max(0, i - reach), min(40, i + reach + 1))
        w = np.exp(-0.5 * ((j - i) / sigma) ** 2)
        assert smooth_in_time(values, 0.1)[i, 0] == pytest.approx((w * values[j, 0]).sum() / w.sum(), rel=1e-5)


def test_frames_that_are_not_finite_do_not_spread() -> None:
    values = np.ones((9, 2, 2), np.float32)
    values[4] = np.nan
    smoothed = smooth_heat(values, 0.1)
    assert np.isnan(smoothed[4]).all()
    np.testing.assert_allclose(np.delete(smoothed, 4, axis=0), 1.0)


def test_zero_seconds_and_single_frames_are_left_alone() -> None:
    values = np.random.default_rng(0).random((5, 2, 2)).astype(np.float32)
    np.testing.assert_array_equal(smooth_heat(values, 0.0), values)
    np.testing.assert_array_equal(smooth_heat(values[:1], 1.0), values[:1])


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_a_cell_is_drawn_on_the_pixel_it_is_centred_on(interpolation: str) -> None:
    for cell in (1, 6, 12):
        heat = np.zeros((14, 14), np.float32)
        heat[cell, 13 - cell] = 1.0
        drawn = upsample(heat, 8.0, 0.0, interpolation=interpolation)
        assert np.unravel_index(drawn.argmax(), drawn.shape) == (8 * cell, 8 * (13 - cell))
        assert drawn.max() == pytest.approx(1.0, abs=1e-3)


def test_upsampling_never_leaves_the_range() -> None:
    heat = np.random.default_rng(0).random((14, 14)).astype(np.float32)
    drawn = upsample(heat, 8.0, 0.0)
    assert drawn.shape == (112, 112)
    assert drawn.min() >= heat.min()
    assert drawn.max() <= heat.max()


def test_a_linear_ramp_stays_where_it_is() -> None:
    ramp = np.tile(np.arange(14, dtype=np.float32), (14, 1))
    drawn = upsample(ramp, 8.0, 0.0, interpolation="bilinear")
    np.testing.assert_allclose(drawn[50, : 13 * 8 + 1], np.arange(13 * 8 + 1) / 8, atol=0.02)


def test_one_scale_a_track_and_nothing_for_empty_maps() -> None:
    heat = np.zeros((100, 2, 2), np.float32)
    heat[:, 0, 0] = np.arange(100)
    assert drawing_scale(heat) == pytest.approx(np.percentile(np.arange(1, 100), 99))
    assert drawing_scale(np.zeros((3, 2, 2))) == 0
    assert drawing_scale(np.full((3, 2, 2), np.nan)) == 0


def test_constant_empty_and_nan_maps_draw_nothing() -> None:
    heat = np.random.default_rng(0).random((4, 3, 3)).astype(np.float32)
    heat[1] = 0.7
    heat[2, 0, 0] = np.nan
    heat[3, 0, 0] = np.inf
    assert drawable_frames(heat).tolist() == [True, False, False, False]
    assert drawable_frames(1e-20 * heat).tolist() == [True, False, False, False], "gradients may be tiny"


def test_unknown_interpolation_is_refused() -> None:
    with pytest.raises(OptionError, match="lanczos"):
        upsample(np.zeros((2, 2)), 8, 0, interpolation="lanczos")
