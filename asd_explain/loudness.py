"""Loudness of a clip's sound for the timeline."""

from __future__ import annotations

import numpy as np

from asd_explain.media.audio import Audio

FLOOR_DB = -60.0
HOP_S = 0.04


def loudness(audio: Audio, start_s: float, end_s: float, hop_s: float = HOP_S) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square of consecutive stretches, in decibels below the clip's loudest, mapped to [0, 1].

    Plain NumPy, piece by piece: importing librosa for this costs more than a second a run; a test compares the two.

    Args:
        audio: the sound.
        start_s, end_s: range in seconds, container clock.
        hop_s: length of a stretch in seconds.

    Returns:
        (times (m,) of the stretches' middles in seconds, level (m,): 0 = 60 dB or more below the loudest, 1 = loudest).
    """
    hop = round(hop_s * audio.rate)
    count = max(1, int(np.ceil((end_s - start_s) / hop_s)))
    rms = np.empty(count, np.float64)
    rows = 1000
    for first in range(0, count, rows):
        n = min(rows, count - first)
        samples = audio.slice(start_s + first * hop_s, n * hop).reshape(n, hop)
        rms[first : first + n] = np.sqrt(np.square(samples, dtype=np.float64).mean(1))
    loudest = rms.max()
    times = start_s + (np.arange(count) + 0.5) * hop_s
    if not loudest > 0:
        return times, np.zeros(count, np.float32)
    decibels = 20 * np.log10(np.maximum(rms / loudest, 1e-12))
    return times, np.clip(1 - decibels / FLOOR_DB, 0, 1).astype(np.float32)
