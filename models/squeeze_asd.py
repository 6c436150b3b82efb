"""Squeeze-ASD: our own network of three streams (sound, face, body) with the gates trained in.

Made as the light networks of the field are (Liao et al., "A Light Weight Model for Active Speaker Detection", arXiv
2303.04439): separable spatial and temporal convolutions on 112x112 gray crops, an encoder for MFCC, a small
bidirectional GRU. What differs: a body stream as in BIAS (Roxo et al., arXiv 2412.05150); a per-frame
squeeze-and-excitation block over [audio | face | body] that is trained with the rest; a learned state for a stream that
is not there; and mean pooling of the maps, so that all cells of a channel reach the fusion point alike.
"""

from __future__ import annotations

import torch
from torch import nn

from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.layers import batch_norm, conv_norm_relu, spatial, temporal
from asd_explain.models.output import Output
from asd_explain.models.registry import register
from asd_explain.models.se import SqueezeExcite

GRAY_MEAN, GRAY_STD = 0.4161, 0.1688  # of a gray value over 255, the family's
STEPS_PER_FRAME = 4
# Coefficient 0 is the natural logarithm of a window's energy in 16-bit units: -36 for digital silence, about 20 for
# speech. What is fainter than this is inaudible at 16 bits and is lifted to it, so that silence is no outlier.
ENERGY_FLOOR = 0.0


class _Spatial(nn.Module):
    """(1, k, k) convolution, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__()
        pad = size // 2
        self.conv = nn.Conv3d(inputs, outputs, (1, size, size), (1, stride, stride), (0, pad, pad), bias=False)
        self.norm = batch_norm(3, outputs)

    def forward(self, x: torch.Tensor, clips: int) -> torch.Tensor:
        del clips
        return spatial(x, self.conv, self.norm)


class _Temporal(nn.Module):
    """(5, 1, 1) convolution, norm, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, (5, 1, 1), 1, (2, 0, 0), bias=False)
        self.norm = batch_norm(3, channels)

    def forward(self, x: torch.Tensor, clips: int) -> torch.Tensor:
        return temporal(x, clips, self.conv, self.norm)


class _VisualEncoder(nn.Module):
    """(B, T, 112, 112) gray values 0..255 to maps (B, T, C, 14, 14), non-negative."""

    def __init__(self, stem: int, low: int, middle: int, high: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                _Spatial(1, stem, 5, 2),
                _Spatial(stem, low, 3, 2),
                _Temporal(low),
                _Spatial(low, middle, 3, 2),
                _Temporal(middle),
                _Spatial(middle, high, 3),
                _Temporal(high),
            ]
        )

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        clips, length, height, width = crops.shape
        x = (crops.to(self.layers[0].conv.weight.dtype) / 255 - GRAY_MEAN) / GRAY_STD
        x = x.reshape(clips * length, 1, height, width).to(memory_format=torch.channels_last)
        for layer in self.layers:
            x = layer(x, clips)
        return x.reshape(clips, length, *x.shape[1:])


