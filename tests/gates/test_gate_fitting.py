"""Fitting on a network whose decision is known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from asd_explain.evaluate.sufficiency import drift
from asd_explain.explain.gate_fitting import PRE_LIMIT, FitOptions, GateFitter, straight_through_top
from asd_explain.explain.gate_places import FusionPlace
from asd_explain.models.se import SqueezeExcite


def test_straight_through_is_hard_forward_and_soft_backward() -> None:
    pre = torch.tensor([[[3.0, 1.0, 2.0, -1.0]], [[3.0, 1.0, 2.0, -1.0]]], requires_grad=True)
    mask = straight_through_top(pre, torch.tensor([2, 4]), 1.0)
    assert mask.tolist() == [[[1, 0, 1, 0]], [[1, 1, 1, 1]]]
    mask[0].sum().backward()
    assert (pre.grad[0] > 0).all()
    # The channels on either side of the border feel it most.
    assert pre.grad[0, 0, 1] == pre.grad[0, 0, 2]
    assert pre.grad[0, 0, 1] > pre.grad[0, 0, 0] > pre.grad[0, 0, 3] * 0.99


def _batches(seed: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(8, 20, 32, generator=generator)


def _fit(tiny: torch.nn.Module, seed: int = 0, **changes: object) -> SqueezeExcite:
    options = FitOptions(**{"reduction": 4, "steps": 250, "least_share": 0.06, "most_share": 0.2, **changes})
    return GateFitter(FusionPlace(tiny), torch.zeros(32), torch.ones(32), options, seed).run(_batches(seed))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_channels_that_decide_come_first_and_the_verdict_stays(tiny: torch.nn.Module, seed: int) -> None:
    block = _fit(tiny, seed)
    x = next(_batches(99))
    gates = block.excitation(x)
    assert (gates[..., :16].argmax(-1) == 3).float().mean() > 0.95
    assert (gates[..., 16:].argmax(-1) == 1).float().mean() > 0.95
    before = tiny.classify(*x.split(16, -1)).softmax(-1)[..., 1]
    after = tiny.classify(*(x * gates).split(16, -1)).softmax(-1)[..., 1]
    change, same = drift(before.flatten(), after.flatten())
    assert change < 0.03
    assert same > 0.97
    others = torch.ones(32, dtype=torch.bool)
    others[[3, 17]] = False
    assert gates[..., others].mean() < gates[..., ~others].mean() - 0.3


def test_gates_never_saturate_into_ties(tiny: torch.nn.Module) -> None:
    block = _fit(tiny)
    x = next(_batches(5))
    pre = block.expand(torch.relu(block.reduce(block.standardised(x))))
    assert pre.abs().quantile(0.999) < PRE_LIMIT + 2
    top = block.excitation(x).flatten(0, 1).topk(2, -1).values
    assert (top[:, 0] > top[:, 1]).all()


def test_same_seed_same_block(tiny: torch.nn.Module) -> None:
    one, two = _fit(tiny, steps=5), _fit(tiny, steps=5)
    other = _fit(tiny, seed=1, steps=5)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(one.reduce.weight, other.reduce.weight)


def test_fitting_leaves_the_random_state_of_the_caller_alone(tiny: torch.nn.Module) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    _fit(tiny, steps=2)
    assert torch.equal(torch.rand(3), expected)
