"""What the published networks say of a face track: the soft labels and features that a network of ours learns from.

The teacher is an ensemble of Light-ASD and LR-ASD, both trained on AVA-ActiveSpeaker, each on both crop geometries: the
mean of four P(speaking) (distillation of an ensemble: Hinton et al., arXiv 1503.02531). Its members' pooled embeddings
are handed out too; to predict them teaches an encoder more a frame than one probability can (FitNets: Romero et al.,
arXiv 1412.6550). Everything is computed once a clip and kept beside the cache of crops.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asd_explain.datasets.face_clips import CACHE_VERSION, FaceClip, save_arrays
from asd_explain.datasets.shared_clips import ClipEntry
from asd_explain.evaluate.pooled import PooledCache, PooledTrack, pooled_audio
from asd_explain.media.audio import Audio
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.scoring import classify
from asd_explain.weights.store import load

TEACHERS = (
    ("light_asd.pretrain_AVA_CVPR", "box"),
    ("light_asd.pretrain_AVA_CVPR", "demo"),
    ("lr_asd.pretrain_AVA", "box"),
    ("lr_asd.pretrain_AVA", "demo"),
)
TEACHER_VERSION = 1
#: Frames by which the sound is moved for the labels of shifted sound; positive is later.
SHIFTS = (-38, -15, 15, 38)
_HOP = 25


@dataclass(frozen=True)
class Lesson:
    """What the ensemble says of one track of T grid frames.

    Attributes:
        own: (T,) P(speaking) in [0, 1] under the clip's own sound.
        members: (members, T) the same of each member.
        shifted: {frames: (T,)} under the own sound, moved (rolled).
        reversed: (T,) under the own sound, played backwards.
        face: (T, members x 128) float16 pooled face embeddings.
        still: the same of the middle picture held through.
        audio: (T, networks x 128) float16 embeddings of the own sound.
    """

    own: np.ndarray
    members: np.ndarray
    shifted: dict[int, np.ndarray]
    reversed: np.ndarray
    face: np.ndarray
    still: np.ndarray
    audio: np.ndarray


class Teacher:
    """The ensemble, with a cache of what it has said.

    Args:
        folder: the folder of the caches of crops and pooled embeddings.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder) / f"teacher_v{TEACHER_VERSION}.{CACHE_VERSION}"
        self._models: dict[str, FusionBackbone] = {}
        self._caches = []
        self._root = Path(folder)

    def _load(self) -> None:
        if not self._caches:
            for name, geometry in TEACHERS:
                if name not in self._models:
                    self._models[name] = load(name, gates=False)
                self._caches.append(PooledCache(self._root, self._models[name], geometry))

    def lessons(self, entry: ClipEntry, clips: list[FaceClip]) -> list[Lesson]:
        """One lesson for each face track of a clip, read from the cache or computed now.

        Raises:
            WeightsError: it has to be computed, and a published network is not at hand.
        """
        path = self.folder / f"{entry.name.replace('/', '.')}.npz"
        if not path.is_file():
            self._write(path, self._teach(entry, clips))
        with np.load(path) as stored:
            return [
                Lesson(
                    own=stored[f"{i}.own"],
                    members=stored[f"{i}.members"],
                    shifted={s: stored[f"{i}.shifted.{s}"] for s in SHIFTS},
                    reversed=stored[f"{i}.reversed"],
                    face=stored[f"{i}.face"],
                    still=stored[f"{i}.still"],
                    audio=stored[f"{i}.audio"],
                )
                for i in range(len(clips))
            ]

    @staticmethod
    def _write(path: Path, lessons: list[Lesson]) -> None:
        arrays = {}
        for i, lesson in enumerate(lessons):
            for key in ("own", "members", "reversed", "face", "still", "audio"):
                arrays[f"{i}.{key}"] = getattr(lesson, key)
            arrays |= {f"{i}.shifted.{s}": values for s, values in lesson.shifted.items()}
        save_arrays(path, arrays)

    @torch.inference_mode()
    def _teach(self, entry: ClipEntry, clips: list[FaceClip]) -> list[Lesson]:
        self._load()
        tracks = [cache.get(entry) for cache in self._caches]
        return [self._lesson(clip, [member[i] for member in tracks]) for i, clip in enumerate(clips)]

    def _lesson(self, clip: FaceClip, tracks: list[PooledTrack]) -> Lesson:
        def ensemble(audio: list[torch.Tensor]) -> np.ndarray:
            members = [
                classify(self._models[name], {"audio": a[None], "face": t.face[None]}, hop=_HOP).softmax(-1)[0, :, 1]
                for (name, _), a, t in zip(TEACHERS, audio, tracks, strict=True)
            ]
            return torch.stack(members).numpy().astype(np.float32)

        own = ensemble([t.audio for t in tracks])
        backwards = {name: self._backwards(model, clip) for name, model in self._models.items()}
        by_network = {name: t.audio for (name, _), t in zip(TEACHERS, tracks, strict=True)}
        return Lesson(
            own=own.mean(0),
            members=own,
            shifted={s: ensemble([t.audio.roll(s, 0) for t in tracks]).mean(0) for s in SHIFTS},
            reversed=ensemble([backwards[name] for name, _ in TEACHERS]).mean(0),
            face=torch.cat([t.face for t in tracks], -1).half().numpy(),
            still=torch.cat([t.still for t in tracks], -1).half().numpy(),
            audio=torch.cat(list(by_network.values()), -1).half().numpy(),
        )

    @staticmethod
    def _backwards(model: FusionBackbone, clip: FaceClip) -> torch.Tensor:
        sound = Audio(clip.waveform[::-1].astype(np.float32) / 32768, 0.0) if clip.has_audio else None
        return pooled_audio(model, aligned_mfcc(sound, 0.0, len(clip)))
