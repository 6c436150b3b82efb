"""What is known of the people in a clip, and which of its face tracks they are.

Labels come from a csv in AVA's format, labels and the place of the mouth from the table beside a generated clip
(:mod:`asd_explain.datasets.talking_truth`) or from the scene that it was made of. Tracks come from a detector, whose
ids and boxes are its own: both are brought together by the overlap of boxes.
"""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asd_explain.ava_format import COLUMNS
from asd_explain.datasets.talking_photos import Camera, frame_times, perform
from asd_explain.datasets.talking_scene import Scene
from asd_explain.datasets.talking_truth import LABELS
from asd_explain.errors import BoxesError
from asd_explain.grid import nearest
from asd_explain.media.probing import ClipInfo
from asd_explain.tracks.boxes_csv import read_boxes

log = logging.getLogger(__name__)

#: A label counts for a picture at most so far from it, seconds: one frame and a half at 25 a second.
NEAR_S = 0.06
#: Two boxes are of the same face from this intersection over union on; detectors and annotators draw faces differently.
LEAST_IOU = 0.3
_AUDIBLE = LABELS.index("SPEAKING_AUDIBLE")


@dataclass(frozen=True)
class KnownPerson:
    """What is known of one person.

    Attributes:
        times_s: (n,) seconds from the clip's first frame, increasing.
        boxes: (n, 4) face boxes, px.
        speaking: (n,) 1 speaking and heard, 0 not.
        mouths: (n, 4) boxes of the lips, px; None where they are not known.
    """

    times_s: np.ndarray
    boxes: np.ndarray
    speaking: np.ndarray
    mouths: np.ndarray | None = None


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union, 0..1, of boxes (..., 4) xyxy that have an area, pair by pair."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    shared = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(-1)
    return shared / ((a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared)


def match_people(
    times_s: np.ndarray, boxes: np.ndarray, people: Sequence[KnownPerson]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Find out who a face track is, picture by picture.

    In each picture it is the person whose box overlaps the face's most, at least by ``LEAST_IOU``; of each person the
    box nearest in time counts, if it is at most ``NEAR_S`` away.

    Args:
        times_s: (T,) times of the pictures, seconds from the clip's first frame.
        boxes: (T, 4) px.
        people: those who may be seen.

    Returns:
        (truth (T,) float32 of 1, 0 and NaN for unknown, mouths (T, 4) float32 px, NaN where unknown); None for either
        of which nothing is known in any picture.
    """
    truth = np.full(len(times_s), np.nan, np.float32)
    mouths = np.full((len(times_s), 4), np.nan, np.float32)
    best = np.full(len(times_s), LEAST_IOU)
    for person in people:
        row = nearest(person.times_s, times_s)
        overlap = iou(boxes, person.boxes[row])
        taken = (np.abs(person.times_s[row] - times_s) <= NEAR_S + 1e-6) & (overlap >= best)
        best[taken] = overlap[taken]
        truth[taken] = person.speaking[row[taken]]
        mouths[taken] = np.nan if person.mouths is None else person.mouths[row[taken]]
    return (None if np.isnan(truth).all() else truth), (None if np.isnan(mouths).all() else mouths)


def read_mouths(path: Path) -> list[KnownPerson]:
    """People of a generated clip from its table, see :func:`asd_explain.datasets.talking_truth.write_tables`.

    Raises:
        BoxesError: unreadable or malformed.
    """
    corners = ("x1", "y1", "x2", "y2")
    people: dict[str, list[tuple]] = {}
    line = 1
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            for row in reader:
                line = reader.line_num
                face, mouth = ([float(row[f"{part}_{c}"]) for c in corners] for part in ("face", "mouth"))
                speaking = LABELS.index(row["label"]) == _AUDIBLE
                people.setdefault(row["person"], []).append((float(row["time_s"]), face, speaking, mouth))
    except OSError as error:
        raise BoxesError(f"{path} cannot be read: {error.strerror or error}") from error
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise BoxesError(
            f"{path}, line {line}: not the table of mouths of a generated clip ({error}); make it anew or rename it"
        ) from error
    return [KnownPerson(*(np.array(column) for column in zip(*rows, strict=True))) for rows in people.values()]


def read_labels(path: Path, info: ClipInfo) -> list[KnownPerson]:
    """People of a clip from a csv in AVA's format; none, with a warning, where it has no row for the clip.

    Raises:
        BoxesError: as :func:`asd_explain.tracks.boxes_csv.read_boxes`; or a label is missing, or none of AVA's.
    """
    path, names = Path(path), {info.path.stem, info.path.name}
    speaking: dict[tuple[str, float], bool] = {}
    columns: dict[str, int] | None = None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                cells = [cell.strip() for cell in row]
                if not any(cells):
                    continue
                if columns is None:
                    header = [cell.lower() for cell in cells]
                    headed = "video_id" in header
                    columns = {name: i for i, name in enumerate(header if headed else COLUMNS)}
                    if missing := [name for name in COLUMNS if name not in columns]:
                        raise BoxesError(f"{path}: no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
                    if headed:
                        continue
                where = f"{path}, line {reader.line_num}"
                if len(cells) <= max(columns[name] for name in COLUMNS):
                    raise BoxesError(f"{where}: {len(cells)} columns; expected {', '.join(COLUMNS)}")
                if cells[columns["video_id"]] not in names:
                    continue
                label, entity = cells[columns["label"]], cells[columns["entity_id"]]
                if label not in LABELS:
                    raise BoxesError(f"{where}: label {label!r}; expected {', '.join(LABELS)}")
                speaking[entity, _seconds(cells[columns["frame_timestamp"]])] = LABELS.index(label) == _AUDIBLE
    except OSError as error:
        raise BoxesError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BoxesError(f"{path} is not a csv text file ({error})") from error
    if columns is not None and not speaking:
        log.warning("%s has no row with video_id %s: the clip has no labels", path, info.path.stem)
        return []
    return [
        KnownPerson(
            times_s=known.times_s - info.start_s,
            boxes=known.boxes,
            speaking=np.array([speaking[entity, float(time_s)] for time_s in known.times_s]),
        )
        for entity, known in read_boxes(path, info).items()
    ]


def _seconds(cell: str) -> float:
    """NaN for what is no number: :func:`read_boxes`, which reads the file as well, names the line."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


class ScenePoints:
    """Where mouths and landmarks are in a generated scene, from its poses alone; no picture is drawn.

    Args:
        scene: the scene.

    Raises:
        AsdExplainError: the ``demo`` extra, which gives the scene its voices and so its motion, is not installed.
    """

    def __init__(self, scene: Scene) -> None:
        self._camera = Camera(scene, perform(scene))
        stamps, unit = frame_times(scene)
        self._times_s = np.array([float(stamp * unit) for stamp in stamps])
        self._shot = np.array([self._camera.shot_at(time_s) for time_s in self._times_s])

    def of(self, shot: int, person: int, grid_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One person in one shot, as :func:`asd_explain.datasets.talking_tracks.render_clips` shows them.

        Args:
            shot, person: numbers in the scene.
            grid_s: (T,) times in seconds; shown is the shot's frame nearest to each.

        Returns:
            (mouths (T, 4) float32 px, clipped to the person's panel, landmarks (T, 5, 2) float32 px).
        """
        inside = np.flatnonzero(self._shot == shot)
        source = inside[nearest(self._times_s[inside], grid_s)]
        rows, where = np.unique(source, return_inverse=True)
        panel, face = next((box, face) for who, box, face in self._camera.faces(shot) if who == person)
        corner, low, high = np.array(panel[:2], np.float32), np.tile(panel[:2], 2), np.tile(panel[2:], 2)
        mouths, landmarks = [], []
        for row in rows:
            pose = self._camera.pose(person, self._times_s[row])
            mouths.append(np.clip(face.mouth_box(pose) + np.tile(corner, 2), low, high))
            landmarks.append(face.landmarks(pose) + corner)
        return np.stack(mouths).astype(np.float32)[where], np.stack(landmarks).astype(np.float32)[where]
