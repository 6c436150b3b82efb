"""TalkNet (Tao et al., ACM MM 2021, arXiv 2107.06592), written anew; loads the published checkpoints.

Audio and face embeddings ask each other (cross-attention), are concatenated, and attend to themselves.
"""

from __future__ import annotations

import torch
from torch import nn

from asd_explain.models.projected import ProjectedBackbone
from asd_explain.models.registry import register
from asd_explain.models.talknet_audio import AUDIO_CONTEXT_FRAMES, GatedAudioEncoder
from asd_explain.models.talknet_layers import (
    EMBEDDING_WIDTH,
    TRUNK_WIDTH,
    Attention,
    VisualTrunk,
    embed_visual,
    temporal_head,
    temporal_units,
)


@register("talknet")
class TalkNet(ProjectedBackbone):
    """TalkNet: 15.7 M parameters, face maps of 512 channels at 4x4, attention over the whole clip.

    The fusion point lies behind the cross-attention, before the self-attention. The published network has no
    squeeze-and-excitation block there nor at the end of its trunk; both can be attached. Keys of the published state
    dict: ``model.visualFrontend.*``, ``model.visualTCN.*``, ``model.visualConv1D.*``, ``model.audioEncoder.*``,
    ``model.crossA2V.*``, ``model.crossV2A.*``, ``model.selfAV.*`` and the heads ``lossAV``, ``lossA``, ``lossV``.
    """

    streams = {"audio": EMBEDDING_WIDTH, "face": TRUNK_WIDTH}  # noqa: RUF012
    audio_context_frames = AUDIO_CONTEXT_FRAMES
    idle = ("lossA", "lossV", "model.visualFrontend.resnet.layer1.downsample")

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleDict(
            {
                "visualFrontend": VisualTrunk(),
                "visualTCN": temporal_units(),
                "visualConv1D": temporal_head(),
                "audioEncoder": GatedAudioEncoder(),
                "crossA2V": Attention(EMBEDDING_WIDTH),
                "crossV2A": Attention(EMBEDDING_WIDTH),
                "selfAV": Attention(2 * EMBEDDING_WIDTH),
            }
        )
        self.lossAV = nn.ModuleDict({"FC": nn.Linear(2 * EMBEDDING_WIDTH, 2)})
        self.lossA = nn.ModuleDict({"FC": nn.Linear(EMBEDDING_WIDTH, 2)})
        self.lossV = nn.ModuleDict({"FC": nn.Linear(EMBEDDING_WIDTH, 2)})

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return self.model["audioEncoder"](audio)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        return self.model["visualFrontend"](face)

    def face_embedding(self, pooled: torch.Tensor) -> torch.Tensor:
        """(B, T, 512) spatial mean of the face maps to the face's embedding (B, T, 128)."""
        return embed_visual(self.gated_pool("face", pooled), self.model["visualTCN"], self.model["visualConv1D"])

    def at_fusion(self, pooled: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        audio, face = pooled["audio"], self.face_embedding(pooled["face"])
        return {"audio": self.model["crossA2V"](audio, face), "face": self.model["crossV2A"](face, audio)}

    def classify(self, audio: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        x = torch.cat((audio, face), -1)
        return self.lossAV["FC"](self.model["selfAV"](x, x))
