"""The audio encoder of TalkNet, which BIAS and ASDnB use as well: a residual network over MFCC with gates in it.

It follows the speaker-recognition network of Chung et al., arXiv 2003.11982, with 16 to 128 channels. Each residual
unit ends in a squeeze-and-excitation block that averages over coefficients *and time*: an embedding depends on the
whole clip's sound.
"""

from __future__ import annotations

import torch
from torch import nn


class _Gate(nn.Module):
    """Squeeze and excitation of (B, C, H, W) over H and W, with 8-fold reduction; keys as published."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 8), nn.ReLU(), nn.Linear(channels // 8, channels), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.fc(x.mean((-2, -1)))[..., None, None]


class _Unit(nn.Module):
    """Residual unit of two 3x3 convolutions and a gate; here the first norm comes after its ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.se = _Gate(outputs)
        if inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        else:
            self.downsample = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(torch.relu(self.conv1(x)))
        return torch.relu(self.se(self.bn2(self.conv2(x))) + shortcut)


class GatedAudioEncoder(nn.Module):
    """(B, 4T, 13) MFCC to (B, T, 128), non-negative."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 7, (2, 1), 3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        width = 16
        for i, (units, channels, stride) in enumerate(((3, 16, 1), (4, 32, 2), (6, 64, 2), (3, 128, 1)), 1):
            layers = [_Unit(width if k == 0 else channels, channels, stride if k == 0 else 1) for k in range(units)]
            self.add_module(f"layer{i}", nn.Sequential(*layers))
            width = channels

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        x = audio.to(self.conv1.weight.dtype).transpose(1, 2).unsqueeze(1)
        x = torch.relu(self.bn1(self.conv1(x)))
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        return x.mean(2).transpose(1, 2)


#: How much sound, in frames on either side, a piece's embedding is made from where a track is scored in pieces: with
#: a piece of 2 s that is the 10 s which the classifiers' windows hold.
AUDIO_CONTEXT_FRAMES = 100
