"""The side column of the panel layout: enlarged crops with their heat, probability and shares, for up to four faces."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from asd_explain.render.canvas import Canvas, Patch
from asd_explain.render.colours import INK, MUTED, PAPER, ColourSpace, Rgb, track_colour
from asd_explain.render.heat import HeatPainter
from asd_explain.render.overlay import PatchCache, draw_shares, whole_shares
from asd_explain.render.placement import Rect
from asd_explain.render.scene import FaceView, Scene
from asd_explain.render.style import Style, even, percent
from asd_explain.render.text import Sheet, Typeface

#: Most faces shown at once; the rest is named in one line.
MAX_CELLS = 4
_PATIENCE_S = 1.5


def column_width(width: int, height: int) -> int:
    """Width in pixels of the column beside a picture of this size, even."""
    return max(even(max(0.36 * height, 0.3 * width)), 2)


class Panel:
    """Draws the column; remembers which face is shown where, so that cells do not change places.

    Args:
        scene: the clip.
        style: sizes.
        colours: colour of each track.
        space: the colour space of the planes.
        area: where the column lies, on even pixels.
    """

    def __init__(self, scene: Scene, style: Style, colours: dict[int, Rgb], space: ColourSpace, area: Rect) -> None:
        self._style = style
        self._colours = colours
        self._space = space
        self._area = area
        self._heat = HeatPainter(space)
        self._cache = PatchCache()
        self._title = Typeface(style.label, bold=True)
        self._small = Typeface(style.small)
        self._pad = max(even(0.4 * style.label), 2)
        self._head = even(self._title.height + 2) if style.text else 2
        self._bar = even(self._small.height + 2) if style.text else 0
        self._foot = even(self._small.height + 4) if style.text else 0
        self._count = min(max(most_at_once(scene), 1), MAX_CELLS)
        self._slots: list[int | None] = [None] * self._count
        self._spoke_s: dict[int, float] = {}

    def draw(self, canvas: Canvas, time_s: float, faces: Sequence[FaceView]) -> None:
        """Draw the column of one frame; the ground is already there."""
        by_id = {face.track_id: face for face in faces}
        self._seat(by_id, time_s)
        height = (self._area.height - self._foot) // self._count
        height -= height % 2
        for index, track_id in enumerate(self._slots):
            if track_id is not None:
                top = self._area.y0 + index * height
                self._draw_cell(canvas, by_id[track_id], Rect(self._area.x0, top, self._area.x1, top + height))
        rest = [face for face in faces if face.track_id not in self._slots]
        if rest and self._foot:
            text = f"+{len(rest)}: " + ", ".join(f"#{face.track_id} {percent(face.p)}" for face in rest)
            patch = self._cache.get(("rest", text), lambda: self._line(text, self._small, MUTED))
            canvas.paste(patch, self._area.x0 + self._pad, self._area.y1 - self._foot)

    def _seat(self, faces: dict[int, FaceView], time_s: float) -> None:
        """Give faces a cell: who has one keeps it, unless silent for long while a speaking face has none."""
        self._spoke_s = {i: time_s if f.speaking else self._spoke_s.get(i, time_s) for i, f in faces.items()}
        self._slots = [track_id if track_id in faces else None for track_id in self._slots]
        waiting = sorted(track_id for track_id in faces if track_id not in self._slots)
        if len(waiting) > self._slots.count(None):
            waiting.sort(key=lambda track_id: not faces[track_id].speaking)
        for track_id in waiting:
            if None in self._slots:
                self._slots[self._slots.index(None)] = track_id
            elif faces[track_id].speaking:
                quiet = min(range(self._count), key=lambda k: self._spoke_s[self._slots[k]])
                if time_s - self._spoke_s[self._slots[quiet]] > _PATIENCE_S:
                    self._slots[quiet] = track_id

    def _draw_cell(self, canvas: Canvas, face: FaceView, cell: Rect) -> None:
        rgb = track_colour(self._colours, face.track_id)
        streams = [stream for stream in ("face", "body") if face.crops.get(stream) is not None]
        bar = self._bar if face.shares else 0
        room = Rect(
            cell.x0 + self._pad, cell.y0 + self._pad + self._head, cell.x1 - self._pad, cell.y1 - self._pad - bar
        )
        across, size = _arrange(room, max(len(streams), 1), self._pad)
        if size < 8:
            return
        if self._style.text:
            key = ("head", face.track_id, percent(face.p), face.speaking, rgb, room.width)
            canvas.paste(
                self._cache.get(key, lambda: self._header(face, rgb, room.width)), room.x0, cell.y0 + self._pad
            )
        bottom = room.y0
        for index, stream in enumerate(streams):
            column, row = (index, 0) if across else (0, index)
            x, y = room.x0 + column * (size + self._pad), room.y0 + row * (size + self._pad)
            self._draw_crop(canvas, face, stream, x, y, size, rgb)
            bottom = y + size
        shares = whole_shares(face.shares) if face.shares else ()
        if shares and self._bar:
            width = size * (len(streams) if across else 1) + self._pad * (len(streams) - 1 if across else 0)
            patch = self._cache.get(("shares", shares, width), lambda: self._shares(shares, max(width, 8)))
            canvas.paste(patch, room.x0, bottom + 2)

    def _draw_crop(self, canvas: Canvas, face: FaceView, stream: str, x: int, y: int, size: int, rgb: Rgb) -> None:
        """The gray crop the network saw, enlarged, its heat over it, in a frame of the track's colour."""
        crop = cv2.resize(face.crops[stream], (size, size), interpolation=cv2.INTER_CUBIC)
        planes = canvas.planes
        if not self._space.full_range:
            crop = cv2.convertScaleAbs(crop, alpha=219 / 255, beta=16)
        planes.y[y : y + size, x : x + size] = crop
        for plane in (planes.u, planes.v):
            plane[y // 2 : (y + size) // 2, x // 2 : (x + size) // 2] = 128
        region = Rect(0, 0, size, size)
        patch = self._heat.patch(face.heat.get(stream), np.array([0, 0, size, size]), region, face.p)
        if patch is not None:
            canvas.paste(patch, x, y)
        if self._style.text:
            text = f" {stream} "
            label = self._cache.get(("stream", text), lambda: self._line(text, self._small, PAPER, 0.7))
            canvas.paste(label, x, y + size - label.y.shape[0])

    def _header(self, face: FaceView, rgb: Rgb, width: int) -> Patch:
        sheet = Sheet(even(width), self._head)
        sheet.rect(0, 2, max(even(self._style.label * 0.3), 2), self._head - 2, rgb)
        x = max(even(self._style.label * 0.3), 2) + 4
        word = "speaking" if face.speaking else "silent"
        for text in (f"#{face.track_id}  {percent(face.p)}  {word}", f"#{face.track_id} {percent(face.p)}"):
            if self._title.width("● " + text) <= width - x:
                break
        sheet.text(self._title, "● " if face.speaking else "○ ", x, 0, rgb)
        sheet.text(self._title, text, x + self._title.width("● "), 0, PAPER if face.speaking else MUTED)
        return Patch.from_rgba(sheet.rgba(), self._space)

    def _shares(self, shares: tuple[tuple[str, int], ...], width: int) -> Patch:
        sheet = Sheet(even(width), self._bar)
        draw_shares(sheet, Rect(0, 0, sheet.width, self._bar), shares, self._small)
        return Patch.from_rgba(sheet.rgba(), self._space)

    def _line(self, text: str, typeface: Typeface, rgb: Rgb, ground: float = 0.0) -> Patch:
        text = typeface.shorten(text, self._area.width - 2 * self._pad) or "…"
        sheet = Sheet(even(typeface.width(text) + 1), even(typeface.height + 1))
        if ground:
            sheet.rect(0, 0, sheet.width, sheet.height, INK, ground)
        sheet.text(typeface, text, 0, 0, rgb)
        return Patch.from_rgba(sheet.rgba(), self._space)


def most_at_once(scene: Scene) -> int:
    """How many tracks the scene has at one time at most."""
    events = [(float(t.times_s[0]), 1) for t in scene.tracks if len(t.times_s)]
    events += [(float(t.times_s[-1]) + 1e-9, -1) for t in scene.tracks if len(t.times_s)]
    return int(max(np.cumsum([step for _, step in sorted(events)]), default=0))


def _arrange(room: Rect, count: int, pad: int) -> tuple[bool, int]:
    """Whether `count` square crops go side by side, and their even size: whichever way makes them larger."""
    beside = min((room.width - pad * (count - 1)) // count, room.height)
    stacked = min(room.width, (room.height - pad * (count - 1)) // count)
    size = max(beside, stacked)
    return beside >= stacked, max(size - size % 2, 0)
