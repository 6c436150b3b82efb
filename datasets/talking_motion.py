"""How a voice moves a face: mouth opening and lip shape from loudness and phonemes; head and eyelids over time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from asd_explain.datasets.speech_synth import Utterance
from asd_explain.datasets.talking_body import BodyMotion
from asd_explain.datasets.talking_face import Pose

CONTROL_HZ = 200.0
"""Rate of every control signal in this module: one value each 5 ms, value k at k / CONTROL_HZ seconds."""

# How far a phoneme opens the mouth at full voice (0..1) and how it shapes the lips (-1 spread .. 1 rounded), by the
# first letter of espeak-ng's mnemonic once the stress marks are gone. Other letters count as _OTHER.
_SHAPES: dict[str, tuple[float, float]] = {
    **dict.fromkeys("aA", (1.0, 0.0)),
    **{"V": (0.85, 0.0), "0": (0.9, 0.3), "O": (0.85, 0.55), "o": (0.65, 0.8), "3": (0.6, 0.2), "@": (0.55, 0.0)},
    **{"E": (0.75, -0.4), "e": (0.65, -0.5), "I": (0.5, -0.5), "i": (0.42, -0.8), "U": (0.42, 0.8), "u": (0.35, 1.0)},
    **{"y": (0.35, 0.9), "W": (0.6, 0.5), "Y": (0.5, 0.8)},
    **dict.fromkeys("mbp", (0.0, 0.0)),
    **dict.fromkeys("fv", (0.1, -0.1)),
    **dict.fromkeys("SZ", (0.3, 0.6)),
    **dict.fromkeys("szTDtdnl", (0.32, -0.2)),
    **{"w": (0.2, 1.0), "r": (0.38, 0.4), "j": (0.35, -0.5)},
    **dict.fromkeys("kgNhxRQ", (0.42, 0.0)),
    "_": (0.0, 0.0),
}
_OTHER = (0.5, 0.0)
_CLOSED = frozenset("mbp")
_LEAD_S = 0.02  # the mouth is a little ahead of the sound


@dataclass(frozen=True)
class Speech:
    """The control signals of one utterance.

    Attributes:
        loudness: (n,) 0..1, from 30 dB below the loud parts up to them.
        voiced: (n,) bool, whether there is sound (louder than 30 dB below the loud parts).
        opening: (n,) 0..1 of the mouth.
        rounding: (n,) -1..1 of the lips.
    """

    loudness: np.ndarray
    voiced: np.ndarray
    opening: np.ndarray
    rounding: np.ndarray


def level_db(waveform: np.ndarray, rate_hz: int, window_s: float = 0.025) -> np.ndarray:
    """Loudness at CONTROL_HZ in dB re full scale: mean square over a centred window of ``window_s``."""
    count = int(np.ceil(len(waveform) / rate_hz * CONTROL_HZ)) + 1
    total = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])
    centre = np.arange(count) / CONTROL_HZ * rate_hz
    half = window_s * rate_hz / 2
    first = np.clip(np.rint(centre - half), 0, len(waveform)).astype(int)
    last = np.clip(np.rint(centre + half), 0, len(waveform)).astype(int)
    return 10 * np.log10((total[last] - total[first]) / (2 * half) + 1e-10)


def articulate(utterance: Utterance) -> Speech:
    """The control signals of an utterance: loudness opens the mouth, the phoneme says how far and in which shape."""
    level = level_db(utterance.waveform, utterance.rate_hz)
    loud = np.percentile(level[level > -60], 95) if np.any(level > -60) else 0.0
    loudness = np.clip(1 + (level - loud) / 30, 0, 1)
    shape = np.zeros((len(level), 2))
    closed = np.zeros(len(level))
    starts = [t for t, _ in utterance.phonemes]
    for (start_s, mnemonic), end_s in zip(utterance.phonemes, [*starts[1:], utterance.duration_s], strict=False):
        letter = mnemonic.lstrip("',%=|").strip()[:1]
        span = slice(int((start_s - _LEAD_S) * CONTROL_HZ) if start_s > _LEAD_S else 0, int(end_s * CONTROL_HZ))
        shape[span] = _SHAPES.get(letter, _OTHER)
        if letter in _CLOSED:
            closed[span] = 1.0
    if not starts:
        shape[:] = (0.7, 0.0)
    # Lips and jaw have mass: 40 ms; a closure of the lips is quicker.
    target = gaussian_filter1d(shape[:, 0], 0.03 * CONTROL_HZ) * (0.35 + 0.65 * loudness) * (loudness > 0)
    opening = gaussian_filter1d(target, 0.032 * CONTROL_HZ)
    opening *= 1 - 0.85 * gaussian_filter1d(closed, 0.018 * CONTROL_HZ)
    rounding = gaussian_filter1d(shape[:, 1] * (loudness > 0), 0.05 * CONTROL_HZ)
    return Speech(loudness, loudness > 0, np.clip(opening, 0, 1), rounding)


class FaceMotion:
    """The pose of one face over time.

    Args:
        opening, rounding: (n,) control signals of the whole clip.
        activity: (n,) 0..1 loudness of the person's own talking, of the whole clip: a talking head moves more.
        seed: of the head's and the eyelids' motion.
        liveliness: factor on the head's motion; 0 gives a still photograph.
        torso: factor on the motion of the shoulders; see :class:`BodyMotion`.
        gestures: how much the hands are used, 0 to 1.
    """

    def __init__(
        self,
        opening: np.ndarray,
        rounding: np.ndarray,
        activity: np.ndarray,
        seed: int,
        liveliness: float = 1.0,
        torso: float = 0.0,
        gestures: float = 0.0,
    ) -> None:
        self._body = BodyMotion(activity, CONTROL_HZ, seed, torso, gestures) if torso > 0 or gestures > 0 else None
        rng = np.random.default_rng(seed)
        count = len(opening)
        self._signals = {"opening": opening, "rounding": rounding}
        stress = gaussian_filter1d(activity, 0.12 * CONTROL_HZ)
        busy = gaussian_filter1d((activity > 0.1).astype(float), 0.5 * CONTROL_HZ)

        def wander(slow_s: float, size: float, talking: float) -> np.ndarray:
            """Smooth noise of standard deviation ``size``, ``talking`` times as large while the person talks."""
            pad = int(4 * slow_s * CONTROL_HZ)
            noise = gaussian_filter1d(rng.standard_normal(count + 2 * pad), slow_s * CONTROL_HZ)[pad : pad + count]
            return liveliness * size * noise * np.sqrt(2 * np.sqrt(np.pi) * slow_s * CONTROL_HZ) * (1 + talking * busy)

        self._signals |= {
            "turn": np.clip(wander(0.5, 0.012, 1.0), -0.05, 0.05),
            "nod": np.clip(wander(0.35, 0.006, 1.0) + liveliness * 0.016 * stress, -0.04, 0.04),
            "roll": np.clip(wander(0.6, 0.010, 0.8), -0.05, 0.05),
            "shift_x": np.clip(wander(0.7, 0.010, 0.5), -0.04, 0.04),
            "shift_y": np.clip(wander(0.5, 0.006, 0.6), -0.03, 0.03),
            "sway_x": np.clip(wander(1.2, 0.010, 0.0), -0.03, 0.03),
            "sway_y": np.clip(wander(1.0, 0.007, 0.0), -0.03, 0.03),
            "zoom": 1 + np.clip(wander(0.8, 0.006, 0.5), -0.02, 0.02),
            "blink": self._blinks(rng, count) if liveliness > 0 else np.zeros(count),
        }

    @staticmethod
    def _blinks(rng: np.random.Generator, count: int) -> np.ndarray:
        """Lids over time: a blink each 2 to 6 s, shut within 70 ms, open again within 150 ms."""
        blink = np.zeros(count)
        times = np.arange(count) / CONTROL_HZ
        at = float(rng.uniform(0.4, 3.0))
        while at < times[-1]:
            dt = times - at
            blink = np.maximum(blink, np.where(dt < 0, 1 + dt / 0.07, 1 - (dt - 0.04) / 0.15))
            at += float(rng.uniform(2.0, 6.0))
        return np.clip(blink, 0, 1)

    def at(self, time_s: float) -> Pose:
        """The pose at a time of the clip in seconds."""
        position = time_s * CONTROL_HZ
        k = min(max(int(position), 0), len(self._signals["opening"]) - 2)
        part = min(max(position - k, 0.0), 1.0)
        v = {name: float(signal[k] * (1 - part) + signal[k + 1] * part) for name, signal in self._signals.items()}
        pose = Pose(
            **{name: v[name] for name in ("opening", "rounding", "blink", "turn", "nod", "roll", "zoom")},
            shift=(v["shift_x"], v["shift_y"]),
            sway=(v["sway_x"], v["sway_y"]),
        )
        if self._body is None:
            return pose
        body = self._body.at(time_s)
        mouth = {
            "nod": pose.nod + body["nod"],
            "opening": min(1.0, pose.opening + body["opening"]),
            "rounding": min(1.0, max(-1.0, pose.rounding + body["rounding"])),
        }
        return replace(pose, **(body | mouth))
