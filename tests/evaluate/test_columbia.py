"""Columbia's protocol against a plain retelling of it, box by box, and by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.errors import OptionError
from asd_explain.evaluate.ava_csv import read_predictions
from asd_explain.evaluate.columbia import (
    PEOPLE,
    Faces,
    Labels,
    columbia_figures,
    faces_of,
    match_faces,
    person_figures,
    read_labels,
)
from asd_explain.evaluate.csv_table import CsvError

HEADER = "video_id,frame_timestamp,entity_box_x1,entity_box_y1,entity_box_x2,entity_box_y2,label,entity_id,score"


def plain_match(frame: int, box: tuple, faces: list[tuple]) -> float | None:
    """Score of the predicted face of one label, None where there is none."""
    found = []
    for at, (x1, y1, x2, y2), score in faces:
        if at != frame or x2 <= x1 or y2 <= y1:
            continue
        width, height = min(x2, box[2]) - max(x1, box[0]), min(y2, box[3]) - max(y1, box[1])
        share = max(0, width) * max(0, height) / ((x2 - x1) * (y2 - y1))
        if share > 0.5:
            found.append((share, score))
    return max(found)[1] if found else None


corner = st.integers(0, 6)
face = st.tuples(st.integers(0, 3), corner, corner, st.integers(0, 4), st.integers(-3, 3))


@settings(deadline=None)
@given(st.lists(face, min_size=1, max_size=12), st.lists(face, min_size=1, max_size=12))
def test_matching_and_f1_equal_a_plain_retelling(labelled: list, predicted: list) -> None:
    boxes = [(x, y, x + max(1, w), y + max(1, w)) for _, x, y, w, _ in labelled]
    faces = [(f, (x, y, x + w, y + w), float(s)) for f, x, y, w, s in predicted]
    found = match_faces(
        np.array([row[0] for row in labelled]),
        np.array(boxes, float),
        Faces(np.array([f[0] for f in faces]), np.array([f[1] for f in faces], float), np.array([f[2] for f in faces])),
    )
    expected = [plain_match(row[0], box, faces) for row, box in zip(labelled, boxes, strict=True)]
    assert [None if math.isnan(v) else v for v in found.tolist()] == expected
    truth = [row[4] > 0 for row in labelled]
    said = [v is not None and v > 0 for v in expected]
    pairs = list(zip(said, truth, strict=True))
    figures = person_figures(found, np.array(truth))
    assert figures.accuracy == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert figures.found == pytest.approx(sum(v is not None for v in expected) / len(expected))
    if not any(truth):
        assert (figures.f1, figures.recall, figures.undefined) == (None, None, "no speaking label")
    else:
        hits, false, missed = pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True))
        assert figures.f1 == pytest.approx(hits / (hits + (false + missed) / 2))
        assert figures.recall == pytest.approx(hits / (hits + missed))
        assert figures.precision == (pytest.approx(hits / (hits + false)) if hits + false else None)


def write_labels(folder: Path, **lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in PEOPLE:
        (folder / f"{name}.txt").write_text(lines.get(name, "0\t100\t50\t40\t1\n"))
    if "abbas" in lines:
        (folder / "abbas.txt").write_text(lines["abbas"])
    return folder


def write_scores(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def share(x1: float, y1: float, x2: float, y2: float) -> str:
    return f"{x1 / 1280},{y1 / 720},{x2 / 1280},{y2 / 720}"


def test_by_hand(tmp_path: Path) -> None:
    labels = read_labels(
        write_labels(
            tmp_path / "fusion",
            # frames 0, 1 and 2 at 29.97 are 0, 0 and 1 at 25; frame 7 is 5; frame 300 lies after the end
            bell="0\t100\t50\t40\t1\n1\t100\t50\t40\t0\n2\t100\t50\t40\t1\n7\t100\t50\t40\t1\n300\t100\t50\t40\t0\n\n",
            abbas="0\t400\t50\t40\t0\n",
        )
    )
    assert list(labels) == [*PEOPLE, "abbas"]
    box = share(200, 100, 280, 180)  # twice the labels'
    rows = [
        f"c,0.00,{box},SPEAKING_AUDIBLE,1,0.7",
        f"c,0.04,{box},SPEAKING_AUDIBLE,1,-0.2",
        f"c,0.08,{box},SPEAKING_AUDIBLE,1,0.9",
    ]
    faces = faces_of(read_predictions(write_scores(tmp_path / "s.csv", rows)))
    assert faces.frames.tolist() == [0, 1, 2]
    assert faces.boxes[0].tolist() == [100, 50, 140, 90]
    found = columbia_figures(labels, faces)
    bell = found.people["bell"]
    # said: yes (right), yes (wrong), no (wrong), missed so no (wrong), missed so no (right)
    assert (bell.labels, bell.speaking, bell.found) == (5, 3, 0.6)
    assert bell.f1 == pytest.approx(2 * 1 / (2 + 3))
    assert bell.accuracy == pytest.approx(2 / 5)
    assert found.people["boll"].f1 == 1
    assert found.people["abbas"].undefined == "no speaking label"
    assert found.mean_f1 == pytest.approx((0.4 + 4) / 5)
    assert found.after_the_end == 2
    assert columbia_figures(labels, faces, threshold=0.7).people["boll"].f1 == 0


def test_boxes_become_squares_of_whole_pixels_halved(tmp_path: Path) -> None:
    rows = ["c,0,-3,11,30.5,21.5,SPEAKING_AUDIBLE,1,1"]
    faces = faces_of(read_predictions(write_scores(tmp_path / "s.csv", rows)), frame_size=None)
    # centre 13.75, 16.25, half the larger side 16.75: -3, -0.5, 30.5, 33 -> -3, 0, 30, 33 -> floor of the half
    assert faces.boxes.tolist() == [[-2, 0, 15, 16]]


@pytest.mark.parametrize("fps", [25.0, 29.97, 50.0])
def test_the_row_nearest_to_a_frame_counts(tmp_path: Path, fps: float) -> None:
    box = share(200, 100, 280, 180)
    times = np.arange(60) / fps
    rows = [f"c,{t:.3f},{box},SPEAKING_AUDIBLE,1,{i}" for i, t in enumerate(times)]
    faces = faces_of(read_predictions(write_scores(tmp_path / "s.csv", rows)))
    assert np.array_equal(faces.frames, np.arange(faces.frames.max() + 1))
    nearest = [int(np.abs(times - f / 25).argmin()) for f in faces.frames]
    assert faces.scores.tolist() == nearest


def test_two_entities_stay_two(tmp_path: Path) -> None:
    rows = [f"c,0.01,0,0,{0.1 * k},0.5,SPEAKING_AUDIBLE,{k},{k}" for k in (1, 2, 3)]
    assert len(faces_of(read_predictions(write_scores(tmp_path / "s.csv", rows))).frames) == 3


@pytest.mark.parametrize(
    ("row", "size", "said"),
    [
        ("c,0,200,100,280,180,SPEAKING_AUDIBLE,1,1", (1280, 720), "these are pixels: add --pixels"),
        ("c,0,0.2,0.1,0.3,0.2,SPEAKING_AUDIBLE,1,1", None, "these are shares: leave --pixels out"),
        ("c,0,0.3,0.1,0.3,0.2,SPEAKING_AUDIBLE,1,1", (1280, 720), "line 2: a box without area"),
    ],
)
def test_boxes_that_cannot_be_meant(tmp_path: Path, row: str, size: tuple | None, said: str) -> None:
    with pytest.raises(CsvError, match=said):
        faces_of(read_predictions(write_scores(tmp_path / "s.csv", [row])), frame_size=size)


def test_rates_and_scales_are_positive(tmp_path: Path) -> None:
    rows = read_predictions(write_scores(tmp_path / "s.csv", ["c,0,0.1,0.1,0.3,0.2,SPEAKING_AUDIBLE,1,1"]))
    for options in ({"fps": 0}, {"box_scale": -1}, {"frame_size": (0, 5)}, {"fps": np.inf}, {"box_scale": np.inf}):
        with pytest.raises(OptionError, match="must be positive"):
            faces_of(rows, **options)
    labels = {"bell": Labels(np.zeros(1, int), np.ones((1, 4)), np.ones(1, bool))}
    with pytest.raises(OptionError, match="must be positive"):
        columbia_figures(labels, faces_of(rows), label_fps=0)
    for threshold in (np.inf, np.nan):
        with pytest.raises(OptionError, match="no finite number"):
            columbia_figures(labels, faces_of(rows), threshold=threshold)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "bell.txt is empty"),
        ("0\t1\t2\t3\t1\n0\t1\t2\t3\n", "bell.txt, line 2: five whole numbers"),
        ("0 1 2 3 1\n", "line 1: five whole numbers between tabs"),
        ("0\t1.5\t2\t3\t1\n", "line 1: five whole numbers"),
        ("0\t1\t2\t3\t2\n", "line 1: .*0 or 1 are needed"),
        ("0\t1\t2\t0\t1\n", "line 1: .*width > 0"),
        ("-1\t1\t2\t3\t1\n", "line 1: frame >= 0"),
        ("99999999999999999999\t1\t2\t3\t1\n", "line 1: frame >= 0"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CsvError, match=said):
        read_labels(write_labels(tmp_path / "fusion", bell=text))


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CsvError, match="is not a folder"):
        read_labels(tmp_path / "absent")
    folder = write_labels(tmp_path / "fusion")
    (folder / "lieb.txt").unlink()
    (folder / "sick.txt").write_bytes(b"\xff")
    with pytest.raises(CsvError, match=r"lacks lieb\.txt; give the folder"):
        read_labels(folder)
    (folder / "lieb.txt").write_text("0\t1\t2\t3\t1\r\n")
    with pytest.raises(CsvError, match=r"sick\.txt: not UTF-8"):
        read_labels(folder)


def test_from_files_to_f1_equals_a_plain_retelling(tmp_path: Path) -> None:
    """The published steps one after another, on files of 400 labels and 500 faces in pixels."""
    rng = np.random.default_rng(1)
    centres = {name: rng.uniform(100, 500, 2) for name in PEOPLE}
    labels = {
        name: [
            (
                int(n),
                *(int(v) for v in centres[name] + rng.normal(0, 6, 2)),
                int(rng.integers(30, 60)),
                int(rng.random() < 0.6),
            )
            for n in np.sort(rng.choice(130, 80, replace=False))
        ]
        for name in PEOPLE
    }
    faces = []  # frame, x, y, half side, score
    for name in PEOPLE:
        for frame in range(100):
            x, y = 2 * centres[name] + 45 + rng.normal(0, 14, 2)
            faces.append((frame, x, y, rng.uniform(25, 60), round(rng.normal(), 1)))
    lines = {name: "".join("\t".join(map(str, row)) + "\n" for row in rows) for name, rows in labels.items()}
    rows = [
        f"c,{frame / 25:.2f},{x - s},{y - s},{x + s},{y + s},SPEAKING_AUDIBLE,{i // 100},{score}"
        for i, (frame, x, y, s, score) in enumerate(faces)
    ]
    predicted = faces_of(read_predictions(write_scores(tmp_path / "s.csv", rows)), frame_size=None)
    found = columbia_figures(read_labels(write_labels(tmp_path / "fusion", **lines)), predicted)
    cut = [(frame, tuple(int(v) // 2 for v in (x - s, y - s, x + s, y + s)), score) for frame, x, y, s, score in faces]
    values = []
    for name in PEOPLE:
        hits = wrong = 0
        for n, x, y, width, truth in labels[name]:
            score = plain_match(int(n / 29.97 * 25), (x, y, x + width, y + width), cut)
            said = score is not None and score > 0
            hits += said and truth
            wrong += said != bool(truth)
        values.append(2 * hits / (2 * hits + wrong))
        assert 0.2 < found.people[name].found < 1, "both kinds of label occur"
    assert [found.people[name].f1 for name in PEOPLE] == pytest.approx(values)
    assert found.mean_f1 == pytest.approx(np.mean(values))
