"""Sufficiency metrics against brute force and published references."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from asd_explain.evaluate.sufficiency import (
    drift,
    gate_spread,
    keep,
    kept_count,
    live_channels,
    random_mask,
    rank_correlation,
    top_mask,
)


@pytest.mark.parametrize(("width", "share", "expected"), [(128, 0.1, 13), (10, 0.1, 1), (10, 0.01, 1), (8, 1.0, 8)])
def test_kept_count_rounds_up_and_never_keeps_nothing(width: int, share: float, expected: int) -> None:
    assert kept_count(width, share) == expected


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([0.1, 0.25, 0.5, 1.0]))
def test_top_mask_is_the_top_of_each_stream_in_each_frame(seed: int, share: float) -> None:
    scores = torch.randn(5, 13, generator=torch.Generator().manual_seed(seed))
    mask = top_mask(scores, (8, 5), share)
    for frame, kept in zip(scores, mask, strict=True):
        for part, own in ((frame[:8], kept[:8]), (frame[8:], kept[8:])):
            k = kept_count(len(part), share)
            expected = set(sorted(range(len(part)), key=lambda c: -float(part[c]))[:k])
            assert set(own.nonzero()[:, 0].tolist()) == expected


def test_ties_keep_the_exact_number() -> None:
    assert top_mask(torch.ones(2, 10), (10,), 0.3).sum(-1).tolist() == [3, 3]


def test_random_mask_takes_live_channels_only() -> None:
    live = torch.tensor([True, False, True, False, True, True, False, False])
    seen = torch.zeros(8)
    for seed in range(30):
        mask = random_mask(live, (4, 4), 0.25, torch.Generator().manual_seed(seed))
        assert mask[:4].sum() == 1
        assert mask[4:].sum() == 1
        assert not (mask & ~live).any()
        seen += mask
    assert (seen[live] > 0).all()


def test_keep_fills_with_zero_or_the_mean() -> None:
    x, mask, mean = torch.tensor([[1.0, 2.0]]), torch.tensor([[True, False]]), torch.tensor([5.0, 7.0])
    assert keep(x, mask).tolist() == [[1.0, 0.0]]
    assert keep(x, mask, mean).tolist() == [[1.0, 7.0]]


def test_drift_and_agreement_by_hand() -> None:
    change, same = drift(torch.tensor([0.2, 0.6, 0.9]), torch.tensor([0.3, 0.4, 0.9]))
    assert change == pytest.approx(0.1)
    assert same == pytest.approx(2 / 3)


def test_gate_spread() -> None:
    assert gate_spread(torch.full((4, 3), 0.7)) == (0.0, 0.0)
    over_channels, over_time = gate_spread(torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    assert (over_channels, over_time) == (0.5, 0.0)
    over_channels, over_time = gate_spread(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert (over_channels, over_time) == (0.0, 0.5)


def test_a_constant_channel_is_not_live() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 3.0
    assert live_channels(x).tolist() == [True, True, False, True]


def test_rank_correlation_equals_scipy_with_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(0, 6, (200,), generator=generator).float()
    b = a + 3 * torch.randn(200, generator=generator)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a.numpy(), b.numpy()).statistic, abs=1e-6)
