"""Networks that see more than a face, in the protocol on local clips: ASDnB its body, LoCoNet the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asd_explain.datasets.face_clips import FaceClip
from asd_explain.evaluate.attention_picking import p_speaking
from asd_explain.evaluate.intervention import replaced
from asd_explain.evaluate.pooled import PooledCache
from asd_explain.evaluate.segments import Segment
from asd_explain.evaluate.stream_views import Scorer, ViewCache, ViewedTrack, shrunk, view_clip
from asd_explain.media.audio import Audio
from asd_explain.media.log_mel import aligned_log_mel
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.registry import create_model
from asd_explain.tracks.crops import OUTSIDE
from asd_explain.weights.cards import Card


def network(name: str) -> FusionBackbone:
    torch.manual_seed(0)
    model = create_model(name).eval().requires_grad_(False)
    model.card = Card(name, "network", "x", "0" * 64, 1, "MIT", "made up", model=name, geometry="box")
    model.weights_sha256 = "0" * 64
    return model


def batched(crops: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(crops))[None]


@dataclass
class Cut:
    """What is picked from: a track's crops and MFCC."""

    faces: dict[str, np.ndarray]
    body: np.ndarray
    mfcc: np.ndarray

    def __len__(self) -> int:
        return len(self.body)


@pytest.fixture
def clip(corpus: dict[str, FaceClip]) -> FaceClip:
    """A talking face of 12 frames whose body is another picture than the face."""
    found = corpus["tracks/test_0"]
    faces = {name: crops[:12] for name, crops in found.faces.items()}
    bodies = np.random.default_rng(3).integers(0, 256, (12, 112, 112), dtype=np.uint8)
    return replace(
        found, faces=faces, bodies=bodies, boxes=found.boxes[:12], mfcc=found.mfcc[:48], waveform=found.waveform[:7680]
    )


@torch.inference_mode()
def test_asdnb_is_scored_with_its_body(clip: FaceClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("asdnb")
    model.lossAV["FC"].weight.mul_(100)  # as made, margins are small
    face, bodies, audio = clip.faces["box"], clip.bodies, torch.from_numpy(clip.mfcc)[None]

    def margin(face: np.ndarray, body: np.ndarray | None) -> np.ndarray:
        return model(batched(face), audio, None if body is None else batched(body)).margin[0].numpy()

    track = view_clip(model, clip, "box", ("tiny24",))
    scorer = Scorer(model, [track])
    np.testing.assert_allclose(scorer.margin(track), margin(face, bodies), atol=1e-4)
    assert np.abs(scorer.margin(track) - margin(face, None)).max() > 1e-3
    held = [np.repeat(crops[6:7], 12, 0) for crops in (face, bodies)]
    np.testing.assert_allclose(scorer.margin(track, view="still"), margin(*held), atol=1e-4)
    small = shrunk(face, 24, 24), shrunk(bodies, 72, 118)
    np.testing.assert_allclose(scorer.margin(track, view="tiny24"), margin(*small), atol=1e-4)
    monkeypatch.setattr("asd_explain.datasets.face_clips.FaceClipCache.get", lambda self, entry: [clip])
    cache = ViewCache(tmp_path, model, "box", ("tiny24",))
    for _ in range(2):  # made, then read
        (again,) = cache.get(clip.entry)
        assert torch.equal(again.views["tiny24"]["face"], track.views["tiny24"]["face"])
        assert torch.equal(again.pooled.face, track.pooled.face)
    # What was kept before the body was looked at is not taken for it.
    assert PooledCache(tmp_path, model, "box").folder.name.endswith(".box.beside")
    assert PooledCache(tmp_path, network("lr_asd"), "box").folder.name.endswith(".box")


@torch.inference_mode()
def test_asdnbs_segments_are_picked_and_its_streams_replaced_with_the_body(clip: FaceClip) -> None:
    model = network("asdnb")
    model.lossAV["FC"].weight.mul_(100)
    face, bodies, audio = clip.faces["box"], clip.bodies, torch.from_numpy(clip.mfcc)[None]
    track = Cut({"box": face}, bodies, clip.mfcc)
    p = model(batched(face), audio, batched(bodies)).p_speaking[0]
    np.testing.assert_allclose(p_speaking(model, track, "box"), p, atol=1e-5)
    assert np.abs(p_speaking(model, track, "box") - model(batched(face), audio).p_speaking[0].numpy()).max() > 1e-4
    segment = Segment("a#1@0", "a", "real", {"face": face, "body": bodies}, clip.mfcc)
    held = [batched(np.repeat(crops[6:7], 12, 0)) for crops in (face, bodies)]
    still = model.pool(model.face_maps(*held))
    torch.testing.assert_close(replaced(model, segment, "face", "still"), still, rtol=1e-4, atol=1e-5)
    gray = torch.full((1, 12, 112, 112), OUTSIDE, dtype=torch.uint8)
    expected = model.pool(model.face_maps(gray, gray))
    torch.testing.assert_close(replaced(model, segment, "face", "gray"), expected, rtol=1e-4, atol=1e-5)


def company(clip: FaceClip, track_id: int, start: int, length: int) -> FaceClip:
    """Somebody else in the same clip, there from a frame on."""
    face = np.random.default_rng(track_id).integers(0, 256, (length, 112, 112), dtype=np.uint8)
    return replace(
        clip, track_id=track_id, start_s=clip.start_s + start / 25, faces={"box": face, "demo": face}, bodies=face,
        boxes=np.repeat(clip.boxes[:1], length, 0), mfcc=np.resize(clip.mfcc, (4 * length, 13)),
        waveform=np.resize(clip.waveform, 640 * length),
    )  # fmt: skip


@torch.inference_mode()
def test_loconet_is_scored_beside_the_others_of_the_clip(clip: FaceClip) -> None:
    model = network("loconet")
    clips = [clip, company(clip, 2, 0, 4), company(clip, 3, 3, 9), company(clip, 4, -2, 14)]
    elsewhere = company(replace(clip, entry=replace(clip.entry, name="tracks/other")), 1, 0, 12)
    tracks: list[ViewedTrack] = [view_clip(model, c, "box") for c in (*clips, elsewhere)]
    scorer = Scorer(model, tracks)
    sound = aligned_log_mel(Audio(clip.waveform.astype(np.float32) / 32768, 0.0), 0.0, 12)[None]
    face = batched(clip.faces["box"])
    pooled, _ = model.encode(face, sound)
    black = model.pool(model.face_maps(torch.zeros(1, 9, 112, 112)))[0, 4]
    late = torch.cat((black.expand(3, -1), tracks[2].pooled.face))  # 9 frames shared; the one of 12 stands first
    beside = {"context": torch.stack((tracks[3].pooled.face[2:], late), 1)[None]}
    by_hand = model.fuse(pooled | beside).margin[0].numpy()
    np.testing.assert_allclose(scorer.margin(tracks[0]), by_hand, atol=1e-3, rtol=1e-4)
    alone = model(batched(elsewhere.faces["box"]), sound).margin[0].numpy()
    np.testing.assert_allclose(scorer.margin(tracks[4]), alone, atol=1e-3, rtol=1e-4)
    assert np.abs(by_hand - model(face, sound).margin[0].numpy()).max() > 1e-3
    # Silence is heard once, for the longest track.
    silent = model.audio_embedding(aligned_log_mel(None, 0.0, 14)[None])[:, :12]
    heard = model.fuse(pooled | {"audio": silent} | beside).margin[0].numpy()
    np.testing.assert_allclose(scorer.margin(tracks[0], "silence"), heard, atol=1e-3, rtol=1e-4)
