"""Batches: chance only from seed and number, shapes as documented, and no label that is not known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from asd_explain.errors import OptionError
from asd_explain.media.audio import Audio
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.training.augment_sound import SoundAugment
from asd_explain.training.augment_view import ViewAugment, plain_view
from asd_explain.training.corpus import TrainTrack, track_of
from asd_explain.training.sampler import FEATURES, SOUNDS, Batch, Sampler, SamplerConfig
from asd_explain.training.teacher import SHIFTS

OWN, SILENT, OTHER, ASKED = range(4)
AUDIO, FACE, BODY = range(3)
T = 25
CONFIG = SamplerConfig(chunks=4, frames=T, frozen=0.0)
SILENCE = aligned_mfcc(None, 0.0, T)


@pytest.fixture
def tracks(make_clip: Callable, make_lesson: Callable) -> list[TrainTrack]:
    """Two people, one of them twice."""
    return [
        track_of(make_clip(name, seed=i, length=n), make_lesson(n, seed=i))
        for i, (name, n) in enumerate((("anna", T), ("bob", T + 7), ("anna", T + 20)))
    ]


def sampler(tracks: list[TrainTrack], config: SamplerConfig = CONFIG, **options: object) -> Sampler:
    """Nothing is disturbed."""
    return Sampler(tracks, config, ViewAugment.off(), SoundAugment.off(), **options)


def equal(a: Batch, b: Batch) -> bool:
    return all(
        torch.equal(x.nan_to_num(9), y.nan_to_num(9)) for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


def rows(tracks: list[TrainTrack], config: SamplerConfig = CONFIG, batches: int = 8, **options: object) -> list[Batch]:
    """Single chunks of some batches, as batches of one with their body, if any."""
    found = []
    for number in range(batches):
        batch = sampler(tracks, config, **options).batch(number)
        for i in range(config.chunks):
            at = batch.body_of == i
            fields = {k: v[i : i + 1] for k, v in vars(batch).items() if k not in ("body", "body_of")}
            found.append(Batch(body=batch.body[at], body_of=batch.body_of[at], **fields))
    return found


def heard(wave: np.ndarray) -> torch.Tensor:
    """MFCC of int16 samples."""
    return aligned_mfcc(Audio(wave.astype(np.float32) / 32768, 0.0), 0.0, len(wave) // 640)


def test_a_batch_is_a_function_of_seed_and_number(tracks: list[TrainTrack]) -> None:
    def disturbed(seed: int) -> Sampler:
        return Sampler(tracks, CONFIG, ViewAugment(), SoundAugment(), seed=seed)

    one = disturbed(5)
    later = one.batch(3)
    assert equal(later, disturbed(5).batch(3)), "whatever was drawn before"
    one.batch(0)
    assert equal(later, one.batch(3))
    assert not equal(later, one.batch(4))
    assert not equal(later, disturbed(6).batch(3))


def test_ranks_draw_different_batches_and_together_what_one_would(tracks: list[TrainTrack]) -> None:
    alone = sampler(tracks)
    for number in range(2):
        for rank in range(2):
            assert equal(sampler(tracks, rank=rank, ranks=2).batch(number), alone.batch(2 * number + rank))
    assert not equal(alone.batch(0), alone.batch(1))


@pytest.mark.parametrize("body", [0.0, 0.5, 1.0])
def test_shapes_and_types(tracks: list[TrainTrack], body: float) -> None:
    batch = sampler(tracks, replace(CONFIG, body=body, frozen=0.3)).batch(1)
    n, m = CONFIG.chunks, len(batch.body_of)
    if body in (0, 1):
        assert m == n * body
    expected = {
        "face": ((n, T, 112, 112), torch.uint8),
        "body": ((m, T, 112, 112), torch.uint8),
        "body_of": ((m,), torch.int64),
        "mfcc": ((n, len(SOUNDS), 4 * T, 13), torch.float32),
        "present": ((n, len(SOUNDS), 3), torch.bool),
        "target": ((n, len(SOUNDS), T), torch.float32),
        "weight": ((n, len(SOUNDS), T), torch.float32),
        "lips": ((n, T), torch.float32),
        "lips_weight": ((n, T), torch.float32),
        "teacher_face": ((n, T, FEATURES[0]), torch.float16),
        "teacher_audio": ((n, T, FEATURES[1]), torch.float16),
        "matched": ((n, T), torch.bool),
    }
    assert {k: (tuple(v.shape), v.dtype) for k, v in vars(batch).items()} == expected
    assert batch.target.isfinite().all()
    assert batch.target.min() >= 0
    assert batch.target.max() <= 1
    assert set(batch.weight.unique().tolist()) <= {0.0, 1.0}
    assert equal(batch.to(torch.device("cpu")), batch)


def test_undisturbed_chunks_are_pieces_of_the_tracks(tracks: list[TrainTrack]) -> None:
    """Face, body, sound, label and features are of the same frames of the same track."""
    found = set()
    for row in rows(tracks, replace(CONFIG, body=1.0)):
        places = [
            (t, first)
            for t in tracks
            for first in range(len(t) - T + 1)
            if np.array_equal(row.face[0], plain_view(t.clip.wide[first : first + T]))
        ]
        ((track, first),) = places
        part = slice(first, first + T)
        found.add((track.clip.entry.name, first))
        np.testing.assert_array_equal(row.body[0], track.clip.bodies[part])
        np.testing.assert_array_equal(row.mfcc[0, OWN], heard(track.clip.waveform[640 * first : 640 * (first + T)]))
        np.testing.assert_array_equal(row.target[0, OWN], track.own[part])
        np.testing.assert_array_equal(row.teacher_face[0], track.lesson.face[part])
        np.testing.assert_array_equal(row.teacher_audio[0], track.lesson.audio[part])
        assert row.matched.all(), "own is 0.75"
    assert {name for name, _ in found} == {t.clip.entry.name for t in tracks}
    assert len(found) > 8


def test_nobody_speaks_in_silence_under_another_voice_or_in_a_held_picture(tracks: list[TrainTrack]) -> None:
    live, held = (sampler(tracks, replace(CONFIG, frozen=p)).batch(0) for p in (0.0, 1.0))
    assert not live.target[:, (SILENT, OTHER)].any()
    assert live.weight[:, (SILENT, OTHER)].all()
    assert live.target[:, OWN].min() == 0.75
    assert not held.target.any()
    assert held.weight.all()
    assert not held.matched.any()
    assert (held.face == held.face[:, :1]).all()
    assert not (live.face == live.face[:, :1]).all()


def test_a_held_picture_is_taught_with_the_held_features(tracks: list[TrainTrack]) -> None:
    row = next(r for r in rows(tracks[:2], replace(CONFIG, frozen=1.0)) if (r.teacher_face[0, 0] != 0).any())
    stills = [t.lesson.still[first : first + T] for t in tracks[:2] for first in range(len(t) - T + 1)]
    assert any(np.array_equal(row.teacher_face[0], still) for still in stills)


def test_silence_is_sometimes_digital_and_never_a_voice_of_the_clips(tracks: list[TrainTrack]) -> None:
    digital = [torch.equal(r.mfcc[0, SILENT], SILENCE) for r in rows(tracks, batches=10)]
    assert 3 < sum(digital) < 30


def test_other_voices_are_other_peoples(make_clip: Callable, make_lesson: Callable) -> None:
    """Two names that stand for the same people are one voice; a silent clip is nobody's."""
    people = ("dubbed_own_voice", "dubbed_foreign_voice", "carl")
    tracks = [track_of(make_clip(p, seed=i, length=T), make_lesson(T)) for i, p in enumerate(people)]
    tracks.append(track_of(make_clip("mute", seed=9, length=T, voice=False), make_lesson(T)))
    voice_of = {tuple(heard(t.clip.waveform)[:, 1].tolist()): t.voice for t in tracks[:3]}
    face_of = {plain_view(t.clip.wide).tobytes(): t.voice for t in tracks}
    pairs = set()
    for row in rows(tracks):
        seen, other = face_of[row.face[0].numpy().tobytes()], voice_of[tuple(row.mfcc[0, OTHER, :, 1].tolist())]
        assert seen != other
        pairs.add((seen, other))
    assert pairs == {("dubbed", "carl"), ("carl", "dubbed"), ("mute", "carl"), ("mute", "dubbed")}


