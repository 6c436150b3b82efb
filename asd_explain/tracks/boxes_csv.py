"""Boxes from an AVA-ActiveSpeaker or WASD csv instead of a detector.

Dialects read: the eight original columns without a header (video_id, frame_timestamp, entity_box_x1, y1, x2, y2,
label, entity_id); the same with a header line, in any order and with further columns (TalkNet's ``*_orig.csv`` with
label_id and instance_id, prediction files with score, this package's own ``scores.csv``). WASD's body files look the
same, their box being the body. Boxes are shares of the frame's width and height.

Timestamps are seconds on the container's clock of the clip at hand, as in the published data sets; labels are not read.
"""

from __future__ import annotations

import csv
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asd_explain.ava_format import COLUMNS
from asd_explain.errors import BoxesError
from asd_explain.tracks.crops import body_box
from asd_explain.tracks.detect import Detections
from asd_explain.tracks.track import FrameTracks, TrackedFace

if TYPE_CHECKING:
    from asd_explain.media.probing import ClipInfo

_NEEDED = tuple(name for name in COLUMNS if name != "label")
_SLACK = 0.05  # annotators' boxes may reach this share of the frame past its border; they are clipped
_LEAST_SIDE = 1e-4  # of the frame: a fraction of a pixel, which float32 still tells from nothing
_CLOCK_S = 1e-6


@dataclass(frozen=True)
class EntityBoxes:
    """Every box of one entity in one clip.

    Attributes:
        entity_id: the csv's name for the person.
        times_s: (n,) float64 seconds on the container's clock, strictly increasing.
        boxes: (n, 4) float32 x1 y1 x2 y2 in pixels of the upright frame, inside it.
    """

    entity_id: str
    times_s: np.ndarray
    boxes: np.ndarray


def read_boxes(path: Path | str, info: ClipInfo) -> dict[str, EntityBoxes]:
    """Read the boxes that a csv holds for one clip.

    A row belongs to the clip when its video_id is the clip's file name, with or without the suffix.

    Args:
        path: the csv.
        info: the clip.

    Returns:
        One entry an entity, in order of first appearance (time, then place in the file).

    Raises:
        BoxesError: missing, empty or malformed file; no row for this clip; a box that is not finite, has no area or
            lies outside the frame; two boxes of one entity at one time; no timestamp within the clip.
    """
    path = Path(path)
    rows = _rows_of_clip(path, info)
    start_s = info.start_s
    end_s = math.inf if info.duration_s is None else start_s + info.duration_s
    half_s = 0.5 / float(info.fps)
    stamps = np.array([values[0] for _, values, _ in rows])
    if not ((stamps >= start_s - half_s) & (stamps <= end_s + half_s)).any():
        raise BoxesError(
            f"{path}: its timestamps ({stamps.min():.2f} to {stamps.max():.2f} s) do not overlap {info.path.name} "
            f"({start_s:.2f} to {end_s:.2f} s); write them on the clip's own clock"
        )
    by_entity: dict[str, list[tuple[float, list[float], int]]] = {}
    for line, values, entity in sorted(rows, key=lambda row: (row[1][0], row[0])):
        by_entity.setdefault(entity, []).append((values[0], values[1:], line))
    scale = np.array([info.width, info.height, info.width, info.height])
    result = {}
    for entity, items in by_entity.items():
        for (before_s, _, _), (time_s, _, line) in itertools.pairwise(items):
            if time_s - before_s < _CLOCK_S:
                raise BoxesError(f"{path}, line {line}: a second box of {entity} at {time_s:g} s; keep one")
        boxes = np.clip(np.array([box for _, box, _ in items]), 0, 1) * scale
        result[entity] = EntityBoxes(entity, np.array([time for time, _, _ in items]), boxes.astype(np.float32))
    return result


