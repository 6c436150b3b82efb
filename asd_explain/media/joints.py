"""Where the clock of a file starts anew, and what puts its parts one behind the other.

Files joined end to end (``cat a.ts b.ts``), recordings of broadcasts and DVD's program streams hold parts with clocks
of their own. Read as they are, the pictures of the second part seem to lie before the end of the first, or hours after
it. All tracks of a part are moved by the same time, so that what was in step stays in step. FFmpeg's command line does
the like for the same containers (their demuxers carry the flag AVFMT_TS_DISCONT); its libraries alone do not.
"""

from __future__ import annotations

import heapq
import logging
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
#: A track's clock has been set back when it falls behind by more than this, seconds: decoding times never fall.
_BACK = 0.1
#: Beyond this a step forward is another clock, not a gap, seconds: FFmpeg's own limit (-dts_delta_threshold).
_AHEAD = 10
#: By so much a track may begin before it ended in the part before, seconds: tracks do not begin and end together.
_LOOSE = 1
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
        return self.spans[stream.index][1]

    def length_s(self, stream: av.stream.Stream) -> float:
        """From the stream's first packet to its end, seconds."""
        first, end = self.spans[stream.index]
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
    packets = container.demux(stream)
    joints = joints_of(path, container)
    return packets if joints is None else joints.apply(packets, stream)


@dataclass(frozen=True)
class _Packet:
    """A packet: its track, its time in seconds on the file's clock (None: it has none), its length in seconds."""

    index: int
    raw: float | None
    length: float


@dataclass
class _Track:
    """A track while its file is read through; times in seconds, mended.

    Attributes:
        packets: so far.
        part: number of the part it is in.
        first, last, end: time of its first and its last packet, and where it ends.
        steps: see :class:`Joints`.
    """

    packets: int = 0
    part: int = 0
    first: float | None = None
    last: float | None = None
    end: float | None = None
    steps: list[tuple[int, float]] = field(default_factory=list)


class _Parts:
    """Finds the parts of a file from the times of its packets, in the file's order.

    Attributes:
        shifts: seconds to add, a part each.
        tracks: by the index of the stream.
    """

    def __init__(self) -> None:
        self.shifts = [0.0]
        self.tracks: dict[int, _Track] = defaultdict(_Track)
        self._doubt: _Packet | None = None  # it breaks off; a stray one, or a joint?
        self._held: list[_Packet] = []  # those after it

    def see(self, packet: _Packet) -> None:
        """Take in the next packet of any track."""
        if self._doubt is None:
            self._take(packet)
            return
        self._held.append(packet)
        if packet.index == self._doubt.index and packet.raw is not None:
            self._decide(self._breaks(packet))

    def end(self) -> None:
        """There are no more."""
        while self._doubt is not None:
            self._decide(joint=False)

    def _decide(self, joint: bool) -> None:
        """A packet broke off, and by the next one of its track it is known why: all that were held are taken in."""
        doubtful, held = self._doubt, self._held
        self._doubt, self._held = None, []
        track = self.tracks[doubtful.index]
        if joint:
            self.shifts.append(self._reached() - doubtful.raw)
            self._begin(track)
            self._take(doubtful)
        else:
            track.packets += 1
        for packet in held:
            self.see(packet)

    def _begin(self, track: _Track) -> None:
        track.part = len(self.shifts) - 1
        track.steps.append((track.packets, self.shifts[-1]))

    def _take(self, packet: _Packet) -> None:
        track = self.tracks[packet.index]
        if packet.raw is not None:
            if self._follows(packet):
                self._begin(track)
            elif self._breaks(packet):
                self._doubt = packet
                return
            time = packet.raw + self.shifts[track.part]
            # Pictures of transport streams do not say how long they last: as long as the one before.
            length = packet.length or (max(time - track.last, 0.0) if track.last is not None else 0)
            track.first = time if track.first is None else track.first
            track.last, track.end = time, max(track.end or time, time + length)
        track.packets += 1

    def _reached(self) -> float:
        return max(track.end for track in self.tracks.values() if track.end is not None)

    def _breaks(self, packet: _Packet) -> bool:
        """Whether it does not go on from the track's last one."""
        track = self.tracks[packet.index]
        if track.last is None:
            return False
        time = packet.raw + self.shifts[track.part]
        # A track may pause; it is another clock only where all of them are ahead.
        return time < track.last - _BACK or time > self._reached() + _AHEAD

    def _follows(self, packet: _Packet) -> bool:
        """Whether it is the track's first of a part that another track has begun already."""
        track = self.tracks[packet.index]
        if track.part == len(self.shifts) - 1 or track.end is None:
            return track.part < len(self.shifts) - 1
        if abs(packet.raw + self.shifts[track.part] - track.end) <= _BACK:
            return False  # the rest of the part before
        time = packet.raw + self.shifts[-1]
        return time >= track.end - _LOOSE and abs(time - self._reached()) <= _AHEAD


def _in_order(container: av.container.InputContainer) -> Iterator[_Packet]:
    """All packets of pictures and sound as they lie in the file; demuxers hand them out as they become whole."""
    wanted = [*container.streams.video, *container.streams.audio]
    demuxed = container.demux(wanted) if wanted else iter(())
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
        ticks = packet.dts if packet.dts is not None else packet.pts
        tick_s = float(packet.time_base)
        taken = _Packet(index, None if ticks is None else ticks * tick_s, (packet.duration or 0) * tick_s)
        heapq.heappush(waiting, (places[index], number, taken))
        if len(waiting) > _WAITING:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


@lru_cache(maxsize=16)
def _scan(path: Path, size: int, changed_ns: int) -> Joints | None:
    parts = _Parts()
    with av.open(str(path), metadata_errors="replace") as container:
        for packet in _in_order(container):
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
