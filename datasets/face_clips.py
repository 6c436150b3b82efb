"""Clips as face tracks on the 25-fps grid: crops in both geometries and aligned MFCC, cut once into a cache.

The footage is that of third parties: the cache lies outside the repository.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asd_explain.datasets.shared_clips import ClipEntry
from asd_explain.errors import AsdExplainError
from asd_explain.grid import TimeGrid
from asd_explain.media.audio import Audio, load_audio
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.media.reader import VideoReader
from asd_explain.outputs import whole_file
from asd_explain.tracks.crops import BODY_GEOMETRY, GEOMETRIES, body_box, crop
from asd_explain.tracks.detect import DetectionSchedule, Detector, create_detector
from asd_explain.tracks.link import FaceTracker
from asd_explain.tracks.shots import ShotDetector
from asd_explain.tracks.track import Track, TrackedFace

CACHE_VERSION = 2
#: The wide crop: side in pixels, and how much longer than the box's its sides are.
WIDE_SIZE, WIDE_SCALE = 160, 1.4


@dataclass(frozen=True)
class FaceClip:
    """One face through (a part of) one clip, on the grid.

    Attributes:
        entry: the clip it is from.
        track_id: id within the clip.
        start_s: time of grid frame 0, seconds, counted from the clip's first frame.
        boxes: (T, 4) float32 px.
        size: (width, height) of the clip, px.
        faces: {geometry: (T, 112, 112) uint8}.
        wide: (T, 160, 160) uint8, the box with a fifth of its side around it, from which crops can be jittered.
        bodies: (T, 112, 112) uint8, of the body box that the face box implies.
        mfcc: (4T, 13) float32 of the clip's own sound.
        waveform: (n,) int16, 16 kHz, from grid frame 0 on; empty where there is no audio track.
        has_audio: whether the clip has an audio track; else ``mfcc`` is that of silence.
        truth: (T,) float32, 1 speaking, 0 silent, NaN unknown, where it is known exactly (our own talking photos).
    """

    entry: ClipEntry
    track_id: int
    start_s: float
    boxes: np.ndarray
    size: tuple[int, int]
    faces: dict[str, np.ndarray]
    wide: np.ndarray
    bodies: np.ndarray
    mfcc: np.ndarray
    waveform: np.ndarray
    has_audio: bool
    truth: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def times_s(self) -> np.ndarray:
        """(T,) seconds from the clip's first frame."""
        return self.start_s + np.arange(len(self)) / 25.0


def cut_faces(
    entry: ClipEntry,
    detector: Detector,
    *,
    interval_s: float = 0.2,
    min_length_s: float = 1.0,
    max_length_s: float = 30.0,
    min_face_px: float = 24.0,
) -> list[FaceClip]:
    """Find, follow and cut the faces of one clip.

    Args:
        entry: the clip.
        detector: a face detector, run every ``interval_s`` seconds.
        interval_s: seconds between two detections.
        min_length_s: shorter tracks are left out.
        max_length_s: longer tracks are cut there.
        min_face_px: tracks whose median box is smaller are left out.

    Raises:
        ClipError: the clip cannot be read.
    """
    crops: dict[int, list[tuple[int, float, TrackedFace, dict[str, np.ndarray]]]] = {}
    held: deque = deque()

    with VideoReader(entry.path, threads=1) as reader:
        info = reader.info
        size = detector.working_size(info.width, info.height)
        shots, schedule = ShotDetector(), DetectionSchedule(interval_s)
        shot_size = ShotDetector.working_size(info.width, info.height)
        tracker = FaceTracker(info.width, info.height, min_length_s=min_length_s)

        def take(done: list) -> None:
            for tracked in done:
                index, luma = held.popleft()
                if index != tracked.index:
                    raise AsdExplainError(f"{entry.path}: frame {tracked.index} came out of order")
                for face in tracked.faces:
                    cut = {g: crop(luma, face.box, g) for g in GEOMETRIES}
                    cut["wide"] = crop(luma, wide_box(face.box), "box", WIDE_SIZE)
                    cut["body"] = crop(luma, body_box(face.box, info.width, info.height), BODY_GEOMETRY)
                    crops.setdefault(face.track_id, []).append((index, tracked.time_s, face, cut))

        for frame in reader:
            cut = shots.push(frame.bgr(*shot_size), frame.time_s)
            found = None
            if schedule.due(frame.time_s, cut=cut):
                found = detector.detect(frame.bgr(*size), info.width / size[0], info.height / size[1])
            held.append((frame.index, frame.luma()))
            take(tracker.push(frame.index, frame.time_s, found, cut))
        take(tracker.flush())

    audio = load_audio(entry.path)
    clips = []
    for track_id, rows in sorted(crops.items()):
        track = Track.from_frames(track_id, [row[:3] for row in rows])
        grid = TimeGrid(track.times_s)
        source = grid.source_of_grid[: round(max_length_s * grid.fps)]
        side = np.median(np.sqrt((track.boxes[:, 2:] - track.boxes[:, :2]).prod(1)))
        if len(source) < min_length_s * grid.fps or side < min_face_px:
            continue
        clips.append(
            FaceClip(
                entry=entry,
                track_id=track_id,
                start_s=grid.start_s - info.start_s,
                boxes=track.boxes[source],
                size=(info.width, info.height),
                faces={g: np.stack([rows[i][3][g] for i in source]) for g in GEOMETRIES},
                wide=np.stack([rows[i][3]["wide"] for i in source]),
                bodies=np.stack([rows[i][3]["body"] for i in source]),
                mfcc=aligned_mfcc(audio, grid.start_s, len(source)).numpy(),
                waveform=_samples(audio, grid.start_s, len(source) / grid.fps),
                has_audio=audio is not None,
            )
        )
    if audio is not None:
        audio.close()
    return clips


