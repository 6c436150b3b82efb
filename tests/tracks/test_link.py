"""The tracker's laws: every frame once, constant in constant out, ids for life, a bounded delay, no shrinking ends."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.tracks.detect import Detections
from asd_explain.tracks.link import FaceTracker, assign, link_cost
from asd_explain.tracks.track import FrameTracks, Track, TrackedFace

WIDTH, HEIGHT = 640, 360


def seen(*boxes: list[float], score: float = 0.9, landmarks: bool = False) -> Detections:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    points = None
    if landmarks:
        points = np.repeat(((array[:, :2] + array[:, 2:]) / 2)[:, None, :], 5, axis=1)
    return Detections(array, np.full(len(array), score, np.float32), points)


def run(
    tracker: FaceTracker, times: list[float], detections: list[Detections | None], cuts: tuple[int, ...] = ()
) -> list[FrameTracks]:
    done = []
    for i, (time, found) in enumerate(zip(times, detections, strict=True)):
        done += tracker.push(i, time, found, cut=i in cuts)
    return done + tracker.flush()


def by_track(frames: list[FrameTracks]) -> dict[int, list[tuple[int, TrackedFace]]]:
    tracks: dict[int, list[tuple[int, TrackedFace]]] = {}
    for frame in frames:
        for face in frame.faces:
            tracks.setdefault(face.track_id, []).append((frame.index, face))
    return tracks


def boxes_of(items: list[tuple[int, TrackedFace]]) -> np.ndarray:
    return np.stack([face.box for _, face in items])


def regular(n: int, fps: float = 25.0) -> list[float]:
    return [i / fps for i in range(n)]


frame_rates = st.sampled_from([10.0, 15.0, 24000 / 1001, 25.0, 29.97, 50.0, 60.0])


@settings(max_examples=40, deadline=None)
@given(
    fps=frame_rates,
    interval=st.sampled_from([0.0, 0.1, 0.2, 0.3]),
    x=st.floats(0, 400),
    y=st.floats(0, 200),
    w=st.floats(20, 200),
    h=st.floats(20, 150),
)
def test_constant_box_in_same_constant_out(fps: float, interval: float, x: float, y: float, w: float, h: float) -> None:
    box = np.array([x, y, x + w, y + h], np.float32)
    times = regular(int(2 * fps), fps)
    stride = max(1, round(interval * fps))
    found = [seen(box, landmarks=True) if i % stride == 0 else None for i in range(len(times))]
    frames = run(FaceTracker(WIDTH, HEIGHT), times, found)
    tracks = by_track(frames)
    assert list(tracks) == [1]
    assert len(tracks[1]) == len(times)
    # The very same float32 numbers, in the first and the last frame too.
    assert (boxes_of(tracks[1]) == box).all()
    centre = np.repeat(((box[:2] + box[2:]) / 2)[None], 5, axis=0)
    assert all(np.allclose(face.landmarks, centre) for _, face in tracks[1])
    assert all(face.interpolated == (i % stride != 0) for i, face in tracks[1])


@st.composite
def scripts(draw: st.DrawFn) -> tuple[list[float], list[Detections | None], tuple[int, ...]]:
    """Irregular times, random faces, missed frames, cuts."""
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    fps = draw(frame_rates)
    steps = rng.uniform(0.5, 1.5, n) / fps
    steps[rng.random(n) < 0.03] += rng.uniform(0, 3)
    times = list(np.cumsum(steps))
    homes = [(rng.uniform(0, 500), rng.uniform(0, 250), rng.uniform(20, 90)) for _ in range(draw(st.integers(0, 4)))]
    stride = draw(st.integers(1, 7))
    found: list[Detections | None] = []
    for i in range(n):
        if i % stride:
            found.append(None)
            continue
        boxes = []
        for x, y, size in homes:
            if rng.random() < 0.85:
                dx, dy = rng.normal(0, 5, 2)
                boxes.append([x + dx, y + dy, x + dx + size, y + dy + size * 1.3])
        found.append(seen(*boxes) if boxes else Detections.none())
    cuts = tuple(int(i) for i in np.flatnonzero(rng.random(n) < 0.04))
    return times, found, cuts


@settings(max_examples=60, deadline=None)
@given(scripts())
def test_every_frame_once_in_order_within_the_delay(script) -> None:
    times, found, cuts = script
    tracker = FaceTracker(WIDTH, HEIGHT)
    done = []
    for i, (time, detections) in enumerate(zip(times, found, strict=True)):
        done += tracker.push(i, time, detections, cut=i in cuts)
        late = [t for t in times[len(done) : i + 1] if t < time - tracker.delay_s - 1e-5]
        assert not late
    done += tracker.flush()
    assert [frame.index for frame in done] == list(range(len(times)))
    assert [frame.time_s for frame in done] == times
    assert tracker.delay_s <= 1.0


@settings(max_examples=60, deadline=None)
@given(scripts())
def test_tracks_are_unbroken_long_enough_and_inside_one_shot(script) -> None:
    times, found, cuts = script
    frames = run(FaceTracker(WIDTH, HEIGHT), times, found, cuts)
    shot = np.cumsum([i in cuts and i > 0 for i in range(len(times))])
    tracks = by_track(frames)
    assert sorted(tracks) == list(range(1, len(tracks) + 1))
    for track_id, items in tracks.items():
        indices = [i for i, _ in items]
        # A hole would mean that an id was used again.
        assert indices == list(range(indices[0], indices[-1] + 1))
        assert len(set(shot[indices])) == 1
        if times[-1] - times[0] >= 0.4:
            # the gap of two frames around a track's end belongs to it as well
            length = times[min(indices[-1] + 1, len(times) - 1)] - times[max(indices[0] - 1, 0)]
            assert length >= 0.4 - 1e-6
        track = Track.from_frames(track_id, [(i, times[i], face) for i, face in items])
        assert (track.boxes[:, 2:] > track.boxes[:, :2]).all()
        assert track.boxes.min() >= 0
        assert (track.boxes[:, 2] <= WIDTH).all()
        assert (track.boxes[:, 3] <= HEIGHT).all()
        assert ((track.scores >= 0) & (track.scores <= 1)).all()


@settings(max_examples=20, deadline=None)
@given(scripts())
def test_same_input_same_output(script) -> None:
    times, found, cuts = script
    first, second = (run(FaceTracker(WIDTH, HEIGHT), times, found, cuts) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert [f.track_id for f in a.faces] == [f.track_id for f in b.faces]
        assert all((f.box == g.box).all() for f, g in zip(a.faces, b.faces, strict=True))


def test_ends_do_not_shrink_and_follow_the_motion() -> None:
    # A face that moves right and comes nearer: a zero-padded median would halve its box at both ends.
    times = regular(75)
    truth = np.array([[100 + 60 * t, 80, 200 + 70 * t, 200 + 12 * t] for t in times])
    frames = run(FaceTracker(WIDTH, HEIGHT), times, [seen(list(b)) for b in truth])
    boxes = boxes_of(by_track(frames)[1])
    assert np.abs(boxes[12:-12] - truth[12:-12]).max() < 0.05  # straight motion passes unchanged
    assert np.abs(boxes - truth).max() < 0.25 * 70  # the ends lag by less than a quarter of a second's motion
    assert np.diff(boxes[:, 2]).min() > -1e-3


def test_single_wild_detection_is_smoothed_away() -> None:
    times = regular(50)
    found = [seen([100, 100, 180, 200])] * 50
    found[20] = seen([110, 85, 200, 190])
    boxes = boxes_of(by_track(run(FaceTracker(WIDTH, HEIGHT), times, found))[1])
    assert np.abs(boxes - [100, 100, 180, 200]).max() < 0.01


def test_smoothing_can_be_switched_off() -> None:
    rng = np.random.default_rng(0)
    truth = (np.array([100, 100, 180, 200]) + rng.normal(0, 4, (30, 4))).astype(np.float32)
    frames = run(FaceTracker(WIDTH, HEIGHT, smooth_s=0), regular(30), [seen(b) for b in truth])
    assert np.abs(boxes_of(by_track(frames)[1]) - truth).max() < 1e-4


def test_result_hardly_depends_on_the_frame_rate() -> None:
    results = []
    for fps in (10.0, 25.0, 60.0):
        times = regular(int(3 * fps) + 1, fps)
        step = round(0.2 * fps)
        found = [
            seen([100 + 40 * np.sin(2 * t), 100, 180 + 40 * np.sin(2 * t), 200]) if i % step == 0 else None
            for i, t in enumerate(times)
        ]
        frames = run(FaceTracker(WIDTH, HEIGHT), times, found)
        results.append([frames[round(t * fps)].faces[0].box for t in (0.0, 0.5, 1.0, 2.0, 3.0)])
    assert np.abs(np.array(results) - results[0]).max() < 1.0


def test_streaming_equals_looking_at_everything() -> None:
    # With a look-ahead far longer than needed, nothing changes.
    rng = np.random.default_rng(5)
    times = list(np.cumsum(rng.uniform(0.02, 0.06, 120)))
    found = [
        seen(list(np.array([100, 100, 180, 200]) + rng.normal(0, 3, 4))) if i % 4 == 0 and rng.random() < 0.9 else None
        for i in range(120)
    ]
    patient = FaceTracker(WIDTH, HEIGHT)
    needed, patient.delay_s = patient.delay_s, 100.0
    first, second = run(FaceTracker(WIDTH, HEIGHT), times, found), run(patient, times, found)
    assert needed <= 1.0
    for a, b in zip(first, second, strict=True):
        assert len(a.faces) == len(b.faces)
        assert all(np.allclose(f.box, g.box, atol=1e-3) for f, g in zip(a.faces, b.faces, strict=True))


@pytest.mark.parametrize("stride", [1, 3, 5])
def test_crossing_faces_keep_their_ids(stride: int) -> None:
    times = regular(76)
    found = []
    for i, t in enumerate(times):
        a, b = 50 + 110 * t, 400 - 110 * t
        pair = [[a, 100, a + 60, 175], [b, 110, b + 62, 190]]
        found.append(seen(*(pair if i % 2 else pair[::-1])) if i % stride == 0 else None)
    tracks = by_track(run(FaceTracker(WIDTH, HEIGHT), times, found))
    assert len(tracks) == 2
    x = {track_id: boxes_of(items)[:, 0] for track_id, items in tracks.items()}
    assert (np.diff(x[1]) > -1e-3).all()
    assert (np.diff(x[2]) < 1e-3).all()
    assert all(len(v) == len(times) for v in x.values())


def test_crossing_with_one_face_hidden_meanwhile() -> None:
    times = regular(76)
    found = []
    for t in times:
        a, b = 50 + 110 * t, 400 - 110 * t
        hidden = abs(a - b) < 30
        found.append(seen(*([[a, 100, a + 60, 175]] if hidden else [[a, 100, a + 60, 175], [b, 110, b + 60, 190]])))
    tracks = by_track(run(FaceTracker(WIDTH, HEIGHT), times, found))
    assert len(tracks) == 2
    assert boxes_of(tracks[2])[-1][0] < 120


def test_adjacent_faces_keep_their_ids_when_one_leaves() -> None:
    left, right = [100, 100, 160, 180], [162, 100, 222, 180]
    found = [seen(left, right)] * 25 + [seen(right)] * 25
    tracks = by_track(run(FaceTracker(WIDTH, HEIGHT), regular(50), found))
    assert [len(items) for items in tracks.values()] == [25, 50]
    assert (boxes_of(tracks[2]) == right).all()


def test_gap_is_bridged_by_a_straight_line_and_marked() -> None:
    found: list[Detections | None] = [seen([100, 100, 160, 180], score=0.9)] * 20
    found += [Detections.none()] * 9
    found += [seen([120, 100, 180, 180], score=0.7)] * 20
    tracks = by_track(run(FaceTracker(WIDTH, HEIGHT), regular(49), found))
    assert list(tracks) == [1]
    assert [i for i, face in tracks[1] if face.interpolated] == list(range(20, 29))
    assert {face.score for i, face in tracks[1] if 20 <= i < 29} == {np.float32(0.7)}
    assert 100 < boxes_of(tracks[1])[24][0] < 120


def test_longer_gap_starts_a_new_track() -> None:
    face = seen([100, 100, 160, 180])
    found = [face] * 20 + [Detections.none()] * 15 + [face] * 20
    tracks = by_track(run(FaceTracker(WIDTH, HEIGHT), regular(55), found))
    assert [(items[0][0], items[-1][0]) for items in tracks.values()] == [(0, 19), (35, 54)]


def test_short_and_weak_tracks_never_appear() -> None:
    flicker = [seen([100, 100, 160, 180])] * 8 + [Detections.none()] * 40
    assert not by_track(run(FaceTracker(WIDTH, HEIGHT), regular(48), flicker))
    weak = [seen([100, 100, 160, 180], score=0.55)] * 48
    assert not by_track(run(FaceTracker(WIDTH, HEIGHT), regular(48), weak))
    weak[30] = seen([100, 100, 160, 180], score=0.85)
    assert len(by_track(run(FaceTracker(WIDTH, HEIGHT), regular(48), weak))) == 1


def test_cut_ends_every_track_and_holds_boxes_up_to_it() -> None:
    face = seen([100, 100, 160, 180])
    found = [face if i % 5 == 0 else None for i in range(60)]
    found[28] = face
    tracks = by_track(run(FaceTracker(WIDTH, HEIGHT), regular(60), found, cuts=(28,)))
    assert [(items[0][0], items[-1][0]) for items in tracks.values()] == [(0, 27), (28, 59)]
    held = [face for i, face in tracks[1] if i in (26, 27)]
    assert all(face.interpolated for face in held)
    assert all((face.box == [100, 100, 160, 180]).all() for face in held)


def test_cut_releases_everything_before_it_at_once() -> None:
    tracker = FaceTracker(WIDTH, HEIGHT)
    face = seen([100, 100, 160, 180])
    done = [f for i in range(15) for f in tracker.push(i, i / 25, face)]
    assert not done
    assert [f.index for f in tracker.push(15, 0.6, face, cut=True)] == list(range(15))


def test_detector_that_starts_late_in_a_shot_is_believed_for_its_beginning() -> None:
    face = seen([100, 100, 160, 180])
    found = [face if i % 5 == 3 else None for i in range(30)]
    frames = run(FaceTracker(WIDTH, HEIGHT), regular(30), found)
    assert all(len(frame.faces) == 1 for frame in frames)
    assert frames[0].faces[0].interpolated


def test_low_frame_rate_with_a_sparse_detector_still_links() -> None:
    face = seen([100, 100, 160, 180])
    found = [face if i % 5 == 0 else None for i in range(40)]  # every half second at 10 frames a second
    tracks = by_track(run(FaceTracker(WIDTH, HEIGHT), regular(40, 10.0), found))
    assert [len(items) for items in tracks.values()] == [40]


@pytest.mark.parametrize("n", [1, 3])
def test_clip_shorter_than_any_track_shows_its_faces(n: int) -> None:
    frames = run(FaceTracker(WIDTH, HEIGHT), regular(n), [seen([100, 100, 160, 180])] * n)
    assert [len(frame.faces) for frame in frames] == [1] * n


def test_no_frames_and_no_faces() -> None:
    assert FaceTracker(8, 8).flush() == []
    frames = run(FaceTracker(8, 8), regular(30), [Detections.none(landmarks=True)] * 30)
    assert [frame.faces for frame in frames] == [()] * 30


def test_box_over_the_border_is_clipped_and_bad_ones_are_ignored() -> None:
    found = seen([-20, -10, 60, 90], [np.nan, 0, 1, 1], [50, 50, 40, 60], [700, 100, 800, 200])
    frames = run(FaceTracker(WIDTH, HEIGHT), regular(30), [found] * 30)
    assert all(len(frame.faces) == 1 for frame in frames)
    assert frames[0].faces[0].box.tolist() == [0, 0, 60, 90]


def test_second_box_on_the_same_face_starts_no_track() -> None:
    found = seen([100, 100, 160, 180], [104, 104, 166, 190], [115, 120, 145, 160])
    assert len(by_track(run(FaceTracker(WIDTH, HEIGHT), regular(40), [found] * 40))) == 1


def test_new_tracks_are_numbered_from_left_to_right() -> None:
    found = seen([300, 10, 360, 80], [20, 10, 80, 80], [150, 10, 210, 80])
    frames = run(FaceTracker(WIDTH, HEIGHT), regular(30), [found] * 30)
    assert [face.box[0] for face in frames[0].faces] == [20, 150, 300]
    assert [face.track_id for face in frames[0].faces] == [1, 2, 3]


def test_time_must_increase() -> None:
    tracker = FaceTracker(WIDTH, HEIGHT)
    tracker.push(0, 1.0, None)
    with pytest.raises(ValueError, match="does not come after"):
        tracker.push(1, 1.0, None)


def test_memory_stays_small() -> None:
    tracker = FaceTracker(WIDTH, HEIGHT)
    face = seen([100, 100, 160, 180])
    for i in range(3000):
        tracker.push(i, i / 25, face if i % 5 == 0 else None)
    assert len(tracker._pending) <= 25
    assert len(tracker._trails) == 1
    assert len(tracker._trails[0].times) <= 12


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_assignment_is_optimal(m: int, n: int, seed: int) -> None:
    cost = np.random.default_rng(seed).uniform(0, 3, (m, n))
    pairs = assign(cost)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)

    def total(chosen: list[tuple[int, int]]) -> float:
        return sum(cost[i, j] for i, j in chosen) + (m + n - 2 * len(chosen))

    best = min(
        total(list(zip(rows, columns, strict=True)))
        for k in range(min(m, n) + 1)
        for rows in itertools.combinations(range(m), k)
        for columns in itertools.permutations(range(n), k)
    )
    assert total(pairs) == pytest.approx(best)


def test_link_cost_is_zero_for_the_same_box_and_gates() -> None:
    boxes = np.array([[0, 0, 10, 10], [100, 0, 110, 10], [0, 0, 40, 40]], float)
    cost = link_cost(boxes[:1], boxes)
    assert cost[0, 0] == 0
    assert (cost[0, 1:] >= 1e6).all()
