"""Layers of TalkNet that TalkNet, BIAS and LoCoNet share: visual trunk, temporal head, attention.

TalkNet: Tao et al., "Is Someone Speaking?", ACM MM 2021, arXiv 2107.06592. Parameters have the published names and
shapes. The published code lays the frames of all clips of a batch end to end before the 5-frame convolution, so that
neighbouring clips leak into each other; here clips stay apart, and one clip alone gives the published result.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from asd_explain.models.layers import batch_norm

FACE_MEAN, FACE_STD = 0.4161, 0.1688  # of a gray value over 255
TRUNK_WIDTH, EMBEDDING_WIDTH = 512, 128


class _ResidualPair(nn.Module):
    """Two residual units of 3x3 convolutions, norm and ReLU after each sum: (N, C, H, W) to (N, C', H/s, W/s).

    The second unit adds the first one's sum before its norm. ``downsample`` stands on the shortcut where the stride is
    not 1; TalkNet and BIAS keep an unused one at stride 1 too.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, spare_downsample: bool) -> None:
        super().__init__()

        def conv3x3(width: int, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(width, outputs, 3, stride, 1, bias=False)

        self.stride = stride
        self.conv1a, self.bn1a, self.conv2a = conv3x3(inputs, stride), batch_norm(2, outputs), conv3x3(outputs)
        if stride != 1 or spare_downsample:
            self.downsample = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.outbna = batch_norm(2, outputs)
        self.conv1b, self.bn1b, self.conv2b = conv3x3(outputs), batch_norm(2, outputs), conv3x3(outputs)
        self.outbnb = batch_norm(2, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.stride == 1 else self.downsample(x)
        total = self.conv2a(torch.relu(self.bn1a(self.conv1a(x)))) + shortcut
        x = torch.relu(self.outbna(total))
        return torch.relu(self.outbnb(self.conv2b(torch.relu(self.bn1b(self.conv1b(x)))) + total))


class VisualTrunk(nn.Module):
    """(B, T, 112, 112) gray values 0..255 to maps (B, T, 512, 4, 4), non-negative; a frame sees 2 on either side.

    Args:
        spare_downsample: whether the first residual layer has an unused shortcut convolution (in the published state).
        gate: a block that stands after the maps (BIAS); it is kept here for its key, and applied by the network.
    """

    def __init__(self, spare_downsample: bool = True, gate: nn.Module | None = None) -> None:
        super().__init__()
        conv = nn.Conv3d(1, 64, (5, 7, 7), (1, 2, 2), (2, 3, 3), bias=False)
        self.frontend3D = nn.Sequential(conv, batch_norm(3, 64))
        widths = (64, 64, 128, 256, TRUNK_WIDTH)
        self.resnet = nn.Module()
        for i in range(1, 5):
            layer = _ResidualPair(widths[i - 1], widths[i], 1 if i == 1 else 2, spare_downsample)
            self.resnet.add_module(f"layer{i}", layer)
        if gate is not None:
            self.resnet.se = gate

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        clips, length = crops.shape[:2]
        conv, norm = self.frontend3D
        x = (crops.to(conv.weight.dtype) / 255 - FACE_MEAN) / FACE_STD
        x = torch.relu(norm(self._over_five_frames(x, conv)))
        x = x.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(x, 3, 2, 1)
        for i in range(1, 5):
            x = getattr(self.resnet, f"layer{i}")(x)
        return x.reshape(clips, length, *x.shape[1:])

    @staticmethod
    def _over_five_frames(x: torch.Tensor, conv: nn.Conv3d) -> torch.Tensor:
        """(B, T, H, W) to (B, 64, T, H/2, W/2)."""
        if torch.is_grad_enabled():
            return conv(x.unsqueeze(1))
        # One input channel: five frames are five channels of a 2-D convolution, which CPUs do several times faster.
        # Where gradients are recorded it stays 3-D, so that FullGrad sees each crop once.
        clips, length, height, width = x.shape
        frames = F.pad(x, (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).permute(0, 1, 4, 2, 3)
        frames = frames.reshape(clips * length, 5, height, width).contiguous(memory_format=torch.channels_last)
        y = F.conv2d(frames, conv.weight[:, 0], None, 2, 3)
        return y.unflatten(0, (clips, length)).transpose(1, 2)


class _GlobalNorm(nn.Module):
    """(B, C, T) standardised over channels and time of each clip, then scaled and shifted by channel.

    A frame's value therefore depends on the whole clip.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channels, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        moved = x - x.mean((1, 2), keepdim=True)
        return self.gamma * moved / torch.sqrt(moved.square().mean((1, 2), keepdim=True) + 1e-8) + self.beta


class _SeparableUnit(nn.Module):
    """Residual unit along time on (B, C, T): ReLU, norm, depthwise 3, PReLU, global norm, pointwise."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ReLU(),
            nn.BatchNorm1d(channels),
            nn.Conv1d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.PReLU(),
            _GlobalNorm(channels),
            nn.Conv1d(channels, channels, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.net(x)


def temporal_units() -> nn.Module:
    """Five residual units along time, (B, 512, T) to (B, 512, T); published as ``visualTCN``."""
    holder = nn.Module()
    holder.net = nn.Sequential(*[_SeparableUnit(TRUNK_WIDTH) for _ in range(5)])
    return holder


def temporal_head() -> nn.Module:
    """(B, 512, T) to (B, 128, T); published as ``visualConv1D``."""
    holder = nn.Module()
    holder.net = nn.Sequential(
        nn.Conv1d(TRUNK_WIDTH, 256, 5, padding=2), nn.BatchNorm1d(256), nn.ReLU(), nn.Conv1d(256, EMBEDDING_WIDTH, 1)
    )
    return holder


def embed_visual(pooled: torch.Tensor, units: nn.Module, head: nn.Module) -> torch.Tensor:
    """(B, T, 512) pooled maps of a stream to its embedding (B, T, 128), which depends on the whole clip."""
    return head.net(units.net(pooled.transpose(1, 2))).transpose(1, 2)


class Attention(nn.Module):
    """Transformer layer with 8 heads, norm after each sum; the target asks, the source answers and is carried on.

    Args:
        width: C; a head's width is C / 8, the hidden layer's 4 C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, 8, dropout=0.1, batch_first=True)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.drop = nn.Dropout(0.1)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Source and target (B, T, C) to (B, T, C)."""
        answer = self.self_attn(target, source, source, need_weights=False)[0]
        x = self.norm1(source + self.drop(answer))
        return self.norm2(x + self.drop(self.linear2(self.drop(torch.relu(self.linear1(x))))))
