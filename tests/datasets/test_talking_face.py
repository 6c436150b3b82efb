"""The photographs and how they are moved; needs only matplotlib's sample photograph unless marked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asd_explain.datasets.portraits import GEOMETRY, Look, photo_path
from asd_explain.datasets.talking_face import Pose, TalkingFace
from asd_explain.errors import AsdExplainError, OptionError

LOOKS = [
    pytest.param(Look("hopper"), id="hopper"),
    pytest.param(Look("hopper", mirrored=True, stretch=1.08, warmth=-0.5), id="hopper-mirrored"),
    pytest.param(Look("astronaut"), id="astronaut", marks=pytest.mark.demo),
    pytest.param(Look("drawn-17"), id="drawn"),
    pytest.param(Look("drawn-1007", mirrored=True, jaw=0.1, nose=-0.03), id="drawn-reshaped"),
]


@pytest.fixture(autouse=True)
def _photographs(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("demo"):
        pytest.importorskip("skimage", reason="the astronaut's photograph comes with scikit-image (demo extra)")


def _inside(inner: np.ndarray, outer: np.ndarray, slack: float = 0.0) -> bool:
    return bool(np.all(inner[:2] >= outer[:2] - slack) and np.all(inner[2:] <= outer[2:] + slack))


@pytest.mark.parametrize("look", LOOKS)
def test_mouth_stays_in_the_face_and_the_face_in_the_body(look):
    face = TalkingFace(look, 200, 220)
    for pose in (Pose(), Pose(opening=1.0), Pose(opening=0.5, roll=0.05, turn=0.05, nod=-0.03, shift=(0.04, 0.03))):
        assert _inside(face.mouth_box(pose), face.face_box(pose))
        assert _inside(face.face_box(pose), face.body_box(pose), slack=8)
        assert _inside(face.face_box(pose), np.array([0, 0, 200, 220]))


@pytest.mark.parametrize("look", LOOKS)
def test_opening_changes_the_lower_face_and_nothing_else(look):
    face = TalkingFace(look, 200, 220)
    change = np.abs(face.render(Pose(opening=0.7)).astype(int) - face.render(Pose()).astype(int)).sum(axis=2)
    x1, y1, x2, y2 = face.mouth_box(Pose(opening=0.7)).astype(int)
    mouth = change[y1:y2, x1:x2].mean()
    top = face.face_box(Pose())[1]
    upper_face = change[: int(top + 0.5 * (face.face_box(Pose())[3] - top))]
    assert mouth > 40
    assert upper_face.max() == 0


@pytest.mark.parametrize("look", LOOKS)
def test_mouth_darkens_and_its_box_grows_steadily(look):
    face = TalkingFace(look, 300, 320)
    openings = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    heights = [float(np.diff(face.mouth_box(Pose(opening=o))[[1, 3]])[0]) for o in openings]
    assert np.all(np.diff(heights) > 0)
    dark = []
    for opening in openings:
        x1, y1, x2, y2 = face.mouth_box(Pose(opening=1.0)).astype(int)
        dark.append((face.render(Pose(opening=opening))[y1:y2, x1:x2].mean(axis=2) < 60).mean())
    assert np.all(np.diff(dark) >= 0)
    assert dark[-1] > dark[0] + 0.1


def test_lip_line_lies_where_the_truth_says():
    """The darkest row of an open mouth is between the truth's lips, in any pose."""
    face = TalkingFace(Look("hopper"), 320, 360)
    for pose in (Pose(opening=0.6), Pose(opening=0.6, shift=(0.04, 0.03), roll=0.04, zoom=1.02, nod=0.03)):
        x1, y1, x2, y2 = face.mouth_box(pose)
        column = face.render(pose)[:, int((x1 + x2) / 2)].mean(axis=1)
        rows = np.arange(int(y1) - 20, int(y2) + 12)
        assert y1 < rows[np.argmin(column[rows])] < y2


def test_moved_head_moves_its_pixels_as_the_box_says():
    """A patch of the forehead, found again by template matching, moved as far as the face's box."""
    import cv2

    face = TalkingFace(Look("hopper"), 320, 360)
    rest, moved = Pose(), Pose(shift=(0.04, -0.03))
    x1, y1, x2, _ = face.face_box(rest).astype(int)
    patch = face.render(rest)[y1 + 30 : y1 + 80, x1 + 20 : x2 - 20]
    match = cv2.matchTemplate(face.render(moved), patch, cv2.TM_CCOEFF_NORMED)
    _, best, _, (x, y) = cv2.minMaxLoc(match)
    step = face.face_box(moved) - face.face_box(rest)
    assert best > 0.95
    assert abs(x - (x1 + 20) - step[0]) <= 1.2
    assert abs(y - (y1 + 30) - step[1]) <= 1.2


def test_blink_shuts_only_the_eyes():
    face = TalkingFace(Look("hopper"), 320, 360)
    change = np.abs(face.render(Pose(blink=1.0)).astype(int) - face.render(Pose()).astype(int)).max(axis=2)
    _, y1, _, y2 = face.face_box(Pose())
    rows = np.flatnonzero(change.max(axis=1) > 30)
    assert len(rows)
    assert rows.min() > y1
    assert rows.max() < (y1 + y2) / 2


def test_mirrored_geometry_twice_is_the_geometry():
    for geometry in GEOMETRY.values():
        assert geometry.mirrored().mirrored() == geometry
        assert geometry.mirrored().lip_x == tuple(sorted(geometry.mirrored().lip_x))


def test_mirrored_panel_is_the_panel_mirrored():
    plain, mirrored = (TalkingFace(Look("hopper", mirrored=m), 160, 180).render(Pose(opening=0.4)) for m in (0, 1))
    assert np.abs(plain[:, ::-1].astype(int) - mirrored.astype(int)).mean() < 1.5


@pytest.mark.parametrize(("width", "height"), [(16, 16), (33, 57), (700, 200), (200, 700), (900, 900)])
def test_any_panel_size(width, height):
    face = TalkingFace(Look("hopper"), width, height)
    assert face.render(Pose(opening=0.5, blink=0.5)).shape == (height, width, 3)
    centre = face.face_box(Pose()).reshape(2, 2).mean(axis=0)
    assert np.all((centre > 0) & (centre < (width, height)))


def test_unknown_photograph_is_named():
    with pytest.raises(OptionError, match=r"nobody.*hopper.*drawn-SEED"):
        TalkingFace(replace(Look(), photo="nobody"), 64, 64)
    with pytest.raises(OptionError, match="nobody"):
        photo_path("nobody")


def test_missing_scikit_image_says_what_to_install(monkeypatch):
    monkeypatch.setattr("asd_explain.datasets.portraits.importlib.util.find_spec", lambda name: None)
    with pytest.raises(AsdExplainError, match=r"pip install asd-explain\[demo\]"):
        photo_path("astronaut")


@pytest.mark.demo
def test_photographs_agree_with_the_geometry():
    import cv2

    for name, geometry in GEOMETRY.items():
        height, width = cv2.imread(str(photo_path(name))).shape[:2]
        assert (width, height) == geometry.size
