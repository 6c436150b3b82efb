"""Means over clips, their intervals, and comparisons clip by clip, against hand-made figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asd_explain.errors import OptionError
from asd_explain.evaluate.paired import by_clip, mean_interval, paired


def test_a_clip_counts_once() -> None:
    values = {"long": [1.0] * 99 + [math.nan], "short": [0.0], "empty": [], "unknown": [math.nan]}
    mean, low, high = mean_interval(values)
    assert mean == 0.5
    # Two clips: a resample holds the one or the other or both, so the interval is as wide as can be.
    assert (low, high) == (0.0, 1.0)


def test_segments_weigh_by_their_frames() -> None:
    found = by_clip(["a", "a", "b", "c", "c"], [1.0, 0.0, 0.25, math.nan, 3.0], [30, 10, 5, 7, 0])
    assert found == {"a": 0.75, "b": 0.25}
    assert by_clip(["a", "a"], [1.0, 0.0]) == {"a": 0.5}
    with pytest.raises(ValueError, match="2 clips"):
        by_clip(["a", "b"], [1.0])


def test_interval_is_that_of_the_mean_of_many_clips() -> None:
    values = np.random.default_rng(0).normal(3, 1, 200)
    found = mean_interval({f"clip {i}": v for i, v in enumerate(values)}, draws=2000)
    half = 1.96 * values.std() / math.sqrt(200)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)


def test_one_clip_has_no_interval_and_none_no_mean() -> None:
    one = mean_interval({"a": [0.2, 0.4]})
    assert one.mean == pytest.approx(0.3)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert all(math.isnan(v) for v in mean_interval({}))
    alone = paired({"a": 1.0}, {"a": 0.0})
    assert (alone.difference, alone.wins, alone.clips, alone.verdict) == (1.0, 1.0, 1, "open")
    nothing = paired({"a": 1.0}, {"b": 0.0})
    assert nothing.clips == 0
    assert nothing.verdict == "open"
    assert math.isnan(nothing.difference)
    assert math.isnan(nothing.wins)
    with pytest.raises(OptionError, match="one draw"):
        mean_interval({"a": 1.0}, draws=0)


def test_pairs_are_clips_that_both_know() -> None:
    a = {"x": [0.5, 0.7], "y": 0.3, "z": 0.9, "only a": 9.0}
    b = {"z": 0.9, "y": 0.1, "x": 0.2, "only b": 9.0, "unknown": math.nan}
    found = paired(a, b)
    assert found.clips == 3
    assert found.difference == pytest.approx((0.4 + 0.2 + 0) / 3)
    assert found.wins == pytest.approx(2.5 / 3)


def test_pairing_sees_what_two_intervals_do_not() -> None:
    rng = np.random.default_rng(1)
    level = rng.normal(0, 10, 30)
    a = {str(i): v + 0.5 + 0.1 * rng.standard_normal() for i, v in enumerate(level)}
    b = {str(i): v for i, v in enumerate(level)}
    assert mean_interval(a).low < mean_interval(b).high  # alone they overlap
    found = paired(a, b)
    assert found.verdict == "better"
    assert 0.4 < found.low < found.difference < found.high < 0.6
    assert found.wins == 1.0
    lower = paired(a, b, higher_is_better=False)
    assert (lower.verdict, lower.wins, lower.difference) == ("worse", 0.0, found.difference)
    assert paired(b, a, higher_is_better=False).verdict == "better"
    assert paired(b, a).verdict == "worse"


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(-50, 50), min_size=2),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(-50, 50), min_size=2),
)
def test_turning_the_comparison_over(a: dict[str, int], b: dict[str, int]) -> None:
    one, other = paired(a, b, draws=50), paired(b, a, draws=50)
    assert one.clips == other.clips == len(a.keys() & b.keys())
    if one.clips:
        assert one.difference == pytest.approx(-other.difference)
        assert one.wins == pytest.approx(1 - other.wins)
    if one.clips > 1:
        assert one.low == pytest.approx(-other.high)
    if one.clips > 1 and min(abs(one.low), abs(one.high)) > 1e-9:
        assert {"better": "worse", "worse": "better", "open": "open"}[one.verdict] == other.verdict
