"""Pictures of single moments: by index or by time, in any order.

Two backends give the same: decord (fast, where it can be installed) and PyAV (everywhere). Presentation times never
come from decord, which counts from zero and in float32, but from the container's own timestamps; decord is used only
where its frame count and its times agree with them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import av
import cv2
import numpy as np

from asd_explain.errors import ClipError, OptionError
from asd_explain.grid import nearest
from asd_explain.media.reader import (
    Frame,
    VideoReader,
    _Converter,
    decode_packets,
    open_container,
    probe,
    set_threads,
    ticks_to_s,
    video_stream,
)

log = logging.getLogger(__name__)

# Luma of RGB: ITU-R BT.601, BT.709, BT.2020, SMPTE 240M, FCC (red, green, blue).
_LUMA_WEIGHTS = {
    "bt601": (0.299, 0.587, 0.114),
    "bt709": (0.2126, 0.7152, 0.0722),
    "bt2020": (0.2627, 0.6780, 0.0593),
    "smpte240m": (0.212, 0.701, 0.087),
    "fcc": (0.30, 0.59, 0.11),
}


class RandomAccess:
    """Frames of a clip by index or time.

    Indices and times are those of :class:`~asd_explain.media.reader.VideoReader` over the whole clip.

    Args:
        path: the clip.
        backend: "decord", "pyav", or "auto": decord where it is installed and agrees with the container's times.
        threads: decoder threads, 0 for as many as there are cores.

    Attributes:
        times_s: (N,) float64 presentation times in seconds, container clock, increasing.
        info: properties of the clip.
        backend: the backend in use.

    Raises:
        ClipError: as :func:`~asd_explain.media.reader.probe`; or ``backend="decord"`` cannot serve this clip.
        OptionError: unknown backend.
    """

    def __init__(self, path: str | Path, backend: str = "auto", threads: int = 0) -> None:
        if backend not in ("auto", "decord", "pyav"):
            raise OptionError(f"backend {backend!r}: choose auto, decord or pyav")
        self.path = Path(path)
        self.info = probe(self.path)
        self._threads = threads
        self._index = _Index(self.path, threads)
        self.times_s = self._index.times_s
        self._convert = _Converter(self.info)
        self._decord = None
        self.backend = "pyav"
        if backend != "pyav":
            try:
                self._decord = self._open_decord()
                self.backend = "decord"
            except _UnsuitableError as reason:
                if backend == "decord":
                    raise ClipError(f"{self.path}: decord cannot serve it ({reason}); use the pyav backend") from reason
                log.debug("%s: random access by PyAV, because %s", self.path, reason)

    def __len__(self) -> int:
        return len(self.times_s)

    def __enter__(self) -> RandomAccess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._decord = None

    def at(self, time_s: float) -> int:
        """Index of the frame nearest to ``time_s`` (container clock); ties go to the earlier."""
        return int(nearest(self.times_s, np.array([time_s]))[0])

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """(n, H, W, 3) uint8 RGB, upright, of the frames ``indices`` in the order given.

        Raises:
            IndexError: an index outside 0..N-1.
        """
        wanted = self._check(indices)
        out = np.empty((len(wanted), self.info.height, self.info.width, 3), np.uint8)
        if self._decord is not None:
            if len(wanted):
                out[:] = self._decord_rgb(wanted)
            return out
        for row, frame in self._pyav(wanted):
            out[row] = frame.rgb()
        return out

    def luma(self, indices: Sequence[int]) -> np.ndarray:
        """(n, H, W) uint8 full-range gray, upright. With decord it is computed from RGB: within 3 levels of PyAV's
        on all but saturated colours, whose RGB is clipped.

        Raises:
            IndexError: an index outside 0..N-1.
        """
        wanted = self._check(indices)
        out = np.empty((len(wanted), self.info.height, self.info.width), np.uint8)
        if self._decord is not None:
            if len(wanted):
                weights = np.array([_LUMA_WEIGHTS[self.info.matrix]], np.float32)
                for row, rgb in enumerate(self._decord_rgb(wanted)):
                    out[row] = cv2.transform(rgb, weights)
            return out
        for row, frame in self._pyav(wanted):
            out[row] = frame.luma()
        return out

    def _check(self, indices: Sequence[int]) -> np.ndarray:
        wanted = np.asarray(indices, np.int64).reshape(-1)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"frame index outside 0..{len(self) - 1}")
        return wanted

    # decord

    def _open_decord(self) -> object:
        try:
            decord = _import_decord()
        except (ImportError, OSError) as error:
            raise _UnsuitableError("decord is not installed") from error
        try:
            reader = decord.VideoReader(str(self.path), ctx=decord.cpu(0), num_threads=self._threads)
            count = len(reader)
            shape = reader[0].shape[:2] if count else ()
            starts_s = reader.get_frame_timestamp(np.arange(count))[:, 0].astype(np.float64) if count else np.zeros(0)
        except (decord.DECORDError, RuntimeError, ValueError, IndexError) as error:
            raise _UnsuitableError("decord cannot open it") from error
        if count != len(self):
            raise _UnsuitableError(f"decord counts {count} frames instead of {len(self)}")
        if tuple(shape) != (self.info.height, self.info.width):
            raise _UnsuitableError(f"decord gives pictures of {shape[::-1]} px")
        # decord counts from the stream's start, in float32.
        offset_s = self.times_s[0] - starts_s[0]
        step_s = np.diff(self.times_s).min() if count > 1 else 1.0
        if np.abs(starts_s + offset_s - self.times_s).max() > step_s / 2:
            raise _UnsuitableError("decord's times disagree with the container's")
        return reader

    def _decord_rgb(self, wanted: np.ndarray) -> np.ndarray:
        """(n, H, W, 3) uint8 RGB."""
        return self._decord.get_batch(wanted.tolist()).asnumpy()

    # PyAV

    def _pyav(self, wanted: np.ndarray) -> Iterator[tuple[int, Frame]]:
        """Pairs of row in ``wanted`` and frame, in order of time, so that nothing is decoded twice."""
        rows: dict[int, list[int]] = {}
        for row, index in enumerate(wanted.tolist()):
            rows.setdefault(index, []).append(row)
        for index, frame in self._index.decode(sorted(rows)):
            picture = Frame(frame, index, float(self.times_s[index]), self._convert)
            for row in rows[index]:
                yield row, picture


class _UnsuitableError(Exception):
    """decord cannot serve a clip; the message says why."""


def _import_decord() -> ModuleType:
    """decord, imported when first used: it is absent on some machines and slow to load."""
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    return decord


class _Index:
    """Presentation times and keyframes of a clip, and decoding of chosen frames.

    A clean stream (every packet stamped, nothing damaged or hidden, a keyframe first) is indexed without decoding, and
    frames are reached by seeking. Any other stream is decoded once for its times, and read from the beginning.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._threads = threads
        scanned = self._scan()
        self.exact = scanned is not None
        if scanned is not None:
            self._pts, self._keys, self.times_s = scanned
        else:
            with VideoReader(path, threads=threads) as reader:
                self.times_s = np.array([frame.time_s for frame in reader], np.float64)

    def _scan(self) -> tuple[list[int], np.ndarray, np.ndarray] | None:
        stamps: list[int] = []
        keys: list[int] = []
        with open_container(self._path) as container:
            stream = video_stream(container, self._path)
            try:
                for packet in container.demux(stream):
                    if packet.size == 0:
                        continue
                    if packet.pts is None or packet.is_corrupt or packet.is_discard:
                        return None
                    if not stamps and not packet.is_keyframe:
                        return None
                    stamps.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append(packet.pts)
            except (av.FFmpegError, OSError):
                return None
            time_base = stream.time_base
        pts = sorted(stamps)
        if not pts or pts[0] != stamps[0] or len(set(pts)) != len(pts):
            return None
        times_s = np.array([ticks_to_s(value, time_base) for value in pts], np.float64)
        return pts, np.searchsorted(np.array(pts), np.array(sorted(keys))), times_s

    def decode(self, indices: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames ``indices`` (increasing) as (index, decoded frame)."""
        if not indices:
            return
        if not self.exact:
            yield from self._walk(indices)
            return
        done = 0
        while done < len(indices):
            delivered = 0
            for index, frame in self._run(indices[done:]):
                yield index, frame
                delivered += 1
            done += delivered
            if delivered == 0:
                raise ClipError(f"{self._path}: frame {indices[done]} cannot be decoded; the file is damaged")

    def _run(self, indices: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames from ``indices[0]`` on for as long as reading on is cheaper than seeking anew."""
        place = {value: index for index, value in enumerate(self._pts)}
        target = 0
        for back_s in (0.0, 2.0, 10.0, None):
            with open_container(self._path) as container:
                stream = video_stream(container, self._path)
                set_threads(stream, self._threads)
                if back_s is not None and indices[0] > 0:
                    goal = max(self._pts[0], self._pts[indices[0]] - int(back_s / stream.time_base))
                    try:
                        container.seek(goal, stream=stream)
                    except (av.FFmpegError, OSError):
                        continue
                late = False
                for frame in decode_packets(container, stream, self._path):
                    index = place.get(frame.pts)
                    if index is None or index < indices[target]:
                        continue
                    if index > indices[target]:
                        late = True
                        break
                    yield index, frame
                    target += 1
                    if target == len(indices) or self._seek_is_cheaper(index, indices[target]):
                        return
                if target or not late:
                    return

    def _seek_is_cheaper(self, here: int, there: int) -> bool:
        """Whether a keyframe lies between two frames far enough apart."""
        return there - here > 50 and int(self._keys[np.searchsorted(self._keys, there, side="right") - 1]) > here

    def _walk(self, indices: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames by counting from the beginning."""
        wanted = set(indices)
        with VideoReader(self._path, threads=self._threads) as reader:
            for frame in reader:
                if frame.index in wanted:
                    yield frame.index, frame.decoded
                if frame.index >= indices[-1]:
                    return
