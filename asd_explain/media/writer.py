"""Writing the annotated clip: H.264 in MP4 at the source's own frame times, with the source's sound in step.

The output's clock is the source's clock. It is shifted only where that would make a bad file: a source that does not
begin near zero (transport streams) begins at zero in the output, and a piece (``start_s``) begins at zero too. Sound
and picture are shifted together.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags as CodecFlags
from av.video.reformatter import ColorRange

from asd_explain.errors import OutputError
from asd_explain.media.container import check_span
from asd_explain.media.frame import Planes
from asd_explain.media.probing import ClipInfo
from asd_explain.media.sound_track import CopiedSound, EncodedSound, add_audio
from asd_explain.outputs import check_new

log = logging.getLogger(__name__)

#: A source whose clock starts outside this range (s) is shifted to zero.
_KEPT_STARTS_S = (0.0, 1.0)
#: How far the sound is written ahead of the picture, seconds.
_AUDIO_LEAD_S = 0.5


def check_output(path: str | Path, overwrite: bool = False) -> None:
    """Check that a file can be written at ``path``, by creating and removing a hidden file beside it.

    Raises:
        OutputError: the file exists and may not be overwritten, is a directory, or its folder is missing or unwritable.
    """
    path = Path(path)
    check_new(path, overwrite)
    _create_part(path).unlink(missing_ok=True)


def _create_part(path: Path) -> Path:
    """Create an empty hidden file beside ``path``, with the permissions that a new file gets.

    Raises:
        OutputError: the folder is missing or cannot be written to.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part.mp4")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and not path.parent.is_dir():
            raise OutputError(f"{path}: its folder {path.parent} does not exist; create it first") from error
        reason = os.strerror(error.errno or errno.EIO)
        raise OutputError(f"{path}: cannot be written ({reason}); choose a folder that you may write to") from error
    return part


