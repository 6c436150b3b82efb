"""Sufficiency of a network's own gates, against brute force."""

from __future__ import annotations

import pytest
import torch
from gated_support import KnownGates

from asd_explain.evaluate.gate_report import DRAWS, FILLS, MEAN_GATE, NOTHING, OTHER_CLASS, trained_sufficiency
from asd_explain.evaluate.sufficiency import top_mask


@pytest.fixture
def model() -> KnownGates:
    """Gates that differ from frame to frame."""
    model = KnownGates()
    generator = torch.Generator().manual_seed(0)
    for layer in (model.fusion_gate.reduce, model.fusion_gate.expand):
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    return model


def test_equals_brute_force(model: KnownGates) -> None:
    generator = torch.Generator().manual_seed(1)
    x = [4 * torch.rand(n, 6, generator=generator) for n in (7, 12)]
    found = trained_sufficiency(model, x, (0.5, 1.0))
    gates = [model.fusion_gate.excitation(v[None])[0] for v in x]
    mean = torch.cat([g * v for g, v in zip(gates, x, strict=True)]).mean(0)
    for ranking, scores in (
        ("gate", gates),
        ("activation", [v.abs() for v in x]),
        ("gate x standardised", [g * v.abs() for g, v in zip(gates, x, strict=True)]),
        (MEAN_GATE, [torch.cat(gates).mean(0).expand_as(g) for g in gates]),
    ):
        for fill, other in zip(FILLS, (torch.zeros(6), mean), strict=True):
            moved = []
            for v, g, s in zip(x, gates, scores, strict=True):
                kept = torch.where(top_mask(s, (2, 2, 2), 0.5), g * v, other)
                p, q = (torch.sigmoid(values.sum(-1) - 4) for values in (g * v, kept))
                moved.append((p - q).abs())
            key = (0.5, ranking, fill)
            assert found.moved[key]["all"] == pytest.approx(float(torch.cat(moved).mean()), abs=1e-6)
            assert found.by_track[key].tolist() == pytest.approx([float(m.mean()) for m in moved], abs=1e-6)
    assert found.frames == 19


def test_all_kept_changes_nothing_and_nothing_kept_leaves_the_bias(model: KnownGates) -> None:
    x = [torch.rand(9, 6, generator=torch.Generator().manual_seed(2))]
    found = trained_sufficiency(model, x, (0.5, 1.0))
    for ranking in ("gate", "random", "activation", MEAN_GATE, OTHER_CLASS):
        for fill in FILLS:
            assert found.moved[1.0, ranking, fill]["all"] == pytest.approx(0, abs=1e-7)
    p = torch.sigmoid((model.fusion_gate.excitation(x[0][None])[0] * x[0]).sum(-1) - 4)
    bias = torch.sigmoid(torch.tensor(-4.0))
    assert found.moved[0.0, NOTHING, "zero"]["all"] == pytest.approx(float((p - bias).abs().mean()), abs=1e-6)
    random = found.moved[0.5, "random", "zero"]
    assert DRAWS > 1
    assert random["least"] <= random["all"] <= random["most"]
