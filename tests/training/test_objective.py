"""The loss: each part against a computation by hand, nothing learnt from what is not known, absences and statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.models.registry import create_model
from asd_explain.training.objective import LossWeights, Objective
from asd_explain.training.sampler import SOUNDS, Batch

NOTHING = LossWeights(**{f.name: 0.0 for f in fields(LossWeights)})
AUDIO, FACE, BODY = range(3)


def objective(model: nn.Module, weights: LossWeights | None = None, seed: int = 0) -> Objective:
    torch.manual_seed(seed)
    return Objective(model, weights or LossWeights())


def silent_dropout(model: nn.Module) -> nn.Module:
    model.drop.p = 0.0
    return model


def gradients(made: Objective, batch: Batch) -> dict[str, torch.Tensor]:
    made.zero_grad()
    loss, _ = made(batch)
    loss.backward()
    return {k: torch.zeros_like(p) if p.grad is None else p.grad.clone() for k, p in made.named_parameters()}


def bce(margin: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> float:
    """By hand, in float64."""
    p = torch.sigmoid(margin.double())
    losses = -(target * p.log() + (1 - target) * (1 - p).log())
    return float((losses * weight).sum() / max(float(weight.sum()), 1.0))


def test_the_loss_falls(tiny: nn.Module, make_batch: Callable) -> None:
    made, batch = objective(tiny), make_batch()
    optimiser = torch.optim.Adam(made.parameters(), lr=0.05)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        loss, parts = made(batch)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert all(map(math.isfinite, losses))
    assert losses[-1] < 0.75 * losses[0]
    assert all(math.isfinite(value) for value in parts.values())


def test_the_total_is_the_weighted_sum_of_the_parts(tiny: nn.Module, make_batch: Callable) -> None:
    weights = LossWeights(own=1, silent=2, other=3, asked=4, streams=5, features=6, synchrony=7)
    loss, parts = objective(tiny, weights)(make_batch())
    assert list(parts) == [f.name for f in fields(LossWeights)]
    assert loss.item() == pytest.approx(sum(getattr(weights, name) * value for name, value in parts.items()), rel=1e-5)
    loss, _ = objective(tiny, NOTHING)(make_batch())
    assert loss.item() == 0


def test_each_sound_is_judged_as_the_network_judges_it(make_batch: Callable) -> None:
    """Squeeze-ASD itself, asked chunk by chunk with None for what is absent, gives the same cross-entropies."""
    torch.manual_seed(0)
    model = create_model("squeeze_asd")
    made = objective(model).eval()
    batch = make_batch(n=2, length=9, body_of=(1,))
    batch.present[1] = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 0], [0, 1, 1]], dtype=torch.bool)
    batch.present[0, 3] = torch.tensor([False, True, False])
    batch.weight = (torch.rand(2, 4, 9) < 0.7).float()
    with torch.no_grad():
        _, parts = made(batch)
        margins = torch.zeros(2, 4, 9)
        for chunk, sound in np.ndindex(2, 4):
            there = batch.present[chunk, sound]
            logits = model(
                batch.face[chunk][None] if there[FACE] else None,
                batch.mfcc[chunk, sound][None] if there[AUDIO] else None,
                batch.body if there[BODY] else None,
            ).logits[0]
            margins[chunk, sound] = logits[:, 1] - logits[:, 0]
    for i, kind in enumerate(SOUNDS):
        assert parts[kind] == pytest.approx(bce(margins[:, i], batch.target[:, i], batch.weight[:, i]), abs=1e-5)


def test_the_real_network_learns_in_all_its_parts(make_batch: Callable) -> None:
    torch.manual_seed(0)
    made = Objective(create_model("squeeze_asd").train(), LossWeights(), torch.bfloat16)
    batch = make_batch(n=2, length=17, body_of=(0,))
    batch.matched[:] = True
    batch.present[0, 1, FACE] = batch.present[0, 3, AUDIO] = False
    for name, gradient in gradients(made, batch).items():
        assert torch.isfinite(gradient).all(), name
        assert gradient.any(), name


@pytest.mark.parametrize("kind", SOUNDS)
def test_frames_of_no_weight_are_not_learnt_from(tiny: nn.Module, make_batch: Callable, kind: str) -> None:
    made = objective(silent_dropout(tiny), replace(NOTHING, **{kind: 1.0}))
    batch, i = make_batch(), SOUNDS.index(kind)
    batch.weight[:, i, 7:] = batch.lips_weight[:, 7:] = 0
    _, parts = made(batch)
    batch.target[:, i, 7:] = 1 - batch.target[:, i, 7:]
    batch.lips[:, 7:] = 1 - batch.lips[:, 7:]
    assert made(batch)[1] == pytest.approx(parts)
    batch.weight[:, i] = 0
    assert made(batch)[1][kind] == 0
    assert not any(g.any() for g in gradients(made, batch).values())


def test_a_sound_is_a_mean_over_what_is_known(tiny: nn.Module, make_batch: Callable) -> None:
    """Half of the frames weigh nothing: the part is the mean over the other half, not half of it."""
    made = objective(silent_dropout(tiny)).eval()
    batch = make_batch(n=2, body_of=())
    both = made(batch)[1]["silent"]
    halves = []
    for kept in range(2):
        batch.weight[:] = 0
        batch.weight[kept] = 1
        halves.append(made(batch)[1]["silent"])
    assert np.mean(halves) == pytest.approx(both, rel=1e-5)


def test_features_that_nobody_taught_teach_nothing(tiny: nn.Module, make_batch: Callable) -> None:
    made, batch = objective(tiny, replace(NOTHING, features=1.0)), make_batch()
    one = made(batch)[1]["features"]
    assert one > 0
    batch.teacher_face[0] = batch.teacher_audio[0] = torch.nan
    assert 0 < made(batch)[1]["features"] != one
    assert all(torch.isfinite(g).all() for g in gradients(made, batch).values())
    batch.teacher_face[:] = batch.teacher_audio[:] = torch.nan
    assert made(batch)[1]["features"] == 0
    assert not any(g.any() for g in gradients(made, batch).values())


def test_features_are_squared_errors_of_movements(tiny: nn.Module, make_batch: Callable) -> None:
    """Heads that say nothing moves: the mean square of what was taught about each chunk's mean; sound counts 0.3."""
    made, batch = objective(tiny), make_batch()
    for head in (made.face_features, made.audio_features):
        nn.init.zeros_(head.weight)
        nn.init.constant_(head.bias, 7.0)
    made.face_std.fill_(2.0)
    batch.teacher_face[0, :20] = torch.nan
    still = batch.teacher_face.clone()
    face = [batch.teacher_face[0, 20:], batch.teacher_face[1]]
    moves = [(x.double() - x.double().mean(0)) / 2 for x in face]
    sound = batch.teacher_audio.double() - batch.teacher_audio.double().mean(1, keepdim=True)
    expected = torch.cat(moves).square().mean() + 0.3 * sound.square().mean()
    assert made(batch)[1]["features"] == pytest.approx(float(expected), rel=1e-3)
    batch.teacher_face = still + 3
    assert made(batch)[1]["features"] == pytest.approx(float(expected), rel=1e-2), "who it is does not matter"


