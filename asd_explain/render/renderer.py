"""The renderer: one call a frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from asd_explain.errors import OptionError
from asd_explain.render.canvas import Canvas, Patch
from asd_explain.render.colours import INK, ColourSpace, assign_colours
from asd_explain.render.overlay import FaceArtist
from asd_explain.render.panel import Panel, column_width
from asd_explain.render.placement import Rect
from asd_explain.render.scene import FaceView, Scene, YuvPlanes
from asd_explain.render.style import Style
from asd_explain.render.text import Typeface
from asd_explain.render.timeline import MAX_PART, Band, draw_notes

LAYOUTS = ("overlay", "panel")


class Renderer:
    """Draws a clip's explanation frame by frame; keeps nothing between frames but caches and where labels were.

    `overlay` draws on the picture itself, timeline and legend on a dark band inside it. `panel` adds a column with the
    enlarged crops on the right and puts the band below the picture, so that nothing of the picture is covered by it.

    Args:
        scene: what stays the same over the clip.
        layout: "overlay" or "panel".

    Attributes:
        output_size: (width, height) in pixels of what `draw` returns, both even.

    Raises:
        OptionError: for an unknown layout.
    """

    def __init__(self, scene: Scene, layout: str = "overlay") -> None:
        if layout not in LAYOUTS:
            raise OptionError(f"unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
        self._scene = scene
        self._layout = layout
        self._width, self._height = (size + size % 2 for size in (scene.width, scene.height))
        self._style = Style.of(self._width, self._height)
        self._colours = assign_colours(scene.tracks)
        self._space: ColourSpace | None = None
        column = column_width(self._width, self._height) if layout == "panel" else 0
        band = self._make_band(ColourSpace("bt601", False), self._width + column)
        self.output_size = (self._width + column, self._height + (band.height if layout == "panel" else 0))

    def draw(self, planes: YuvPlanes, time_s: float, faces: Sequence[FaceView]) -> YuvPlanes:
        """Draw one frame.

        Args:
            planes: the frame; drawn on in place (in the panel layout it is copied into a larger picture).
            time_s: the frame's time in seconds, on the scene's clock.
            faces: the faces in this frame.

        Returns:
            The planes of `output_size`: in the overlay layout those passed in.

        Raises:
            ValueError: when the planes have another size than the scene.
        """
        if planes.y.shape != (self._height, self._width):
            raise ValueError(f"planes are {planes.y.shape[::-1]}, the scene is {(self._width, self._height)}")
        self._prepare(ColourSpace(planes.matrix, planes.full_range))
        if self._layout == "panel":
            planes = self._enlarged(planes)
        canvas = Canvas(planes)
        taken: list[Rect] = []
        if self._style.text:
            pad = 2 * self._style.gap
            taken += draw_notes(canvas, self._scene.notes, self._note_type, pad, self._width, self._notes)
        picture = Canvas(_part(planes, self._width, self._height)) if self._layout == "panel" else canvas
        self._artist.draw(picture, time_s, faces, taken)
        if self._panel is not None:
            self._panel.draw(canvas, time_s, faces)
        self._band.draw(canvas, canvas.height - self._band.height, time_s)
        return planes

    def _prepare(self, space: ColourSpace) -> None:
        """Make what depends on the planes' colour space, at the first frame and where it changes."""
        if space == self._space:
            return
        self._space = space
        width, height = self._width, self._height
        self._band = self._make_band(space, self.output_size[0])
        free = height if self._layout == "panel" else height - self._band.height
        self._artist = FaceArtist(self._style, self._colours, space, Rect(0, 0, width, free))
        self._note_type = Typeface(self._style.label, bold=True)
        self._notes: list[Patch] = []
        self._panel: Panel | None = None
        if self._layout == "panel":
            area = Rect(width, 0, self.output_size[0], height)
            self._panel = Panel(self._scene, self._style, self._colours, space, area)
        ground = space.to_yuv(np.array(INK, float))
        self._ground = tuple(round(float(value)) for value in ground)

    def _make_band(self, space: ColourSpace, width: int) -> Band:
        most = int(self._height * MAX_PART)
        if self._layout == "overlay":
            return Band(self._scene, self._style, self._colours, space, width, most)
        # below the picture it covers nothing, so that it may take what its text needs
        most = max(most, 10 * self._style.small)
        return Band(self._scene, self._style, self._colours, space, width, most, opacity=1.0)

    def _enlarged(self, planes: YuvPlanes) -> YuvPlanes:
        """The picture in the upper left corner of a larger one of plain dark ground."""
        width, height = self.output_size
        larger = []
        for plane, value, cell in zip((planes.y, planes.u, planes.v), self._ground, (1, 2, 2), strict=True):
            ground = np.full((height // cell, width // cell), value, np.uint8)
            ground[: plane.shape[0], : plane.shape[1]] = plane
            larger.append(ground)
        return dataclasses.replace(planes, y=larger[0], u=larger[1], v=larger[2])


def _part(planes: YuvPlanes, width: int, height: int) -> YuvPlanes:
    """The upper left part of the planes, sharing their memory."""
    return dataclasses.replace(
        planes,
        y=planes.y[:height, :width],
        u=planes.u[: height // 2, : width // 2],
        v=planes.v[: height // 2, : width // 2],
    )