def _rows_of_clip(path: Path, info: ClipInfo) -> list[tuple[int, list[float], str]]:
    """(line number, [time, x1, y1, x2, y2], entity) of every row that belongs to the clip, checked."""
    if not path.is_file():
        raise BoxesError(f"{path}: no such boxes csv" if not path.exists() else f"{path} is not a file")
    wanted = {info.path.stem, info.path.name}
    rows: list[tuple[int, list[float], str]] = []
    others: dict[str, None] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = None
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if columns is None:
                    columns, is_header = _columns(path, cells)
                    if is_header:
                        continue
                if len(cells) <= max(columns):
                    raise BoxesError(
                        f"{path}, line {reader.line_num}: {len(cells)} columns where {max(columns) + 1} or more "
                        f"are needed ({', '.join(COLUMNS)})"
                    )
                video, *numbers, entity = (cells[column].strip() for column in columns)
                if video in wanted:
                    values = _numbers(f"{path}, line {reader.line_num}", numbers)
                    rows.append((reader.line_num, values, entity))
                elif len(others) < 5:
                    others.setdefault(video)
    except OSError as error:
        raise BoxesError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BoxesError(f"{path} is not a csv text file ({error})") from error
    if columns is None:
        raise BoxesError(f"{path} is empty; expected rows of {', '.join(COLUMNS)}")
    if not rows:
        held = f"it holds {', '.join(others)}" if others else "it holds none at all"
        raise BoxesError(f"{path} has no row with video_id {info.path.stem}; {held}")
    return rows


def _columns(path: Path, cells: list[str]) -> tuple[list[int], bool]:
    """Where the needed columns stand, and whether ``cells``, the first row, is a header."""
    names = [cell.strip().lower() for cell in cells]
    if "video_id" in names or "frame_timestamp" in names:
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            raise BoxesError(f"{path}: its header lacks {', '.join(missing)}; expected {', '.join(COLUMNS)}")
        return [names.index(name) for name in _NEEDED], True
    if len(cells) < len(COLUMNS):
        raise BoxesError(f"{path}: {len(cells)} columns; expected {len(COLUMNS)} ({', '.join(COLUMNS)})")
    return [COLUMNS.index(name) for name in _NEEDED], False


def _numbers(where: str, cells: list[str]) -> list[float]:
    """[time, x1, y1, x2, y2] of one row, checked."""
    try:
        values = [float(cell) for cell in cells]
    except ValueError as error:
        raise BoxesError(f"{where}: time and box must be numbers, not {', '.join(cells)}") from error
    if not all(map(math.isfinite, values)):
        raise BoxesError(f"{where}: time and box must be finite, not {', '.join(cells)}")
    _, x1, y1, x2, y2 = values
    if max(values[1:]) > 1 + _SLACK or min(values[1:]) < -_SLACK:
        hint = "; are these pixels? Divide by the frame's width and height" if max(values[1:]) > 2 else ""
        raise BoxesError(f"{where}: box {x1:g} {y1:g} {x2:g} {y2:g} leaves the frame (0 to 1){hint}")
    x1, y1, x2, y2 = (min(1.0, max(0.0, v)) for v in values[1:])
    if x2 - x1 < _LEAST_SIDE or y2 - y1 < _LEAST_SIDE:
        raise BoxesError(f"{where}: box {', '.join(cells[1:])} has no area; x1 < x2 and y1 < y2 are needed")
    return values


