"""Networks in which projections lie between the maps' pool and the fusion point: TalkNet, BIAS, LoCoNet.

A channel of the maps is no channel of the fusion vector there. So there are two places for a block: at the end of a
visual trunk, whose gates weigh the maps and are the ones that can be drawn, and at the fusion point, where a stream's
share is decided. Each network has the blocks it was published with; :meth:`ProjectedBackbone.attach_trunk_gates` and
:meth:`~asd_explain.models.fusion_backbone.FusionBackbone.attach_gates` put others there.

``encode`` gives the ungated maps and their spatial mean. A gate commutes with the mean, and the mean is the very vector
that the trunk's block squeezes to, so ``fuse`` needs no maps; everything that depends on the whole clip happens there.
"""

from __future__ import annotations

import torch

from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.se import SqueezeExcite
from asd_explain.models.talknet_layers import EMBEDDING_WIDTH


class ProjectedBackbone(FusionBackbone):
    """Base of the three. A subclass gives ``embed`` besides what its own base asks for."""

    # One 5-frame convolution; all else along time lies behind the pool.
    halo_frames = 2
    # Strides 2 (7x7, padding 3), 2 (pool), 2, 2 and 2, all padded by half the kernel: cell i is centred on pixel 32 i.
    map_stride_px, map_offset_px = 32.0, 0.0

    def __init__(self) -> None:
        super().__init__()
        self.trunk_gates = torch.nn.ModuleDict()

    @property
    def fusion_streams(self) -> dict[str, int]:
        return dict.fromkeys(self.streams, EMBEDDING_WIDTH)

    def trunk_gate(self, stream: str) -> SqueezeExcite | None:
        """The block at the end of a visual trunk, or None."""
        return dict(self.trunk_gates.items()).get(stream)

    def attach_trunk_gates(self, stream: str, block: SqueezeExcite | None) -> None:
        """Put a block at the end of a visual trunk (or take it away with None).

        Raises:
            ValueError: the stream has no maps, or the block another width.
        """
        if stream not in self.crops or stream not in self.streams:
            raise ValueError(f"{stream} has no maps; visual streams are {', '.join(self.crops)}")
        self._check_width(block, self.streams[stream], f"the trunk of {stream}")
        if block is not None:
            self.trunk_gates[stream] = block
        elif stream in self.trunk_gates:
            del self.trunk_gates[stream]

    @property
    def maps_are_gated(self) -> bool:
        return any(self.trunk_gate(stream) is not None for stream in self.crops)

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, T, C, h, w) maps to their spatial mean (B, T, C)."""
        return maps.mean((-2, -1))

    def map_gates(self, pooled: dict[str, torch.Tensor], fusion: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {s: fusion[s] if s == "audio" else self._trunk_excitation(s, pooled[s]) for s in self.streams}

    def _trunk_excitation(self, stream: str, pooled: torch.Tensor) -> torch.Tensor:
        block = self.trunk_gate(stream)
        return torch.ones_like(pooled) if block is None else block.excitation(pooled)

    def gated_pool(self, stream: str, pooled: torch.Tensor) -> torch.Tensor:
        """(B, T, C) spatial mean of a stream's maps, behind the trunk's block where there is one."""
        block = self.trunk_gate(stream)
        return pooled if block is None else block(pooled)
