"""MFCC of the TalkNet family, computed in torch.

The published networks were trained on ``python_speech_features`` 0.6 (J. Lyons) with ``numcep=13``,
``winlen=0.025*25/fps``, ``winstep=0.010*25/fps`` and its other defaults, over 16-bit integer samples. The formulas
below state what that computes: mel scale 2595 log10(1 + f/700) (O'Shaughnessy 1987), orthonormal DCT-II, sinusoidal
liftering (Juang et al. 1987), coefficient 0 replaced by the log of the window's energy. Two of its habits matter: the
FFT has 512 points whatever the window's length, so longer windows (below 19.53 fps) are cut off at 512 samples; and
pre-emphasis runs over the whole signal, not per window.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from asd_explain.grid import GRID_FPS
from asd_explain.media.audio import RATE, Audio

#: Audio steps for each video frame.
STEPS_PER_FRAME = 4
NUMCEP = 13
_NFFT = 512
_FILTERS = 26
_LIFTER = 22
_PREEMPHASIS = 0.97
_INT16 = 32768.0
_EPS = float(np.finfo(np.float64).eps)
#: Windows computed at a time; bounds memory on long clips.
_BATCH = 4096


def mfcc(waveform: torch.Tensor | np.ndarray, fps: float = GRID_FPS, numcep: int = NUMCEP) -> torch.Tensor:
    """MFCC of a whole signal as ``python_speech_features`` 0.6 gives them.

    Args:
        waveform: (n,) float in [-1, 1], 16 kHz mono (scaled to 16-bit units here, nowhere else).
        fps: video frames a second; window and step are 25 ms and 10 ms at 25 fps and scale with 25/fps.
        numcep: coefficients kept.

    Returns:
        (steps, numcep) float32; at least one step.
    """
    length, step = _half_up(0.025 * 25.0 / fps * RATE), _half_up(0.010 * 25.0 / fps * RATE)
    signal = signal_of(waveform) * _INT16
    emphasised = signal.clone()
    emphasised[1:] -= _PREEMPHASIS * signal[:-1]
    steps = 1 if len(signal) <= length else 1 + math.ceil((len(signal) - length) / step)
    return _features(emphasised, length, step, steps, numcep)


def signal_of(waveform: torch.Tensor | np.ndarray) -> torch.Tensor:
    """A waveform as (n,) float64 on the CPU, in its own units.

    Raises:
        ValueError: it is not one-dimensional.
    """
    signal = torch.as_tensor(np.asarray(waveform) if not torch.is_tensor(waveform) else waveform)
    if signal.ndim != 1:
        raise ValueError(f"waveform must be (n,), not {tuple(signal.shape)}")
    return signal.to("cpu", torch.float64)


def aligned_mfcc(audio: Audio | None, start_s: float, n_frames: int) -> torch.Tensor:
    """MFCC on the 25-fps grid: exactly four steps a frame; frame i begins at ``start_s + i / 25``.

    A piece computed on its own equals the same rows of the whole: the windows reach into the samples that follow, the
    pre-emphasis into the one before. Where there is no sound the features are those of digital silence.

    Args:
        audio: the clip's sound, or None: silence throughout.
        start_s: time of grid frame 0 in seconds, container clock.
        n_frames: grid frames.

    Returns:
        (4 * n_frames, 13) float32.
    """
    length, step = _half_up(0.025 * RATE), _half_up(0.010 * RATE)
    steps = STEPS_PER_FRAME * n_frames
    if steps == 0:
        return torch.zeros(0, NUMCEP)
    origin = 0 if audio is None else audio.index_of(start_s)
    pieces = []
    for first_step in range(0, steps, _BATCH):
        n = min(_BATCH, steps - first_step)
        emphasised = _emphasised(audio, origin + first_step * step, (n - 1) * step + length)
        pieces.append(_features(emphasised, length, step, n, NUMCEP))
    return torch.cat(pieces)


def _emphasised(audio: Audio | None, first: int, n: int) -> torch.Tensor:
    """(n,) float64 pre-emphasised samples from sample ``first`` on, in 16-bit units; zeros outside the sound."""
    if audio is None:
        return torch.zeros(n, dtype=torch.float64)
    samples = torch.from_numpy(audio.take(first - 1, n + 1)).to(torch.float64) * _INT16
    emphasised = samples[1:] - _PREEMPHASIS * samples[:-1]
    # Past the end the signal is padded after pre-emphasis, so nothing rings on there.
    emphasised[max(0, len(audio.waveform) - first) :] = 0.0
    return emphasised


def _half_up(value: float) -> int:
    """Round a positive number to the nearest integer, halves up, as the reference rounds window lengths."""
    return math.floor(value + 0.5)


def _features(emphasised: torch.Tensor, length: int, step: int, steps: int, numcep: int) -> torch.Tensor:
    """(steps, numcep) float32 from the pre-emphasised signal (n,) float64 in 16-bit units, zero-padded at its end."""
    need = (steps - 1) * step + length
    if len(emphasised) < need:
        emphasised = torch.nn.functional.pad(emphasised, (0, need - len(emphasised)))
    windows = emphasised.unfold(0, length, step)[:steps]
    bank, transform = _mel_bank(), _cepstrum(numcep)
    out = torch.empty(steps, numcep, dtype=torch.float32)
    for first in range(0, steps, _BATCH):
        # rfft with n=512 pads shorter windows and cuts longer ones off, which is the reference's behaviour.
        power = torch.fft.rfft(windows[first : first + _BATCH], n=_NFFT).abs().square() / _NFFT
        energy = power.sum(1)
        energy = torch.where(energy == 0, _EPS, energy)
        mel = power @ bank
        mel = torch.where(mel == 0, _EPS, mel)
        ceps = mel.log() @ transform
        ceps[:, 0] = energy.log()
        out[first : first + _BATCH] = ceps
    return out


@lru_cache(maxsize=1)
def _mel_bank() -> torch.Tensor:
    """(257, 26) float64: triangles between FFT bins that are equally spaced in mel from 0 Hz to 8 kHz."""
    top_mel = 2595.0 * math.log10(1.0 + RATE / 2 / 700.0)
    hz = 700.0 * (10.0 ** (np.linspace(0.0, top_mel, _FILTERS + 2) / 2595.0) - 1.0)
    edges = np.floor((_NFFT + 1) * hz / RATE)
    bins = np.arange(_NFFT // 2 + 1, dtype=np.float64)[:, None]
    low, mid, high = edges[:-2], edges[1:-1], edges[2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        rising = (bins - low) / (mid - low)
        falling = (high - bins) / (high - mid)
    bank = np.where((bins >= low) & (bins < mid), rising, 0.0)
    bank = np.where((bins >= mid) & (bins < high), falling, bank)
    return torch.from_numpy(bank)


@lru_cache(maxsize=4)
def _cepstrum(numcep: int) -> torch.Tensor:
    """(26, numcep) float64: orthonormal DCT-II followed by the lifter 1 + 11 sin(pi n / 22)."""
    n = np.arange(_FILTERS, dtype=np.float64)[:, None]
    k = np.arange(numcep, dtype=np.float64)[None]
    dct = np.sqrt(2.0 / _FILTERS) * np.cos(np.pi * k * (2 * n + 1) / (2 * _FILTERS))
    dct[:, 0] /= math.sqrt(2.0)
    lifter = 1.0 + _LIFTER / 2.0 * np.sin(np.pi * np.arange(numcep) / _LIFTER)
    return torch.from_numpy(dct * lifter)
