"""Pictures explained: against pytorch-grad-cam's stored maps, brute force, and what must be refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from image_cam_case import network, pictures
from torch import nn
from torchvision.models import VisionTransformer

from asd_explain.errors import OptionError
from asd_explain.explain.base import list_explainers
from asd_explain.explain.cams import LIBRARY_EPSILON, eigengradcam, gradcam, gradcam_plus_plus
from asd_explain.explain.fullgrad import BiasWatch
from asd_explain.explain.gradients import gradients_on
from asd_explain.explain.images import PictureNetwork, explain, explain_batch, picture_completeness, raw_heat
from asd_explain.models.images import block_of, cifar_resnet, front, squeeze, tail, without_block

LIBRARY = Path(__file__).with_name("data") / "image_cams.npz"


@pytest.fixture(scope="module")
def library() -> dict[str, np.ndarray]:
    """See data/make_image_cams.py."""
    with np.load(LIBRARY) as file:
        return dict(file)


def _close(ours: np.ndarray, theirs: np.ndarray, tolerance: float = 1e-4) -> None:
    """Within ``tolerance`` of the largest value: float32 sums in another order."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


# ---- against pytorch-grad-cam


def test_activations_and_gradients_are_the_library_s(library: dict) -> None:
    model = network()
    with gradients_on():
        x = front(model, pictures())[0].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(tail(model, x)[range(3), range(3)].sum(), x)
    _close(x.detach().numpy(), library["activations"])
    _close(gradient.numpy(), library["gradients"])


@pytest.mark.parametrize("method", ["gradcam", "eigengradcam"])
def test_heat_is_the_library_s_map_cut_off_below_zero(library: dict, method: str) -> None:
    ours = np.stack(raw_heat(network(), pictures(), method, target=[0, 1, 2]))
    theirs = library[method]
    if method == "eigengradcam":
        # Its sign is whatever the library's linear algebra gave; ours goes with the sum of gradient x activation.
        product = (library["activations"] * library["gradients"]).sum(1)
        centred = product - product.mean((1, 2), keepdims=True)
        theirs = theirs * np.sign((centred * theirs).sum((1, 2)))[:, None, None]
    _close(ours, np.maximum(theirs, 0))


def test_gradcam_plus_plus_differs_by_the_library_s_epsilon_only(library: dict) -> None:
    a, g = torch.from_numpy(library["activations"]), torch.from_numpy(library["gradients"])
    _close(gradcam_plus_plus(a, g, LIBRARY_EPSILON).numpy(), library["gradcam++"])
    ours = np.stack(raw_heat(network(), pictures(), "gradcam++", target=[0, 1, 2]))
    _close(ours, gradcam_plus_plus(a, g).relu().numpy())


def test_formulas_on_the_library_s_tensors(library: dict) -> None:
    a, g = torch.from_numpy(library["activations"]), torch.from_numpy(library["gradients"])
    _close(gradcam(a, g).numpy(), library["gradcam"])
    eigen = eigengradcam(a, g).numpy()
    for ours, theirs in zip(eigen, library["eigengradcam"], strict=True):
        assert min(np.abs(ours - theirs).max(), np.abs(ours + theirs).max()) <= 1e-4 * np.abs(theirs).max()


def _unit(maps: np.ndarray) -> np.ndarray:
    """Each (h, w) of (n, h, w) from 0 to 1 by its own least and largest value, as the library scales."""
    low = maps.min((1, 2), keepdims=True)
    return (maps - low) / (1e-7 + (maps - low).max((1, 2), keepdims=True))


def test_fullgrad_s_parts_make_the_library_s_map(library: dict) -> None:
    """The library scales every channel by itself and counts batch norms; the paper, and we, scale a layer's block."""
    model, images = network(), pictures()
    for i in range(3):
        parts = []
        with gradients_on():
            start = images[i : i + 1].clone().requires_grad_()
            with BiasWatch(lambda _, b, g, parts=parts: parts.append((b * g).numpy()) if g.dim() == 4 else None):
                logit = model(start)[0, i]
            (gradient,) = torch.autograd.grad(logit, start)
        amounts = [*parts, (gradient * start.detach()).numpy()]
        total = 0.0
        for one in amounts:
            scaled = [cv2.resize(m, (32, 32)) for m in _unit(np.abs(one[0]))]
            total = total + np.sum(scaled, 0)
        assert len(parts) == 20  # batch norms of a ResNet-18
        _close(_unit(total[None])[0], library["fullgrad"][i], 1e-3)
        ours = explain(model, images[i], "fullgrad", target=i)
        assert np.corrcoef(ours.ravel(), library["fullgrad"][i].ravel())[0, 1] > 0.9