def test_heads_of_single_streams(tiny: nn.Module, make_batch: Callable) -> None:
    """Heads whose say is fixed: each cross-entropy by hand; bodies have the labels of their own chunks."""
    made, batch = objective(tiny), make_batch(n=3, body_of=(2, 0))
    says = {"face": 0.7, "body": -1.1, "audio": 0.4}
    for stream, head in made.stream_heads.items():
        nn.init.zeros_(head.weight)
        nn.init.constant_(head.bias, says[stream])
    batch.weight[0, 0, 5:] = 0
    batch.lips_weight[2, :9] = 0
    batch.lips = 1 - batch.lips
    batch.matched[1] = False
    target, weight = batch.lips, batch.lips_weight
    sure = torch.stack([batch.weight[:, 0] * batch.matched, batch.weight[:, 1]], 1)
    expected = (
        bce(torch.tensor(says["face"]), target, weight)
        + bce(torch.tensor(says["body"]), target[[2, 0]], weight[[2, 0]])
        + bce(torch.tensor(says["audio"]), batch.target[:, :2], sure)
    )
    assert made(batch)[1]["streams"] == pytest.approx(expected, rel=1e-5)
    before = batch.weight.clone()
    made(batch)
    assert torch.equal(batch.weight, before), "the batch is left as it is"