def wide_box(box: np.ndarray) -> np.ndarray:
    """(4,) box grown about its centre to ``WIDE_SCALE`` times its sides."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * WIDE_SCALE
    return np.concatenate([centre - half, centre + half])


def _samples(audio: Audio | None, start_s: float, length_s: float) -> np.ndarray:
    if audio is None:
        return np.zeros(0, np.int16)
    samples = audio.slice(start_s, round(length_s * audio.rate))
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an npz that is there as a whole or not at all; its folder is made when needed.

    Raises:
        OutputError: it cannot be written.
    """
    with whole_file(path) as partial:
        np.savez(partial, **arrays)


class FaceClipCache:
    """Face tracks of clips, cut once and kept as one npz a clip.

    Args:
        folder: where to keep them; made when needed. Never inside a repository: it holds other people's footage.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder) / f"faces_v{CACHE_VERSION}"
        self._detector: Detector | None = None

    def path(self, entry: ClipEntry) -> Path:
        """The clip's file in the cache."""
        return self.folder / f"{entry.name.replace('/', '.')}.npz"

    def get(self, entry: ClipEntry) -> list[FaceClip]:
        """The clip's faces, read from the cache or cut now.

        Raises:
            ClipError: the clip cannot be read.
        """
        path = self.path(entry)
        if not path.is_file():
            if self._detector is None:
                self._detector = create_detector("yunet")
            self._write(path, cut_faces(entry, self._detector))
        return list(self._read(path, entry))

    @staticmethod
    def _write(path: Path, clips: list[FaceClip]) -> None:
        arrays: dict[str, np.ndarray] = {"track_ids": np.array([c.track_id for c in clips], np.int64)}
        for c in clips:
            key = f"{c.track_id}"
            arrays |= {f"{key}.faces.{g}": v for g, v in c.faces.items()}
            arrays |= {f"{key}.wide": c.wide, f"{key}.bodies": c.bodies, f"{key}.waveform": c.waveform}
            arrays |= {f"{key}.boxes": c.boxes, f"{key}.mfcc": c.mfcc, f"{key}.start_s": np.float64(c.start_s)}
            if c.truth is not None:
                arrays[f"{key}.truth"] = c.truth
            arrays |= {f"{key}.size": np.array(c.size), f"{key}.has_audio": np.array(c.has_audio)}
        save_arrays(path, arrays)

    @staticmethod
    def _read(path: Path, entry: ClipEntry) -> Iterator[FaceClip]:
        with np.load(path) as stored:
            for track_id in stored["track_ids"]:
                key = f"{track_id}"
                yield FaceClip(
                    entry=entry,
                    track_id=int(track_id),
                    start_s=float(stored[f"{key}.start_s"]),
                    boxes=stored[f"{key}.boxes"],
                    size=tuple(int(v) for v in stored[f"{key}.size"]),
                    faces={g: stored[f"{key}.faces.{g}"] for g in GEOMETRIES},
                    wide=stored[f"{key}.wide"],
                    bodies=stored[f"{key}.bodies"],
                    mfcc=stored[f"{key}.mfcc"],
                    waveform=stored[f"{key}.waveform"],
                    has_audio=bool(stored[f"{key}.has_audio"]),
                    truth=stored.get(f"{key}.truth"),
                )
