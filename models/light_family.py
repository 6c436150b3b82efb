"""What Light-ASD and LR-ASD share: three-block encoders of 128 channels, map geometry, heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from asd_explain.models.fusion_backbone import FusionBackbone

FACE_MEAN, FACE_STD = 0.4161, 0.1688


class _Encoder(nn.Module):
    """Three blocks of 32, 64 and 128 channels."""

    def __init__(self, block: type[nn.Module], **first: int) -> None:
        super().__init__()
        self.block1 = block(1, 32, **first)
        self.block2 = block(32, 64)
        self.block3 = block(64, 128)


class LightFamily(FusionBackbone):
    """Base of the two: encoders, heads, and where a map's cells lie.

    Args:
        visual_block: ``(inputs, outputs, stride)`` to a block that maps (B*T, C, H, W) frames, given the clips B.
        audio_block: ``(inputs, outputs)`` to a block that maps (B, C, 13, steps).
        behind: the modules behind the fusion point, by their published names.
    """

    streams = {"audio": 128, "face": 128}  # noqa: RUF012
    # Strides 2 (padded convolutions), 2 and 2 (3x3 pools, padding 1): cell i is centred on pixel 8 i.
    map_stride_px, map_offset_px = 8.0, 0.0
    # The head of the faces alone, with which the published networks were trained.
    idle = ("lossV",)

    def __init__(self, visual_block: type[nn.Module], audio_block: type[nn.Module], **behind: nn.Module) -> None:
        super().__init__()
        encoders = {"visualEncoder": _Encoder(visual_block, stride=2), "audioEncoder": _Encoder(audio_block)}
        self.model = nn.ModuleDict({**encoders, **behind})
        self.lossAV = nn.ModuleDict({"FC": nn.Linear(128, 2)})
        self.lossV = nn.ModuleDict({"FC": nn.Linear(128, 2)})

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return encode_audio(self.model["audioEncoder"], audio)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        return encode_face(self.model["visualEncoder"], face)


def encode_face(encoder: nn.Module, face: torch.Tensor) -> torch.Tensor:
    """(B, T, 112, 112) gray values through three visual blocks with max pools between: maps (B, T, C, 14, 14)."""
    clips, length, height, width = face.shape
    x = (face.to(next(encoder.parameters()).dtype) / 255 - FACE_MEAN) / FACE_STD
    x = x.reshape(clips * length, 1, height, width).to(memory_format=torch.channels_last)
    x = F.max_pool2d(encoder.block1(x, clips), 3, 2, 1)
    x = F.max_pool2d(encoder.block2(x, clips), 3, 2, 1)
    x = encoder.block3(x, clips)
    return x.reshape(clips, length, *x.shape[1:])


def encode_audio(encoder: nn.Module, audio: torch.Tensor) -> torch.Tensor:
    """(B, 4T, 13) MFCC through three audio blocks with max pools along time between: (B, T, C)."""
    x = audio.to(next(encoder.parameters()).dtype).transpose(1, 2).unsqueeze(1)
    x = x.to(memory_format=torch.channels_last)
    x = F.max_pool2d(encoder.block1(x), (1, 3), (1, 2), (0, 1))
    x = F.max_pool2d(encoder.block2(x), (1, 3), (1, 2), (0, 1))
    return encoder.block3(x).mean(2).transpose(1, 2)
