"""A network of three streams with gates that are known, and tracks whose shares can be computed by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from asd_explain.evaluate.pooled import PooledTrack
from asd_explain.evaluate.stream_views import TINY, ViewedTrack
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.output import Output
from asd_explain.models.se import SqueezeExcite
from asd_explain.weights.cards import Card

GATES = (0.5, 0.5, 0.25, 0.25, 0.25, 0.25)


class KnownGates(FusionBackbone):
    """Two channels a stream, gates ``GATES`` whatever comes; the margin is the sum of all gated channels minus 4."""

    streams = {"audio": 2, "face": 2, "body": 2}  # noqa: RUF012
    halo_frames = 1
    learned_absence = True

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        block = SqueezeExcite(6)
        for layer in (block.reduce, block.expand):
            nn.init.zeros_(layer.weight)
        with torch.no_grad():
            block.expand.bias.copy_(torch.tensor(GATES).logit())
        self.attach_gates(block)
        self.card = Card("known", "network", "x", "0" * 64, 1, "MIT", "made up", model="known", geometry="box")
        self.weights_sha256 = "0" * 64
        self.eval().requires_grad_(False)

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        """The energy, 0 for silence."""
        return audio[..., :1].clamp_min(0).unflatten(1, (-1, 4)).mean(2).expand(-1, -1, 2) / 10

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        return face.float().mean((-2, -1))[:, :, None, None, None].expand(-1, -1, 2, 2, 2) / 100

    body_maps = face_maps

    def classify(self, *streams: torch.Tensor) -> torch.Tensor:
        margin = torch.cat(streams, -1).sum(-1) - 4
        return torch.stack((torch.zeros_like(margin), margin), -1)

    def fuse(self, pooled: dict[str, torch.Tensor], maps: dict[str, torch.Tensor] | None = None) -> Output:
        """A stream that is not there is zero."""
        shape = next(iter(pooled.values())).shape
        return super().fuse({s: pooled.get(s, torch.zeros(shape)) for s in self.streams}, maps)


def known_track(person: str, *, audio: float = 2.0, has_audio: bool = True, length: int = 30) -> ViewedTrack:
    """Channel 0 of the audio is ``audio``, of the face 4, of the body 8 (of the tiny face 2); channel 1 is 0."""

    def constant(value: float) -> torch.Tensor:
        return torch.tensor([value, 0.0]).expand(length, -1)

    track = PooledTrack(
        name=f"single/{person}#1",
        split="test",
        group="single",
        person=person,
        has_audio=has_audio,
        times_s=np.arange(length) / 25,
        boxes=np.tile(np.array([10, 10, 50, 60], np.float32), (length, 1)),
        size=(100, 100),
        audio=constant(audio),
        face=constant(4.0),
        still=constant(4.0),
        voiced=np.arange(length) < length // 2 if has_audio else np.zeros(length, bool),
    )
    own = {"face": constant(4.0), "body": constant(8.0)}
    views = {"own": own, "still": own, "hidden": {"body": constant(6.0)}}
    return ViewedTrack(track, views | {name: {"face": constant(2.0), "body": constant(8.0)} for name in TINY})
