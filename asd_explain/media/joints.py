"""Where the clock of a file starts anew, and what puts its parts one behind the other.

Files joined end to end (``cat a.ts b.ts``), recordings of broadcasts and DVD's program streams hold parts with clocks
of their own. Read as they are, the pictures of the second part seem to lie before the end of the first, or hours after
it. All tracks of a part are moved by the same time, so that what was in step stays in step. FFmpeg's command line does
the like for the same containers (their demuxers carry the flag AVFMT_TS_DISCONT); its libraries alone do not.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path

import av

log = logging.getLogger(__name__)

#: Demuxers of containers whose clock may start anew.
_FORMATS = frozenset({"mpegts", "mpeg"})
#: By so much the times of sound may fall without a word, seconds.
_BACK = 0.1
#: Beyond this a step forward is another clock, not a gap, seconds: FFmpeg's own limit (-dts_delta_threshold).
_AHEAD = 10
#: By so much sound may begin before the pictures of its part, or fall back without another clock, seconds.
_LOOSE = 1
#: Longest that a picture is taken to last where that is not said, seconds.
_PICTURE = 0.1
#: Packets that are held back at most until it is known whether all tracks leapt ahead.
_HELD = 500
#: Packets among which those that a demuxer hands out too late are put back in their place.
_WAITING = 64


@dataclass(frozen=True)
class Joints:
    """What has to be added to the times of a file's tracks.

    Attributes:
        steps: {index of the stream: ((number of a packet, counted within the stream; seconds to add from it on), ...)}.
        spans: {index of the stream: (time of its first packet, time at which its last one ends)}, seconds, after that.
    """

    steps: dict[int, tuple[tuple[int, float], ...]]
    spans: dict[int, tuple[float, float]]

    def apply(self, packets: Iterator[av.Packet], stream: av.stream.Stream) -> Iterator[av.Packet]:
        """The stream's packets from its very first on, with their times mended."""
        steps = list(self.steps.get(stream.index, ()))
        number, ticks = 0, 0
        for packet in packets:
            if packet.size:
                while steps and number >= steps[0][0]:
                    ticks = round(steps.pop(0)[1] / packet.time_base)
                number += 1
                if packet.pts is not None:
                    packet.pts += ticks
                if packet.dts is not None:
                    packet.dts += ticks
            yield packet

    def end_s(self, stream: av.stream.Stream) -> float:
        """Where the stream ends, seconds on the mended clock."""
        return self.spans.get(stream.index, (0.0, math.inf))[1]

    def length_s(self, stream: av.stream.Stream) -> float:
        """From the stream's first packet to its end, seconds."""
        first, end = self.spans.get(stream.index, (0.0, 0.0))
        return end - first


def joints_of(path: Path, container: av.container.InputContainer) -> Joints | None:
    """The joints of an open file; None where its clock runs through, as nearly always.

    Files of formats that can have joints are read through once, without decoding, and remembered.
    """
    if container.format.name not in _FORMATS:
        return None
    try:
        known = path.stat()
    except OSError:
        return None
    return _scan(path, known.st_size, known.st_mtime_ns)


def demux(container: av.container.InputContainer, stream: av.stream.Stream, path: Path) -> Iterator[av.Packet]:
    """Packets of a stream of a file just opened, on a clock that runs through.

    Where :func:`joints_of` finds any, packets are counted: nothing may have been read or sought before.
    """
    packets = packets_of(container, [stream], path)
    joints = joints_of(path, container)
    return packets if joints is None else joints.apply(packets, stream)


@dataclass(frozen=True)
class _Packet:
    """A packet: its track, its decoding time and its presentation time in seconds on the file's clock, its length in
    seconds (0: not said). Without a time both are None.
    """

    index: int
    raw: float | None
    shown: float | None
    length: float


