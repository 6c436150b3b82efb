"""MFCC against the published implementation's numbers, and their alignment to the 25-fps grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.media import Audio, aligned_mfcc, mfcc

RATES = ["15", "23.976", "24", "25", "29.97", "30", "50", "60"]


def noise(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.2 * rng.standard_normal(n)).clip(-1, 1).astype(np.float32)


@pytest.mark.shared
@pytest.mark.parametrize("fps", RATES)
def test_equals_the_reference(shared_dir, fps):
    data = np.load(shared_dir / "reference" / "mfcc.npz")
    expected = data[f"mfcc_{fps}"]
    ours = mfcc(data["waveform"].astype(np.float32) / 32768, float(fps)).numpy()
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def brute_force(x: np.ndarray, fps: float) -> np.ndarray:
    """The same features, one window and one filter at a time."""
    x = x.astype(np.float64) * 32768
    y = np.concatenate([x[:1], x[1:] - 0.97 * x[:-1]])
    length, step = int(0.025 * 25 / fps * 16000 + 0.5), int(0.01 * 25 / fps * 16000 + 0.5)
    steps = 1 if len(y) <= length else 1 + int(np.ceil((len(y) - length) / step))
    y = np.concatenate([y, np.zeros(steps * step + length)])
    mel_edges = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 28)
    edges = [int(513 * 700 * (10 ** (m / 2595) - 1) / 16000) for m in mel_edges]
    rows = []
    for i in range(steps):
        power = np.abs(np.fft.rfft(y[i * step : i * step + length][:512], 512)) ** 2 / 512
        bands = []
        for low, mid, high in zip(edges, edges[1:], edges[2:], strict=False):
            weights = [(k - low) / (mid - low) for k in range(low, mid)] + [
                (high - k) / (high - mid) for k in range(mid, high)
            ]
            bands.append(np.dot(weights, power[low:high]))
        logs = np.log(np.where(np.array(bands) == 0, np.finfo(float).eps, bands))
        row = []
        for k in range(13):
            c = np.sqrt(2 / 26) * np.sum(logs * np.cos(np.pi * k * (np.arange(26) + 0.5) / 26))
            row.append(c * (1 + 11 * np.sin(np.pi * k / 22)))
        row[0] = np.log(power.sum() or np.finfo(float).eps)
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("fps", [10.0, 15.0, 25.0, 30.0, 60.0])
@pytest.mark.parametrize("n", [1, 399, 400, 401, 5000])
def test_equals_the_formulas_written_out(n, fps):
    x = noise(n)
    np.testing.assert_allclose(mfcc(x, fps).numpy(), brute_force(x, fps), rtol=1e-5, atol=1e-4)


def test_silence_is_finite():
    features = mfcc(np.zeros(4000, np.float32))
    assert torch.isfinite(features).all()
    assert features.dtype == torch.float32
    assert features.shape[1] == 13
    assert mfcc(torch.zeros(4000)).equal(features)
    with pytest.raises(ValueError, match="waveform"):
        mfcc(np.zeros((1, 4000), np.float32))


def test_aligned_equals_the_whole():
    audio = Audio(noise(16000), 0.3)
    whole = mfcc(audio.waveform)
    ours = aligned_mfcc(audio, 0.3, 24)
    assert ours.shape == (96, 13)
    assert ours.equal(whole[:96])


def test_exactly_four_steps_and_silence_where_there_is_no_sound():
    audio = Audio(noise(8000), 1.0)
    silence = aligned_mfcc(None, 0.0, 5)
    assert silence.shape == (20, 13)
    features = aligned_mfcc(audio, 0.0, 50)
    assert features.shape == (200, 13)
    assert features[:96].equal(aligned_mfcc(None, 0.0, 24))
    assert features[152:].equal(aligned_mfcc(None, 0.0, 12))
    assert not features[100:140, 1].eq(silence[0, 1]).any()
    assert aligned_mfcc(audio, 0.0, 0).shape == (0, 13)


@given(
    start=st.floats(0, 3, allow_nan=False),
    rate=st.sampled_from([24.0, 25.0, 30.0, 50.0, 30000 / 1001]),
    first=st.integers(0, 40),
    n=st.integers(1, 20),
)
@settings(max_examples=40, deadline=None)
def test_windows_equal_slices_of_the_whole(start, rate, first, n):
    audio = Audio(noise(24000), 0.0123)
    start = round(start * rate) / rate
    whole = aligned_mfcc(audio, start, 60)
    piece = aligned_mfcc(audio, start + first / 25, n)
    assert piece.equal(whole[4 * first : 4 * (first + n)])
