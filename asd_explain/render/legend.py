"""The legend: the heat's colour scale and what it means, the line styles, model and explainer, in one to six lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asd_explain.render.colours import MUTED, PAPER, STREAM_GREYS, Rgb, heat_lut, text_colour
from asd_explain.render.scene import Scene
from asd_explain.render.style import heat_name, heat_words, smoothing_words
from asd_explain.render.text import Sheet, Typeface


@dataclass(frozen=True)
class _Piece:
    """Something that is set in a line and not broken: its width in pixels and how to draw it at (x, y)."""

    width: int
    draw: Callable[[Sheet, int, int], None]


class Legend:
    """Sets the legend into a given width.

    Args:
        scene: what the legend speaks about.
        typeface: its type.
        width: width in pixels of the lines.
    """

    def __init__(self, scene: Scene, typeface: Typeface, width: int) -> None:
        self._scene = scene
        self._type = typeface
        self._width = width

    def lines(self, most: int) -> list[list[tuple[int, _Piece]]]:
        """The fullest wording that fits into `most` lines: for each line its (x, piece). Empty where none fits."""
        for wording in self._wordings():
            lines = self._set(wording)
            if len(lines) <= most:
                return lines
        return []

    def draw(self, sheet: Sheet, x: int, y: int, line_height: int, most: int) -> int:
        """Draw at most `most` lines at (x, y); returns how many were drawn."""
        lines = self.lines(most)
        for row, line in enumerate(lines):
            for offset, piece in line:
                piece.draw(sheet, x + offset, y + row * line_height)
        return len(lines)

    def _wordings(self) -> list[list[list[_Piece]]]:
        """Groups of pieces, from the fullest wording to the shortest."""
        scene = self._scene
        words = heat_words(scene.explainer)
        names = f"{scene.model} · {scene.explainer} · {smoothing_words(scene.smooth_s)}"
        faces = self._text("●", PAPER) + self._text("solid: speaking,") + self._text("○", PAPER)
        faces += self._text("dashed: silent, hollow corner: position interpolated")
        short_faces = self._text("●", PAPER) + self._text("solid: speaking") + self._text("○", PAPER)
        short_faces += self._text("dashed: silent")
        shares = self._text("bar: share of") + self._keys()
        full = [self._scale() + self._text(words[0]), faces, shares, self._text(names)]
        wordings = [full]
        wordings.append([self._scale() + self._text(words[min(1, len(words) - 1)]), short_faces, shares, full[3]])
        wordings.append([self._scale() + self._text(words[-1]), short_faces, self._text(names)])
        wordings.append([self._scale() + self._text(words[-1]), self._text(f"{scene.model} · {scene.explainer}")])
        wordings.append([self._scale() + self._text(words[-1])])
        wordings.append([self._scale()])
        return wordings

    def _text(self, text: str, rgb: Rgb = MUTED) -> list[_Piece]:
        return [self._word(word, rgb) for word in text.split()]

    def _word(self, word: str, rgb: Rgb) -> _Piece:
        word = self._type.shorten(word, self._width)
        return _Piece(self._type.width(word), lambda sheet, x, y: sheet.text(self._type, word, x, y, rgb))

    def _scale(self) -> list[_Piece]:
        """The colour scale between "low" and "high", as one piece."""
        typeface = self._type
        name, low, high = f"{heat_name(self._scene.explainer)}  low ", "", " high:"
        length = round(typeface.size * 4.5)
        before = typeface.width(name + low)

        def draw(sheet: Sheet, x: int, y: int) -> None:
            sheet.text(typeface, name + low, x, y, PAPER)
            top, bottom = y + round(typeface.size * 0.28), y + round(typeface.size * 1.0)
            lut = heat_lut()
            for step in range(length):
                rgb = tuple(int(value) for value in lut[round(step / max(length - 1, 1) * 255)])
                sheet.rect(x + before + step, top, x + before + step + 1, bottom, rgb)
            sheet.text(typeface, high, x + before + length, y, PAPER)

        return [_Piece(before + length + typeface.width(high), draw)]

    def _keys(self) -> list[_Piece]:
        """A swatch and a name for each stream of the share bars."""
        typeface = self._type
        pieces = []
        for stream, rgb in STREAM_GREYS.items():
            side = round(typeface.size * 1.0)

            def draw(sheet: Sheet, x: int, y: int, stream: str = stream, rgb: Rgb = rgb, side: int = side) -> None:
                top = y + round(typeface.size * 0.14)
                sheet.rect(x, top, x + side, top + side, rgb)
                letter = stream[0].upper()
                sheet.text(typeface, letter, x + (side - typeface.width(letter) + 1) // 2, y, text_colour(rgb))
                sheet.text(typeface, stream, x + side + 3, y, MUTED)

            pieces.append(_Piece(side + 3 + typeface.width(stream), draw))
        return pieces

    def _set(self, groups: list[list[_Piece]]) -> list[list[tuple[int, _Piece]]]:
        """Break the groups into lines; groups stand further apart than words."""
        space = max(self._type.width(" "), 2)
        lines: list[list[tuple[int, _Piece]]] = [[]]
        x = 0
        for group in groups:
            x += 4 * space if lines[-1] else 0
            rest = int(np.sum([piece.width for piece in group])) + space * (len(group) - 1)
            if lines[-1] and x + rest > self._width and rest <= self._width:
                lines.append([])  # a group that fits one line is not broken
                x = 0
            for piece in group:
                if lines[-1] and x + piece.width > self._width:
                    lines.append([])
                    x = 0
                lines[-1].append((x, piece))
                x += piece.width + space
            x -= space
        return lines
