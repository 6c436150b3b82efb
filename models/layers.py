"""Layers the light networks share: separable convolutions that run as plain 2-D convolutions.

The published networks of this family factor a 3-D convolution into a spatial one (1, k, k) and a temporal one
(k, 1, 1). Both are computed here as 2-D convolutions over memory laid out (time, height, width, channel), which CPUs
do several times faster than the equivalent 3-D convolutions; parameters keep the published 3-D shapes and names. In
evaluation mode the batch norm is folded into the convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

BN_EPS, BN_MOMENTUM = 1e-3, 0.01


def batch_norm(dims: int, channels: int) -> nn.Module:
    """Batch norm over ``dims`` (1, 2 or 3) dimensions with the family's constants (epsilon 0.001, momentum 0.01)."""
    kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims]
    return kind(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


def _norm_relu(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    """Batch norm over the channels of a 4-D tensor, whatever its nominal dimension, then ReLU (training path)."""
    if norm.training and norm.track_running_stats:
        norm.num_batches_tracked.add_(1)
    x = F.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training, norm.momentum, norm.eps
    )
    return torch.relu(x)


def conv_norm_relu(
    x: torch.Tensor, weight: torch.Tensor, norm: nn.Module, stride: int = 1, padding: tuple[int, int] = (0, 0)
) -> torch.Tensor:
    """relu(norm(conv2d(x, weight))), the norm folded into the weights when it is in evaluation mode.

    Args:
        x: (N, C, H, W).
        weight: (C', C, kh, kw).
        norm: batch norm over C' channels.
        stride: the same along both axes.
        padding: zeros added along H and W.
    """
    if norm.training:
        return _norm_relu(F.conv2d(x, weight, None, stride, padding), norm)
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = weight * scale[:, None, None, None]
    bias = norm.bias - norm.running_mean * scale
    return torch.relu_(F.conv2d(x, weight.contiguous(memory_format=torch.channels_last), bias, stride, padding))


def spatial(x: torch.Tensor, conv: nn.Conv3d, norm: nn.BatchNorm3d) -> torch.Tensor:
    """(1, k, k) convolution, norm and ReLU on (N, C, H, W) frames."""
    return conv_norm_relu(x, conv.weight.squeeze(2), norm, conv.stride[1], tuple(conv.padding[1:]))


def temporal(x: torch.Tensor, clips: int, conv: nn.Conv3d, norm: nn.BatchNorm3d) -> torch.Tensor:
    """(k, 1, 1) convolution, norm and ReLU along time; clips never mix.

    Args:
        x: (clips * T, C, H, W), channels last in memory.
        clips: number of clips B.
        conv: with weight (C', C, k, 1, 1).
        norm: its batch norm.
    """
    n, c, h, w = x.shape
    # (B*T, C, H, W) channels-last is (B, T, H*W, C) in memory: a view, no copy.
    seen = x.permute(0, 2, 3, 1).reshape(clips, n // clips, h * w, c).permute(0, 3, 1, 2)
    y = conv_norm_relu(seen, conv.weight.squeeze(4), norm, 1, (conv.padding[0], 0))
    return y.permute(0, 2, 3, 1).reshape(n, h, w, -1).permute(0, 3, 1, 2)


def pointwise(x: torch.Tensor, conv: nn.Conv3d, norm: nn.BatchNorm3d) -> torch.Tensor:
    """1x1x1 convolution, norm and ReLU on (N, C, H, W) frames."""
    return conv_norm_relu(x, conv.weight.squeeze(2), norm)