class VideoWriter:
    """Writes frames, one after the other, and the source's sound beside them. Memory does not grow with the clip.

    The file is built under a hidden name beside ``out`` and gets its name only when the ``with`` block ends well; on
    any exception, Ctrl-C included, nothing is left.

    Args:
        out: the MP4 to be written.
        width: px of the planes that will be written, even.
        height: px, even.
        source: properties of the source clip: frame rate, clock, pixel aspect, colour tags.
        audio_path: clip whose sound goes along, None for none. Its clock must be the source's, so it is the source as
            a rule.
        start_s: where the piece that is written begins, seconds from the source's first frame; None: the beginning.
        end_s: where it ends; the sound is cut there. None: the end.
        overwrite: replace an existing file.
        crf: x264's constant rate factor, 0 (lossless) to 51.
        preset: x264's preset, "ultrafast" to "placebo".
        threads: encoder threads, 0 for as many as there are cores.

    Attributes:
        origin_s: time of the source's clock that is zero on the output's.

    Raises:
        OutputError: the output exists, cannot be written, or is the source itself.
        OptionError: start or end make no sense.
        ValueError: odd or empty size.
    """

    def __init__(
        self,
        out: str | Path,
        *,
        width: int,
        height: int,
        source: ClipInfo,
        audio_path: str | Path | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
        overwrite: bool = False,
        crf: int = 20,
        preset: str = "veryfast",
        threads: int = 0,
    ) -> None:
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise ValueError(f"output size {width}x{height}: both sides must be even and at least 2")
        check_span(start_s, end_s)
        self.out = Path(out)
        self.width, self.height = width, height
        if self.out.exists() and source.path.exists() and self.out.samefile(source.path):
            raise OutputError(f"{self.out}: is the clip itself; choose another output name")
        self._overwrite = overwrite
        check_output(self.out, overwrite)

        self._source = source
        if start_s is not None:
            self.origin_s = source.start_s + start_s
        elif _KEPT_STARTS_S[0] <= source.clock_start_s < _KEPT_STARTS_S[1]:
            self.origin_s = 0.0
        else:
            self.origin_s = source.clock_start_s
        end_clock_s = None if end_s is None else source.start_s + end_s

        self._last_ticks: int | None = None
        self._last_s = 0.0
        self._refused_sound = 0  # audio packets
        self._pending: av.VideoFrame | None = None
        self._container: av.container.OutputContainer | None = None
        self._audio: CopiedSound | EncodedSound | None = None
        self._part = _create_part(self.out)
        try:
            self._time_base = _clock(source.time_base)
            # Start offsets are stored in ticks of the movie's clock: give it the video's, not the usual millisecond.
            options = {"movflags": "+faststart", "movie_timescale": str(self._time_base.denominator)}
            self._container = av.open(str(self._part), "w", format="mp4", options=options)
            self._stream = self._add_video(crf, preset, threads)
            if audio_path is not None:
                first_s = None if start_s is None else self.origin_s
                self._audio = add_audio(self._container, Path(audio_path), self.origin_s, first_s, end_clock_s)
        except BaseException:
            self._discard()
            raise

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()

    def write(self, planes: Planes, time_s: float) -> None:
        """Encode one picture that is shown from ``time_s`` on (container clock of the source; must increase).

        Raises:
            OutputError: the disk is full or the encoder refuses.
            ValueError: the planes have another size than the writer, or the time does not increase.
        """
        if planes.y.shape != (self.height, self.width):
            raise ValueError(f"planes of {planes.y.shape[::-1]} px given to a writer of {self.width}x{self.height}")
        if self._container is None:
            raise ValueError("the writer is closed")
        ticks = round((time_s - self.origin_s) / self._time_base)
        if self._last_ticks is not None and ticks <= self._last_ticks:
            raise ValueError(f"frame times must increase: {time_s} s does not come after the one before")
        self._last_ticks, self._last_s = ticks, time_s
        frame = _to_frame(planes)
        frame.pts = ticks
        frame.time_base = self._time_base
        frame.colorspace = self._source.colorspace
        frame.color_primaries = self._source.color_primaries
        frame.color_trc = self._source.color_trc
        frame.color_range = self._color_range
        if self._pending is not None:
            # One frame late, so that each carries its true duration: the last one of a variable rate needs it.
            self._pending.duration = ticks - self._pending.pts
            self._encode(self._pending)
        self._pending = frame
        self._guard(self._mux_audio, time_s + _AUDIO_LEAD_S)

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            OutputError: no frame was written, the disk is full, or the name was taken meanwhile.
        """
        if self._container is None:
            return
        try:
            if self._pending is None:
                raise OutputError(f"{self.out}: no frame was written")
            self._pending.duration = max(1, round(self._last_duration_s() / self._time_base))
            self._encode(self._pending)
            self._encode(None)
            self._guard(self._mux_audio, None)
            self._guard(self._container.close)
            self._container = None
            if self.out.exists() and not self._overwrite:
                raise OutputError(f"{self.out}: appeared meanwhile; choose another name or allow overwriting")
            self._guard(os.replace, self._part, self.out)
        except BaseException:
            self._discard()
            raise
        if self._audio is not None:
            self._audio.close()

    def _add_video(self, crf: int, preset: str, threads: int) -> av.VideoStream:
        source = self._source
        self._color_range = ColorRange.UNSPECIFIED
        if source.range_tagged:
            self._color_range = ColorRange.JPEG if source.full_range else ColorRange.MPEG
        stream = self._container.add_stream("libx264", rate=source.fps.limit_denominator(1_000_000))
        stream.width, stream.height = self.width, self.height
        stream.pix_fmt = "yuv420p"
        stream.time_base = self._time_base
        context = stream.codec_context
        context.time_base = self._time_base
        context.thread_count = threads
        context.flags |= CodecFlags.frame_duration  # else the encoder drops the durations that frames carry
        context.sample_aspect_ratio = source.sample_aspect_ratio
        context.colorspace = source.colorspace
        context.color_primaries = source.color_primaries
        context.color_trc = source.color_trc
        context.color_range = self._color_range
        stream.options = {"crf": str(crf), "preset": preset}
        return stream

    def _last_duration_s(self) -> float:
        """How long the last frame is shown: to the source's end where that is near, else one average frame."""
        frame_s = float(1 / self._source.fps)
        if self._source.duration_s is None:
            return frame_s
        left_s = self._source.start_s + self._source.duration_s - self._last_s
        return left_s if frame_s / 4 <= left_s <= 2 * frame_s else frame_s

    def _encode(self, frame: av.VideoFrame | None) -> None:
        self._guard(lambda: self._container.mux(self._stream.encode(frame)))

    def _mux_audio(self, until_s: float | None) -> None:
        """Write sound up to ``until_s`` (container clock), None: all of it."""
        if self._audio is None:
            return
        for packet in self._audio.packets(until_s):
            try:
                self._container.mux(packet)
            except (av.error.InvalidDataError, av.error.ArgumentError) as error:
                # The packet's own fault, not the disk's: damaged sound must not end the run.
                if not self._refused_sound:
                    log.warning("%s: damaged sound is left out of the output (%s)", self._source.path, error.strerror)
                self._refused_sound += 1

    def _guard(self, call: object, *args: object) -> None:
        """Call; a failure of the disk or the encoder becomes an :class:`OutputError` of one line."""
        try:
            call(*args)
        except (av.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise OutputError(f"{self.out}: writing failed ({reason}); is the disk full?") from error

    def _discard(self) -> None:
        """Close and remove the unfinished file."""
        container, self._container = self._container, None
        if self._audio is not None:
            self._audio.close()
        try:
            if container is not None:
                container.close()
        except (av.FFmpegError, OSError, ValueError) as error:
            log.debug("%s: closing the unfinished file: %s", self._part, error)
        finally:
            self._part.unlink(missing_ok=True)


def _clock(source: Fraction) -> Fraction:
    """The output's video clock, seconds a tick: the source's, refined to the 10,000 ticks a second that MP4 likes."""
    if source <= 0 or source.denominator > 10_000_000:
        return Fraction(1, 90000)
    refined = Fraction(1, source.denominator)
    while refined.denominator < 10_000:
        refined /= 2
    return refined


def _to_frame(planes: Planes) -> av.VideoFrame:
    """Copy planes into a frame that the encoder may keep."""
    height, width = planes.y.shape
    frame = av.VideoFrame(width, height, "yuv420p")
    for target, source in zip(frame.planes, (planes.y, planes.u, planes.v), strict=True):
        rows = np.frombuffer(target, np.uint8).reshape(-1, target.line_size)
        rows[: source.shape[0], : source.shape[1]] = source
    return frame
