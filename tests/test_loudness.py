"""Loudness for the timeline, against librosa."""

from __future__ import annotations

import numpy as np
import pytest

from asd_explain.loudness import FLOOR_DB, loudness
from asd_explain.media.audio import Audio


def test_equals_librosas_rms_in_decibels() -> None:
    librosa = pytest.importorskip("librosa")
    generator = np.random.default_rng(0)
    envelope = np.repeat(generator.random(50) ** 3, 640)
    waveform = (generator.standard_normal(len(envelope)) * 0.2 * envelope).astype(np.float32)
    times, level = loudness(Audio(waveform, 2.0), 2.0, 4.0)
    rms = librosa.feature.rms(y=waveform, frame_length=640, hop_length=640, center=False)[0]
    decibels = librosa.amplitude_to_db(rms, ref=np.max, top_db=None, amin=1e-12)
    np.testing.assert_allclose(level, np.clip(1 - decibels / FLOOR_DB, 0, 1), atol=1e-3)
    assert times[0] == pytest.approx(2.02)
    assert len(times) == 50


def test_silence_and_stretches_without_sound_are_level_zero() -> None:
    _, level = loudness(Audio(np.zeros(1000, np.float32), 0.0), 0.0, 1.0)
    assert not level.any()
    tone = np.sin(np.arange(8000) / 5).astype(np.float32)
    _, level = loudness(Audio(tone, 1.0), 0.0, 3.0)
    assert not level[:24].any()
    assert level[26:36].min() > 0.9
    assert not level[39:].any()


def test_long_sound_is_taken_piece_by_piece() -> None:
    waveform = np.full(16000 * 50, 0.1, np.float32)
    _, level = loudness(Audio(waveform, 0.0), 0.0, 50.0)
    np.testing.assert_allclose(level, 1.0, atol=1e-6)