def test_nothing_is_known_beyond_a_short_tracks_end(make_clip: Callable, make_lesson: Callable) -> None:
    tracks = [track_of(make_clip(p, length=10), make_lesson(10)) for p in ("anna", "bo")]
    for frozen in (0.0, 1.0):
        for row in rows(tracks, replace(CONFIG, frozen=frozen), batches=3):
            assert not row.weight[..., 10:].any()
            assert row.weight[0, (OWN, SILENT, OTHER), :10].all()
            assert not row.matched[:, 10:].any()
            assert (row.face[0, 10:] == row.face[0, 9]).all(), "the last picture stays"


def test_unknown_labels_weigh_nothing(make_clip: Callable) -> None:
    truth = np.ones(T, np.float32)
    truth[5:12] = np.nan
    talking = np.ones(T, np.float32)
    talking[3:9] = np.nan
    tracks = [track_of(make_clip(p, length=T, truth=truth, talking=talking), None) for p in ("anna", "bo")]
    mute = 0
    for row in rows(tracks):
        np.testing.assert_array_equal(row.weight[0, OWN], ~np.isnan(truth))
        np.testing.assert_array_equal(row.matched[0], ~np.isnan(truth))
        assert row.weight[0, (SILENT, OTHER)].all()
        assert row.teacher_face.isnan().all()
        assert row.teacher_audio.isnan().all()
        if not row.present[0, ASKED, AUDIO]:
            mute += 1
            np.testing.assert_array_equal(row.weight[0, ASKED], ~np.isnan(talking))
            assert torch.equal(row.target[0, ASKED], row.weight[0, ASKED]), "1 where known"
        else:
            assert not row.weight[0, ASKED].any(), "nobody was asked about moved sound"
    assert 3 < mute < 25


