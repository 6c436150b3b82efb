"""Tracks straight from the videos, without a dump: frames by random access, sound cut from the track.

A clip of half a minute (WASD) is opened in a moment; a feature film (AVA) has to be indexed once a worker and takes
longer, so that a dump (``tools/prepare.py``) pays off where every epoch visits it in random order.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from asd_explain.datasets.dumped import TAIL_S, as_input, fit_span, pixel_box
from asd_explain.datasets.entities import DataError, EntityClip, EntityRow, sample_span
from asd_explain.errors import ClipError
from asd_explain.grid import nearest
from asd_explain.media.audio import RATE, Audio, load_audio
from asd_explain.media.probing import ClipInfo, probe
from asd_explain.media.random_access import RandomAccess
from asd_explain.tracks.crops import CROP_SIZE

_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".ts", ".wmv", ".3gp")
_OPEN_VIDEOS = 8
_SHORT_S = 300.0
"""Of videos up to this length a worker keeps the whole sound; of longer ones it decodes the track's piece."""
_T = TypeVar("_T")


def find_videos(folder: Path) -> dict[str, Path]:
    """Videos under a folder by the stem of their names; the first in order of path where several share one.

    Raises:
        DataError: there is no such folder, or no video in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of videos")
    found: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix.lower() in _SUFFIXES and not name.startswith("."):
                found.setdefault(path.stem, path)
    if not found:
        raise DataError(f"{folder}: no video in it ({', '.join(_SUFFIXES)})")
    return found


def frames_of(times_s: np.ndarray, wanted_s: np.ndarray, fps: float) -> np.ndarray:
    """Number of the frame shown at each time, -1 where the video has none.

    A frame counts up to one frame period and the csv's 10 ms of rounding from its own time.

    Args:
        times_s: (N,) presentation times of the frames, seconds, increasing.
        wanted_s: (T,) seconds on the same clock.
        fps: the video's average rate, frames a second.
    """
    found = nearest(times_s, wanted_s)
    return np.where(np.abs(times_s[found] - wanted_s) <= 1 / fps + 0.0101, found, -1)


def span_of(audio: Audio | None, row: EntityRow, where: Path) -> np.ndarray:
    """(N,) float32 in [-1, 1]: a track's sound, of its video's.

    Raises:
        DataError: there is no sound, or it does not reach over the track; names the video.
    """
    if audio is None:
        raise DataError(f"{where}: it has no sound, which {row.entity_id} needs")
    first, count = sample_span(row)
    first -= round(audio.start_s * RATE)
    if first < -TAIL_S * RATE:
        raise DataError(f"{where}: its sound begins at {audio.start_s:.2f} s, after {row.entity_id}")
    low, high = min(max(first, 0), len(audio.waveform)), min(first + count, len(audio.waveform))
    waveform = np.array(audio.waveform[low : max(low, high)], np.float32)
    return fit_span(np.pad(waveform, (max(0, -first), 0)), row, where)


class Videos:
    """Crops and sound of tracks, from the videos that they were annotated in.

    Picklable: files are opened where they are used, the last few videos stay open in each process.

    Args:
        paths: the videos by video id.
        backend: of ``RandomAccess``: "auto" takes decord where it is right.
    """

    def __init__(self, paths: dict[str, Path], backend: str = "auto") -> None:
        self.paths = {name: Path(path) for name, path in paths.items()}
        self.backend = backend
        self._inherited: list[object] = []
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._opened: OrderedDict[str, RandomAccess] = OrderedDict()
        self._heard: OrderedDict[str, Audio | None] = OrderedDict()
        self._infos: dict[str, ClipInfo] = {}

    def __getstate__(self) -> dict:
        return {"paths": self.paths, "backend": self.backend}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def path(self, row: EntityRow) -> Path:
        """The video of a track.

        Raises:
            DataError: there is none.
        """
        if row.video_id not in self.paths:
            raise DataError(f"no video named {row.video_id} for {row.entity_id} among the {len(self.paths)} given")
        return self.paths[row.video_id]

    def load(self, row: EntityRow, with_body: bool) -> EntityClip:
        """Cut one track out of its video.

        Raises:
            DataError: the video, its sound, a frame or a box is missing; the message names the video.
        """
        return self._told(row, lambda path: self._load(row, path, with_body))

    def sound(self, row: EntityRow) -> np.ndarray:
        """(N,) float32 in [-1, 1]: a track's sound.

        Raises:
            DataError: the video or its sound is missing; the message names the video.
        """
        return self._told(row, lambda path: span_of(self._audio(row, path), row, path))

    def _told(self, row: EntityRow, work: Callable[[Path], _T]) -> _T:
        """``work`` on a track's video in this process; what is wrong with the video is told as a fault of the data."""
        path = self.path(row)
        if self._process != os.getpid():
            # A forked worker: decoders' threads stayed behind, so the parent's are neither used nor, which would wait
            # for those threads, taken down.
            self._inherited.append(self._opened)
            self._forget()
        try:
            return work(path)
        except ClipError as error:
            raise DataError(f"{error} (needed for {row.entity_id})") from error

    def _load(self, row: EntityRow, path: Path, with_body: bool) -> EntityClip:
        video = _kept(self._opened, row.video_id, lambda: RandomAccess(path, self.backend, threads=1))
        frames = frames_of(video.times_s, row.timestamps_s, float(video.info.fps))
        if (frames < 0).any():
            at = row.timestamps_s[int(np.flatnonzero(frames < 0)[0])]
            raise DataError(f"{path}: no frame at {at:.2f} s, where {row.entity_id} has one")
        waveform = span_of(self._audio(row, path), row, path)
        kinds = [("face", row.boxes), ("body", row.body_boxes)][: 2 if with_body else 1]
        crops = [np.empty((len(row), CROP_SIZE, CROP_SIZE), np.uint8) for _ in kinds]
        for places, luma in video.each_luma(frames):
            for out, (kind, boxes) in zip(crops, kinds, strict=True):
                for k in places:
                    out[k] = as_input(cut_box(luma, boxes, k, kind, row, path))
        return EntityClip(row, crops[0], crops[1] if with_body else None, waveform, row.labels, row.fps)

    def _audio(self, row: EntityRow, path: Path) -> Audio | None:
        if row.video_id not in self._infos:
            self._infos[row.video_id] = probe(path)
        info = self._infos[row.video_id]
        if info.duration_s is not None and info.duration_s <= _SHORT_S:
            return _kept(self._heard, row.video_id, lambda: load_audio(path))
        start_s = max(0.0, np.floor(row.timestamps_s[0] - info.start_s) - 2)
        return load_audio(path, start_s=start_s, end_s=max(start_s, row.timestamps_s[-1] - info.start_s) + 2)


