"""ASDnB (Roxo et al.), written anew; loads the published checkpoints.

Light-ASD's visual blocks for face and body, crossed twice: the face's first maps are added to the body's, and both
streams' second maps are added to one. TalkNet's audio encoder; Light-ASD's classifier.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.light_asd import Recurrent, VisualBlock
from asd_explain.models.light_family import FACE_MEAN, FACE_STD
from asd_explain.models.registry import register
from asd_explain.models.talknet_audio import AUDIO_CONTEXT_FRAMES, GatedAudioEncoder


class _CrossedEncoder(nn.Module):
    """Face and body crops (B, T, 112, 112), standardised, to one stack of maps (B, T, 128, 14, 14)."""

    def __init__(self) -> None:
        super().__init__()
        for picture in ("face", "body"):
            self.add_module(f"block1_{picture}", VisualBlock(1, 32, 2))
            self.add_module(f"block2_{picture}", VisualBlock(32, 64))
        self.block3 = VisualBlock(64, 128)

    def forward(self, face: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
        clips, length, height, width = face.shape
        face, body = (
            x.reshape(clips * length, 1, height, width).to(memory_format=torch.channels_last) for x in (face, body)
        )
        face = F.max_pool2d(self.block1_face(face, clips), 3, 2, 1)
        body = F.max_pool2d(self.block1_body(body, clips), 3, 2, 1) + face
        face = F.max_pool2d(self.block2_face(face, clips), 3, 2, 1)
        body = F.max_pool2d(self.block2_body(body, clips), 3, 2, 1)
        x = self.block3(face + body, clips)
        return x.reshape(clips, length, *x.shape[1:])


@register("asdnb")
class ASDnB(FusionBackbone):
    """ASDnB: 2.2 M parameters, one stack of maps of 128 channels at 14x14 for face and body together.

    Its two pictures are laid over each other before the last block, so there is one visual stream, called "face", with
    one map: heat in the face's crop may stem from the body's crop at the same place. ``face_maps`` takes the body's
    crops beside the face's. Without them the body is a picture of the mean gray, which is what convolutions pad with;
    the published network is always given one. The block stands over [audio | visual], before the two are added.

    Keys of the published state dict: ``model.visualEncoder.*``, ``model.audioEncoder.*``, ``model.GRU.*``, and the
    heads ``lossAV.FC`` (the verdict), ``lossV.FC``, ``lossA.FC``, ``lossVB.FC``.
    """

    streams = {"audio": 128, "face": 128}  # noqa: RUF012
    # Three blocks reach 2 frames each.
    halo_frames = 6
    # Strides 2 (padded convolutions), 2 and 2 (3x3 pools, padding 1): cell i is centred on pixel 8 i.
    map_stride_px, map_offset_px = 8.0, 0.0
    audio_context_frames = AUDIO_CONTEXT_FRAMES
    beside = {"face": ("body",)}  # noqa: RUF012
    idle = ("lossV", "lossA", "lossVB")

    def __init__(self) -> None:
        super().__init__()
        parts = {"visualEncoder": _CrossedEncoder(), "audioEncoder": GatedAudioEncoder(), "GRU": Recurrent(128)}
        self.model = nn.ModuleDict(parts)
        for name in ("AV", "V", "A", "VB"):
            self.add_module(f"loss{name}", nn.ModuleDict({"FC": nn.Linear(128, 2)}))

    @property
    def crops(self) -> tuple[str, ...]:
        return ("face", "body")

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return self.model["audioEncoder"](audio)

    def face_maps(self, face: torch.Tensor, body: torch.Tensor | None = None) -> torch.Tensor:
        dtype = self.model["GRU"].gru_forward.weight_ih_l0.dtype
        seen = [None if x is None else (x.to(dtype) / 255 - FACE_MEAN) / FACE_STD for x in (face, body)]
        return self.model["visualEncoder"](seen[0], torch.zeros_like(seen[0]) if seen[1] is None else seen[1])

    def encode(
        self, face: torch.Tensor, audio: torch.Tensor | None, body: torch.Tensor | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        maps = self.face_maps(face, body)
        pooled = {"face": self.pool(maps)}
        if audio is not None:
            self.check_sound(audio, face.shape[1])
            pooled["audio"] = self.audio_embedding(audio)
        return pooled, {"face": maps}

    def classify(self, audio: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        return self.lossAV["FC"](self.model["GRU"](audio + face))
