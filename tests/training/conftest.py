"""Face tracks made of noise, a batch made by hand, and a tiny network of three streams that learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from asd_explain.datasets.face_clips import FaceClip
from asd_explain.datasets.shared_clips import ClipEntry
from asd_explain.datasets.talking_tracks import TalkingClip
from asd_explain.media.audio import Audio
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.se import SqueezeExcite
from asd_explain.training.sampler import FEATURES, Batch
from asd_explain.training.teacher import SHIFTS, Lesson


class TinyNetwork(FusionBackbone):
    """Three streams of a few channels, gates, learned absences, dropout: all that a training meets, in no time."""

    streams = {"audio": 6, "face": 5, "body": 4}  # noqa: RUF012
    halo_frames = 0
    learned_absence = True

    def __init__(self) -> None:
        super().__init__()
        self.sound = nn.Linear(13, 6)
        self.looks = nn.ModuleDict({"face": nn.Conv2d(1, 5, 1), "body": nn.Conv2d(1, 4, 1)})
        self.absent = nn.ParameterDict({s: nn.Parameter(0.1 * torch.randn(w)) for s, w in self.streams.items()})
        self.attach_gates(SqueezeExcite(15, reduction=4, standardise=True))
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(15, 2)

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return self.sound(audio.unflatten(1, (-1, 4)).mean(2) / 10)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        return self._maps(face, "face")

    def body_maps(self, body: torch.Tensor) -> torch.Tensor:
        return self._maps(body, "body")

    def _maps(self, crops: torch.Tensor, stream: str) -> torch.Tensor:
        cells = nn.functional.avg_pool2d(crops.float() / 255, 28).flatten(0, 1)[:, None]
        return self.looks[stream](cells).unflatten(0, crops.shape[:2])

    def classify(self, *streams: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(torch.cat(streams, -1)))


@pytest.fixture
def tiny() -> TinyNetwork:
    torch.manual_seed(3)
    return TinyNetwork()


def _clip(
    person: str, *, seed: int = 0, length: int = 40, voice: bool = True, group: str = "single", **fields: object
) -> FaceClip:
    """Pictures of noise, whose gray level differs from frame to frame, under noise as loud as speech."""
    rng = np.random.default_rng([seed, len(person)])
    pictures = rng.integers(0, 256, (length, 160, 160), dtype=np.uint8)
    wave = np.rint(3000 * rng.standard_normal(640 * length)).clip(-32768, 32767).astype(np.int16)
    sound = Audio(wave.astype(np.float32) / 32768, 0.0) if voice else None
    face = pictures[:, 24:136, 24:136]
    kind = TalkingClip if "talking" in fields else FaceClip
    return kind(
        entry=ClipEntry(Path(f"{person}_{seed}"), f"{group}/{person}_{seed}", group, "fit", person),
        track_id=1,
        start_s=0.0,
        boxes=np.tile(np.array([100, 50, 140, 100], np.float32), (length, 1)),
        size=(320, 240),
        faces={"box": face, "demo": face},
        wide=pictures,
        bodies=face[:, ::-1].copy(),
        mfcc=aligned_mfcc(sound, 0.0, length).numpy(),
        waveform=wave if voice else np.zeros(0, np.int16),
        has_audio=voice,
        **fields,
    )


@pytest.fixture
def make_clip() -> Callable[..., FaceClip]:
    """``make_clip(person, seed=, length=, voice=, group=, truth=, talking=)``."""
    return _clip


def _lesson(length: int, seed: int = 0, own: np.ndarray | float = 0.75) -> Lesson:
    """Every question has an answer of its own: 0.01 to 0.04 to the shifts, 0.05 backwards."""
    rng = np.random.default_rng(seed)
    face, still, audio = (rng.standard_normal((length, n)).astype(np.float16) for n in (*FEATURES[:1] * 2, FEATURES[1]))
    own = np.broadcast_to(np.float32(own), (length,)).copy()
    return Lesson(
        own=own,
        members=np.tile(own, (4, 1)),
        shifted={s: np.full(length, 0.01 * (i + 1), np.float32) for i, s in enumerate(SHIFTS)},
        reversed=np.full(length, 0.05, np.float32),
        face=face,
        still=still,
        audio=audio,
    )


@pytest.fixture
def make_lesson() -> Callable[..., Lesson]:
    """``make_lesson(length, seed=, own=)``."""
    return _lesson


def _batch(seed: int = 0, n: int = 2, length: int = 25, body_of: tuple[int, ...] = (1,)) -> Batch:
    """All is known, all streams are there where there is a body, and sound and face tell the target."""
    rng = np.random.default_rng(seed)
    speaks = np.repeat(rng.random((n, -(-length // 5))) < 0.5, 5, 1)[:, :length]
    target = np.stack([speaks, 0 * speaks, 0 * speaks, speaks], 1).astype(np.float32)
    mfcc = rng.standard_normal((n, 4, length, 4, 13)) + 5 * target[..., None, None]
    light = 60 + 120 * speaks[..., None, None] + rng.integers(0, 60, (n, length, 112, 112))
    present = np.ones((n, 4, 3), bool)
    present[..., 2] = np.isin(np.arange(n), body_of)[:, None]
    return Batch(
        face=torch.from_numpy(light.astype(np.uint8)),
        body=torch.from_numpy(255 - light[list(body_of)].astype(np.uint8)).reshape(-1, length, 112, 112),
        body_of=torch.tensor(body_of, dtype=torch.int64),
        mfcc=torch.from_numpy(mfcc.reshape(n, 4, 4 * length, 13).astype(np.float32)),
        present=torch.from_numpy(present),
        target=torch.from_numpy(target),
        weight=torch.ones(n, 4, length),
        lips=torch.from_numpy(target[:, 0].copy()),
        lips_weight=torch.ones(n, length),
        teacher_face=torch.from_numpy(rng.standard_normal((n, length, FEATURES[0])).astype(np.float16)),
        teacher_audio=torch.from_numpy(rng.standard_normal((n, length, FEATURES[1])).astype(np.float16)),
        matched=torch.from_numpy(speaks),
    )


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """``make_batch(seed, n=, length=, body_of=)``."""
    return _batch
