"""What is drawn on each source frame, from what was found on the grid."""

from __future__ import annotations

import numpy as np

from asd_explain.explain.geometry import upsample
from asd_explain.media.frame import Frame
from asd_explain.render import FaceView
from asd_explain.results import Result, TrackResult
from asd_explain.tracks.crops import BODY_GEOMETRY, crop, crop_window


class Views:
    """What is drawn on each source frame.

    Args:
        result: the explained clip.
        streams: visual streams whose heat is drawn.
        geometry: crop geometry of the face stream.
        cells: (stride, offset) in crop pixels of the maps' cells.
        with_crops: whether the panel needs the crops.
        with_bodies: whether body boxes are drawn even where no heat belongs to them.
    """

    def __init__(
        self,
        result: Result,
        streams: tuple[str, ...],
        geometry: str,
        cells: tuple[float, float],
        *,
        with_crops: bool,
        with_bodies: bool,
    ) -> None:
        self._result, self._streams, self._geometry = result, streams, geometry
        self._cells, self._with_crops, self._with_bodies = cells, with_crops, with_bodies
        self._rows: dict[int, list[tuple[TrackResult, int]]] = {}
        for item in result.tracks:
            for row, frame in enumerate(item.track.frames):
                self._rows.setdefault(int(frame), []).append((item, row))
        self._grids = {item.track.track_id: item.grid.grid_of_source for item in result.tracks}

    def of(self, frame: Frame) -> list[FaceView]:
        """The faces of one frame."""
        return [self._view(frame, item, row) for item, row in self._rows.get(frame.index, [])]

    def _view(self, frame: Frame, item: TrackResult, row: int) -> FaceView:
        track, on_grid = item.track, self._grids[item.track.track_id][row]
        box = track.boxes[row]
        body = track.bodies[row] if self._with_bodies and track.bodies is not None else None
        windows, crops, heat = {}, {}, {}
        for stream, values in item.smoothed_heat.items():
            if stream not in self._streams:
                continue
            if stream == "body":
                body = track.bodies[row]
            source_box = body if stream == "body" else box
            geometry = BODY_GEOMETRY if stream == "body" else self._geometry
            windows[stream] = crop_window(source_box, geometry)
            heat[stream] = self._scaled(values[on_grid], item.heat_scale[stream])
            if self._with_crops:
                crops[stream] = crop(frame.luma(), source_box, geometry)
        p = float(item.p_speaking[row])
        shares = dict(zip(item.scores.streams, item.scores.shares[on_grid].tolist(), strict=True))
        return FaceView(
            track_id=track.track_id,
            box=box,
            body=body,
            p=p,
            speaking=p >= self._result.threshold,
            interpolated=bool(track.interpolated[row]),
            heat=heat,
            windows=windows,
            shares=shares,
            crops=crops,
        )

    def _scaled(self, heat: np.ndarray, scale: float) -> np.ndarray | None:
        if scale <= 0 or not np.isfinite(heat).all():
            return None
        return upsample(np.clip(heat / scale, 0, 1), *self._cells)
