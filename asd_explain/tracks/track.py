"""The data that pass between stages: one face (or body) followed through one shot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asd_explain.errors import AsdExplainError


@dataclass(frozen=True)
class TrackedFace:
    """One track's state in one source frame.

    Attributes:
        track_id: id of the track, never reused within a clip.
        box: (4,) float32, x1 y1 x2 y2 in pixels of the upright frame.
        score: detector confidence in [0, 1]; interpolated faces carry the lower of their neighbours'.
        interpolated: True where no detection was made in this very frame.
        landmarks: (5, 2) float32 pixels (right eye, left eye, nose tip, right and left mouth corner; right and left are
            the person's), or None.
        body: (4,) float32 body box in pixels, or None.
    """

    track_id: int
    box: np.ndarray
    score: float
    interpolated: bool
    landmarks: np.ndarray | None = None
    body: np.ndarray | None = None


@dataclass(frozen=True)
class FrameTracks:
    """Every face of one source frame, final: nothing that comes later changes it.

    Attributes:
        index: source frame index.
        time_s: presentation time of the frame in seconds.
        faces: the faces, in order of track id.
    """

    index: int
    time_s: float
    faces: tuple[TrackedFace, ...]


@dataclass(frozen=True)
class Track:
    """One face through consecutive source frames of one shot; the one thing passed between stages.

    Attributes:
        track_id: never reused within a clip.
        frames: (T,) int64 source frame indices, strictly increasing by one.
        times_s: (T,) float64 presentation times in seconds, strictly increasing.
        boxes: (T, 4) float32 x1 y1 x2 y2 in pixels of the upright frame.
        scores: (T,) float32 detector confidence in [0, 1].
        interpolated: (T,) bool, True where the position was interpolated.
        landmarks: (T, 5, 2) float32 pixels, NaN where unknown, or None.
        bodies: (T, 4) float32 body boxes in pixels, or None.

    Raises:
        AsdExplainError: when the arrays disagree in length or the times do not increase.
    """

    track_id: int
    frames: np.ndarray
    times_s: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    interpolated: np.ndarray
    landmarks: np.ndarray | None = None
    bodies: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.frames)
        if n == 0:
            raise AsdExplainError(f"track {self.track_id} has no frames")
        for name in ("times_s", "boxes", "scores", "interpolated", "landmarks", "bodies"):
            value = getattr(self, name)
            if value is not None and len(value) != n:
                raise AsdExplainError(f"track {self.track_id}: {name} has {len(value)} rows for {n} frames")
        if n > 1 and not (np.diff(self.times_s) > 0).all():
            raise AsdExplainError(f"track {self.track_id}: times do not increase")

    def __len__(self) -> int:
        return len(self.frames)

    @classmethod
    def from_frames(cls, track_id: int, observations: list[tuple[int, float, TrackedFace]]) -> Track:
        """Build a track from (frame index, time in s, face) in order of time.

        Args:
            track_id: id of the new track.
            observations: one entry a source frame.
        """
        faces = [face for _, _, face in observations]
        landmarks = None
        if any(face.landmarks is not None for face in faces):
            unknown = np.full((5, 2), np.nan, np.float32)
            landmarks = np.stack([unknown if f.landmarks is None else f.landmarks for f in faces]).astype(np.float32)
        bodies = None
        if all(face.body is not None for face in faces):
            bodies = np.stack([face.body for face in faces]).astype(np.float32)
        return cls(
            track_id=track_id,
            frames=np.array([index for index, _, _ in observations], np.int64),
            times_s=np.array([time for _, time, _ in observations], np.float64),
            boxes=np.stack([face.box for face in faces]).astype(np.float32),
            scores=np.array([face.score for face in faces], np.float32),
            interpolated=np.array([face.interpolated for face in faces], bool),
            landmarks=landmarks,
            bodies=bodies,
        )
