"""The block in front of every torchvision classifier's pooling, and in front of networks that nobody knows."""

from __future__ import annotations

import copy
import pickle
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import nn
from torchvision.models import VisionTransformer, get_model, list_models

from asd_explain.errors import OptionError, WeightsError
from asd_explain.explain.gate_fitting import FitOptions
from asd_explain.explain.image_fitting import fit
from asd_explain.explain.images import explain
from asd_explain.models.image_hosts import cifar_resnet
from asd_explain.models.images import (
    BLOCK,
    block_of,
    front,
    host_state_dict,
    load_host_state_dict,
    squeeze,
    tail,
    without_block,
)

ALL = list_models(module=torchvision.models)
#: One or two a family that are small enough to be computed here, with an image size that they take.
COMPUTED = {
    "densenet121": 64, "efficientnet_b0": 64, "googlenet": 64, "maxvit_t": 224, "mnasnet0_5": 64, "mobilenet_v2": 64,
    "mobilenet_v3_small": 64, "regnet_x_400mf": 64, "regnet_y_400mf": 64, "resnet18": 64, "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64, "swin_t": 64, "convnext_tiny": 64,
}  # fmt: skip
#: Looked at without numbers as well as the computed ones; all others are alike but deeper or wider, and slow.
QUICK = {
    "alexnet", "vgg11", "vgg11_bn", "inception_v3", "resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2",
    "swin_v2_t", "vit_b_16", "vit_b_32", "mobilenet_v3_large", "efficientnet_b1", "shufflenet_v2_x1_0", "squeezenet1_0",
    "mnasnet1_0", "regnet_x_800mf", "regnet_y_128gf", "densenet121", "convnext_small",
}  # fmt: skip


def _options(name: str) -> dict:
    return {"init_weights": False} if name in ("googlenet", "inception_v3") else {}


def _without_numbers(name: str) -> nn.Module:
    """The network with parameters on the meta device (RegNets cannot be made there as a whole)."""
    real = nn.Module.register_parameter

    def register(module: nn.Module, key: str, value: nn.Parameter | None) -> None:
        real(module, key, None if value is None else nn.Parameter(value.detach().to("meta"), value.requires_grad))

    with mock.patch.object(nn.Module, "register_parameter", register):
        return get_model(name, weights=None, **_options(name))


def _nudged(model: nn.Module) -> nn.Module:
    """As after some training: gates differ."""
    with torch.no_grad():
        block_of(model).expand.weight.normal_(generator=torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in ALL])
def test_every_torchvision_classifier_has_a_place(name: str) -> None:
    host = _without_numbers(name)
    keys = list(host.state_dict())
    model = squeeze(host)
    assert model is host
    assert list(host_state_dict(model)) == keys
    assert all(key in keys or key.startswith(f"{BLOCK}.") for key in model.state_dict())
    place = block_of(model).place
    assert place.grid[0] > 1
    # What a classifier reads of an average is as wide as the maps; SqueezeNet's maps are its classes.
    linear = [m.in_features for m in host.modules() if isinstance(m, nn.Linear)]
    if name.startswith("squeezenet"):
        assert place.channels == 1000
    elif name.startswith("vit"):
        assert place.layout == "tokens"
        assert place.class_token
        assert place.channels == host.hidden_dim
    else:
        assert place.channels * (1 if place.averaged else place.grid[0] * place.grid[1]) in linear
    with pytest.raises(OptionError, match="already"):
        squeeze(model)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "maxvit_t" else []) for n in COMPUTED]
)
def test_small_classifiers_answer_as_before_and_are_explained(name: str) -> None:
    torch.manual_seed(0)
    host = get_model(name, weights=None, **_options(name)).eval()
    size = COMPUTED[name]
    images = torch.rand(2, 3, size, size)
    before = {key: value.clone() for key, value in host.state_dict().items()}
    with torch.no_grad():
        answers = host(images)
        model = squeeze(host)
        # x * 0.5 / 0.5: not even rounding differs.
        torch.testing.assert_close(model(images), answers, rtol=0, atol=0)
        assert all(torch.equal(before[key], value) for key, value in host_state_dict(model).items())
        with pytest.raises(OptionError, match="learnt nothing"):
            explain(model, images[0])
        x, gated = front(_nudged(model), images)
        torch.testing.assert_close(tail(model, x), gated, rtol=1e-4, atol=1e-5 * float(gated.abs().max()))
        gates = block_of(model).gates_of(x)
        assert gates.shape == (2, block_of(model).channels)
        assert bool((gates > 0).all() and (gates < 1).all())
        with without_block(model):
            torch.testing.assert_close(model(images), answers, rtol=0, atol=0)
            given = x.clone()
            tail(model, x)
            assert torch.equal(x, given)  # some hosts write into what they pool
    heat = explain(model, images[0])
    assert heat.shape == (size, size)
    assert torch.isfinite(torch.from_numpy(heat)).all()
    with without_block(model):
        assert explain(model, images[0], "gradcam").shape == (size, size)
    assert fit(model, images, options=FitOptions(steps=1)).pictures == 2


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("width", [8, 64])
def test_cifar_resnets(depth: int, width: int) -> None:
    with torch.device("meta"):
        model = cifar_resnet(depth, classes=7, width=width)
        theirs = get_model(f"resnet{depth}", num_classes=7)
    assert list(model.state_dict()) == list(theirs.state_dict())
    assert model.conv1.weight.shape == (width, 3, 3, 3)
    if width == 64:
        shapes = {k: v.shape for k, v in theirs.state_dict().items() if k != "conv1.weight"}
        assert {k: v.shape for k, v in model.state_dict().items() if k != "conv1.weight"} == shapes
        # 11.2 and 23.5 million, as CIFAR's ResNets are usually quoted (10 classes).
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(
            {18: 11.17, 50: 23.51}[depth], abs=0.02
        )
    place = block_of(squeeze(model)).place
    assert place.grid == (4, 4)
    assert place.averaged


