"""The questions put to a network, and the pooled embeddings they are made of."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from asd_explain.evaluate.pooled import (
    CONDITIONS,
    Conditions,
    PooledTrack,
    held_stream,
    pooled_stream,
    voiced_frames,
)


def _fit_tracks(tracks: list[PooledTrack]) -> list[PooledTrack]:
    return [t for t in tracks if t.split == "fit"]


def test_draws_depend_on_seed_turn_and_track_only(tiny: torch.nn.Module, tracks: list[PooledTrack]) -> None:
    own = _fit_tracks(tracks)
    one, two, other = (Conditions(tiny, own, seed) for seed in (0, 0, 1))
    for name in CONDITIONS:
        a, b = one.inputs(own[2], name, 5), two.inputs(own[2], name, 5)
        assert torch.equal(torch.cat(a), torch.cat(b))
        assert a[0].shape == a[1].shape == (40, 16)
    assert not torch.equal(one.inputs(own[2], "other", 5)[0], one.inputs(own[2], "other", 6)[0])
    assert not torch.equal(one.inputs(own[2], "other", 5)[0], other.inputs(own[2], "other", 5)[0])


def test_another_voice_is_never_the_own(tiny: torch.nn.Module, tracks: list[PooledTrack]) -> None:
    own = _fit_tracks(tracks)
    conditions = Conditions(tiny, own)
    for turn in range(20):
        voice, face = conditions.inputs(own[0], "other", turn)
        assert torch.equal(face, own[0].face)
        assert not (voice[:, None] == own[0].audio[None]).all(-1).any()


def test_each_condition_changes_what_it_says(tiny: torch.nn.Module, tracks: list[PooledTrack]) -> None:
    track = tracks[0]
    conditions = Conditions(tiny, _fit_tracks(tracks))
    silence, face = conditions.inputs(track, "silence")
    assert torch.equal(silence, silence[:1].expand_as(silence))
    assert torch.equal(face, track.face)
    shifted, _ = conditions.inputs(track, "shifted")
    assert not torch.equal(shifted, track.audio)
    assert torch.equal(shifted.sort(0).values, track.audio.sort(0).values)
    audio, still = conditions.inputs(track, "still")
    assert torch.equal(audio, track.audio)
    assert (still == still[0]).all()
    with pytest.raises(ValueError, match="no condition"):
        conditions.inputs(track, "loud")


def test_a_clip_without_sound_has_no_sound_to_shift(tiny: torch.nn.Module, tracks: list[PooledTrack]) -> None:
    from dataclasses import replace

    mute = replace(tracks[0], has_audio=False, voiced=np.zeros(40, bool), name="listening/mute#1", person="mute")
    conditions = Conditions(tiny, [mute, *_fit_tracks(tracks)[1:]])
    assert conditions.inputs(mute, "shifted") is None
    assert conditions.inputs(mute, "still") is None
    assert conditions.inputs(mute, "other") is not None
    for turn in range(10):
        voice, _ = conditions.inputs(tracks[1], "other", turn)
        assert voice.abs().sum() > 0


def test_a_still_is_encoded_as_if_it_were_a_clip() -> None:
    """Away from the ends all frames are alike: the short cut equals the long way."""

    def face_maps(face: torch.Tensor) -> torch.Tensor:
        level = face.float().mean((-2, -1))
        spread = torch.nn.functional.avg_pool1d(level[:, None], 5, 1, 2)[:, 0]
        return spread[..., None, None, None]

    model = SimpleNamespace(
        face_maps=face_maps, halo_frames=2, parameters=lambda: [torch.zeros(0)], pool=lambda maps: maps.amax((-2, -1))
    )
    picture = np.full((112, 112), 90, np.uint8)
    for length in (1, 3, 5, 6, 40):
        expected = face_maps(torch.from_numpy(np.repeat(picture[None], length, 0))[None])[0, :, :, 0, 0]
        torch.testing.assert_close(held_stream(model, "face", picture, length), expected)


def test_a_long_track_in_pieces_equals_the_whole() -> None:
    def face_maps(face: torch.Tensor) -> torch.Tensor:
        level = face.float().mean((-2, -1))
        return torch.nn.functional.avg_pool1d(level[:, None], 5, 1, 2)[:, 0][..., None, None, None]

    model = SimpleNamespace(
        face_maps=face_maps, halo_frames=2, parameters=lambda: [torch.zeros(0)], pool=lambda maps: maps.amax((-2, -1))
    )
    face = np.random.default_rng(0).integers(0, 255, (331, 8, 8), np.uint8)
    whole = face_maps(torch.from_numpy(face)[None])[0, :, :, 0, 0]
    torch.testing.assert_close(pooled_stream(model, "face", face), whole)


def test_voiced_frames_follow_the_energy() -> None:
    mfcc = np.zeros((40, 13), np.float32)
    mfcc[:, 0] = -36.0
    assert not voiced_frames(mfcc).any()
    mfcc[:20, 0] = 15.0
    mfcc[8:12, 0] = 15.0 - 30 * np.log(10) / 10
    assert voiced_frames(mfcc).tolist() == [True, True, False, True, True] + [False] * 5