def test_no_head_learns_where_nothing_is_known(tiny: nn.Module, make_batch: Callable) -> None:
    made, batch = objective(tiny, replace(NOTHING, streams=1.0)), make_batch()
    batch.weight[:, :2] = 0
    batch.lips_weight[:] = 0
    assert made(batch)[1]["streams"] == 0
    assert not any(g.any() for g in gradients(made, batch).values())


@pytest.mark.parametrize(("number", "stream"), [(AUDIO, "audio"), (FACE, "face"), (BODY, "body")])
def test_absent_streams_are_the_learned_vector(tiny: nn.Module, make_batch: Callable, number: int, stream: str) -> None:
    made = objective(silent_dropout(tiny), replace(NOTHING, own=1.0))
    batch = make_batch(body_of=(0, 1))
    batch.present[:, 0] = True
    found = gradients(made, batch)
    assert not any(found[f"model.absent.{s}"].any() for s in tiny.streams), "all are there"
    batch.present[:, 0, number] = False
    found = gradients(made, batch)
    assert found[f"model.absent.{stream}"].any()
    encoder = {"audio": "model.sound", "face": "model.looks.face", "body": "model.looks.body"}
    for other, name in encoder.items():
        assert bool(found[f"{name}.weight"].any()) == (other != stream)
        assert other == stream or not found[f"model.absent.{other}"].any()


def test_a_body_that_was_not_looked_at_is_absent(tiny: nn.Module, make_batch: Callable) -> None:
    made = objective(silent_dropout(tiny), replace(NOTHING, own=1.0))
    assert gradients(made, make_batch(body_of=()))["model.absent.body"].any()
    assert made(make_batch(body_of=()))[0].isfinite()


def test_statistics_follow_the_data(tiny: nn.Module, make_batch: Callable) -> None:
    """The first batch's are taken as they are; then the mean of the means of all batches (100 at most)."""
    made, block = objective(tiny, NOTHING), tiny.fusion_gate
    means, stds = [], []
    for seed in range(4):
        batch = make_batch(seed, body_of=(0, 1))
        made(batch)
        pooled = (
            tiny.audio_embedding(batch.mfcc.flatten(0, 1)),
            tiny.pool(tiny.face_maps(batch.face)),
            tiny.pool(tiny.body_maps(batch.body)),
        )
        rows = [x.detach().flatten(0, 1) for x in pooled]
        means.append(torch.cat([x.mean(0) for x in rows]))
        stds.append(torch.cat([x.std(0).clamp_min(1e-3) for x in rows]))
        torch.testing.assert_close(block.mean, torch.stack(means).mean(0))
        torch.testing.assert_close(block.std, torch.stack(stds).mean(0))


def test_statistics_stay_in_evaluation_and_where_a_stream_was_not_seen(tiny: nn.Module, make_batch: Callable) -> None:
    made, block = objective(tiny), tiny.fusion_gate
    made(make_batch(0))
    before = block.mean.clone(), block.std.clone(), made.seen.clone()
    made.eval()(make_batch(1))
    assert all(torch.equal(a, b) for a, b in zip(before, (block.mean, block.std, made.seen), strict=True))
    made.train()(make_batch(1, body_of=()))
    assert torch.equal(block.mean[-4:], before[0][-4:])
    assert not torch.equal(block.mean[:-4], before[0][:-4])


