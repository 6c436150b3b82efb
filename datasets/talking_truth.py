"""The truth about a clip of talking photographs, the rule of its labels, and its tables.

**The rule.** A voice sounds where it is at most 30 dB below its own loud parts (25 ms windows). A frame is speaking at
its presentation time where the person's voice sounds, or in a pause of at most ``PAUSE_S`` inside a turn; a longer
pause is silent from its beginning. ``SPEAKING_AUDIBLE``: heard in the clip. ``SPEAKING_NOT_AUDIBLE``: the mouth moves
to a voice that is not in the clip. Everything else is ``NOT_SPEAKING``: listening, or still under somebody else's
voice.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_closing

PAUSE_S = 0.2
"""The longest pause inside a turn that still counts as speaking."""
LABELS = ("NOT_SPEAKING", "SPEAKING_AUDIBLE", "SPEAKING_NOT_AUDIBLE")
"""AVA's labels; the numbers in :class:`PersonTruth` are indices into this tuple."""


@dataclass(frozen=True)
class PersonTruth:
    """The truth about one person, per frame (N frames).

    Attributes:
        visible: (N,) bool, in the shot. Everything below but label, voiced and opening is NaN (or "") elsewhere.
        entity: (N,) str, AVA's entity_id: another one after each shot cut.
        face, body, mouth: (N, 4) float32 xyxy px, edges at integers, inside the frame.
        label: (N,) int8, index into ``LABELS``; off screen too.
        voiced: (N,) bool, this person's voice sounds at the frame's time.
        opening: (N,) float32 0..1 of the mouth.
    """

    visible: np.ndarray
    entity: np.ndarray
    face: np.ndarray
    body: np.ndarray
    mouth: np.ndarray
    label: np.ndarray
    voiced: np.ndarray
    opening: np.ndarray


@dataclass(frozen=True)
class Truth:
    """What is true about a clip.

    Attributes:
        path, csv_path, mouths_path: the clip and its tables.
        video_id: AVA's video_id, the stem of the file's name.
        times_s: (N,) presentation times of the frames in seconds.
        people: one truth a person, in the order of the scene.
        shot: (N,) int, the number of the shot.
        waveform: (n,) float32, the clip's sound before encoding, at ``AUDIO_HZ``.
        voices: per person the (n,) waveform of that voice alone, then those off screen; silent ones of mouthing apart.
    """

    path: Path
    csv_path: Path
    mouths_path: Path
    video_id: str
    times_s: np.ndarray
    people: tuple[PersonTruth, ...]
    shot: np.ndarray
    waveform: np.ndarray
    voices: tuple[np.ndarray, ...]


def speaking_rule(voiced: np.ndarray, rate_hz: float, pause_s: float = PAUSE_S) -> np.ndarray:
    """(n,) bool "the voice sounds" inside one turn -> (n,) bool "is speaking": pauses up to ``pause_s`` are filled."""
    longest = int(pause_s * rate_hz + 1e-6)
    if not longest or not voiced.any():
        return voiced.astype(bool)
    padded = np.pad(voiced.astype(bool), longest)
    return binary_closing(padded, np.ones(longest + 1, bool))[longest:-longest]


def write_tables(truth: Truth, width: int, height: int) -> None:
    """Write the AVA csv (no header) and the table of mouths of a clip of ``width`` x ``height`` pixels."""
    size = np.array([width, height, width, height], np.float64)
    with (
        truth.csv_path.open("w", newline="", encoding="utf-8") as ava_file,
        truth.mouths_path.open("w", newline="", encoding="utf-8") as mouths_file,
    ):
        ava, mouths = csv.writer(ava_file), csv.writer(mouths_file)
        corners = ("x1", "y1", "x2", "y2")
        columns = [f"{box}_{corner}" for box in ("face", "body", "mouth") for corner in corners]
        mouths.writerow(["frame", "time_s", "person", "entity_id", *columns, "opening", "voiced", "label"])
        for who, person in enumerate(truth.people):
            for n in np.flatnonzero(person.visible):
                label = LABELS[person.label[n]]
                box = [f"{v:.6f}" for v in person.face[n] / size]
                ava.writerow([truth.video_id, f"{truth.times_s[n]:.2f}", *box, label, person.entity[n]])
                pixels = [f"{v:.2f}" for b in (person.face[n], person.body[n], person.mouth[n]) for v in b]
                rest = [f"{person.opening[n]:.4f}", int(person.voiced[n]), label]
                mouths.writerow([n, f"{truth.times_s[n]:.6f}", who, person.entity[n], *pixels, *rest])
