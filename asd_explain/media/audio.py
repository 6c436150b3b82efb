"""A clip's sound: 16 kHz mono float32 on the container's clock, decoded in a stream and kept in bounded memory.

The decoder delivers blocks with timestamps; :func:`continuous_blocks` turns them into one gapless signal (silence where
the timestamps leave a gap, overlapping samples dropped), and :class:`ChunkedResampler` resamples it piece by piece to
exactly what ``torchaudio.functional.resample`` gives for the whole.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import av
import numpy as np
import torch
import torchaudio.functional

from asd_explain.errors import ClipError
from asd_explain.media.container import audio_stream, check_span, decode_packets, open_container, ticks_to_s
from asd_explain.media.joints import joints_of
from asd_explain.media.probing import probe

log = logging.getLogger(__name__)

#: Sample rate of everything downstream, Hz.
RATE = 16000
#: Timestamps that disagree with the sample count by less than this are jitter, not a gap; well under a video frame.
JITTER_S = 0.02
#: Longest silence that a timestamp jump may insert beyond the container's stated length, seconds.
_SLACK_S = 10.0
#: Waveforms longer than this live in a temporary file, seconds.
_IN_MEMORY_S = 300.0
#: Seconds that are resampled at a time.
_CHUNK_S = 10.0
#: Largest polyphase filter bank (taps) that torchaudio may build; odd rates beyond it go through 48 kHz first.
_MAX_TAPS = 20_000_000
# Weights of ITU-R BS.775 style downmixing to one channel, as FFmpeg's; other channels count 0.5, the LFE nothing.
_DOWNMIX = {"FC": 1.0, "FL": math.sqrt(0.5), "FR": math.sqrt(0.5), "LFE": 0.0, "LFE2": 0.0}


@dataclass(frozen=True)
class Audio:
    """Sound of a clip.

    Attributes:
        waveform: (n,) float32 in [-1, 1], mono; a memory map of a temporary file for long clips.
        start_s: time of sample 0 in seconds, container clock.
        rate: samples a second.
    """

    waveform: np.ndarray
    start_s: float
    rate: int = RATE
    _file: IO[bytes] | None = field(default=None, repr=False, compare=False)

    @property
    def end_s(self) -> float:
        """Time at which the last sample ends, container clock."""
        return self.start_s + len(self.waveform) / self.rate

    def index_of(self, time_s: float) -> int:
        """Number of the sample nearest to ``time_s`` (container clock); may lie outside the waveform.

        The little bias sends ties one way, so that rounding errors of the time cannot move a window by a sample.
        """
        return math.floor((time_s - self.start_s) * self.rate + 0.5 + 1e-4)

    def take(self, first: int, n: int) -> np.ndarray:
        """(n,) float32 copy of samples ``first`` to ``first + n - 1``; zeros outside the waveform."""
        out = np.zeros(n, np.float32)
        low, high = max(first, 0), min(first + n, len(self.waveform))
        if high > low:
            out[low - first : high - first] = self.waveform[low:high]
        return out

    def slice(self, start_s: float, n: int) -> np.ndarray:
        """(n,) float32 copy from ``start_s`` (container clock) on; silence outside the waveform."""
        return self.take(self.index_of(start_s), n)

    def close(self) -> None:
        """Give the waveform and its temporary file, if any, back."""
        object.__setattr__(self, "waveform", np.zeros(0, np.float32))
        if self._file is not None:
            self._file.close()
            object.__setattr__(self, "_file", None)


@dataclass(frozen=True)
class Block:
    """A piece of a gapless signal: samples ``first`` on, (channels, n) float32 in [-1, 1]."""

    first: int
    samples: np.ndarray


class SampleStream:
    """A clip's sound as one gapless signal at its own rate, decoded while iterating.

    Iterate once; ``rate`` (Hz), ``start_s`` (container clock, time of sample 0) and ``channels`` are known once the
    first :class:`Block` has come. Silence fills timestamp gaps; blocks never exceed a second or one decoded packet.

    Args:
        path: the clip.
        mono: mix to one channel; else the channels of the first block are kept.
        from_s: container clock; where the container can seek exactly, decoding starts a little before it.
    """

    def __init__(self, path: Path, *, mono: bool = True, from_s: float | None = None) -> None:
        self.path = path
        self.mono = mono
        self.from_s = from_s
        self.rate = 0
        self.start_s = 0.0
        self.channels = 0
        self.layout = "mono"

    def __iter__(self) -> Iterator[Block]:
        with open_container(self.path) as container:
            stream = audio_stream(container)
            if stream is None:
                return
            self._seek(container, stream)
            limit_s = math.inf if container.duration is None else container.duration / av.time_base + _SLACK_S
            if (joints := joints_of(self.path, container)) is not None:
                limit_s = joints.end_s(stream) + _SLACK_S
            elif container.start_time is not None:
                limit_s += container.start_time / av.time_base
            yield from self._continuous(decode_packets(container, stream, self.path), stream, limit_s)

    def _seek(self, container: av.container.InputContainer, stream: av.AudioStream) -> None:
        exact = any(name in container.format.name for name in ("mov", "matroska"))
        if self.from_s is None or self.from_s < 30.0 or not exact:
            return
        try:
            container.seek(int((self.from_s - 1.0) / stream.time_base), stream=stream)
        except (av.FFmpegError, OSError):
            container.seek(0)

    def _continuous(self, frames: Iterator[av.AudioFrame], stream: av.AudioStream, limit_s: float) -> Iterator[Block]:
        position = 0  # samples delivered so far
        anchor_s = 0.0  # container time of sample 0, moved when the clock itself jumps
        squeeze: av.AudioResampler | None = None
        for frame in frames:
            if frame.samples == 0 or frame.sample_rate <= 0:
                continue
            if self.rate == 0:
                self.rate = frame.sample_rate
                if _filter_taps(self.rate) > _MAX_TAPS:
                    self.rate = 48000
                self.channels = 1 if self.mono else frame.layout.nb_channels
                self.layout = "mono" if self.mono else _layout_name(frame.layout)
                anchor_s = self.start_s = _time_of(frame, stream, 0.0)
            time_s = _time_of(frame, stream, anchor_s + position / self.rate)
            if frame.sample_rate != self.rate or (not self.mono and _layout_name(frame.layout) != self.layout):
                # Rare: parameters change within the track, or the rate has no small ratio to 16 kHz.
                if squeeze is None:
                    squeeze = av.AudioResampler("fltp", None if self.mono else self.layout, self.rate)
                try:
                    pieces = squeeze.resample(frame)
                except (ValueError, av.FFmpegError):
                    squeeze = av.AudioResampler("fltp", None if self.mono else self.layout, self.rate)
                    pieces = squeeze.resample(frame)
                arrays = [to_float(piece) for piece in pieces]
                layouts = [piece.layout for piece in pieces]
            else:
                arrays, layouts = [to_float(frame)], [frame.layout]
            for samples, layout in zip(arrays, layouts, strict=True):
                if self.mono:
                    samples = downmix(samples, [channel.name for channel in layout.channels])
                gap = round((time_s - anchor_s) * self.rate) - position
                if gap < -self.rate or time_s > limit_s:
                    log.warning(
                        "%s: the audio track's clock jumps at %.2f s; played on without a break",
                        self.path,
                        anchor_s + position / self.rate,
                    )
                    anchor_s = time_s - position / self.rate
                elif gap > JITTER_S * self.rate:
                    for start in range(0, gap, self.rate):
                        n = min(self.rate, gap - start)
                        yield Block(position, np.zeros((self.channels, n), np.float32))
                        position += n
                elif gap < -JITTER_S * self.rate:
                    samples = samples[:, -gap:]
                if samples.shape[1]:
                    yield Block(position, samples)
                    position += samples.shape[1]
                time_s = anchor_s + position / self.rate


def _layout_name(layout: av.AudioLayout) -> str:
    """FFmpeg's name of a layout; files that only count their channels get the usual one of that many."""
    usual = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
    if layout.nb_channels <= 2 or "channels" in layout.name:
        return usual.get(layout.nb_channels, layout.name)
    return layout.name


