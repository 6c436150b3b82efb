"""The tool that counts which faces of one detector another misses."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.tools import compare_detectors
from asd_explain.tools.compare_detectors import (
    Tally,
    compare_clip,
    compare_frame,
    intersection_over_union,
    main,
    pooled,
    table,
)
from asd_explain.tracks.detect import Detections, Detector

BOX = [0.0, 0.0, 40.0, 40.0]


def boxes(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 4)


def test_intersection_over_union_by_hand() -> None:
    found = intersection_over_union(boxes(BOX, [100, 0, 110, 10]), boxes(BOX, [20, 0, 60, 40], [500, 0, 510, 10]))
    assert found == pytest.approx(np.array([[1, 1 / 3, 0], [0, 0, 0]]))


def test_a_frame_by_hand() -> None:
    reference = boxes(BOX, [100, 0, 140, 40], [200, 0, 220, 20])  # the last is smaller than 24 px
    # the first face; half of the second, 20/60 of both together; on the small one; alone; alone and small
    other = boxes([2, 0, 42, 40], [120, 0, 160, 40], [201, 0, 221, 20], [300, 0, 340, 40], [400, 0, 410, 10])
    tally = compare_frame(reference, other)
    assert (tally.frames, tally.faces, tally.found, tally.extra) == (1, 2, 1, 2)
    assert tally.overlaps == pytest.approx([38 / 42])
    assert compare_frame(reference, other, least_iou=1 / 3).found == 2
    assert compare_frame(reference, other, min_face_px=0).faces == 3


def test_one_box_is_one_face() -> None:
    beside = [0.0, 4.0, 40.0, 44.0]
    assert compare_frame(boxes(BOX, beside), boxes(BOX)).found == 1
    # and of two boxes on one face, one is too many
    tally = compare_frame(boxes(BOX), boxes(BOX, beside))
    assert (tally.found, tally.extra, tally.overlaps) == (1, 1, [1.0])


def test_empty_frames() -> None:
    assert compare_frame(boxes(), boxes()) == Tally(frames=1)
    assert compare_frame(boxes(BOX), boxes()) == Tally(frames=1, faces=1)
    assert compare_frame(boxes(), boxes(BOX)) == Tally(frames=1, extra=1)


_SOME = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(10, 50), st.integers(10, 50)), max_size=4
).map(lambda rows: boxes(*[[x, y, x + w, y + h] for x, y, w, h in rows]))


@settings(max_examples=150, deadline=None)
@given(_SOME, _SOME)
def test_as_many_faces_as_any_pairing_finds(reference: np.ndarray, other: np.ndarray) -> None:
    tally = compare_frame(reference, other)
    iou = intersection_over_union(reference, other)
    wanted = np.sqrt((reference[:, 2:] - reference[:, :2]).prod(1)) >= 24
    best = 0
    columns = [*range(len(other)), *[None] * len(reference)]
    for choice in set(itertools.permutations(columns, len(reference))):
        best = max(best, sum(wanted[i] and iou[i, j] >= 0.4 for i, j in enumerate(choice) if j is not None))
    assert tally.found == best == len(tally.overlaps)
    assert tally.found <= tally.faces == wanted.sum()
    assert tally.extra <= len(other) - tally.found
    itself = compare_frame(reference, reference)
    assert (itself.found, itself.extra) == (itself.faces, 0)


def test_tallies_pool_and_figures_follow() -> None:
    one = Tally(frames=10, faces=4, found=3, extra=1, detections=2, seconds=0.1, overlaps=[0.8])
    total = pooled([{"a": one}, {"a": one, "b": Tally()}])["a"]
    assert total == Tally(20, 8, 6, 2, 4, 0.2, [0.8, 0.8])
    assert (total.recall, total.extra_a_frame, total.overlap, total.ms) == pytest.approx((0.75, 0.1, 0.8, 50))
    assert total.plain()["recall"] == 0.75
    assert "overlaps" not in total.plain()
    assert Tally().plain()["recall"] is None


def test_table_has_a_line_for_every_row() -> None:
    row = {"yunet": Tally(10, 4, 4), "haar": Tally(10, 4, 3, 5, overlaps=[0.5])}
    lines = table("clip", {"x": row, "y": row}, "yunet").splitlines()
    assert len(lines) == 4
    assert lines[2] == "| x | 10 | 4 | 75.0 / 0.50 / 0.500 |"
    assert len({line.count("|") for line in lines}) == 1


class _Fixed(Detector):
    """The same boxes in every frame, in shares of the picture it is given."""

    def __init__(self, *shares: list[float]) -> None:
        self.shares = np.array(shares, np.float32).reshape(-1, 4)
        self.runs = 0

    def detect(self, bgr_small: np.ndarray, scale_x: float = 1.0, scale_y: float = 1.0) -> Detections:
        self.runs += 1
        height, width = bgr_small.shape[:2]
        size = np.array([width * scale_x, height * scale_y] * 2, np.float32)
        return Detections(self.shares * size, np.full(len(self.shares), 0.9, np.float32))


def test_a_clip_frame_by_frame(face_clip: Path) -> None:
    left, right = [0.1, 0.2, 0.4, 0.6], [0.6, 0.2, 0.9, 0.6]
    detectors = {"both": _Fixed(left, right), "left": _Fixed(left), "none": _Fixed()}
    found = compare_clip(face_clip, detectors, "both")
    assert {name: (t.frames, t.faces, t.found, t.extra) for name, t in found.items()} == {
        "both": (30, 60, 60, 0),
        "left": (30, 60, 30, 0),
        "none": (30, 60, 0, 0),
    }
    assert {t.detections for t in found.values()} == {6} == {d.runs for d in detectors.values()}
    other = compare_clip(face_clip, detectors, "left", interval_s=0.4)
    assert (other["both"].faces, other["both"].extra, other["both"].detections) == (30, 30, 3)
    assert other["both"].overlap == pytest.approx(1)


@pytest.fixture
def corpus(tmp_path: Path, face_clip: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shared"
    for place in ("single", "tracks/speaker_01", "tracks/speaker_09"):
        (folder / "clips" / place).mkdir(parents=True)
        (folder / "clips" / place / "clip_1.mp4").symlink_to(face_clip)
    made = {"yunet": _Fixed([0.1, 0.2, 0.4, 0.6]), "haar": _Fixed()}
    monkeypatch.setattr(compare_detectors, "create_detector", made.__getitem__)
    return folder


def test_command(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--shared", str(corpus), "--detectors", "haar", "--quiet", "--out", str(tmp_path / "counts.json")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "| tracks/speaker_09 | 30 | 30 | 0.0 / nan / 0.000 |" in printed
    assert "| test | 30 | 30 |" in printed
    assert "| all | 90 | 90 |" in printed
    rows = json.loads((tmp_path / "counts.json").read_text())["clips"]
    assert [(row["clip"], row["split"]) for row in rows] == [
        ("single/clip_1", "fit"),
        ("tracks/speaker_01/clip_1", "fit"),
        ("tracks/speaker_09/clip_1", "test"),
    ]
    assert rows[0]["detectors"]["yunet"]["recall"] == 1
    assert rows[0]["detectors"]["haar"]["overlap"] is None
    assert main(words) == 2, "an existing file is not replaced"
    assert main([*words, "--overwrite"]) == 0


@pytest.mark.parametrize(
    "words",
    [["--iou", "0"], ["--iou", "1.5"], ["--interval", "-1"], ["--per-speaker", "0"], ["--min-face", "-1"]],
)
def test_nonsense_is_refused(words: list[str], corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--shared", str(corpus), "--quiet", *words]) == 2
    assert capsys.readouterr().out == ""


def test_no_clips(tmp_path: Path) -> None:
    assert main(["--shared", str(tmp_path), "--quiet"]) == 2
