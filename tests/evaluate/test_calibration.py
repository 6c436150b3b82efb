"""Reliability, expected calibration error and temperature against brute force and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.evaluate.calibration import (
    TEMPERATURES,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    sigmoid,
)
from asd_explain.evaluate.detection import EvaluationError, average_precision

tables = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=40).filter(
    lambda rows: any(w for _, _, w in rows)
)


@given(tables, st.integers(1, 20))
def test_ece_equals_brute_force(rows: list[tuple[float, int, int]], bins: int) -> None:
    p, labels, weights = (np.array(column, float) for column in zip(*rows, strict=True))
    edges = np.linspace(0, 1, bins + 1)
    expected = 0.0
    for b in range(bins):
        inside = [i for i, v in enumerate(p) if edges[b] <= v < edges[b + 1] or (b == bins - 1 and v == 1)]
        mass = weights[inside].sum()
        if mass:
            said, seen = (weights[inside] @ values[inside] / mass for values in (p, labels))
            expected += mass / weights.sum() * abs(said - seen)
    assert expected_calibration_error(p, labels, weights, bins) == pytest.approx(expected, abs=1e-12)
    curve = reliability(p, labels, weights, bins)
    assert curve.counts.sum() == len(rows)
    assert curve.weights.sum() == pytest.approx(1)
    assert 0 <= curve.ece <= 1


@given(st.integers(1, 9), st.integers(1, 5))
def test_a_perfect_table_has_no_error(bins: int, copies: int) -> None:
    # P = k / 20 in each of 20 rows, k of which speak.
    p = np.repeat(np.arange(21) / 20, 20 * copies)
    labels = np.concatenate([np.tile(np.arange(20) < k, copies) for k in range(21)])
    assert expected_calibration_error(p, labels, bins=bins) == pytest.approx(0, abs=1e-12)


def test_error_of_one_who_is_always_sure() -> None:
    assert expected_calibration_error(np.ones(10), np.arange(10) < 7) == pytest.approx(0.3)
    assert expected_calibration_error(np.zeros(10), np.arange(10) < 7) == pytest.approx(0.7)


@settings(deadline=None)
@given(st.floats(0.2, 8), st.integers(0, 20))
def test_temperature_is_found_again(true: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < sigmoid(margin)).astype(int)
    assert fit_temperature(true * margin, labels) == pytest.approx(true, rel=0.1)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000))
def test_temperature_is_the_best_of_many_and_changes_no_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 60)
    labels[:2] = 0, 1
    margin = rng.normal(0, 3, 60) + 2 * labels
    weights = rng.random(60)
    t = fit_temperature(margin, labels, weights)
    tried = [negative_log_likelihood(margin / v, labels, weights) for v in np.geomspace(*TEMPERATURES, 400)]
    assert negative_log_likelihood(margin / t, labels, weights) <= min(tried) + 1e-9
    assert average_precision(margin / t, labels) == pytest.approx(average_precision(margin, labels), abs=1e-12)
    assert ((sigmoid(margin / t) > 0.5) == (sigmoid(margin) > 0.5)).all()


def test_likelihood_against_the_definition_and_at_extremes() -> None:
    margin, labels = np.array([-2.0, 0.5, 3.0]), np.array([0, 1, 0])
    p = 1 / (1 + np.exp(-margin))
    expected = -np.log(np.where(labels == 1, p, 1 - p)).mean()
    assert negative_log_likelihood(margin, labels) == pytest.approx(expected)
    assert negative_log_likelihood(np.array([-1e5, 1e5]), np.array([0, 1])) == 0
    assert sigmoid(np.array([-1e5, 0, 1e5])).tolist() == [0, 0.5, 1]


def test_separable_labels_end_at_the_border() -> None:
    assert fit_temperature(np.array([-1.0, 1.0]), np.array([0, 1])) == pytest.approx(TEMPERATURES[0], rel=0.01)
    assert fit_temperature(np.array([-1.0, 1.0]), np.array([1, 0])) == pytest.approx(TEMPERATURES[1], rel=0.01)


@pytest.mark.parametrize(("p", "labels"), [([], []), ([0.5], [2]), ([1.2], [1]), ([np.nan], [1]), ([0.5, 0.5], [1])])
def test_refuses_what_it_cannot_use(p: list[float], labels: list[int]) -> None:
    with pytest.raises(EvaluationError):
        reliability(np.array(p), np.array(labels))
