"""Figures for a paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asd_explain.errors import OptionError
from asd_explain.render import FaceView, Scene, TimelineTrack
from asd_explain.render.stills import save_still, still, still_figure


def make_face(track_id: int, p: float = 0.94) -> FaceView:
    box = np.array([20 + 70 * track_id, 30, 70 + 70 * track_id, 90], np.float32)
    return FaceView(
        track_id=track_id,
        box=box,
        body=None,
        p=p,
        speaking=p >= 0.5,
        interpolated=False,
        heat={"face": np.eye(14, dtype=np.float32)},
        windows={"face": box},
        shares={"audio": 0.3, "face": 0.7},
    )


@pytest.fixture
def scene() -> Scene:
    times = np.arange(0, 8, 0.04)
    return Scene(
        width=192,
        height=108,
        start_s=0.0,
        end_s=8.0,
        tracks=[TimelineTrack(0, times, np.abs(np.sin(times))), TimelineTrack(1, times, np.abs(np.cos(times)))],
        loudness=(times, np.abs(np.sin(4 * times))),
        threshold=0.5,
        notes=[],
        smooth_s=0.2,
        model="lr_asd.pretrain_AVA",
        explainer="se",
    )


def test_a_still_is_a_picture_of_print_size(scene: Scene) -> None:
    frame = np.full((108, 192, 3), 120, np.uint8)
    image = still(frame, 3.0, [make_face(0), make_face(1, 0.07)], scene, "clip.mp4")
    assert image.mode == "RGB"
    assert image.width == 2160
    assert image.height > 1215  # the picture, and the rest below it
    pixels = np.asarray(image)
    assert len(np.unique(pixels[::7, ::7] @ [1, 256, 65536])) > 100


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_written_by_suffix(scene: Scene, tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"moment{suffix}"
    save_still(path, np.zeros((108, 192, 3), np.uint8), 3.0, [make_face(0)], scene, "clip.mp4")
    assert path.read_bytes().startswith(start)
    if suffix == ".png":
        assert round(Image.open(path).info["dpi"][0]) == 300


def test_other_suffixes_are_refused(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"\.png or \.pdf"):
        save_still(tmp_path / "moment.gif", np.zeros((108, 192, 3), np.uint8), 3.0, [], scene)


def test_the_caption_says_what_is_seen(scene: Scene) -> None:
    figure = still_figure(np.zeros((108, 192, 3), np.uint8), 3.0, [make_face(0), make_face(1, 0.07)], scene, "clip.mp4")
    caption = " ".join(figure.texts[0].get_text().split())
    for part in (
        "clip.mp4, 0:03.0",
        "#0 94 % (speaking)",
        "#1 7 % (silent)",
        "SE heat",
        "opacity = P(speaking)",
        "0.2 s",
    ):
        assert part in caption


@pytest.mark.parametrize("size", [(8, 8), (64, 120), (121, 33)])
def test_small_tall_and_empty_frames(scene: Scene, size: tuple[int, int]) -> None:
    width, height = size
    empty = replace(scene, width=width, height=height, tracks=[], loudness=None, notes=["no audio track"])
    assert still(np.zeros((height, width, 3), np.uint8), 0.0, [make_face(0, float("nan"))], empty).width >= 1000


def test_times_are_shown_from_the_clip_s_beginning(scene: Scene) -> None:
    part = replace(scene, start_s=2.0, zero_s=1.0)
    figure = still_figure(np.zeros((108, 192, 3), np.uint8), 3.0, [], part)
    assert figure.texts[0].get_text().startswith("0:02.0.")
    assert replace(scene, start_s=2.0).shown_s(3.0) == 1.0
