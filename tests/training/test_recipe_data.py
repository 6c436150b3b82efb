"""Batches by frames: their plan, their sound, their disturbances, their shares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from entity_support import fake_entities
from hypothesis import given
from hypothesis import strategies as st

from asd_explain.datasets.entities import DataError
from asd_explain.errors import OptionError
from asd_explain.media.mfcc import mfcc
from asd_explain.training.recipe_augment import KINDS, View, add_voice, draw_view
from asd_explain.training.recipe_config import AugmentConfig, BatchConfig, ModelConfig, Recipe
from asd_explain.training.recipe_data import RecipeBatches, checked_clip, entity_sound, loaded, plan_batches

PLAIN = AugmentConfig(view=False, voice=0)


def recipe(frames: int = 100, augment: AugmentConfig = PLAIN) -> Recipe:
    return Recipe(ModelConfig("x"), batches=BatchConfig(frames), augment=augment, seed=5)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 200))
def test_the_plan_is_the_published_one(lengths: list[int], frames: int) -> None:
    plan = plan_batches(lengths, frames)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(lengths))), "everyone once"
    sorted_lengths = [lengths[i] for batch in plan for i in batch]
    assert sorted_lengths == sorted(lengths, reverse=True)
    for batch in plan[:-1]:
        assert len(batch) == max(1, frames // lengths[batch[0]])


def test_equal_lengths_are_mixed_by_the_seed() -> None:
    assert [b.tolist() for b in plan_batches([7] * 20, 70, 1)] != [b.tolist() for b in plan_batches([7] * 20, 70, 2)]


def test_nothing_to_plan() -> None:
    with pytest.raises(OptionError, match="nothing to train on"):
        plan_batches([], 100)
    with pytest.raises(OptionError, match="without a frame"):
        plan_batches([3, 0], 100)


@pytest.mark.parametrize("fps", [10, 15, 23.976, 24, 25, 29.97, 30, 50, 60])
@pytest.mark.parametrize("frames", [1, 2, 31])
def test_four_steps_a_frame_whatever_the_rate(fps: float, frames: int) -> None:
    rng = np.random.default_rng(0)
    sound = rng.uniform(-0.5, 0.5, 16000 * 4).astype(np.float32)
    got = entity_sound(sound, fps, frames)
    assert got.shape == (4 * frames, 13)
    torch.testing.assert_close(got, mfcc(sound, fps)[: 4 * frames], rtol=0, atol=0)


def test_silence_follows_where_the_sound_ends() -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 6400).astype(np.float32)
    got = entity_sound(sound, 25, 20)  # 10 frames are heard
    padded = np.concatenate([sound, np.zeros(16000, np.float32)])
    torch.testing.assert_close(got, mfcc(padded, 25)[:80], rtol=0, atol=0)
    assert got[50:, 0].max() < -30, "the energy of digital silence"


@pytest.mark.shared
def test_features_are_those_of_the_published_library(shared_dir: Path) -> None:
    reference = np.load(shared_dir / "reference" / "mfcc.npz")
    sound = reference["waveform"].astype(np.float32) / 32768
    for key in (k for k in reference.files if k.startswith("mfcc_")):
        fps = float(key.removeprefix("mfcc_"))
        frames = len(reference[key]) // 4 - 1
        np.testing.assert_allclose(entity_sound(sound, fps, frames), reference[key][: 4 * frames], atol=2e-3)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 5.0])
def test_another_voice_lies_at_its_ratio(snr_db: float) -> None:
    rng = np.random.default_rng(1)
    own, other = (0.05 * rng.standard_normal(n).astype(np.float32) for n in (4000, 1500))
    added = add_voice(own, other, snr_db) - own
    ratio = 10 * np.log10(np.square(own).sum() / np.square(added).sum())
    assert ratio == pytest.approx(snr_db, abs=1e-3)
    np.testing.assert_allclose(added[:1000], added[1500:2500], atol=1e-6, err_msg="a short one is repeated")
    assert np.abs(add_voice(own * 15, other, -5)).max() <= 1, "clipped, not wrapped around"
    assert np.array_equal(add_voice(own, np.zeros(5, np.float32), snr_db), own)


def test_views_are_those_of_opencv() -> None:
    crops = np.random.default_rng(2).integers(0, 256, (3, 20, 20), dtype=np.uint8)
    assert np.array_equal(View().apply(crops), crops)
    assert np.array_equal(View("mirrored").apply(crops), np.stack([cv2.flip(c, 1) for c in crops]))
    cut = View("cut", left=2, top=5, side=14).apply(crops)
    assert np.array_equal(cut[1], cv2.resize(crops[1, 5:19, 2:16], (20, 20)))
    turned = View("turned", turn_deg=15.0).apply(crops)
    matrix = cv2.getRotationMatrix2D((10, 10), 15.0, 1)
    assert np.array_equal(turned[2], cv2.warpAffine(crops[2], matrix, (20, 20)))
    assert turned[2, 0, 0] == 0, "black comes in from outside"


def test_views_are_drawn_evenly_and_within_bounds() -> None:
    rng = np.random.default_rng(3)
    views = [draw_view(rng, AugmentConfig(), 112) for _ in range(2000)]
    shares = [sum(v.kind == kind for v in views) / 2000 for kind in KINDS]
    assert shares == pytest.approx([0.25] * 4, abs=0.04)
    assert {v.side for v in views} <= set(range(78, 113))
    assert max(max(v.left, v.top) + v.side for v in views) <= 112
    assert max(abs(v.turn_deg) for v in views) <= 15
    assert draw_view(rng, PLAIN, 112) == View()


def test_a_batch_is_cut_to_its_shortest() -> None:
    entities = fake_entities([20, 30, 26, 5], bodies=True)
    entities.clips[0].labels[:] = 2  # speaking that is not heard
    batches = RecipeBatches(entities, recipe(90), body="if there")
    assert [b.tolist() for b in batches.plan] == [[1, 2, 0], [3]]
    got = batches.batch(1, 0)
    assert (got.face.shape, got.audio.shape, got.target.shape) == ((3, 20, 112, 112), (3, 80, 13), (3, 20))
    assert torch.equal(got.face[0], torch.from_numpy(entities.clips[1].face[:20]))
    assert torch.equal(got.body[1], torch.from_numpy(entities.clips[2].body[:20]))
    assert got.target[2].sum() == 0
    assert got.target[0].tolist() == entities.clips[1].labels[:20].tolist()
    assert (got.entities, got.weight.tolist(), got.absent) == (3, [1, 1, 1], "")
    assert RecipeBatches(entities, recipe(90)).batch(1, 0).body is None


def test_bodies_are_seen_where_all_have_one_or_asked_for() -> None:
    entities = fake_entities([8, 8], bodies=True)
    entities.change(1, body=None)
    assert RecipeBatches(entities, recipe(), body="if there").batch(1, 0).body is None
    with pytest.raises(OptionError, match=r"video1_0900_0930:1: it has no body crops"):
        RecipeBatches(entities, recipe(), body="needed").batch(1, 0)


def test_a_batch_depends_on_seed_epoch_and_number_alone() -> None:
    entities = fake_entities([12] * 6)
    one, other = (RecipeBatches(entities, recipe(36, AugmentConfig())) for _ in range(2))
    other.batch(3, 1)
    first, again, later = one.batch(1, 0), other.batch(1, 0), one.batch(2, 0)
    assert torch.equal(first.face, again.face)
    assert torch.equal(first.audio, again.audio)
    assert not torch.equal(first.audio, later.audio)
    assert sorted(one.order(1)) == [0, 1]
    assert np.array_equal(one.order(4), other.order(4))
    assert {tuple(one.order(epoch)) for epoch in range(8)} == {(0, 1), (1, 0)}


def test_processes_share_a_batch_without_changing_it() -> None:
    entities = fake_entities([12] * 3, bodies=True)
    how = recipe(36, AugmentConfig(voice=1.0))
    whole = RecipeBatches(entities, how, body="needed").batch(2, 0)
    shares = [RecipeBatches(entities, how, body="needed", rank=r, ranks=2).batch(2, 0) for r in range(2)]
    for name in ("face", "body", "audio", "target"):
        together = torch.stack([getattr(shares[i % 2], name)[i // 2] for i in range(3)])
        assert torch.equal(together, getattr(whole, name)), name
    assert [share.entities for share in shares] == [3, 3]
    idle = RecipeBatches(entities, how, rank=3, ranks=4).batch(2, 0)
    assert (idle.weight.tolist(), len(idle.face)) == ([0.0], 1)


def test_a_stream_is_left_out_of_some_batches() -> None:
    entities = fake_entities([6] * 2)
    batches = RecipeBatches(
        entities, recipe(12, replace(PLAIN, absent=0.5)), body="if there", streams=("audio", "face", "body")
    )
    said = [batches.batch(epoch, 0).absent for epoch in range(60)]
    assert {*said} == {"", "audio", "face"}, "a body that is not there is not left out"
    assert 15 < said.count("") < 45


def test_a_sound_that_is_not_there_is_named() -> None:
    entities = fake_entities([6, 1])
    entities.change(0, waveform=np.zeros(0, np.float32))
    with pytest.raises(OptionError, match=r"video0_0900_0930:0: its sound has no samples"):
        checked_clip(entities, 0)
    assert len(checked_clip(entities, 1).waveform) == 0, "of one frame there is none"
    assert RecipeBatches(entities, recipe(1)).batch(1, 1).audio.shape == (1, 4, 13)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_missing_file_is_one_line_out_of_a_worker(workers: int) -> None:
    entities = fake_entities([6] * 3)
    entities.missing = entities.rows[1].entity_id
    batches = RecipeBatches(entities, recipe(6))
    with pytest.raises(DataError) as caught:
        list(loaded(lambda place: batches.batch(1, place), 3, workers))
    assert str(caught.value) == "audio/video1_0900_0930:1.wav: no such file; prepare the data set again"


def test_workers_keep_the_order_and_draw_from_no_common_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert list(loaded(lambda place: place * place, 7, 2)) == [i * i for i in range(7)]
    assert torch.equal(torch.get_rng_state(), before)


def test_every_use_of_draws_has_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy gives the same numbers for [1, 2] and [1, 2, 0]; no two uses may differ by zeros at the end alone."""
    seeds = []
    real = np.random.default_rng
    batches = RecipeBatches(fake_entities([9, 9, 9]), recipe(9, AugmentConfig()))
    monkeypatch.setattr(np.random, "default_rng", lambda seed: seeds.append(tuple(seed)) or real(seed))
    batches.order(0)
    batches.batch(0, 0)
    batches.batch(0, 2)
    stripped = [np.trim_zeros(np.array(seed), "b").tolist() for seed in seeds]
    assert len(seeds) == 5
    assert all(stripped.count(one) == 1 for one in stripped)