def test_cifar_resnet_refuses_what_it_cannot_be() -> None:
    with pytest.raises(OptionError, match="depth 34"):
        cifar_resnet(34)
    with pytest.raises(OptionError, match="at least 1"):
        cifar_resnet(18, classes=0)


# ---- state, copies, training


def test_states_go_in_and_out() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32)
    plain = cifar_resnet(18, width=4).eval()
    model = squeeze(cifar_resnet(18, width=4)).eval()
    load_host_state_dict(model, plain.state_dict())
    torch.testing.assert_close(model(images), plain(images), rtol=0, atol=0)
    _nudged(model)
    again = squeeze(cifar_resnet(18, width=4)).eval()
    assert not block_of(again).learnt
    again.load_state_dict(model.state_dict(), strict=True)
    assert block_of(again).learnt
    torch.testing.assert_close(again(images), model(images), rtol=0, atol=0)
    plain.load_state_dict(host_state_dict(model), strict=True)
    broken = {key: value for key, value in plain.state_dict().items() if key != "fc.bias"}
    with pytest.raises(WeightsError, match=r"fc\.bias"):
        load_host_state_dict(model, broken)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_has_a_block_of_its_own(how) -> None:
    torch.manual_seed(0)
    model = _nudged(squeeze(cifar_resnet(18, width=8), reduction=4).eval())
    images = torch.rand(1, 3, 32, 32)
    twin = how(model)
    answers = twin(images)
    nn.init.zeros_(block_of(model).expand.weight)
    torch.testing.assert_close(twin(images), answers, rtol=0, atol=0)
    assert not torch.equal(model(images), answers)


def test_training_reaches_the_block_at_its_first_step() -> None:
    torch.manual_seed(0)
    model = squeeze(cifar_resnet(18, width=4)).train()
    assert block_of(model).training
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    F.cross_entropy(model(torch.rand(8, 3, 32, 32)), torch.arange(8)).backward()
    assert float(block_of(model).expand.weight.grad.abs().max()) > 0
    optimiser.step()
    assert block_of(model).learnt


def test_inception_may_train_with_its_other_head() -> None:
    model = squeeze(get_model("inception_v3", weights=None, init_weights=False, num_classes=5)).train()
    assert set(model(torch.rand(2, 3, 299, 299))._fields) == {"logits", "aux_logits"}


def test_modes_and_flags_are_left_alone() -> None:
    host = cifar_resnet(18, width=4).train()
    host.layer1.eval()
    model = squeeze(host)
    assert model.training
    assert model.layer2.training
    assert not model.layer1.training
    assert int(model.bn1.num_batches_tracked) == 0


# ---- networks that nobody knows


