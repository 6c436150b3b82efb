"""What the published recipe takes for granted, counted: that gates are normally distributed, that their mean plus
1.2816 standard deviations is the top tenth of them, and what else could have been chosen instead.

The recipe is that of Roxo et al., arXiv 2412.05134. A frame's gates over a stream's channels are one distribution. They
are not independent draws, and there are many frames: a test rejects normality whenever it is given enough of them, so
its verdict stands beside effect sizes, which say how far from normal (the distance of the distribution functions,
skewness, excess kurtosis), and beside what it does to the selection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import NormalDist

import numpy as np
import torch
from scipy.stats import normaltest

from asd_explain.errors import OptionError
from asd_explain.evaluate.gate_distribution import BINS, passing_share, shape, spread
from asd_explain.evaluate.segments import Smoothing
from asd_explain.evaluate.sufficiency import kept_count, top_mask
from asd_explain.explain.base import Explainer, create_explainer
from asd_explain.explain.geometry import INTERPOLATIONS
from asd_explain.explain.squeeze import SqueezeHeat
from asd_explain.models.output import Output
from asd_explain.models.se import SCOPES

PERCENTILES = (0.75, 0.90, 0.95, 0.99)
#: Of the normality test.
LEVEL = 0.05
QQ_POINTS = 99
#: D'Agostino's test needs eight values for its skewness.
_LEAST = 8
#: Below this a frame's gates have no distribution, see :mod:`asd_explain.evaluate.gate_distribution`.
_CONSTANT = 1e-9
#: More frames than these are thinned out evenly before they are sorted or tested.
_MOST_ROWS = 20_000

Tracks = Sequence[Mapping[str, torch.Tensor]]


def gates_of(output: Output) -> dict[str, torch.Tensor]:
    """{stream: (T, C)} gates of the one clip in an output, without streams that were not there.

    A stream whose standardised activation is zero throughout is one (see ``FusionBackbone.fuse``): its gates are those
    of the learned absence.
    """
    there = {s: v for s, v in output.gates.items() if s not in output.standardised or output.standardised[s].any()}
    return {stream: values[0] for stream, values in there.items()}


def z_scores(gates: torch.Tensor) -> torch.Tensor:
    """(N', C) float64 of the rows of (N, C) that are not constant, each minus its mean over its population std."""
    gates = gates.double()
    std = gates.std(-1, correction=0, keepdim=True)
    varies = std[:, 0] > _CONSTANT
    return ((gates - gates.mean(-1, keepdim=True)) / std.clamp_min(_CONSTANT))[varies]


def qq_points(values: np.ndarray | torch.Tensor, count: int = QQ_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Q-Q points of a sample against the normal distribution of its own mean and (population) standard deviation.

    Args:
        values: any shape, finite; at least one.
        count: points, at the probabilities (i + 1/2) / count.

    Returns:
        (quantiles of the fitted normal, quantiles of the sample), (count,) each, rising; on the diagonal for a normal
        sample.
    """
    values = np.asarray(values, np.float64).reshape(-1)
    at = (np.arange(count) + 0.5) / count
    normal = np.array([NormalDist().inv_cdf(p) for p in at])
    return values.mean() + values.std() * normal, np.quantile(values, at)


def rejected_share(gates: torch.Tensor, level: float = LEVEL) -> float | None:
    """Share of the rows of (N, C) whose normality D'Agostino and Pearson's K2 test (Biometrika 60, 1973) rejects.

    ``level`` of normal samples are by chance. Constant rows do not count; None with fewer than 8 channels, or without a
    row that counts.
    """
    z = z_scores(_thinned(gates))
    if gates.shape[-1] < _LEAST or not len(z):
        return None
    return float((normaltest(z.numpy(), axis=1).pvalue < level).mean())


def _thinned(rows: torch.Tensor) -> torch.Tensor:
    return rows[:: math.ceil(len(rows) / _MOST_ROWS)] if len(rows) else rows


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """What is not a number becomes None, which every format can write."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _by_stream(tracks: Tracks) -> dict[str, list[torch.Tensor]]:
    streams = dict.fromkeys(stream for track in tracks for stream in track)
    return {stream: [track[stream].detach().cpu() for track in tracks if stream in track] for stream in streams}


def distribution_rows(tracks: Tracks) -> list[dict]:
    """How a network's gates are distributed over some material, stream by stream.

    Args:
        tracks: {stream: (T, C) gates in (0, 1)} of each segment or track, see :func:`gates_of`.

    Returns:
        One dict a stream: "stream", "channels", "tracks", "frames"; the figures of
        :func:`~asd_explain.evaluate.gate_distribution.spread` and, over frames, of
        :func:`~asd_explain.evaluate.gate_distribution.shape`; "rejected", see :func:`rejected_share`; "constant", share
        of frames whose gates are all equal, which no other figure of a frame's distribution counts; "histogram", counts
        in ``BINS`` equal bins of [0, 1]; "qq", {"normal", "gates"}: Q-Q points of all gates, standardised frame by
        frame. Figures that do not exist are None, and the Q-Q points then empty.
    """
    found = []
    for stream, parts in _by_stream(tracks).items():
        gates = torch.cat(parts)
        z = z_scores(_thinned(gates))
        normal, sample = qq_points(z) if len(z) else (np.zeros(0), np.zeros(0))
        found.append(
            {
                "stream": stream,
                "channels": gates.shape[-1],
                "tracks": len(parts),
                "frames": len(gates),
                **_finite(spread(parts)),
                **_finite(shape(gates)),
                "rejected": rejected_share(gates),
                "constant": float((gates.double().std(-1, correction=0) <= _CONSTANT).double().mean()),
                "histogram": torch.histc(gates.float(), BINS, 0, 1).long().tolist(),
                "qq": {"normal": normal.tolist(), "gates": sample.tolist()},
            }
        )
    return found


def selection_rows(tracks: Tracks, percentiles: Sequence[float] = PERCENTILES) -> list[dict]:
    """How many channels "mean + z std" really selects, with the gates of each frame and with their mean over a track.

    Args:
        tracks: as for :func:`distribution_rows`.
        percentiles: of the normal distribution, in (0.5, 1).

    Returns:
        One dict a stream, scope ("frame", "clip") and percentile: "expected", the share that a normal distribution
        gives; "selected", the mean share above the threshold; "low" and "high", its 5th and 95th percentile over frames
        (tracks); "times", selected over expected; "none", share of frames (tracks) in which nothing is above it;
        "channels", mean number that the recipe keeps, which is never none; "top_k", how many the top share would be.
    """
    found = []
    for stream, parts in _by_stream(tracks).items():
        of_scope = {"frame": torch.cat(parts), "clip": torch.stack([part.double().mean(0) for part in parts])}
        for scope in SCOPES:
            width = of_scope[scope].shape[-1]
            for percentile in percentiles:
                share = passing_share(of_scope[scope], percentile).numpy()
                expected = round(1 - percentile, 6)
                found.append(
                    {
                        "stream": stream,
                        "scope": scope,
                        "percentile": percentile,
                        "expected": expected,
                        "selected": float(share.mean()),
                        "low": float(np.quantile(share, 0.05)),
                        "high": float(np.quantile(share, 0.95)),
                        "times": float(share.mean() / expected),
                        "none": float((share == 0).mean()),
                        "channels": float(np.maximum(share * width, 1).mean()),
                        "top_k": kept_count(width, expected),
                    }
                )
    return found


class TopKSqueeze(SqueezeHeat):
    """Squeeze-and-excitation heat of a fixed share of each stream's channels: those with the widest gates.

    What the published threshold would select if gates were normal, without assuming that they are. A kept channel
    counts by its gate, without gains, as in the recipe. (With the number of channels that the threshold really passes
    it would be the threshold's own selection: both take the widest.)

    Args:
        share: of the channels, in (0, 1]; rounded up.
        scope: "frame" or "clip", as for ``SqueezeHeat``.

    Raises:
        OptionError: for a share or scope that cannot be.
    """

    name = "se-top"

    def __init__(self, share: float, scope: str = "frame") -> None:
        super().__init__(scope=scope, gains=False)
        if not 0 < share <= 1:
            raise OptionError(f"share {share} is outside (0, 1]")
        self.share = share

    def _kept(self, gates: torch.Tensor) -> torch.Tensor:
        return top_mask(gates, [gates.shape[-1]], self.share)


Variant = tuple[str, Callable[[], Explainer], Smoothing]


def variants(smoothing: Smoothing = Smoothing()) -> list[Variant]:  # noqa: B008  (frozen)
    """Ways to make the heat that differ in one assumption each, to be measured for faithfulness side by side.

    Args:
        smoothing: of all of them; only the interpolation of the last ones differs from it.

    Returns:
        (label, what makes the explainer, smoothing): all channels, each percentile and each top share, with frame gates
        and with clip gates; then all channels with frame gates, and the published recipe, with each interpolation.
        Labels are unique; "se: all, frame" is ``se-plain``, "se: percentile 90, clip" the published recipe. None counts
        by gains but the last two, "se: gains, SCOPE", whose first is ``se``.
    """
    found: list[Variant] = []
    for scope in SCOPES:
        found.append((f"se: all, {scope}", _squeeze(None, scope), smoothing))
        found += [(f"se: percentile {100 * p:.0f}, {scope}", _squeeze(p, scope), smoothing) for p in PERCENTILES]
        found += [
            (f"se: top {100 * (1 - p):.0f} %, {scope}", _top(round(1 - p, 6), scope), smoothing) for p in PERCENTILES
        ]
    for kind in INTERPOLATIONS:
        own = replace(smoothing, interpolation=kind)
        found.append((f"se: all, frame, {kind}", _squeeze(None, "frame"), own))
        found.append((f"se-paper, {kind}", lambda: create_explainer("se-paper"), own))
    found += [(f"se: gains, {scope}", partial(SqueezeHeat, scope=scope), smoothing) for scope in SCOPES]
    return found


def _squeeze(percentile: float | None, scope: str) -> Callable[[], Explainer]:
    return lambda: SqueezeHeat(percentile, scope, gains=False)


def _top(share: float, scope: str) -> Callable[[], Explainer]:
    return lambda: TopKSqueeze(share, scope)
