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
        for index, (dx, dy, width, height) in enumerate(strips(x1 - x0, y1 - y0, line.width + 2)):
            parity = (dx % 2, dy % 2)
            key = ("outline", x1 - x0, y1 - y0, line, index)
            patch = self._cache.get(
                key,
                lambda dx=dx, dy=dy, width=width, height=height, parity=parity: Patch.from_rgba(
                    outline(x1 - x0, y1 - y0, line)[dy : dy + height, dx : dx + width], self._space, parity
                ),
            )
            canvas.paste(patch, x0 + dx, y0 + dy)
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
        for face in faces:
            place = placed.get(face.track_id)
            if place is not None:
                patch = self._labels.patch(face, track_colour(self._colours, face.track_id), place.size_index == 0)
                canvas.paste(patch, place.rect.x0, place.rect.y0)


class LabelArtist:
    """Draws labels: a symbol, the track's id, its percentage, the word, and a bar with the shares below.

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

    def sizes(self, face: FaceView) -> list[tuple[int, int]]:
        """Even (width, height) with the word and without it."""
        height = self._row + (self._bar_row if face.shares else 0)
        return [(self._columns(face.track_id, word)[-1], height) for word in (True, False)]

    def patch(self, face: FaceView, rgb: Rgb, word: bool) -> Patch:
        """The label, for even positions."""
        shares = None if face.shares is None else whole_shares(face.shares)
        key = ("label", face.track_id, percent(face.p), face.speaking, rgb, word, shares)
        return self._cache.get(key, lambda: Patch.from_rgba(self.sheet(face, rgb, word).rgba(), self._space))

    def _columns(self, track_id: int, word: bool) -> list[int]:
        """Where symbol, id, the percentage's right edge, word and end lie: the same for every percentage."""
        pad, face = self._pad, self._type
        name = pad + face.width("● ")
        number = name + face.width(f"#{track_id} ") + face.width("100 %")
        end = number
        if word:
            end += pad + max(face.width("speaking"), face.width("silent"))
        return [pad, name, number, number + pad, 2 * -(-(end + pad) // 2)]

    def sheet(self, face: FaceView, rgb: Rgb, word: bool) -> Sheet:
        """Draw the label."""
        symbol_x, name_x, number_x, word_x, width = self._columns(face.track_id, word)
        shares = None if face.shares is None else whole_shares(face.shares)
        height = self._row + (self._bar_row if shares else 0)
        sheet = Sheet(width, height)
        sheet.rect(0, 0, width, height, INK, 0.82, radius=self._pad)
        if face.speaking:
            sheet.rect(0, 0, width, self._row, rgb, 1.0, radius=self._pad)
            ink = text_colour(rgb)
        else:
            sheet.rect(0, 0, max(self._pad - 2, 2), self._row, rgb)
            ink = PAPER
        number = percent(face.p)
        y = (self._row - self._type.height) // 2
        sheet.text(self._type, "●" if face.speaking else "○", symbol_x, y, ink if face.speaking else rgb)
        sheet.text(self._type, f"#{face.track_id}", name_x, y, ink)
        sheet.text(self._type, number, number_x - self._type.width(number), y, ink)
        if word:
            sheet.text(self._type, "speaking" if face.speaking else "silent", word_x, y, ink)
        if shares:
            draw_shares(sheet, Rect(2, self._row + 1, width - 2, height - 1), shares, self._bar_type)
        return sheet


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
    values = np.array([max(float(np.nan_to_num(shares[name])), 0.0) for name in names])
    if not values.sum() > 0:
        return ()
    exact = values / values.sum() * 100
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: 100 - whole.sum()]] += 1
    return tuple(zip(names, whole.tolist(), strict=True))


def outline(width: int, height: int, line: Line) -> np.ndarray:
    """An outline with a thin dark casing, which keeps it legible on any ground: (height, width, 4) uint8."""
    picture = np.zeros((height, width, 4), np.uint8)
    stroke = min(line.width, max((min(width, height) - 2) // 2, 0))
    picture[...] = (*INK, round(140 * line.opacity))
    picture[1 : height - 1, 1 : width - 1] = (*line.rgb, round(255 * line.opacity))
    inner = stroke + 1
    picture[inner : height - inner, inner : width - inner] = (*INK, round(140 * line.opacity))
    inner += 1
    if line.dashed:
        rim = np.zeros((height, width), bool)
        across, down = _dashes(width, line.width), _dashes(height, line.width)
        rim[:inner] = rim[height - inner :] = across
        rim[inner : height - inner, :inner] = rim[inner : height - inner, width - inner :] = down[
            inner : height - inner, None
        ]
        picture[~rim, 3] = 0
    picture[inner : height - inner, inner : width - inner] = 0
    return picture


def strips(width: int, height: int, stroke: int) -> list[tuple[int, int, int, int]]:
    """Cut an outline into (x, y, width, height) of its top, bottom, left and right side; whole where it is small."""
    if min(width, height) <= 2 * stroke + 2:
        return [(0, 0, width, height)]
    stroke += stroke % 2
    return [
        (0, 0, width, stroke),
        (0, height - stroke, width, stroke),
        (0, stroke, stroke, height - 2 * stroke),
        (width - stroke, stroke, stroke, height - 2 * stroke),
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