class _AudioEncoder(nn.Module):
    """(B, 4T, 13) MFCC to (B, T, C), non-negative. Twice halved along time; a frame depends on 21 steps either side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Mean and standard deviation of the coefficients over speech and pauses, set by the training.
        self.register_buffer("mean", torch.zeros(13))
        self.register_buffer("std", torch.ones(13))
        widths = (13, channels // 2, 3 * channels // 4, channels, channels, channels)
        shapes = ((5, 1), (3, 2), (3, 2), (5, 1), (5, 1))
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, (1, size), (1, stride), (0, size // 2), bias=False)
            for a, b, (size, stride) in zip(widths, widths[1:], shapes, strict=False)
        )
        self.norms = nn.ModuleList(batch_norm(2, width) for width in widths[1:])

    @staticmethod
    def audible(audio: torch.Tensor) -> torch.Tensor:
        """(..., 13) MFCC with the energy of what is inaudible lifted to ``ENERGY_FLOOR``."""
        return torch.cat((audio[..., :1].clamp_min(ENERGY_FLOOR), audio[..., 1:]), -1)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        x = ((self.audible(audio) - self.mean) / self.std).to(self.convs[0].weight.dtype).transpose(1, 2).unsqueeze(2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = _along_time(x, conv, norm)
        return x.squeeze(2).transpose(1, 2)


def _along_time(x: torch.Tensor, conv: nn.Conv2d, norm: nn.Module) -> torch.Tensor:
    """(B, C, 1, S) through a (1, k) convolution whose stride acts along time only, norm and ReLU."""
    stride = conv.stride[1]
    # One row high: a stride along it does nothing, so the square stride of conv_norm_relu is that along time.
    return conv_norm_relu(x, conv.weight, norm, stride, conv.padding)


@register("squeeze_asd")
class SqueezeASD(FusionBackbone):
    """Three streams, per-frame gates over their concatenation, bidirectional GRU.

    Args:
        gated: whether there is a squeeze-and-excitation block; without it the rest is the same (for the comparison of
            the two).

    ``encode`` and ``forward`` take None for a stream that is not there; its embedding is then a learned vector, the
    same in every frame, and it has no map.
    """

    streams = {"audio": 128, "face": 128, "body": 96}  # noqa: RUF012
    # Three temporal convolutions of 5 reach 2 frames each; the audio's 21 steps are less than 6 frames.
    halo_frames = 6
    # Three padded convolutions of stride 2: cell i is centred on pixel 8 i.
    map_stride_px, map_offset_px = 8.0, 0.0
    learned_absence = True

    def __init__(self, gated: bool = True) -> None:
        super().__init__()
        audio, face, body = self.streams.values()
        total = audio + face + body
        self.face_encoder = _VisualEncoder(16, 32, 96, face)
        # Narrower than the face's: gestures are coarse, and a second picture may not cost as much as the first.
        self.body_encoder = _VisualEncoder(8, 24, 64, body)
        self.audio_encoder = _AudioEncoder(audio)
        self.absent = nn.ParameterDict(
            {stream: nn.Parameter(0.1 * torch.randn(width)) for stream, width in self.streams.items()}
        )
        self.norm = batch_norm(1, total)
        # Whether lips and sound go together is a question of products, which sums of features cannot answer.
        self.match_audio = nn.Linear(audio, 48)
        self.match_face = nn.Linear(face, 48)
        self.mix = nn.Linear(total + 48, 128)
        self.drop = nn.Dropout(0.3)
        self.gru = nn.GRU(128, 64, batch_first=True, bidirectional=True)
        self.head = nn.Linear(128, 2)
        # Last, so that everything else begins alike with and without it.
        if gated:
            self.attach_gates(SqueezeExcite(total, standardise=True))

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return self.audio_encoder(audio)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        return self.face_encoder(face)

    def body_maps(self, body: torch.Tensor) -> torch.Tensor:
        """(B, T, 112, 112) gray values 0..255 to maps (B, T, 96, 14, 14)."""
        return self.body_encoder(body)

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.mean((-2, -1))

    def forward(
        self,
        face: torch.Tensor | None,
        audio: torch.Tensor | None,
        body: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
    ) -> Output:
        """Score B tracks of T grid frames.

        Args:
            face: (B, T, 112, 112) gray values 0..255 of the face box, or None.
            audio: (B, 4T, 13) MFCC of the TalkNet family, or None where there is no sound track (silence is sound).
            body: (B, T, 112, 112) gray values 0..255 of the body box, or None.
            context: ignored.

        Raises:
            ValueError: when all are None, or audio has not exactly four steps a frame.
        """
        del context
        return self.fuse(*self.encode(face, audio, body))

    def encode(
        self, face: torch.Tensor | None, audio: torch.Tensor | None, body: torch.Tensor | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        given = next((x for x in (face, body) if x is not None), None)
        if given is None and audio is None:
            raise ValueError("face, audio and body are all None; at least one stream is needed")
        if face is not None and body is not None and face.shape[:2] != body.shape[:2]:
            raise ValueError(
                f"face and body differ in clips or frames: {tuple(face.shape[:2])}, {tuple(body.shape[:2])}"
            )
        if audio is not None:
            length = audio.shape[1] // STEPS_PER_FRAME if given is None else given.shape[1]
            self.check_sound(audio, length)
        maps = {}
        if face is not None:
            maps["face"] = self.face_maps(face)
        if body is not None:
            maps["body"] = self.body_maps(body)
        pooled = {stream: self.pool(values) for stream, values in maps.items()}
        if audio is not None:
            pooled["audio"] = self.audio_embedding(audio)
        return pooled, maps

    def scale_logits(self, factor: float) -> None:
        """Multiply every logit by a factor, for instance the inverse of a temperature fitted on held-back data."""
        with torch.no_grad():
            self.head.weight.mul_(factor)
            self.head.bias.mul_(factor)

    def classify(self, audio: torch.Tensor, face: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
        x = torch.cat((audio, face, body), -1)
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        sound, lips, _ = x.split(list(self.streams.values()), -1)
        match = self.match_audio(sound) * self.match_face(lips)
        x = torch.relu(self.mix(torch.cat((x, match), -1)))
        return self.head(self.drop(self.gru(self.drop(x))[0]))
