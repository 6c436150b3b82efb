"""Average precision of active speaker detection, as the official AVA-ActiveSpeaker evaluation computes it.

The official script (ActivityNet, ``get_ava_active_speaker_performance.py``) sorts all face boxes by score, takes
precision and recall after every row, makes precision monotone from the right, and sums it over the steps of recall
(the all-points AP of PASCAL VOC). Its order among equal scores is whatever the sort leaves. Here equal scores count as
one step: precision and recall are taken after all of them, as a threshold would. So the result does not depend on the
order of the rows, a constant score gives the share of positives, and without ties it is the official figure; with ties
it is the least that the official script can give, that of silent rows first (:func:`best_tie_order` is the most).

Rows may carry weights, which stand for so many copies of a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asd_explain.errors import AsdExplainError


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


def best_tie_order(scores: np.ndarray, labels: np.ndarray) -> float:
    """AP in [0, 1] with the speaking rows first among equal scores: the most that the official script can give.

    What it gives for tied scores lies between :func:`average_precision` and this, as its sort happens to leave them.

    Raises:
        EvaluationError: as :func:`average_precision`.
    """
    order, last, ranked, weights = _ordered(scores, labels, None)
    run = np.repeat(np.arange(len(last)), np.diff(last, prepend=-1))
    ranked = ranked[np.lexsort((-ranked, run))]
    value = _area(np.arange(len(order)), ranked, weights)
    return average_precision(scores, labels) if math.isnan(value) else value


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
