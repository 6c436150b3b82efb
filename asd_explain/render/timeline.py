"""The band along the bottom: one probability curve a track, the audio's loudness, a cursor, and the legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asd_explain.render.canvas import Canvas, Patch
from asd_explain.render.colours import INK, MUTED, PAPER, ColourSpace, Rgb, lightness, track_colour
from asd_explain.render.legend import Legend
from asd_explain.render.placement import Rect
from asd_explain.render.scene import Scene, TimelineTrack
from asd_explain.render.style import Style, clock, even
from asd_explain.render.text import Sheet, Typeface

#: The band covers at most this part of the picture's height.
MAX_PART = 0.2
#: A curve is broken where a track has no value for longer than this.
_GAP_S = 0.5
_OPACITY = 0.78
#: With more faces than this at one time, the curves get rows of their own.
_MOST_CURVES = 5


class Band:
    """The band of one picture size: what does not change is drawn once, per frame only cursor and clock are.

    A clip longer than what the width can show legibly is shown in pages of equal length that turn as time goes on: the
    curves stand still while one reads them. A thin bar on top then shows where the page lies in the clip.

    Args:
        scene: the clip.
        style: sizes.
        colours: colour of each track.
        space: the colour space of the planes.
        width: width of the band in pixels, even.
        most: most pixels of height that the band may take.
        opacity: of its dark ground.
    """

    def __init__(
        self,
        scene: Scene,
        style: Style,
        colours: dict[int, Rgb],
        space: ColourSpace,
        width: int,
        most: int,
        opacity: float = _OPACITY,
    ) -> None:
        self._scene = scene
        self._colours = colours
        self._space = space
        self._opacity = opacity
        self.width = width
        self._type = Typeface(style.small)
        self._bold = Typeface(style.small, bold=True)
        self._line = max(round(style.small * 1.22), self._type.height - 2)
        self._pad = max(round(style.small * 0.45), 3)
        self._thin = max(round(style.small / 11), 1)
        self._left = self._pad + max(
            self._type.width(t) for t in (f"P={scene.threshold:g}", "P=1", clock(scene.shown_s(scene.end_s)))
        )
        self._left += self._pad // 2 + 2
        self._right = self._pad + self._bold.width(clock(scene.shown_s(scene.end_s), True)) + self._pad // 2 + 2
        self._measure(style, most)
        self._pages = self._page_edges()
        self._page: tuple[int, Patch] | None = None
        self._cursor: Patch | None = None
        self._clock: tuple[str, Patch] | None = None

    def _measure(self, style: Style, most: int) -> None:
        """Share the height out: legend first as many lines as its full wording needs, curves get the rest."""
        most = max(even(most - 1), 0)
        legend_width = self.width - 2 * self._pad
        self._legend = Legend(self._scene, self._type, legend_width)
        lane = max(self._type.height, round(0.16 * most))
        least = max(2 * self._type.height, round(0.3 * most))
        room = most - 3 * self._pad - lane - least
        self._legend_lines = max(len(self._legend.lines(max(room // self._line, 0))), 0)
        self._lane = lane
        wished = round(min(most * 0.62, 7.5 * style.small))
        used = 3 * self._pad + lane + self._legend_lines * self._line
        self._curves = max(min(most - used, wished), 0)
        self.height = even(min(used + self._curves + 1, most)) if style.text and most >= used + 8 else 0

    def _page_edges(self) -> np.ndarray:
        """(pages + 1,) seconds: where the pages begin and end."""
        length = max(self._scene.end_s - self._scene.start_s, 1e-3)
        page_s = float(np.clip(self._plot_width / 18, 15, 90))
        count = 1 if length <= 1.5 * page_s else int(np.ceil(length / page_s))
        return self._scene.start_s + np.linspace(0, length, count + 1)

    @property
    def _plot_width(self) -> int:
        return max(self.width - self._left - self._right, 1)

    def rect(self, y: int) -> Rect:
        """Where the band lies when its upper edge is at `y`."""
        return Rect(0, y, self.width, y + self.height)

    def draw(self, canvas: Canvas, y: int, time_s: float) -> None:
        """Draw the band with its upper edge at the even `y`, the cursor at `time_s`."""
        if not self.height:
            return
        page = int(np.clip(np.searchsorted(self._pages, time_s, "right") - 1, 0, len(self._pages) - 2))
        if self._page is None or self._page[0] != page:
            self._page = (page, Patch.from_rgba(self._sheet(page).rgba(), self._space))
        canvas.paste(self._page[1], 0, y)
        if self._cursor is None:
            self._cursor = Patch.from_rgba(self._cursor_sheet().rgba(), self._space)
        x = even(self._x(page, np.array([time_s]))[0]) - even(self._cursor.y.shape[1] / 2)
        canvas.paste(self._cursor, int(x), y + even(self._pad))
        text = clock(self._scene.shown_s(time_s), True)
        if self._clock is None or self._clock[0] != text:
            sheet = Sheet(even(self._right + 1), even(self._bold.height + 1))
            sheet.text(self._bold, text, sheet.width - self._pad - self._bold.width(text), 0, PAPER)
            self._clock = (text, Patch.from_rgba(sheet.rgba(), self._space))
        canvas.paste(self._clock[1], even(self.width - self._clock[1].y.shape[1]), y + even(self._pad))

    def _x(self, page: int, times_s: np.ndarray) -> np.ndarray:
        start, end = self._pages[page], self._pages[page + 1]
        part = np.clip((np.asarray(times_s, float) - start) / (end - start), 0, 1)
        return self._left + part * (self._plot_width - 1)

    def _y(self, p: np.ndarray) -> np.ndarray:
        return self._pad + (1 - np.clip(p, 0, 1)) * (self._curves - 1)

    def _sheet(self, page: int) -> Sheet:
        """Everything of one page that does not move."""
        sheet = Sheet(self.width, self.height)
        sheet.rect(0, 0, self.width, self.height, INK, self._opacity)
        self._draw_axes(sheet, page)
        self._draw_loudness(sheet, page)
        self._draw_curves(sheet, page)
        legend_y = self.height - self._pad // 2 - 1 - self._legend_lines * self._line
        self._legend.draw(sheet, self._pad, legend_y, self._line, self._legend_lines)
        return sheet

    def _draw_axes(self, sheet: Sheet, page: int) -> None:
        scene, right = self._scene, self.width - self._right
        top, bottom = self._pad, self._pad + self._curves
        sheet.rect(self._left, top, right, bottom, PAPER, 0.07)
        lane_text = bottom + (self._lane - self._type.height) // 2 + 1
        first = clock(scene.shown_s(self._pages[page]))
        sheet.text(self._type, first, self._left - 3 - self._type.width(first), lane_text, MUTED)
        last = clock(scene.shown_s(self._pages[page + 1]))
        sheet.text(self._type, last, right + 4, lane_text, MUTED)
        if len(self._pages) > 2:
            span = self._pages[-1] - self._pages[0]
            begin, end = ((self._pages[page + i] - self._pages[0]) / span for i in (0, 1))
            sheet.rect(0, 0, self.width, 2, PAPER, 0.15)
            sheet.rect(round(begin * self.width), 0, round(end * self.width), 2, PAPER, 0.9)

    def _draw_levels(self, sheet: Sheet) -> None:
        """The scale of P(speaking) at the left, and the threshold's dashed line."""
        top, bottom, right = self._pad, self._pad + self._curves, self.width - self._right
        level = round(float(self._y(np.array([self._scene.threshold]))[0]))
        for x in range(self._left, right, 8):
            sheet.rect(x, level, min(x + 4, right), level + self._thin, PAPER, 0.6)
        taken: list[int] = []
        for text, y in (("P=1", top), ("P=0", bottom - 1), (f"P={self._scene.threshold:g}", level)):
            text_y = min(max(y - self._type.height // 2, top - 2), bottom - self._type.height + 3)
            if all(abs(text_y - other) >= self._type.size for other in taken):
                taken.append(text_y)
                sheet.text(self._type, text, self._left - 3 - self._type.width(text), text_y, MUTED)

    def _draw_loudness(self, sheet: Sheet, page: int) -> None:
        top, right = self._pad + self._curves + 2, self.width - self._right
        height = self._lane - 2
        if self._scene.loudness is None:
            text = self._type.shorten("no audio", self._plot_width)
            sheet.text(self._type, text, self._left + 3, top + (height - self._type.height) // 2, MUTED)
            return
        times_s, level = (np.asarray(values, float) for values in self._scene.loudness)
        start, end = self._pages[page], self._pages[page + 1]
        columns = right - self._left
        if not len(times_s) or columns < 1:
            return
        heights = _peaks(times_s, np.clip(np.nan_to_num(level), 0, 1), start, end, columns) * (height / 2)
        rows = np.abs(np.arange(height) - (height - 1) / 2)
        cover = np.clip(heights[None, :] - rows[:, None] + 0.5, 0, 1)
        sheet.over((cover * 255).astype(np.uint8), self._left, top, MUTED, 0.75)

    def _draw_curves(self, sheet: Sheet, page: int) -> None:
        start, end = self._pages[page], self._pages[page + 1]
        shown = [t for t in self._scene.tracks if len(t.times_s) and t.times_s[0] <= end and t.times_s[-1] >= start]
        rows = _rows(shown)
        if max(rows.values(), default=0) >= _MOST_CURVES:
            self._draw_rows(sheet, page, shown, rows)
            return
        self._draw_levels(sheet)
        names: list[Rect] = []
        pieces = {track.track_id: self._pieces(track, page) for track in shown}
        for track in shown:
            rgb = track_colour(self._colours, track.track_id)
            for points in pieces[track.track_id]:
                sheet.polyline(points, INK, self._thin + 2, 0.5)
                sheet.polyline(points, rgb, self._thin + (1 if self._curves > 40 else 0), 1.0)
        for track in shown:
            self._name(sheet, track, pieces[track.track_id], names)

    def _draw_rows(self, sheet: Sheet, page: int, shown: list[TimelineTrack], rows: dict[int, int]) -> None:
        """Where curves would hide one another: a row a face, each a filled curve, faint below the threshold.

        Tracks that follow one another share a row.
        """
        text = next((t for t in ("P by face", "P/face", "P") if self._type.width(t) <= self._left - 3), "")
        sheet.text(self._type, text, self._left - 3 - self._type.width(text), self._pad - 2, MUTED)
        count = min(max(rows.values()) + 1, max(self._curves // 5, 1))
        top = self._pad
        for track in shown:
            row = rows[track.track_id]
            if row >= count:
                continue
            low, high = (top + self._curves * (row + part) / count for part in (0, 1))
            rgb = track_colour(self._colours, track.track_id)
            for points in self._pieces(track, page):
                if len(points) < 2:
                    continue
                first, last = int(np.floor(points[0, 0])), int(np.ceil(points[-1, 0])) + 1
                p = np.interp(np.arange(first, last), points[:, 0], 1 - (points[:, 1] - top) / max(self._curves - 1, 1))
                y = np.arange(int(low), int(high) - 1)
                cover = np.clip(p * len(y) - (y[-1] - y[:, None]), 0, 1) * np.where(p < self._scene.threshold, 0.45, 1)
                sheet.over((cover * 255).astype(np.uint8), first, int(low), rgb)
        hidden = sum(rows[track.track_id] >= count for track in shown)
        if hidden:
            text = f"+{hidden} more" if self._type.width(f"+{hidden} more") < self._right else f"+{hidden}"
            x = self.width - self._pad - self._type.width(text)
            sheet.text(self._type, text, x, self._pad + self._bold.height, MUTED)

    def _pieces(self, track: TimelineTrack, page: int) -> list[np.ndarray]:
        """The track's curve on the page as (n, 2) x, y points in pixels, broken at gaps; at most four a column."""
        times_s, p = np.asarray(track.times_s, float), np.asarray(track.p, float)
        start, end = self._pages[page], self._pages[page + 1]
        known = np.isfinite(p) & (times_s >= start) & (times_s <= end)
        times_s, p = times_s[known], p[known]
        pieces = []
        for part in np.split(np.arange(len(times_s)), np.flatnonzero(np.diff(times_s) > _GAP_S) + 1):
            if len(part):
                x, y = self._x(page, times_s[part]), self._y(p[part])
                keep = _extremes(np.floor(x).astype(int), y) if len(part) > 4 * self._plot_width else slice(None)
                pieces.append(np.column_stack([x, y])[keep])
        return pieces

    def _name(self, sheet: Sheet, track: TimelineTrack, pieces: list[np.ndarray], names: list[Rect]) -> None:
        """Write the track's id where its curve is highest, unless another id is in the way."""
        if not pieces or self._curves < 1.6 * self._type.height:
            return
        points = np.concatenate(pieces)
        text = f"#{track.track_id}"
        width = self._bold.width(text)
        x, y = points[int(np.argmin(points[:, 1]))]
        right = self.width - self._right
        left = int(min(max(x + 3, self._left + 2), right - width - 2))
        top = int(min(max(y + 2, self._pad), self._pad + self._curves - self._bold.height))
        rect = Rect(left - 2, top, left + width + 2, top + self._bold.height)
        if any(rect.overlap(other) for other in names):
            return
        names.append(rect)
        rgb = track_colour(self._colours, track.track_id)
        sheet.rect(rect.x0, rect.y0 + 1, rect.x1, rect.y1 - 1, INK, 0.65, radius=2)
        tint = rgb if lightness(rgb) > 0.2 else tuple((value + 255) // 2 for value in rgb)
        sheet.text(self._bold, text, left, top, tint)

    def _cursor_sheet(self) -> Sheet:
        width = 2 * self._thin if self._thin > 1 else 2
        sheet = Sheet(width + 4, self._curves + self._lane)
        sheet.rect(0, 0, sheet.width, sheet.height, INK, 0.35)
        sheet.rect(2, 0, 2 + width, sheet.height, PAPER, 1.0)
        return sheet


def _rows(tracks: Sequence[TimelineTrack]) -> dict[int, int]:
    """A row for each track, the first that no track running at that time holds: as few rows as can be."""
    ends: list[float] = []
    rows: dict[int, int] = {}
    for track in sorted(tracks, key=lambda t: (float(t.times_s[0]), t.track_id)):
        row = next((i for i, end in enumerate(ends) if end < track.times_s[0]), len(ends))
        ends[row : row + 1] = [float(track.times_s[-1])]
        rows[track.track_id] = row
    return rows


def _peaks(times_s: np.ndarray, level: np.ndarray, start: float, end: float, columns: int) -> np.ndarray:
    """(columns,) highest level in each column's time; between samples, and never beyond them, interpolated."""
    edges = np.linspace(start, end, columns + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    peaks = np.interp(centres, times_s, level, left=0.0, right=0.0)
    column = np.floor((times_s - start) / (end - start) * columns).astype(int)
    inside = (column >= 0) & (column < columns)
    np.maximum.at(peaks, column[inside], level[inside])
    return peaks


def _extremes(column: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of each column's first, lowest, highest and last point, in order."""
    keep: list[np.ndarray] = []
    for part in np.split(np.arange(len(column)), np.flatnonzero(np.diff(column)) + 1):
        keep.append(np.unique([part[0], part[np.argmin(y[part])], part[np.argmax(y[part])], part[-1]]))
    return np.concatenate(keep)


def draw_notes(
    canvas: Canvas, notes: Sequence[str], typeface: Typeface, pad: int, width: int, prepared: list[Patch]
) -> list[Rect]:
    """Show the remarks in the upper left corner, one a line; returns what they cover.

    Args:
        canvas: what to draw on.
        notes: the remarks.
        typeface: their type.
        pad: distance from the corner in pixels, even.
        width: most pixels of width.
        prepared: the remarks as patches; filled at the first call, used afterwards.
    """
    if not prepared:
        for note in notes:
            text = typeface.shorten(f"⚠ {note}", width - 2 * pad)
            if not text:
                continue
            sheet = Sheet(even(typeface.width(text) + 2 * pad + 1), even(typeface.height + 4))
            sheet.rect(0, 0, sheet.width, sheet.height, INK, 0.82, radius=pad)
            sheet.text(typeface, text, pad, 2, PAPER)
            prepared.append(Patch.from_rgba(sheet.rgba(), canvas.space))
    covered, y = [], pad
    for patch in prepared:
        height, wide = patch.y.shape
        if y + height > canvas.height // 2:
            break
        canvas.paste(patch, pad, y)
        covered.append(Rect(pad, y, pad + wide, y + height))
        y += height + 2
    return covered
