"""Squeeze-and-excitation heat: the gate-weighted mean of a stream's maps.

What it says: where channels that the gate holds open fire. What it does not say: which class they speak for; and under
a spatial max pool only a channel's strongest cell reaches the decision.
"""

from __future__ import annotations

import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.explain.base import Explainer, register, scored
from asd_explain.models.output import Output
from asd_explain.models.se import SCOPES


def selected_channels(gates: torch.Tensor, percentile: float | None) -> torch.Tensor:
    """Which channels count, per frame.

    Args:
        gates: (..., C) in (0, 1).
        percentile: None keeps all; p in (0.5, 1) keeps those above mean + z_p * std over the C channels, with the
            population standard deviation and z_p the normal distribution's quantile (1.2816 for 0.90): the recipe of
            Roxo et al., arXiv 2412.05134. Where none passes, the largest is kept.

    Returns:
        (..., C) bool.

    Raises:
        OptionError: for a percentile outside (0.5, 1).
    """
    if percentile is None:
        return torch.ones_like(gates, dtype=torch.bool)
    if not 0.5 < percentile < 1:
        raise OptionError(f"percentile {percentile} is outside (0.5, 1)")
    z = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(percentile)).item()
    threshold = gates.mean(-1, keepdim=True) + z * gates.std(-1, correction=0, keepdim=True)
    kept = gates > threshold
    largest = torch.zeros_like(kept).scatter(-1, gates.argmax(-1, keepdim=True), True)
    return torch.where(kept.any(-1, keepdim=True), kept, largest)


def gated_mean(maps: torch.Tensor, gates: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Mean over kept channels of gate times map, negative values cut off.

    Args:
        maps: (T, C, h, w).
        gates: (T, C).
        kept: (T, C) bool, at least one True a frame.

    Returns:
        (T, h, w), >= 0.
    """
    weights = gates * kept / kept.sum(-1, keepdim=True)
    t, c, h, w = maps.shape
    # maps lie channels-last in memory, so this is one small matrix product a frame, with no copy.
    flat = maps.permute(0, 2, 3, 1).reshape(t, h * w, c)
    return torch.bmm(flat, weights.unsqueeze(-1)).reshape(t, h, w).relu()


@register("se")
class SqueezeHeat(Explainer):
    """Squeeze-and-excitation heat.

    Args:
        percentile: see :func:`selected_channels`; None lets every channel count by its gate.
        scope: "frame" uses each frame's gates; "clip" averages the gates over the frames given in one call.
    """

    name = "se"

    def __init__(self, percentile: float | None = None, scope: str = "frame") -> None:
        if scope not in SCOPES:
            raise OptionError(f"unknown scope {scope!r}; choose one of {', '.join(SCOPES)}")
        self.percentile = percentile
        self.scope = scope
        self.channels_kept: dict[str, list[int]] = {}

    def heat(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], target: int = 1, output: Output | None = None
    ) -> dict[str, torch.Tensor]:
        """See :meth:`Explainer.heat`; how many channels passed is appended to ``channels_kept[stream]``."""
        del target
        output = scored(model, inputs, output)
        result = {}
        for stream, maps in output.maps.items():
            gates = output.gates[stream][0]
            if self.scope == "clip":
                gates = gates.mean(0, keepdim=True).expand_as(gates)
            kept = self._kept(gates)
            self.channels_kept.setdefault(stream, []).extend(kept.sum(-1).tolist())
            result[stream] = gated_mean(maps[0], gates, kept)
        return result

    def _kept(self, gates: torch.Tensor) -> torch.Tensor:
        """(T, C) bool: which channels of (T, C) gates count."""
        return selected_channels(gates, self.percentile)


@register("se-paper")
def paper_recipe() -> SqueezeHeat:
    """The published recipe: gates of the whole piece, only the top 10 % of a normal distribution's channels."""
    explainer = SqueezeHeat(percentile=0.90, scope="clip")
    explainer.name = "se-paper"
    return explainer
