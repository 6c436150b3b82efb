"""What every backbone returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class Output:
    """Result of a backbone's forward pass over B tracks of T grid frames.

    Channel c of ``gates[s]`` weighs channel c of ``maps[s]``: that is what makes a gate drawable.

    Attributes:
        logits: (B, T, 2), column 1 = speaking.
        gates: {stream: (B, T, C)} in (0, 1); streams are "audio", "face", "body". All ones where no block is fitted.
        maps: {stream: (B, T, C, h, w)} activations before pooling, for the visual streams; empty when not asked for.
        pooled: {stream: (B, T, C)} the pooled activations at the fusion point, before gating.
        standardised: {stream: (B, T, C)} the same, standardised by the statistics stored in the block.
        fusion: (B, T, sum of C) fusion gates in the order of the streams, or None where no block is fitted.
    """

    logits: torch.Tensor
    gates: dict[str, torch.Tensor] = field(default_factory=dict)
    maps: dict[str, torch.Tensor] = field(default_factory=dict)
    pooled: dict[str, torch.Tensor] = field(default_factory=dict)
    standardised: dict[str, torch.Tensor] = field(default_factory=dict)
    fusion: torch.Tensor | None = None

    @property
    def p_speaking(self) -> torch.Tensor:
        """(B, T) probability of speaking in [0, 1], the softmax of the two logits."""
        return self.logits.softmax(-1)[..., 1]

    @property
    def margin(self) -> torch.Tensor:
        """(B, T) logit of speaking minus logit of silent."""
        return self.logits[..., 1] - self.logits[..., 0]
