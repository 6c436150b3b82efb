"""Scoring in a stream of networks whose sound, gates or attention depend on the whole clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from asd_explain import scoring
from asd_explain.explain.base import create_explainer
from asd_explain.media.audio import Audio
from asd_explain.media.features import AUDIO_FEATURES
from asd_explain.models.registry import create_model
from asd_explain.scoring import TrackScorer
from asd_explain.stages import Timings

NAMES = ("asdnb", "bias", "loconet", "talknet")


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return create_model(request.param).requires_grad_(False)


def _audio(seconds: float) -> Audio:
    return Audio((0.1 * np.random.default_rng(0).standard_normal(int(16000 * seconds))).astype(np.float32), 0.0)


def _crops(model: nn.Module, frames: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.integers(0, 256, (frames, 112, 112), dtype=np.uint8) for name in model.crops}


def _streamed(model: nn.Module, crops: dict[str, np.ndarray], audio: Audio | None, piece: int) -> scoring.Scores:
    scorer = TrackScorer(model, create_explainer("se"), audio, 0.2, Timings(), piece=piece)
    for i in range(len(crops["face"])):
        scorer.add({name: values[i] for name, values in crops.items()})
    return scorer.finish()


@torch.inference_mode()
@pytest.mark.parametrize("frames", [1, 13])
def test_a_track_of_one_window_is_scored_as_a_whole(model: nn.Module, frames: int) -> None:
    crops, audio = _crops(model, frames), _audio(3.0)  # sound goes on where the track ends
    scores = _streamed(model, crops, audio, piece=10)
    feature, _ = AUDIO_FEATURES[model.audio_feature]
    inputs = {name: torch.from_numpy(values)[None] for name, values in crops.items()}
    whole = model(**inputs, audio=feature(audio, 0.2, frames)[None])
    np.testing.assert_allclose(scores.logits, whole.logits[0], atol=1e-4, rtol=1e-4)
    assert scores.streams == list(model.streams)
    assert scores.shares.shape == (frames, len(model.streams))
    np.testing.assert_allclose(scores.shares.sum(1), 1, atol=1e-5)
    for stream, maps in whole.maps.items():
        assert scores.heat[stream].shape == maps.shape[1:2] + maps.shape[3:]
        assert scores.gates[stream].shape == whole.gates[stream].shape[1:]
    if model.maps_are_gated:  # gates of the clip: here, of a piece
        for stream in whole.maps:
            assert (scores.gates[stream][:10] == scores.gates[stream][:1]).all()
    else:
        heat = create_explainer("se").heat(model, {}, output=whole)["face"]
        np.testing.assert_allclose(scores.heat["face"], heat, rtol=2e-3, atol=2e-3)


@torch.inference_mode()
def test_longer_tracks_are_heard_in_stretches(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """With windows shorter than the track, no piece asks for the whole sound, and little changes."""
    crops, audio = _crops(model, 24), _audio(3.0)
    exact = _streamed(model, crops, audio, piece=10).logits
    monkeypatch.setattr(scoring, "WINDOW_FRAMES", 23)
    asked: list[int] = []
    hear = model.audio_embedding
    monkeypatch.setattr(model, "audio_embedding", lambda sound: asked.append(sound.shape[1] // 4) or hear(sound))
    heard = _streamed(model, crops, audio, piece=10).logits
    assert len(asked) >= 2
    assert asked[0] == 10 + model.audio_context_frames
    np.testing.assert_allclose(heard, exact, atol=0.05)


@torch.inference_mode()
def test_without_sound_silence_is_fed(model: nn.Module) -> None:
    crops = _crops(model, 3)
    silent = Audio(np.zeros(16000, np.float32), 0.0)
    np.testing.assert_allclose(_streamed(model, crops, None, 10).logits, _streamed(model, crops, silent, 10).logits)
