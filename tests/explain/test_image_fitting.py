"""A block fitted to a frozen classifier of pictures, without labels."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import VisionTransformer

from asd_explain.errors import OptionError
from asd_explain.explain.gate_fitting import FitOptions
from asd_explain.explain.image_fitting import PictureGateFitter, fit
from asd_explain.explain.images import explain
from asd_explain.models.images import block_of, front, squeeze, without_block

OPTIONS = FitOptions(steps=150)


class Halves(nn.Module):
    """Six channels of 4x4 cells, averaged; the first two decide between two classes, the others are noise."""

    def __init__(self, flat: bool = False) -> None:
        super().__init__()
        self.pool, self.head = nn.AdaptiveAvgPool2d(4 if flat else 1), nn.Linear(6 * (16 if flat else 1), 2, bias=False)
        weight = torch.zeros(2, 6, 16 if flat else 1)
        weight[0, 0] = weight[1, 1] = 12.0 / weight.shape[-1]
        self.head.weight.data = weight.flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = torch.sin(37 * x).abs()
        return self.head(self.pool(torch.cat((x[:, :2], noise, x[:, 2:]), 1)).flatten(1))


def _pictures(count: int = 128) -> torch.Tensor:
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def _squeezed(flat: bool = False) -> nn.Module:
    class Host(nn.Module):
        image_size = 4

        def __init__(self) -> None:
            super().__init__()
            self.inner = Halves(flat)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    return squeeze(Host(), reduction=2).eval()


@pytest.mark.parametrize("flat", [False, True])
def test_answers_stay_and_deciding_channels_keep_the_widest_gates(flat: bool) -> None:
    model = _squeezed(flat)
    assert block_of(model).place.averaged != flat
    images = _pictures()
    with torch.no_grad():
        before = model(images)
    done = fit(model, images, options=OPTIONS)
    assert block_of(model).learnt
    with torch.no_grad():
        after, (x, _) = model(images), front(model, images)
        gates = block_of(model).gates_of(x).mean(0)
        with without_block(model):
            torch.testing.assert_close(model(images), before, rtol=0, atol=0)
    # Measured through the whole network, not through the fitter's own tail.
    drift = float((after.softmax(-1) - before.softmax(-1)).abs().sum(-1).mean() / 2)
    assert drift == pytest.approx(done.drift, abs=1e-4)
    assert drift < 0.03
    assert done.agreement == pytest.approx(float((after.argmax(-1) == before.argmax(-1)).float().mean()))
    assert float(gates[:2].min()) > float(gates[2:].max())
    assert done.mean_gate == pytest.approx(float(gates.mean()), abs=1e-4)
    assert explain(model, images[0]).shape == (4, 4)


def test_batches_and_seeds_give_the_same_block() -> None:
    images = _pictures(70)
    blocks = []
    for given in (images, DataLoader(TensorDataset(images, torch.zeros(70)), 64)):
        model = _squeezed()
        fit(model, given, options=FitOptions(steps=5), seed=3)
        blocks.append(block_of(model).state_dict())
    assert all(torch.equal(blocks[0][key], blocks[1][key]) for key in blocks[0])


def test_the_host_is_left_alone() -> None:
    model = _squeezed()
    model.inner.head.weight.requires_grad_(False)
    state = {k: v.clone() for k, v in model.inner.state_dict().items()}
    with torch.inference_mode(False), torch.no_grad():
        fit(model, _pictures(8), options=FitOptions(steps=3))
    assert all(torch.equal(state[k], v) for k, v in model.inner.state_dict().items())
    assert not model.inner.head.weight.requires_grad
    assert block_of(model).expand.weight.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert not block_of(model).bypassed


def test_tokens_and_attributes() -> None:
    torch.manual_seed(0)
    model = squeeze(VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)).eval()
    nn.init.normal_(model.heads.head.weight)
    images = torch.rand(20, 3, 32, 32)
    done = fit(model, images, multilabel=True, options=FitOptions(steps=20))
    assert done.pictures == 20
    with torch.no_grad():
        p = model(images).sigmoid()
        with without_block(model):
            moved = float((p - model(images).sigmoid()).abs().mean())
    assert moved == pytest.approx(done.drift, abs=1e-5)


def test_divergences_of_two_classes_are_those_of_speaking_and_silent() -> None:
    model = _squeezed()
    fitter = PictureGateFitter(model, torch.zeros(6), torch.ones(6), OPTIONS, 0)
    a, b = torch.randn(2, 5, 1, 2, generator=torch.Generator().manual_seed(0))
    margins = (v[..., 1] - v[..., 0] for v in (a, b))
    p, q = (torch.sigmoid(m) for m in margins)
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(fitter.divergence(a, b), kl, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(fitter.moved(a, b), (p - q).abs().mean())


def test_refusals() -> None:
    with pytest.raises(OptionError, match="evaluation mode"):
        fit(_squeezed().train(), _pictures(4))
    with pytest.raises(OptionError, match="at least two"):
        fit(_squeezed(), _pictures(1))
    with pytest.raises(OptionError, match="0 squeeze"):
        fit(Halves().eval(), _pictures(4))
