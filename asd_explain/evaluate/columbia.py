"""F1 of each person on the Columbia data set, by the protocol of the published demos (``evaluate_col_ASD``).

Labels are a text file a person (``bell.txt``, ... in ``col_labels/fusion``), tab separated: frame at 29.97 a second,
left, top and width of a square around the face in pixels of the labels' picture, 1 speaking or 0. A label's frame n
becomes frame int(n / 29.97 * 25) at 25 a second. Predicted boxes become the square of their larger side about their
centre, are cut to whole pixels and halved (the video is taken to be twice the labels' picture). A face is the labelled
one where intersection over the predicted box's area exceeds 0.5; of several the largest counts, then the higher score.
Where there is none the person is predicted silent. A score above 0 is speech. The figure quoted is the mean F1 of five
people; abbas stays out of it.

Here predictions come from a csv in AVA format: boxes are shares of the frame, times are seconds, and a row belongs to
the 25-per-second frame nearest to it (of several rows of an entity, the nearest in time). The published demos smooth
boxes and scores over time before this point; that is the predictor's affair.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from asd_explain.errors import OptionError
from asd_explain.evaluate.ava_csv import Rows
from asd_explain.evaluate.csv_table import CsvError, read_lines

PEOPLE = ("bell", "boll", "lieb", "long", "sick")
#: Labelled too, left out of the mean.
OUTSIDE = ("abbas",)
LABEL_FPS = 29.97
FPS = 25.0
FRAME_SIZE = (1280, 720)
BOX_SCALE = 0.5
LEAST_OVERLAP = 0.5
_MOST = 10**9  # what frame numbers and pixels never reach


@dataclass(frozen=True)
class Labels:
    """The labels of one person.

    Attributes:
        frames: (L,) int64, as in the file.
        boxes: (L, 4) float64 x1 y1 x2 y2 in pixels of the labels' picture.
        speaking: (L,) bool.
    """

    frames: np.ndarray
    boxes: np.ndarray
    speaking: np.ndarray


def read_labels(folder: Path | str) -> dict[str, Labels]:
    """{person: labels} of a folder of text files; abbas may be absent.

    Raises:
        CsvError: no such folder, a person's file missing or empty, a line that is not five whole numbers.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CsvError(f"{folder} is not a folder; give the one that holds bell.txt (col_labels/fusion)")
    if missing := [f"{name}.txt" for name in PEOPLE if not (folder / f"{name}.txt").is_file()]:
        raise CsvError(f"{folder} lacks {', '.join(missing)}; give the folder that holds them (col_labels/fusion)")
    there = [name for name in (*PEOPLE, *OUTSIDE) if (folder / f"{name}.txt").is_file()]
    return {name: _read_person(folder / f"{name}.txt") for name in there}


def _read_person(path: Path) -> Labels:
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        cells = line.split("\t")
        try:
            frame, x, y, width, speaking = map(int, cells[:5])
        except ValueError:
            raise CsvError(
                f"{path}, line {number}: five whole numbers between tabs are needed (frame, x, y, width, 0 or 1)"
            ) from None
        if frame < 0 or width <= 0 or speaking not in (0, 1) or max(frame, abs(x), abs(y), width) > _MOST:
            raise CsvError(f"{path}, line {number}: frame >= 0, width > 0 and a last number 0 or 1 are needed")
        rows.append((frame, x, y, x + width, y + width, speaking))
    if not rows:
        raise CsvError(f"{path} is empty; expected lines of frame, x, y, width, 0 or 1")
    table = np.array(rows, np.int64)
    return Labels(table[:, 0], table[:, 1:5].astype(np.float64), table[:, 5] == 1)


@dataclass(frozen=True)
class Faces:
    """Predicted faces on the labels' picture.

    Attributes:
        frames: (N,) int64 at ``FPS``.
        boxes: (N, 4) float64 x1 y1 x2 y2 in pixels of the labels' picture.
        scores: (N,).
    """

    frames: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


def faces_of(
    rows: Rows,
    *,
    frame_size: tuple[int, int] | None = FRAME_SIZE,
    box_scale: float = BOX_SCALE,
    fps: float = FPS,
) -> Faces:
    """Predictions as the protocol wants them; see the module's text.

    Args:
        rows: of a csv of predictions.
        frame_size: width and height in pixels of the video whose shares the boxes are; None: they are pixels already.
        box_scale: labels' picture over the video's.
        fps: of the frames that labels are mapped to.

    Raises:
        CsvError: boxes that cannot be meant like this, or without area.
        OptionError: a scale, size or rate that is not positive and finite.
    """
    if not (0 < box_scale < math.inf and 0 < fps < math.inf and (frame_size is None or min(frame_size) > 0)):
        raise OptionError("--box-scale, --fps and --frame-size must be positive and finite")
    largest = float(rows.boxes.max())
    if frame_size is not None and largest > 2:
        raise CsvError(f"{rows.table.path}: boxes reach {largest:g}; these are pixels: add --pixels")
    if frame_size is None and largest <= 2:
        raise CsvError(f"{rows.table.path}: boxes reach {largest:g} only; these are shares: leave --pixels out")
    sides = rows.boxes[:, 2:] - rows.boxes[:, :2]
    if (sides <= 0).any():
        row = int(np.flatnonzero((sides <= 0).any(axis=1))[0])
        raise CsvError(f"{rows.table.where(row)}: a box without area; x1 < x2 and y1 < y2 are needed")
    frames = np.rint(rows.times_s * fps).astype(np.int64)
    away = np.abs(rows.times_s * fps - frames)
    order = np.lexsort((away, rows.entities.codes, frames))
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(frames[order]) != 0) | (np.diff(rows.entities.codes[order]) != 0)
    kept = np.sort(order[first])
    size = np.ones(2) if frame_size is None else np.array(frame_size, np.float64)
    boxes = rows.boxes[kept].reshape(-1, 2, 2) * size
    centre, half = boxes.mean(axis=1), (boxes[:, 1] - boxes[:, 0]).max(axis=1, keepdims=True) / 2
    pixels = np.trunc(np.concatenate([centre - half, centre + half], axis=1))
    return Faces(frames[kept], np.floor(pixels * box_scale), rows.scores[kept])


