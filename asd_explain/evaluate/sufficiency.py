"""Do the channels that a ranking puts first suffice for the decision? Pure functions on fusion vectors.

Sufficiency: keep the first share of each stream's channels, take the rest away, and see how far P(speaking) moves. The
lower, the better the ranking. "Take away" has two meanings, and both are measured: the channel becomes zero, or it
becomes its mean over the data that the block was fitted to. Kept channels keep their plain activation; a gate ranks,
it does not weigh here. The idea is that of deletion and insertion tests (Petsiuk et al., RISE, arXiv 1806.07421) and
of the fidelity of a selection (Chen et al., Learning to Explain, arXiv 1802.07814).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def kept_count(width: int, share: float) -> int:
    """Channels that a share of ``width`` means: rounded up, at least 1."""
    return max(1, math.ceil(share * width - 1e-9))


def top_mask(scores: torch.Tensor, widths: Sequence[int], share: float) -> torch.Tensor:
    """Which channels come first, stream by stream and frame by frame.

    Args:
        scores: (..., sum of widths), larger is earlier; ties go to the lower channel.
        widths: channels of each stream, in their order in the last dimension.
        share: of each stream's channels, in (0, 1].

    Returns:
        (..., sum of widths) bool; in every frame ``kept_count`` channels of each stream are True.
    """
    masks = []
    for part in scores.split(list(widths), -1):
        first = torch.sort(part, dim=-1, descending=True, stable=True).indices[..., : kept_count(part.shape[-1], share)]
        masks.append(torch.zeros_like(part, dtype=torch.bool).scatter_(-1, first, True))
    return torch.cat(masks, -1)


def random_mask(live: torch.Tensor, widths: Sequence[int], share: float, generator: torch.Generator) -> torch.Tensor:
    """One random draw for all frames: (sum of widths,) bool, of live channels only.

    Args:
        live: (sum of widths,) bool, channels that may be drawn; where a stream has fewer live channels than needed,
            all of them are taken.
        widths, share: as in :func:`top_mask`.
        generator: of the draw.
    """
    masks = []
    for part in live.split(list(widths)):
        alive = part.nonzero()[:, 0]
        drawn = alive[torch.randperm(len(alive), generator=generator)[: kept_count(len(part), share)]]
        masks.append(torch.zeros_like(part).scatter_(0, drawn, True))
    return torch.cat(masks)


def keep(x: torch.Tensor, mask: torch.Tensor, fill: torch.Tensor | float = 0.0) -> torch.Tensor:
    """``x`` (..., C) where ``mask`` is True, ``fill`` (scalar or (C,)) elsewhere."""
    return torch.where(mask, x, torch.as_tensor(fill, dtype=x.dtype, device=x.device))


def live_channels(x: torch.Tensor, floor: float = 1e-3) -> torch.Tensor:
    """(C,) bool: channels of (N, C) whose standard deviation over the data is above ``floor`` of the median's."""
    std = x.std(0)
    return std > floor * std.median().clamp_min(1e-12)


def drift(p: torch.Tensor, changed: torch.Tensor) -> tuple[float, float]:
    """Mean |change of P(speaking)| (0 to 1, lower is better) and share of equal decisions at 0.5 (higher is better).

    Args:
        p: (N,) before.
        changed: (N,) after.
    """
    return float((changed - p).abs().mean()), float(((changed > 0.5) == (p > 0.5)).float().mean())


def gate_spread(gates: torch.Tensor) -> tuple[float, float]:
    """How much gates (N, C) differ between channels (mean over frames of the standard deviation over channels) and over
    time (mean over channels of the standard deviation over frames). 0 for constant gates; at most 0.5."""
    return float(gates.std(-1, correction=0).mean()), float(gates.std(0, correction=0).mean())


def rank_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Spearman's correlation of two (N,) samples, ties averaged; NaN where one is constant."""
    ranks = torch.stack([_ranks(a), _ranks(b)])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: torch.Tensor) -> torch.Tensor:
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]
