"""Labels stay inside, do not overlap, keep off what is taken, and do not jump."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.render.placement import LabelPlacer, LabelRequest, Rect

AREA = Rect(0, 0, 640, 290)
SIZES = [(120, 30), (70, 30)]


def covered(rect: Rect) -> set[tuple[int, int]]:
    return {(x, y) for x in range(rect.x0, rect.x1) for y in range(rect.y0, rect.y1)}


faces = st.lists(
    st.tuples(st.integers(-30, 640), st.integers(-30, 350), st.integers(2, 300), st.integers(2, 300)),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(boxes=faces)
def test_no_overlap_and_inside(boxes: list[tuple[int, int, int, int]]) -> None:
    taken = [Rect(0, 0, 100, 20)]
    requests = [LabelRequest(i, Rect(x, y, x + w, y + h), SIZES) for i, (x, y, w, h) in enumerate(boxes)]
    placed = LabelPlacer(AREA, 4).place(requests, taken)
    seen = covered(taken[0])
    for place in placed.values():
        rect = place.rect
        assert rect.x0 >= AREA.x0
        assert rect.y0 >= AREA.y0
        assert rect.x1 <= AREA.x1
        assert rect.y1 <= AREA.y1
        assert rect.x0 % 2 == rect.y0 % 2 == 0
        assert (rect.width, rect.height) == SIZES[place.size_index]
        pixels = covered(rect)
        assert not pixels & seen
        seen |= pixels
    assert len(placed) == len(boxes)  # 20 labels find room in this area


def test_lone_label_stands_above_its_face_and_covers_nothing() -> None:
    face = Rect(200, 100, 300, 220)
    place = LabelPlacer(AREA, 4).place([LabelRequest(1, face, SIZES)])[1]
    assert place.rect == Rect(200, 66, 320, 96)
    assert place.rect.overlap(face) == 0


def test_label_of_a_face_at_the_upper_border_keeps_off_the_face() -> None:
    for face in (Rect(0, 0, 100, 120), Rect(540, 0, 640, 120), Rect(0, 170, 100, 290)):
        place = LabelPlacer(AREA, 4).place([LabelRequest(1, face, SIZES)])[1]
        assert place.rect.overlap(face) == 0


def test_labels_of_two_close_faces_cover_neither() -> None:
    left, right = Rect(200, 100, 290, 220), Rect(292, 104, 380, 224)
    placed = LabelPlacer(AREA, 4).place([LabelRequest(1, left, SIZES), LabelRequest(2, right, SIZES)])
    for place in placed.values():
        assert place.rect.overlap(left) == place.rect.overlap(right) == 0


def test_labels_follow_smoothly_while_boxes_tremble() -> None:
    rng = np.random.default_rng(0)
    placer, offsets = LabelPlacer(AREA, 4), []
    for _ in range(200):
        shake = rng.integers(-3, 4, 4)
        boxes = [Rect(200 + shake[0], 33 + shake[1], 300, 150), Rect(300 + shake[2], 36 + shake[3], 400, 150)]
        placed = placer.place([LabelRequest(i, box, SIZES) for i, box in enumerate(boxes)])
        offsets.append([(placed[i].anchor, placed[i].size_index) for i in range(2)])
    changes = sum(a != b for a, b in pairwise(offsets))
    assert changes <= 2


def test_no_room_at_all_leaves_labels_out() -> None:
    assert LabelPlacer(Rect(0, 0, 40, 20), 2).place([LabelRequest(1, Rect(0, 0, 10, 10), SIZES)]) == {}
    blocked = [Rect(0, 0, 640, 360)]
    assert LabelPlacer(AREA, 2).place([LabelRequest(1, Rect(0, 0, 10, 10), SIZES)], blocked) == {}
