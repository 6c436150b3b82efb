"""BIAS (Roxo et al., arXiv 2412.05150), written anew; loads the published checkpoints.

TalkNet's encoders for face, body and sound, each stream attending to itself, and squeeze-and-excitation blocks where
the authors look for an explanation: at the end of both visual trunks and over the concatenation of the streams.
"""

from __future__ import annotations

import torch
from torch import nn

from asd_explain.models.projected import ProjectedBackbone
from asd_explain.models.registry import register
from asd_explain.models.se import SqueezeExcite
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

_FUSED = 3 * EMBEDDING_WIDTH
#: Layers in the published state that nothing calls, with their widths.
_IDLE_ATTENTION = {
    "crossA2V": EMBEDDING_WIDTH,
    "crossV2A": EMBEDDING_WIDTH,
    "selfAV": 2 * EMBEDDING_WIDTH,
    "selfABV": 2 * EMBEDDING_WIDTH,
    "selfComb": EMBEDDING_WIDTH,
    "comb_att_2": 2 * EMBEDDING_WIDTH,
}


class _PublishedBlock(SqueezeExcite):
    """A block without biases, 16-fold reduction, its two layers under the published keys ``fc.0`` and ``fc.2``."""

    def __init__(self, channels: int, scope: str, idle_width: int | None = None) -> None:
        super().__init__(channels, scope=scope, bias=False)
        reduce, expand = self.reduce, self.expand
        del self.reduce, self.expand
        self.fc = nn.ModuleDict({"0": reduce, "2": expand})
        if idle_width is not None:
            self.fc_comb = nn.ModuleDict({"0": nn.Linear(channels, idle_width, bias=False)})

    def __getattr__(self, name: str) -> object:
        # The names by which tools find a block's layers.
        if name in ("reduce", "expand") and name not in self._modules:
            return self.fc["0" if name == "reduce" else "2"]
        return super().__getattr__(name)


@register("bias")
class BIAS(ProjectedBackbone):
    """BIAS: 33.1 M parameters, face and body maps of 512 channels at 4x4, three blocks.

    Args:
        scope: of all three blocks. "clip" is as published: one gate vector for the clip, which changes with its
            length. "frame" is ours: one a frame, from the same parameters.

    Keys of the published state dict: for face and body (suffix ``Body``) ``model.visualFrontend``, ``visualTCN``,
    ``visualConv1D``; ``model.audioEncoder``; ``a_att``, ``v_att``, ``vb_att``, ``comb_att`` and six idle attentions;
    ``se.fc``, the fusion block; the heads ``lossComb`` (the verdict), ``lossA``, ``lossV``, ``lossVB``, ``lossFBA``.
    """

    streams = {"audio": EMBEDDING_WIDTH, "face": TRUNK_WIDTH, "body": TRUNK_WIDTH}  # noqa: RUF012
    audio_context_frames = AUDIO_CONTEXT_FRAMES
    idle = (
        *(f"model.{name}" for name in _IDLE_ATTENTION),
        *(f"model.visualFrontend{suffix}.resnet.layer1.downsample" for suffix in ("", "Body")),
        *(f"loss{name}" for name in ("A", "V", "VB", "FBA")),
        "se.fc_comb",
    )

    def __init__(self, scope: str = "clip") -> None:
        super().__init__()
        parts: dict[str, nn.Module] = {"audioEncoder": GatedAudioEncoder()}
        for suffix in ("", "Body"):
            parts[f"visualFrontend{suffix}"] = VisualTrunk(gate=_PublishedBlock(TRUNK_WIDTH, scope))
            parts[f"visualTCN{suffix}"] = temporal_units()
            parts[f"visualConv1D{suffix}"] = temporal_head()
        parts |= {name: Attention(width) for name, width in _IDLE_ATTENTION.items()}
        parts |= {name: Attention(EMBEDDING_WIDTH) for name in ("a_att", "v_att", "vb_att")}
        parts["comb_att"] = Attention(_FUSED)
        self.model = nn.ModuleDict(parts)
        self.se = _PublishedBlock(_FUSED, scope, idle_width=_FUSED // 3)
        for name, width in (("A", 128), ("V", 128), ("VB", 128), ("FBA", 128), ("Comb", _FUSED)):
            self.add_module(f"loss{name}", nn.ModuleDict({"FC": nn.Linear(width, 2)}))

    @property
    def fusion_gate(self) -> SqueezeExcite | None:
        """The block over [audio | face | body]; published under the name ``se``."""
        return self._modules.get("se")

    @fusion_gate.setter
    def fusion_gate(self, block: SqueezeExcite | None) -> None:
        self.se = block

    def attach_gates(self, block: SqueezeExcite | None) -> None:
        self._check_width(block, _FUSED, "the fusion point")
        self.se = block

    def trunk_gate(self, stream: str) -> SqueezeExcite | None:
        trunk = self.model["visualFrontend" if stream == "face" else "visualFrontendBody"]
        return trunk.resnet.se

    def attach_trunk_gates(self, stream: str, block: SqueezeExcite | None) -> None:
        super().attach_trunk_gates(stream, None)
        self._check_width(block, TRUNK_WIDTH, f"the trunk of {stream}")
        self.model["visualFrontend" if stream == "face" else "visualFrontendBody"].resnet.se = block

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return self.model["audioEncoder"](audio)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        return self.model["visualFrontend"](face)

    def body_maps(self, body: torch.Tensor) -> torch.Tensor:
        """(B, T, 112, 112) gray values 0..255 to maps (B, T, 512, 4, 4)."""
        return self.model["visualFrontendBody"](body)

    def encode(
        self, face: torch.Tensor, audio: torch.Tensor | None, body: torch.Tensor | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        if body is None:
            raise ValueError("BIAS needs the body's crops as well")
        pooled, maps = super().encode(face, audio)
        maps["body"] = self.body_maps(body)
        return pooled | {"body": self.pool(maps["body"])}, maps

    def visual_embedding(self, stream: str, pooled: torch.Tensor) -> torch.Tensor:
        """(B, T, 512) spatial mean of a stream's ungated maps to its embedding (B, T, 128), before its attention."""
        suffix = "" if stream == "face" else "Body"
        units, head = self.model[f"visualTCN{suffix}"], self.model[f"visualConv1D{suffix}"]
        return embed_visual(self.gated_pool(stream, pooled), units, head)

    def at_fusion(self, pooled: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        vectors = {
            "audio": pooled["audio"],
            "face": self.visual_embedding("face", pooled["face"]),
            "body": self.visual_embedding("body", pooled["body"]),
        }
        names = {"audio": "a_att", "face": "v_att", "body": "vb_att"}
        return {stream: self.model[names[stream]](x, x) for stream, x in vectors.items()}

    def classify(self, audio: torch.Tensor, face: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
        x = torch.cat((audio, face, body), -1)
        return self.lossComb["FC"](self.model["comb_att"](x, x))
