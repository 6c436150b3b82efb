"""Whole frames: sizes, what is touched, what is legible, odd inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from asd_explain.errors import OptionError
from asd_explain.render import FaceView, Renderer, Scene, TimelineTrack
from asd_explain.render.overlay import Line, outline, strips, whole_shares
from asd_explain.render.placement import Rect
from asd_explain.render.style import clock, percent
from asd_explain.render.text import Typeface
from asd_explain.render.timeline import MAX_PART


@dataclass
class FakePlanes:
    y: np.ndarray
    u: np.ndarray
    v: np.ndarray
    full_range: bool = False
    matrix: str = "bt709"


def gray(width: int, height: int, value: int = 100) -> FakePlanes:
    width, height = width + width % 2, height + height % 2
    cells = (height // 2, width // 2)
    return FakePlanes(np.full((height, width), value, np.uint8), *(np.full(cells, 128, np.uint8) for _ in "uv"))


def make_scene(width: int, height: int, tracks: int = 1, end_s: float = 10.0, **kwargs: object) -> Scene:
    times = np.arange(0, end_s, 0.04)
    curves = [TimelineTrack(i, times, 0.5 + 0.5 * np.sin(times + i)) for i in range(tracks)]
    options = {
        "loudness": (times, np.abs(np.sin(3 * times))),
        "threshold": 0.5,
        "notes": [],
        "smooth_s": 0.2,
        "model": "lr_asd.pretrain_AVA",
        "explainer": "se",
    }
    return Scene(width, height, 0.0, end_s, curves, **(options | kwargs))


def make_face(track_id: int, box: tuple[float, ...], p: float = 0.9, **kwargs: object) -> FaceView:
    box = np.array(box, np.float32)
    options = {
        "body": None,
        "interpolated": False,
        "heat": {"face": np.ones((14, 14), np.float32)},
        "windows": {"face": box},
        "shares": {"audio": 0.4, "face": 0.6},
        "crops": {"face": np.full((112, 112), 90, np.uint8)},
    }
    return FaceView(track_id=track_id, box=box, p=p, speaking=p >= 0.5, **(options | kwargs))


@pytest.mark.parametrize("layout", ["overlay", "panel"])
@pytest.mark.parametrize("size", [(8, 8), (2, 2), (1, 1), (33, 17), (101, 161), (360, 640), (641, 361), (1280, 720)])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_sizes_are_even_and_nothing_crashes(layout: str, size: tuple[int, int], count: int) -> None:
    width, height = size
    rng = np.random.default_rng(count)
    renderer = Renderer(make_scene(width, height, count, notes=["no audio track", "no face found"]), layout)
    faces = []
    for i in range(count):
        x, y = rng.uniform(-0.2, 1, 2) * size
        w, h = rng.uniform(0.01, 0.9, 2) * size
        faces.append(make_face(i, (x, y, x + w, y + h), float(rng.random()), interpolated=i % 2 == 0))
    for time_s in (0.0, 0.04, 99.0):
        planes = gray(width, height)
        drawn = renderer.draw(planes, time_s, faces)
        assert drawn.y.shape[::-1] == renderer.output_size
        assert drawn.u.shape == drawn.v.shape == (drawn.y.shape[0] // 2, drawn.y.shape[1] // 2)
        assert not any(side % 2 for side in renderer.output_size)
        if layout == "overlay":
            assert drawn is planes
            assert renderer.output_size == (width + width % 2, height + height % 2)


def test_overlay_touches_only_face_label_and_band() -> None:
    renderer = Renderer(make_scene(640, 360))
    planes = renderer.draw(gray(640, 360), 1.0, [make_face(0, (300, 120, 380, 220))])
    rows, columns = np.nonzero(planes.y != 100)
    above = rows < 360 * (1 - MAX_PART) - 1
    assert rows[above].min() >= 70
    assert rows[above].max() < 225
    assert columns[above].min() >= 296
    assert columns[above].max() < 470


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (1280, 720), (608, 1080)])
def test_text_appears(size: tuple[int, int]) -> None:
    width, height = size
    face = make_face(3, (0.4 * width, 0.4 * height, 0.4 * width + 80, 0.4 * height + 80), heat={}, shares=None)
    planes = Renderer(make_scene(width, height, 1)).draw(gray(width, height), 1.0, [face])
    label = planes.y[int(0.4 * height) - 40 : int(0.4 * height) - 4, int(0.4 * width) : int(0.4 * width) + 90]
    assert (label < 60).sum() > 40  # dark letters on the track's colour
    band = planes.y[int(height * (1 - MAX_PART)) + 2 :]
    assert (band > 150).sum() > 200  # light letters, curve and cursor on the dark band


def test_band_never_covers_more_than_a_fifth() -> None:
    for size in ((640, 360), (360, 640), (1920, 1080), (320, 240), (200, 160)):
        planes = Renderer(make_scene(*size, 3)).draw(gray(*size), 1.0, [])
        assert (planes.y[: int(np.floor(size[1] * (1 - MAX_PART)))] == 100).all()


def test_heat_stays_inside_box_and_window_and_grows_with_p() -> None:
    scene = make_scene(200, 150)  # too low for text: only box and heat are drawn
    sums = []
    for p in (0.0, 0.5, 1.0):
        window = np.array([60, 30, 180, 148], np.float32)
        face = make_face(0, (41, 21, 141, 121), p, windows={"face": window})
        bare = make_face(0, (41, 21, 141, 121), p, heat={})
        with_heat, without = (Renderer(scene).draw(gray(200, 150), 0.0, [f]) for f in (face, bare))
        changed = with_heat.y != without.y
        sums.append(int(changed.sum()))
        inside = np.zeros_like(changed)
        inside[30:121, 60:141] = True
        assert not (changed & ~inside).any()
        cells = inside.reshape(75, 2, 100, 2).any(axis=(1, 3))
        assert not ((with_heat.u != without.u) & ~cells).any()
    assert sums[0] == 0
    assert sums[2] >= sums[1] > 0


def test_body_heat_spares_faces_that_have_heat() -> None:
    body = np.array([20, 20, 180, 140], np.float32)
    heat = {"face": np.full((2, 2), 0.01, np.float32), "body": np.ones((14, 14), np.float32)}
    face = make_face(
        0, (80, 40, 120, 80), 1.0, body=body, heat=heat, windows={"face": np.array([80, 40, 120, 80]), "body": body}
    )
    planes = Renderer(make_scene(200, 150)).draw(gray(200, 150), 0.0, [face])
    assert (planes.y[50:70, 90:110] == 100).all()
    assert (planes.y[100:130, 40:160] != 100).all()


def test_speaking_and_silent_differ_in_weight_not_only_in_colour() -> None:
    boxes = {}
    for p in (0.9, 0.1):
        face = make_face(0, (40, 40, 140, 130), p, heat={}, shares=None)
        planes = Renderer(make_scene(200, 150)).draw(gray(200, 150), 0.0, [face])
        boxes[p] = int((planes.y != 100).sum())
    assert boxes[0.9] > 2 * boxes[0.1]


def test_outline_parts_make_the_whole() -> None:
    for line in (Line((200, 100, 50), 4, False), Line((200, 100, 50), 2, True)):
        for width, height in ((60, 40), (2, 2), (7, 30), (12, 12)):
            whole = outline(width, height, line, Rect(0, 0, width, height))
            put = np.zeros_like(whole)
            for part in strips(width, height, line.width + 2):
                put[part.y0 : part.y1, part.x0 : part.x1] = outline(width, height, line, part)
            assert (put == whole).all()
            assert whole[0, 0, 3] > 0  # corners are closed


def test_a_long_clip_turns_pages_and_stands_still_in_between() -> None:
    renderer = Renderer(make_scene(640, 360, 2, end_s=600.0))
    frames = [renderer.draw(gray(640, 360), t, []).y.copy() for t in (1.0, 1.04, 400.0)]
    assert (frames[0] != frames[1]).sum() < 400
    assert (frames[0] != frames[2]).sum() > 1000


def test_panel_shows_crops_beside_an_otherwise_untouched_picture() -> None:
    scene = make_scene(640, 360, 6)
    renderer = Renderer(scene, "panel")
    width, height = renderer.output_size
    assert width > 640
    assert height > 360
    faces = [make_face(i, (30 + 100 * i, 150, 80 + 100 * i, 210), 0.9 - 0.1 * i) for i in range(6)]
    planes = renderer.draw(gray(640, 360), 1.0, faces)
    assert (planes.y[300:358, :640] == 100).all()
    column = planes.y[:360, 640:]
    assert (column == round(16 + 90 * 219 / 255)).sum() < column.size  # crops carry heat
    assert len(np.unique(column)) > 20
    seats = list(renderer._panel._slots)
    assert seats == [0, 1, 2, 3]
    renderer.draw(gray(640, 360), 1.04, faces[1:])
    assert renderer._panel._slots[1:] == [1, 2, 3]


def test_a_speaker_takes_the_seat_of_a_silent_face() -> None:
    renderer = Renderer(make_scene(640, 360, 5), "panel")
    for step in range(60):
        faces = [
            make_face(i, (30 + 100 * i, 150, 80 + 100 * i, 210), 0.1 if i == 2 and step else 0.9) for i in range(5)
        ]
        renderer.draw(gray(640, 360), step * 0.04, faces)
    assert renderer._panel._slots == [0, 1, 4, 3]


def test_wrong_layout_and_wrong_size_are_refused() -> None:
    with pytest.raises(OptionError, match="overlay, panel"):
        Renderer(make_scene(64, 64), "grid")
    with pytest.raises(ValueError, match="64, 64"):
        Renderer(make_scene(64, 64)).draw(gray(32, 32), 0.0, [])


def test_missing_values_are_drawn_as_such() -> None:
    face = make_face(0, (100, 100, 200, 200), float("nan"), shares={"audio": float("nan"), "face": 0.0})
    broken = make_face(1, (np.nan, 0, 1, 1))
    Renderer(make_scene(640, 360, 2)).draw(gray(640, 360), 0.0, [face, broken])
    assert percent(float("nan")) == "– %"
    assert percent(1.2) == "100 %"


def test_shares_become_whole_percentages() -> None:
    assert whole_shares({"face": 1 / 3, "audio": 1 / 3, "body": 1 / 3}) == (("audio", 34), ("face", 33), ("body", 33))
    assert whole_shares({"audio": 0.0}) == ()
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.dirichlet([1, 1, 1])
        shares = dict(whole_shares(dict(zip(("audio", "face", "body"), values, strict=True))))
        assert sum(shares.values()) == 100
        assert max(abs(shares[k] - 100 * v) for k, v in zip(("audio", "face", "body"), values, strict=True)) < 1


def test_clock_and_typeface() -> None:
    assert clock(0) == "0:00"
    assert clock(61.96, True) == "1:02.0"
    assert clock(3725.5) == "1:02:05"
    typeface = Typeface(12)
    assert typeface.mask("#3").shape == (typeface.height, typeface.width("#3"))
    assert typeface.width(typeface.shorten("a rather long remark", 60)) <= 60
    assert typeface.shorten("x", 1) == ""
