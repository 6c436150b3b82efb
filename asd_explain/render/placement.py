"""Where the labels go: near their face, inside the frame, over nothing that matters, and not jumping about.

Greedy and deterministic: labels are placed one after the other, and each takes the cheapest of a few places around its
face. What may never be covered (labels placed before, timeline, notes) rules a place out; faces only cost. The place a
label had in the frame before is cheaper than any other, so that it moves only for a clear gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Cost of covering a label's worth of another face, of the own face, of moving one label height away from the anchor.
_OTHER_FACE, _OWN_FACE, _SHIFT = 24.0, 4.0, 1.0
#: How much better a new place must be before a label leaves the old one.
_LOYALTY = 2.5


@dataclass(frozen=True)
class Rect:
    """Pixels [x0, x1) x [y0, y1)."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    def overlap(self, other: Rect) -> int:
        """Area in pixels that both share."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(width, 0) * max(height, 0)


@dataclass(frozen=True)
class LabelRequest:
    """One label to place: whose it is, the face it belongs to, and its sizes (width, height), the preferred first.

    Sizes are even, so that labels placed at even positions never share a chroma cell.
    """

    track_id: int
    face: Rect
    sizes: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Placement:
    """Where a label goes, which of its sizes it takes, and the name of the place (for the next frame)."""

    rect: Rect
    size_index: int
    anchor: str


class LabelPlacer:
    """Places labels frame after frame; remembers where each track's label was.

    Args:
        area: where labels may lie.
        gap: distance in pixels between a face's box and its label; even.
    """

    def __init__(self, area: Rect, gap: int) -> None:
        self._area = Rect(area.x0 + area.x0 % 2, area.y0 + area.y0 % 2, area.x1 - area.x1 % 2, area.y1 - area.y1 % 2)
        self._gap = gap
        self._last: dict[int, Placement] = {}

    def place(self, requests: Sequence[LabelRequest], taken: Sequence[Rect] = ()) -> dict[int, Placement]:
        """Place the labels of one frame; a label for which there is no room at all is left out.

        Args:
            requests: in order of precedence; keep that order from frame to frame.
            taken: what no label may cover.
        """
        blocked = list(taken)
        placed: dict[int, Placement] = {}
        faces = {request.track_id: request.face for request in requests}
        for request in requests:
            others = [face for track_id, face in faces.items() if track_id != request.track_id]
            best = self._best(request, others, blocked)
            if best is not None:
                placed[request.track_id] = best
                blocked.append(best.rect)
        self._last = placed
        return placed

    def _best(self, request: LabelRequest, others: list[Rect], blocked: list[Rect]) -> Placement | None:
        last = self._last.get(request.track_id)
        best, best_cost = None, np.inf
        for size_index, size in enumerate(request.sizes):
            if size[0] > self._area.width or size[1] > self._area.height:
                continue
            for rank, (anchor, x, y) in enumerate(self._anchors(request.face, *size)):
                rect, shift = self._inside(x, y, *size)
                if any(rect.overlap(other) for other in blocked):
                    continue
                area = size[0] * size[1]
                cost = 0.15 * rank + 3.0 * size_index + _SHIFT * shift / size[1]
                cost += _OWN_FACE * rect.overlap(request.face) / area
                cost += _OTHER_FACE * sum(rect.overlap(face) for face in others) / area
                if last is not None and (last.anchor, last.size_index) == (anchor, size_index):
                    cost -= _LOYALTY
                if cost < best_cost:
                    best, best_cost = Placement(rect, size_index, anchor), cost
        if (
            best is not None
            and sum(best.rect.overlap(face) for face in others) <= 0.1 * best.rect.width * best.rect.height
        ):
            return best
        return self._anywhere(request, [*blocked, *others]) or best or self._anywhere(request, blocked)

    def _anchors(self, face: Rect, width: int, height: int) -> list[tuple[str, int, int]]:
        gap = self._gap
        above, below = face.y0 - gap - height, face.y1 + gap
        right, left = face.x1 + gap, face.x0 - gap - width
        return [
            ("above left", face.x0, above),
            ("above right", face.x1 - width, above),
            ("below left", face.x0, below),
            ("below right", face.x1 - width, below),
            ("right top", right, face.y0),
            ("left top", left, face.y0),
            ("right bottom", right, face.y1 - height),
            ("left bottom", left, face.y1 - height),
            ("inside bottom", face.x0, face.y1 - height),
            ("inside top", face.x0, face.y0),
        ]

    def _inside(self, x: int, y: int, width: int, height: int) -> tuple[Rect, int]:
        """The rectangle moved into the area and onto even pixels, and how far it was moved."""
        moved_x = min(max(x - x % 2, self._area.x0), self._area.x1 - width)
        moved_y = min(max(y - y % 2, self._area.y0), self._area.y1 - height)
        rect = Rect(moved_x, moved_y, moved_x + width, moved_y + height)
        return rect, max(abs(moved_x - x) - 1, 0) + max(abs(moved_y - y) - 1, 0)

    def _anywhere(self, request: LabelRequest, blocked: list[Rect]) -> Placement | None:
        """The free place nearest to the face, where none of the places around it will do."""
        size_index = len(request.sizes) - 1
        width, height = request.sizes[size_index]
        last = self._last.get(request.track_id)
        if last is not None and last.anchor == "free" and not any(last.rect.overlap(other) for other in blocked):
            return last
        step = max(height // 2 - (height // 2) % 2, 2)
        xs = np.arange(self._area.x0, self._area.x1 - width + 1, step)
        ys = np.arange(self._area.y0, self._area.y1 - height + 1, step)
        if not len(xs) or not len(ys):
            return None
        grid_x, grid_y = (axis.ravel() for axis in np.meshgrid(xs, ys))
        free = np.ones(len(grid_x), bool)
        for other in blocked:
            free &= ~(
                (grid_x < other.x1) & (grid_x + width > other.x0) & (grid_y < other.y1) & (grid_y + height > other.y0)
            )
        if not free.any():
            return None
        away_x = np.abs(grid_x + width / 2 - (request.face.x0 + request.face.x1) / 2)
        away_y = np.abs(grid_y + height / 2 - (request.face.y0 + request.face.y1) / 2)
        index = int(np.argmin(np.where(free, away_x + away_y, np.inf)))
        x, y = int(grid_x[index]), int(grid_y[index])
        return Placement(Rect(x, y, x + width, y + height), size_index, "free")
