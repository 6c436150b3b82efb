"""How much of the evidence each modality carries, frame by frame."""

from __future__ import annotations

import torch

from asd_explain.errors import OptionError
from asd_explain.models.output import Output

KINDS = ("gated-activation", "mean-gate")


def modality_shares(output: Output, kind: str = "gated-activation") -> tuple[list[str], torch.Tensor]:
    """Shares of the streams at the fusion point.

    ``gated-activation``: sum over the stream's channels of gate times |standardised pooled activation|.
    ``mean-gate``: the mean gate of the stream's channels (as published in arXiv 2412.05150). Either is divided by its
    sum over the streams; where that is zero, the streams share equally.

    Args:
        output: a backbone's output.
        kind: one of the two.

    Returns:
        (stream names, (B, T, streams) shares that sum to 1).

    Raises:
        OptionError: for an unknown kind.
    """
    streams, gates = list(output.standardised), output.fusion_gates
    if kind == "gated-activation":
        amounts = [(gates[s] * output.standardised[s].abs()).sum(-1) for s in streams]
    elif kind == "mean-gate":
        amounts = [gates[s].mean(-1) for s in streams]
    else:
        raise OptionError(f"unknown kind of shares {kind!r}; choose one of {', '.join(KINDS)}")
    stacked = torch.stack(amounts, -1)
    total = stacked.sum(-1, keepdim=True)
    equal = torch.full_like(stacked, 1 / len(streams))
    return streams, torch.where(total > 0, stacked / total.clamp_min(torch.finfo(total.dtype).tiny), equal)