def test_networks_without_a_gate_or_statistics_are_left_alone(tiny: nn.Module, make_batch: Callable) -> None:
    tiny.attach_gates(None)
    assert torch.isfinite(objective(tiny)(make_batch())[0])


def _synchrony_by_hand(lips: np.ndarray, sound: np.ndarray, matched: np.ndarray, scale: float) -> float:
    """InfoNCE over windows of 9 frames, every 4; windows of the same chunk nearer than 3 windows are no negatives."""
    places = [(n, w) for n in range(len(lips)) for w in range((lips.shape[1] - 9) // 4 + 1)]
    places = [(n, w) for n, w in places if matched[n, 4 * w : 4 * w + 9].all()]

    def window(x: np.ndarray, place: tuple[int, int]) -> np.ndarray:
        v = x[place[0], 4 * place[1] : 4 * place[1] + 9].mean(0)
        return v / np.linalg.norm(v)

    total = 0.0
    for a, b in ((lips, sound), (sound, lips)):
        for here in places:
            against = [p for p in places if p == here or p[0] != here[0] or abs(p[1] - here[1]) >= 3]
            said = np.array([scale * window(a, here) @ window(b, p) for p in against])
            total += np.log(np.exp(said).sum()) - said[against.index(here)]
    return total / len(places) / 2


@pytest.fixture
def toy(tiny: nn.Module, make_batch: Callable) -> tuple[Objective, Batch, np.ndarray]:
    """An objective whose synchrony sees vectors as they are; the vectors, (2, 33, 64), turn slowly."""
    made, batch = objective(tiny), make_batch(n=2, length=33)
    made.sync_face, made.sync_audio = nn.Identity(), nn.Identity()
    batch.matched[:] = True
    batch.matched[0, 14] = False
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2, 33 + 8, 64))
    vectors = np.stack([vectors[:, i : i + 33] for i in range(8)]).mean(0)
    return made, batch, vectors


def sync(made: Objective, batch: Batch, lips: np.ndarray, sound: np.ndarray) -> float:
    heard = np.repeat(sound[:, None], 4, 1)
    pooled = {"face": torch.from_numpy(lips).float(), "audio": torch.from_numpy(heard).float()}
    return made._sync_loss(batch, pooled).item()


def test_synchrony_equals_the_formula(toy: tuple) -> None:
    made, batch, lips = toy
    sound = lips + np.random.default_rng(1).standard_normal(lips.shape)
    expected = _synchrony_by_hand(lips, sound, batch.matched.numpy(), math.exp(2.3))
    assert sync(made, batch, lips, sound) == pytest.approx(expected, rel=1e-4)


def test_synchrony_is_less_for_the_right_sound(toy: tuple) -> None:
    made, batch, lips = toy
    right, exchanged, moved = (sync(made, batch, lips, s) for s in (lips, lips[::-1].copy(), np.roll(lips, 12, 1)))
    assert right < 0.1
    assert exchanged > right + 1
    assert moved > right + 1


def test_synchrony_is_asked_only_of_matched_frames(toy: tuple, make_batch: Callable, tiny: nn.Module) -> None:
    made, batch, lips = toy
    batch.matched[1] = False
    other = lips.copy()
    other[1] += 5
    assert sync(made, batch, lips, lips) == sync(made, batch, other, lips)
    batch.matched[:] = False
    assert sync(made, batch, lips, lips[::-1].copy()) == 0
    unmatched = make_batch()
    unmatched.matched[:] = False
    made = objective(tiny, replace(NOTHING, synchrony=1.0))
    assert made(unmatched)[1]["synchrony"] == 0
    assert not any(g.any() for g in gradients(made, unmatched).values())


@pytest.mark.parametrize("name", [f.name for f in fields(LossWeights)])
@pytest.mark.parametrize("wrong", [-0.1, math.nan, True, "much"])
def test_weights_that_cannot_be_used(name: str, wrong: object) -> None:
    with pytest.raises(OptionError, match=rf"\[loss\] {name} = "):
        replace(LossWeights(), **{name: wrong})
