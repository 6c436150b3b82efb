"""Average precision against brute force and laws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.evaluate.detection import (
    DetectionMetric,
    EvaluationError,
    average_precision,
    best_tie_order,
    bootstrap_interval,
    precision_recall,
)


def brute_force(scores: list[float], labels: list[int]) -> float:
    """VOC all-points AP by its definition: at every recall the best precision at that recall or beyond."""
    total = sum(labels)
    points = []
    for threshold in sorted(set(scores), reverse=True):
        chosen = [y for s, y in zip(scores, labels, strict=True) if s >= threshold]
        points.append((sum(chosen) / total, sum(chosen) / len(chosen)))
    area, before = 0.0, 0.0
    for recall, _ in points:
        area += (recall - before) * max(p for r, p in points if r >= recall)
        before = recall
    return area


frames = st.lists(st.tuples(st.integers(-8, 8), st.integers(0, 1)), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(y for _, y in rows) < len(rows)
)


@given(frames)
def test_equals_brute_force_ties_and_all(rows: list[tuple[int, int]]) -> None:
    scores, labels = zip(*rows, strict=True)
    assert average_precision(np.array(scores), np.array(labels)) == pytest.approx(
        brute_force(scores, labels), abs=1e-12
    )


@given(frames, st.randoms(use_true_random=False))
def test_does_not_depend_on_the_order_nor_on_monotone_maps(rows: list[tuple[int, int]], random) -> None:
    scores, labels = (np.array(column, float) for column in zip(*rows, strict=True))
    value = average_precision(scores, labels)
    for mapped in (scores * 7 - 3, np.exp(scores), np.arctan(scores), scores**3):
        assert average_precision(mapped, labels) == pytest.approx(value, abs=1e-12)
    order = list(range(len(rows)))
    random.shuffle(order)
    assert average_precision(scores[order], labels[order]) == pytest.approx(value, abs=1e-12)


@given(frames, st.data())
def test_a_weight_is_so_many_copies(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))))
    copied = np.repeat(labels, counts)
    if 0 < copied.sum() < len(copied):
        expected = average_precision(np.repeat(scores, counts), copied)
        assert average_precision(scores, labels, counts) == pytest.approx(expected, abs=1e-12)


def row_by_row(labels: list[int]) -> float:
    """The official rule over sorted rows: a point a row, precision made monotone from the right."""
    hits, total = list(itertools.accumulate(labels)), sum(labels)
    precision = [h / (i + 1) for i, h in enumerate(hits)]
    return sum(max(precision[i:]) / total for i, label in enumerate(labels) if label)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=2, max_size=6).filter(
        lambda rows: 0 < sum(y for _, y in rows) < len(rows)
    )
)
def test_ties_lie_between_the_least_and_the_most_of_all_orders(rows: list[tuple[int, int]]) -> None:
    values = [
        row_by_row([y for _, y in order])
        for order in itertools.permutations(rows)
        if all(a[0] >= b[0] for a, b in itertools.pairwise(order))
    ]
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    assert average_precision(scores, labels) == pytest.approx(min(values), abs=1e-12)
    assert best_tie_order(scores, labels) == pytest.approx(max(values), abs=1e-12)


@given(frames)
def test_is_bounded(rows: list[tuple[int, int]]) -> None:
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    value, rate = average_precision(scores, labels), labels.mean()
    assert rate - 1e-12 <= value <= best_tie_order(scores, labels) + 1e-12 <= 1 + 2e-12
    assert average_precision(labels, labels) == 1.0
    assert average_precision(-labels, labels) == pytest.approx(rate)


@pytest.mark.parametrize("labels", [[1, 1], [0], []])
def test_the_best_order_of_one_class_is_refused(labels: list[int]) -> None:
    with pytest.raises(EvaluationError):
        best_tie_order(np.zeros(len(labels)), np.array(labels))


def test_hand_computed() -> None:
    # Ranks 1 0 1 0: precision 1, 1/2, 2/3, 1/2; monotone 1, 2/3, 2/3, 1/2; recall steps at ranks 1 and 3.
    assert average_precision([4, 3, 2, 1], [1, 0, 1, 0]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision([4, 3, 2, 1], [1, 1, 0, 0]) == 1.0
    assert average_precision([0, 0, 0, 0, 0], [1, 0, 0, 1, 0]) == pytest.approx(0.4)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_random_scores_give_the_base_rate(rate: float) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(50_000) < rate).astype(int)
    assert average_precision(rng.random(50_000), labels) == pytest.approx(rate, abs=0.02)


def test_is_at_least_the_uninterpolated_sum() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    scores = rng.random(300) + 0.5 * labels
    thresholds, precision, recall = precision_recall(scores, labels)
    assert (np.diff(thresholds) < 0).all()
    assert (np.diff(recall) >= 0).all()
    assert average_precision(scores, labels) >= np.diff(recall, prepend=0) @ precision


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [
        ([0.1, 0.2], [1, 1], "only one class"),
        ([], [], "no frame"),
        ([0.1, math.nan], [0, 1], "1 scores are missing"),
        ([0.1], [0, 1], "equal length"),
        ([0.1, 0.3], [0, 2], "labels must be 0 or 1"),
    ],
)
def test_says_what_is_wrong(scores: list[float], labels: list[int], said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        average_precision(np.array(scores), np.array(labels))


def test_metric_and_its_interval() -> None:
    rng = np.random.default_rng(2)
    metric = DetectionMetric(draws=200)
    parts = []
    for clip in range(12):
        labels = rng.integers(0, 2, 50)
        scores = labels + rng.normal(0, 1, 50)
        parts.append((scores, labels))
        metric.update(f"clip {clip}", scores, labels)
    found = metric.compute()
    scores, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    assert found.ap == average_precision(scores, labels)
    assert found.base_rate == pytest.approx(labels.mean())
    assert (found.frames, found.positives, found.interval.clips) == (600, labels.sum(), 12)
    assert found.interval.low < found.ap < found.interval.high
    assert found == metric.compute()  # seeded
    metric.reset()
    with pytest.raises(EvaluationError, match="nothing to evaluate"):
        metric.compute()


def test_bootstrap_equals_resampling_by_copying() -> None:
    rng = np.random.default_rng(3)
    clips = np.repeat(np.arange(6), 20)
    labels = rng.integers(0, 2, 120)
    scores = np.round(labels + rng.normal(0, 1, 120), 1)
    found = bootstrap_interval(scores, labels, clips, draws=50, level=0.9, seed=5)
    draws = np.random.default_rng(5)
    values = []
    for _ in range(50):
        times = draws.multinomial(6, np.full(6, 1 / 6))
        rows = np.concatenate([np.tile(np.flatnonzero(clips == c), n) for c, n in enumerate(times)])
        values.append(average_precision(scores[rows], labels[rows]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, (0.05, 0.95))), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100))
def test_bootstrap_without_a_spread(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.random(10), np.arange(10) % 2
    alone = bootstrap_interval(scores, labels, ["a"] * 10, draws=5)
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)
    same = bootstrap_interval(np.tile(scores, 3), np.tile(labels, 3), np.repeat(list("abc"), 10), draws=20)
    assert same.low == pytest.approx(same.high)