def match_faces(
    frames: np.ndarray, boxes: np.ndarray, faces: Faces, least_overlap: float = LEAST_OVERLAP
) -> np.ndarray:
    """(L,) score of the face that is each label's, NaN where none is.

    Args:
        frames: (L,) int, of the labels, at the faces' rate.
        boxes: (L, 4) of the labels.
        faces: predicted.
        least_overlap: intersection over the predicted box's area must exceed it.
    """
    order = np.argsort(faces.frames, kind="stable")
    begins, ends = (np.searchsorted(faces.frames[order], frames, side) for side in ("left", "right"))
    counts = ends - begins
    label = np.repeat(np.arange(len(frames)), counts)
    face = order[np.arange(len(label)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(begins, counts)]
    a, b = boxes[label], faces.boxes[face]
    sides = np.maximum(0, np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]))
    area = np.prod(b[:, 2:] - b[:, :2], axis=1)
    overlap = np.divide(np.prod(sides, axis=1), area, out=np.zeros(len(area)), where=area > 0)
    fits = np.flatnonzero(overlap > least_overlap)
    best = fits[np.lexsort((faces.scores[face[fits]], overlap[fits], label[fits]))]
    scores = np.full(len(frames), np.nan)
    scores[label[best]] = faces.scores[face[best]]  # of several assignments to one label the last stays: the best
    return scores


@dataclass(frozen=True)
class PersonFigures:
    """Figures of one person, each in [0, 1], higher is better.

    Attributes:
        labels, speaking: how many labelled frames, and how many of them speak.
        found: share of the labels with a face of their own.
        precision, recall, f1: of speaking; None where not defined (``undefined`` says why f1 is not).
        accuracy: share of right decisions.
        undefined: why there is no f1, or None.
    """

    labels: int
    speaking: int
    found: float
    precision: float | None
    recall: float | None
    f1: float | None
    accuracy: float
    undefined: str | None = None


def person_figures(scores: np.ndarray, speaking: np.ndarray, threshold: float = 0.0) -> PersonFigures:
    """Figures of (L,) scores, NaN where no face was found, against (L,) bool; speech is a score above ``threshold``."""
    said = np.nan_to_num(scores, nan=-math.inf) > threshold
    hits, called, real = int((said & speaking).sum()), int(said.sum()), int(speaking.sum())
    return PersonFigures(
        labels=len(speaking),
        speaking=real,
        found=float(np.mean(~np.isnan(scores))),
        precision=hits / called if called else None,
        recall=hits / real if real else None,
        f1=2 * hits / (called + real) if real else None,
        accuracy=float(np.mean(said == speaking)),
        undefined=None if real else "no speaking label",
    )


@dataclass(frozen=True)
class ColumbiaFigures:
    """Figures on Columbia.

    Attributes:
        people: {person: figures}, abbas last where there are labels.
        mean_f1: over the five people without abbas; None where one of them has none.
        after_the_end: labels that lie after the last predicted frame, where faces count as missed.
    """

    people: dict[str, PersonFigures]
    mean_f1: float | None
    after_the_end: int

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "people": {name: asdict(f) for name, f in self.people.items()},
            "mean_f1": self.mean_f1,
            "labels_after_the_last_prediction": self.after_the_end,
        }


def columbia_figures(
    labels: dict[str, Labels],
    faces: Faces,
    *,
    threshold: float = 0.0,
    label_fps: float = LABEL_FPS,
    fps: float = FPS,
    least_overlap: float = LEAST_OVERLAP,
) -> ColumbiaFigures:
    """F1 of each person, and its mean; see the module's text.

    Args:
        labels: by person.
        faces: predicted, at ``fps``.
        threshold: speech is a score above it.
        label_fps: rate of the labels' frames.
        fps: rate of the faces' frames.
        least_overlap: see :func:`match_faces`.

    Raises:
        OptionError: a rate that is not positive, or a rate or threshold that is not finite.
    """
    if not (0 < label_fps < math.inf and 0 < fps < math.inf):
        raise OptionError("--label-fps and --fps must be positive and finite")
    if not math.isfinite(threshold):
        raise OptionError(f"--threshold {threshold} is no finite number; every score would fall on one side of it")
    people, late = {}, 0
    for name, found in labels.items():
        # As in the published code: divided first, and cut, not rounded.
        frames = (found.frames / label_fps * fps).astype(np.int64)
        late += int((frames > faces.frames.max()).sum())
        people[name] = person_figures(match_faces(frames, found.boxes, faces, least_overlap), found.speaking, threshold)
    values = [people[name].f1 for name in PEOPLE]
    mean = None if None in values else math.fsum(values) / len(values)
    return ColumbiaFigures(people, mean, late)
