"""LoCoNet (Wang et al., arXiv 2301.08237), written anew; loads the published checkpoints.

Several candidates of one picture are scored together: TalkNet's face trunk and cross-attention for each, then three
times a convolution over candidates and 7 frames ("short-term inter-speaker") and an attention over the whole clip
("long-term intra-speaker"). Sound comes as a log-mel spectrogram into a VGGish (Hershey et al., arXiv 1609.09430).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from asd_explain.models.projected import ProjectedBackbone
from asd_explain.models.registry import register
from asd_explain.models.talknet_layers import (
    EMBEDDING_WIDTH,
    TRUNK_WIDTH,
    Attention,
    VisualTrunk,
    embed_visual,
    temporal_head,
    temporal_units,
)

CANDIDATES = 3
_FUSED = 2 * EMBEDDING_WIDTH
_STEPS_A_COLUMN = 8  # audio steps that the VGGish's deepest maps have one column for


class _LogMelEncoder(nn.Module):
    """(B, 4T, 64) log-mel to (B, T, 128): VGGish's convolutions, its maps at 4 and at 8 steps a column joined."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for convs in ((64,), (128,), (256, 256), (512, 512)):
            for outputs in convs:
                layers += [nn.Conv2d(width, outputs, 3, padding=1), nn.ReLU()]
                width = outputs
            if width < 512:
                layers.append(nn.MaxPool2d(2, 2))
        # The third pool is where the maps of 4 steps a column end.
        self.fine = next(i for i, layer in enumerate(layers) if i > 5 and isinstance(layer, nn.MaxPool2d))
        self.features = nn.Sequential(*layers)
        self.deconv = nn.ConvTranspose2d(512, 256, 2, 2)
        self.conv1 = nn.Conv2d(512, 256, 1)
        self.conv2 = nn.Conv2d(256, 128, 1)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        steps = audio.shape[1]
        x = audio.to(self.conv1.weight.dtype).unsqueeze(1)
        # As published: filled up with zeros to the next multiple of 8, and by 8 where it is one already.
        x = F.pad(x, (0, 0, 0, _STEPS_A_COLUMN - steps % _STEPS_A_COLUMN))
        fine = self.features[: self.fine](x)
        coarse = self.deconv(self.features[self.fine :](fine))
        x = self.conv2(self.conv1(torch.cat((fine, coarse), 1)))
        return x.mean(-1)[..., : steps // 4].transpose(1, 2)


class _AcrossCandidates(nn.Module):
    """Convolution over all candidates and 7 frames, then a pointwise hidden layer; residual. (B, S, T, C) to the same.

    The weights differ by place: the first candidate is the one that the others are context of.
    """

    def __init__(self, channels: int, candidates: int) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(channels, channels * candidates, (candidates, 7), padding=(0, 3))
        self.ln = nn.LayerNorm(channels)
        self.conv2d_1x1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2d_1x1_2 = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        clips, candidates, length, channels = x.shape
        y = self.conv2d(x.permute(0, 3, 1, 2)).reshape(clips, channels, candidates, length)
        y = self.ln(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = self.conv2d_1x1_2(F.gelu(self.conv2d_1x1(y)))
        return x + y.permute(0, 2, 3, 1)


@register("loconet")
class LoCoNet(ProjectedBackbone):
    """LoCoNet: 34.3 M parameters, scores one candidate beside up to two others of the same picture.

    ``context`` (B, T, K, 112, 112) holds the other candidates' faces, black in frames in which one is not there. More
    than two: the first two count. Fewer: as the published loader does, the others are repeated, and **a face alone
    stands in all three places**. (The loader draws which one is repeated; here they come in turn.) The logits,
    gates and maps are the first candidate's.

    Sound is a log-mel spectrogram (B, 4T, 64), see :mod:`asd_explain.media.log_mel`. The fusion point lies behind the
    cross-attention, before the candidates meet; a block attached there weighs every candidate's vector. Keys of the
    published state dict: ``model.visualFrontend.*``, ``visualTCN``, ``visualConv1D``, ``audioEncoder`` (features,
    deconv, conv1, conv2), ``crossA2V``, ``crossV2A``, ``convAV.0`` to ``.5``, and the heads ``lossAV``, ``lossA``,
    ``lossV``.
    """

    streams = {"audio": EMBEDDING_WIDTH, "face": TRUNK_WIDTH}  # noqa: RUF012
    audio_feature, audio_width = "log_mel", 64
    scored_together = CANDIDATES
    # The VGGish reaches 44 steps to either side; pieces must begin at an even frame, its deepest maps hold two in one.
    audio_context_frames = 12
    idle = ("lossA", "lossV")
    begun_part = "model.audioEncoder"

    def __init__(self) -> None:
        super().__init__()
        across = [part for _ in range(3) for part in (_AcrossCandidates(_FUSED, CANDIDATES), Attention(_FUSED))]
        self.model = nn.ModuleDict(
            {
                "visualFrontend": VisualTrunk(spare_downsample=False),
                "visualTCN": temporal_units(),
                "visualConv1D": temporal_head(),
                "audioEncoder": _LogMelEncoder(),
                "crossA2V": Attention(EMBEDDING_WIDTH),
                "crossV2A": Attention(EMBEDDING_WIDTH),
                "convAV": nn.ModuleList(across),
            }
        )
        self.lossAV = nn.ModuleDict({"FC": nn.Linear(_FUSED, 2)})
        self.lossA = nn.ModuleDict({"FC": nn.Linear(EMBEDDING_WIDTH, 2)})
        self.lossV = nn.ModuleDict({"FC": nn.Linear(EMBEDDING_WIDTH, 2)})

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        """(B, 4T, 64) log-mel to (B, T, 128)."""
        return self.model["audioEncoder"](audio)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        return self.model["visualFrontend"](face)

    def forward(
        self,
        face: torch.Tensor,
        audio: torch.Tensor,
        body: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
    ):
        return self.fuse(*self.encode(face, audio, body, context))

    def encode(
        self,
        face: torch.Tensor,
        audio: torch.Tensor | None,
        body: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """See the base; pooled["context"] (B, T, K, 512) are the other candidates' pooled maps, K up to two.

        Raises:
            ValueError: context has other clips or frames than face.
        """
        pooled, maps = super().encode(face, audio)
        if context is not None and context.shape[2]:
            if context.dim() != 5 or context.shape[:2] != face.shape[:2]:
                raise ValueError(f"context {tuple(context.shape)} does not go with face {tuple(face.shape)}")
            others = context[:, :, : CANDIDATES - 1].unbind(2)
            pooled["context"] = torch.stack([self.pool(self.face_maps(other)) for other in others], 2)
        return pooled, maps

    def face_embedding(self, pooled: torch.Tensor) -> torch.Tensor:
        """(B, T, 512) spatial mean of the face maps to the face's embedding (B, T, 128)."""
        return embed_visual(self.gated_pool("face", pooled), self.model["visualTCN"], self.model["visualConv1D"])

    def at_fusion(self, pooled: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self._meet(pooled["audio"], pooled["face"])

    def _meet(self, audio: torch.Tensor, face: torch.Tensor) -> dict[str, torch.Tensor]:
        face = self.face_embedding(face)
        return {"audio": self.model["crossA2V"](audio, face), "face": self.model["crossV2A"](face, audio)}

    def meet(self, audio: torch.Tensor, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        """Ungated fusion vectors of S candidates that share a sound, {stream: (B, S, T, 128)}.

        Args:
            audio: (B, T, 128) embedding.
            faces: (B, S, T, 512) pooled maps.
        """
        clips, places = faces.shape[:2]
        met = self._meet(audio.repeat_interleave(places, 0), faces.flatten(0, 1))
        return {stream: vectors.unflatten(0, (clips, places)) for stream, vectors in met.items()}

    def across(self, vectors: torch.Tensor) -> torch.Tensor:
        """Gated fusion vectors of all places (B, 3, T, 256) to their logits (B, 3, T, 2)."""
        clips, places = vectors.shape[:2]
        x = vectors
        for i in range(0, len(self.model["convAV"]), 2):
            x = self.model["convAV"][i](x).flatten(0, 1)
            x = self.model["convAV"][i + 1](x, x).unflatten(0, (clips, places))
        return self.lossAV["FC"](x)

    def verdict(self, gated: tuple[torch.Tensor, ...], pooled: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.candidates(torch.cat(gated, -1), pooled)[:, 0]

    def candidates(self, first: torch.Tensor, pooled: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits (B, 3, T, 2) of all places, given the first one's gated fusion vector (B, T, 256)."""
        others: list[torch.Tensor] = []
        if "context" in pooled:
            met = self.meet(pooled["audio"], pooled["context"].transpose(1, 2))
            others = list(torch.cat(list(met.values()), -1).unbind(1))
            if self.fusion_gate is not None:
                others = [self.fusion_gate(vector) for vector in others]
        filled = [(others or [first])[i % max(len(others), 1)] for i in range(CANDIDATES - 1)]
        return self.across(torch.stack([first, *filled], 1))

    def classify(self, audio: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        """As of a face alone."""
        return self.candidates(torch.cat((audio, face), -1), {})[:, 0]