class _Own(nn.Module):
    """A classifier that writes its pooling as it likes."""

    def __init__(self, pool, excite: bool = False) -> None:
        super().__init__()
        self.stem, self.last, self.head = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1), nn.Linear(6, 4)
        self._pool, self._excite = pool, excite

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.last(torch.relu(self.stem(x))))
        if self._excite:
            x = x * x.mean((2, 3), keepdim=True).sigmoid()
            x = self.last(F.interpolate(x, scale_factor=2.0))
        return self.head(self._pool(x))


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: x.mean([2, 3]),
        lambda x: x.mean((-1, -2)),
        lambda x: torch.mean(x, dim=(2, 3), keepdim=True).flatten(1),
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        lambda x: F.avg_pool2d(x, 8).flatten(1),
    ],
)
def test_however_the_pooling_is_written(pool) -> None:
    torch.manual_seed(0)
    model = squeeze(_Own(pool).eval(), size=32)
    place = block_of(model).place
    assert (place.module, place.side, place.rectified, place.grid) == ("last", "output", True, (8, 8))
    x, logits = front(_nudged(model), images := torch.rand(2, 3, 32, 32))
    # By hand: the block's own formula on what is pooled.
    maps = torch.relu(model.last._conv_forward(torch.relu(model.stem(images)), model.last.weight, model.last.bias))
    torch.testing.assert_close(x, maps)
    gates = torch.sigmoid(block_of(model).expand(torch.relu(block_of(model).reduce(maps.mean((2, 3))))))
    torch.testing.assert_close(logits, model.head(maps.mean((2, 3)) * 2 * gates))


@pytest.mark.parametrize(
    ("pool", "averaged"),
    [
        (nn.AvgPool2d(8), True),
        (nn.AvgPool2d((8, 8), stride=1), True),
        (lambda x: F.avg_pool2d(x, kernel_size=[8], divisor_override=64), True),
        (nn.AvgPool2d(7), False),  # of the last row and column nothing is read
        (nn.AvgPool2d(8, padding=1, stride=8), False),  # of the map's 8 x 8 cells 7 x 7, and zeros
        (lambda x: F.avg_pool2d(x, 8, divisor_override=9), False),
        (nn.AdaptiveAvgPool2d(1), True),
    ],
)
def test_a_window_averages_the_map_only_if_it_is_the_map(pool, averaged) -> None:
    model = squeeze(_Own(lambda x: pool(x).flatten(1)).eval(), size=32)
    place = block_of(model).place
    assert (place.module, place.grid, place.averaged) == ("last", (8, 8), averaged)
    # By brute force: every cell weighs 1 / 64.
    maps = torch.ones(1, 1, 8, 8, requires_grad=True)
    pool(maps).sum().backward()
    assert torch.allclose(maps.grad, torch.full_like(maps, 1 / 64)) == averaged


def test_what_is_certain_of_nothing_is_refused() -> None:
    with pytest.raises(OptionError, match="called 2 times"):
        squeeze(_Own(lambda x: x.mean((2, 3)), excite=True), size=32)
    with pytest.raises(OptionError, match="no pooling over space"):
        squeeze(_Own(lambda x: x.amax((2, 3))), size=32)
    # A head that reads averages and maxima, in either order: before one of them is not before the pooling.
    for both in (lambda x: x.mean((2, 3)) + x.amax((2, 3)), lambda x: x.amax((2, 3)) + x.mean((2, 3))):
        with pytest.raises(OptionError, match="no pooling over space"):
            squeeze(_Own(both), size=32)
    with pytest.raises(OptionError, match="what no module of it returns"):
        squeeze(_Own(lambda x: (x + 1).mean((2, 3))), size=32)
    with pytest.raises(OptionError, match="module of its own"):
        squeeze(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)))
    with pytest.raises(OptionError, match="cannot be run on images of 3 x 16 x 16"):
        squeeze(VisionTransformer(32, 8, 1, 2, 16, 32), size=16)
    with pytest.raises(OptionError, match="no module 'pool'"):
        squeeze(cifar_resnet(18, width=4), before="pool")
    with pytest.raises(OptionError, match="neither maps"):
        squeeze(cifar_resnet(18, width=4), before="fc")


def test_a_place_by_name() -> None:
    model = squeeze(cifar_resnet(18, width=4).eval(), before="layer4")
    assert block_of(model).channels == 16
    assert block_of(model).place.grid == (8, 8)
    x, logits = front(_nudged(model), torch.rand(1, 3, 32, 32))
    torch.testing.assert_close(tail(model, x), logits)
