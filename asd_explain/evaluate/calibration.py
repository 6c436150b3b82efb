"""Do probabilities mean what they say? Reliability curve, expected calibration error, temperature.

P here is the probability of "speaking", not the confidence in whichever class wins: a network that says 0.2 should meet
speakers in a fifth of such frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asd_explain.evaluate.detection import EvaluationError

BINS = 15
#: Temperatures are looked for between these; separable data would drive them to 0.
TEMPERATURES = (0.01, 100.0)


@dataclass(frozen=True)
class Reliability:
    """A reliability curve over bins of equal width.

    Attributes:
        edges: (B + 1,) from 0 to 1; a bin holds its lower edge, the last both.
        counts: (B,) int, frames in each.
        weights: (B,) their (weighted) share, summing to 1.
        predicted: (B,) mean P in each, NaN where empty.
        observed: (B,) share of speaking frames in each, NaN where empty.
    """

    edges: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error in [0, 1], 0 is best: sum over bins of share x |observed - predicted|.

        Naeini, Cooper, Hauskrecht 2015 (for P of the positive class); Guo et al. 2017, eq. 3 (for confidences).
        """
        full = self.weights > 0
        return float(self.weights[full] @ np.abs(self.observed - self.predicted)[full])


def sigmoid(margin: np.ndarray) -> np.ndarray:
    """P(speaking) of a margin (logit of speaking minus logit of silent), float64, without overflow."""
    margin = np.asarray(margin, np.float64)
    small = np.exp(-np.abs(margin))
    return np.where(margin >= 0, 1, small) / (1 + small)


def _checked(
    values: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, labels = np.asarray(values, np.float64), np.asarray(labels, np.float64)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if not len(values) or values.ndim != 1 or not values.shape == labels.shape == weights.shape:
        raise EvaluationError(
            f"{values.shape} values, {labels.shape} labels: two equally long, filled lists are needed"
        )
    if not (np.isfinite(values).all() and np.isin(labels, (0, 1)).all()):
        raise EvaluationError("values must be finite and labels 0 or 1")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise EvaluationError("weights must be finite, not negative, and not all zero")
    return values, labels, weights


def reliability(p: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None, bins: int = BINS) -> Reliability:
    """Sort frames by P into ``bins`` bins of equal width.

    Args:
        p: (N,) P(speaking) in [0, 1].
        labels: (N,) 1 speaking, 0 not.
        weights: (N,) how much each frame counts; default all alike.
        bins: how many.

    Raises:
        EvaluationError: for values that cannot be used.
    """
    p, labels, weights = _checked(p, labels, weights)
    if bins < 1 or p.min() < 0 or p.max() > 1:
        raise EvaluationError("P must lie in [0, 1] and there must be at least one bin")
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, p, "right") - 1, 0, bins - 1)
    mass, said, seen = (np.bincount(index, v, bins) for v in (weights, weights * p, weights * labels))
    empty = np.full(bins, np.nan)
    return Reliability(
        edges=edges,
        counts=np.bincount(index, minlength=bins),
        weights=mass / mass.sum(),
        predicted=np.divide(said, mass, out=empty.copy(), where=mass > 0),
        observed=np.divide(seen, mass, out=empty.copy(), where=mass > 0),
    )


def expected_calibration_error(
    p: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None, bins: int = BINS
) -> float:
    """See :attr:`Reliability.ece`."""
    return reliability(p, labels, weights, bins).ece


def negative_log_likelihood(margin: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Weighted mean of -log P(label) in nats, >= 0, lower is better; stable for any margin."""
    margin, labels, weights = _checked(margin, labels, weights)
    return float(weights @ np.logaddexp(0, np.where(labels == 1, -margin, margin)) / weights.sum())


def fit_temperature(margin: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The temperature t that minimises the negative log-likelihood of sigmoid(margin / t) (Guo et al. 2017, 4.2).

    It is convex in 1/t, so the minimum is the only one. Dividing by t > 0 changes no order and no decision at 0.5.

    Args:
        margin: (N,) logit of speaking minus logit of silent, of data that nothing is reported on.
        labels: (N,) 1 speaking, 0 not.
        weights: (N,) how much each frame counts; default all alike.

    Returns:
        t within ``TEMPERATURES``; an end of it where the labels are separable, or the scores worse than none.

    Raises:
        EvaluationError: for values that cannot be used.
    """
    from scipy.optimize import minimize_scalar  # a second of start-up, which evaluating csv files does without

    margin, labels, weights = _checked(margin, labels, weights)

    def cost(log_t: float) -> float:
        return negative_log_likelihood(margin / np.exp(log_t), labels, weights)

    ends = np.log(TEMPERATURES)
    found = minimize_scalar(cost, bounds=ends, method="bounded", options={"xatol": 1e-6})
    # The search comes near to an end but never reaches it.
    return float(np.exp(min((found.x, *ends), key=cost)))
