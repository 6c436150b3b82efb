"""FullGrad against networks whose biases are tensors of their own, and its equation where that is exact."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.explain.base import create_explainer
from asd_explain.explain.fullgrad import BiasWatch, by_frames, channel_sum, completeness
from asd_explain.explain.geometry import upsample
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.layers import batch_norm, spatial, temporal
from asd_explain.models.registry import create_model
from asd_explain.weights.store import load

SIDE = 8


class PiecewiseLinear(FusionBackbone):
    """8x8 crops through a 3-D convolution and batch norm called as modules, then a spatial and a temporal convolution
    called as functions; ReLU throughout, a max or mean pool, a classifier that looks at neighbouring frames."""

    streams = {"audio": 3, "face": 4}  # noqa: RUF012
    halo_frames = 2
    map_stride_px, map_offset_px = 2.0, 0.0

    def __init__(self, pool: str = "max") -> None:
        super().__init__()
        self.kind = pool
        self.first, self.first_norm = nn.Conv3d(1, 3, 3, (1, 2, 2), 1), nn.BatchNorm3d(3)
        self.space, self.space_norm = nn.Conv3d(3, 4, (1, 3, 3), 1, (0, 1, 1), bias=False), batch_norm(3, 4)
        self.time, self.time_norm = nn.Conv3d(4, 4, (3, 1, 1), 1, (1, 0, 0), bias=False), batch_norm(3, 4)
        self.sound = nn.Conv1d(13, 3, 4, 4)
        self.mix, self.mix_norm = nn.Conv1d(7, 5, 5, padding=2), nn.BatchNorm1d(5)
        self.head = nn.Linear(5, 2)
        for norm in (self.first_norm, self.space_norm, self.time_norm, self.mix_norm):
            for tensor in (norm.running_mean, norm.weight.data, norm.bias.data):
                tensor.normal_(0.3, 0.5)
            norm.running_var.uniform_(0.5, 2)
        self.eval()

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.sound(audio.transpose(1, 2))).transpose(1, 2)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first_norm(self.first(face.float()[:, None] / 100)))
        clips, _, length = x.shape[:3]
        x = spatial(x.transpose(1, 2).flatten(0, 1), self.space, self.space_norm)
        return temporal(x, clips, self.time, self.time_norm).unflatten(0, (clips, length))

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.amax((-2, -1)) if self.kind == "max" else maps.mean((-2, -1))

    def classify(self, audio: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        x = torch.cat((audio, face), -1).transpose(1, 2)
        return self.head(torch.relu(self.mix_norm(self.mix(x))).transpose(1, 2))


def _folded(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def _explicit(model: PiecewiseLinear, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list, torch.Tensor]:
    """The same logits; every bias of the face encoder as a leaf (T, C, h, w), one a cell; the crops as a leaf."""
    frames = inputs["face"].shape[1]
    leaves = []

    def add(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        leaf = bias.detach().view(1, -1, 1, 1).expand(frames, -1, *x.shape[-2:]).clone().requires_grad_()
        leaves.append(leaf)
        return x + leaf.transpose(0, 1)[None]

    crops = (inputs["face"].float() / 100).requires_grad_()
    x = add(F.conv3d(crops[:, None], model.first.weight, None, (1, 2, 2), 1), model.first.bias)
    scale, bias = _folded(model.first_norm)
    x = torch.relu(add(x * scale.view(1, -1, 1, 1, 1), bias))
    for conv, norm in ((model.space, model.space_norm), (model.time, model.time_norm)):
        scale, bias = _folded(norm)
        x = torch.relu(add(F.conv3d(x, conv.weight * scale.view(-1, 1, 1, 1, 1), None, 1, conv.padding), bias))
    pooled = {"face": model.pool(x.transpose(1, 2)), "audio": model.audio_embedding(inputs["audio"])}
    return model.fuse(pooled).logits, leaves, crops


def _inputs(frames: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "face": torch.randint(0, 256, (1, frames, SIDE, SIDE), dtype=torch.uint8, generator=generator),
        "audio": torch.randn(1, 4 * frames, 13, generator=generator),
    }


def _psi(amounts: np.ndarray, rescale: bool) -> np.ndarray:
    """(C, h, w) to (h, w), as the authors do."""
    amounts = np.abs(amounts)
    if rescale:
        amounts = amounts - amounts.min()
        amounts = amounts / (amounts.max() or 1)
    return amounts.sum(0)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("pool", ["max", "mean"])
def test_heat_equals_gradients_at_explicit_biases(pool: str, rescale: bool) -> None:
    torch.manual_seed(3)
    model, inputs = PiecewiseLinear(pool), _inputs(13)
    logits, leaves, crops = _explicit(model, inputs)
    torch.testing.assert_close(logits, model(**inputs).logits, atol=1e-4, rtol=1e-4)
    expected = np.zeros((13, SIDE, SIDE))
    for t in range(13):
        gradients = torch.autograd.grad(logits[0, t, 1], [crops, *leaves], retain_graph=True)
        expected[t] += _psi((crops * gradients[0])[0, t].detach().numpy()[None], rescale)
        for leaf, gradient in zip(leaves, gradients[1:], strict=True):
            drawn = upsample(_psi((leaf * gradient)[t].detach().numpy(), rescale), 2.0, 0.0, SIDE, "bilinear")
            expected[t] += drawn
    for piece in (26, 4):  # several targets share a backward pass; several pieces
        heat = create_explainer("fullgrad", rescale=rescale, piece=piece).heat(model, inputs)["face"]
        assert heat.shape == (13, SIDE, SIDE)
        assert heat.dtype == torch.float32
        np.testing.assert_allclose(heat.numpy(), expected, rtol=1e-3, atol=1e-4 * expected.max())


@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("frames", [1, 6])
def test_the_equation_holds_exactly_for_piecewise_linear_networks(pool: str, frames: int) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        model, inputs = PiecewiseLinear(pool), _inputs(frames, seed)
        for target in (0, 1):
            found = completeness(model, inputs, target)
            assert found.logit == pytest.approx(model(**inputs).logits[0, frames // 2, target].item(), rel=1e-4)
            parts = [abs(x) for x in (*found.inputs.values(), *found.biases.values())]
            assert abs(found.residual) < 1e-4 * max(parts)
            # Both sides matter, so the equation could not hold without either.
            assert set(found.inputs) == {"audio", "face"}
            assert set(found.biases) == {"audio", "face", "classifier"}
            assert min(abs(found.biases["classifier"]), sum(parts)) > 1e-2


def test_real_networks_leave_a_residual_that_is_told() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    face = torch.randint(0, 256, (1, 3, 112, 112), dtype=torch.uint8, generator=generator)
    for name, inputs in (
        ("lr_asd", {"face": face, "audio": torch.randn(1, 12, 13, generator=generator)}),
        ("squeeze_asd", {"face": face, "body": face.flip(-1), "audio": None}),
    ):
        model = create_model(name)
        with torch.inference_mode():
            found = completeness(model, inputs, frame=2)
        assert found.logit == pytest.approx(model(**inputs).logits[0, 2, 1].item(), abs=1e-4)
        assert np.isfinite(found.residual)
        assert found.logit == pytest.approx(found.attributed + found.residual)
        assert set(found.biases) == {*model.streams, "classifier"}


@pytest.mark.parametrize("name", ["light_asd", "lr_asd", "squeeze_asd"])
def test_every_backbone_has_heat_on_pixels_in_every_visual_stream(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name)
    generator = torch.Generator().manual_seed(0)
    face = torch.randint(0, 256, (1, 2, 112, 112), dtype=torch.uint8, generator=generator)
    inputs = {"face": face, "audio": torch.randn(1, 8, 13, generator=generator)}
    if name == "squeeze_asd":
        inputs |= {"body": face.flip(1), "audio": None}
    with torch.inference_mode():
        output = model(**inputs)
        heat = create_explainer("fullgrad").heat(model, inputs, output=output)
    assert set(heat) == set(inputs) - {"audio"}
    for values in heat.values():
        assert values.shape == (2, 112, 112)
        assert torch.isfinite(values).all()
        assert values.min() >= 0
        assert values.max() > 0


@torch.no_grad()
def test_watching_changes_no_result() -> None:
    torch.manual_seed(0)
    model, crops = create_model("light_asd"), torch.rand(1, 3, 112, 112) * 255
    expected = model.face_maps(crops)
    calls = []
    with BiasWatch(lambda *_: calls.append(1)) as watch:
        maps = model.face_maps(crops)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4)
    assert watch.first_input.shape == (3, 1, 112, 112)
    assert not calls  # nothing to hand out where nothing is differentiated


def test_layouts_are_recognised() -> None:
    x = torch.arange(3 * 5 * 4 * 4.0).view(3, 5, 4, 4)
    torch.testing.assert_close(by_frames(x, 3), x)
    torch.testing.assert_close(by_frames(x.transpose(0, 1)[None], 3), x)
    torch.testing.assert_close(by_frames(x.transpose(0, 1)[None].flatten(3), 3), x)
    torch.testing.assert_close(by_frames(x[:1].transpose(0, 1)[None].flatten(3), 1), x[:1])
    torch.testing.assert_close(by_frames(x[:1], 1), x[:1])
    for wrong in (torch.zeros(2, 5, 4, 4), torch.zeros(1, 5, 3, 15), torch.zeros(3, 5)):
        with pytest.raises(OptionError, match="shape"):
            by_frames(wrong, 3)


def test_rescaling_by_hand() -> None:
    amounts = torch.tensor([[[[-4.0, 1.0]], [[2.0, 0.0]]], [[[3.0, 3.0]], [[3.0, -3.0]]]])
    assert channel_sum(amounts, False).tolist() == [[[6.0, 1.0]], [[6.0, 6.0]]]
    assert channel_sum(amounts, True).tolist() == [[[1.5, 0.25]], [[0.0, 0.0]]]


def test_what_cannot_be_explained_is_refused() -> None:
    model, inputs = PiecewiseLinear(), _inputs(2)
    with pytest.raises(OptionError, match="crops"):
        create_explainer("fullgrad").heat(model, {}, output=model(**inputs))
    with pytest.raises(OptionError, match="evaluation mode"):
        create_explainer("fullgrad").heat(model.train(), inputs)
    with pytest.raises(OptionError, match="evaluation mode"):
        completeness(model, inputs)
    with pytest.raises(OptionError, match="running statistics"), BiasWatch(lambda *_: None):
        model.first_norm(torch.zeros(1, 3, 2, 2, 2))


@pytest.mark.parametrize("trainable", [True, False])
def test_nothing_is_left_behind_in_the_network_or_in_memory(trainable: bool) -> None:
    torch.manual_seed(0)
    model, inputs = PiecewiseLinear().requires_grad_(trainable), _inputs(2)
    explainer = create_explainer("fullgrad")
    assert explainer.needs_gradient
    explainer.heat(model, inputs)

    def tensors() -> int:
        return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())

    gc.collect()
    before = tensors()
    gc.disable()
    try:
        for _ in range(100):
            heat = explainer.heat(model, inputs)["face"]
            assert not heat.requires_grad
        del heat
        assert tensors() <= before
    finally:
        gc.enable()
    assert all(p.grad is None and p.requires_grad is trainable for p in model.parameters())
    assert not model.training


@pytest.mark.shared
def test_the_published_network_looks_at_its_own_frame(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real weights: pieces and shared backward passes change nothing but rounding."""
    monkeypatch.setenv("ASD_EXPLAIN_SHARED", str(shared_dir))
    model = load("light_asd.pretrain_AVA_CVPR")
    with np.load(shared_dir / "reference" / "light_asd.pretrain_AVA_CVPR.npz") as stored:
        inputs = {
            "face": torch.from_numpy(stored["faces"][:4])[None],
            "audio": torch.from_numpy(stored["mfcc"][:16])[None],
        }
    whole = create_explainer("fullgrad", rescale=False).heat(model, inputs)["face"]
    pieces = create_explainer("fullgrad", rescale=False, piece=2).heat(model, inputs)["face"]
    torch.testing.assert_close(whole, pieces, rtol=1e-3, atol=1e-4 * float(whole.max()))
