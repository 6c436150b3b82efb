"""Tiny networks whose decision is known, and face clips that say who talks by the brightness of their pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from asd_explain.datasets.face_clips import FaceClip
from asd_explain.datasets.shared_clips import ClipEntry
from asd_explain.media.audio import Audio
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.weights.cards import Card


class TinyNetwork(FusionBackbone):
    """Says "speaking" where the sound is loud and the picture flickers; whether they go together it cannot tell."""

    streams = {"audio": 4, "face": 4}  # noqa: RUF012
    halo_frames = 2

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return audio[..., :1].unflatten(1, (-1, 4)).mean(2).expand(-1, -1, 4) / 20

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        light = face.float().mean((-2, -1)) / 255
        moved = (light - light.roll(1, 1)).abs() + (light - light.roll(-1, 1)).abs()
        return moved[:, :, None, None, None].expand(-1, -1, 4, 2, 2)

    def classify(self, *streams: torch.Tensor) -> torch.Tensor:
        loud, moved = 20 * streams[0][..., 0] - 17, 20 * sum(s[..., 0] for s in streams[1:]) - 1
        margin = torch.minimum(loud, moved)
        return torch.stack((torch.zeros_like(margin), margin), -1)


class TinyBodyNetwork(TinyNetwork):
    """The same with a body; a sound that is not there counts as loud, a picture as still."""

    streams = {"audio": 4, "face": 4, "body": 4}  # noqa: RUF012
    learned_absence = True

    def __init__(self) -> None:
        super().__init__()
        self.absent = {s: torch.full((4,), 2.0 if s == "audio" else 0.0) for s in self.streams}

    def body_maps(self, body: torch.Tensor) -> torch.Tensor:
        return self.face_maps(body)

    def encode(
        self, face: torch.Tensor | None, audio: torch.Tensor | None, body: torch.Tensor | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        pooled = {} if audio is None else {"audio": self.audio_embedding(audio)}
        for stream, crops in (("face", face), ("body", body)):
            if crops is not None:
                pooled[stream] = self.pool(self.face_maps(crops))
        return pooled, {}


def as_loaded(model: FusionBackbone, name: str) -> FusionBackbone:
    model.card = Card(name, "network", "x", "0" * 64, 1, "MIT", "made up", model=name, geometry="box")
    model.weights_sha256 = "0" * 64
    return model.eval().requires_grad_(False)


@pytest.fixture
def tiny() -> TinyNetwork:
    return as_loaded(TinyNetwork(), "tiny")


@pytest.fixture
def tiny_body() -> TinyBodyNetwork:
    return as_loaded(TinyBodyNetwork(), "tiny_body")


def make_clip(entry: ClipEntry, seed: int, *, moving: bool, voice: bool = True, length: int = 40) -> FaceClip:
    """A face that flickers (talks) or not, under noise as loud as speech or without an audio track."""
    rng = np.random.default_rng(seed)
    light = rng.integers(60, 200, length) if moving else np.full(length, 120)
    face = np.broadcast_to(light[:, None, None], (length, 112, 112)).astype(np.uint8)
    wave = (0.1 * rng.standard_normal(640 * length)).astype(np.float32)
    audio = Audio(wave, 0.0) if voice else None
    return FaceClip(
        entry=entry,
        track_id=1,
        start_s=0.0,
        boxes=np.tile(np.array([100, 50, 140, 100], np.float32), (length, 1)),
        size=(320, 240),
        faces={"box": face, "demo": face},
        wide=np.zeros((length, 160, 160), np.uint8),
        bodies=face,
        mfcc=aligned_mfcc(audio, 0.0, length).numpy(),
        waveform=np.clip(wave * 32768, -32768, 32767).astype(np.int16) if voice else np.zeros(0, np.int16),
        has_audio=voice,
    )


@pytest.fixture
def corpus() -> dict[str, FaceClip]:
    """{clip name: clip} of dev and test: three talking faces, a bystander under a voice, and a listener each."""
    found = {}
    for s, split in enumerate(("dev", "test")):
        for i in range(5):
            group = "listening" if i == 4 else "tracks"
            name = f"{group}/{split}_{i}"
            entry = ClipEntry(Path(name), name, group, split, f"person_{split}_{i}")
            found[name] = make_clip(entry, 10 * s + i, moving=i < 3, voice=i < 4)
    return found
