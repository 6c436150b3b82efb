"""Gradient maps against brute force, loops and the published library's maps."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asd_explain import scoring
from asd_explain.errors import OptionError
from asd_explain.explain import cams
from asd_explain.explain.base import create_explainer
from asd_explain.explain.gradients import (
    WINDOW_FRAMES,
    clip_gradients,
    embeddings,
    frame_gradients,
    gradients_on,
    through_pool,
)
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.registry import create_model
from asd_explain.models.se import SqueezeExcite
from asd_explain.weights.store import load

METHODS = ("gradcam", "gradcam++", "eigengradcam")


class Tiny(FusionBackbone):
    """Two channels a stream at 3x3, signs that make some channels speak against; every frame hears the one before."""

    streams = {"audio": 2, "face": 2}  # noqa: RUF012
    halo_frames = 0
    map_stride_px, map_offset_px = 8.0, 0.0

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([2.0, -1.0]))
        self.eval()

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return audio[:, ::4, :2]

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        face = face.float()
        return torch.stack((face, 9 - face), 2)

    def classify(self, audio: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        y = (face * self.weights).sum(-1) + audio.sum(-1)
        y = y + 0.5 * torch.cat((y[:, :1] * 0, y[:, :-1]), 1) ** 2
        return torch.stack((-y, y), -1)


def _tiny_inputs(frames: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    face = torch.stack([torch.randperm(9, generator=generator).view(3, 3) for _ in range(frames)])
    return {"face": face[None].to(torch.uint8), "audio": torch.randn(1, 4 * frames, 13, generator=generator)}


def _inputs(frames: int, body: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(frames)
    crops = torch.randint(0, 256, (2, 1, frames, 112, 112), dtype=torch.uint8, generator=generator)
    inputs = {"face": crops[0], "audio": 5 * torch.randn(1, 4 * frames, 13, generator=generator)}
    return inputs | ({"body": crops[1]} if body else {})


def _brute_force(model: nn.Module, inputs: dict, target: int) -> tuple[dict, dict]:
    """Maps and, frame by frame through the whole network, the gradients of its logit by its map."""
    with torch.no_grad():
        pooled, maps = model.encode(**inputs)
    leaves = {s: m.detach().requires_grad_() for s, m in maps.items()}
    logits = model.fuse(pooled | {s: model.pool(m) for s, m in leaves.items()}).logits
    gradients = {s: torch.zeros_like(m[0]) for s, m in maps.items()}
    for t in range(logits.shape[1]):
        for s, g in zip(leaves, torch.autograd.grad(logits[0, t, target], leaves.values(), retain_graph=True)):  # noqa: B905
            gradients[s][t] = g[0, t]
    return {s: m[0] for s, m in maps.items()}, gradients


# ---- the formulas


def _random(n: int, c: int, cells: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, c, *cells, generator=generator), torch.randn(n, c, *cells, generator=generator)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 3),
    c=st.integers(1, 5),
    cells=st.sampled_from([(1, 1), (2, 3), (2, 2, 2)]),
    seed=st.integers(0, 999),
)
def test_formulas_equal_loops(n: int, c: int, cells: tuple[int, ...], seed: int) -> None:
    a, g = _random(n, c, cells, seed)
    results = {
        "gradcam": cams.gradcam(a, g),
        "++": cams.gradcam_plus_plus(a, g),
        "++eps": cams.gradcam_plus_plus(a, g, 1e-3),
        "fem": cams.fem(a, 1.0),
    }
    for i in range(n):
        expected = {name: np.zeros(cells) for name in results}
        for j in range(c):
            a_, g_ = a[i, j].double().numpy(), g[i, j].double().numpy()
            expected["gradcam"] += g_.mean() * a_
            for name, epsilon in (("++", 0.0), ("++eps", 1e-3)):
                alpha = g_**2 / (2 * g_**2 + a_.sum() * g_**3 + epsilon)
                expected[name] += (alpha * np.maximum(g_, 0)).sum() * a_
            if a_.size > 1:
                expected["fem"] += (a_ >= a_.mean() + a_.std()) * a_.mean()
        for name, result in results.items():
            np.testing.assert_allclose(result[i], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


@settings(max_examples=25, deadline=None)
@given(c=st.integers(1, 6), cells=st.sampled_from([(2, 2), (3, 4), (2, 3, 2)]), seed=st.integers(0, 999))
def test_eigengradcam_is_the_first_component_with_the_stated_sign(c: int, cells: tuple[int, ...], seed: int) -> None:
    a, g = _random(2, c, cells, seed)
    result = cams.eigengradcam(a, g).double().numpy()
    for i in range(2):
        x = (a[i] * g[i]).double().numpy().reshape(c, -1).T
        x = x - x.mean(0)
        _, values, vt = np.linalg.svd(x, full_matrices=False)
        if len(values) > 1 and values[1] > 0.99 * values[0]:
            continue  # two components tie, either is right
        found = result[i].ravel()
        np.testing.assert_allclose(np.abs(found), np.abs(x @ vt[0]), rtol=1e-3, atol=1e-4)
        assert found @ x.sum(1) >= -1e-5
        assert found.mean() == pytest.approx(0, abs=1e-5)


def test_nothing_and_constants_give_zero_not_nan() -> None:
    zero, one = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    for a, g in ((zero, zero), (zero, one), (one, zero)):
        for formula in (cams.gradcam, cams.gradcam_plus_plus, cams.eigengradcam):
            assert (formula(a, g) == 0).all()
    assert (cams.gradcam_plus_plus(one, zero, 1e-6) == 0).all()
    assert (cams.gradcam_plus_plus(one, one * 1e-30) >= 0).all()
    assert (cams.fem(one) == 0).all()
    assert (cams.eigengradcam(one, one) == 0).all()


def test_fem_by_hand() -> None:
    a = torch.zeros(1, 2, 3, 3)
    a[0, 0, 1, 1] = 9.0  # mean 1, std 2.83: only this cell
    a[0, 1] = torch.arange(9.0).view(3, 3)  # mean 4, std 2.58: none above 9.2
    expected = torch.zeros(3, 3)
    expected[1, 1] = 1.0
    torch.testing.assert_close(cams.fem(a)[0], expected)


# ---- per-frame targets


@pytest.mark.parametrize("target", [0, 1])
def test_gradcam_of_a_linear_decision_by_hand(target: int) -> None:
    model, inputs = Tiny(), _tiny_inputs()
    heat = create_explainer("gradcam").heat(model, inputs, target)["face"]
    face = inputs["face"][0].float()
    # d y_t / d pooled_t is (2, -1) and reaches one of nine cells; for the other class it is the opposite.
    sign = 1 if target else -1
    torch.testing.assert_close(heat, (sign * (2 * face - (9 - face)) / 9).relu())


@pytest.mark.parametrize(("name", "body"), [("lr_asd", False), ("squeeze_asd", True)])
def test_every_frame_has_the_gradient_of_its_own_logit(name: str, body: bool) -> None:
    torch.manual_seed(1)
    model = create_model(name)
    if not body:
        model.attach_gates(SqueezeExcite(256, standardise=True).eval())
    inputs = _inputs(3, body)
    maps, gradients = _brute_force(model, inputs, 1)
    assert set(maps) == ({"face", "body"} if body else {"face"})
    formulas = (cams.gradcam, cams.gradcam_plus_plus, cams.eigengradcam)
    for method, formula in zip(METHODS, formulas, strict=True):
        heat = create_explainer(method).heat(model, inputs)
        assert set(heat) == set(maps)
        for stream, values in heat.items():
            expected = formula(maps[stream], gradients[stream]).relu()
            torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))
            assert values.dtype == torch.float32
            assert values.max() > 0


def test_batches_and_windows_are_those_promised() -> None:
    assert WINDOW_FRAMES == scoring.WINDOW_FRAMES
    model = Tiny()
    pooled, _ = model.encode(**_tiny_inputs(21))
    pooled = {s: x.detach() for s, x in pooled.items()}
    whole = frame_gradients(model, pooled, ["face"], reach=2, batch=4)["face"]
    windowed = frame_gradients(model, pooled, ["face"], reach=2, batch=4, window=6)["face"]
    assert whole.shape == windowed.shape == (21, 5, 2)
    for t in range(21):
        for result, size in ((whole, 21), (windowed, 6)):
            start = min(max(t - size // 2, 0), 21 - size)
            leaf = pooled["face"][:, start : start + size].clone().requires_grad_()
            logits = model.fuse({"audio": pooled["audio"][:, start : start + size], "face": leaf}).logits
            (g,) = torch.autograd.grad(logits[0, t - start, 1], leaf)
            for k, near in enumerate(range(t - 2, t + 3)):
                inside = start <= near < start + size
                torch.testing.assert_close(result[t, k], g[0, near - start] if inside else torch.zeros(2))
    # The frame before counts: a window that begins with the target would not know of it.
    assert (windowed[1:, 1].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("method", [*METHODS, "fem"])
def test_a_known_output_saves_the_encoders_even_in_inference_mode(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, inputs = create_model("squeeze_asd"), _inputs(2, body=True)
    inputs["audio"] = None
    explainer = create_explainer(method)
    expected = explainer.heat(model, inputs)
    with torch.inference_mode():
        output = model(**inputs)
        monkeypatch.setattr(type(model), "encode", None)
        heat = explainer.heat(model, {}, output=output)
    for stream in ("face", "body"):
        torch.testing.assert_close(heat[stream], expected[stream])
        assert (heat[stream] >= 0).all()


def test_one_stream_alone_and_one_frame() -> None:
    torch.manual_seed(0)
    model = create_model("squeeze_asd", gated=False)
    for method in METHODS:
        heat = create_explainer(method).heat(model, {"face": _inputs(1)["face"], "audio": None})
        assert {s: tuple(h.shape) for s, h in heat.items()} == {"face": (1, 14, 14)}
        assert torch.isfinite(heat["face"]).all()


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_left_as_it_was(method: str, trainable: bool) -> None:
    model = Tiny().requires_grad_(trainable)
    for protocol in cams.PROTOCOLS:
        heat = create_explainer(method, protocol=protocol).heat(model, _tiny_inputs())["face"]
        assert not heat.requires_grad
        assert model.weights.grad is None
        assert model.weights.requires_grad is trainable
        assert not model.training
    assert create_explainer(method).needs_gradient
    assert not create_explainer("fem").needs_gradient


def test_what_cannot_be_explained_is_refused() -> None:
    with pytest.raises(OptionError, match="protocol"):
        create_explainer("gradcam", protocol="film")
    with pytest.raises(OptionError, match="evaluation mode"):
        create_explainer("gradcam").heat(Tiny().train(), _tiny_inputs())
    with pytest.raises(OptionError, match="inputs"):
        create_explainer("gradcam").heat(Tiny(), {})


def test_a_thousand_windows_leave_nothing_behind() -> None:
    model, inputs = Tiny(), _tiny_inputs(2)
    explainers = [create_explainer(method) for method in METHODS]

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())

    for explainer in explainers:
        explainer.heat(model, inputs)
    before = tensors()
    gc.disable()  # nothing may need the collector either
    try:
        for i in range(1000):
            explainers[i % 3].heat(model, inputs)
        kept = sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())
    finally:
        gc.enable()
    assert kept <= before
    assert tensors() <= before


# ---- the library's maps


@pytest.fixture
def reference(shared_dir: Path) -> dict[str, np.ndarray]:
    with np.load(shared_dir / "reference" / "cams.light_asd.npz") as stored:
        return dict(stored)


STORED = {"gradcam": "gradcam_raw", "gradcam++": "gradcampp_raw", "eigengradcam": "eigengradcam_raw"}


def _assert_near(found: torch.Tensor, reference: np.ndarray, share: float) -> None:
    """Every cell within a share of the reference's largest magnitude."""
    np.testing.assert_allclose(found.numpy(), reference, rtol=0, atol=share * np.abs(reference).max())


