"""From annotations and videos to the layout of :mod:`asd_explain.datasets.dumped`: one video at a time, verified.

Every video is decoded once; the crops of its tracks go into hidden folders that get their name when they are complete
and have been read back. A track that is complete is left alone, so a run that was cut off goes on where it was.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from scipy.io import wavfile

from asd_explain.datasets.dumped import (
    AUDIOS,
    BODIES,
    FACES,
    crop_name,
    pixel_box,
    read_crop,
    read_wav,
)
from asd_explain.datasets.entities import DataError, EntityRow, sample_span
from asd_explain.datasets.streamed import cut_box, frames_of, span_of
from asd_explain.errors import AsdExplainError
from asd_explain.media.audio import load_audio
from asd_explain.media.probing import probe
from asd_explain.media.random_access import RandomAccess

QUALITY = 95
_DIFFERENCE = 16.0
"""Mean difference, gray levels, beyond which a crop read back is not the one written; JPEG of noise stays below."""


@dataclass(frozen=True)
class VideoJob:
    """The tracks of one video, and where they go.

    Attributes:
        video_id: its name.
        path: the video, or None where it is missing.
        rows: its tracks.
        out: the data set's folder.
        split: train, val or test.
        with_body: cut bodies too.
        overwrite: replace what is there but is not what would be written.
        backend: of ``RandomAccess``.
    """

    video_id: str
    path: Path | None
    rows: tuple[EntityRow, ...]
    out: Path
    split: str
    with_body: bool = False
    overwrite: bool = False
    backend: str = "auto"


@dataclass
class VideoReport:
    """What became of one video's tracks; names are entity ids.

    Attributes:
        video_id: its name.
        made: written now, and verified.
        kept: complete before.
        outside: times, in seconds, at which the video has no frame, by track; such a track is left out.
        no_body: times without a body box, by track; left out where bodies are wanted.
        failed: what is wrong, by track.
        missing_video: the video is not there.
        missing_audio: the video has no sound.
        frames: crops of the tracks made now.
    """

    video_id: str
    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    outside: dict[str, list[float]] = field(default_factory=dict)
    no_body: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    missing_video: bool = False
    missing_audio: bool = False
    frames: int = 0

    @property
    def complete(self) -> set[str]:
        """The tracks that are there, whole."""
        return {*self.made, *self.kept}


def prepare_video(job: VideoJob) -> VideoReport:
    """Write what is missing of one video's tracks. What cannot be made is reported, not raised."""
    cv2.setNumThreads(1)
    report = VideoReport(job.video_id)
    wanted = []
    size = _size(job)
    for row in job.rows:
        state = _state(job, row, size)
        if len({crop_name(t) for t in row.timestamps_s}) < len(row):
            report.failed[row.entity_id] = (
                f"{row.entity_id}: frames less than 10 ms apart would share the name of a crop; such tracks can only "
                "be read straight from the video"
            )
        elif state == "complete":
            report.kept.append(row.entity_id)
        elif state == "other" and not job.overwrite:
            report.failed[row.entity_id] = (
                f"{_folders(job, row)[0][0]}: holds something else, or not all; --overwrite replaces it"
            )
        else:
            wanted.append(row)
    if not wanted:
        return report
    if job.path is None:
        report.missing_video = True
        return report
    for folder in {path.parent for row in wanted for path, _ in _folders(job, row)}:
        for left in folder.glob(".part-*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
    try:
        _make(job, wanted, report)
    except (AsdExplainError, OSError) as error:
        for row in wanted:
            if row.entity_id not in report.complete and row.entity_id not in report.failed:
                report.failed[row.entity_id] = str(error)
    return report


def _folders(job: VideoJob, row: EntityRow) -> list[tuple[Path, np.ndarray]]:
    """Folders of crops of a track, with the boxes."""
    kinds = [(FACES, row.boxes), (BODIES, row.body_boxes)][: 2 if job.with_body else 1]
    return [(job.out / kind / job.split / row.video_id / row.entity_id, boxes) for kind, boxes in kinds]


def _wav(job: VideoJob, row: EntityRow) -> Path:
    return job.out / AUDIOS / job.split / row.video_id / f"{row.entity_id}.wav"


def _size(job: VideoJob) -> tuple[int, int] | None:
    """Width and height of the video, px; None where it is missing or cannot be read (which is found out later)."""
    try:
        info = probe(job.path) if job.path is not None else None
    except AsdExplainError:
        return None
    return None if info is None else (info.width, info.height)


def _state(job: VideoJob, row: EntityRow, size: tuple[int, int] | None) -> str:
    """ "absent", "complete" (all of it is there, can be read and has the boxes' sizes), or "other"."""
    wav, folders = _wav(job, row), _folders(job, row)
    there = [(folder, boxes) for folder, boxes in folders if folder.exists()]
    if not wav.exists() and not there:
        return "absent"
    try:
        if len(read_wav(wav)) != sample_span(row)[1]:
            return "other"
        for folder, boxes in there:
            if not _same_crops(folder, row, boxes, size):
                return "other"
    except (DataError, OSError):
        return "other"
    # Sound gets its name before the crops do: where a folder is missing, a run was cut off.
    return "complete" if len(there) == len(folders) else "absent"


def _same_crops(folder: Path, row: EntityRow, boxes: np.ndarray, size: tuple[int, int] | None) -> bool:
    names = [crop_name(t) for t in row.timestamps_s]
    if {name for name in os.listdir(folder) if not name.startswith(".")} != set(names):
        return False
    for name, box in zip(names, boxes, strict=True):
        height, width = read_crop(folder / name).shape[:2]
        if size is not None:
            x1, y1, x2, y2 = pixel_box(box, *size)
            if (width, height) != (x2 - x1, y2 - y1):
                return False
    return True


def _make(job: VideoJob, wanted: list[EntityRow], report: VideoReport) -> None:
    if not probe(job.path).has_audio or (audio := load_audio(job.path)) is None:
        report.missing_audio = True
        return
    try:
        with RandomAccess(job.path, job.backend, threads=1) as video:
            rows, frames = _placed(wanted, video, job, report)
            sounds = {}
            for row in rows:
                try:
                    sounds[row.entity_id] = span_of(audio, row, job.path)
                except DataError as error:
                    report.failed[row.entity_id] = str(error)
            rows = [row for row in rows if row.entity_id in sounds]
            _write_tracks(job, video, rows, frames, sounds, report)
    finally:
        audio.close()


def _placed(
    wanted: list[EntityRow], video: RandomAccess, job: VideoJob, report: VideoReport
) -> tuple[list[EntityRow], dict[str, np.ndarray]]:
    """The tracks of which the video has every frame and the csv every box, and their frames."""
    rows, frames = [], {}
    for row in wanted:
        found = frames_of(video.times_s, row.timestamps_s, float(video.info.fps))
        boxless = job.with_body and np.isnan(row.body_boxes).any(axis=1)
        if (found < 0).any():
            report.outside[row.entity_id] = [round(float(t), 3) for t in row.timestamps_s[found < 0]]
        elif np.any(boxless):
            report.no_body[row.entity_id] = [round(float(t), 3) for t in row.timestamps_s[boxless]]
        else:
            rows.append(row)
            frames[row.entity_id] = found
    return rows, frames


class _Part:
    """One track's crops on their way: hidden folders that get their names when all is there."""

    def __init__(self, job: VideoJob, row: EntityRow) -> None:
        self.row, self.left, self.wrong = row, len(row), ""
        self.targets = _folders(job, row)
        self.parts = [folder.with_name(f".part-{secrets.token_hex(6)}") for folder, _ in self.targets]
        for part in self.parts:
            part.mkdir(parents=True)

    def add(self, k: int, luma: np.ndarray, where: Path) -> None:
        """Cut frame ``k`` of the track."""
        for part, (folder, boxes) in zip(self.parts, self.targets, strict=True):
            picture = cut_box(luma, boxes, k, folder.parts[-4], self.row, where)
            path = part / crop_name(self.row.timestamps_s[k])
            path.write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())
            back = read_crop(path)
            if back.shape != picture.shape or cv2.absdiff(back, np.ascontiguousarray(picture)).mean() > _DIFFERENCE:
                self.wrong = f"{folder / path.name}: what was written reads back as another picture; is the disk full?"
        self.left -= 1

    def finish(self) -> None:
        """Give the folders their names."""
        for part, (folder, _) in zip(self.parts, self.targets, strict=True):
            if folder.exists():
                shutil.rmtree(folder)
            part.rename(folder)

    def discard(self) -> None:
        """Remove what has no name yet."""
        for part in self.parts:
            shutil.rmtree(part, ignore_errors=True)


