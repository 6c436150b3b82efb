"""The source's sound on the output's clock: its packets copied where MP4 can carry them, else encoded as AAC."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from asd_explain.errors import ClipError
from asd_explain.media.audio import SampleStream
from asd_explain.media.container import TIME_EPS_S, audio_stream, open_container, ticks_to_s
from asd_explain.media.joints import demux, joints_of

log = logging.getLogger(__name__)

#: Audio that MP4 carries and that players play from it: copied bit by bit. Everything else becomes AAC.
COPIED_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_AAC_FRAME = 1024


def add_audio(
    output: av.container.OutputContainer, path: Path, origin_s: float, first_s: float | None, end_s: float | None
) -> CopiedSound | EncodedSound | None:
    """The way the sound of ``path`` gets into ``output``; None when there is none that can be had.

    Args:
        output: gets the stream; what is yielded later is to be muxed into it.
        path: clip whose sound it is.
        origin_s: time of the source's clock that is zero on the output's.
        first_s: where a piece begins, on the source's clock; None: the beginning.
        end_s: where it ends, on the source's clock; None: the end.
    """
    with open_container(path) as container:
        stream = audio_stream(container)
        if stream is None:
            return None
        name = stream.codec_context.name
    if name in COPIED_AUDIO:
        copied = CopiedSound(path, origin_s, first_s, end_s)
        try:
            copied.attach(output)
        except (av.FFmpegError, ValueError) as error:
            copied.close()
            log.info("%s: its %s sound cannot be copied (%s) and is encoded as AAC", path, name, error)
        else:
            return copied
    encoded = EncodedSound(path, origin_s, first_s, end_s)
    return encoded if encoded.attach(output) else None


class CopiedSound:
    """The source's audio packets, unchanged, on the output's clock.

    A piece begins with the packet that holds its first sample and one more before it, which the decoder needs to start
    cleanly; both lie before time zero, where an edit list hides them.
    """

    def __init__(self, path: Path, origin_s: float, first_s: float | None, end_s: float | None) -> None:
        self._path = path
        self._first_s, self._end_s = first_s, end_s
        self._input = open_container(path)
        self._stream = audio_stream(self._input)
        time_base = self._stream.time_base
        self._time_base = time_base
        self._shift = round(origin_s / time_base)
        self._target: av.AudioStream | None = None
        self._packets = self._timed()
        self._next: av.Packet | None = None
        self._done = False

    def attach(self, output: av.container.OutputContainer) -> None:
        """Add a stream like the source's; a codec that MP4 refuses raises PyAV's error."""
        self._target = output.add_stream_from_template(self._stream)
        self._target.time_base = self._time_base

    def packets(self, until_s: float | None) -> Iterator[av.Packet]:
        """Packets that begin before ``until_s`` (source clock), ready to be muxed."""
        while not self._done:
            if self._next is None:
                self._next = next(self._packets, None)
                if self._next is None:
                    self._done = True
                    return
            packet = self._next
            if until_s is not None and ticks_to_s(packet.pts, self._time_base) >= until_s:
                return
            self._next = None
            packet.pts -= self._shift
            packet.dts = packet.pts
            packet.stream = self._target
            yield packet

    def close(self) -> None:
        """Close the source."""
        self._packets.close()
        self._input.close()

    def _timed(self) -> Iterator[av.Packet]:
        """Packets with increasing times on the source's clock, from the first wanted to the last."""
        joints = joints_of(self._path, self._input)
        if self._first_s is not None and self._first_s > 2.0 and joints is None:
            try:
                self._input.seek(int((self._first_s - 1.0) / self._time_base), stream=self._stream)
            except (av.FFmpegError, OSError):
                self._input.seek(0)
        expected: int | None = None
        last: int | None = None
        held: av.Packet | None = None  # the packet before the first wanted one
        started = self._first_s is None
        demuxed = demux(self._input, self._stream, self._path)
        while True:
            try:
                packet = next(demuxed, None)
            except (av.FFmpegError, OSError) as error:
                log.warning("%s: the audio track breaks off: %s", self._path, error)
                return
            if packet is None or packet.size == 0:
                return
            pts = packet.pts if packet.pts is not None else packet.dts
            if pts is None:
                if expected is None:
                    continue
                pts = expected
            if last is not None and pts <= last:
                continue
            packet.pts, last = pts, pts
            expected = pts + (packet.duration or 0)
            if self._end_s is not None and ticks_to_s(pts, self._time_base) >= self._end_s - TIME_EPS_S:
                return
            if not started:
                if ticks_to_s(expected, self._time_base) <= self._first_s + TIME_EPS_S:
                    held = packet
                    continue
                started = True
                if held is not None:
                    yield held
            yield packet


