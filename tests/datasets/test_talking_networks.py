"""Published networks take our clips for real: the bar that the animation must clear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter1d

from asd_explain.datasets.talking_photos import AUDIO_HZ, make_clip
from asd_explain.datasets.talking_scene import PRESETS
from asd_explain.datasets.talking_truth import PersonTruth, Truth
from asd_explain.grid import TimeGrid
from asd_explain.media.audio import load_audio
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.media.reader import VideoReader
from asd_explain.tracks.crops import GEOMETRIES, crop
from asd_explain.weights.store import load

pytestmark = [pytest.mark.shared, pytest.mark.demo]
NETWORKS = ("light_asd.pretrain_AVA_CVPR", "lr_asd.pretrain_AVA")


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """VOC all-points average precision, as AVA's evaluation computes it (0..1, higher is better)."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    recall = np.concatenate([[0], hits / positive.sum()])
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float(np.sum(np.diff(recall) * precision))


def crops_of(truth: Truth) -> list[tuple[PersonTruth, np.ndarray, torch.Tensor, torch.Tensor]]:
    """Per person and shot: the truth, its frames on the grid, crops (1, T, 112, 112) and features (1, 4T, 13)."""
    with VideoReader(truth.path) as reader:
        luma = [frame.luma() for frame in reader]
    audio = load_audio(truth.path)
    cut = []
    for person in truth.people:
        for shot in np.unique(truth.shot[person.visible]):
            seen = np.flatnonzero(person.visible & (truth.shot == shot))
            grid = TimeGrid(truth.times_s[seen])
            rows = seen[grid.source_of_grid]
            faces = np.stack([crop(luma[n], person.face[n], GEOMETRIES["box"]) for n in rows])
            cut.append(
                (person, rows, torch.from_numpy(faces)[None], aligned_mfcc(audio, grid.start_s, len(grid))[None])
            )
    return cut


def judge(network: str, truths: Sequence[Truth]) -> tuple[float, float, float]:
    """Average precision; mean P(speaking) while a person is heard; the same of silent faces under another's voice."""
    model = load(network, gates=False)
    scores, labels, voiced, foreign = [], [], [], []
    with torch.inference_mode():
        for truth in truths:
            blocks = np.stack([np.interp(truth.times_s, np.arange(len(v)) / AUDIO_HZ, _level(v)) for v in truth.voices])
            for person, rows, faces, features in crops_of(truth):
                scores.append(model(faces, features).p_speaking[0].numpy())
                labels.append(person.label[rows] == 1)
                voiced.append(person.voiced[rows])
                foreign.append((person.label[rows] == 0) & (blocks.max(axis=0)[rows] > 0.01))
    score, label = np.concatenate(scores), np.concatenate(labels)
    return (
        average_precision(score, label),
        float(score[np.concatenate(voiced)].mean()),
        float(score[np.concatenate(foreign)].mean()) if np.any(np.concatenate(foreign)) else 0.0,
    )


def _level(waveform: np.ndarray) -> np.ndarray:
    """Loudness (n,) as a moving root mean square over 0.1 s."""
    return np.sqrt(np.maximum(uniform_filter1d(np.square(waveform.astype(np.float64)), AUDIO_HZ // 10), 0))


@pytest.fixture(scope="module")
def make(shared_dir, tmp_path_factory):
    pytest.importorskip("espeakng_loader", reason="espeak-ng comes with the demo extra")
    pytest.importorskip("skimage", reason="the astronaut's photograph comes with scikit-image (demo extra)")
    folder = tmp_path_factory.mktemp("clips")
    return lambda scene, name: make_clip(scene, folder / f"{name}.mp4")


@pytest.fixture(scope="module")
def demo(make):
    return make(PRESETS["demo"](), "demo")


@pytest.mark.parametrize("network", NETWORKS)
def test_demo_is_taken_for_real(network, demo):
    """One talks, the other answers, both talk, and a voice from off screen."""
    precision, talking, listening = judge(network, [demo])
    assert precision >= 0.97
    assert talking > 0.85
    assert listening < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_scene_is_taken_for_real(network, make):
    """All scenes, other texts and motion; but dubbed mouths deceive these networks, as they do with real faces."""
    names = [name for name in PRESETS if name != "dubbed"]
    truths = [make(replace(PRESETS[name](), seed=11), f"{network}.{name}") for name in names]
    precision, talking, listening = judge(network, truths)
    assert precision >= 0.97
    assert talking > 0.85
    assert listening < 0.15
