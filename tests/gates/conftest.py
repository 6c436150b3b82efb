"""A tiny frozen network whose decision is known, and face tracks made of noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from asd_explain.evaluate.pooled import PooledTrack
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.weights.cards import Card


class TinyNetwork(FusionBackbone):
    """Says "speaking" by channel 3 of the audio and channel 1 of the face; nothing else matters."""

    streams = {"audio": 16, "face": 16}  # noqa: RUF012
    halo_frames = 2

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        energy = audio[..., :1].unflatten(1, (-1, 4)).mean(2) / 10
        return energy * torch.linspace(-1, 1, 16)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        rows = face.float().mean(-1) / 255
        return rows[:, :, :16, None, None].expand(-1, -1, -1, 2, 2)

    def classify(self, audio: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        margin = 4 * audio[..., 3] + 4 * face[..., 1] - 1
        return torch.stack((torch.zeros_like(margin), margin), -1)


@pytest.fixture
def tiny() -> TinyNetwork:
    model = TinyNetwork().eval().requires_grad_(False)
    model.card = Card("tiny", "network", "tiny.model", "0" * 64, 1, "MIT", "made up", model="tiny", geometry="box")
    model.weights_sha256 = "0" * 64
    return model


def make_track(person: str, seed: int, split: str = "fit", length: int = 40, has_audio: bool = True) -> PooledTrack:
    generator = torch.Generator().manual_seed(seed)
    audio, face = (torch.randn(length, 16, generator=generator) for _ in range(2))
    if not has_audio:
        audio = torch.zeros_like(audio)
    return PooledTrack(
        name=f"single/{person}_{seed}#1",
        split=split,
        group="single",
        person=person,
        has_audio=has_audio,
        times_s=np.arange(length) / 25,
        boxes=np.tile(np.array([10, 10, 50, 60], np.float32), (length, 1)),
        size=(100, 100),
        audio=audio,
        face=face,
        still=face[length // 2].expand(length, -1),
        voiced=np.full(length, has_audio),
    )


@pytest.fixture
def tracks() -> list[PooledTrack]:
    return [
        make_track(f"person_{i}", 10 * j + i, split)
        for j, split in enumerate(("fit", "dev", "test"))
        for i in range(6 if split == "fit" else 3)
    ]
