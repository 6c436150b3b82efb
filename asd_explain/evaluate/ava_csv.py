"""Ground truth and predictions in the csv formats of AVA-ActiveSpeaker, and how the official evaluation joins them.

Read are the original file (eight columns, no header; predictions nine), and files with a header in any order with
further columns: TalkNet-style ``*_orig.csv`` (``label_id``, ``instance_id``), WASD's, this package's ``scores.csv``.

The rules are those of the official script (ActivityNet, ``get_ava_active_speaker_performance.py``): a row is known by
its time and entity, which occur once in a file; both files hold the same rows, in any order; their boxes agree to 1e-9;
predictions are all labelled SPEAKING_AUDIBLE and each has a score; SPEAKING_NOT_AUDIBLE counts as not speaking. Nothing
is ever pasted by position.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asd_explain.ava_format import COLUMNS, LABELS, SPEAKING
from asd_explain.evaluate.csv_table import CsvError, Table, Texts, read_table
from asd_explain.evaluate.detection import EvaluationError, average_precision

#: Boxes of the two files may differ by this much (shares of the frame), as in the official script.
BOX_TOLERANCE = 1e-9
_BOX = COLUMNS[2:6]
_NAMED = 3  # rows that a message names


@dataclass(frozen=True)
class Rows:
    """The rows of one csv in AVA format.

    Attributes:
        table: what was read, for messages.
        times_s: (N,) finite.
        boxes: (N, 4) x1 y1 x2 y2, finite; shares of the frame in the official files.
        videos, entities: who.
        speaking: (N,) bool, label SPEAKING_AUDIBLE; None for predictions.
        scores: (N,), finite or infinite; None for ground truth.
    """

    table: Table
    times_s: np.ndarray
    boxes: np.ndarray
    videos: Texts
    entities: Texts
    speaking: np.ndarray | None
    scores: np.ndarray | None

    def __len__(self) -> int:
        return len(self.times_s)

    def name(self, row: int) -> str:
        """Entity and time of a row, for messages."""
        return f"{self.entities[row]} at {self.times_s[row]:g} s"


def _rows(table: Table, speaking: np.ndarray | None, scores: np.ndarray | None) -> Rows:
    for name in ("frame_timestamp", *_BOX):
        if not np.isfinite(table.numbers[name]).all():
            row = int(np.flatnonzero(~np.isfinite(table.numbers[name]))[0])
            raise CsvError(f"{table.where(row)}: {name} is infinite; a finite number is needed")
    boxes = np.stack([table.numbers[name] for name in _BOX], axis=1)
    return Rows(
        table,
        table.numbers["frame_timestamp"],
        boxes,
        table.texts["video_id"],
        table.texts["entity_id"],
        speaking,
        scores,
    )


def read_truth(path: Path | str) -> Rows:
    """Read annotations. A ``label_id``, where the file has one, must agree with the label.

    Raises:
        CsvError: see :func:`~asd_explain.evaluate.csv_table.read_table`; an unknown label, or one that disagrees with
            its ``label_id``.
    """
    table = read_table(
        path,
        COLUMNS[1:6],
        ("video_id", "label", "entity_id"),
        optional_texts=("label_id",),
        without_header=COLUMNS,
    )
    labels = table.texts["label"]
    for code, name in enumerate(labels.names):
        if name not in LABELS:
            row = int(np.flatnonzero(labels.codes == code)[0])
            raise CsvError(f"{table.where(row)}: label {name!r}; expected {', '.join(LABELS)}")
    speaking = np.array([name == SPEAKING for name in labels.names])[labels.codes]
    if "label_id" in table.texts:
        ids = table.texts["label_id"]
        for code, name in enumerate(ids.names):
            if name not in ("0", "1", "2"):
                row = int(np.flatnonzero(ids.codes == code)[0])
                raise CsvError(f"{table.where(row)}: label_id {name!r}; expected 0, 1 (speaking audible) or 2")
        wrong = np.flatnonzero(np.array([name == "1" for name in ids.names])[ids.codes] != speaking)
        if len(wrong):
            row = int(wrong[0])
            raise CsvError(f"{table.where(row)}: label {labels[row]} but label_id {ids[row]}; they must agree")
    return _rows(table, speaking, None)


def read_predictions(path: Path | str, score_column: str = "score") -> Rows:
    """Read predictions: the same columns, every label SPEAKING_AUDIBLE, and a score.

    Args:
        path: the csv.
        score_column: where the score stands; in files without a header it is the ninth column.

    Raises:
        CsvError: see :func:`~asd_explain.evaluate.csv_table.read_table`; another label.
    """
    score_column = score_column.strip().lower()
    table = read_table(
        path,
        (*COLUMNS[1:6], score_column),
        ("video_id", "label", "entity_id"),
        without_header=(*COLUMNS, score_column),
    )
    labels = table.texts["label"]
    for code, name in enumerate(labels.names):
        if name != SPEAKING:
            row = int(np.flatnonzero(labels.codes == code)[0])
            raise CsvError(f"{table.where(row)}: label {name!r}; the label of predictions is always {SPEAKING}")
    return _rows(table, None, table.numbers[score_column])


def match(truth: Rows, predictions: Rows) -> np.ndarray:
    """(N,) which row of the predictions belongs to each row of the truth, by time and entity.

    Raises:
        CsvError: rows doubled in a file, rows that only one file has, boxes that differ.
    """
    number = {name: code for code, name in enumerate(truth.entities.names)}
    shared = np.array([number.setdefault(name, len(number)) for name in predictions.entities.names], np.int64)
    n = len(truth)
    entity = np.concatenate([truth.entities.codes, shared[predictions.entities.codes]])
    times = np.concatenate([truth.times_s, predictions.times_s])
    side = np.arange(len(entity)) >= n
    order = np.lexsort((side, times, entity))
    same = (np.diff(entity[order]) == 0) & (np.diff(times[order]) == 0)
    for rows, first in ((truth, 0), (predictions, n)):
        twice = same & (side[order[1:]] == side[order[:-1]]) & (side[order[1:]] == (first > 0))
        if twice.any():
            pairs = np.sort(np.stack([order[:-1], order[1:]])[:, twice] - first, axis=0)
            row = int(pairs[1].min())
            raise CsvError(f"{rows.table.where(row)}: a second row of {rows.name(row)}; keep one")
    paired = np.append(same, False) | np.insert(same, 0, False)
    if not paired.all():
        alone = np.sort(order[~paired])
        raise CsvError(_unpaired(truth, predictions, alone[alone < n], alone[alone >= n] - n))
    found = np.empty(n, np.int64)
    found[order[::2]] = order[1::2] - n
    apart = (np.abs(truth.boxes - predictions.boxes[found]) > BOX_TOLERANCE).any(axis=1)
    if apart.any():
        row = int(np.flatnonzero(apart)[0])
        raise CsvError(
            f"{predictions.table.where(found[row])}: another box of {truth.name(row)} than in {truth.table.where(row)} "
            f"({int(apart.sum())} such rows); boxes must agree to {BOX_TOLERANCE:g}"
        )
    return found


def _unpaired(truth: Rows, predictions: Rows, missing: np.ndarray, extra: np.ndarray) -> str:
    said = []
    for rows, alone, what in ((truth, missing, "prediction"), (predictions, extra, "annotation")):
        if len(alone):
            some = "; ".join(f"{rows.name(i)} (line {rows.table.lines[i]})" for i in alone[:_NAMED])
            more = "; ..." if len(alone) > _NAMED else ""
            said.append(f"no {what} for {len(alone)} of the {len(rows)} rows of {rows.table.path}: {some}{more}")
    return f"{' -- and '.join(said)}; both files must hold the same rows"


@dataclass(frozen=True)
class Matched:
    """Scores beside annotations, in the truth's order.

    Attributes:
        scores: (N,).
        labels: (N,) int, 1 = SPEAKING_AUDIBLE.
        videos, entities: of each row.
    """

    scores: np.ndarray
    labels: np.ndarray
    videos: Texts
    entities: Texts


def join(truth: Rows, predictions: Rows) -> Matched:
    """Scores beside annotations; see :func:`match` for what it refuses."""
    scores = predictions.scores[match(truth, predictions)]
    return Matched(scores, truth.speaking.astype(np.int64), truth.videos, truth.entities)


def ava_average_precision(truth: Path | str, predictions: Path | str) -> float:
    """The official "mAP" of AVA-ActiveSpeaker, in [0, 1], higher is better.

    Raises:
        CsvError: see :func:`read_truth`, :func:`read_predictions` and :func:`match`; one class only.
    """
    found = join(read_truth(truth), read_predictions(predictions))
    try:
        return average_precision(found.scores, found.labels)
    except EvaluationError as error:
        raise CsvError(f"{truth}: {error}") from None
