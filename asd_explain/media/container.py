"""Opening a media file: its tracks, what their decoders deliver, and times on the container's clock (PyAV).

Times are seconds on the container's clock: ``pts * time_base``, divided once, so that two readers that see the same pts
give the same float.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.stream import Disposition

from asd_explain.errors import ClipError, OptionError
from asd_explain.media.joints import demux

log = logging.getLogger(__name__)

#: Slack when times are compared, in seconds: far below a frame, above any container's rounding error in float64.
TIME_EPS_S = 1e-6
# Demuxers of FFmpeg that turn any text or still picture data into "video".
_TEXT_CODECS = frozenset({"ansi", "bintext", "xbin", "idf"})


def ticks_to_s(ticks: int, time_base: Fraction) -> float:
    """Seconds of ``ticks`` on a clock of ``time_base`` seconds: one correctly rounded division."""
    return ticks * time_base.numerator / time_base.denominator


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
    packets = demux(container, stream, path)
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