def test_a_clip_without_a_sound_track_is_heard_as_near_silence(make_clip: Callable, make_lesson: Callable) -> None:
    mute = track_of(make_clip("mute", seed=4, length=T, voice=False), make_lesson(T, own=0.9))
    tracks = [track_of(make_clip(p, length=T), make_lesson(T)) for p in ("anna", "bo")]
    factor = (("single", 0.0), ("listening", 1.0))
    mute = replace(mute, clip=replace(mute.clip, entry=replace(mute.clip.entry, group="listening")))
    for row in rows([*tracks, mute], replace(CONFIG, groups=factor)):
        assert not (row.target * row.weight).any()
        assert row.weight[0, :ASKED].all()
        assert not row.weight[0, ASKED].any(), "neither lips nor moved sound are known"
        assert row.mfcc[0, OWN, :, 0].max() < 17, "well below the clips' noise, which is near 22"
        assert not row.matched.any()
        assert row.teacher_audio.isnan().all()
        assert not row.teacher_face.isnan().any()


def test_streams_are_absent_only_where_the_network_knows_of_it(tracks: list[TrainTrack]) -> None:
    gone = replace(CONFIG, face_absent=0.5, body_absent=0.5, sound_only=0.3, body=0.7)
    for row in rows(tracks, gone, absence=False):
        assert row.present[..., (AUDIO, FACE)].all()
        assert (row.present[0, :, BODY] == bool(len(row.body))).all()
    for row in rows(tracks, gone, absence=False, body=False):
        assert not row.present[..., BODY].any()
        assert not len(row.body)
    kinds = set()
    for row in rows(tracks, gone, batches=16):
        for sound, streams in zip(SOUNDS, row.present[0].tolist(), strict=True):
            kinds.add((bool(len(row.body)), sound, *streams))
    assert all(any(streams) for *_, a, b, c in kinds for streams in [(a, b, c)]), "something is always there"
    assert all(body or not present for body, *_, present in kinds), "no body is present that was not looked at"
    assert {k[1] for k in kinds if not k[2]} == {"asked"}, "only then the sound track may be absent"
    assert {k[1] for k in kinds if not k[3] and not k[4]} == {"own", "silent"}
    assert all(body for body, *_, face, present in kinds if present and not face)
    assert (True, "other", True, False, True) in kinds
    assert (True, "asked", False, False, True) in kinds
    assert (True, "own", True, True, False) in kinds
    always = replace(CONFIG, face_absent=0.0, body_absent=0.0, sound_only=0.0, body=1.0)
    assert all(row.present[:, :ASKED].all() for row in rows(tracks, always))


