"""From clips to segments: the material that explanations are evaluated on.

    for path, name in zip(paths := clip_paths(arguments), clip_names(paths)):
        tracks = cut_clip(path, detector=create_detector(), name=name)
        segments = pick_segments(model, tracks, model.card.geometry)

A clip is decoded once; its faces lie on the 25-fps grid with crops in both geometries, so one cut serves every network.
What is known of a clip comes with it: labels of an AVA csv, or label and mouth of our own talking photographs.

**Memory.** A minute of one face takes 57 MB, twice that for a moment while it is put together, beside the pictures that
wait as long as the tracker looks ahead (about a second); ``max_seconds`` bounds it. Segments are copies: for 40 frames
0.5 MB a visual stream, and 2.5 MB of regions. With many clips, pick from each and let its tracks go.
"""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from asd_explain.datasets.shared_clips import ClipEntry
from asd_explain.datasets.talking_corpus import GROUP, TalkingClipCache
from asd_explain.datasets.talking_draws import talking_scene
from asd_explain.errors import OptionError
from asd_explain.evaluate.attention_picking import pick_segments as pick_segments  # the last step, for importers
from asd_explain.evaluate.attention_truth import LEAST_IOU, ScenePoints, iou, match_people, read_labels, read_mouths
from asd_explain.evaluate.intervention import known_decisive
from asd_explain.evaluate.pooled import voiced_frames
from asd_explain.grid import TimeGrid
from asd_explain.media.audio import load_audio
from asd_explain.media.frame import Frame
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.media.reader import VideoReader
from asd_explain.scoring import GridFeeder
from asd_explain.tracks.boxes_csv import CsvTracker
from asd_explain.tracks.crops import BODY_GEOMETRY, GEOMETRIES, body_box, crop
from asd_explain.tracks.detect import DetectionSchedule, Detector
from asd_explain.tracks.link import FaceTracker
from asd_explain.tracks.shots import ShotDetector
from asd_explain.tracks.track import FrameTracks, Track, TrackedFace
from asd_explain.weights.store import cache_dir

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
REAL, TALKING = "real", "talking photos"


@dataclass(frozen=True)
class CutTrack:
    """One face through (a part of) one clip, T frames of the 25-fps grid.

    Attributes:
        clip: the clip's name.
        kind: ``REAL`` or ``TALKING``.
        track_id: unique within the clip.
        times_s: (T,) seconds from the clip's first frame.
        size: (width, height) of the clip, px.
        boxes: (T, 4) float32 face boxes, px.
        landmarks: (T, 5, 2) float32 px (right eye, left eye, nose tip, right and left mouth corner; the person's right
            and left), NaN where unknown.
        faces: {geometry: (T, 112, 112) uint8}.
        body: (T, 112, 112) uint8, of the body box that the face box implies.
        mfcc: (4T, 13) float32, or None where the clip has no sound track.
        truth: (T,) float32, 1 speaking and heard, 0 not, NaN unknown; None where nothing is known.
        mouths: (T, 4) float32 px, the true boxes of the lips, NaN where unknown; None where nothing is known.
        decisive: (T,) of :func:`asd_explain.evaluate.intervention.known_decisive`; None where nothing is known.
    """

    clip: str
    kind: str
    track_id: int
    times_s: np.ndarray
    size: tuple[int, int]
    boxes: np.ndarray
    landmarks: np.ndarray
    faces: dict[str, np.ndarray]
    body: np.ndarray
    mfcc: np.ndarray | None
    truth: np.ndarray | None = None
    mouths: np.ndarray | None = None
    decisive: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def name(self) -> str:
        """ "clip#track"."""
        return f"{self.clip}#{self.track_id}"


# --- which clips ------------------------------------------------------------------------------------------------------


def clip_paths(arguments: Sequence[Path]) -> list[Path]:
    """The clips that files and folders stand for, each once, in the order given.

    A file is taken whatever it is called. Of a folder and those below it, files with one of ``VIDEO_SUFFIXES`` are
    taken in the order of their paths; what begins with a dot is passed over, and links to folders are not followed.

    Raises:
        OptionError: something does not exist, a folder holds no clip, or nothing was given.
    """
    found: dict[Path, Path] = {}
    for argument in map(Path, arguments):
        if argument.is_dir():
            clips = sorted(_videos(argument))
            if not clips:
                raise OptionError(f"{argument}: no clip in this folder; looked for *{', *'.join(VIDEO_SUFFIXES)}")
        elif argument.is_file():
            clips = [argument]
        else:
            what = "neither a file nor a folder" if argument.exists() else "no such file or folder"
            raise OptionError(f"{argument}: {what}; give clips or folders of clips")
        for clip in clips:
            found.setdefault(clip.resolve(), clip)
    if not found:
        raise OptionError("no clips were given; give video files or folders of them")
    return list(found.values())


