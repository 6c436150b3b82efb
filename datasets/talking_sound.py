"""The sound of a drawn scene: its voices in a room, before noise, babble or music, a little early or late."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from scipy.signal import fftconvolve, lfilter, resample_poly

from asd_explain.datasets.speech_synth import Voice, synthesise
from asd_explain.datasets.talking_draws import VOICES, Treatment, lines_of_words
from asd_explain.datasets.talking_photos import AUDIO_HZ, VoiceTrack, mix
from asd_explain.datasets.talking_scene import Scene
from asd_explain.media.audio import RATE


def scene_sound(scene: Scene, treatment: Treatment, voices: list[VoiceTrack]) -> np.ndarray:
    """(n,) float32 at ``RATE``: the scene's sound after its treatment."""
    rng = np.random.default_rng((scene.seed, 24))
    total, _ = mix(scene, voices)
    ratio = Fraction(RATE, AUDIO_HZ)
    sound = resample_poly(total, ratio.numerator, ratio.denominator)
    count = round(scene.duration_s * RATE)
    sound = np.pad(sound[:count], (0, max(0, count - len(sound))))
    if treatment.reverb_s > 0:
        tail = np.arange(int(treatment.reverb_s * RATE)) / RATE
        response = rng.standard_normal(len(tail)) * 10 ** (-3 * tail / treatment.reverb_s)
        response *= rng.uniform(0.15, 0.5) / np.sqrt(np.sum(response**2))
        response[0] += 1.0
        sound = fftconvolve(sound, response)[:count]
    if treatment.background != "none":
        loud = np.abs(sound) > 0.01
        level = np.sqrt(np.mean(sound[loud] ** 2)) if loud.any() else 0.05
        behind = _background(rng, treatment.background, count)
        behind *= level * 10 ** (-treatment.snr_db / 20) / (np.sqrt(np.mean(behind**2)) + 1e-9)
        sound = sound + behind
    shift = round(treatment.late_s * RATE)
    sound = np.pad(sound, (max(shift, 0), max(-shift, 0)))[max(-shift, 0) :][:count]
    sound = sound * np.exp(rng.uniform(-1.2, 0.5))
    return (sound * min(1.0, 0.98 / max(float(np.abs(sound).max()), 1e-6))).astype(np.float32)


def _background(rng: np.random.Generator, kind: str, count: int) -> np.ndarray:
    """(count,) noise of some colour, several voices at once, or chords."""
    if kind == "noise":
        return lfilter([1.0], [1.0, -float(rng.uniform(0.3, 0.98))], rng.standard_normal(count))
    if kind == "babble":
        jobs = []
        for name in rng.choice(VOICES["fit"], 4, replace=False):
            voice = Voice(f"en-us+{name}", int(rng.integers(140, 200)), int(rng.integers(20, 80)))
            jobs.append((lines_of_words(rng, 1)[0], voice))
        total = np.zeros(count)
        for said in synthesise(jobs):
            wave = resample_poly(said.waveform, *Fraction(RATE, said.rate_hz).as_integer_ratio())
            total += np.roll(np.resize(wave, count), int(rng.integers(count)))
        return total
    times = np.arange(count) / RATE
    total = np.zeros(count)
    beat_s = float(rng.uniform(0.25, 0.7))
    for start in np.arange(0, count / RATE, beat_s):
        note = 110 * 2 ** (rng.integers(0, 30) / 12)
        decay = np.where(times >= start, np.exp(-(times - start) / 0.4), 0.0)
        total += decay * sum(np.sin(2 * np.pi * note * k * times) / k for k in (1, 2, 3))
    return total
