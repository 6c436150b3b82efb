"""Scoring in a stream: cutting into pieces and windows changes nothing that matters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asd_explain.explain.base import create_explainer
from asd_explain.explain.squeeze import SqueezeHeat
from asd_explain.media.audio import Audio
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.models.output import Output
from asd_explain.models.registry import create_model
from asd_explain.models.se import SqueezeExcite
from asd_explain.scoring import HOP_FRAMES, TrackScorer, classify, window_starts
from asd_explain.stages import Timings
from asd_explain.weights.store import load

PUBLISHED = (
    "light_asd.pretrain_AVA_CVPR",
    "light_asd.finetuning_TalkSet",
    "lr_asd.pretrain_AVA",
    "lr_asd.finetuning_TalkSet",
)


def _audio(seconds: float, start_s: float = 0.0) -> Audio:
    noise = np.random.default_rng(0).standard_normal(int(16000 * seconds))
    return Audio((0.1 * noise).astype(np.float32), start_s)


@pytest.mark.parametrize("name", ["light_asd", "lr_asd"])
@pytest.mark.parametrize("frames", [1, 7, 30, 47])
def test_a_stream_equals_one_forward_over_the_whole(name: str, frames: int) -> None:
    torch.manual_seed(0)
    model = create_model(name)
    model.attach_gates(SqueezeExcite(256))
    audio = _audio(3.0, start_s=0.4)
    faces = np.random.default_rng(1).integers(0, 256, (frames, 112, 112), dtype=np.uint8)
    scorer = TrackScorer(model, create_explainer("se"), audio, 1.0, Timings(), piece=10)
    for face in faces:
        scorer.add({"face": face})
    scores = scorer.finish()
    with torch.inference_mode():
        whole = model(torch.from_numpy(faces)[None], aligned_mfcc(audio, 1.0, frames)[None])
        heat = SqueezeHeat().heat(model, {}, output=whole)["face"]
    np.testing.assert_allclose(scores.logits, whole.logits[0], atol=1e-4)
    np.testing.assert_allclose(scores.gates["face"], whole.gates["face"][0], atol=2e-3)
    np.testing.assert_allclose(scores.heat["face"], heat, rtol=2e-3, atol=2e-3)
    assert scores.shares.shape == (frames, 2)
    np.testing.assert_allclose(scores.shares.sum(1), 1.0, atol=1e-5)


def test_crops_are_dropped_as_soon_as_they_are_encoded() -> None:
    model = create_model("lr_asd")
    scorer = TrackScorer(model, create_explainer("se"), None, 0.0, Timings(), piece=8)
    most = 0
    for _ in range(60):
        scorer.add({"face": np.zeros((112, 112), np.uint8)})
        most = max(most, len(scorer._crops["face"]))
    assert most <= 8 + 2 * model.halo_frames
    assert len(scorer.finish().logits) == 60


@pytest.mark.parametrize("length", [21, 29, 30, 100])
@pytest.mark.parametrize("phase", [0, 3])
def test_windows_cover_the_track(length: int, phase: int) -> None:
    starts = window_starts(length, 20, 5, phase)
    covered = {i for start in starts for i in range(start, start + 20)}
    assert covered == set(range(length))
    assert max(np.diff(starts)) <= 5 + phase


class _Stub(torch.nn.Module):
    """A network whose logits are its input: what comes out shows how windows are put together."""

    def fuse(self, pooled: dict[str, torch.Tensor], maps: dict | None = None) -> Output:
        return Output(logits=pooled["face"][..., :2])


def test_windows_put_together_give_back_what_does_not_depend_on_context() -> None:
    values = torch.randn(1, 777, 2)
    output = classify(_Stub(), {"face": values}, window=50, hop=7)
    torch.testing.assert_close(output, values, atol=1e-5, rtol=1e-5)


@pytest.mark.shared
@pytest.mark.parametrize("name", PUBLISHED)
def test_where_windows_begin_changes_p_by_less_than_two_hundredths(shared_dir: Path, name: str) -> None:
    """Real faces and sound; the networks' own memory is a minute long, the windows' grid must not show.

    A window on every frame (hop 1) has no grid at all; every phase of the grid in use must agree with it.
    """
    reference = np.load(shared_dir / "reference" / f"{name}.npz")
    model = load(name)
    generator = np.random.default_rng(0)
    order = [int(generator.integers(2)) * 2 - 1 for _ in range(16)]
    # Pieces of the published track, forwards and backwards at random, as one long track.
    faces = np.concatenate([reference["faces"][::step] for step in order])
    steps = reference["mfcc"].reshape(-1, 4, 13)
    mfcc = np.concatenate([steps[::step] for step in order]).reshape(-1, 13)
    with torch.inference_mode():
        pooled, _ = model.encode(torch.from_numpy(faces)[None], torch.from_numpy(mfcc)[None])
        p = [classify(model, pooled, phase=phase).softmax(-1)[..., 1] for phase in range(HOP_FRAMES)]
        p.append(classify(model, pooled, hop=1).softmax(-1)[..., 1])
    assert max((a - b).abs().max().item() for a in p for b in p) < 0.02
    assert p[0].max() - p[0].min() > 0.1, "the track must not be trivially constant"


def test_no_audio_is_silence() -> None:
    silent = aligned_mfcc(None, 0.0, 5)
    zeros = aligned_mfcc(Audio(np.zeros(16000, np.float32), 0.0), 0.0, 5)
    torch.testing.assert_close(silent, zeros)
