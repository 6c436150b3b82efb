"""From detections to tracks, streaming, with a bounded look-ahead.

A detector that runs on some frames only leaves *anchors*: (time, box, landmarks) of one face. Between two anchors a
face moves in a straight line. That path, a function of continuous time, is smoothed by a running median (single wild
detections) and then by a Gaussian (jitter), both of a width in seconds, so that the result does not depend on the
frame rate. Before a track's first and after its last anchor the path is constant: edge padding, which neither shrinks
a box nor drags it towards the origin, as a zero-padded median does.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from scipy.optimize import linear_sum_assignment

from asd_explain.tracks.detect import Detections
from asd_explain.tracks.track import FrameTracks, TrackedFace

# Container clocks round to a microsecond or coarser; nothing below this is a difference in time.
_CLOCK_S = 1e-6
_TAP_S = 0.04  # spacing of the samples that the running median and the Gaussian are computed from
_NO_LINK = 1e6
_UNMATCHED = 1.0  # cost of a track or a detection left alone; a pair may cost up to twice this


class _Trail:
    """One face being followed: its recent anchors and what has been decided about it."""

    __slots__ = (
        "_arrays",
        "closed",
        "missed",
        "rows",
        "scores",
        "start_s",
        "times",
        "top_score",
        "track_id",
        "velocity",
    )

    def __init__(self, start_s: float, time_s: float, row: np.ndarray, score: float) -> None:
        self.start_s = start_s
        self.times = [time_s]
        self.rows = [row]  # each (14,) float64: box xyxy, five landmarks (NaN where the detector has none)
        self.scores = [score]
        self.top_score = score
        self.velocity: np.ndarray | None = None  # (2,) px a second, of the centre
        self.missed = False  # the detector has run since the last anchor, and did not see this face
        self.closed = False
        self.track_id: int | None = None  # given when the first frame is emitted
        self._arrays: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def last_s(self) -> float:
        return self.times[-1]

    def add(self, time_s: float, row: np.ndarray, score: float) -> None:
        moved = (_centre(row) - _centre(self.rows[-1])) / (time_s - self.last_s)
        self.velocity = moved if self.velocity is None else (self.velocity + moved) / 2
        self.times.append(time_s)
        self.rows.append(row)
        self.scores.append(score)
        self.top_score = max(self.top_score, score)
        self.missed = False
        self._arrays = None

    def predicted(self, time_s: float) -> np.ndarray:
        """(4,) box expected at ``time_s``: the last one, moved on at the recent speed by at most its size."""
        box = self.rows[-1][:4]
        if self.velocity is None:
            return box
        size = _size(box)
        shift = np.clip(self.velocity * (time_s - self.last_s), -size, size)
        return box + np.tile(shift, 2)

    def forget(self, before_s: float) -> None:
        """Drop anchors that no frame from ``before_s`` on can depend on."""
        drop = int(np.searchsorted(self.times, before_s, side="right")) - 1
        if drop > 0:
            del self.times[:drop], self.rows[:drop], self.scores[:drop]
            self._arrays = None

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        if self._arrays is None:
            self._arrays = np.array(self.times), np.stack(self.rows)
        return self._arrays

    def sample(self, times_s: np.ndarray) -> np.ndarray:
        """(n, 14) points of the path at (n,) times: straight between anchors, constant beyond the first and last."""
        times, rows = self.arrays()
        if len(times) == 1:
            return np.repeat(rows, len(times_s), axis=0)
        right = np.clip(np.searchsorted(times, times_s), 1, len(times) - 1)
        left = right - 1
        share = np.clip((times_s - times[left]) / (times[right] - times[left]), 0.0, 1.0)[:, None]
        # a + s (b - a), not (1 - s) a + s b: a face that stands still stays exactly where it is.
        return rows[left] + share * (rows[right] - rows[left])


def _centre(row: np.ndarray) -> np.ndarray:
    return (row[0:2] + row[2:4]) / 2


def _size(box: np.ndarray) -> float:
    return math.sqrt(max(1e-6, (box[2] - box[0]) * (box[3] - box[1])))


def link_cost(predicted: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """How badly detections fit tracks: (1 - IoU) + centre distance / size + |log of the size ratio|.

    Args:
        predicted: (m, 4) xyxy px, where the tracks are expected.
        boxes: (n, 4) xyxy px, the detections.

    Returns:
        (m, n) float64 >= 0; size is the geometric mean of the two boxes' sizes, each sqrt(width x height). Pairs that
        cannot be one face (centres over 0.9 sizes apart, or sizes that differ by more than a factor of two) cost 1e6.
    """
    p, b = predicted[:, None, :], boxes[None, :, :]
    inner = np.minimum(p[..., 2:], b[..., 2:]) - np.maximum(p[..., :2], b[..., :2])
    shared = np.clip(inner, 0, None).prod(axis=-1)
    area_p = (p[..., 2:] - p[..., :2]).prod(axis=-1)
    area_b = (b[..., 2:] - b[..., :2]).prod(axis=-1)
    iou = shared / (area_p + area_b - shared)
    distance = np.linalg.norm((p[..., :2] + p[..., 2:] - b[..., :2] - b[..., 2:]) / 2, axis=-1)
    distance = distance / np.sqrt(np.sqrt(area_p * area_b))
    log_ratio = np.abs(np.log(area_b / area_p)) / 2
    cost = (1 - iou) + distance + log_ratio
    return np.where((distance <= 0.9) & (log_ratio <= math.log(2)), cost, _NO_LINK)


def assign(cost: np.ndarray) -> list[tuple[int, int]]:
    """The cheapest one-to-one assignment when leaving a row or a column alone costs 1: list of (row, column)."""
    m, n = cost.shape
    if not m or not n:
        return []
    # Rows and columns get a private partner each that stands for staying alone; partners pair up for nothing.
    full = np.full((m + n, m + n), _NO_LINK)
    full[:m, :n] = np.where(cost < 2 * _UNMATCHED, cost, _NO_LINK)
    full[np.arange(m), n + np.arange(m)] = _UNMATCHED
    full[m + np.arange(n), np.arange(n)] = _UNMATCHED
    full[m:, n:] = 0
    rows, columns = linear_sum_assignment(full)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if i < m and j < n]


class FaceTracker:
    """Turns detections on some frames into final tracks on every frame.

    Frames are pushed in order of time; each comes out once, in order, at the latest when a frame ``delay_s`` or more
    after it has been pushed (sooner at a cut). What comes out is final: only tracks that are long enough ever appear.

    - Linking: one optimal assignment a detected frame (``link_cost``, ``assign``) between detections and the positions
      that the tracks' recent speed predicts. A detection that lies on a face already linked starts no track.
    - A face may be missed for ``gap_s``; the gap is filled by a straight line. However rarely the detector runs, the
      run right after an anchor may continue it, up to ``delay_s`` later.
    - A track ends with its last anchor, begins with its first. Where the detector did not run at the very end (start)
      of a shot, the last (first) box is held up to there, for at most ``gap_s``.
    - Faces between detections are marked ``interpolated`` and carry the lower score of the two anchors around them.

    Args:
        width: frame width in pixels.
        height: frame height in pixels.
        gap_s: longest gap that is bridged, in seconds.
        min_length_s: shorter tracks never appear (unless the whole clip is shorter).
        smooth_s: width of the running median in seconds (the Gaussian's standard deviation is a sixth of it); 0 turns
            smoothing off. The published demo's median takes 13 frames at 25 frames a second.
        start_score: a track appears only if one of its detections scores this much; weaker ones may continue it. (YuNet
            on five shared clips: 79 of 82 tracks reach 0.84, and so does a hand that it takes for a face.)

    Attributes:
        delay_s: the look-ahead in seconds.
    """

    def __init__(
        self,
        width: int,
        height: int,
        *,
        gap_s: float = 0.4,
        min_length_s: float = 0.4,
        smooth_s: float = 0.5,
        start_score: float = 0.8,
    ) -> None:
        self._width, self._height = width, height
        self._gap_s, self._min_length_s, self._start_score = gap_s, min_length_s, start_score
        # Taps of the median, and of the Gaussian out to 2.5 standard deviations.
        self._median_taps = round(smooth_s / 2 / _TAP_S)
        sigma_s = smooth_s / 6
        taps = math.floor(2.5 * sigma_s / _TAP_S)
        offsets = np.arange(-taps, taps + 1) * _TAP_S
        weights = np.exp(-0.5 * (offsets / sigma_s) ** 2) if taps else np.ones(1)
        self._weights = weights / weights.sum()
        self._reach_s = (self._median_taps + taps) * _TAP_S
        reach = self._median_taps + taps
        self._offsets = np.arange(-reach, reach + 1) * _TAP_S
        self.delay_s = gap_s + max(min_length_s, self._reach_s)
        self._pending: deque[tuple[int, float]] = deque()
        self._trails: list[_Trail] = []
        self._next_id = 1
        self._last_time_s = -math.inf
        self._shot_start_s: float | None = None
        self._ran_in_shot = False
        self._only_shot = True

    def push(self, index: int, time_s: float, detections: Detections | None, cut: bool = False) -> list[FrameTracks]:
        """Take the next source frame.

        Args:
            index: source frame index.
            time_s: its presentation time in seconds, larger than the last one's.
            detections: what the detector found in it; None when it did not run.
            cut: True when a new shot begins with this frame.

        Returns:
            The frames that have become final, in order.

        Raises:
            ValueError: the time does not increase.
        """
        if not time_s > self._last_time_s:
            raise ValueError(f"frame {index} at {time_s} s does not come after {self._last_time_s} s")
        self._last_time_s = time_s
        done: list[FrameTracks] = []
        if cut and self._shot_start_s is not None:
            self._only_shot = False
            done = self._finish_shot()
        if self._shot_start_s is None:
            self._shot_start_s, self._ran_in_shot = time_s, False
        self._pending.append((index, time_s))
        if detections is not None:
            self._link(time_s, detections)
        for trail in self._trails:
            if time_s - trail.last_s > (self._gap_s if trail.missed else self.delay_s) + _CLOCK_S:
                trail.closed = True
        while self._pending and self._pending[0][1] <= time_s - self.delay_s + _CLOCK_S:
            done.append(self._emit(*self._pending.popleft()))
        return done

    def flush(self) -> list[FrameTracks]:
        """End of the clip: everything still held back."""
        return self._finish_shot()

    def _finish_shot(self) -> list[FrameTracks]:
        end_s = self._pending[-1][1] if self._pending else self._last_time_s
        # A clip that is too short for any track would otherwise never show a face.
        whole = self._only_shot and self._shot_start_s is not None and end_s - self._shot_start_s < self._min_length_s
        if whole:
            for trail in self._trails:
                trail.start_s = min(trail.start_s, end_s - self._min_length_s)
        for trail in self._trails:
            trail.closed = True
        done = [self._emit(*frame, shot_end_s=end_s) for frame in self._pending]
        self._pending.clear()
        self._trails.clear()
        self._shot_start_s = None
        return done

    def _link(self, time_s: float, detections: Detections) -> None:
        first_run, self._ran_in_shot = not self._ran_in_shot, True
        rows, scores = self._rows(detections)
        trails = [t for t in self._trails if not t.closed and self._may_continue(t, time_s)]
        predicted = np.array([t.predicted(time_s) for t in trails]).reshape(-1, 4)
        pairs = assign(link_cost(predicted, rows[:, :4]))
        for i, j in pairs:
            trails[i].add(time_s, rows[j], float(scores[j]))
        linked = [j for _, j in pairs]
        continued = {i for i, _ in pairs}
        for i, trail in enumerate(trails):
            if i not in continued:
                trail.missed = True
        taken = rows[linked, :4]
        held = first_run and time_s - self._shot_start_s <= self._gap_s + _CLOCK_S
        for j in range(len(rows)):
            if j in linked or _lies_on(rows[j, :4], taken):
                continue
            taken = np.concatenate([taken, rows[j : j + 1, :4]])
            start_s = self._shot_start_s if held else time_s
            self._trails.append(_Trail(start_s, time_s, rows[j], float(scores[j])))

    def _may_continue(self, trail: _Trail, time_s: float) -> bool:
        return time_s - trail.last_s <= (self._gap_s if trail.missed else self.delay_s) + _CLOCK_S

    def _rows(self, detections: Detections) -> tuple[np.ndarray, np.ndarray]:
        """(n, 14) float64 rows and (n,) scores of the usable detections, best first."""
        n = len(detections)
        rows = np.full((n, 14), np.nan)
        rows[:, :4] = np.asarray(detections.boxes, np.float64).reshape(n, 4)
        if detections.landmarks is not None:
            rows[:, 4:] = np.asarray(detections.landmarks, np.float64).reshape(n, 10)
        scores = np.asarray(detections.scores, np.float64).reshape(n)
        centre = (rows[:, 0:2] + rows[:, 2:4]) / 2
        good = np.isfinite(rows[:, :4]).all(axis=1) & (rows[:, 2:4] > rows[:, 0:2]).all(axis=1)
        good &= (centre >= 0).all(axis=1) & (centre <= [self._width, self._height]).all(axis=1)
        rows, scores = rows[good], scores[good]
        order = np.argsort(-scores, kind="stable")
        return rows[order], scores[order]

    def _emit(self, index: int, time_s: float, shot_end_s: float | None = None) -> FrameTracks:
        present = []
        for trail in self._trails:
            if trail.start_s > time_s:
                continue
            end_s = self._end(trail, shot_end_s)
            if time_s > end_s + _CLOCK_S:
                continue
            if trail.track_id is None and not self._long_enough(trail, end_s):
                # Its first frame goes out without it, so it can never appear.
                trail.closed = True
                trail.start_s = math.inf
                continue
            present.append(trail)
        boxes = {id(trail): self._smoothed(trail, time_s) for trail in present}
        for trail in sorted((t for t in present if t.track_id is None), key=lambda t: boxes[id(t)][0]):
            trail.track_id, self._next_id = self._next_id, self._next_id + 1
        faces = [self._face(trail, boxes[id(trail)], time_s) for trail in present]
        kept = []
        for trail in self._trails:
            if trail.closed and (trail.start_s == math.inf or self._end(trail, shot_end_s) <= time_s):
                continue
            trail.forget(time_s - self._reach_s)
            kept.append(trail)
        self._trails = kept
        return FrameTracks(index, time_s, tuple(sorted(faces, key=lambda f: f.track_id)))

    def _end(self, trail: _Trail, shot_end_s: float | None) -> float:
        """Time up to which the track is known to last, its last box held where the detector has not run since."""
        if trail.missed:
            return trail.last_s
        newest_s = self._last_time_s if shot_end_s is None else shot_end_s
        return min(trail.last_s + self._gap_s, newest_s)

    def _long_enough(self, trail: _Trail, end_s: float) -> bool:
        return end_s - trail.start_s >= self._min_length_s - _CLOCK_S and trail.top_score >= self._start_score

    def _smoothed(self, trail: _Trail, time_s: float) -> np.ndarray:
        """(14,) smoothed box and landmarks at ``time_s``."""
        path = trail.sample(time_s + self._offsets)
        width = 2 * self._median_taps + 1
        if width > 1:
            windows = np.lib.stride_tricks.sliding_window_view(path, width, axis=0)  # (taps, 14, width)
            path = np.partition(windows, self._median_taps, axis=-1)[..., self._median_taps]
        middle = path[len(path) // 2]
        return middle + self._weights @ (path - middle)  # differences, so that a constant comes out unchanged

    def _face(self, trail: _Trail, row: np.ndarray, time_s: float) -> TrackedFace:
        at = int(np.searchsorted(trail.times, time_s))
        detected = at < len(trail.times) and trail.times[at] == time_s
        around = [trail.scores[at]] if detected else trail.scores[max(0, at - 1) : at + 1]
        landmarks = row[4:].reshape(5, 2).astype(np.float32)
        return TrackedFace(
            track_id=trail.track_id,
            box=self._inside(row[:4]),
            score=float(min(around)),
            interpolated=not detected,
            landmarks=landmarks if np.isfinite(landmarks).all() else None,
        )

    def _inside(self, box: np.ndarray) -> np.ndarray:
        """The part of a box inside the frame, (4,) float32, at least a pixel wide and high."""
        x1, y1, x2, y2 = box
        x1, y1 = min(max(x1, 0.0), self._width - 1), min(max(y1, 0.0), self._height - 1)
        return np.array([x1, y1, max(x1 + 1, min(x2, self._width)), max(y1 + 1, min(y2, self._height))], np.float32)


def _lies_on(box: np.ndarray, others: np.ndarray) -> bool:
    """True when a box overlaps one of (n, 4) others so much that both must be the same face."""
    if not len(others):
        return False
    shared = np.clip(np.minimum(others[:, 2:], box[2:]) - np.maximum(others[:, :2], box[:2]), 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    area = (box[2:] - box[:2]).prod()
    return bool(((shared / (areas + area - shared) > 0.4) | (shared / np.minimum(areas, area) > 0.7)).any())
