"""Log-mel spectrogram against a brute force, and its alignment to the 25-fps grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.compliance.kaldi import get_mel_banks

from asd_explain.media import Audio
from asd_explain.media.features import AUDIO_FEATURES
from asd_explain.media.log_mel import _bank, aligned_log_mel, log_mel


def noise(n: int, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(n)).clip(-1, 1).astype(np.float32)


def brute_force(x: np.ndarray, fps: float) -> np.ndarray:
    """The same, one window, one bin and one triangle at a time."""
    length, step = round(0.025 * 25 / fps * 16000), round(0.01 * 25 / fps * 16000)
    x = np.concatenate([x.astype(np.float64) * 32768, np.zeros(max(0, length - len(x)))])
    points = 1
    while points < length:
        points *= 2

    def mel(hz: float) -> float:
        return 1127 * math.log(1 + hz / 700)

    edges = np.linspace(mel(125), mel(7500), 66)
    rows = []
    for first in range(0, len(x) - length + 1, step):
        window = [v * (0.5 - 0.5 * math.cos(2 * math.pi * k / length)) for k, v in enumerate(x[first : first + length])]
        magnitude = np.abs(np.fft.fft(np.pad(window, (0, points - length))))
        row = []
        for low, mid, high in zip(edges, edges[1:], edges[2:], strict=False):
            total = 0.0
            for k in range(1, points // 2 + 1):
                m = mel(k * 16000 / points)
                total += magnitude[k] * max(0.0, min((m - low) / (mid - low), (high - m) / (high - mid)))
            row.append(math.log(total + 0.01))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(("fps", "n"), [(25.0, 1), (25.0, 399), (25.0, 400), (25.0, 1300), (10.0, 2500), (60.0, 700)])
def test_equals_brute_force(fps: float, n: int) -> None:
    expected = brute_force(noise(n), fps)
    ours = log_mel(noise(n), fps).numpy()
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, atol=2e-4)


@pytest.mark.parametrize("points", [256, 512, 1024])
def test_triangles_are_torchaudios(points: int) -> None:
    bank, _ = get_mel_banks(64, points, 16000.0, 125.0, 7500.0, 100.0, -500.0, 1.0)
    torch.testing.assert_close(_bank(points).T, bank.double(), atol=1e-4, rtol=0)


def test_a_tone_is_loudest_in_its_own_band() -> None:
    t = np.arange(4000) / 16000
    edges = np.linspace(1127 * np.log1p(125 / 700), 1127 * np.log1p(7500 / 700), 66)
    for hz in (440.0, 1000.0, 4000.0):
        loudest = int(log_mel(0.3 * np.sin(2 * np.pi * hz * t)).mean(0).argmax())
        assert edges[loudest] <= 1127 * np.log1p(hz / 700) <= edges[loudest + 2]


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 20), frames=st.integers(1, 12), shift_s=st.sampled_from([0.0, 0.4, 3.7]))
def test_a_piece_equals_the_rows_of_the_whole(start: int, frames: int, shift_s: float) -> None:
    audio = Audio(noise(16000), shift_s)
    whole = aligned_log_mel(audio, shift_s, 40)
    piece = aligned_log_mel(audio, shift_s + start / 25, frames)
    assert piece.shape == (4 * frames, 64)
    torch.testing.assert_close(piece, whole[4 * start : 4 * (start + frames)])


def test_silence_and_no_frames() -> None:
    silent = aligned_log_mel(None, 0.0, 3)
    torch.testing.assert_close(silent, aligned_log_mel(Audio(np.zeros(8000, np.float32), 0.0), 0.0, 3))
    assert silent[0, 0].item() == pytest.approx(math.log(0.01))
    for feature, width in AUDIO_FEATURES.values():
        assert feature(None, 0.0, 0).shape == (0, width)
        assert feature(None, 0.0, 2).shape == (8, width)
    with pytest.raises(ValueError, match=r"\(n,\)"):
        log_mel(np.zeros((2, 9), np.float32))
