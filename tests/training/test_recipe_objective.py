"""The loss of a recipe against its formula, written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from entity_support import SmallNetwork, fake_entities
from training_support import cross_entropy

from asd_explain.models.registry import create_model
from asd_explain.models.se import SqueezeExcite
from asd_explain.training.recipe_config import AugmentConfig, BatchConfig, ModelConfig, Recipe, RecipeLoss
from asd_explain.training.recipe_data import RecipeBatch, RecipeBatches
from asd_explain.training.recipe_objective import RecipeObjective, build


def batch(lengths: list[int], **sharing: int) -> RecipeBatch:
    how = Recipe(ModelConfig("x"), batches=BatchConfig(1000), augment=AugmentConfig(view=False, voice=0))
    return RecipeBatches(fake_entities(lengths, bodies=True), how, body="if there", **sharing).batch(1, 0)


@pytest.fixture
def net() -> SmallNetwork:
    torch.manual_seed(1)
    return SmallNetwork(drop=0.0)


@pytest.mark.parametrize("gated", [False, True])
def test_is_the_published_sum(net: SmallNetwork, gated: bool) -> None:
    if gated:
        net.attach_gates(SqueezeExcite(11, reduction=4))
    got = batch([9, 7])
    loss = RecipeLoss(fused=1.0, audio=0.4, face=0.5, temperature=1.3, temperature_step=-0.02)
    value, sums = RecipeObjective(net, loss)(got, 6)
    r = 1.3 - 0.02 * 5
    pooled, _ = net.encode(got.face, got.audio)
    parts = {
        "fused": net(got.face, got.audio).logits,
        "audio": net.lossA["FC"](pooled["audio"]),
        "face": net.lossV["FC"](pooled["face"]),
    }
    parts = {name: cross_entropy(logits / r, got.target) for name, logits in parts.items()}
    assert value.item() == pytest.approx(parts["fused"] + 0.4 * parts["audio"] + 0.5 * parts["face"], rel=1e-5)
    assert sums["frames"] == 14
    for name, part in parts.items():
        assert sums[name].item() / 14 == pytest.approx(part, rel=1e-5)
    right = (net(got.face, got.audio).logits.argmax(-1) == got.target).sum()
    assert sums["right"] == right


def test_processes_mean_is_the_whole(net: SmallNetwork) -> None:
    loss = RecipeLoss(face=0.5)
    whole = RecipeObjective(net, loss)
    value, _ = whole(batch([9, 9, 9]), 1)
    gradient = torch.autograd.grad(value, whole.parameters(), allow_unused=True)
    shared = RecipeObjective(net, loss, ranks=4)
    values = [shared(batch([9, 9, 9], rank=rank, ranks=4), 1)[0] for rank in range(4)]
    assert values[3].item() == 0, "there is no fourth"
    mean = torch.stack(values).mean()
    torch.testing.assert_close(mean, value)
    for one, other in zip(gradient, torch.autograd.grad(mean, shared.parameters(), allow_unused=True), strict=True):
        torch.testing.assert_close(one, other)


def test_light_asds_own_head_learns() -> None:
    torch.manual_seed(0)
    model = create_model("light_asd").train()
    objective = RecipeObjective(model, RecipeLoss(face=0.5))
    assert not objective.heads
    value, _ = objective(batch([6, 5]), 1)
    value.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in objective.parameters())


def test_heads_are_made_where_there_are_none_and_stay_out_of_the_weights() -> None:
    torch.manual_seed(0)
    model = create_model("squeeze_asd").train()
    keys = set(model.state_dict())
    objective = RecipeObjective(model, RecipeLoss(audio=0.2, face=0.3, body=0.2))
    assert set(objective.heads) == {"audio", "face", "body"}
    assert set(objective.model.state_dict()) == keys
    whole, sums = objective(batch([6, 5]), 1)
    whole.backward()
    assert {"audio", "face", "body"} <= set(sums)
    assert float(model.fusion_gate.mean.abs().sum()) > 0, "the block follows the statistics"
    without, sums = objective(replace(batch([6, 5]), absent="audio"), 1)
    assert torch.isfinite(without)
    assert "audio" not in sums
    model.absent["audio"].grad = None
    without.backward()
    assert model.absent["audio"].grad.abs().sum() > 0, "the absent state is learnt"


def test_the_block_is_trained_in_where_asked() -> None:
    model = build(ModelConfig("light_asd", gates=True, reduction=8, scope="clip")).train()
    assert (model.fusion_gate.scope, model.fusion_gate.reduce.out_features) == ("clip", 32)
    value, _ = RecipeObjective(model, RecipeLoss())(batch([5]), 1)
    value.backward()
    assert model.fusion_gate.reduce.weight.grad.abs().sum() > 0


def test_mixed_precision_is_near_and_learns(net: SmallNetwork) -> None:
    got = batch([8, 8])
    exact = RecipeObjective(net, RecipeLoss())(got, 1)[0]
    mixed = RecipeObjective(net, RecipeLoss(), torch.bfloat16)(got, 1)[0]
    assert mixed.item() == pytest.approx(exact.item(), rel=0.05)
    assert mixed.item() != exact.item()
    mixed.backward()
    assert net.looks.weight.grad.dtype == torch.float32
