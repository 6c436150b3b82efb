"""Streamed decoding of a clip's pictures with their exact presentation times (PyAV).

Conventions of this module, which the rest of the project relies on:

* Times are seconds on the container's clock: ``pts * time_base``, divided once, so that two readers that see the same
  pts give the same float.
* Pictures are upright: the rotation that a phone writes into the display matrix is applied.
* ``Frame.luma`` is full-range gray whatever the clip's own range is; ``Frame.planes`` keeps the clip's range and
  matrix.
* Odd sizes: ``luma`` and ``bgr`` have the exact upright size; ``planes`` repeats the last column or row to make both
  sizes even, because 4:2:0 pictures in H.264 must be even. No pixel moves, so box coordinates stay valid.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from asd_explain.errors import ClipError, OptionError

log = logging.getLogger(__name__)

#: Slack when times are compared, in seconds: far below a frame, above any container's rounding error in float64.
TIME_EPS_S = 1e-6

# AVCOL_SPC_* numbers (ITU-T H.273) -> our names; everything else is unspecified.
_MATRIX_NAMES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
_MATRIX_SWS = {
    "bt601": Colorspace.ITU601,
    "bt709": Colorspace.ITU709,
    "fcc": Colorspace.FCC,
    "smpte240m": Colorspace.SMPTE240M,
    "bt2020": Colorspace.BT2020,
}
# Formats whose first three planes are already 8-bit 4:2:0; yuvj420p is the same memory with full range.
_DIRECT_FORMATS = frozenset({"yuv420p", "yuvj420p", "yuva420p"})
_GRAY_PREFIXES = ("gray", "ya8", "ya16", "mono")
# Demuxers of FFmpeg that turn any text or still picture data into "video".
_TEXT_CODECS = frozenset({"ansi", "bintext", "xbin", "idf"})
#: ITU-T H.273: a colour property that a stream does not state.
UNSPECIFIED = 2


@dataclass(frozen=True)
class ClipInfo:
    """What is known about a clip after its first frame has been decoded.

    Attributes:
        path: the file.
        width: px, upright (after the rotation metadata).
        height: px, upright.
        fps: exact average frame rate, frames a second.
        duration_s: length of the video in seconds, None where the container does not say.
        start_s: presentation time of the first video frame in seconds, container clock.
        rotation: clockwise degrees that were applied to make the picture upright: 0, 90, 180 or 270.
        has_audio: whether there is an audio track.
        full_range: True when luma spans 0..255, False when it spans 16..235.
        matrix: YCbCr matrix: "bt601", "bt709", "bt2020", "fcc" or "smpte240m". Where the clip does not say: bt709 from
            720 lines on, else bt601, as players assume.
        sample_aspect_ratio: width / height of a pixel of the upright picture, 1 where unknown.
        codec: FFmpeg's name of the video codec.
        audio_codec: FFmpeg's name of the audio codec, or None.
        time_base: seconds of one tick of the video stream's clock.
        clock_start_s: earliest start of the video and the audio track in seconds, container clock.
        pixel_format: FFmpeg's name of the decoder's pixel format.
        color_primaries, color_trc, colorspace: the tags as ITU-T H.273 numbers, 2 = unspecified.
        range_tagged: whether the clip itself states its range.
        truncated_at_s: where the pictures break off although the file's index promises more (MP4 and MOV), in seconds
            from the first frame; None for a file that is whole, or has no index.
    """

    path: Path
    width: int
    height: int
    fps: Fraction
    duration_s: float | None
    start_s: float
    rotation: int
    has_audio: bool
    full_range: bool
    matrix: str
    sample_aspect_ratio: Fraction
    codec: str
    audio_codec: str | None
    time_base: Fraction = Fraction(1, 90000)
    clock_start_s: float = 0.0
    pixel_format: str = "yuv420p"
    color_primaries: int = UNSPECIFIED
    color_trc: int = UNSPECIFIED
    colorspace: int = UNSPECIFIED
    range_tagged: bool = False
    truncated_at_s: float | None = None


@dataclass
class Planes:
    """One upright 8-bit 4:2:0 picture of even size, writable.

    Attributes:
        y: (H, W) uint8 luma.
        u: (H/2, W/2) uint8 Cb.
        v: (H/2, W/2) uint8 Cr.
        full_range: True when luma spans 0..255, False when it spans 16..235 (chroma 16..240).
        matrix: YCbCr matrix, as in :class:`ClipInfo`.
    """

    y: np.ndarray
    u: np.ndarray
    v: np.ndarray
    full_range: bool
    matrix: str


def ticks_to_s(ticks: int, time_base: Fraction) -> float:
    """Seconds of ``ticks`` on a clock of ``time_base`` seconds: one correctly rounded division."""
    return ticks * time_base.numerator / time_base.denominator


def expand_luma(luma: np.ndarray) -> np.ndarray:
    """Stretch limited-range luma (H, W) uint8, 16..235, to 0..255; values outside are clipped.

    Equal to the table ``round((y - 16) * 255 / 219)`` for all 256 values; two saturating passes, because they are
    vectorised where a table look-up is not.
    """
    return cv2.convertScaleAbs(cv2.subtract(luma, 16.0), alpha=255.0 / 219.0)


def rotate(plane: np.ndarray, clockwise: int) -> np.ndarray:
    """Turn a picture (H, W, ...) clockwise by 0, 90, 180 or 270 degrees; 0 returns it as it is."""
    if clockwise == 0:
        return plane
    code = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}[clockwise]
    return cv2.rotate(plane, code)


def plane_array(frame: av.VideoFrame, index: int) -> np.ndarray:
    """Plane ``index`` of a decoded 8-bit planar frame as an (h, w) uint8 view without its row padding."""
    plane = frame.planes[index]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]


def _even(plane: np.ndarray, width: int, height: int) -> np.ndarray:
    """A writable contiguous copy of ``plane`` at (height, width), the last column and row repeated where needed."""
    if plane.shape == (height, width):
        return plane.copy()
    pad = ((0, max(0, height - plane.shape[0])), (0, max(0, width - plane.shape[1])))
    return np.ascontiguousarray(np.pad(plane, pad, mode="edge")[:height, :width])


class _Converter:
    """Swscale contexts of one reader, kept from frame to frame; a context serves one call at a time, hence the lock."""

    def __init__(self, info: ClipInfo) -> None:
        self.info = info
        self.coded_size = (info.width, info.height) if info.rotation % 180 == 0 else (info.height, info.width)
        self._contexts: dict[tuple[int, int, str], VideoReformatter] = {}
        self._lock = threading.Lock()
        rgb_or_gray = _kind(info.pixel_format) != "yuv"
        native = ColorRange.JPEG if info.full_range else ColorRange.MPEG
        # swscale reads RGB and gray as full range by nature; for YUV the range has to be said.
        self._range = native
        self._src_matrix = Colorspace.DEFAULT if rgb_or_gray else _MATRIX_SWS[info.matrix]

    def to_420(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame as 8-bit 4:2:0 of the clip's size, range and matrix; itself where it is that already."""
        if frame.format.name in _DIRECT_FORMATS and (frame.width, frame.height) == self.coded_size:
            return frame
        kind = _kind(frame.format.name)
        return self._reformat(
            frame,
            *self.coded_size,
            "gray" if kind == "gray" else "yuv420p",
            src_colorspace=None if kind == "rgb" else self._src_matrix,
            dst_colorspace=_MATRIX_SWS[self.info.matrix],
            src_color_range=ColorRange.JPEG if kind == "rgb" else self._range,
            dst_color_range=self._range,
        )

    def for_decord(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright, in the matrix that decord takes: BT.601 where the clip names none."""
        matrix = Colorspace.ITU601 if self.info.colorspace == UNSPECIFIED else None
        return rotate(self.to_packed(frame, *self.coded_size, "rgb24", matrix), self.info.rotation)

    def to_packed(
        self, frame: av.VideoFrame, width: int, height: int, name: str, src_matrix: int | None = None
    ) -> np.ndarray:
        """(height, width, 3) uint8 in the order of ``name`` ("bgr24" or "rgb24"), not yet rotated."""
        kind = _kind(frame.format.name)
        matrix = self._src_matrix if src_matrix is None else src_matrix
        small = self._reformat(
            frame,
            width,
            height,
            name,
            src_colorspace=None if kind == "rgb" else matrix,
            src_color_range=ColorRange.JPEG if kind == "rgb" else self._range,
            dst_color_range=ColorRange.JPEG,
        )
        plane = small.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, : 3 * width]
        return rows.reshape(height, width, 3) if plane.line_size == 3 * width else rows.copy().reshape(height, width, 3)

    def _reformat(self, frame: av.VideoFrame, width: int, height: int, name: str, **colour: object) -> av.VideoFrame:
        with self._lock:
            context = self._contexts.setdefault((width, height, name), VideoReformatter())
            return context.reformat(
                frame, width, height, name, interpolation=Interpolation.BILINEAR, threads=1, **colour
            )


class Frame:
    """One decoded picture. Pixels are converted when asked for; nothing is copied before.

    Attributes:
        index: number of the frame in the order in which its reader delivered it, from 0.
        time_s: presentation time in seconds, container clock.
        width: px, upright.
        height: px, upright.
    """

    __slots__ = ("_base", "_convert", "_frame", "_luma", "height", "index", "time_s", "width")

    def __init__(self, frame: av.VideoFrame, index: int, time_s: float, convert: _Converter) -> None:
        self._frame = frame
        self._convert = convert
        self._base: av.VideoFrame | None = None
        self._luma: np.ndarray | None = None
        self.index = index
        self.time_s = time_s
        self.width = convert.info.width
        self.height = convert.info.height

    def __repr__(self) -> str:
        return f"Frame(index={self.index}, time_s={self.time_s:.6f}, {self.width}x{self.height})"

    @property
    def decoded(self) -> av.VideoFrame:
        """The decoder's own frame, neither rotated nor converted."""
        return self._frame

    def luma(self) -> np.ndarray:
        """(H, W) uint8 gray, upright, full range (0 black, 255 white). Kept; do not write into it."""
        if self._luma is None:
            info = self._convert.info
            luma = plane_array(self._420(), 0)
            luma = rotate(luma if info.full_range else expand_luma(luma), info.rotation)
            luma.flags.writeable = False
            self._luma = luma
        return self._luma

    def bgr(self, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 BGR, upright, the whole picture scaled to that size by swscale."""
        return self._packed(width, height, "bgr24")

    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright, at the source's size."""
        return self._packed(self.width, self.height, "rgb24")

    def planes(self) -> Planes:
        """A writable upright 4:2:0 copy at even size (last column or row repeated), in the clip's range and matrix."""
        info = self._convert.info
        width, height = self.width + self.width % 2, self.height + self.height % 2
        base = self._420()
        y = _even(rotate(plane_array(base, 0), info.rotation), width, height)
        if base.format.name == "gray":
            u = np.full((height // 2, width // 2), 128, np.uint8)
            return Planes(y, u, u.copy(), info.full_range, info.matrix)
        u, v = (_even(rotate(plane_array(base, index), info.rotation), width // 2, height // 2) for index in (1, 2))
        return Planes(y, u, v, info.full_range, info.matrix)

    def _420(self) -> av.VideoFrame:
        if self._base is None:
            self._base = self._convert.to_420(self._frame)
        return self._base

    def _packed(self, width: int, height: int, name: str) -> np.ndarray:
        rotation = self._convert.info.rotation
        size = (width, height) if rotation % 180 == 0 else (height, width)
        return rotate(self._convert.to_packed(self._frame, *size, name), rotation)


def _kind(pixel_format: str) -> str:
    """How a pixel format carries brightness: "yuv", "rgb" or "gray"."""
    if pixel_format.startswith(_GRAY_PREFIXES):
        return "gray"
    described = av.VideoFormat(pixel_format)
    return "rgb" if described.is_rgb or described.has_palette else "yuv"


def open_container(path: Path) -> av.container.InputContainer:
    """Open a media file for reading.

    Raises:
        ClipError: it does not exist, is not a regular file, may not be read, or is no media file.
    """
    if not path.exists():
        raise ClipError(f"{path}: no such file; give the path of a video file")
    if not path.is_file():
        what = "a directory" if path.is_dir() else "not a regular file"
        raise ClipError(f"{path}: {what}; give the path of a video file")
    if path.stat().st_size == 0:
        raise ClipError(f"{path}: the file is empty; was it copied or downloaded completely?")
    try:
        return av.open(str(path), metadata_errors="replace")
    except PermissionError as error:
        raise ClipError(f"{path}: no permission to read it") from error
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ClipError(
            f"{path}: cannot be read as a video ({reason}); it is no media file, or is damaged or incomplete"
        ) from error


def video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The clip's video track: the first that is neither a cover picture nor text drawn as video.

    Raises:
        ClipError: there is none, or FFmpeg has no decoder for it.
    """
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:
            continue
        if stream.codec_context is None:
            raise ClipError(f"{path}: no decoder for its video track; convert it to H.264 first")
        if stream.codec_context.name not in _TEXT_CODECS:
            return stream
    if container.streams.audio:
        raise ClipError(f"{path}: has sound but no video track; faces are needed")
    raise ClipError(f"{path}: has no video track; give a video file")


def audio_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The audio track that a player would choose, or None."""
    stream = container.streams.best("audio")
    return stream if stream is not None and stream.codec_context is not None else None


def set_threads(stream: av.VideoStream, threads: int) -> None:
    """Let the decoder use ``threads`` threads (0: as many as there are cores) over frames and slices."""
    stream.codec_context.thread_type = "AUTO"
    stream.codec_context.thread_count = threads


def decode_packets(
    container: av.container.InputContainer, stream: av.stream.Stream, path: Path
) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """Decode a stream to its end; damaged packets are skipped with one logged warning, a broken container ends it."""
    damaged = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError) as error:
            log.warning("%s: the %s track breaks off: %s", path, stream.type, error)
            # What the decoder still holds is good: it came from packets read before.
            packet, packets = None, iter(())
            try:
                yield from stream.codec_context.decode(None)
            except av.FFmpegError:
                damaged += 1
        if packet is None:
            break
        try:
            frames = packet.decode()
        except (av.FFmpegError, OSError):
            damaged += 1
            if damaged == 1:
                log.warning("%s: damaged data in the %s track is skipped", path, stream.type)
            continue
        yield from frames
    if damaged > 1:
        log.warning("%s: %d damaged packets in the %s track were skipped", path, damaged, stream.type)


def probe(path: str | Path) -> ClipInfo:
    """Read a clip's properties; decodes its first frame.

    Raises:
        ClipError: missing file, directory, not a media file, audio-only file, no frame that can be decoded.
    """
    path = Path(path)
    with open_container(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = 1
        first = next(decode_packets(container, stream, path), None)
        if first is None:
            raise ClipError(f"{path}: its video track holds no frame that can be decoded")
        return _describe(path, container, stream, first)


def _describe(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, first: av.VideoFrame
) -> ClipInfo:
    """Collect :class:`ClipInfo` from an open container and its first decoded frame."""
    context = stream.codec_context
    audio = audio_stream(container)
    rotation = _upright_rotation(first, path)
    width, height = first.width, first.height
    sar = stream.sample_aspect_ratio or context.sample_aspect_ratio or Fraction(1)
    if rotation % 180:
        width, height = height, width
        sar = 1 / sar if sar > 0 else Fraction(1)
    pixel_format = first.format.name
    kind = _kind(pixel_format)
    colorspace = int(first.colorspace) if kind == "yuv" else UNSPECIFIED
    matrix = _MATRIX_NAMES.get(colorspace)
    if matrix is None:
        colorspace = UNSPECIFIED
        matrix = "bt709" if min(width, height) >= 720 or max(width, height) >= 1280 else "bt601"
    if kind == "rgb":
        # Converted by us, so the output can say how.
        colorspace = 1 if matrix == "bt709" else 6
    full_range = kind != "rgb" and (
        pixel_format.startswith("yuvj")
        or first.color_range == ColorRange.JPEG
        or (kind == "gray" and first.color_range != ColorRange.MPEG)
    )
    time_base = stream.time_base or Fraction(1, 90000)
    start_s = ticks_to_s(first.pts, time_base) if first.pts is not None else 0.0
    clock_start_s = start_s
    if audio is not None and audio.start_time is not None:
        clock_start_s = min(clock_start_s, ticks_to_s(audio.start_time, audio.time_base))
    duration_s = None
    if stream.duration is not None and stream.duration > 0:
        duration_s = ticks_to_s(stream.duration, time_base)
    elif container.duration is not None and container.duration > 0:
        duration_s = container.duration / av.time_base
    return ClipInfo(
        path=path,
        width=width,
        height=height,
        fps=_frame_rate(stream),
        duration_s=duration_s,
        start_s=start_s,
        rotation=rotation,
        has_audio=audio is not None,
        full_range=full_range,
        matrix=matrix,
        sample_aspect_ratio=Fraction(sar) if sar > 0 else Fraction(1),
        codec=context.name,
        audio_codec=audio.codec_context.name if audio is not None else None,
        time_base=time_base,
        clock_start_s=clock_start_s,
        pixel_format=pixel_format,
        color_primaries=int(first.color_primaries),
        color_trc=int(first.color_trc),
        colorspace=colorspace,
        range_tagged=full_range or kind == "rgb" or first.color_range == ColorRange.MPEG,
        truncated_at_s=_truncated_at(path, container, stream),
    )


def _truncated_at(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """Seconds from the start at which the index points beyond the file's end; None when it does not, or there is none.

    Only MP4 and MOV are looked at: their index is written with the file, others are found by scanning what is there.
    """
    entries = stream.index_entries
    if "mp4" not in container.format.name or not len(entries):
        return None
    size = path.stat().st_size
    if entries[-1].pos + entries[-1].size <= size:
        return None
    first = entries[0].timestamp
    lost = next(entry for entry in entries if entry.pos + entry.size > size)
    return ticks_to_s(lost.timestamp - first, stream.time_base)


def _frame_rate(stream: av.VideoStream) -> Fraction:
    """Exact average rate; where the container gives nonsense, FFmpeg's guess, and 25 as the last resort."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and Fraction(1, 100) <= rate <= 1000:
            return Fraction(rate)
    return Fraction(25)


def _upright_rotation(frame: av.VideoFrame, path: Path) -> int:
    """Clockwise degrees that make the frame upright, from its display matrix (FFmpeg counts counter-clockwise)."""
    clockwise = -frame.rotation % 360
    if clockwise % 90:
        log.warning("%s: rotated by %d degrees; only quarter turns are undone", path, clockwise)
        clockwise = round(clockwise / 90) * 90 % 360
    return clockwise


@dataclass
class _Clock:
    """Presentation times of decoded frames, strictly increasing; frames that would not increase are refused."""

    time_base: Fraction
    frame_s: float
    first_s: float
    last_s: float | None = None
    refused: int = field(default=0)

    def time_of(self, frame: av.VideoFrame) -> float | None:
        """Time of ``frame`` in seconds, or None when it does not come after the one before."""
        if frame.pts is not None:
            time_s = ticks_to_s(frame.pts, self.time_base)
        else:
            time_s = self.first_s if self.last_s is None else self.last_s + self.frame_s
        if self.last_s is not None and time_s <= self.last_s:
            self.refused += 1
            return None
        self.last_s = time_s
        return time_s


def check_span(start_s: float | None, end_s: float | None) -> None:
    """Check a piece of a clip, seconds from its first frame.

    Raises:
        OptionError: negative or not finite, or the end does not come after the start.
    """
    for name, value in (("start", start_s), ("end", end_s)):
        if value is not None and (not math.isfinite(value) or value < 0):
            raise OptionError(f"{name} is {value}: give seconds from the clip's first frame, 0 or more")
    if end_s is not None and end_s <= (start_s or 0.0):
        raise OptionError(f"end ({end_s:g} s) must come after start ({start_s or 0.0:g} s)")


class VideoReader:
    """A clip's frames in presentation order, streamed.

    Iterating yields :class:`Frame` with strictly increasing ``time_s``; each iteration decodes anew. Frames that cannot
    be decoded are skipped with one logged warning; a truncated file yields what it holds. Use it as a context manager,
    or call :meth:`close`.

    Args:
        path: the clip.
        start_s: first second wanted, from the clip's first frame; None for the beginning.
        end_s: frames before this second, from the clip's first frame; None for the end.
        threads: decoder threads, 0 for as many as there are cores.

    Raises:
        ClipError: as :func:`probe`; while iterating, when the piece between start and end holds no frame.
        OptionError: start or end make no sense.
    """

    def __init__(
        self, path: str | Path, *, start_s: float | None = None, end_s: float | None = None, threads: int = 0
    ) -> None:
        check_span(start_s, end_s)
        self.path = Path(path)
        self.info = probe(self.path)
        self.start_s = start_s or 0.0
        self.end_s = end_s
        self.threads = threads
        self._containers: list[av.container.InputContainer] = []

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Frames already delivered stay valid."""
        while self._containers:
            self._containers.pop().close()

    def __iter__(self) -> Iterator[Frame]:
        convert = _Converter(self.info)
        first_s = self.info.start_s + self.start_s - TIME_EPS_S
        end_s = math.inf if self.end_s is None else self.info.start_s + self.end_s - TIME_EPS_S
        clock = _Clock(self.info.time_base, float(1 / self.info.fps), self.info.start_s)
        index = 0
        for frame in self._decode():
            time_s = clock.time_of(frame)
            if time_s is None or time_s < first_s:
                continue
            if time_s >= end_s:
                break
            yield Frame(frame, index, time_s, convert)
            index += 1
        if clock.refused:
            log.warning("%s: %d frames whose times do not increase were dropped", self.path, clock.refused)
        if index == 0:
            length = f"; it lasts {self.info.duration_s:.2f} s" if self.info.duration_s is not None else ""
            raise ClipError(f"{self.path}: no frame between start and end{length}")

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Decoded frames from a keyframe at or before the start on; from the beginning where seeking is not exact."""
        if self.start_s > 1.0:
            seeked = self._decode_from(self.info.start_s + self.start_s)
            first = next(seeked, None)
            if first is not None and first.pts is not None:
                time_s = ticks_to_s(first.pts, self.info.time_base)
                if time_s <= self.info.start_s + self.start_s + TIME_EPS_S:
                    yield first
                    yield from seeked
                    return
            seeked.close()
        yield from self._decode_from(None)

    def _decode_from(self, seek_s: float | None) -> Iterator[av.VideoFrame]:
        container = open_container(self.path)
        self._containers.append(container)
        try:
            stream = video_stream(container, self.path)
            set_threads(stream, self.threads)
            if seek_s is not None:
                try:
                    container.seek(int(seek_s / self.info.time_base), stream=stream)
                except (av.FFmpegError, OSError):
                    return
            yield from decode_packets(container, stream, self.path)
        finally:
            if container in self._containers:
                self._containers.remove(container)
            container.close()