@dataclass
class _Track:
    """A track while its file is read through; times in seconds, mended.

    Attributes:
        packets: so far.
        part: number of the part it is in.
        first, last, end: time of its first and its last packet, and where it ends.
        off: (number, time on the file's clock) of the packet from which on it no longer follows what was before.
        steps: see :class:`Joints`.
    """

    packets: int = 0
    part: int = 0
    first: float | None = None
    last: float | None = None
    end: float | None = None
    off: tuple[int, float] | None = None
    steps: list[tuple[int, float]] = field(default_factory=list)


class _Parts:
    """Finds the parts of a file from the times of its packets, in the file's order.

    The pictures decide. Where their decoding times fall, a part begins; where they leap ahead, only if the sound does
    so too, for pictures alone may pause. A single packet out of time is none.

    Args:
        pictures: index of the track that decides.
        others: whether there are other tracks.

    Attributes:
        shifts: seconds to add, a part each.
        tracks: by the index of the stream.
    """

    def __init__(self, pictures: int, others: bool) -> None:
        self.shifts, self.starts = [0.0], [-math.inf]
        self.tracks: dict[int, _Track] = defaultdict(_Track)
        self._pictures, self._others = pictures, others
        self._doubt: _Packet | None = None  # it breaks off; a stray one, or a joint?
        self._held: list[_Packet] = []  # those after it

    def see(self, packet: _Packet) -> None:
        """Take in the next packet of any track."""
        if self._doubt is None:
            self._take(packet)
            return
        self._held.append(packet)
        ahead = self._side(self._doubt) > 0
        seconds = [p for p in self._held if p.index == self._pictures and p.raw is not None]
        if seconds and not self._side(seconds[0]):
            self._decide(joint=False, stray=True)
        elif seconds and (not ahead or self._others_are_ahead()):
            self._decide(joint=True)
        elif len(self._held) >= _HELD:
            self._decide(joint=not ahead)

    def end(self) -> None:
        """There are no more."""
        while self._doubt is not None:
            self._decide(joint=self._side(self._doubt) < 0 or self._others_are_ahead())

    def _decide(self, joint: bool, stray: bool = False) -> None:
        """A packet broke off, and it is known why: all that were held are taken in."""
        doubtful, held = self._doubt, self._held
        self._doubt, self._held = None, []
        track = self.tracks[self._pictures]
        if joint:
            self.starts.append(self._reached())
            self.shifts.append(self._reached() - doubtful.shown)
            self._begin(track, track.packets)
            for other in self.tracks.values():  # those that came to the joint first
                if other.off is not None and self._fits(other.off[1]):
                    self._begin(other, other.off[0])
                    other.last = None
        if stray:
            track.packets += 1
        else:
            self._count(track, doubtful)
        for packet in held:
            self.see(packet)

    def _begin(self, track: _Track, number: int) -> None:
        track.part, track.off = len(self.shifts) - 1, None
        track.steps.append((number, self.shifts[-1]))

    def _take(self, packet: _Packet) -> None:
        track = self.tracks[packet.index]
        if packet.raw is None:
            track.packets += 1
        elif packet.index == self._pictures:
            side = self._side(packet)
            if side < 0 or (side > 0 and self._others):
                self._doubt = packet
            else:
                self._count(track, packet)
        else:
            if track.part < len(self.shifts) - 1 and self._fits(packet.raw):
                self._begin(track, track.packets)
                track.last = None
            side = self._side(packet)
            track.off = (track.off or (track.packets, packet.raw)) if side else None
            if side > 0 or (side < 0 and packet.raw + self.shifts[track.part] < track.last - _LOOSE):
                track.packets += 1  # of a part that no picture has begun yet
            else:
                self._count(track, packet)

    def _count(self, track: _Track, packet: _Packet) -> None:
        """Take a packet in where its track is."""
        shift = self.shifts[track.part]
        time = packet.raw + shift
        # Pictures of transport streams do not say how long they last: as long as the step before, but for pauses.
        length = packet.length or (_PICTURE if track.last is None else min(max(time - track.last, 0.0), _PICTURE))
        track.first = time if track.first is None else track.first
        track.last = time
        track.end = max(time if track.end is None else track.end, packet.shown + shift + length)
        track.packets += 1

    def _reached(self) -> float:
        return max(track.end for track in self.tracks.values() if track.end is not None)

    def _side(self, packet: _Packet) -> int:
        """-1 where it does not come after its track's last one, 1 where it is far ahead of all tracks, else 0."""
        track = self.tracks[packet.index]
        if track.last is None:
            return 0
        time = packet.raw + self.shifts[track.part]
        slack = 0.0 if packet.index == self._pictures else _BACK
        if time <= track.last - slack:
            return -1
        return int(time > self._reached() + _AHEAD)

    def _others_are_ahead(self) -> bool:
        """Whether a track beside the pictures has leapt ahead, too."""
        shift, reached = self.shifts[-1], self._reached()
        return any(
            packet.index != self._pictures and packet.raw is not None and packet.raw + shift > reached + _AHEAD
            for packet in self._held
        ) or any(
            track.off is not None and track.off[1] + self.shifts[track.part] > reached + _AHEAD
            for track in self.tracks.values()
        )

    def _fits(self, raw: float) -> bool:
        """Whether a time on the file's clock lies in the newest part."""
        time = raw + self.shifts[-1]
        return self.starts[-1] - _LOOSE <= time <= self._reached() + _AHEAD


