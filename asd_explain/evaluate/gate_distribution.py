"""How gates are distributed: over channels, over time, and whether "mean + 1.2816 std" is the top 10 % of them.

The published recipe (Roxo et al., arXiv 2412.05134) takes gates for normally distributed and keeps what passes their
mean plus 1.2816 standard deviations as the top 10 %. Both are claims about numbers that can be counted; here they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import torch

PERCENTILE = 0.90
CLOSED, OPEN = 0.1, 0.9
BINS = 20


def passing_share(gates: torch.Tensor, percentile: float = PERCENTILE) -> torch.Tensor:
    """Share of channels whose gate is above mean + z std: 0.10 for a normal distribution and the default.

    Args:
        gates: (..., C); mean and (population) standard deviation are over C.
        percentile: of the normal distribution, in (0.5, 1); z is its quantile.

    Returns:
        (...) in [0, 1). May be 0: then the recipe, which never keeps nothing, keeps the largest.
    """
    gates = gates.double()
    z = NormalDist().inv_cdf(percentile)
    threshold = gates.mean(-1, keepdim=True) + z * gates.std(-1, correction=0, keepdim=True)
    return (gates > threshold).double().mean(-1)


def moments(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(skewness, excess kurtosis) over the last dimension, both 0 for a normal distribution; NaN for constants."""
    z = _z_scores(values)
    return (z**3).mean(-1), (z**4).mean(-1) - 3


def normal_distance(values: torch.Tensor) -> torch.Tensor:
    """Kolmogorov-Smirnov distance of (..., C) samples to the normal distribution of their own mean and deviation.

    The largest difference between the two distribution functions, in [0, 1], 0 is normal; the deviation is that with
    C - 1, as in Lilliefors' test (J. Am. Stat. Assoc. 62, 1967). NaN for constants.
    """
    n = values.shape[-1]
    z = _z_scores(values).sort(-1).values * math.sqrt((n - 1) / n)
    f = torch.special.ndtr(z)
    steps = torch.arange(n + 1, dtype=f.dtype, device=f.device) / n
    return torch.maximum((steps[1:] - f).amax(-1), (f - steps[:-1]).amax(-1))


def normal_distance_limit(n: int) -> float:
    """The distance that 5 % of normal samples of size n exceed (Stephens, J. Am. Stat. Assoc. 69, 1974, table 1A)."""
    return 0.895 / (math.sqrt(n) - 0.01 + 0.85 / math.sqrt(n))


def _z_scores(values: torch.Tensor) -> torch.Tensor:
    values = values.double()
    centred = values - values.mean(-1, keepdim=True)
    std = centred.std(-1, correction=0, keepdim=True)
    return centred / torch.where(std > 1e-9, std, torch.nan)


def spread(tracks: Sequence[torch.Tensor]) -> dict[str, float]:
    """Mean and spread of gates.

    Args:
        tracks: one (T, C) tensor of gates in (0, 1) a track.

    Returns:
        ``mean`` over all frames and channels; ``std_of_mean_gates``, population deviation over channels of each
        channel's mean over all frames; ``closed`` and ``open``, shares of channels whose mean gate is below 0.1 and
        above 0.9; ``within_track``, mean over tracks and channels of the deviation over a track's frames;
        ``across_tracks``, mean over channels of the deviation over tracks of the track's mean.
    """
    means = torch.cat(list(tracks)).double().mean(0)
    by_track = torch.stack([t.double().mean(0) for t in tracks])
    return {
        "mean": float(means.mean()),
        "std_of_mean_gates": float(means.std(correction=0)),
        "closed": float((means < CLOSED).double().mean()),
        "open": float((means > OPEN).double().mean()),
        "within_track": float(torch.stack([t.double().std(0, correction=0).mean() for t in tracks]).mean()),
        "across_tracks": float(by_track.std(0, correction=0).mean()),
    }


def shape(gates: torch.Tensor) -> dict[str, float]:
    """Is the distribution over channels normal, and does "mean + 1.2816 std" keep a tenth of them?

    Args:
        gates: (N, C); each row (a frame, or a track's mean) is one distribution over C channels.

    Returns:
        ``passing``: mean share of channels above the threshold, with ``passing_p5`` and ``passing_p95`` over rows and
        ``none_passes``, the share of rows in which no channel is above it; ``skewness`` and ``excess_kurtosis``, means
        over rows; ``ks_distance``, mean over rows of the distance to the fitted normal, its limit ``ks_limit`` for
        normal samples, and ``not_normal``, the share of rows beyond it (5 % would be by chance).
    """
    share = passing_share(gates)
    skewness, kurtosis = moments(gates)
    distance = normal_distance(gates)
    limit = normal_distance_limit(gates.shape[-1])
    low, high = torch.quantile(share[:: max(1, len(share) // 100_000)], torch.tensor([0.05, 0.95]).double()).tolist()
    known = distance.isfinite()
    return {
        "passing": float(share.mean()),
        "passing_p5": low,
        "passing_p95": high,
        "none_passes": float((share == 0).double().mean()),
        "skewness": float(skewness.nanmean()),
        "excess_kurtosis": float(kurtosis.nanmean()),
        "ks_distance": float(distance.nanmean()),
        "ks_limit": limit,
        "not_normal": float((distance[known] > limit).double().mean()),
    }


def distribution(tracks: Sequence[torch.Tensor], widths: Mapping[str, int]) -> dict[str, dict]:
    """Everything on the gates of some tracks, stream by stream and over all channels.

    Args:
        tracks: one (T, sum of widths) tensor a track.
        widths: channels of each stream, in their order.

    Returns:
        {stream, or "all": {the figures of :func:`spread`, "frames": and "tracks": :func:`shape` where each frame, and
        where the mean over each track, is one distribution; "histogram": counts of all gates in ``BINS`` equal bins of
        [0, 1]}}.
    """
    parts = {name: [] for name in widths}
    for track in tracks:
        for name, part in zip(widths, track.split(list(widths.values()), -1), strict=True):
            parts[name].append(part)
    found = {}
    for name, gates in {**parts, "all": list(tracks)}.items():
        joined = torch.cat(gates)
        found[name] = {
            **spread(gates),
            "frames": shape(joined),
            "tracks": shape(torch.stack([g.mean(0) for g in gates])),
            "histogram": torch.histc(joined.float(), BINS, 0, 1).long().tolist(),
        }
    return found
