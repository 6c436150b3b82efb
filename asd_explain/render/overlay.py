"""What is drawn on the picture itself: outlines, labels with their share bars, remarks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from asd_explain.render.canvas import Canvas, Patch
from asd_explain.render.colours import INK, PAPER, STREAM_GREYS, ColourSpace, Rgb, text_colour, track_colour
from asd_explain.render.heat import HeatPainter, heat_region
from asd_explain.render.placement import LabelPlacer, LabelRequest, Rect
from asd_explain.render.scene import FaceView
from asd_explain.render.style import Style, even, percent
from asd_explain.render.text import Sheet, Typeface

#: A face whose position has been interpolated for longer than this is drawn faded.
BRIDGED_S = 0.25
STREAM_ORDER = ("audio", "face", "body")


class PatchCache:
    """The most recently made patches, by key; bounded."""

    def __init__(self, size: int = 512) -> None:
        self._size = size
        self._patches: dict[Hashable, Patch] = {}

    def get(self, key: Hashable, make: Callable[[], Patch]) -> Patch:
        """The patch of this key, made if it is not there."""
        patch = self._patches.pop(key, None) or make()
        self._patches[key] = patch  # to the end: the first is the one unused for longest
        if len(self._patches) > self._size:
            del self._patches[next(iter(self._patches))]
        return patch


@dataclass(frozen=True)
class Line:
    """How an outline looks: its colour, width in pixels, dashed or solid, and opacity."""

    rgb: Rgb
    width: int
    dashed: bool
    opacity: float = 1.0


class FaceArtist:
    """Draws the faces of a frame; remembers where labels were and how long positions have been interpolated.

    Args:
        style: sizes.
        colours: colour of each track.
        space: the colour space of the planes.
        area: where labels may lie.
    """

    def __init__(self, style: Style, colours: dict[int, Rgb], space: ColourSpace, area: Rect) -> None:
        self._style = style
        self._colours = colours
        self._space = space
        self._heat = HeatPainter(space)
        self._cache = PatchCache()
        self._labels = LabelArtist(style, space, self._cache)
        self._placer = LabelPlacer(area, style.gap)
        self._detected_s: dict[int, float] = {}

    def draw(self, canvas: Canvas, time_s: float, faces: Sequence[FaceView], taken: Sequence[Rect]) -> None:
        """Draw heat, outlines and labels, in this order.

        Args:
            canvas: what to draw on.
            time_s: time of the frame in seconds.
            faces: the faces of the frame.
            taken: rectangles that no label may cover.
        """
        self._draw_heat(canvas, faces)
        self._detected_s = {
            face.track_id: self._detected_s.get(face.track_id, time_s) if face.interpolated else time_s
            for face in faces
        }
        for face in faces:
            bridged = abs(time_s - self._detected_s[face.track_id]) > BRIDGED_S
            self._draw_outlines(canvas, face, 0.45 if bridged else 1.0)
        if self._style.text:
            self._draw_labels(canvas, faces, taken)

    def _draw_heat(self, canvas: Canvas, faces: Sequence[FaceView]) -> None:
        """Bodies first; a face with heat of its own keeps its body's heat off, since two scales mixed say nothing."""
        for stream in ("body", "face"):
            for face in faces:
                box = face.box if stream == "face" else face.body
                heat, window = face.heat.get(stream), face.windows.get(stream)
                if heat is None or window is None or box is None:
                    continue
                region = heat_region(window, box, canvas.width, canvas.height)
                if region is None:
                    continue
                holes: tuple[Rect, ...] = ()
                if stream == "body":
                    holes = face_holes(faces)
                patch = self._heat.patch(heat, window, region, face.p, holes)
                if patch is not None:
                    canvas.paste(patch, region.x0, region.y0)

    def _draw_outlines(self, canvas: Canvas, face: FaceView, opacity: float) -> None:
        rgb = track_colour(self._colours, face.track_id)
        style = self._style
        if face.body is not None:
            line = Line(rgb, style.thin, not face.speaking, 0.6 * opacity)
            self._draw_outline(canvas, face.body, line)
        line = Line(rgb, style.thick if face.speaking else style.thin, not face.speaking, opacity)
        rect = self._draw_outline(canvas, face.box, line)
        if rect is None or min(rect.width, rect.height) < 8 * style.thick:
            return
        mark = self._cache.get(("mark", rgb, face.interpolated), lambda: self._mark(rgb, face.interpolated))
        size = mark.y.shape[0]
        canvas.paste(mark, rect.x1 - size, rect.y1 - size)

    def _draw_outline(self, canvas: Canvas, box: np.ndarray, line: Line) -> Rect | None:
        """Draw a box's outline around it, kept inside the frame; returns its outer border."""
        if not np.isfinite(box).all():
            return None
        half = line.width / 2
        x0, y0 = (max(even(value - half), 0) for value in box[:2])
        x1, y1 = (
            min(even(value + half), limit) for value, limit in zip(box[2:], (canvas.width, canvas.height), strict=True)
        )
        if x1 <= x0 or y1 <= y0:
            return None
        size = (x1 - x0, y1 - y0)
        for part in strips(*size, line.width + 2):
            patch = self._cache.get(
                (size, line, part),
                lambda part=part: Patch.from_rgba(outline(*size, line, part), self._space, (part.x0 % 2, part.y0 % 2)),
            )
            canvas.paste(patch, x0 + part.x0, y0 + part.y0)
        return Rect(x0, y0, x1, y1)

    def _mark(self, rgb: Rgb, hollow: bool) -> Patch:
        """The square in a box's lower right corner: filled where the face was detected, hollow where interpolated."""
        size = max(even(2.4 * self._style.thick), 4)
        sheet = Sheet(size, size)
        sheet.rect(0, 0, size, size, INK, 0.7)
        sheet.rect(1, 1, size - 1, size - 1, rgb)
        if hollow:
            inset = max(size // 4, 2)
            sheet.rect(inset, inset, size - inset, size - inset, INK, 0.9)
        return Patch.from_rgba(sheet.rgba(), self._space)

    def _draw_labels(self, canvas: Canvas, faces: Sequence[FaceView], taken: Sequence[Rect]) -> None:
        faces = sorted((face for face in faces if _finite(face)), key=lambda face: face.track_id)
        requests = [LabelRequest(f.track_id, box_rect(f.box), self._labels.sizes(f)) for f in faces]
        placed = self._placer.place(requests, taken)
        for request, face in zip(requests, faces, strict=True):
            place = placed.get(face.track_id)
            if place is None:
                continue
            rgb = track_colour(self._colours, face.track_id)
            if place.anchor == "free":
                self._draw_leader(canvas, place.rect, request.face, rgb)
            self._labels.draw(canvas, face, rgb, place.rect)

    def _draw_leader(self, canvas: Canvas, label: Rect, face: Rect, rgb: Rgb) -> None:
        """A thin line from a label that stands apart to its face."""
        ends = []
        for one, other in ((label, face), (face, label)):
            x = min(max((other.x0 + other.x1) / 2, one.x0), one.x1)
            y = min(max((other.y0 + other.y1) / 2, one.y0), one.y1)
            ends.append((x, y))
        points = np.array(ends)
        corner = 2 * np.floor((points.min(axis=0) - 4) / 2).astype(int)
        size = np.ceil(points.max(axis=0) + 4).astype(int) - corner
        sheet = Sheet(int(size[0]), int(size[1]))
        sheet.polyline(points - corner, INK, self._style.thin + 2, 0.6)
        sheet.polyline(points - corner, rgb, self._style.thin)
        canvas.paste(Patch.from_rgba(sheet.rgba(), self._space), int(corner[0]), int(corner[1]))


class LabelArtist:
    """Draws labels: a symbol, the track's id, its percentage, the word, and a bar with the shares below.

    The three parts are patches of their own: percentage and shares change from frame to frame, the rest does not.

    Args:
        style: sizes.
        space: the colour space of the planes.
        cache: where patches are kept.
    """

    def __init__(self, style: Style, space: ColourSpace, cache: PatchCache) -> None:
        self._space = space
        self._cache = cache
        self._type = Typeface(style.label, bold=True)
        self._bar_type = Typeface(max(round(style.label * 0.78), 8))
        self._pad = max(round(style.label * 0.36), 3)
        self._row = even(self._type.height + 2)
        self._bar_row = even(self._bar_type.height + 2)
        self._number_width = even(self._type.width("100 %") + 1)
        self._word_width = max(self._type.width("speaking"), self._type.width("silent"))
        self._columns: dict[int, tuple[int, int, int]] = {}
        self._worded: set[int] = set()

    def sizes(self, face: FaceView) -> list[tuple[int, int]]:
        """Even (width, height): with the word, where the face is not too small for it, and without."""
        _, long, short = self._layout(face.track_id)
        height = self._row + (self._bar_row if face.shares else 0)
        # two thresholds, so that a face whose size wavers does not make its label flicker
        least = (0.3 if face.track_id in self._worded else 0.4) * long
        if float(face.box[2] - face.box[0]) < least:
            self._worded.discard(face.track_id)
            return [(short, height)]
        self._worded.add(face.track_id)
        return [(long, height), (short, height)]

    def draw(self, canvas: Canvas, face: FaceView, rgb: Rgb, rect: Rect) -> None:
        """Draw the label into a rectangle of one of its sizes, on even pixels."""
        number_x, long, _ = self._layout(face.track_id)
        word = rect.width == long
        key = ("label", face.track_id, face.speaking, rgb, word)
        ground = self._cache.get(key, lambda: self._patch(self._ground(face, rgb, rect.width, word)))
        canvas.paste(ground, rect.x0, rect.y0)
        ink = text_colour(rgb) if face.speaking else PAPER
        number = percent(face.p)
        patch = self._cache.get(("number", number, ink), lambda: self._patch(self._number(number, ink)))
        canvas.paste(patch, rect.x0 + number_x, rect.y0)
        shares = whole_shares(face.shares) if face.shares else ()
        if shares:
            bar = self._cache.get(("bar", shares, rect.width), lambda: self._patch(self._bar(shares, rect.width)))
            canvas.paste(bar, rect.x0, rect.y0 + self._row)

    def _layout(self, track_id: int) -> tuple[int, int, int]:
        """Where the percentage begins, and the label's widths with and without the word; all even and all the same
        for every percentage, so that nothing moves when it changes."""
        if track_id not in self._columns:
            number = 2 * -(-(self._pad + self._type.width(f"● #{track_id} ")) // 2)
            short = number + self._number_width + 2 * -(-self._pad // 2)
            self._columns[track_id] = (number, 2 * -(-(short + self._word_width + self._pad) // 2), short)
        return self._columns[track_id]

    def _ground(self, face: FaceView, rgb: Rgb, width: int, word: bool) -> Sheet:
        sheet = Sheet(width, self._row)
        if face.speaking:
            sheet.rect(0, 0, width, self._row, rgb, 1.0, radius=self._pad)
            ink, symbol, symbol_ink = text_colour(rgb), "●", text_colour(rgb)
        else:
            sheet.rect(0, 0, width, self._row, INK, 0.82, radius=self._pad)
            sheet.rect(0, 0, max(self._pad - 2, 2), self._row, rgb)
            ink, symbol, symbol_ink = PAPER, "○", rgb
        y = (self._row - self._type.height) // 2
        sheet.text(self._type, symbol, self._pad, y, symbol_ink)
        sheet.text(self._type, f"#{face.track_id}", self._pad + self._type.width("● "), y, ink)
        if word:
            x = self._layout(face.track_id)[2]
            sheet.text(self._type, "speaking" if face.speaking else "silent", x, y, ink)
        return sheet

    def _number(self, number: str, ink: Rgb) -> Sheet:
        sheet = Sheet(self._number_width, self._row)
        y = (self._row - self._type.height) // 2
        sheet.text(self._type, number, self._number_width - self._type.width(number), y, ink)
        return sheet

    def _bar(self, shares: tuple[tuple[str, int], ...], width: int) -> Sheet:
        sheet = Sheet(width, self._bar_row)
        sheet.rect(0, 0, width, self._bar_row, INK, 0.82)
        draw_shares(sheet, Rect(2, 1, width - 2, self._bar_row - 1), shares, self._bar_type)
        return sheet

    def _patch(self, sheet: Sheet) -> Patch:
        return Patch.from_rgba(sheet.rgba(), self._space)


def draw_shares(sheet: Sheet, area: Rect, shares: tuple[tuple[str, int], ...], typeface: Typeface) -> None:
    """Draw a stacked bar of the streams' shares, each part named as far as its room goes.

    Args:
        sheet: what to draw on.
        area: where the bar goes.
        shares: (stream, whole percent) in order, summing to 100.
        typeface: for the names.
    """
    edges = area.x0 + np.rint(np.cumsum([0] + [share for _, share in shares]) / 100 * area.width).astype(int)
    for (stream, share), left, right in zip(shares, edges[:-1], edges[1:], strict=True):
        rgb = STREAM_GREYS.get(stream, (128, 128, 128))
        sheet.rect(left + (left > area.x0), area.y0, right, area.y1, rgb)
        room = right - left - 3
        for text in (f"{stream} {share} %", f"{stream[:1].upper()} {share}", stream[:1].upper(), ""):
            if typeface.width(text) <= room:
                break
        x = (left + right - typeface.width(text) + 1) // 2
        y = (area.y0 + area.y1 - typeface.height) // 2
        sheet.text(typeface, text, x, y, text_colour(rgb))


def whole_shares(shares: dict[str, float]) -> tuple[tuple[str, int], ...]:
    """Shares as whole percentages that sum to 100 (largest remainder), in the order audio, face, body, others."""
    names = [name for name in STREAM_ORDER if name in shares] + sorted(set(shares) - set(STREAM_ORDER))
    values = [value if (value := float(shares[name])) > 0 else 0.0 for name in names]
    total = sum(values)
    if not 0 < total < float("inf"):
        return ()
    exact = [100 * value / total for value in values]
    whole = [int(value) for value in exact]
    by_rest = sorted(range(len(names)), key=lambda i: whole[i] - exact[i])
    for index in by_rest[: 100 - sum(whole)]:
        whole[index] += 1
    return tuple(zip(names, whole, strict=True))


def outline(width: int, height: int, line: Line, part: Rect) -> np.ndarray:
    """A part of a box's outline with a thin dark casing, which keeps it legible on any ground.

    Args:
        width, height: outer size in pixels of the whole outline.
        line: its look.
        part: the pixels wanted.

    Returns:
        (part.height, part.width, 4) uint8.
    """
    stroke = min(line.width, max((min(width, height) - 2) // 2, 0))
    casing, paint = (*INK, round(140 * line.opacity)), (*line.rgb, round(255 * line.opacity))
    layers = np.array([casing] + [paint] * stroke + [casing, (0, 0, 0, 0)], np.uint8)
    x, y = np.arange(part.x0, part.x1), np.arange(part.y0, part.y1)
    deep_x, deep_y = np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y)
    picture = layers[np.minimum(np.minimum(deep_y[:, None], deep_x), len(layers) - 1)]
    if line.dashed:
        on = np.where(deep_y[:, None] <= deep_x, _dashes(width, line.width)[x], _dashes(height, line.width)[y][:, None])
        picture[~on, 3] = 0
    return picture


def strips(width: int, height: int, stroke: int) -> list[Rect]:
    """Cut an outline into its top, bottom, left and right side; whole where it is small."""
    stroke += stroke % 2
    if min(width, height) <= 2 * stroke:
        return [Rect(0, 0, width, height)]
    return [
        Rect(0, 0, width, stroke),
        Rect(0, height - stroke, width, height),
        Rect(0, stroke, stroke, height - stroke),
        Rect(width - stroke, stroke, width, height - stroke),
    ]


def box_rect(box: np.ndarray) -> Rect:
    """A box on whole pixels."""
    return Rect(*(round(float(value)) for value in box))


def face_holes(faces: Sequence[FaceView]) -> tuple[Rect, ...]:
    """Where a body's heat is left out: the boxes of faces with heat of their own."""
    return tuple(box_rect(face.box) for face in faces if face.heat.get("face") is not None and _finite(face))


def _dashes(length: int, stroke: int) -> np.ndarray:
    """(length,) bool, True on the dashes; both ends are dashes, so that corners are closed."""
    count = 2 * max(round(length / (2 * (3 * stroke + 4))), 1) + 1
    return (np.arange(length) * count // max(length, 1)) % 2 == 0


def _finite(face: FaceView) -> bool:
    return bool(np.isfinite(face.box).all())
