"""LR-ASD (Liao et al., IJCV 2025), written anew; loads the published checkpoints.

Each block is a chain of spatial 5x5 and 3x3, then temporal 5 and 3 convolutions. Audio and face embeddings are
concatenated, weighed by a sigmoid channel attention, and classified by a forward and a backward GRU side by side.
"""

from __future__ import annotations

import torch
from torch import nn

from asd_explain.models.layers import batch_norm, conv_norm_relu, spatial, temporal
from asd_explain.models.light_family import LightFamily
from asd_explain.models.registry import register


class _VisualBlock(nn.Module):
    """(B*T, C, H, W) to (B*T, C', H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        half = outputs // 2
        self.s_1 = nn.Conv3d(inputs, half, (1, 5, 5), (1, stride, stride), (0, 2, 2), bias=False)
        self.s_norm_1 = batch_norm(3, half)
        self.s_2 = nn.Conv3d(half, outputs, (1, 3, 3), 1, (0, 1, 1), bias=False)
        self.s_norm_2 = batch_norm(3, outputs)
        self.t_1 = nn.Conv3d(outputs, outputs, (5, 1, 1), 1, (2, 0, 0), bias=False)
        self.t_norm_1 = batch_norm(3, outputs)
        self.t_2 = nn.Conv3d(outputs, outputs, (3, 1, 1), 1, (1, 0, 0), bias=False)
        self.t_norm_2 = batch_norm(3, outputs)

    def forward(self, x: torch.Tensor, clips: int) -> torch.Tensor:
        x = spatial(spatial(x, self.s_1, self.s_norm_1), self.s_2, self.s_norm_2)
        return temporal(temporal(x, clips, self.t_1, self.t_norm_1), clips, self.t_2, self.t_norm_2)


class _AudioBlock(nn.Module):
    """(B, C, 13, S) to (B, C', 13, S)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.m_1 = nn.Conv2d(inputs, half, (5, 1), padding=(2, 0), bias=False)
        self.m_norm_1 = batch_norm(2, half)
        self.m_2 = nn.Conv2d(half, outputs, (3, 1), padding=(1, 0), bias=False)
        self.m_norm_2 = batch_norm(2, outputs)
        self.t_1 = nn.Conv2d(outputs, outputs, (1, 5), padding=(0, 2), bias=False)
        self.t_norm_1 = batch_norm(2, outputs)
        self.t_2 = nn.Conv2d(outputs, outputs, (1, 3), padding=(0, 1), bias=False)
        self.t_norm_2 = batch_norm(2, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in ("m_1", "m_2", "t_1", "t_2"):
            conv, norm = getattr(self, name), getattr(self, f"{name[0]}_norm_{name[-1]}")
            x = conv_norm_relu(x, conv.weight, norm, 1, conv.padding)
        return x


class _ChannelAttention(nn.Module):
    """Weighs the channels of a concatenation, frame by frame, by a sigmoid of a linear map of all of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Conv1d(channels, channels, 1, bias=False)
        self.bn = batch_norm(1, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.transpose(1, 2)
        return (x * torch.sigmoid(self.bn(self.attention(x)))).transpose(1, 2)


class _Detector(nn.Module):
    """Forward and backward GRU side by side, then channel attention; dropout 0.5 on the input in training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gru_forward = nn.GRU(channels, channels // 4, batch_first=True)
        self.gru_backward = nn.GRU(channels, channels // 4, batch_first=True)
        self.attention = _ChannelAttention(channels // 2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ahead = self.gru_forward(self.drop(x))[0]
        back = self.gru_backward(self.drop(x.flip(1)))[0].flip(1)
        return self.attention(torch.cat((ahead, back), -1))


@register("lr_asd")
class LRASD(LightFamily):
    """LR-ASD: 0.84 M parameters, face maps of 128 channels at 14x14, streams concatenated at the fusion point.

    The squeeze-and-excitation block stands before the network's own channel attention. Keys of the published state
    dict: ``model.visualEncoder.*``, ``model.audioEncoder.*``, ``model.fusion.*``, ``model.detector.*``, and the heads
    ``lossAV.FC``, ``lossV.FC``.
    """

    # Three blocks reach 2 + 1 frames each; the audio reaches 24 steps, 6 frames.
    halo_frames = 9

    def __init__(self) -> None:
        super().__init__(_VisualBlock, _AudioBlock, fusion=_ChannelAttention(256), detector=_Detector(256))

    def classify(self, audio: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        fused = self.model["fusion"](torch.cat((audio, face), -1))
        return self.lossAV["FC"](self.model["detector"](fused))
