"""How a talking photograph's upper body moves: shoulders, leaning, nods and hands over time, talking or not.

All of it is invented, with the correlations that are known of people who talk to each other and sizes chosen by eye:
beats of hand, head and shoulder come with the stressed parts of one's own speech, one shifts and leans in a little when
one begins to talk, and listeners breathe, sway, shift their weight, nod and now and then raise a hand. How strongly a
person's body follows the voice is drawn for each person, down to not at all, and the same movements (hands and beats
too) come in silence, less often: who speaks can be guessed from the body better than by chance, and not told.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from asd_explain.datasets.talking_hands import Hand

_LOW_Y = 3.6  # face heights below the neck's pivot at which a hand is out of every picture


class BodyMotion:
    """What the body adds to the poses of one face over time.

    Args:
        activity: (n,) 0..1 loudness of the person's own talking (heard or not), of the whole clip.
        rate_hz: values of ``activity`` a second.
        seed: of everything drawn.
        torso: factor on how far shoulders and head move; 0: not at all.
        gestures: 0 (no hands) to 1 (a hand in most turns).
    """

    def __init__(self, activity: np.ndarray, rate_hz: float, seed: int, torso: float, gestures: float) -> None:
        self._rate_hz = rate_hz
        self._rng = rng = np.random.default_rng((seed, 5))
        self._count = count = len(activity)
        times = np.arange(count) / rate_hz
        stress = self._smooth(activity, 0.10)
        busy = self._smooth((activity > 0.1).astype(float), 0.4)
        # How this person's body follows the voice: drawn once, and weak for some.
        follows = rng.uniform(0.0, 1.3) * (rng.random() > 0.2)
        leans = rng.uniform(-0.4, 1.0)
        sides = rng.uniform(0.2, 1.0, 2)
        nods = self._nods(1.0 - 0.8 * busy)
        breath = np.sin(2 * np.pi * (rng.uniform(0.2, 0.33) * times + rng.random()))
        shifts = self._steps(rng.uniform(0.05, 0.25), 0.5)
        beat = self._beats(stress, busy)
        signals = {
            "lean_x": self._wander(1.3, 0.020, 0.7 * follows * busy) + 0.045 * shifts,
            "lean_y": self._wander(0.9, 0.008, 0.6 * follows * busy) + 0.006 * breath + 0.02 * follows * beat,
            "lean_in": 1 + self._wander(1.5, 0.008, 0.0) + 0.030 * follows * leans * busy + 0.012 * np.roll(shifts, 37),
            "shrug_l": self._wander(0.7, 0.010, follows * busy) + follows * sides[0] * 0.05 * beat + 0.008 * breath,
            "shrug_r": self._wander(0.7, 0.010, follows * busy) + follows * sides[1] * 0.05 * beat + 0.008 * breath,
            "nod": 0.020 * nods,
        }
        signals |= dict(zip(("opening", "rounding"), self._idle_mouth(1 - np.clip(2.5 * busy, 0, 1)), strict=True))
        limits = {"lean_x": 0.12, "lean_y": 0.05, "shrug_l": 0.11, "shrug_r": 0.11, "nod": 0.04}
        for name, limit in limits.items():
            signals[name] = torso * np.clip(signals[name], -limit, limit)
        signals["lean_in"] = 1 + torso * np.clip(signals["lean_in"] - 1, -0.05, 0.05)
        self._sides: list[int] = []
        for side in (-1, 1):
            raised = self._raised(activity, gestures * (1.0 if side == 1 else 0.6))
            if raised.max() < 0.05:
                continue
            self._sides.append(side)
            rest = rng.uniform(0.25, 0.75), rng.uniform(0.35, 0.85)
            follow = rng.uniform(0.3, 1.0)
            idle = self._wander(0.25, 0.035, 0.0)
            x = rest[0] + self._wander(0.3, 0.05, busy) + 0.12 * follow * np.roll(beat, int(0.05 * rate_hz)) * busy
            y = rest[1] + idle - 0.22 * follow * beat
            signals[f"hand_x{side}"] = np.clip(x, 0.1, 1.0)
            signals[f"hand_y{side}"] = np.clip(y, 0.25, 1.6) + (1 - raised) * (_LOW_Y - rest[1])
            signals[f"hand_a{side}"] = np.clip(self._wander(0.3, 0.18, busy) + rng.uniform(-0.3, 0.6), -0.8, 1.0)
            signals[f"hand_s{side}"] = np.clip(rng.uniform(0.1, 0.9) + self._wander(0.4, 0.2, 0.0), 0, 1)
        self._signals = signals

    def _smooth(self, signal: np.ndarray, seconds: float) -> np.ndarray:
        return gaussian_filter1d(signal, seconds * self._rate_hz)

    def _wander(self, slow_s: float, size: float, more: np.ndarray | float) -> np.ndarray:
        """Smooth noise of standard deviation ``size`` times 1 + ``more``."""
        pad = int(4 * slow_s * self._rate_hz)
        noise = self._smooth(self._rng.standard_normal(self._count + 2 * pad), slow_s)[pad : pad + self._count]
        return size * noise * np.sqrt(2 * np.sqrt(np.pi) * slow_s * self._rate_hz) * (1 + more)

    def _steps(self, each_s: float, takes_s: float) -> np.ndarray:
        """About ``each_s`` times a second to another place, standard deviation 1: shifts of weight."""
        moves = self._rng.random(self._count) < each_s / self._rate_hz
        places = self._rng.standard_normal(int(moves.sum()) + 1)
        return self._smooth(places[np.cumsum(moves)], takes_s / 2)

    def _nods(self, chance: np.ndarray) -> np.ndarray:
        """Bursts of one to three nods, about one each five seconds where ``chance`` is 1."""
        nods, time_s = np.zeros(self._count), 0.0
        times = np.arange(self._count) / self._rate_hz
        while True:
            time_s += float(self._rng.exponential(5.0))
            if time_s * self._rate_hz >= self._count - 1:
                return nods
            number, speed = self._rng.integers(1, 4), self._rng.uniform(1.6, 3.2)
            if self._rng.random() < chance[int(time_s * self._rate_hz)]:
                phase = np.clip((times - time_s) * speed, 0, number)
                nods += self._rng.uniform(0.5, 1.6) * np.sin(np.pi * phase) ** 2

    def _idle_mouth(self, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Opening and rounding of a mouth that does not talk: parted lips, a smile, chewing, a short laugh."""
        opening, rounding, time_s = np.zeros(self._count), np.zeros(self._count), 0.0
        times = np.arange(self._count) / self._rate_hz
        often_s = self._rng.uniform(1.5, 9.0)
        while True:
            time_s += float(self._rng.exponential(often_s))
            if time_s * self._rate_hz >= self._count - 1:
                return opening * chance, rounding * chance
            what = self._rng.choice(("part", "smile", "chew", "laugh"), p=(0.35, 0.3, 0.2, 0.15))
            length = float(self._rng.uniform(0.4, 1.0) if what == "part" else self._rng.uniform(0.9, 2.8))
            size = float(self._rng.uniform(0.1, 0.35) if what == "part" else self._rng.uniform(0.12, 0.45))
            bell = np.sin(np.pi * np.clip((times - time_s) / length, 0, 1)) ** 0.7
            if what in ("chew", "laugh"):
                speed = self._rng.uniform(1.2, 2.2) if what == "chew" else self._rng.uniform(3.5, 5.0)
                floor = 0.0 if what == "chew" else 0.5
                opening += size * bell * (floor + (1 - floor) * np.sin(np.pi * speed * (times - time_s)) ** 2)
            elif what == "part":
                opening += size * bell
            if what in ("smile", "laugh"):
                rounding -= self._rng.uniform(0.4, 1.0) * bell

    def _beats(self, stress: np.ndarray, busy: np.ndarray) -> np.ndarray:
        """0..1 upward beats: on the louder parts of the person's own speech, and some at random times."""
        risen = np.clip(stress - self._smooth(stress, 0.5) * 0.8, 0, None) * 2.2
        idle = np.clip(self._wander(0.12, 1.0, 0.0) - 1.6, 0, None) * 0.6
        return np.clip(self._smooth(risen * (0.3 + busy), 0.05) + idle, 0, 1)

    def _raised(self, activity: np.ndarray, gestures: float) -> np.ndarray:
        """0 (hand down) to 1 (up): in some of the turns, and for a while in some silences."""
        up = np.zeros(self._count)
        talking = gaussian_filter1d((activity > 0.1).astype(float), 0.3 * self._rate_hz) > 0.25
        edges = np.flatnonzero(np.diff(np.pad(talking.astype(int), 1)))
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            delay = int(self._rng.uniform(-0.3, 1.2) * self._rate_hz)
            stay = self._rng.uniform(0.4, 1.1)
            if self._rng.random() < 0.8 * gestures:
                up[max(0, first + delay) : first + int((last - first) * stay)] = 1
        time_s = 0.0
        while True:  # in silence as well, for no reason
            time_s += float(self._rng.exponential(7.0))
            first = int(time_s * self._rate_hz)
            if first >= self._count:
                break
            length = int(self._rng.uniform(0.8, 3.0) * self._rate_hz)
            if self._rng.random() < 0.6 * gestures and not talking[first]:
                up[first : first + length] = 1
        return self._smooth(up, 0.13)

    def at(self, time_s: float) -> dict:
        """Fields of a pose at a time in seconds; ``nod``, ``opening`` and ``rounding`` add to the face's own."""
        position = time_s * self._rate_hz
        k = min(max(int(position), 0), self._count - 2)
        part = min(max(position - k, 0.0), 1.0)
        v = {name: float(signal[k] * (1 - part) + signal[k + 1] * part) for name, signal in self._signals.items()}
        hands = tuple(
            Hand(side, *(v[f"hand_{key}{side}"] for key in "xyas"))
            for side in self._sides
            if v[f"hand_y{side}"] < _LOW_Y - 0.6
        )
        return {
            "lean": (v["lean_x"], v["lean_y"]),
            "lean_in": v["lean_in"],
            "shrug": (v["shrug_l"], v["shrug_r"]),
            "hands": hands,
            **{name: v[name] for name in ("nod", "opening", "rounding")},
        }