class _Lookup:
    """The box of one entity at any time."""

    def __init__(self, entity: EntityBoxes, gap_s: float, near_s: float) -> None:
        self._times, self._boxes = entity.times_s, entity.boxes.astype(np.float64)
        self._gap_s, self._near_s = gap_s, near_s
        # Rows further apart than a bridgeable gap belong to different stretches.
        self._stretch = np.concatenate([[0], np.cumsum(np.diff(entity.times_s) > gap_s + _CLOCK_S)])

    def at(self, time_s: float) -> tuple[np.ndarray, bool, int] | None:
        """(4,) float32 box in px, whether it was interpolated, and the number of its stretch; None when absent."""
        right = int(np.searchsorted(self._times, time_s))
        left = right - 1
        near = [i for i in (left, right) if 0 <= i < len(self._times)]
        nearest = min(near, key=lambda i: abs(self._times[i] - time_s))
        if abs(self._times[nearest] - time_s) <= self._near_s + _CLOCK_S:
            return self._boxes[nearest].astype(np.float32), False, int(self._stretch[nearest])
        if len(near) < 2 or self._stretch[left] != self._stretch[right]:
            return None
        share = (time_s - self._times[left]) / (self._times[right] - self._times[left])
        box = self._boxes[left] + share * (self._boxes[right] - self._boxes[left])
        return box.astype(np.float32), True, int(self._stretch[left])


class CsvTracker:
    """Tracks from a csv, with the interface of ``FaceTracker`` and no delay.

    A frame within half a frame period of a row shows that row's box; a frame between two rows no further apart than
    ``gap_s`` shows a straight line between them, marked ``interpolated``. An entity that is away for longer comes back
    as a new track, for a track has a box in each of its frames; so does one whose rows go on across a shot cut. Boxes
    are taken as they are, without smoothing.

    Args:
        face_csv: the faces.
        body_csv: the bodies, matched by entity id; where an entity has none, its body is derived from the face. None
            leaves bodies out.
        info: the clip.
        gap_s: longest gap between two rows that is bridged, in seconds.

    Attributes:
        entity_ids: the csv's entity_id for every track id; complete once the last frame has been pushed. Ids count up
            in order of first appearance.
        delay_s: 0, frames come out at once.

    Raises:
        BoxesError: see ``read_boxes``.
    """

    delay_s = 0.0

    def __init__(
        self, face_csv: Path | str, body_csv: Path | str | None, info: ClipInfo, *, gap_s: float = 0.4
    ) -> None:
        near_s = 0.5 / float(info.fps)
        faces = read_boxes(face_csv, info)
        bodies = {} if body_csv is None else read_boxes(body_csv, info)
        if body_csv is not None and not faces.keys() & bodies.keys():
            raise BoxesError(f"{body_csv}: none of its entities is in {face_csv}; bodies are matched by entity_id")
        self._faces = {name: _Lookup(entity, gap_s, near_s) for name, entity in faces.items()}
        self._bodies = {name: _Lookup(entity, gap_s, near_s) for name, entity in bodies.items()}
        self._with_bodies = body_csv is not None
        self._width, self._height = info.width, info.height
        self._shot = 0
        self._ids: dict[tuple[str, int, int], int] = {}
        self.entity_ids: dict[int, str] = {}

    def push(
        self, index: int, time_s: float, detections: Detections | None = None, cut: bool = False
    ) -> list[FrameTracks]:
        """Take the next source frame, with which a new shot begins when ``cut``. Returns that one frame.

        ``detections`` are not looked at.
        """
        self._shot += cut
        faces = []
        for entity, lookup in self._faces.items():
            found = lookup.at(time_s)
            if found is None:
                continue
            box, interpolated, stretch = found
            track_id = self._ids.setdefault((entity, stretch, self._shot), len(self._ids) + 1)
            self.entity_ids[track_id] = entity
            body = self._body(entity, box, time_s) if self._with_bodies else None
            faces.append(TrackedFace(track_id, box, 1.0, interpolated, body=body))
        return [FrameTracks(index, time_s, tuple(sorted(faces, key=lambda face: face.track_id)))]

    def _body(self, entity: str, face: np.ndarray, time_s: float) -> np.ndarray:
        found = self._bodies[entity].at(time_s) if entity in self._bodies else None
        return body_box(face, self._width, self._height) if found is None else found[0]

    def flush(self) -> list[FrameTracks]:
        """Nothing is held back."""
        return []
