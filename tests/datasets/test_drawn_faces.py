"""Drawn faces: as many as wanted, each its own, and where their geometry says in the eyes of the face detector."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest

from asd_explain.datasets.drawn_faces import PREFIX, SIZE, drawn_face
from asd_explain.datasets.miniature_people import PHOTOS, SPLITS, draw_look, faces_seen
from asd_explain.datasets.portraits import GEOMETRY, Look, geometry_of, load_photo, plain_geometry
from asd_explain.datasets.talking_face import Pose, TalkingFace
from asd_explain.errors import OptionError
from asd_explain.tracks.detect import create_detector

SEEDS = (0, 3, 17, 501, 1000, 1007, 1500, 1999)


def crop(seed: int) -> np.ndarray:
    """(112, 112) float: the face's box, gray, of mean 0 and deviation 1: other light is no other face."""
    picture, g = drawn_face(seed)
    x1, y1, x2, y2 = (round(v) for v in g.face)
    gray = cv2.resize(cv2.cvtColor(picture[y1:y2, x1:x2], cv2.COLOR_RGB2GRAY), (112, 112)).astype(float)
    return (gray - gray.mean()) / gray.std()


def test_a_face_is_a_function_of_its_seed_and_no_two_are_alike() -> None:
    first = drawn_face(5)[0].copy()
    drawn_face.cache_clear()
    assert np.array_equal(drawn_face(5)[0], first)
    assert first.shape == (SIZE[1], SIZE[0], 3)
    faces = [crop(seed) for seed in SEEDS]
    noise = np.abs(faces[0] - cv2.GaussianBlur(faces[0], (0, 0), 0.7)).mean()
    for one, other in combinations(faces, 2):
        assert np.abs(one - other).mean() > max(0.25, 3 * noise)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_detector_finds_the_face_where_the_geometry_says(seed: int) -> None:
    picture, g = drawn_face(seed)
    scale, border = 0.35, 40
    small = cv2.resize(picture[..., ::-1], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    small = cv2.copyMakeBorder(small, *(border,) * 4, cv2.BORDER_CONSTANT, value=(120,) * 3)
    found = create_detector("yunet-2023mar").detect(np.ascontiguousarray(small))
    assert len(found.boxes) == 1
    a, b = found.boxes[0].astype(float), np.array(g.face) * scale + border
    across, down = (min(a[2 + k], b[2 + k]) - max(a[k], b[k]) for k in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    assert across * down / (sum(areas) - across * down) > 0.65
    face = TalkingFace(Look(f"{PREFIX}{seed}"), *SIZE)
    assert face.landmarks(Pose()).shape == (5, 2)
    eyes, mouth = sorted((e.x, e.y) for e in g.eyes), [(g.lip_x[k], g.upper_lip[k]) for k in (0, -1)]
    ours = np.array([*eyes, *mouth]) * scale + border
    theirs = found.landmarks[0][[0, 1, 3, 4]]
    assert np.hypot(*(ours - theirs).T).max() < 0.13 * (b[3] - b[1])


def test_looks_change_drawn_faces_as_they_do_photographs() -> None:
    look = Look(f"{PREFIX}17", mirrored=True, jaw=0.1, backdrop=4, room=(0.3, 0.3, 0.3))
    assert load_photo(look).shape[1::-1] == geometry_of(look).size
    assert plain_geometry(f"{PREFIX}17").mirrored().lip_x == pytest.approx(geometry_of(Look(look.photo, True)).lip_x)
    plain = load_photo(Look(look.photo))
    assert np.array_equal(plain, drawn_face(17)[0])
    assert np.array_equal(load_photo(Look(look.photo, mirrored=True)), plain[:, ::-1])


@pytest.mark.parametrize("name", ["drawn", "drawn-", "drawn-x", "drawn-1.5", "drawn--1", "drawn-²", ""])
def test_other_names_are_no_faces(name: str) -> None:
    with pytest.raises(OptionError, match="no photograph named"):
        plain_geometry(name)


def test_no_face_of_train_is_in_val_and_there_are_many() -> None:
    rng = np.random.default_rng(0)
    photos = {s: [draw_look(rng, s, k % 2 == 0, False).photo for k in range(300)] for s in SPLITS}
    assert not set(photos["train"]) & set(photos["val"])
    for split in SPLITS:
        assert photos[split].count(PHOTOS[split]) == 150
        assert not set(photos[split]) & (set(GEOMETRY) - {PHOTOS[split]})
    seen = faces_seen(Look(name) for name in photos["val"])
    assert seen["astronaut"] == 150
    assert seen["drawn"] == len(set(photos["val"])) - 1 > 120
