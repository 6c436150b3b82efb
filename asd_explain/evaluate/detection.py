"""Average precision of active speaker detection, as the official AVA-ActiveSpeaker evaluation computes it.

The official script (ActivityNet, ``get_ava_active_speaker_performance.py``) sorts all face boxes by score, takes
precision and recall after every row, makes precision monotone from the right, and sums it over the steps of recall
(the all-points AP of PASCAL VOC). Its order among equal scores is whatever the sort leaves. Here equal scores count as
one step: precision and recall are taken after all of them, as a threshold would. So the result does not depend on the
order of the rows, a constant score gives the share of positives, and without ties it is the official figure.

Rows may carry weights, which stand for so many copies of a row.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asd_explain.errors import AsdExplainError
from asd_explain.tracks.boxes_csv import COLUMNS

SPEAKING = "SPEAKING_AUDIBLE"
LABELS = ("NOT_SPEAKING", SPEAKING, "SPEAKING_NOT_AUDIBLE")
#: Boxes of the two files may differ by this much (shares of the frame), as in the official script.
BOX_TOLERANCE = 1e-9


class EvaluationError(AsdExplainError):
    """Scores and labels that cannot be compared."""


def _ordered(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Checked and sorted by score descending: (order, last row of each run of equal scores, labels, weights)."""
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise EvaluationError(f"scores {scores.shape} and labels {labels.shape} must be two lists of equal length")
    if not np.isin(labels, (0, 1)).all():
        raise EvaluationError("labels must be 0 or 1; leave unknown frames out first")
    if np.isnan(scores).any():
        raise EvaluationError(f"{int(np.isnan(scores).sum())} scores are missing (NaN); give every row a score")
    if weights is None:
        weights = np.ones(len(scores))
    weights = np.asarray(weights, np.float64)
    if weights.shape != scores.shape or not np.isfinite(weights).all() or (weights < 0).any():
        raise EvaluationError("weights must be finite, not negative, and as many as scores")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.zeros(0, int)
    return order, last, labels[order].astype(np.float64), weights[order]


def _area(last: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """AP of sorted rows; NaN without weight on either class."""
    hits = np.cumsum(weights * labels)[last]
    ranks = np.cumsum(weights)[last]
    if not len(last) or hits[-1] <= 0 or hits[-1] >= ranks[-1]:
        return math.nan
    precision = np.divide(hits, ranks, out=np.zeros_like(hits), where=ranks > 0)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.diff(hits, prepend=0.0) @ precision / hits[-1])


