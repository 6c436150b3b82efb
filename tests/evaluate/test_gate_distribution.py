"""Distribution of gates, by hand and against scipy."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from asd_explain.evaluate.gate_distribution import (
    distribution,
    moments,
    normal_distance,
    normal_distance_limit,
    passing_share,
    shape,
    spread,
)
from asd_explain.explain.squeeze import selected_channels


def test_passing_share_by_hand_and_as_the_recipe_selects() -> None:
    # mean 0.1, deviation 0.3: the threshold is 0.484; mirrored, it is above 1 and nothing passes.
    one = torch.tensor([0.0] * 9 + [1.0])
    assert passing_share(torch.stack([one, 1 - one])).tolist() == [0.1, 0.0]
    gates = torch.rand(40, 50, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(passing_share(gates), selected_channels(gates, 0.9).double().mean(-1))
    normal = torch.randn(20, 10_000, generator=torch.Generator().manual_seed(0))
    assert float(passing_share(normal).mean()) == pytest.approx(0.1, abs=0.002)


def test_moments_and_distance_equal_scipy() -> None:
    rows = torch.rand(5, 37, generator=torch.Generator().manual_seed(1)).double() ** 2
    skewness, kurtosis = moments(rows)
    assert skewness.tolist() == pytest.approx(stats.skew(rows.numpy(), axis=1))
    assert kurtosis.tolist() == pytest.approx(stats.kurtosis(rows.numpy(), axis=1))
    expected = [stats.kstest(r, "norm", (r.mean(), r.std(ddof=1))).statistic for r in rows.numpy()]
    assert normal_distance(rows).tolist() == pytest.approx(expected)


def test_limit_is_exceeded_by_one_normal_sample_in_twenty() -> None:
    samples = torch.randn(20_000, 40, generator=torch.Generator().manual_seed(0)).double()
    assert float((normal_distance(samples) > normal_distance_limit(40)).double().mean()) == pytest.approx(
        0.05, abs=0.006
    )


def test_constant_gates_are_no_distribution() -> None:
    found = shape(torch.full((3, 8), 0.5))
    assert found["passing"] == 0
    assert found["none_passes"] == 1
    assert found["skewness"] != found["skewness"]  # NaN
    assert found["not_normal"] != found["not_normal"]


def test_spread_by_hand() -> None:
    # Channel 0: 0.0, 0.1 in one track, 0.05 in the other. Channel 1: 0.95 throughout.
    found = spread([torch.tensor([[0.0, 0.95], [0.1, 0.95]]), torch.tensor([[0.05, 0.95], [0.05, 0.95]])])
    assert found["mean"] == pytest.approx(0.5)
    assert found["std_of_mean_gates"] == pytest.approx(0.45)
    assert (found["closed"], found["open"]) == (0.5, 0.5)
    assert found["within_track"] == pytest.approx(0.0125)  # (0.05 + 0 + 0 + 0) / 4
    assert found["across_tracks"] == pytest.approx(0.0)
    shifted = spread([torch.tensor([[0.2, 0.5]]), torch.tensor([[0.4, 0.5]])])
    assert shifted["across_tracks"] == pytest.approx(0.05)


def test_streams_are_told_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    tracks = [torch.cat([torch.rand(n, 6, generator=generator), torch.full((n, 4), 0.95)], -1) for n in (5, 9)]
    found = distribution(tracks, {"audio": 6, "face": 4})
    assert list(found) == ["audio", "face", "all"]
    assert found["face"]["open"] == 1
    assert found["face"]["histogram"][-1] == sum(found["face"]["histogram"]) == 14 * 4
    assert sum(found["all"]["histogram"]) == 14 * 10
    assert found["audio"]["frames"]["passing"] == pytest.approx(float(passing_share(torch.cat(tracks)[:, :6]).mean()))
