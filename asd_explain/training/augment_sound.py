"""Disturbed sound: noise, music, other microphones, lines and rooms.

All sounds are 16 kHz mono float32. Nothing here moves the sound in time: a room's first path takes no time, and the
filters are of minimum phase. Disturbances are made up on the spot and hold no speech.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torchaudio.functional as audio
from scipy.fft import irfft, next_fast_len, rfft

from asd_explain.errors import OptionError
from asd_explain.media.audio import RATE
from asd_explain.training._tables import FromTable

COLOURS = ("white", "pink", "brown", "household")
#: RMS of what :func:`noise` and :func:`music_like` give.
LEVEL = 0.1
_PROBABILITIES = ("noise", "music", "gain", "band", "room")
# Power falls as f ** -exponent above the corner, below which it is even.
_EXPONENTS = {"white": 0.0, "pink": 1.0, "brown": 2.0}
_CORNER_HZ = 30.0


@dataclass(frozen=True)
class SoundAugment(FromTable):
    """How often, and how much, sound is disturbed.

    Attributes:
        noise: P(noise of one of ``COLOURS`` is added).
        snr_db: range of its signal-to-noise ratio, dB.
        music: P(music is added).
        music_snr_db: range of the ratio of signal to music, dB.
        gain: P(the sound is made louder or softer).
        gain_db: range of that, dB. What then exceeds full scale is clipped, as a recorder does.
        band: P(a telephone's band, or a low-pass).
        room: P(a short reverberation).

    Raises:
        OptionError: for a value that cannot be used.
    """

    _table = "sound"

    noise: float = 0.3
    snr_db: tuple[float, float] = (0.0, 25.0)
    music: float = 0.15
    music_snr_db: tuple[float, float] = (0.0, 20.0)
    gain: float = 1.0
    gain_db: tuple[float, float] = (-12.0, 6.0)
    band: float = 0.1
    room: float = 0.1

    def __post_init__(self) -> None:
        self._check_number(_PROBABILITIES, 0, 1)
        for name in ("snr_db", "music_snr_db", "gain_db"):
            self._check_range(name, -60, 60)

    @classmethod
    def off(cls) -> SoundAugment:
        """Nothing is disturbed: :func:`augment_sound` gives the sound back."""
        return cls(**dict.fromkeys(_PROBABILITIES, 0.0))


def augment_sound(waveform: np.ndarray, rng: np.random.Generator, config: SoundAugment) -> np.ndarray:
    """A disturbed copy of a sound. Ratios refer to the energies over all of it, after the room.

    Args:
        waveform: (n,) float32 in [-1, 1], 16 kHz.
        rng: the only source of chance.
        config: how often and how much.

    Returns:
        (n,) float32 in [-1, 1]. Digital silence stays what it is.

    Raises:
        OptionError: the waveform has another shape or type, no samples, or values that are not finite or far outside
            [-1, 1].
    """
    sound = _checked(waveform, "waveform").copy()
    if np.abs(sound).max() > 2:
        raise OptionError("waveform goes far beyond [-1, 1]; divide 16-bit samples by 32768")
    n = len(sound)
    if rng.random() < config.room:
        sound = _in_a_room(sound, rng)
    if rng.random() < config.noise:
        sound = mix(sound, noise(n, rng, str(rng.choice(COLOURS))), rng.uniform(*config.snr_db))
    if rng.random() < config.music:
        sound = mix(sound, music_like(n, rng), rng.uniform(*config.music_snr_db))
    if rng.random() < config.band:
        sound = _through_a_band(sound, rng)
    if rng.random() < config.gain:
        sound = sound * np.float32(10 ** (rng.uniform(*config.gain_db) / 20))
    return np.clip(sound, -1, 1, out=sound)


def mix(signal: np.ndarray, disturbance: np.ndarray, snr_db: float) -> np.ndarray:
    """``signal`` with ``disturbance`` scaled so that their energies over all samples are ``snr_db`` apart.

    Args:
        signal: (n,) float32.
        disturbance: (n,) float32.
        snr_db: 10 log10 of the signal's energy over the disturbance's; finite.

    Returns:
        (n,) float32, not clipped. Where either is digital silence there is no such ratio: the signal as it is.

    Raises:
        OptionError: shapes or types differ from the above, or a value is not finite.
    """
    signal, disturbance = _checked(signal, "signal"), _checked(disturbance, "disturbance")
    if len(signal) != len(disturbance):
        raise OptionError(f"signal has {len(signal)} samples, disturbance {len(disturbance)}; make them equally long")
    if not np.isfinite(snr_db):
        raise OptionError(f"snr_db is {snr_db}; give a finite number of dB")
    if not signal.any() or not disturbance.any():
        return signal.copy()
    # In float64, as the energies of faint sounds are below float32's least number.
    pair = [torch.from_numpy(a.astype(np.float64)) for a in (signal, disturbance)]
    return audio.add_noise(*pair, torch.tensor(float(snr_db), dtype=torch.float64)).numpy().astype(np.float32)


def noise(n: int, rng: np.random.Generator, colour: str) -> np.ndarray:
    """Noise without any speech in it.

    Args:
        n: samples, at least one.
        rng: the only source of chance.
        colour: one of ``COLOURS``: power even, or falling as 1/f or 1/f^2 above 30 Hz; "household" is coloured noise
            that swells and fades, with mains hum and now and then a knock.

    Returns:
        (n,) float32 of RMS 0.1.

    Raises:
        OptionError: no such colour, or no samples.
    """
    _check_length(n)
    if colour in _EXPONENTS:
        return _levelled(_coloured(n, rng, _EXPONENTS[colour]))
    if colour != "household":
        raise OptionError(f"no noise called {colour!r}; choose from {', '.join(COLOURS)}")
    seconds = np.arange(n, dtype=np.float32) / np.float32(RATE)
    sound = _levelled(_coloured(n, rng, rng.uniform(0.3, 2.0)))
    # Swelling: control points a fraction of a second apart, joined by lines, in dB.
    step_s = rng.uniform(0.1, 0.8)
    points = rng.standard_normal(int(n / RATE / step_s) + 2) * rng.uniform(1.0, 6.0)
    sound *= 10 ** (np.interp(seconds, np.arange(len(points)) * step_s, points) / 20).astype(np.float32)
    if rng.random() < 0.6:
        mains = rng.choice((50.0, 60.0)) * rng.uniform(0.995, 1.005)
        partials = rng.uniform(0, 1, 6) / np.arange(1, 7)
        sound += _tone(n, mains, partials) * np.float32(LEVEL * rng.uniform(0.1, 1.0))
    for _ in range(rng.poisson(0.6 * n / RATE)):
        start, length = int(rng.integers(n)), int(RATE * rng.uniform(0.03, 0.25))
        fall = np.exp(-6 * np.arange(length, dtype=np.float32) / length)
        knock = _coloured(length, rng, rng.uniform(0.0, 1.5)) * fall
        part = sound[start : start + length]
        part += knock[: len(part)] * np.float32(LEVEL * rng.uniform(0.4, 2.0) / _rms(knock))
    return _levelled(sound)


def music_like(n: int, rng: np.random.Generator) -> np.ndarray:
    """Chord progressions of decaying harmonics, with a bass and a beat.

    Args:
        n: samples, at least one.
        rng: the only source of chance.

    Returns:
        (n,) float32 of RMS 0.1.

    Raises:
        OptionError: no samples.
    """
    _check_length(n)
    beat_s = 60 / rng.uniform(70, 150)
    key_hz = 110 * 2 ** (rng.integers(12) / 12)
    minor = rng.random() < 0.4
    scale = (0, 2, 3, 5, 7, 8, 10) if minor else (0, 2, 4, 5, 7, 9, 11)
    roots = rng.choice(((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 4), (5, 3, 0, 4), (0, 6, 5, 4)))
    beats_a_chord = int(rng.choice((2, 4)))
    broken, drums, bass = rng.random() < 0.5, rng.uniform(0, 1.0), rng.uniform(0, 0.8)
    partials = rng.uniform(0.2, 1, 7) * np.arange(1, 8) ** -rng.uniform(0.8, 2.0)
    ring_s, rise_s = rng.uniform(0.2, 1.2), rng.uniform(0.002, 0.05)
    # What is heard begins somewhere within the first chord.
    lead = int(RATE * beat_s * rng.uniform(0.01, beats_a_chord))
    total, longest = lead + n, int(RATE * 3 * ring_s)
    clock = np.arange(longest, dtype=np.float32) / np.float32(RATE)
    # Attack and decay; the upper partials die away twice as fast.
    ends = np.minimum(clock / rise_s, 1) * np.minimum((clock[-1] - clock) / 0.05, 1)
    body, bright = (np.exp(-clock * f / ring_s) * ends for f in (1, 2))
    low, high = partials * (np.arange(7) < 2), partials * (np.arange(7) >= 2)
    sound = np.zeros(total, np.float32)
    strings: dict[float, np.ndarray] = {}

    def strike(at_s: float, hz: float, loud: float) -> None:
        start = round(at_s * RATE)
        if start >= total:
            return
        if hz not in strings:
            strings[hz] = _tone(longest, hz, low) * body + _tone(longest, hz, high) * bright
        part = sound[start : start + longest]
        part += strings[hz][: len(part)] * np.float32(loud)

    kick, hat = _drums(rng)
    first_chord = int(rng.integers(4))
    for beat in range(int(np.ceil(total / RATE / beat_s))):
        at_s = beat * beat_s
        root = roots[(first_chord + beat // beats_a_chord) % 4]
        notes = [scale[(root + k) % 7] + 12 * ((root + k) // 7) for k in (0, 2, 4)]
        pitches = [float(key_hz * 2 ** (1 + note / 12)) for note in notes]
        if beat % beats_a_chord == 0 or broken:
            for k, hz in enumerate(pitches):
                strike(at_s + (k * beat_s / 3 if broken else 0), hz, rng.uniform(0.6, 1.0))
        strike(at_s, pitches[0] / 4, bass)
        for drum, when_s, loud in ((kick, at_s, 1.0), (hat, at_s + beat_s / 2, 0.3)):
            start = round(when_s * RATE)
            part = sound[start : start + len(drum)]
            part += drum[: len(part)] * np.float32(drums * loud)
    sound = sound[lead:]
    if not sound.any():  # a few samples between two beats
        sound = _tone(n + 1, key_hz, partials)[1:]
    return _levelled(sound)


def near_silence(n: int, rng: np.random.Generator) -> np.ndarray:
    """What a microphone gives where there is nothing to hear.

    Args:
        n: samples, at least one.
        rng: the only source of chance.

    Returns:
        (n,) float32: digital silence in two of five cases, else white or pink noise whose RMS is uniform in -80 to
        -50 dB of full scale.

    Raises:
        OptionError: no samples.
    """
    _check_length(n)
    if rng.random() < 0.4:
        return np.zeros(n, np.float32)
    level = 10 ** (rng.uniform(-80, -50) / 20)
    return noise(n, rng, str(rng.choice(("white", "pink")))) * np.float32(level / LEVEL)


def _checked(sound: np.ndarray, name: str) -> np.ndarray:
    sound = np.asarray(sound)
    if sound.dtype != np.float32 or sound.ndim != 1 or len(sound) == 0:
        raise OptionError(f"{name} must be (n,) float32 with at least one sample, not {sound.shape} {sound.dtype}")
    if not np.isfinite(sound).all():
        raise OptionError(f"{name} has samples that are not finite; repair or leave out that sound")
    return sound


def _check_length(n: int) -> None:
    if n < 1:
        raise OptionError(f"{n} samples of sound make no sound; ask for at least one")


def _rms(sound: np.ndarray) -> float:
    return max(float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))), 1e-12)


def _levelled(sound: np.ndarray) -> np.ndarray:
    """The sound at RMS ``LEVEL``."""
    return (sound * np.float32(LEVEL / _rms(sound))).astype(np.float32, copy=False)


def _coloured(n: int, rng: np.random.Generator, exponent: float) -> np.ndarray:
    """(n,) float32 noise whose power falls as f ** -exponent above the corner."""
    white = rng.standard_normal(n, dtype=np.float32)
    if exponent == 0:
        return white
    size = next_fast_len(n, real=True)
    hz = np.arange(size // 2 + 1, dtype=np.float32) * np.float32(RATE / size)
    return irfft(rfft(white, size) * np.maximum(hz, _CORNER_HZ) ** np.float32(-exponent / 2), size)[:n]


def _tone(n: int, hz: float, partials: np.ndarray) -> np.ndarray:
    """(n,) float32 of a pitch with partials of the given amplitudes (those above 7.5 kHz left out), by table."""
    places = 2048
    orders = np.arange(1, len(partials) + 1)
    heard = np.where(orders * hz < 7500, partials, 0)
    table = (heard @ np.sin(2 * np.pi * orders[:, None] * np.arange(places) / places)).astype(np.float32)
    # The phase as a 32-bit fraction of a turn, which wraps by itself; its upper 11 bits are the place in the table.
    turn = np.uint32(round(hz / RATE * 2**32) % 2**32)
    return table[(np.arange(n, dtype=np.uint32) * turn) >> np.uint32(21)]


def _drums(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A kick, whose pitch falls, and a hi-hat."""
    clock = np.arange(int(0.2 * RATE), dtype=np.float32) / np.float32(RATE)
    kick = np.sin(2 * np.pi * (50 * clock + 3 * (1 - np.exp(-clock * 40)))) * np.exp(-clock * 18)
    clock = clock[: int(0.06 * RATE)]
    hiss = np.diff(rng.standard_normal(len(clock) + 1, dtype=np.float32))
    return kick.astype(np.float32), (hiss * np.exp(-clock * 70)).astype(np.float32)


def _in_a_room(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sound with a tail of noise that falls by 60 dB in 0.1 to 0.5 s; loudness is kept."""
    if not sound.any():
        return sound
    fall_s, direct_db = rng.uniform(0.1, 0.5), rng.uniform(0, 12)
    length = int(fall_s * RATE)
    tail = rng.standard_normal(length) * np.exp(-np.log(1000) * np.arange(length) / length)
    tail[: int(rng.uniform(0.001, 0.008) * RATE)] = 0
    for _ in range(rng.integers(2, 7)):
        at = int(rng.integers(16, int(0.05 * RATE)))
        tail[at] += rng.choice((-1, 1)) * rng.uniform(2, 8)
    response = tail * (10 ** (-direct_db / 20) / np.linalg.norm(tail))
    response[0] = 1.0
    n = len(sound)
    padded = np.pad(sound, (0, next_fast_len(n + length - 1, real=True) - (n + length - 1)))
    signals = [torch.from_numpy(a.astype(np.float32)) for a in (padded, response)]
    wet = audio.fftconvolve(*signals)[:n].numpy()
    return (wet * np.float32(_rms(sound) / _rms(wet))).astype(np.float32)


def _through_a_band(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A telephone's 300 to 3400 Hz, or a low-pass of fourth order at 1.2 to 6 kHz."""
    signal = torch.from_numpy(sound)
    if rng.random() < 0.5:
        signal = audio.highpass_biquad(signal, RATE, rng.uniform(250, 400))
        cut = rng.uniform(3000, 3600)
    else:
        cut = np.exp(rng.uniform(np.log(1200), np.log(6000)))
    # The two quality factors of a Butterworth filter of fourth order.
    for q in (0.5412, 1.3066):
        signal = audio.lowpass_biquad(signal, RATE, cut, q)
    return signal.numpy()
