"""The figures of one set of scored rows: average precision, how ties bear on it, calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asd_explain.evaluate.calibration import BINS, expected_calibration_error
from asd_explain.evaluate.detection import average_precision, best_tie_order


@dataclass(frozen=True)
class Figures:
    """Figures of a set of rows.

    Attributes:
        rows, speaking: how many, and how many of them speak.
        ap: average precision in [0, 1], higher is better, equal scores as one step; None where ``undefined`` says why.
        ap_best_tie_order: the most that the official script can give, whose sort leaves equal scores in any order; it
            is ``ap`` where no speaking and silent row have the same score.
        ece: expected calibration error in [0, 1], lower is better; None where the scores are no probabilities.
        undefined: why there is no ``ap``, or None.
    """

    rows: int
    speaking: int
    ap: float | None
    ap_best_tie_order: float | None
    ece: float | None
    undefined: str | None = None

    @property
    def base_rate(self) -> float | None:
        """Share of speaking rows: the AP of a score that says nothing."""
        return self.speaking / self.rows if self.rows else None


def are_probabilities(scores: np.ndarray) -> bool:
    """Whether all (N,) scores lie in [0, 1]: then they are taken for P(speaking)."""
    return bool(len(scores)) and float(scores.min()) >= 0 and float(scores.max()) <= 1


def figures_of(scores: np.ndarray, labels: np.ndarray, *, probabilities: bool, bins: int = BINS) -> Figures:
    """Figures of (N,) scores against (N,) labels, 1 speaking and 0 not; one class only leaves AP undefined.

    Args:
        scores: higher means speaking.
        labels: 0 or 1.
        probabilities: whether the scores are P(speaking), so that they have a calibration error.
        bins: of the calibration error.
    """
    rows, speaking = len(labels), int(np.sum(labels))
    undefined = None
    if not rows:
        undefined = "no row"
    elif not speaking:
        undefined = "no speaking row"
    elif speaking == rows:
        undefined = "no silent row"
    ap = best = None
    if undefined is None:
        ap, best = average_precision(scores, labels), best_tie_order(scores, labels)
        best = max(ap, best)  # they differ by rounding where there are no ties
    ece = expected_calibration_error(scores, labels, bins=bins) if probabilities and rows else None
    return Figures(rows, speaking, ap, best, ece, undefined)
