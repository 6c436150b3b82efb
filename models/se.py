"""The squeeze-and-excitation block, placed at the fusion point.

Formula: Hu et al., "Squeeze-and-Excitation Networks" (arXiv 1709.01507), equations 2-4: squeeze z,
excitation s = sigmoid(W2 relu(W1 z)), output s * x. Its use before the classifier as an
explanation: Roxo et al., arXiv 2412.05134.
"""

from __future__ import annotations

import torch
from torch import nn

from asd_explain.errors import OptionError

SCOPES = ("frame", "clip")


class SqueezeExcite(nn.Module):
    """One gate in (0, 1) a channel, from the channels themselves.

    At the fusion point the vector is already pooled over space, so there is no second squeeze; maps with space are
    averaged over it first. ``scope="frame"`` gives one gate vector a frame; ``scope="clip"`` averages the squeezed
    vector over time and gives one gate vector a clip, as the published method does (and as its result therefore
    depends on the clip's length).

    Args:
        channels: C, number of channels gated.
        reduction: the hidden layer has ``max(1, C // reduction)`` units.
        scope: "frame" or "clip".
        bias: whether the two linear layers have biases.
        standardise: whether the squeezed vector is standardised by stored statistics (for a block fitted to a frozen
            network, whose channels have very different scales).

    Raises:
        OptionError: for an unknown scope.
    """

    def __init__(
        self, channels: int, reduction: int = 16, scope: str = "frame", bias: bool = True, standardise: bool = False
    ) -> None:
        super().__init__()
        if scope not in SCOPES:
            raise OptionError(f"unknown squeeze-excitation scope {scope!r}; choose one of {', '.join(SCOPES)}")
        self.channels = channels
        self.scope = scope
        hidden = max(1, channels // reduction)
        self.reduce = nn.Linear(channels, hidden, bias=bias)
        self.expand = nn.Linear(hidden, channels, bias=bias)
        if standardise:
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("std", torch.ones(channels))
        else:
            self.mean = self.std = None

    def standardised(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, C) activations minus their stored mean, over their stored standard deviation (or unchanged)."""
        if self.mean is None:
            return x
        return (x - self.mean) / self.std

    def set_statistics(self, mean: torch.Tensor, std: torch.Tensor, floor: float = 1e-3) -> None:
        """Store (C,) statistics; channels that hardly move (std below ``floor``) are not blown up."""
        if self.mean is None:
            raise OptionError("this block was made with standardise=False and keeps no statistics")
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(floor))

    def excitation(self, x: torch.Tensor) -> torch.Tensor:
        """Gates in (0, 1) for activations.

        Args:
            x: (B, T, C), or (B, T, C, h, w) which is averaged over space first.

        Returns:
            (B, T, C); constant along T for ``scope="clip"``.
        """
        if x.dim() == 5:
            x = x.mean((-2, -1))
        x = self.standardised(x)
        if self.scope == "clip":
            x = x.mean(1, keepdim=True).expand_as(x)
        return torch.sigmoid(self.expand(torch.relu(self.reduce(x))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The activations times their gates, same shape as ``x``."""
        gates = self.excitation(x)
        return x * (gates[..., None, None] if x.dim() == 5 else gates)
