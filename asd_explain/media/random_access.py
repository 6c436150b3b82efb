"""Pictures of single moments: by index or by time, in any order.

Two backends give the same: decord (where it can be installed) and PyAV (everywhere). Presentation times never come from
decord, which counts from zero and in float32, but from the container's own timestamps; and decord's pictures are used
only where they have been checked, because its seeking silently lands on wrong frames in many files.
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
from asd_explain.media.container import decode_packets, open_container, set_threads, ticks_to_s, video_stream
from asd_explain.media.frame import Converter, Frame
from asd_explain.media.joints import joints_of, packets_of
from asd_explain.media.probing import UNSPECIFIED, ClipInfo, probe
from asd_explain.media.reader import VideoReader

log = logging.getLogger(__name__)

# Luma of RGB: ITU-R BT.601, BT.709, BT.2020, SMPTE 240M, FCC (red, green, blue).
_LUMA_WEIGHTS = {
    "bt601": (0.299, 0.587, 0.114),
    "bt709": (0.2126, 0.7152, 0.0722),
    "bt2020": (0.2627, 0.6780, 0.0593),
    "smpte240m": (0.212, 0.701, 0.087),
    "fcc": (0.30, 0.59, 0.11),
}
#: Mean difference (levels) up to which two RGB pictures are the same frame; they are equal as a rule.
_SAME_PICTURE = 0.5
#: Levels by which swscale's YUV to RGB tables round down on average.
_TABLE_BIAS = 1.0


class RandomAccess:
    """Frames of a clip by index or time.

    Indices and times are those of :class:`~asd_explain.media.reader.VideoReader` over the whole clip.

    Args:
        path: the clip.
        backend: "pyav": PyAV alone. "auto", "decord": decord for every group of pictures in which it proves itself,
            PyAV for the rest; with "auto" it may be missing, with "decord" it must be there and open the clip.
        threads: decoder threads, 0 for as many as there are cores.

    Attributes:
        times_s: (N,) float64 presentation times in seconds, container clock, increasing.
        info: properties of the clip.
        backend: the backend in use, "decord" or "pyav".

    Raises:
        ClipError: as :func:`~asd_explain.media.probing.probe`; or ``backend="decord"`` cannot serve this clip.
        OptionError: unknown backend.
    """

    def __init__(self, path: str | Path, backend: str = "auto", threads: int = 0) -> None:
        if backend not in ("auto", "decord", "pyav"):
            raise OptionError(f"backend {backend!r}: choose auto, decord or pyav")
        self.path = Path(path)
        self.info = probe(self.path)
        self._index = _Index(self.path, threads)
        self.times_s = self._index.times_s
        self._convert = Converter(self.info)
        self._decord: _Decord | None = None
        if backend != "pyav":
            try:
                if not self._index.exact:
                    raise _UnsuitableError("its timestamps are not clean")
                self._decord = _Decord(self.path, self.info, self.times_s, threads)
            except _UnsuitableError as reason:
                if backend == "decord":
                    raise ClipError(f"{self.path}: decord cannot serve it ({reason}); use the pyav backend") from reason
                log.debug("%s: random access by PyAV, because %s", self.path, reason)
        self.backend = "pyav" if self._decord is None else "decord"

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
            ClipError: a frame cannot be decoded.
        """
        wanted = self._check(indices)
        out = np.empty((len(wanted), self.info.height, self.info.width, 3), np.uint8)
        for rows, picture in self._pictures(wanted):
            out[rows] = picture.rgb() if isinstance(picture, Frame) else self._decord.rgb(picture)
        return out

    def luma(self, indices: Sequence[int]) -> np.ndarray:
        """(n, H, W) uint8 full-range gray, upright, of the frames ``indices`` in the order given.

        decord delivers RGB only, from which luma is computed: at most 1 level from PyAV's on average over a picture,
        and within 4 except for saturated colours, which RGB cannot hold.

        Raises:
            IndexError: an index outside 0..N-1.
            ClipError: a frame cannot be decoded.
        """
        out = np.empty((len(self._check(indices)), self.info.height, self.info.width), np.uint8)
        for rows, luma in self.each_luma(indices):
            out[rows] = luma
        return out

    def each_luma(self, indices: Sequence[int]) -> Iterator[tuple[list[int], np.ndarray]]:
        """The pictures of :meth:`luma` one by one, each decoded once, for what would not fit in memory together.

        Yields:
            the places in ``indices`` that name a frame, and its (H, W) uint8 luma, which is not to be written into.

        Raises:
            IndexError: an index outside 0..N-1.
            ClipError: a frame cannot be decoded.
        """
        for rows, picture in self._pictures(self._check(indices)):
            yield rows, picture.luma() if isinstance(picture, Frame) else self._decord.luma(picture)

    def _check(self, indices: Sequence[int]) -> np.ndarray:
        wanted = np.asarray(indices, np.int64).reshape(-1)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"frame index outside 0..{len(self) - 1}")
        return wanted

    def _pictures(self, wanted: np.ndarray) -> Iterator[tuple[list[int], Frame | np.ndarray]]:
        """The wanted pictures in order of time, each with its rows in ``wanted``: decord's array or PyAV's frame."""
        rows: dict[int, list[int]] = {}
        for row, index in enumerate(wanted.tolist()):
            rows.setdefault(index, []).append(row)
        left = sorted(rows)
        if self._decord is not None:
            doubtful = [index for index in left if not self._trusted(index)]
            for index in sorted(set(left) - set(doubtful)):
                picture = self._decord.get(index)
                if picture is None:
                    doubtful.append(index)
                else:
                    yield rows[index], picture
            left = sorted(doubtful)
        for index, frame in self._index.decode(left):
            yield rows[index], Frame(frame, index, float(self.times_s[index]), self._convert)

    def _trusted(self, index: int) -> bool:
        """Whether decord may serve frame ``index``: compared once a group of pictures, at its first picture."""
        key = self._decord.key_of(index)
        if key not in self._decord.verdicts:
            frame = next((frame for _, frame in self._index.decode([key])), None)
            reference = None if frame is None else self._convert.for_decord(frame)
            self._decord.verify(key, reference)
            if not self._decord.verdicts[key]:
                log.debug("%s: decord is wrong from frame %d on; PyAV reads that part", self.path, key)
        return self._decord.verdicts[key]