def _time_of(frame: av.AudioFrame, stream: av.AudioStream, default_s: float) -> float:
    if frame.pts is None:
        return default_s
    return ticks_to_s(frame.pts, frame.time_base or stream.time_base)


def to_float(frame: av.AudioFrame) -> np.ndarray:
    """Samples of a decoded block as (channels, n) float32 in [-1, 1]; values that are not finite become silence."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128.0) / 128.0
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / float(-int(np.iinfo(samples.dtype).min))
    else:
        samples = samples.astype(np.float32)
        if not np.isfinite(samples).all():
            samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return samples


def downmix(samples: np.ndarray, names: list[str]) -> np.ndarray:
    """Mix (channels, n) to (1, n): the mean of mono and stereo, FFmpeg's weights scaled to sum 1 for more channels.

    Args:
        samples: float32 in [-1, 1].
        names: FFmpeg's channel names, e.g. ["FL", "FR"].
    """
    if len(samples) == 1:
        return samples
    if len(samples) == 2:
        weights = np.full(2, 0.5, np.float32)
    else:
        weights = np.array([_DOWNMIX.get(name, 0.5) for name in names], np.float32)
        if len(weights) != len(samples) or weights.sum() == 0:
            weights = np.ones(len(samples), np.float32)
        weights /= weights.sum()
    return (weights @ samples)[None]


def _filter_taps(rate: int, to_rate: int = RATE) -> int:
    """Size of the filter bank that torchaudio builds for this pair of rates."""
    common = math.gcd(rate, to_rate)
    a, b = rate // common, to_rate // common
    return b * (2 * math.ceil(6 * a / (min(a, b) * 0.99)) + a)


class ChunkedResampler:
    """``torchaudio.functional.resample`` (its defaults: Hann-windowed sinc, width 6, rolloff 0.99) in pieces.

    ``push`` samples at ``rate`` in pieces of any length, then ``flush``; the results joined equal resampling the whole
    at once, because every output sample is computed with all input that its filter reaches.

    Args:
        rate: Hz of the input.
        to_rate: Hz of the output.
    """

    def __init__(self, rate: int, to_rate: int = RATE) -> None:
        common = math.gcd(rate, to_rate)
        self.rate, self.to_rate = rate, to_rate
        self._in, self._out = rate // common, to_rate // common  # one filter period: _in samples become _out
        width = math.ceil(6 * self._in / (min(self._in, self._out) * 0.99))
        # Context in whole periods, so that pieces start on the same phase.
        self._context = (math.ceil(width / self._in) + 1) * self._in
        self._chunk = max(1, int(_CHUNK_S * rate) // self._in) * self._in
        self._pending: list[np.ndarray] = []
        self._pending_n = 0
        self._left = 0  # samples at the head of the pending ones that are context, already resampled

    def push(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Take (n,) float32 samples; yields what has become ready, (m,) float32."""
        self._pending.append(samples)
        self._pending_n += len(samples)
        if self._pending_n < self._left + self._chunk + self._context:
            return
        joined = np.concatenate(self._pending)
        while len(joined) >= self._left + self._chunk + self._context:
            done = self._left + self._chunk
            yield self._resample(joined[: done + self._context], self._left, self._chunk)
            keep = max(0, done - self._context)
            joined, self._left = joined[keep:], done - keep
        self._pending, self._pending_n = [joined.copy()], len(joined)

    def flush(self) -> np.ndarray:
        """The rest, (m,) float32."""
        joined = np.concatenate(self._pending) if self._pending else np.zeros(0, np.float32)
        rest = len(joined) - self._left
        self._pending, self._pending_n = [], 0
        return self._resample(joined, self._left, rest) if rest > 0 else np.zeros(0, np.float32)

    def _resample(self, samples: np.ndarray, left: int, n: int) -> np.ndarray:
        """Resample ``samples`` and keep what belongs to the ``n`` samples after the ``left`` of context."""
        if self._in == self._out:
            return samples[left : left + n]
        whole = torchaudio.functional.resample(torch.from_numpy(np.ascontiguousarray(samples)), self._in, self._out)
        first = left // self._in * self._out
        return whole[first : first + math.ceil(n * self._out / self._in)].numpy()