def _videos(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(place, name)
            if not name.startswith(".") and path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
                yield path


def clip_names(paths: Sequence[Path]) -> list[str]:
    """A name for each clip, no two alike: its stem; where others share it, with its folder, or with its whole path."""
    names = [path.stem for path in paths]
    for longer in (lambda p: f"{p.resolve().parent.name}/{p.stem}", lambda p: f"{p.resolve().parent.name}/{p.name}"):
        shared = {name for name, count in Counter(names).items() if count > 1}
        names = [longer(p) if n in shared else n for p, n in zip(paths, names, strict=True)]
    shared = {name for name, count in Counter(names).items() if count > 1}
    return [str(p.resolve()) if n in shared else n for p, n in zip(paths, names, strict=True)]


# --- cutting ----------------------------------------------------------------------------------------------------------


class _Growing:
    """One track while it lasts: its small data, and its crops on the grid."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float, TrackedFace]] = []
        self.crops: list[dict[str, np.ndarray]] = []
        self.feeder = GridFeeder(self.crops.append)


def cut_clip(
    path: Path,
    *,
    detector: Detector | None,
    boxes_csv: Path | None = None,
    labels_csv: Path | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    max_seconds: float = 60.0,
    name: str | None = None,
) -> list[CutTrack]:
    """Find, follow and cut the faces of a clip.

    Args:
        path: the clip. Where the table of mouths of a generated clip (``NAME.mouths.csv``) lies beside it, label and
            mouth come from there.
        detector: of faces. With ``boxes_csv`` it only supplies landmarks, and may be None.
        boxes_csv: faces in AVA's or WASD's format instead of detections.
        labels_csv: labels in AVA's format, matched to the faces by overlap; where it has rows for the clip, they go
            before the labels of the table of mouths.
        start_s, end_s: the piece that is wanted, seconds from the clip's first frame.
        max_seconds: only so much of the piece, from its beginning.
        name: of the clip; its file's stem unless given.

    Returns:
        The tracks in order of their ids; none where there is no face.

    Raises:
        ClipError: the clip cannot be read, or has nothing in that piece.
        BoxesError: a csv or table is malformed.
        OptionError: the piece makes no sense, or there is neither a detector nor a csv of boxes.
    """
    path = Path(path)
    if detector is None and boxes_csv is None:
        raise OptionError(f"{path}: faces come from a detector or from a csv of boxes; give one")
    if not 0 < max_seconds < math.inf:
        raise OptionError(f"max_seconds is {max_seconds}: give a number of seconds above 0")
    last_s = min(start_s + max_seconds, math.inf if end_s is None else end_s)
    with VideoReader(path, start_s=start_s, end_s=last_s, threads=1) as reader:
        info = reader.info
        asked_s = info.duration_s if end_s is None else end_s
        if asked_s is not None and min(asked_s, info.duration_s or asked_s) > last_s + 0.5 / float(info.fps):
            log.info("%s: only %g s from second %g on are looked at", path, max_seconds, start_s)
        table = path.with_suffix(".mouths.csv")
        generated = table.is_file()
        people = read_mouths(table) if generated else []
        labelled = [] if labels_csv is None else read_labels(labels_csv, info)
        tracker = FaceTracker(info.width, info.height) if boxes_csv is None else CsvTracker(boxes_csv, None, info)
        growing, spotted = _follow(reader, detector, tracker, spot=boxes_csv is not None)
    tracks = []
    audio = load_audio(path, start_s=start_s, end_s=last_s)
    with nullcontext() if audio is None else closing(audio):
        for track_id in sorted(growing):
            one = growing.pop(track_id)
            track = Track.from_frames(track_id, one.seen)
            grid = TimeGrid(track.times_s)
            source = grid.source_of_grid
            boxes, shown_s = track.boxes[source], track.times_s[source] - info.start_s
            landmarks = track.landmarks if boxes_csv is None else _borrowed(track, spotted)
            truth, mouths = match_people(shown_s, boxes, people)
            if labelled:
                truth, _ = match_people(shown_s, boxes, labelled)
            tracks.append(
                CutTrack(
                    clip=path.stem if name is None else name,
                    kind=TALKING if generated else REAL,
                    track_id=track_id,
                    times_s=grid.grid_s - info.start_s,
                    size=(info.width, info.height),
                    boxes=boxes,
                    landmarks=_unknown(len(source)) if landmarks is None else landmarks[source],
                    faces={geometry: np.stack([crops[geometry] for crops in one.crops]) for geometry in GEOMETRIES},
                    body=np.stack([crops["body"] for crops in one.crops]),
                    mfcc=None if audio is None else aligned_mfcc(audio, grid.start_s, len(source)).numpy(),
                    truth=truth,
                    mouths=mouths,
                )
            )
    if not tracks:
        log.warning("%s: no face found", path)
    return tracks


def _unknown(length: int) -> np.ndarray:
    return np.full((length, 5, 2), np.nan, np.float32)


def _crops(frame: Frame, face: TrackedFace, size: tuple[int, int]) -> dict[str, np.ndarray]:
    luma = frame.luma()
    cut = {geometry: crop(luma, face.box, geometry) for geometry in GEOMETRIES}
    return cut | {"body": crop(luma, body_box(face.box, *size), BODY_GEOMETRY)}


def _follow(
    reader: VideoReader, detector: Detector | None, tracker: FaceTracker | CsvTracker, *, spot: bool
) -> tuple[dict[int, _Growing], dict[int, tuple[TrackedFace, ...]]]:
    """Decode once: the tracks by id, and with ``spot`` what the detector followed besides, by source frame."""
    info = reader.info
    shots, schedule = ShotDetector(), DetectionSchedule()
    shot_size = shots.working_size(info.width, info.height)
    size = None if detector is None else detector.working_size(info.width, info.height)
    spotter = FaceTracker(info.width, info.height) if spot and detector is not None else None
    growing: dict[int, _Growing] = {}
    present: set[int] = set()
    spotted: dict[int, tuple[TrackedFace, ...]] = {}
    waiting: dict[int, Frame] = {}

    def take(final: FrameTracks) -> None:
        frame = waiting.pop(final.index)
        now = {face.track_id for face in final.faces}
        for track_id in present - now:
            growing[track_id].feeder.flush()  # a track that has ended holds no picture
        present.clear()
        present.update(now)
        for face in final.faces:
            one = growing.setdefault(face.track_id, _Growing())
            one.seen.append((final.index, final.time_s, face))
            one.feeder.push(final.time_s, partial(_crops, frame, face, (info.width, info.height)))

    for frame in reader:
        waiting[frame.index] = frame
        cut = shots.push(frame.bgr(*shot_size), frame.time_s)
        found = None
        if size is not None and schedule.due(frame.time_s, cut=cut):
            found = detector.detect(frame.bgr(*size), info.width / size[0], info.height / size[1])
        for final in tracker.push(frame.index, frame.time_s, found, cut):
            take(final)
        if spotter is not None:
            spotted |= {f.index: f.faces for f in spotter.push(frame.index, frame.time_s, found, cut)}
    for final in tracker.flush():
        take(final)
    if spotter is not None:
        spotted |= {f.index: f.faces for f in spotter.flush()}
    for one in growing.values():
        one.feeder.flush()
    return growing, spotted


def _borrowed(track: Track, spotted: dict[int, tuple[TrackedFace, ...]]) -> np.ndarray:
    """(N, 5, 2) landmarks of a track of given boxes, from the detected faces that overlap it; NaN where none does."""
    landmarks = np.full((len(track), 5, 2), np.nan, np.float32)
    for row, index in enumerate(track.frames):
        faces = [face for face in spotted.get(int(index), ()) if face.landmarks is not None]
        overlaps = [iou(track.boxes[row], face.box) for face in faces]
        if faces and max(overlaps) >= LEAST_IOU:
            landmarks[row] = faces[int(np.argmax(overlaps))].landmarks
    return landmarks


# --- the generated corpus ---------------------------------------------------------------------------------------------


def corpus_tracks(entry: ClipEntry, folder: Path | None = None) -> list[CutTrack]:
    """The tracks of a clip of :func:`asd_explain.datasets.talking_corpus.talking_entries`; no video is made.

    Crops come from the corpus's cache, where they are cut once from the drawn pictures; truth is that of the corpus
    (unknown within 80 ms of a change). Mouths and landmarks follow from the scene's poses, so they are exact; the boxes
    are, as there, those that a tracked detector might have given.

    Args:
        entry: the clip.
        folder: of the cache; the default of ``tools/evaluate_networks.py`` unless given.

    Raises:
        OptionError: the entry is none of the corpus.
        AsdExplainError: the ``demo`` extra, which makes the voices, is not installed.
    """
    clips = TalkingClipCache(cache_dir() / "corpus" if folder is None else folder).get(entry)
    split, _, index = entry.name.removeprefix(f"{GROUP}/").rpartition("_")
    points = ScenePoints(talking_scene(split, int(index))[0])
    tracks = []
    for clip in clips:
        mouths, landmarks = points.of(*divmod(clip.track_id, 10), clip.times_s)
        tracks.append(
            CutTrack(
                clip=entry.name,
                kind=TALKING,
                track_id=clip.track_id,
                times_s=clip.times_s,
                size=clip.size,
                boxes=clip.boxes,
                landmarks=landmarks,
                faces=clip.faces,
                body=clip.bodies,
                mfcc=clip.mfcc if clip.has_audio else None,
                truth=clip.truth,
                mouths=mouths,
                decisive=known_decisive(clip.kind, clip.truth, clip.talking, voiced_frames(clip.mfcc)),
            )
        )
    return tracks
