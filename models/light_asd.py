"""Light-ASD (Liao et al., CVPR 2023, arXiv 2303.04439), written anew; loads the published checkpoints.

Each block has two branches (kernel 3 and kernel 5), each a spatial then a temporal convolution; their sum passes a
pointwise convolution. Audio and face embeddings are added and go through a forward, then a backward GRU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from asd_explain.models.layers import batch_norm, conv_norm_relu, pointwise, spatial, temporal
from asd_explain.models.light_family import LightFamily
from asd_explain.models.registry import register


class VisualBlock(nn.Module):
    """(B*T, C, H, W) to (B*T, C', H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        for k in (3, 5):
            self.add_module(
                f"s_{k}",
                nn.Conv3d(inputs, outputs, (1, k, k), (1, stride, stride), (0, k // 2, k // 2), bias=False),
            )
            self.add_module(f"bn_s_{k}", batch_norm(3, outputs))
            self.add_module(f"t_{k}", nn.Conv3d(outputs, outputs, (k, 1, 1), 1, (k // 2, 0, 0), bias=False))
            self.add_module(f"bn_t_{k}", batch_norm(3, outputs))
        self.last = nn.Conv3d(outputs, outputs, 1, bias=False)
        self.bn_last = batch_norm(3, outputs)

    def forward(self, x: torch.Tensor, clips: int) -> torch.Tensor:
        three = temporal(spatial(x, self.s_3, self.bn_s_3), clips, self.t_3, self.bn_t_3)
        five = temporal(spatial(x, self.s_5, self.bn_s_5), clips, self.t_5, self.bn_t_5)
        return pointwise(three + five, self.last, self.bn_last)


class _AudioBlock(nn.Module):
    """(B, C, 13, S) to (B, C', 13, S)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        for k in (3, 5):
            self.add_module(f"m_{k}", nn.Conv2d(inputs, outputs, (k, 1), padding=(k // 2, 0), bias=False))
            self.add_module(f"bn_m_{k}", batch_norm(2, outputs))
            self.add_module(f"t_{k}", nn.Conv2d(outputs, outputs, (1, k), padding=(0, k // 2), bias=False))
            self.add_module(f"bn_t_{k}", batch_norm(2, outputs))
        self.last = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.bn_last = batch_norm(2, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = 0
        for k in (3, 5):
            m, t = getattr(self, f"m_{k}"), getattr(self, f"t_{k}")
            y = conv_norm_relu(x, m.weight, getattr(self, f"bn_m_{k}"), 1, m.padding)
            branches = branches + conv_norm_relu(y, t.weight, getattr(self, f"bn_t_{k}"), 1, t.padding)
        return conv_norm_relu(branches, self.last.weight, self.bn_last)


class Recurrent(nn.Module):
    """A forward GRU, then a backward GRU over its output, GELU after each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gru_forward = nn.GRU(channels, channels, batch_first=True)
        self.gru_backward = nn.GRU(channels, channels, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.gru_forward(x)[0])
        return F.gelu(self.gru_backward(x.flip(1))[0].flip(1))


@register("light_asd")
class LightASD(LightFamily):
    """Light-ASD: 1.0 M parameters, face maps of 128 channels at 14x14, streams added at the fusion point.

    Keys of the published state dict: ``model.visualEncoder.*``, ``model.audioEncoder.*``, ``model.GRU.*``, and the
    heads ``lossAV.FC``, ``lossV.FC``.
    """

    # Three blocks reach 2 frames each; the audio reaches 17 steps, less than 5 frames.
    halo_frames = 6

    def __init__(self) -> None:
        super().__init__(VisualBlock, _AudioBlock, GRU=Recurrent(128))

    def classify(self, audio: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        return self.lossAV["FC"](self.model["GRU"](audio + face))