class _UnsuitableError(Exception):
    """decord cannot serve a clip; the message says why."""


def _import_decord() -> ModuleType:
    """decord, imported when first used: it is absent on some machines and slow to load."""
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    return decord


class _Decord:
    """decord's reader with a record of where it can be believed.

    decord 0.6 counts keyframes in decoding order and trusts its seeks, so that with open groups of pictures, fragmented
    MP4 or program streams it returns other frames than those asked for, silently. Reading on from a frame that is
    right stays right until the next keyframe, where decord seeks again; so each group of pictures (by decord's own
    list of keyframes) has to be checked once, at its first picture.

    Raises:
        _UnsuitableError: it is not installed, does not open the clip, or counts other frames or times.
    """

    def __init__(self, path: Path, info: ClipInfo, times_s: np.ndarray, threads: int) -> None:
        try:
            decord = _import_decord()
        except (ImportError, OSError) as error:
            raise _UnsuitableError("decord is not installed") from error
        self._errors = (decord.DECORDError, RuntimeError, ValueError, IndexError)
        try:
            self._reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=threads)
            count = len(self._reader)
            self._keys = np.asarray(self._reader.get_key_indices(), np.int64)
            starts_s = self._reader.get_frame_timestamp(np.arange(count))[:, 0].astype(np.float64)
        except self._errors as error:
            raise _UnsuitableError("decord cannot open it") from error
        if count != len(times_s):
            raise _UnsuitableError(f"decord counts {count} frames instead of {len(times_s)}")
        if len(self._keys) == 0 or self._keys[0] != 0:
            raise _UnsuitableError("decord finds no keyframe at its beginning")
        # decord counts from the stream's start, in float32.
        step_s = float(np.diff(times_s).min()) if count > 1 else 1.0
        if np.abs(starts_s - starts_s[0] - (times_s - times_s[0])).max() > step_s / 2:
            raise _UnsuitableError("decord's times disagree with the container's")
        self._info = info
        self._shape = (info.height, info.width, 3)
        # Where the clip does not name its matrix, decord takes BT.601.
        self.matrix = "bt601" if info.colorspace == UNSPECIFIED else info.matrix
        self.verdicts: dict[int, bool] = {}

    def key_of(self, index: int) -> int:
        """The keyframe from which decord reaches frame ``index``."""
        return int(self._keys[np.searchsorted(self._keys, index, side="right") - 1])

    def verify(self, key: int, reference: np.ndarray | None) -> None:
        """Compare the picture at a keyframe with PyAV's, converted to RGB as decord does."""
        # Read elsewhere first: decord must get there by seeking, as it will later, not by reading on.
        self.get(key + 1 if key + 1 < len(self._reader) else 0)
        picture = self.get(key)
        if picture is None or reference is None or picture.shape != reference.shape:
            self.verdicts[key] = False
            return
        difference = cv2.absdiff(np.ascontiguousarray(picture), np.ascontiguousarray(reference)).mean()
        self.verdicts[key] = bool(difference <= _SAME_PICTURE)

    def get(self, index: int) -> np.ndarray | None:
        """(H, W, 3) uint8 RGB in decord's matrix, or None where decord fails."""
        try:
            picture = self._reader[index].asnumpy()
        except self._errors as error:
            log.debug("decord failed at frame %d: %s", index, error)
            return None
        return picture if picture.shape == self._shape else None

    def rgb(self, picture: np.ndarray) -> np.ndarray:
        """The picture in RGB of the clip's own matrix."""
        if self.matrix == self._info.matrix:
            return picture
        change = np.linalg.inv(_ycc_of_rgb(self._info.matrix)) @ _ycc_of_rgb(self.matrix)
        return cv2.transform(picture, change.astype(np.float32))

    def luma(self, picture: np.ndarray) -> np.ndarray:
        """(H, W) uint8 full-range luma; the constant undoes the rounding down in swscale's tables."""
        weights = np.array([[*_LUMA_WEIGHTS[self.matrix], _TABLE_BIAS]], np.float32)
        return cv2.transform(picture, weights)


def _ycc_of_rgb(matrix: str) -> np.ndarray:
    """(3, 3) from RGB to YCbCr of a matrix, both full range and without offset (ITU-T H.273, table 4)."""
    red, green, blue = _LUMA_WEIGHTS[matrix]
    luma = np.array([red, green, blue])
    return np.stack(
        [luma, (np.array([0, 0, 1]) - luma) / (2 * (1 - blue)), (np.array([1, 0, 0]) - luma) / (2 * (1 - red))]
    )


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
            if joints_of(self._path, container) is not None:
                return None
            try:
                for packet in packets_of(container, [stream], self._path):
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
                for frame in decode_packets(container, stream, self._path):
                    index = place.get(frame.pts)
                    if index is None or index < indices[target]:
                        continue
                    if index > indices[target]:
                        break  # the seek came too late
                    yield index, frame
                    target += 1
                    if target == len(indices) or self._seek_is_cheaper(index, indices[target]):
                        return
                if target:
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
