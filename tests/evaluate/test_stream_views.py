"""Views of a track: what is shown, and that encoding in pieces and swapping streams is exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gated_support import KnownGates, known_track

from asd_explain.datasets.face_clips import FaceClip
from asd_explain.evaluate.pooled import held_stream, pooled_stream
from asd_explain.evaluate.stream_views import (
    TINY,
    Scorer,
    ViewCache,
    face_in_body,
    hide_face,
    shrunk,
    view_clip,
)
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.registry import create_model
from asd_explain.tracks.crops import OUTSIDE


def test_pieces_and_held_pictures_are_exact() -> None:
    torch.manual_seed(0)
    model = create_model("squeeze_asd")
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 255, (170, 112, 112), np.uint8)
    with torch.inference_mode():
        whole = model.pool(model.body_maps(torch.from_numpy(crops)[None]))[0]
    assert torch.allclose(pooled_stream(model, "body", crops), whole, atol=1e-5)
    for length in (5, 13, 30):
        held = held_stream(model, "face", crops[0], length)
        assert torch.allclose(held, pooled_stream(model, "face", np.repeat(crops[:1], length, 0)), atol=1e-5)


def test_shrunk_loses_detail_only() -> None:
    crops = np.full((2, 112, 112), 90, np.uint8)
    assert (shrunk(crops, 16, 16) == 90).all()
    crops[:, :, ::2] = 150  # stripes of one pixel
    assert np.abs(shrunk(crops, 16, 16).astype(int) - 120).max() <= 5
    ramp = np.broadcast_to(np.arange(112, dtype=np.uint8), (1, 112, 112))
    assert np.abs(shrunk(ramp, 40, 40).astype(int) - ramp)[..., 3:-3].max() <= 1
    assert (shrunk(ramp, 500, 500) == ramp).all()


def test_face_lies_where_the_body_box_puts_it() -> None:
    # A face of 40 x 40 at (140, 60): its body box is (100, 44, 220, 240), 120 x 196 px; the grown face box
    # (132, 52, 188, 108).
    box = np.array([[140, 60, 180, 100]], np.float32)
    assert face_in_body(box, (1000, 1000)) == (29, 4, 83, 37)
    bodies = np.zeros((1, 112, 112), np.uint8)
    hidden = hide_face(bodies, box, (1000, 1000))
    assert (hidden[:, 4:37, 29:83] == OUTSIDE).all()
    assert (hidden == OUTSIDE).sum() == 33 * 54
    assert not bodies.any()
    # One rectangle for the whole track, however the box trembles.
    wobbling = np.concatenate([box, box + np.array([0, 0, 0, 6], np.float32)])
    assert (
        len({tuple(np.flatnonzero(h)) for h in hide_face(np.zeros((2, 112, 112), np.uint8), wobbling, (999, 999))}) == 1
    )


def test_streams_that_are_there_or_not(tiny_body: FusionBackbone, corpus: dict[str, FaceClip]) -> None:
    clips = [c for c in corpus.values() if c.entry.split == "test"]
    tracks = [view_clip(tiny_body, c, "box") for c in clips]
    scorer = Scorer(tiny_body, tracks)
    inputs = {
        "audio": torch.from_numpy(clips[0].mfcc)[None],
        "face": torch.from_numpy(clips[0].faces["box"])[None],
        "body": torch.from_numpy(clips[0].bodies)[None],
    }
    for streams in (("audio", "face", "body"), ("audio", "face"), ("audio", "body"), ("face",), ("body",), ("audio",)):
        given = {s: v if s in streams else None for s, v in inputs.items()}
        expected = tiny_body.fuse(tiny_body.encode(**given)[0]).margin[0].double().numpy()
        assert scorer.margin(tracks[0], streams=streams) == pytest.approx(expected, abs=1e-5)
    still = scorer.margin(tracks[0], view="still")
    assert still == pytest.approx(scorer.margin(tracks[0], streams=("audio",)), abs=1e-5)
    assert scorer.margin(tracks[4], "other") is not None
    assert scorer.margin(tracks[4], "shifted") is None  # no sound to move


def test_a_clip_without_sound_is_scored_as_the_command_does_it() -> None:
    deaf, hearing = known_track("a", has_audio=False), known_track("b")
    scorer = Scorer(KnownGates(), [deaf, hearing])
    # Gates 0.5 on the audio's 2, 0.25 on the face's 4 and the body's 8; the margin is their sum minus 4.
    assert scorer.margin(hearing) == pytest.approx(np.zeros(30))
    assert scorer.margin(deaf) == pytest.approx(np.full(30, -1.0))
    assert scorer.margin(deaf, streams=("audio",)) is None  # nothing is left
    scorer.model.learned_absence = False
    assert scorer.margin(deaf) == pytest.approx(np.zeros(30))  # what the clip's features are: silence


def test_draws_are_the_same_for_every_network(
    tiny: FusionBackbone, tiny_body: FusionBackbone, corpus: dict[str, FaceClip]
) -> None:
    clips = [c for c in corpus.values() if c.entry.split == "test"]
    # Only the second half of every voice is voiced: the drawn marks must be those of the drawn embeddings.
    found = []
    for model in (tiny, tiny_body):
        tracks = [view_clip(model, c, "box") for c in clips]
        for i, t in enumerate(tracks[:4]):
            voiced = np.arange(40) >= 20
            audio = t.pooled.audio * torch.from_numpy(voiced)[:, None]
            tracks[i] = replace(t, pooled=replace(t.pooled, voiced=voiced, audio=audio))
        scorer = Scorer(model, tracks)
        audio = scorer.conditions.inputs(tracks[0].pooled, "other")[0]
        voiced = scorer.voiced(tracks[0], "other")
        assert ((audio[:, 0] != 0).numpy() == voiced).all()
        found.append(voiced)
    assert (found[0] == found[1]).all()


def test_cache_computes_once_and_by_weights(
    tiny_body: FusionBackbone, corpus: dict[str, FaceClip], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = corpus["tracks/test_0"]
    names = (*TINY, "hidden")

    def cache(keep: bool = True) -> ViewCache:
        made = ViewCache(tmp_path, tiny_body, "box", names, keep=keep)
        made.base.clips.get = lambda entry: [clip]
        return made

    (uncached,) = cache(keep=False).get(clip.entry)
    assert not list(tmp_path.iterdir())
    (first,) = cache().get(clip.entry)
    monkeypatch.setattr(tiny_body, "face_maps", None)  # nothing is encoded again
    (again,) = cache().get(clip.entry)
    assert set(first.views) == {"own", "still", "hidden", "hidden_still", *TINY, *(f"{t}_still" for t in TINY)}
    for view, streams in first.views.items():
        assert set(streams) == ({"body"} if view.startswith("hidden") else {"face", "body"})
        for stream, values in streams.items():
            assert torch.equal(values, again.views[view][stream])
            assert torch.equal(values, uncached.views[view][stream])
    tiny_body.weights_sha256 = "1" * 64
    with pytest.raises(TypeError):
        cache().get(clip.entry)


def test_truth_comes_with_the_clip(tiny: FusionBackbone, corpus: dict[str, FaceClip]) -> None:
    truth = np.ones(40, np.float32)
    track = view_clip(tiny, replace(corpus["tracks/test_0"], truth=truth), "box", TINY[:1])
    assert track.truth is truth
    assert set(track.views) == {"own", "still", TINY[0], f"{TINY[0]}_still"}