def test_scaling_and_enlarging_is_the_library_s_own_business(library: dict) -> None:
    """Its map is enlarged bilinearly over the whole picture, as ours with that interpolation."""
    ours = explain_batch(network(), pictures(), "gradcam", [0, 1, 2], "bilinear")
    _close(_unit(ours), _unit(library["gradcam_scaled"]), 2e-3)


# ---- the contract


@pytest.mark.parametrize("method", [m for m in list_explainers() if m != "mouth"])
def test_every_explainer_gives_a_picture_of_heat(method: str) -> None:
    model = network()
    images = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(1))
    batch = explain_batch(model, images, method)
    assert batch.shape == (2, 24, 40)
    assert batch.dtype == np.float32
    assert np.isfinite(batch).all()
    assert (batch >= 0).all()
    assert batch.max() > 0
    np.testing.assert_allclose(explain(model, images[1], method), batch[1], rtol=1e-3, atol=1e-5 * batch[1].max())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_mouths_are_refused_and_unknown_names() -> None:
    with pytest.raises(OptionError, match="mouth"):
        explain(network(), pictures()[0], "mouth")
    with pytest.raises(OptionError, match="unknown explainer"):
        explain(network(), pictures()[0], "scorecam")


def test_a_block_that_learnt_nothing_explains_nothing_but_rivals_do() -> None:
    model = squeeze(cifar_resnet(18, width=4)).eval()
    for method in ("se", "se-paper", "se-plain", "se-shuffled", "weights-shuffled"):
        with pytest.raises(OptionError, match="learnt nothing"):
            explain(model, pictures()[0], method)
    assert explain(model, pictures()[0], "gradcam").shape == (32, 32)


def test_se_is_the_gate_weighted_mean_of_the_maps() -> None:
    model = network()
    with torch.no_grad():
        x, _ = front(model, pictures())
        gates = block_of(model).gates_of(x)
    expected = (gates[..., None, None] * x).mean(1).relu().numpy()
    np.testing.assert_allclose(np.stack(raw_heat(model, pictures())), expected, rtol=1e-4)


def test_the_published_recipe_does_not_mix_the_pictures_of_a_batch() -> None:
    alone = [explain(network(), picture, "se-paper") for picture in pictures()]
    np.testing.assert_allclose(explain_batch(network(), pictures(), "se-paper"), alone, rtol=1e-3, atol=1e-4)


def test_targets() -> None:
    model = network()
    with torch.no_grad():
        said = model(pictures()).argmax(-1).tolist()
    default = explain_batch(model, pictures(), "gradcam")
    np.testing.assert_array_equal(default, explain_batch(model, pictures(), "gradcam", target=said))
    other = explain_batch(model, pictures(), "gradcam", target=(said[0] + 1) % 10)
    assert not np.allclose(default[0], other[0])
    for wrong in (10, -1, [0, 1]):
        with pytest.raises(OptionError, match="targets"):
            explain_batch(model, pictures(), "gradcam", target=wrong)
    for wrong in (1.0, "cat", [0.5] * len(said)):
        with pytest.raises(OptionError, match="is no class"):
            explain_batch(model, pictures(), "gradcam", target=wrong)


@pytest.mark.parametrize("kind", [torch.tensor, np.int64, np.array])
def test_a_target_may_be_what_argmax_gives(kind) -> None:
    expected = explain_batch(network(), pictures(), "gradcam", target=3)
    np.testing.assert_array_equal(explain_batch(network(), pictures(), "gradcam", target=kind(3)), expected)
    several = [kind(3)] * len(pictures())
    np.testing.assert_array_equal(explain_batch(network(), pictures(), "gradcam", target=several), expected)


