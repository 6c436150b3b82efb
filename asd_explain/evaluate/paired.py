"""One number a clip: its mean over clips with an interval, and which of two methods is better clip by clip.

Frames of a clip resemble each other, clips (nearly) do not; so a clip's value is the mean of what was measured in it,
every clip counts alike, and intervals come from drawing clips with replacement.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asd_explain.errors import OptionError
from asd_explain.evaluate.gate_reactions import mean_with_interval

DRAWS = 1000


class MeanInterval(NamedTuple):
    """A mean over clips and the ends of its 95 % percentile bootstrap interval (NaN with fewer than two clips)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Method a against method b on the clips that both were measured on.

    Attributes:
        difference: mean over clips of a minus b, with the ends of its interval ``low`` and ``high``.
        wins: share of the clips in which a is better; a tie counts half. NaN without clips.
        clips: how many clips.
        verdict: "better", "worse" (a than b) where the interval is clear of zero, else "open".
    """

    difference: float
    low: float
    high: float
    wins: float
    clips: int
    verdict: str


def by_clip(clips: Iterable[str], values: Iterable[float], weights: Iterable[float] | None = None) -> dict[str, float]:
    """{clip: weighted mean of its values}; what is NaN, or weighs nothing, does not count; clips with no value left
    are left out.

    Args:
        clips: (N,) which clip each value is from.
        values: (N,).
        weights: (N,) for instance the frames that a value stands for; all alike when None.
    """
    clips, values = list(clips), np.asarray(list(values), np.float64)
    weights = np.ones(len(values)) if weights is None else np.asarray(list(weights), np.float64)
    if not len(clips) == len(values) == len(weights):
        raise ValueError(f"{len(clips)} clips, {len(values)} values and {len(weights)} weights; as many of each needed")
    found: dict[str, list[tuple[float, float]]] = {}
    for clip, value, weight in zip(clips, values.tolist(), weights.tolist(), strict=True):
        if math.isfinite(value) and weight > 0:
            found.setdefault(clip, []).append((value, weight))
    return {clip: sum(v * w for v, w in pairs) / sum(w for _, w in pairs) for clip, pairs in found.items()}


def _clip_means(values_by_clip: Mapping[str, float | Sequence[float]]) -> dict[str, float]:
    pairs = [(clip, v) for clip, values in values_by_clip.items() for v in np.ravel(values)]
    return by_clip((clip for clip, _ in pairs), (v for _, v in pairs))


def mean_interval(
    values_by_clip: Mapping[str, float | Sequence[float]], draws: int = DRAWS, seed: int = 0
) -> MeanInterval:
    """Mean over clips, each clip counting once, with a 95 % percentile bootstrap interval.

    Args:
        values_by_clip: {clip: its value, or the values of its frames or segments, of which the mean is taken}. NaN is
            left out.
        draws: resamples.
        seed: of the draws. They depend on the names' order only, so that two methods see the same resamples.

    Raises:
        OptionError: fewer than one draw.
    """
    if draws < 1:
        raise OptionError(f"a bootstrap needs at least one draw, not {draws}")
    means = _clip_means(values_by_clip)
    return MeanInterval(**mean_with_interval(np.array(list(means.values())), list(means), draws=draws, seed=seed))


def paired(
    values_a: Mapping[str, float | Sequence[float]],
    values_b: Mapping[str, float | Sequence[float]],
    *,
    higher_is_better: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Compare two methods clip by clip; clips that one of them lacks are left out.

    Args:
        values_a, values_b, draws, seed: as for :func:`mean_interval`.
        higher_is_better: False for deletion.
    """
    a, b = _clip_means(values_a), _clip_means(values_b)
    differences = {clip: a[clip] - b[clip] for clip in sorted(a.keys() & b.keys())}
    mean, low, high = mean_interval(differences, draws, seed)
    sign = 1 if higher_is_better else -1
    wins = [0.5 if d == 0 else float(sign * d > 0) for d in differences.values()]
    verdict = "open"
    if low > 0 or high < 0:
        verdict = "better" if sign * mean > 0 else "worse"
    return Comparison(mean, low, high, float(np.mean(wins)) if wins else math.nan, len(wins), verdict)