def _write_tracks(
    job: VideoJob,
    video: RandomAccess,
    rows: list[EntityRow],
    frames: dict[str, np.ndarray],
    sounds: dict[str, np.ndarray],
    report: VideoReport,
) -> None:
    """Cut all tracks in one pass over the video."""
    users: dict[int, list[tuple[int, int]]] = {}
    for number, row in enumerate(rows):
        for k, frame in enumerate(frames[row.entity_id].tolist()):
            users.setdefault(frame, []).append((number, k))
    wanted = sorted(users)
    parts: dict[int, _Part] = {}
    try:
        for places, luma in video.each_luma(wanted):
            for number, k in (user for place in places for user in users[wanted[place]]):
                part = parts.get(number) or parts.setdefault(number, _Part(job, rows[number]))
                part.add(k, luma, job.path)
                if part.left == 0:
                    _finish(job, part, sounds.pop(part.row.entity_id), report)
                    parts.pop(number).discard()
    finally:
        for part in parts.values():
            part.discard()


def _finish(job: VideoJob, part: _Part, waveform: np.ndarray, report: VideoReport) -> None:
    row = part.row
    if part.wrong:
        report.failed[row.entity_id] = part.wrong
        return
    try:
        write_wav(_wav(job, row), waveform)
        part.finish()
        report.made.append(row.entity_id)
        report.frames += len(row) * len(part.parts)
    except (DataError, OSError) as error:
        report.failed[row.entity_id] = str(error)


def write_wav(path: Path, waveform: np.ndarray) -> None:
    """Write (n,) float32 in [-1, 1] as 16 kHz mono int16 under its name once it reads back the same.

    Raises:
        DataError: it does not.
        OSError: it cannot be written.
    """
    samples = np.clip(np.rint(waveform * 32768), -32768, 32767).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{secrets.token_hex(6)}.wav")
    try:
        wavfile.write(part, 16000, samples)
        if not np.array_equal(read_wav(part), samples):
            raise DataError(f"{path}: what was written reads back as another sound; is the disk full?")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
