"""A clip's pictures in presentation order with their exact times, decoded in a stream."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av

from asd_explain.errors import ClipError
from asd_explain.media.container import (
    TIME_EPS_S,
    check_span,
    decode_packets,
    open_container,
    set_threads,
    ticks_to_s,
    video_stream,
)
from asd_explain.media.frame import Converter, Frame
from asd_explain.media.joints import joints_of
from asd_explain.media.probing import probe

log = logging.getLogger(__name__)


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
        convert = Converter(self.info)
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
                if joints_of(self.path, container) is not None:
                    return
                try:
                    container.seek(int(seek_s / self.info.time_base), stream=stream)
                except (av.FFmpegError, OSError):
                    return
            yield from decode_packets(container, stream, self.path)
        finally:
            if container in self._containers:
                self._containers.remove(container)
            container.close()