def cut_box(luma: np.ndarray, boxes: np.ndarray | None, k: int, kind: str, row: EntityRow, where: Path) -> np.ndarray:
    """(h, w) uint8: the frame's part in box ``k`` of a track, not to be written into.

    Raises:
        DataError: the track has no such box.
    """
    if boxes is None or not np.isfinite(boxes[k]).all():
        raise DataError(f"{where}: {row.entity_id} has no {kind} box at {row.timestamps_s[k]:.2f} s")
    x1, y1, x2, y2 = pixel_box(boxes[k], luma.shape[1], luma.shape[0])
    return luma[y1:y2, x1:x2]


def _kept(cache: OrderedDict[str, _T], key: str, make: Callable[[], _T]) -> _T:
    """``cache[key]``, made where it is missing; the one used longest ago is closed beyond ``_OPEN_VIDEOS``."""
    if key not in cache:
        cache[key] = make()
        while len(cache) > _OPEN_VIDEOS:
            _, old = cache.popitem(last=False)
            if old is not None:
                old.close()
    cache.move_to_end(key)
    return cache[key]


def videos_of(rows: Iterable[EntityRow]) -> dict[str, list[EntityRow]]:
    """Tracks by video, in order of first appearance."""
    out: dict[str, list[EntityRow]] = {}
    for row in rows:
        out.setdefault(row.video_id, []).append(row)
    return out