def test_pictures_that_cannot_be_asked_about_are_refused_and_precision_is_the_network_s() -> None:
    model, picture = network(), pictures()[0]
    hole = picture.clone()
    hole[0, 3, 3] = torch.nan
    for wrong, told in (
        (hole, "finite"),
        (picture.to(torch.uint8), "floating point"),
        (picture[:, :0], "at least one"),
    ):
        with pytest.raises(OptionError, match=told):
            explain(model, wrong)
    with pytest.raises(OptionError, match="must be a torch tensor, not ndarray"):
        explain(model, picture.numpy())
    np.testing.assert_array_equal(explain(model, picture.double()), explain(model, picture))
    with pytest.raises(OptionError, match=r"'se'.* unexpected keyword argument 'foo'"):
        explain(model, picture, foo=1)


def test_training_mode_and_wrong_shapes_are_refused() -> None:
    model = network()
    with pytest.raises(OptionError, match="explain_batch takes several"):
        explain(model, pictures())
    with pytest.raises(OptionError, match="pictures must be"):
        explain_batch(model, pictures()[:, :1])
    with pytest.raises(OptionError, match="evaluation mode"):
        explain(model.train(), pictures()[0])


@pytest.mark.parametrize("method", [m for m in list_explainers() if m not in ("mouth", "random", "centre")])
def test_half_precision_marks_the_same(method: str) -> None:
    full, half = explain(network(), pictures()[0], method), explain(network().bfloat16(), pictures()[0], method)
    assert np.corrcoef(full.ravel(), half.ravel())[0, 1] > 0.95


def test_a_plain_network_is_refused() -> None:
    with pytest.raises(OptionError, match="0 squeeze-and-excitation blocks"):
        explain(cifar_resnet(18, width=4).eval(), pictures()[0])


class _Wrapped(nn.Module):
    """Takes pictures in [0, 255]."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x / 255)


@pytest.mark.parametrize("method", ["se", "gradcam", "fullgrad"])
def test_what_is_wrapped_around_the_network_does_not_matter(method: str) -> None:
    bare = explain(network(), pictures()[0], method)
    wrapped = explain(_Wrapped(network()).eval(), 255 * pictures()[0], method)
    np.testing.assert_allclose(wrapped, bare, rtol=1e-3, atol=1e-4 * bare.max())


# ---- FullGrad's equation


def test_fullgrad_is_complete_without_gates_that_depend_on_the_picture() -> None:
    model = network()
    with without_block(model):
        bypassed = picture_completeness(model, pictures()[0], 3)
    assert abs(bypassed.logit) > 1e-3
    assert abs(bypassed.residual) < 1e-4 * (1 + abs(bypassed.logit))
    gated = picture_completeness(model, pictures()[0], 3)
    assert abs(gated.residual) > 1e-2 * abs(gated.logit)


def test_fullgrad_refuses_layer_norms() -> None:
    model = squeeze(VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4)).eval()
    with pytest.raises(OptionError, match="LayerNorm"):
        explain(model, pictures()[0], "fullgrad")


def test_tokens_lie_where_their_patches_do_and_gradients_pass_the_last_layer() -> None:
    """16 patches of 8 px and a class token: gradients by patches are those of the whole network."""
    torch.manual_seed(0)
    model = squeeze(VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=4)).eval()
    nn.init.normal_(model.heads.head.weight)
    nn.init.normal_(block_of(model).expand.weight)
    assert block_of(model).place.module == "encoder.layers.encoder_layer_2"
    x, _ = front(model, pictures())
    np.testing.assert_array_equal(
        block_of(model).as_maps(x)[:, :, 1, 2].detach().numpy(), x[:, 1 + 4 * 1 + 2].detach().numpy()
    )
    x = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(tail(model, x)[:, 1].sum(), x)
    weights = g[:, 1:].mean(1)
    expected = torch.einsum("nlc,nc->nl", x.detach()[:, 1:], weights).relu().reshape(3, 4, 4)
    np.testing.assert_allclose(np.stack(raw_heat(model, pictures(), "gradcam", 1)), expected, rtol=1e-3, atol=1e-6)


def test_known_outputs_are_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    outputs = PictureNetwork(model).score(pictures())
    with monkeypatch.context() as patched:
        patched.setattr(nn.Conv2d, "_conv_forward", None)
        heat = raw_heat(model, pictures(), "gradcam", outputs=outputs)
        with pytest.raises(TypeError):
            model(pictures())
    np.testing.assert_allclose(heat, raw_heat(model, pictures(), "gradcam"), rtol=1e-5)
