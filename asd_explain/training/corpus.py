"""Face tracks with everything that a training draws from, in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from asd_explain.datasets.face_clips import FaceClip
from asd_explain.datasets.shared_clips import ClipEntry, voice_name
from asd_explain.errors import OptionError
from asd_explain.evaluate.pooled import voiced_frames
from asd_explain.training.augment_view import face_boxes_in_body
from asd_explain.training.teacher import Lesson, Teacher

log = logging.getLogger(__name__)


class ClipSource(Protocol):
    """What gives the face tracks of a clip: a cache of crops."""

    def get(self, entry: ClipEntry) -> list[FaceClip]:
        """The clip's face tracks."""


@dataclass(frozen=True)
class TrainTrack:
    """One face track with its labels.

    Attributes:
        clip: crops and sound.
        own: (T,) float32, P(speaking) in [0, 1] under the own sound: exact where it is known, else the teacher's;
            NaN where unknown; 0 where there is no sound track, as nobody is heard.
        lips: (T,) float32, the label where there is no sound track to hear: whether the lips talk. Differs from ``own``
            for a mouth that talks unheard; NaN where unknown, and throughout a clip that had no sound track.
        lesson: what the teacher says, or None where it was not asked.
        voice: whose voice it may be; other voices come from tracks of another name.
        face_in_body: (T, 4) px, where the face lies in the body crop.
        voiced: share of frames whose sound is voiced, 0 without sound.
    """

    clip: FaceClip
    own: np.ndarray
    lips: np.ndarray
    lesson: Lesson | None
    voice: str
    face_in_body: np.ndarray
    voiced: float

    def __len__(self) -> int:
        return len(self.own)


def track_of(clip: FaceClip, lesson: Lesson | None) -> TrainTrack:
    """A face track with its labels.

    Raises:
        OptionError: neither truth nor a lesson is there.
    """
    if clip.truth is None and lesson is None:
        raise OptionError(f"{clip.entry.name}: there is neither an exact label nor a teacher's")
    own = clip.truth if clip.truth is not None else lesson.own
    talking = getattr(clip, "talking", None)
    lips = own if talking is None else talking
    if not clip.has_audio:
        own, lips = np.zeros(len(clip), np.float32), np.full(len(clip), np.nan, np.float32)
    return TrainTrack(
        clip=clip,
        own=np.asarray(own, np.float32),
        lips=np.asarray(lips, np.float32),
        lesson=lesson,
        voice=voice_name(clip.entry.person),
        face_in_body=face_boxes_in_body(clip.boxes, clip.size),
        voiced=float(voiced_frames(clip.mfcc).mean()) if clip.has_audio else 0.0,
    )


def load_tracks(
    entries: Iterable[ClipEntry],
    source: ClipSource,
    teacher: Teacher | None,
    progress: Callable[[list], Iterable] = iter,
) -> list[TrainTrack]:
    """All face tracks of some clips, with labels.

    Args:
        entries: the clips.
        source: where their crops come from.
        teacher: asked about every track, or None where the clips bring exact labels.
        progress: wraps the loop over clips (a progress bar).
    """
    tracks = []
    for entry in progress(list(entries)):
        clips = source.get(entry)
        lessons = teacher.lessons(entry, clips) if teacher is not None else [None] * len(clips)
        tracks += [track_of(clip, lesson) for clip, lesson in zip(clips, lessons, strict=True)]
    return tracks