def test_asked_sounds_are_what_the_teacher_was_asked(make_clip: Callable, make_lesson: Callable) -> None:
    """The answer says which question it was; the sound is the rolled or the turned waveform, at the same place."""
    n = T + 5
    tracks = [track_of(make_clip(p, length=n), make_lesson(n)) for p in ("anna", "bo")]
    answers = {round(0.01 * (i + 1), 2): shift for i, shift in enumerate(SHIFTS)} | {0.05: None}
    found = set()
    for row in rows(tracks, batches=14):
        if not row.present[0, ASKED, AUDIO]:
            assert torch.equal(row.mfcc[0, ASKED], SILENCE)
            assert (row.target[0, ASKED] == 0.75).all(), "lips of a heard clip are its own label"
            continue
        assert row.weight[0, ASKED].all()
        (answer,) = {round(v, 2) for v in row.target[0, ASKED].tolist()}
        shift = answers[answer]
        found.add(shift)
        ((wave, first),) = [
            (t.clip.waveform, first)
            for t in tracks
            for first in range(n - T + 1)
            if np.array_equal(row.face[0], plain_view(t.clip.wide[first : first + T]))
        ]
        moved = wave[::-1] if shift is None else np.roll(wave, 640 * shift)
        np.testing.assert_array_equal(row.mfcc[0, ASKED], heard(moved[640 * first : 640 * (first + T)]))
    assert found == {*SHIFTS, None}


def test_positive_shifts_are_later(make_clip: Callable, make_lesson: Callable) -> None:
    """As in the lesson, whose embeddings are rolled the same way: frame i hears what frame i - shift said."""
    n = 80
    tracks = [track_of(make_clip(p, length=n), make_lesson(n)) for p in ("anna", "bo")]
    row = next(
        r for r in rows(tracks, replace(CONFIG, frames=n), batches=10) if abs(r.target[0, ASKED, 0] - 0.03) < 1e-6
    )
    assert SHIFTS[2] == 15
    middle = slice(4 * 20, 4 * 78)
    rolled = row.mfcc[0, OWN].roll(4 * 15, 0)
    torch.testing.assert_close(row.mfcc[0, ASKED, middle], rolled[middle], atol=1e-4, rtol=1e-4)


def test_a_hidden_mouth_teaches_no_lips(tracks: list[TrainTrack]) -> None:
    hidden = Sampler(tracks, CONFIG, replace(ViewAugment.off(), occlude_mouth=1.0), SoundAugment.off()).batch(0)
    assert hidden.teacher_face.isnan().all()
    assert not hidden.matched.any()
    assert not hidden.teacher_audio.isnan().any()
    assert hidden.target[:, OWN].min() == 0.75, "what the label says stays"


def test_groups_are_drawn_as_often_as_asked(make_clip: Callable, make_lesson: Callable) -> None:
    tracks = [
        track_of(make_clip(p, length=T, group=g), make_lesson(T, own=own))
        for p, g, own in (("anna", "single", 0.75), ("bo", "listening", 0.25))
    ]
    config = replace(CONFIG, chunks=64, groups=(("single", 3.0), ("listening", 1.0)))
    share = (sampler(tracks, config).batch(0).target[:, OWN, 0] == 0.75).float().mean()
    assert 0.6 < share < 0.9


def test_two_voices_are_needed(tracks: list[TrainTrack], make_clip: Callable, make_lesson: Callable) -> None:
    mute = track_of(make_clip("mute", voice=False), make_lesson(40))
    with pytest.raises(OptionError, match="two people"):
        sampler([tracks[0], tracks[2], mute])
    with pytest.raises(OptionError, match="no face tracks"):
        sampler([])
    with pytest.raises(OptionError, match="no face tracks"):
        sampler(tracks, replace(CONFIG, groups=(("single", 0.0),)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"chunks": 1},
        {"frames": 24},
        {"frozen": 1.1},
        {"body": -0.1},
        {"groups": ("single",)},
        {"groups": (("single", -1.0),)},
        {"groups": (("single", "often"),)},
    ],
)
def test_options_that_cannot_be_used(wrong: dict) -> None:
    with pytest.raises(OptionError, match=rf"\[sampler\] {next(iter(wrong))} = "):
        replace(CONFIG, **wrong)
