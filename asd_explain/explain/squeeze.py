"""Squeeze-and-excitation heat: the mean of a stream's maps, weighted by gate and gain.

What it says: where channels that count and that the gate holds open fire. What it does not say: which class they speak
for; and under a spatial max pool only a channel's strongest cell reaches the decision. How much a channel counts per
unit of gate is its gain, fixed for a network (:mod:`asd_explain.explain.gains`); a network without gains has one for
all channels, and ``se-plain`` is that heat for any network.
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
        gates: (T, C), multiplied by gains or not.
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
        gains: whether gates are multiplied by the network's gains, where it has any. Channels are selected by their
            gates alone.
    """

    name = "se"

    def __init__(self, percentile: float | None = None, scope: str = "frame", gains: bool = True) -> None:
        if scope not in SCOPES:
            raise OptionError(f"unknown scope {scope!r}; choose one of {', '.join(SCOPES)}")
        self.percentile = percentile
        self.scope = scope
        self.gains = gains
        self.channels_kept: dict[str, list[int]] = {}

    def heat(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], target: int = 1, output: Output | None = None
    ) -> dict[str, torch.Tensor]:
        """See :meth:`Explainer.heat`; how many channels passed is appended to ``channels_kept[stream]``."""
        output = scored(model, inputs, output)
        # Of a network for clips they speak for speech alone, of a classifier there is a row a class.
        gains = {s: _of_class(v, target) if v.dim() == 2 else v for s, v in self._gains(model).items()}
        result = {}
        for stream, maps in output.maps.items():
            gates = output.gates[stream][0]
            if self.scope == "clip":
                gates = gates.mean(0, keepdim=True).expand_as(gates)
            kept = self._kept(gates)
            self.channels_kept.setdefault(stream, []).extend(kept.sum(-1).tolist())
            weights = gates * gains[stream].to(gates.dtype) if stream in gains else gates
            result[stream] = gated_mean(maps[0], weights, kept)
        return result

    def _kept(self, gates: torch.Tensor) -> torch.Tensor:
        """(T, C) bool: which channels of (T, C) gates count."""
        return selected_channels(gates, self.percentile)

    def _gains(self, model: nn.Module | None) -> dict[str, torch.Tensor]:
        """{visual stream: (C,) gains, or (classes, C)}, of the streams that have any."""
        return getattr(model, "gains", {}) if self.gains else {}


def _of_class(gains: torch.Tensor, target: int) -> torch.Tensor:
    """(C,), the row of a class in gains (classes, C)."""
    if not -len(gains) <= target < len(gains):
        raise OptionError(f"there are gains of {len(gains)} classes, and none of class {target}; fit them anew")
    return gains[target]


@register("se-paper")
def paper_recipe() -> SqueezeHeat:
    """The published recipe: gates of the whole piece, only the top 10 % of a normal distribution's channels."""
    explainer = SqueezeHeat(percentile=0.90, scope="clip", gains=False)
    explainer.name = "se-paper"
    return explainer


@register("se-plain")
def plain_recipe() -> SqueezeHeat:
    """Every channel by its gate alone, whatever the network's gains are."""
    explainer = SqueezeHeat(gains=False)
    explainer.name = "se-plain"
    return explainer
