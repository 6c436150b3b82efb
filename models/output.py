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
            The fusion gates, unless projections lie between the maps and the fusion point: then those at the maps.
        maps: {stream: (B, T, C, h, w)} activations before pooling, for the visual streams; empty when not asked for.
        pooled: {stream: (B, T, C)} the pooled activations before gating, as ``fuse`` takes them.
        standardised: {stream: (B, T, C)} the activations at the fusion point (the pooled ones, or what projections make
            of them), standardised by the statistics stored in the block there.
        fusion: (B, T, sum of C) fusion gates in the order of the streams, or None where no block is fitted.
    """

    logits: torch.Tensor
    gates: dict[str, torch.Tensor] = field(default_factory=dict)
    maps: dict[str, torch.Tensor] = field(default_factory=dict)
    pooled: dict[str, torch.Tensor] = field(default_factory=dict)
    standardised: dict[str, torch.Tensor] = field(default_factory=dict)
    fusion: torch.Tensor | None = None

    @property
    def fusion_gates(self) -> dict[str, torch.Tensor]:
        """{stream: (B, T, C)} the fusion gates by stream, as wide as ``standardised``; ones where there are none."""
        if self.fusion is None:
            return {stream: torch.ones_like(values) for stream, values in self.standardised.items()}
        parts = self.fusion.split([values.shape[-1] for values in self.standardised.values()], -1)
        return dict(zip(self.standardised, parts, strict=True))

    @property
    def p_speaking(self) -> torch.Tensor:
        """(B, T) probability of speaking in [0, 1], the softmax of the two logits."""
        return self.logits.softmax(-1)[..., 1]

    @property
    def margin(self) -> torch.Tensor:
        """(B, T) logit of speaking minus logit of silent."""
        return self.logits[..., 1] - self.logits[..., 0]