@pytest.mark.shared
def test_formulas_agree_with_the_library_on_stored_activations(reference: dict[str, np.ndarray]) -> None:
    """Activations are stored as float16 (2^-11 = 0.05 % each): so maps within 0.05 % of their largest, sign too."""
    a = torch.from_numpy(reference["activations"]).float()[None]
    g = torch.from_numpy(reference["gradients"])[None]
    _assert_near(cams.gradcam(a, g)[0], reference["gradcam_raw"], 5e-4)
    _assert_near(cams.gradcam_plus_plus(a, g, cams.LIBRARY_EPSILON)[0], reference["gradcampp_raw"], 5e-4)
    _assert_near(cams.eigengradcam(a, g)[0], reference["eigengradcam_raw"], 5e-4)


@pytest.mark.shared
def test_explainers_agree_with_the_library_on_the_published_network(
    reference: dict[str, np.ndarray], shared_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GradCAM and EigenGradCAM within 1e-5 of a map's largest value.

    GradCAM++ within 1e-5 once channels that are zero all over a frame give their gradient to their first cell, as the
    published network's pool module does; as ours shares it among the tying cells, within 8 %, correlation above 0.998.
    """
    monkeypatch.setenv("ASD_EXPLAIN_SHARED", str(shared_dir))
    model = load("light_asd.pretrain_AVA_CVPR", gates=False)
    with np.load(shared_dir / "reference" / "light_asd.pretrain_AVA_CVPR.npz") as stored:
        inputs = {
            "face": torch.from_numpy(stored["faces"][:12])[None],
            "audio": torch.from_numpy(stored["mfcc"][:48])[None],
        }
    for method, share in (("gradcam", 1e-5), ("gradcam++", 0.08), ("eigengradcam", 1e-5)):
        raw = create_explainer(method, protocol="clip").raw(model, inputs)["face"]
        _assert_near(raw, reference[STORED[method]], share)
        assert np.corrcoef(raw.ravel(), reference[STORED[method]].ravel())[0, 1] > 0.998
    with gradients_on():
        pooled, maps = embeddings(model, inputs, None)
    maps = maps["face"][0]
    by_pooled = clip_gradients(model, pooled, ["face"])["face"]
    by_maps = through_pool(model, maps, by_pooled)
    dead = maps.amax((-2, -1)) == 0
    by_maps[dead] = 0
    by_maps[..., 0, 0][dead] = by_pooled[dead]
    np.testing.assert_allclose(by_maps.transpose(0, 1), reference["gradients"], rtol=0, atol=1e-6)
    a, g = maps.transpose(0, 1)[None], by_maps.transpose(0, 1)[None]
    _assert_near(cams.gradcam_plus_plus(a, g, cams.LIBRARY_EPSILON)[0], reference["gradcampp_raw"], 1e-5)
