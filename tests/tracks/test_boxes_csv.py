"""Boxes from AVA and WASD csv: both dialects, times, gaps, bodies, and every way a file can be wrong."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from asd_explain.ava_format import COLUMNS
from asd_explain.errors import BoxesError
from asd_explain.media.probing import ClipInfo
from asd_explain.tracks.boxes_csv import CsvTracker, read_boxes
from asd_explain.tracks.crops import body_box
from asd_explain.tracks.track import FrameTracks, Track

HEADER = ",".join(COLUMNS)


def clip(name: str = "talk.mp4", *, start_s: float = 0.0, duration_s: float | None = 4.0, fps: int = 25) -> ClipInfo:
    return ClipInfo(
        path=Path(name),
        width=200,
        height=100,
        fps=Fraction(fps),
        duration_s=duration_s,
        start_s=start_s,
        rotation=0,
        has_audio=True,
        full_range=False,
        matrix="bt601",
        sample_aspect_ratio=Fraction(1),
        codec="h264",
        audio_codec="aac",
    )


def row(time: object, x1: object = 0.1, entity: str = "talk:1", video: str = "talk", x2: object = 0.5) -> str:
    return f"{video},{time},{x1},0.2,{x2},0.8,NOT_SPEAKING,{entity}"


def write(folder: Path, *lines: str, name: str = "boxes.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(tracker: CsvTracker, times: list[float]) -> list[FrameTracks]:
    done = []
    for i, time in enumerate(times):
        done += tracker.push(i, time, None)
    return done + tracker.flush()


def test_original_ava_rows_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path, row(0.04), row(0.0), row(0.08, entity="talk:0"))
    entities = read_boxes(path, clip())
    assert list(entities) == ["talk:1", "talk:0"]
    assert entities["talk:1"].times_s.tolist() == [0.0, 0.04]
    assert entities["talk:1"].boxes.dtype == np.float32
    assert np.allclose(entities["talk:1"].boxes, [[20, 20, 100, 80]] * 2)


def test_talknet_style_with_header_and_more_columns_in_any_order(tmp_path: Path) -> None:
    header = "label_id,instance_id," + ",".join(reversed(COLUMNS))
    path = write(tmp_path, header, "1,a:0,talk:1,SPEAKING_AUDIBLE,0.8,0.5,0.2,0.1,0.0,talk")
    assert np.allclose(read_boxes(path, clip())["talk:1"].boxes, [[20, 20, 100, 80]])


def test_byte_order_mark_blank_lines_quotes_and_crlf(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_bytes(f'\ufeff{HEADER},score\r\n\r\n"talk","0.0",0.1,0.2,0.5,0.8,X,"talk:1",0.7\r\n'.encode())
    assert list(read_boxes(path, clip())) == ["talk:1"]


@pytest.mark.parametrize("video", ["talk", "talk.mp4"])
def test_rows_of_other_clips_are_passed_over_even_when_bad(tmp_path: Path, video: str) -> None:
    path = write(tmp_path, row("nan", video="other"), row(0.0, video=video), row(0.0, video="talk2", entity="talk2:1"))
    assert list(read_boxes(path, clip())) == ["talk:1"]


def test_clip_names_with_dots(tmp_path: Path) -> None:
    path = write(tmp_path, row(0.0, video="a.b_10-20"))
    assert read_boxes(path, clip("a.b_10-20.mkv"))


def test_boxes_a_little_over_the_border_are_clipped(tmp_path: Path) -> None:
    path = write(tmp_path, row(0.0, x1=-0.03), row(0.04, x2=1.04))
    assert np.allclose(read_boxes(path, clip())["talk:1"].boxes, [[0, 20, 100, 80], [20, 20, 200, 80]])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], "is empty"),
        ([HEADER], "has no row with video_id talk; it holds none"),
        (["talk,0.0,0.1,0.2,0.5,0.8"], "6 columns"),
        (["video_id,frame_timestamp,label", "talk,0,X"], "header lacks entity_box_x1"),
        ([HEADER, "talk,0.0,0.1"], "line 2: 3 columns"),
        ([row(0.0, video=f"clip{i}") for i in range(9)], "clip0, clip1, clip2, clip3, clip4$"),
        ([row(0.0), row("nan")], "line 2: .*finite"),
        ([row(0.0, x1="inf")], "line 1: .*finite"),
        ([row(0.0, x1="left")], "line 1: .*must be numbers"),
        ([row("")], "line 1: .*must be numbers"),
        ([row(0.0, x1=0.5, x2=0.5)], "line 1: .*no area"),
        ([row(0.0, x1=0.6, x2=0.5)], "line 1: .*no area"),
        ([row(0.0, x1=-0.2)], "line 1: .*leaves the frame"),
        ([row(0.0, x1=20, x2=100)], "are these pixels"),
        ([row(0.0), row(0.0)], "second box of talk:1 at 0 s"),
        ([row(902.0), row(903.5)], r"902.00 to 903.50 s\) do not overlap talk.mp4"),
    ],
)
def test_malformed_files_get_one_clear_line(tmp_path: Path, lines: list[str], message: str) -> None:
    path = write(tmp_path, *lines)
    with pytest.raises(BoxesError, match=message) as caught:
        read_boxes(path, clip())
    assert "\n" not in str(caught.value)
    assert "boxes.csv" in str(caught.value)


def test_missing_file_folder_and_binary(tmp_path: Path) -> None:
    with pytest.raises(BoxesError, match="no such boxes csv"):
        read_boxes(tmp_path / "gone.csv", clip())
    with pytest.raises(BoxesError, match="is not a file"):
        read_boxes(tmp_path, clip())
    binary = tmp_path / "clip.mp4"
    binary.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(BoxesError, match="not a csv text file"):
        read_boxes(binary, clip())


def test_frames_near_a_row_are_detected_and_between_rows_interpolated(tmp_path: Path) -> None:
    # Rows every 0.2 s, frames every 0.04 s.
    path = write(tmp_path, *(row(round(0.2 * k, 2), x1=round(0.1 + 0.02 * k, 4)) for k in range(5)))
    frames = run(CsvTracker(path, None, clip()), [i / 25 for i in range(30)])
    assert [frame.index for frame in frames] == list(range(30))
    faces = [frame.faces[0] for frame in frames[:21]]
    assert [i for i, face in enumerate(faces) if not face.interpolated] == [0, 5, 10, 15, 20]
    assert [frame.faces for frame in frames[21:]] == [()] * 9
    assert np.allclose([face.box[0] for face in faces], 20 + 4 * np.arange(21) / 5, atol=1e-4)
    assert all(face.body is None for face in faces)


def test_rounded_timestamps_count_as_detected(tmp_path: Path) -> None:
    times = [i / 29.97 for i in range(60)]
    path = write(tmp_path, *(row(f"{time:.2f}") for time in times))
    frames = run(CsvTracker(path, None, clip(fps=30)), times)
    assert not any(face.interpolated for frame in frames for face in frame.faces)
    assert all(len(frame.faces) == 1 for frame in frames)


def test_container_clock_is_the_csv_clock(tmp_path: Path) -> None:
    path = write(tmp_path, row(10.0), row(10.04))
    frames = run(CsvTracker(path, None, clip(start_s=9.96)), [9.96, 10.0, 10.04, 10.08])
    assert [len(frame.faces) for frame in frames] == [0, 1, 1, 0]


def test_long_gap_makes_a_new_track_of_the_same_entity(tmp_path: Path) -> None:
    times = [i / 25 for i in range(75)]
    there = [t for t in times if t < 1 or t > 2]
    path = write(
        tmp_path, *(row(t, entity="talk:b") for t in there), *(row(t, entity="talk:a", x1=0.3) for t in times[5:])
    )
    tracker = CsvTracker(path, None, clip())
    frames = run(tracker, times)
    assert tracker.entity_ids == {1: "talk:b", 2: "talk:a", 3: "talk:b"}
    for track_id in tracker.entity_ids:
        items = [(f.index, f.time_s, face) for f in frames for face in f.faces if face.track_id == track_id]
        track = Track.from_frames(track_id, items)
        assert (np.diff(track.frames) == 1).all()


def test_bodies_are_matched_by_entity_or_derived(tmp_path: Path) -> None:
    faces = write(tmp_path, row(0.0), row(0.04), row(0.0, entity="talk:2"), name="faces.csv")
    bodies = write(tmp_path, "talk,0.0,0.05,0.1,0.9,1.0,X,talk:1", "talk,0.04,0.05,0.1,0.9,1.0,X,talk:1", name="b.csv")
    frames = run(CsvTracker(faces, bodies, clip()), [0.0, 0.04])
    first, second = frames[0].faces
    assert np.allclose(first.body, [10, 10, 180, 100])
    assert np.allclose(second.body, body_box(second.box, 200, 100))
    assert np.allclose(frames[1].faces[0].body, [10, 10, 180, 100])


def test_bodies_of_nobody_are_refused(tmp_path: Path) -> None:
    faces = write(tmp_path, row(0.0), name="faces.csv")
    bodies = write(tmp_path, row(0.0, entity="someone"), name="bodies.csv")
    with pytest.raises(BoxesError, match=r"bodies\.csv: none of its entities"):
        CsvTracker(faces, bodies, clip())


def test_unknown_duration_is_no_obstacle(tmp_path: Path) -> None:
    assert read_boxes(write(tmp_path, row(3.0)), clip(duration_s=None))


@pytest.mark.shared
def test_real_ava_ground_truth(shared_dir: Path) -> None:
    path = shared_dir / "reference" / "ava_eval" / "small_groundtruth.csv"
    entities = read_boxes(path, clip("a-b_C_2.mkv", start_s=900.0, duration_s=900.0))
    assert sum(len(entity.times_s) for entity in entities.values()) == 162
    with pytest.raises(BoxesError, match="a-b_C_0"):
        read_boxes(path, clip())
