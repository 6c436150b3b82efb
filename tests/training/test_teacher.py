"""The teacher, with networks of a few numbers in the places of the published ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from asd_explain.datasets.face_clips import FaceClip, FaceClipCache
from asd_explain.errors import WeightsError
from asd_explain.media.audio import Audio
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.training import teacher as module
from asd_explain.training.sampler import FEATURES
from asd_explain.training.teacher import SHIFTS, TEACHERS, Lesson, Teacher
from asd_explain.weights.cards import Card


class Stub(FusionBackbone):
    """Four channels of sound, three of a picture's rows; every frame by itself, whatever it states of a halo."""

    streams = {"audio": 4, "face": 3}  # noqa: RUF012
    halo_frames = 1

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(len(name))
        self.sound, self.look, self.head = nn.Linear(13, 4), nn.Linear(8, 3), nn.Linear(7, 2)
        self.card = Card(name, "network", "x", "0" * 64, 1, "MIT", "made up", model="stub", geometry="box")
        self.weights_sha256 = "0" * 64
        self.eval().requires_grad_(False)

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return self.sound(audio.unflatten(1, (-1, 4)).mean(2) / 10)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        rows = face.float().mean(-1).unflatten(-1, (8, -1)).mean(-1) / 255
        return 10 * self.look(rows)[..., None, None]

    def classify(self, audio: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat((audio, face), -1))


@pytest.fixture
def clips(make_clip: Callable) -> list[FaceClip]:
    """Two tracks of a clip, whose two geometries differ."""
    found = [make_clip("anna", seed=i, length=45) for i in range(2)]
    for clip in found:
        clip.faces["demo"] = clip.faces["box"] // 3
    return found


@pytest.fixture
def models(clips: list[FaceClip], monkeypatch: pytest.MonkeyPatch) -> dict[str, Stub]:
    made = {name: Stub(name) for name in dict(TEACHERS)}
    monkeypatch.setattr(module, "load", lambda name, gates: made[name])
    monkeypatch.setattr(FaceClipCache, "get", lambda self, entry: clips)
    return made


def says(models: dict[str, Stub], clip: FaceClip, hear: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """(members, T) by hand: P(speaking) of every member under its embeddings of the own sound, changed."""
    found = []
    for name, geometry in TEACHERS:
        model = models[name]
        audio = hear(model.audio_embedding(torch.from_numpy(clip.mfcc)[None])[0])
        face = model.face_maps(torch.from_numpy(clip.faces[geometry])[None])[0, ..., 0, 0]
        logits = model.head(torch.cat((audio, face), -1))
        found.append((1 / (1 + (logits[:, 0] - logits[:, 1]).exp())).numpy())
    return np.stack(found)


def test_the_ensemble_is_the_mean_of_its_members(
    models: dict[str, Stub], clips: list[FaceClip], tmp_path: Path
) -> None:
    lessons = Teacher(tmp_path).lessons(clips[0].entry, clips)
    assert len(lessons) == 2
    for clip, lesson in zip(clips, lessons, strict=True):
        members = says(models, clip, lambda x: x)
        np.testing.assert_allclose(lesson.members, members, atol=1e-5)
        np.testing.assert_allclose(lesson.own, members.mean(0), atol=1e-5)
        assert members.std(0).max() > 0.01, "they differ"


def test_moved_sound_is_rolled_and_positive_is_later(
    models: dict[str, Stub], clips: list[FaceClip], tmp_path: Path
) -> None:
    lesson = Teacher(tmp_path).lessons(clips[0].entry, clips)[1]
    assert set(lesson.shifted) == set(SHIFTS)
    for shift, said in lesson.shifted.items():
        rolled = says(models, clips[1], lambda x, s=shift: torch.cat((x[-s:], x[:-s])))
        np.testing.assert_allclose(said, rolled.mean(0), atol=1e-5)
        assert np.abs(said - lesson.own).max() > 0.01


def test_backwards_is_the_waveform_turned_round(models: dict[str, Stub], clips: list[FaceClip], tmp_path: Path) -> None:
    clip = clips[0]
    lesson = Teacher(tmp_path).lessons(clip.entry, clips)[0]
    turned = Audio(clip.waveform[::-1].astype(np.float32) / 32768, 0.0)
    object.__setattr__(clip, "mfcc", aligned_mfcc(turned, 0.0, len(clip)).numpy())
    np.testing.assert_allclose(lesson.reversed, says(models, clip, lambda x: x).mean(0), atol=1e-5)


def test_embeddings_stand_side_by_side(models: dict[str, Stub], clips: list[FaceClip], tmp_path: Path) -> None:
    clip, lesson = clips[0], Teacher(tmp_path).lessons(clips[0].entry, clips)[0]
    n = len(clip)
    assert lesson.face.shape == lesson.still.shape == (n, 3 * len(TEACHERS))
    assert lesson.audio.shape == (n, 4 * len(models))
    assert {a.dtype for a in (lesson.face, lesson.still, lesson.audio)} == {np.dtype(np.float16)}
    for i, (name, geometry) in enumerate(TEACHERS):
        maps = models[name].face_maps(torch.from_numpy(clip.faces[geometry])[None])[0, ..., 0, 0].numpy()
        part = slice(3 * i, 3 * i + 3)
        np.testing.assert_allclose(lesson.face[:, part], maps, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(lesson.still[:, part], np.tile(maps[n // 2], (n, 1)), rtol=2e-3, atol=2e-3)
    sound = [m.audio_embedding(torch.from_numpy(clip.mfcc)[None])[0].numpy() for m in models.values()]
    np.testing.assert_allclose(lesson.audio, np.concatenate(sound, 1), rtol=2e-3, atol=2e-3)
    members = len(TEACHERS), len(dict(TEACHERS))
    assert tuple(128 * m for m in members) == FEATURES, "widths where nobody was asked are those of the real ones"


def test_what_was_said_is_kept(
    models: dict[str, Stub], clips: list[FaceClip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Teacher(tmp_path).lessons(clips[0].entry, clips)

    def nothing(*args: object, **options: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(module, "load", nothing)
    monkeypatch.setattr(FaceClipCache, "get", nothing)
    again = Teacher(tmp_path).lessons(clips[0].entry, clips)
    for a, b in zip(first, again, strict=True):
        for key in Lesson.__dataclass_fields__:
            x, y = getattr(a, key), getattr(b, key)
            if key == "shifted":
                assert list(x) == list(y) == list(SHIFTS)
                x, y = np.stack(list(x.values())), np.stack(list(y.values()))
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype


def test_a_clip_without_a_sound_track_is_heard_as_silence(
    models: dict[str, Stub], clips: list[FaceClip], make_clip: Callable, tmp_path: Path
) -> None:
    clips[:] = [make_clip("mute", length=30, voice=False)]
    (lesson,) = Teacher(tmp_path).lessons(clips[0].entry, clips)
    for said in (*lesson.shifted.values(), lesson.reversed):
        np.testing.assert_allclose(said, lesson.own, atol=1e-5)


def test_networks_are_wanted_only_when_there_is_something_to_say(
    clips: list[FaceClip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str, gates: bool) -> None:
        raise WeightsError(f"{name} is not at hand")

    monkeypatch.setattr(module, "load", absent)
    teacher = Teacher(tmp_path)
    with pytest.raises(WeightsError, match="not at hand"):
        teacher.lessons(clips[0].entry, clips)
    assert not list(tmp_path.rglob("*.npz"))