def packets_of(container: av.container.InputContainer, streams: list, path: Path) -> Iterator[av.Packet]:
    """What the demuxer gives of some streams.

    A stream of which nothing was known when the file was opened ends PyAV's demuxer with an IndexError, after the last
    packet of those that were asked for.
    """
    demuxed = container.demux(streams)
    while True:
        try:
            packet = next(demuxed, None)
        except IndexError:
            log.warning("%s: tracks that begin later in the file are left out", path)
            return
        if packet is None:
            return
        yield packet


def _in_order(container: av.container.InputContainer, path: Path) -> Iterator[_Packet]:
    """All packets of pictures and sound as they lie in the file; demuxers hand them out as they become whole."""
    demuxed = packets_of(container, [*container.streams.video, *container.streams.audio], path)
    waiting: list[tuple[int, int, _Packet]] = []
    places: dict[int, int] = defaultdict(int)
    for number in count():
        try:
            packet = next(demuxed, None)
        except (av.FFmpegError, OSError):
            break  # who reads the file says so
        if packet is None:
            break
        if packet.size == 0:
            continue
        index = packet.stream.index
        if packet.pos is not None and packet.pos > places[index]:
            places[index] = packet.pos
        tick_s = float(packet.time_base)
        raw = packet.dts if packet.dts is not None else packet.pts
        shown = packet.pts if packet.pts is not None else raw
        times = (None, None) if raw is None else (raw * tick_s, max(raw, shown) * tick_s)
        heapq.heappush(waiting, (places[index], number, _Packet(index, *times, (packet.duration or 0) * tick_s)))
        if len(waiting) > _WAITING:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


@lru_cache(maxsize=16)
def _scan(path: Path, size: int, changed_ns: int) -> Joints | None:
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError):
        return None  # it was open a moment ago; who reads on says what is wrong
    with container:
        if not container.streams.video:
            return None
        pictures = container.streams.video[0].index
        parts = _Parts(pictures, len(container.streams.video) + len(container.streams.audio) > 1)
        for packet in _in_order(container, path):
            parts.see(packet)
    parts.end()
    joints = len(parts.shifts) - 1
    if not joints:
        return None
    log.info("%s: its clock starts anew %d times; its parts are put one behind the other", path, joints)
    return Joints(
        {index: tuple(track.steps) for index, track in parts.tracks.items()},
        {index: (track.first, track.end) for index, track in parts.tracks.items() if track.first is not None},
    )
