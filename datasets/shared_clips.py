"""The local clips of the shared folder: which there are, their splits, and what is known by eye of who speaks in them.

The corpus is footage of third parties; it is read from a folder that the caller names. Splits are those of the folder's
README: fit on ``fit``, choose on ``dev``, report on ``test``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asd_explain.errors import OptionError

SPLITS = ("fit", "dev", "test")
GROUPS = ("conversations", "single", "listening", "tracks")
_POOL = 12
#: Speakers and clips that are not ``fit``.
_TEST = {
    *("speaker_09", "speaker_13", "speaker_16"),
    *("interview_two_panels", "four_panel_call", "dubbed_own_voice", "dubbed_foreign_voice", "selfie_31s"),
    *("expressions_d3", "expressions_s20", "quiet_no_audio_1"),
}
_DEV = {
    *("speaker_02", "speaker_12"),
    *("standup_two_mixed", "standup_two_left_voice_only", "standup_two_right_voice_only"),
    *("office_talk", "stage_lecture", "expressions_d14", "talk_no_audio"),
}
#: Clips that show the same people under different names.
_SAME_VOICES = ("standup_two", "car_", "dubbed")
_LEFT_OUT = {"speaker_17"}  # mixes people who may be in other splits
_VIDEO_SUFFIXES = {".mp4", ".avi", ".mpg", ".mov", ".mkv", ".webm"}


@dataclass(frozen=True)
class ClipEntry:
    """One clip of the corpus.

    Attributes:
        path: the file.
        name: unique name, for instance "single/talk_2" or "tracks/speaker_09/clip_3".
        group: one of ``GROUPS``.
        split: one of ``SPLITS``.
        person: who talks: the speaker's folder for ``tracks``, else the clip's name. Voices of other persons are
            found by it.
    """

    path: Path
    name: str
    group: str
    split: str
    person: str


def voice_name(person: str) -> str:
    """Name shared by clips in which the same people talk."""
    return next((prefix for prefix in _SAME_VOICES if person.startswith(prefix)), person)


def split_of(name: str) -> str:
    """Split of a clip's stem or a speaker's folder: "fit", "dev" or "test"."""
    return "test" if name in _TEST else "dev" if name in _DEV else "fit"


def list_clips(shared: Path, *, groups: tuple[str, ...] = GROUPS, per_speaker: int = 10) -> list[ClipEntry]:
    """The corpus's clips in a fixed order.

    Args:
        shared: the shared folder (that holds ``clips``).
        groups: which of ``GROUPS``.
        per_speaker: at most so many files of a speaker, spaced over the sorted names; up to 12 they are chosen out of
            the same 12, so that a cache serves all.

    Raises:
        OptionError: there are no clips below that folder, a group is unknown, or ``per_speaker`` is below 1.
    """
    if per_speaker < 1:
        raise OptionError(f"{per_speaker} clips of each speaker are none; --per-speaker is 1 or more")
    clips = Path(shared) / "clips"
    entries = []
    for group in groups:
        if group not in GROUPS:
            raise OptionError(f"no group of clips called {group!r}; choose from {', '.join(GROUPS)}")
        folder = clips / group
        if group != "tracks":
            for path in _videos(folder):
                entries.append(ClipEntry(path, f"{group}/{path.stem}", group, split_of(path.stem), path.stem))
            continue
        for speaker in sorted(p for p in folder.glob("*") if p.is_dir()):
            if speaker.name in _LEFT_OUT:
                continue
            files = _videos(speaker)
            for path in _spaced(files, per_speaker):
                name = f"tracks/{speaker.name}/{path.stem}"
                entries.append(ClipEntry(path, name, group, split_of(speaker.name), speaker.name))
    if not entries:
        raise OptionError(f"no clips below {clips}; give the shared folder with --shared or ASD_EXPLAIN_SHARED")
    return entries


def _spaced(files: list[Path], n: int) -> list[Path]:
    pool_size = min(max(n, _POOL), len(files))
    pool = [files[i] for i in np.linspace(0, len(files) - 1, pool_size).round().astype(int)]
    step = max(1, len(pool) // n)
    return pool[step - 1 :: step][:n]


def _videos(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if p.suffix.lower() in _VIDEO_SUFFIXES)


@dataclass(frozen=True)
class Hint:
    """What is known, by eye and to half a second, about one face of one clip.

    Attributes:
        region: x1 y1 x2 y2 in shares of the picture, inside which the centre of the face's box lies.
        spans: (start_s, end_s, speaking) from the clip's first frame; ``speaking`` is True, False, or "voiced":
            speaking where the clip's sound is voiced, unknown elsewhere.
        min_size: least height of the face's box as a share of the picture's.
    """

    region: tuple[float, float, float, float]
    spans: tuple[tuple[float, float, bool | str], ...]
    min_size: float = 0.0


_LEFT, _RIGHT, _ALL = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)
_LONG = 1e3
#: The hints of the shared folder's README, by clip name.
HINTS: dict[str, tuple[Hint, ...]] = {
    "conversations/four_panel_call": (
        Hint(
            (0.5, 0.0, 1.0, 0.5),
            ((0, 4.3, True), (4.3, 10, False), (10, 13, True), (13, _LONG, False)),
            min_size=0.12,
        ),
        Hint((0.5, 0.5, 1.0, 1.0), ((0, 9.5, True), (9.5, _LONG, False)), min_size=0.12),
        Hint((0.0, 0.0, 0.5, 0.5), ((0, 4.3, False), (4.3, 9.8, True), (9.8, _LONG, False)), min_size=0.12),
        Hint((0.0, 0.5, 0.5, 1.0), ((0, 10.5, False), (10.5, 12.3, True), (12.3, _LONG, False)), min_size=0.12),
    ),
    "conversations/interview_two_panels": (
        Hint(_LEFT, ((0, 10, True), (10.5, 15, False))),
        Hint(_RIGHT, ((0, _LONG, "voiced"),)),
    ),
    "conversations/standup_two_left_voice_only": (
        Hint(_LEFT, ((0, _LONG, "voiced"),)),
        Hint(_RIGHT, ((0, _LONG, False),)),
    ),
    "conversations/standup_two_right_voice_only": (
        Hint(_LEFT, ((0, _LONG, False),)),
        Hint(_RIGHT, ((0, _LONG, "voiced"),)),
    ),
    "conversations/car_front_voice_only": (
        Hint(_ALL, ((0.5, 3, True), (3, 5, False), (5, 6, True), (6, _LONG, False)), min_size=0.25),
    ),
    "single/dubbed_own_voice": (Hint(_ALL, ((0, _LONG, "voiced"),)),),
    "single/dubbed_foreign_voice": (Hint(_ALL, ((0, _LONG, False),)),),
}


def hinted_labels(
    clip: str, times_s: np.ndarray, boxes: np.ndarray, size: tuple[int, int], voiced: np.ndarray, border_s: float = 0.5
) -> np.ndarray | None:
    """Labels for one face from the hints, or None where there is no hint for it.

    Args:
        clip: name of the clip, a key of ``HINTS``.
        times_s: (T,) seconds from the clip's first frame.
        boxes: (T, 4) px.
        size: (width, height) of the picture, px.
        voiced: (T,) bool, frames in which the clip's sound is voiced.
        border_s: frames that near to a change of state are left out; a clip's own ends are no change.

    Returns:
        (T,) float32: 1 speaking, 0 silent, NaN unknown.
    """
    box = np.median(boxes, 0)
    cx, cy, height = (box[0] + box[2]) / 2 / size[0], (box[1] + box[3]) / 2 / size[1], (box[3] - box[1]) / size[1]
    for hint in HINTS.get(clip, ()):
        x1, y1, x2, y2 = hint.region
        if not (x1 <= cx < x2 and y1 <= cy < y2 and height >= hint.min_size):
            continue
        labels = np.full(len(times_s), np.nan, np.float32)
        for start_s, end_s, speaking in hint.spans:
            low = start_s + border_s if start_s > 0 else start_s
            inside = (times_s >= low) & (times_s <= end_s - border_s)
            if speaking == "voiced":
                labels[inside & voiced] = 1
            else:
                labels[inside] = float(speaking)
        return labels
    return None