def average_precision(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """AP in [0, 1], higher is better; random scores give about the share of positives.

    Args:
        scores: (N,) any finite or infinite numbers; only their order counts.
        labels: (N,) 1 speaking, 0 not.
        weights: (N,) >= 0, how often each row counts; default once.

    Raises:
        EvaluationError: unequal lengths, a NaN, or one class only.
    """
    _, last, ranked, weighed = _ordered(scores, labels, weights)
    value = _area(last, ranked, weighed)
    if math.isnan(value):
        some = "no frame at all" if not len(ranked) else "only one class"
        raise EvaluationError(f"{some} among {len(ranked)} frames; average precision needs speaking and silent ones")
    return value


def precision_recall(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(thresholds, precision, recall), each (M,), one for every different score, thresholds falling; not made monotone.

    Precision and recall are those of calling every frame with score >= threshold speaking.
    """
    order, last, ranked, weights = _ordered(scores, labels, None)
    hits = np.cumsum(weights * ranked)[last]
    if not len(last) or hits[-1] <= 0:
        raise EvaluationError("no speaking frame; recall is not defined")
    return np.asarray(scores, np.float64)[order][last], hits / np.cumsum(weights)[last], hits / hits[-1]


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval over clips.

    Attributes:
        low, high: its ends.
        clips: how many clips were resampled.
        draws: resamples that the interval stands on; those with one class only are left out.
    """

    low: float
    high: float
    clips: int
    draws: int


def bootstrap_interval(
    scores: np.ndarray,
    labels: np.ndarray,
    clips: Sequence[str] | np.ndarray,
    weights: np.ndarray | None = None,
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of AP when whole clips are drawn with replacement (Efron 1979; percentile method).

    Frames of one clip are not independent, clips (nearly) are. With one clip, or none with both classes, the ends are
    NaN.

    Args:
        scores, labels, weights: as for :func:`average_precision`.
        clips: (N,) which clip each frame is from.
        draws: number of resamples.
        level: share of the resamples inside, 0 < level < 1.
        seed: of the draws.
    """
    if len(clips) != len(np.asarray(scores)):
        raise EvaluationError(f"{len(clips)} clip names for {len(np.asarray(scores))} scores")
    if draws < 1 or not 0 < level < 1:
        raise EvaluationError(f"a bootstrap needs at least one draw and a level in (0, 1), not {draws} and {level}")
    order, last, ranked, weighed = _ordered(scores, labels, weights)
    names, index = np.unique(np.asarray(clips), return_inverse=True)
    index = index[order]
    rng = np.random.default_rng(seed)
    chances = np.full(len(names), 1 / max(1, len(names)))
    found = []
    if len(names) > 1:
        for _ in range(draws):
            times = rng.multinomial(len(names), chances)
            found.append(_area(last, ranked, weighed * times[index]))
    kept = np.array([value for value in found if not math.isnan(value)])
    if not len(kept):
        return Interval(math.nan, math.nan, len(names), 0)
    low, high = np.quantile(kept, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(low), float(high), len(names), len(kept))


@dataclass(frozen=True)
class Detection:
    """How well speaking frames are found.

    Attributes:
        ap: average precision in [0, 1].
        base_rate: (weighted) share of speaking frames: the AP of a score that says nothing.
        interval: bootstrap interval of ``ap`` over clips.
        frames, positives: how many rows, and how many of them speak.
    """

    ap: float
    base_rate: float
    interval: Interval
    frames: int
    positives: int


class DetectionMetric:
    """Collects frames clip by clip; ``compute`` gives a :class:`Detection`.

    Args:
        draws, level, seed: of the bootstrap interval, see :func:`bootstrap_interval`.
    """

    def __init__(self, *, draws: int = 1000, level: float = 0.95, seed: int = 0) -> None:
        self._options = {"draws": draws, "level": level, "seed": seed}
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._clips: list[str] = []

    def update(
        self, clip: str, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | float | None = None
    ) -> None:
        """Add (n,) frames of a clip; the same clip may come several times."""
        scores = np.asarray(scores, np.float64)
        weights = np.broadcast_to(np.asarray(1.0 if weights is None else weights, np.float64), scores.shape)
        self._parts.append((scores, np.asarray(labels), weights))
        self._clips += [clip] * len(scores)

    def compute(self) -> Detection:
        """The result over everything added.

        Raises:
            EvaluationError: nothing added, or one class only.
        """
        if not self._parts:
            raise EvaluationError("no frames were added; nothing to evaluate")
        scores, labels, weights = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        return Detection(
            ap=average_precision(scores, labels, weights),
            base_rate=float(weights @ labels / weights.sum()),
            interval=bootstrap_interval(scores, labels, self._clips, weights, **self._options),
            frames=len(scores),
            positives=int((labels == 1).sum()),
        )


@dataclass(frozen=True)
class _Rows:
    """An AVA csv: {(timestamp, entity): (box, label, score or None, line)}."""

    path: Path
    rows: dict[tuple[float, str], tuple[tuple[float, ...], str, float | None, int]]


def _read(path: Path, *, scored: bool) -> _Rows:
    needed = (*COLUMNS, "score") if scored else COLUMNS
    found: dict[tuple[float, str], tuple[tuple[float, ...], str, float | None, int]] = {}
    columns: list[int] | None = None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for cells in reader:
                if not cells:
                    continue
                if columns is None:
                    header = [cell.strip().lower() for cell in cells]
                    headed = "video_id" in header
                    names = header if headed else [*COLUMNS, "score"][: len(cells)]
                    if missing := [name for name in needed if name not in names]:
                        raise EvaluationError(f"{path}: no column {', '.join(missing)}; expected {', '.join(needed)}")
                    columns = [names.index(name) for name in needed]
                    if headed:
                        continue
                line = reader.line_num
                if len(cells) <= max(columns):
                    raise EvaluationError(f"{path}, line {line}: {len(cells)} columns; expected {', '.join(needed)}")
                _, stamp, *box, label, entity = (cells[i].strip() for i in columns[: len(COLUMNS)])
                score = cells[columns[-1]].strip() if scored else None
                if score is not None and score.lower() in ("", "nan"):
                    raise EvaluationError(f"{path}, line {line}: no score; give every row one")
                try:
                    key = (float(stamp), entity)
                    numbers = tuple(float(v) for v in box)
                    value = None if score is None else float(score)
                except ValueError as error:
                    raise EvaluationError(f"{path}, line {line}: {error}; a number is needed") from None
                if key in found:
                    raise EvaluationError(f"{path}, line {line}: a second row of {entity} at {stamp} s; keep one")
                found[key] = (numbers, label, value, line)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{path} is not a csv text file ({error})") from None
    if not found:
        raise EvaluationError(f"{path} holds no rows; expected {', '.join(needed)}")
    return _Rows(path, found)


def read_ava(groundtruth: Path | str, predictions: Path | str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Join the two csv of the official evaluation on timestamp and entity.

    Args:
        groundtruth: AVA columns, with or without a header line; further columns are ignored.
        predictions: the same columns and ``score``; every label must be SPEAKING_AUDIBLE. Rows in any order.

    Returns:
        (scores (N,), labels (N,) with 1 = SPEAKING_AUDIBLE, entities), in the ground truth's order.

    Raises:
        EvaluationError: unreadable file, other columns, unequal rows, a missing or doubled row, a missing score,
            another label, or a box that disagrees.
    """
    truth, guess = _read(Path(groundtruth), scored=False), _read(Path(predictions), scored=True)
    if len(truth.rows) != len(guess.rows):
        raise EvaluationError(
            f"{truth.path} has {len(truth.rows)} rows and {guess.path} has {len(guess.rows)}; one prediction a row"
        )
    scores, labels, entities = [], [], []
    for key, (box, label, _, line) in truth.rows.items():
        if label not in LABELS:
            raise EvaluationError(f"{truth.path}, line {line}: label {label!r}; expected {', '.join(LABELS)}")
        if key not in guess.rows:
            raise EvaluationError(f"{guess.path}: no row for {key[1]} at {key[0]:g} s ({truth.path}, line {line})")
        other, claimed, score, at = guess.rows[key]
        if claimed != SPEAKING:
            raise EvaluationError(f"{guess.path}, line {at}: label {claimed!r}; predictions are all {SPEAKING}")
        if not np.allclose(box, other, rtol=0, atol=BOX_TOLERANCE):
            raise EvaluationError(f"{guess.path}, line {at}: another box than in {truth.path}, line {line}")
        scores.append(score)
        labels.append(label == SPEAKING)
        entities.append(key[1])
    return np.array(scores), np.array(labels, int), entities


def ava_average_precision(groundtruth: Path | str, predictions: Path | str) -> float:
    """The official "mAP" of AVA-ActiveSpeaker, in [0, 1]; see :func:`read_ava` and :func:`average_precision`."""
    scores, labels, _ = read_ava(groundtruth, predictions)
    try:
        return average_precision(scores, labels)
    except EvaluationError as error:
        raise EvaluationError(f"{groundtruth}: {error}") from None