class EncodedSound:
    """The source's sound decoded, made gapless, and encoded as AAC."""

    def __init__(self, path: Path, origin_s: float, first_s: float | None, end_s: float | None) -> None:
        self._path = path
        self.origin_s, self._first_s, self._end_s = origin_s, first_s, end_s
        self._source = SampleStream(path, mono=False, from_s=first_s)
        self._blocks = iter(self._source)
        self._head = None
        self._done = False

    def attach(self, output: av.container.OutputContainer) -> bool:
        """Add the AAC stream; False when nothing can be decoded."""
        try:
            self._head = next(self._blocks, None)
        except ClipError:
            self._head = None
        if self._head is None:
            log.warning("%s: its audio track holds nothing that can be decoded; the output has no sound", self._path)
            return False
        source = self._source
        self._rate = source.rate if source.rate in _AAC_RATES else 48000
        self._layout = source.layout if source.channels <= 2 else "stereo"
        self._target = output.add_stream("aac", rate=self._rate, layout=self._layout)
        self._target.bit_rate = 160_000 if self._layout == "stereo" else 96_000
        self._target.time_base = Fraction(1, self._rate)
        self._resampler = av.AudioResampler("fltp", self._layout, self._rate, frame_size=_AAC_FRAME)
        self._position_s = source.start_s
        # Sample 0 of what is encoded, on the output's clock, in samples.
        begin_s = source.start_s
        self._skip = 0
        if self._first_s is not None and self._first_s > begin_s:
            self._skip = round((self._first_s - begin_s) * source.rate)
            begin_s += self._skip / source.rate
        self._pts = round((begin_s - self.origin_s) * self._rate)
        self._stop = None if self._end_s is None else round((self._end_s - source.start_s) * source.rate)
        return True

    def packets(self, until_s: float | None) -> Iterator[av.Packet]:
        """Packets of the sound before ``until_s`` (source clock)."""
        while not self._done and (until_s is None or self._position_s < until_s):
            block, self._head = (self._head or next(self._blocks, None)), None
            if block is not None and self._stop is not None and block.first >= self._stop:
                block = None
            if block is None:
                self._done = True
                yield from self._encode(self._resampler.resample(None))
                yield from self._target.encode(None)
                return
            self._position_s = self._source.start_s + (block.first + block.samples.shape[1]) / self._source.rate
            low = max(self._skip - block.first, 0)
            high = (
                block.samples.shape[1] if self._stop is None else min(self._stop - block.first, block.samples.shape[1])
            )
            if high > low:
                samples = np.ascontiguousarray(block.samples[:, low:high])
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self._source.layout)
                frame.sample_rate = self._source.rate
                yield from self._encode(self._resampler.resample(frame))

    def close(self) -> None:
        """Close the source."""
        self._blocks.close()

    def _encode(self, frames: list[av.AudioFrame]) -> Iterator[av.Packet]:
        for frame in frames:
            # Times by counting: the signal is gapless.
            frame.pts = self._pts
            frame.time_base = Fraction(1, self._rate)
            self._pts += frame.samples
            yield from self._target.encode(frame)
