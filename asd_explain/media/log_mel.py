"""Log-mel spectrogram of LoCoNet's VGGish (Hershey et al., arXiv 1609.09430), computed in torch.

Windows of 25 ms every 10 ms at 25 frames a second (both scale with 25/fps) under a periodic Hann window; magnitudes of
an FFT of the next power of two; 64 triangles between 125 and 7500 Hz, equally spaced and straight in mel,
1127 ln(1 + f/700); then ln(x + 0.01). LoCoNet's loader hands 16-bit integers over as they are, so the magnitudes are
in 16-bit units: silence is ln 0.01 = -4.6, speech about 10.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from asd_explain.grid import GRID_FPS
from asd_explain.media.audio import RATE, Audio
from asd_explain.media.mfcc import STEPS_PER_FRAME, signal_of

BINS = 64
LOW_HZ, HIGH_HZ = 125.0, 7500.0
LOG_OFFSET = 0.01
_INT16 = 32768.0
#: Windows computed at a time; bounds memory on long clips.
_BATCH = 4096


def log_mel(waveform: torch.Tensor | np.ndarray, fps: float = GRID_FPS) -> torch.Tensor:
    """Log-mel spectrogram of a whole signal.

    Args:
        waveform: (n,) float in [-1, 1], 16 kHz mono (scaled to 16-bit units here).
        fps: video frames a second.

    Returns:
        (steps, 64) float32; only windows that lie within the signal, but at least one, filled up with silence.

    Raises:
        ValueError: the waveform is not one-dimensional.
    """
    length, step = (round(seconds * 25.0 / fps * RATE) for seconds in (0.025, 0.010))
    signal = signal_of(waveform)
    signal = torch.nn.functional.pad(signal, (0, max(0, length - len(signal))))
    return _features(signal, length, step)


def aligned_log_mel(audio: Audio | None, start_s: float, n_frames: int) -> torch.Tensor:
    """Log-mel on the 25-fps grid: exactly four steps a frame; frame i begins at ``start_s + i / 25``.

    A piece computed on its own equals the same rows of the whole. Where there is no sound the features are silence's;
    the published loader repeats the beginning of the sound there.

    Args:
        audio: the clip's sound, or None: silence throughout.
        start_s: time of grid frame 0 in seconds, container clock.
        n_frames: grid frames.

    Returns:
        (4 * n_frames, 64) float32.
    """
    length, step = round(0.025 * RATE), round(0.010 * RATE)
    steps = STEPS_PER_FRAME * n_frames
    if audio is None or steps == 0:
        return torch.full((steps, BINS), math.log(LOG_OFFSET))
    origin, pieces = audio.index_of(start_s), []
    for first in range(0, steps, _BATCH):
        n = min(_BATCH, steps - first)
        samples = audio.take(origin + first * step, (n - 1) * step + length)
        pieces.append(_features(torch.from_numpy(samples).double(), length, step))
    return torch.cat(pieces)


def _features(signal: torch.Tensor, length: int, step: int) -> torch.Tensor:
    """(steps, 64) float32 of all whole windows of a signal (n,) float64 in [-1, 1]."""
    windows = (signal * _INT16).unfold(0, length, step)
    points = 2 ** math.ceil(math.log2(length))
    hann, bank = torch.hann_window(length, dtype=torch.float64), _bank(points)
    parts = [
        torch.log(torch.fft.rfft(some * hann, n=points).abs()[:, :-1] @ bank + LOG_OFFSET).float()
        for some in windows.split(_BATCH)
    ]
    return torch.cat(parts)


@lru_cache(maxsize=4)
def _bank(points: int) -> torch.Tensor:
    """(points / 2, 64) float64 triangles over FFT bins (without the last one, 8 kHz).

    ``torchaudio.compliance.kaldi.get_mel_banks`` has the same triangles in float32; in 16-bit units its rounding shows
    where a bin lies on a triangle's foot.
    """
    mel = 1127.0 * np.log1p(np.arange(points // 2) * (RATE / points) / 700.0)[:, None]
    low, high = (1127.0 * math.log1p(hz / 700.0) for hz in (LOW_HZ, HIGH_HZ))
    edges = np.linspace(low, high, BINS + 2)
    rising = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    return torch.from_numpy(np.maximum(0.0, np.minimum(rising, falling)))
