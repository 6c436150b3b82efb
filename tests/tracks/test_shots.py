"""Hard cuts are reported at once; motion, flashes and black frames are not cuts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from asd_explain.tracks.shots import ShotDetector


def scene(seed: int, height: int = 90, width: int = 240) -> np.ndarray:
    """A smooth random picture with structure at several scales, (h, w, 3) uint8."""
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.random((n, n * 2, 3)), (width, height), interpolation=cv2.INTER_CUBIC) for n in (3, 7, 15)]
    picture = sum(layers) / len(layers)
    picture = (picture - picture.min()) / (picture.max() - picture.min())
    return (picture * 255).astype(np.uint8)


def cuts(frames: list[np.ndarray], fps: float = 25.0) -> list[int]:
    detector = ShotDetector()
    return [i for i, frame in enumerate(frames) if detector.push(frame, i / fps)]


def view(picture: np.ndarray, shift: int) -> np.ndarray:
    return np.ascontiguousarray(picture[:, shift : shift + 160])


def test_cut_is_reported_with_the_first_frame_of_the_new_shot() -> None:
    a, b = view(scene(1), 0), view(scene(2), 0)
    assert cuts([a] * 10 + [b] * 10 + [a] * 10) == [10, 20]


def test_first_frame_is_no_cut_and_a_still_picture_has_none() -> None:
    assert cuts([view(scene(1), 0)] * 30) == []


def test_panning_is_no_cut() -> None:
    picture = scene(3)
    assert cuts([view(picture, 2 * i) for i in range(40)]) == []


def test_cut_during_a_pan_is_found() -> None:
    a, b = scene(3), scene(4)
    assert cuts([view(a, i) for i in range(20)] + [view(b, i) for i in range(20)]) == [20]


def test_somebody_walking_past_the_lens_is_no_cut() -> None:
    a = view(scene(1), 0)
    frames = [a] * 10
    for position in range(-160, 161, 12):
        frame = a.copy()
        frame[:, max(0, position) : max(0, position + 160)] = 8
        frames.append(frame)
    assert cuts(frames + [a] * 10) == []


def test_slow_dissolve_is_no_hard_cut() -> None:
    a, b = view(scene(1), 0).astype(float), view(scene(2), 0).astype(float)
    frames = [(a + (b - a) * k).astype(np.uint8) for k in np.linspace(0, 1, 40)]
    assert cuts(frames) == []


@pytest.mark.parametrize("blank", [0, 255])
def test_blank_frame_is_passed_over(blank: int) -> None:
    a, b = view(scene(1), 0), view(scene(2), 0)
    empty = np.full_like(a, blank)
    assert cuts([a] * 10 + [empty] + [a] * 10) == []
    assert cuts([a] * 10 + [empty] * 3 + [b] * 10) == [13]
    assert cuts([empty] * 5 + [a] * 10) == []


def test_camera_flash_is_no_cut() -> None:
    a = view(scene(1), 0)
    flash = np.clip(a.astype(int) + 120, 0, 255).astype(np.uint8)
    assert cuts([a] * 10 + [flash] + [a] * 10) == []


def test_one_foreign_frame_breaks_a_shot_once_only() -> None:
    a, b = view(scene(1), 0), view(scene(2), 0)
    assert cuts([a] * 10 + [b] + [a] * 10) == [10]


def test_fade_through_black_to_another_scene_is_a_cut() -> None:
    a, b = view(scene(1), 0).astype(float), view(scene(2), 0).astype(float)
    down = [(a * k).astype(np.uint8) for k in np.linspace(1, 0, 15)]
    up = [(b * k).astype(np.uint8) for k in np.linspace(0, 1, 15)]
    assert len(cuts(down + up)) == 1


def test_any_size_and_tiny_frames() -> None:
    assert ShotDetector.working_size(1920, 1080) == (160, 90)
    assert ShotDetector.working_size(8, 8) == (8, 8)
    rng = np.random.default_rng(0)
    assert cuts([rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)] * 3) == []
    assert cuts([np.zeros((1, 1, 3), np.uint8)] * 3) == []
    large = [cv2.resize(view(scene(s), 0), (960, 540)) for s in (1, 1, 2, 2)]
    assert cuts(large) == [2]


@pytest.mark.shared
def test_cuts_of_a_real_clip(shared_dir) -> None:
    capture = cv2.VideoCapture(str(shared_dir / "clips" / "conversations" / "stage_shot_cuts.mp4"))
    frames = []
    while True:
        more, frame = capture.read()
        if not more:
            break
        frames.append(cv2.resize(frame, (160, 90), interpolation=cv2.INTER_AREA))
    assert cuts(frames) == [20, 82, 211]