class _Sink:
    """Collects a waveform of unknown length: in memory while short, in a temporary file when it grows."""

    def __init__(self) -> None:
        self.n = 0
        self._parts: list[np.ndarray] = []
        self._file: IO[bytes] | None = None

    def add(self, samples: np.ndarray) -> None:
        # Lossy decoders and the resampler overshoot full scale a little; 16-bit pipelines clip there too.
        samples = np.clip(samples, -1.0, 1.0).astype(np.float32, copy=False)
        self.n += len(samples)
        if self._file is None and self.n > _IN_MEMORY_S * RATE:
            # Nameless where the system allows it: nothing is left behind, whatever happens to this process.
            self._file = tempfile.TemporaryFile(prefix="asd-explain-", suffix=".f32")  # noqa: SIM115
            for part in self._parts:
                self._file.write(part.tobytes())
            self._parts = []
        if self._file is None:
            self._parts.append(samples)
        else:
            self._file.write(samples.tobytes())

    def finish(self, start_s: float) -> Audio:
        if self._file is None:
            joined = np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)
            return Audio(joined, start_s)
        self._file.flush()
        return Audio(np.memmap(self._file, np.float32, mode="r", shape=(self.n,)), start_s, _file=self._file)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def load_audio(path: str | Path, *, start_s: float | None = None, end_s: float | None = None) -> Audio | None:
    """A clip's sound at 16 kHz mono, or None when the clip has no audio track (or none that can be decoded).

    Damaged packets are skipped and become silence, as do gaps between timestamps. With ``start_s`` or ``end_s`` only
    that piece is kept; as for :class:`~asd_explain.media.reader.VideoReader` both count from the first video frame (in
    a file without video: from the first sample). ``Audio.start_s`` is always on the container's clock.

    Raises:
        ClipError: the file is missing or no media file.
        OptionError: start or end make no sense.
    """
    check_span(start_s, end_s)
    path = Path(path)
    with open_container(path) as container:
        if audio_stream(container) is None:
            return None
    origin_s = 0.0
    if start_s is not None or end_s is not None:
        try:
            origin_s = probe(path).start_s
        except ClipError:
            log.debug("%s: no video; start and end count from the clock's zero", path)
    low_s = -math.inf if not start_s else origin_s + start_s
    high_s = math.inf if end_s is None else origin_s + end_s

    stream = SampleStream(path, from_s=low_s if math.isfinite(low_s) else None)
    sink = _Sink()
    resampler: ChunkedResampler | None = None
    first = 0
    try:
        for block in stream:
            # Cut at the source's rate; half a second on either side keeps the resampling filter fed.
            if resampler is None:
                resampler = ChunkedResampler(stream.rate)
                if math.isfinite(low_s):
                    first = max(0, math.floor((low_s - stream.start_s) * stream.rate))
                last = math.inf if math.isinf(high_s) else math.ceil((high_s - stream.start_s) * stream.rate)
            low, high = max(first - block.first, 0), min(last - block.first, block.samples.shape[1])
            if block.first >= last:
                break
            if high > low:
                for piece in resampler.push(block.samples[0, low : int(high)]):
                    sink.add(piece)
        if resampler is None:
            log.warning("%s: its audio track holds nothing that can be decoded; treated as a clip without sound", path)
            return None
        sink.add(resampler.flush())
        return sink.finish(stream.start_s + first / stream.rate)
    except BaseException:
        sink.close()
        raise
