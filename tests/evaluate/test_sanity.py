"""Cascading randomisation on a small network."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.sanity import (
    GATES,
    Layer,
    by_depth,
    cascade,
    cascading_randomisation,
    layers_from_the_logits,
    map_similarity,
    randomise,
    take_statistics,
)
from asd_explain.evaluate.segments import Segment, inputs_of
from asd_explain.explain.base import Explainer
from asd_explain.explain.squeeze import SqueezeHeat
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.registry import create_model
from asd_explain.models.se import SqueezeExcite


class Network(FusionBackbone):
    """Two convolutions with norms for the face, one linear layer for the sound, gates, a linear head."""

    streams = {"audio": 6, "face": 6}  # noqa: RUF012
    halo_frames = 0
    map_stride_px, map_offset_px = 8.0, 0.0

    def __init__(self) -> None:
        super().__init__()
        self.face_encoder = nn.ModuleDict(
            {
                "first": nn.Conv2d(1, 8, 9, 8, bias=False),
                "norm1": nn.BatchNorm2d(8),
                "second": nn.Conv2d(8, 6, 3, bias=False),
                "norm2": nn.BatchNorm2d(6),
            }
        )
        self.audio_encoder = nn.Linear(13, 6)
        self.norm = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, 2)
        self.attach_gates(SqueezeExcite(12, 3, standardise=True))

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.audio_encoder(audio.unflatten(1, (-1, 4)).mean(2)))

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        e = self.face_encoder
        x = face.flatten(0, 1)[:, None].float() / 255 - 0.5
        x = torch.relu(e["norm1"](e["first"](x)))
        x = torch.relu(e["norm2"](e["second"](x)))
        return x.unflatten(0, face.shape[:2])

    def classify(self, *streams: torch.Tensor) -> torch.Tensor:
        x = torch.cat(streams, -1)
        return self.head(self.norm(x.transpose(1, 2)).transpose(1, 2))


class OneChannel(Explainer):
    """The map of channel 0, which is all the network's doing."""

    def heat(self, model, inputs, target=1, output=None):
        with torch.inference_mode():
            return {"face": model(**inputs).maps["face"][0, :, 0]}


class PlainMean(Explainer):
    """The mean of the maps, which knows of no gate and no head."""

    def heat(self, model, inputs, target=1, output=None):
        with torch.inference_mode():
            return {"face": model(**inputs).maps["face"][0].mean(1)}


class Centre(Explainer):
    """The same blob whatever the network."""

    def heat(self, model, inputs, target=1, output=None):
        at = torch.linspace(-1, 1, 11)
        blob = torch.exp(-(at[:, None] ** 2) - at**2)
        return {"face": blob.expand(inputs["face"].shape[1], -1, -1)}


def _segment(name: str = "a#1@0", frames: int = 6, seed: int = 0, audio: bool = True) -> Segment:
    rng = np.random.default_rng(seed)
    mfcc = rng.standard_normal((4 * frames, 13)).astype(np.float32) if audio else None
    crops = {"face": rng.integers(0, 256, (frames, 112, 112), dtype=np.uint8)}
    return Segment(name, name.split("#")[0], "real", crops, mfcc)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(3)
    model = Network().eval().requires_grad_(False)
    segments = [_segment()]
    take_statistics(model, layers_from_the_logits(model), segments)
    for name, m in model.named_modules():
        if "norm" in name:
            m.weight.copy_(0.5 + torch.rand(m.weight.shape))
            m.bias.copy_(0.3 * torch.randn(m.bias.shape))
    return model


def test_layers_run_from_the_logits_to_the_input(network: Network) -> None:
    assert [layer.modules for layer in layers_from_the_logits(network)] == [
        ("head",),
        ("norm",),
        ("fusion_gate.reduce", "fusion_gate.expand"),
        ("face_encoder.second", "face_encoder.norm2", "audio_encoder"),
        ("face_encoder.first", "face_encoder.norm1"),
    ]


@pytest.mark.parametrize("name", ["squeeze_asd", "lr_asd", "light_asd"])
def test_every_parameter_of_the_real_networks_has_its_turn_once(name: str) -> None:
    model = create_model(name)
    if model.fusion_gate is None:
        model.attach_gates(SqueezeExcite(256, standardise=True))
    layers = layers_from_the_logits(model)
    turns = [module for layer in layers for module in layer.modules]
    assert len(turns) == len(set(turns))
    with_parameters = {n for n, m in model.named_modules() if list(m.parameters(recurse=False))}
    assert with_parameters - set(turns) == ({"lossV.FC"} if name != "squeeze_asd" else set())
    names = [layer.name for layer in layers]
    assert names[:2] == ["classifier head", "recurrent layers"]
    assert names.index(GATES) == (2 if name == "light_asd" else 3)
    last = {"squeeze_asd": "face_encoder.layers.0.conv", "lr_asd": "block1.s_1", "light_asd": "block1.s_3"}[name]
    assert last in names[-1]
    # A norm goes with its own convolution: as many channels as that puts out.
    for layer in layers[names.index(GATES) + 1 :]:
        for conv, norm in zip(layer.modules[::2], layer.modules[1::2], strict=True):
            assert model.get_submodule(conv).weight.shape[0] == model.get_submodule(norm).num_features


@pytest.mark.parametrize("how", ["permute", "normal"])
def test_randomising_keeps_statistics_and_depends_on_the_seed(network: Network, how: str) -> None:
    layer = Layer("first", ("face_encoder.first",))
    old = network.face_encoder["first"].weight.clone()
    results = []
    for seed in (0, 0, 1):
        network.face_encoder["first"].weight.copy_(old)
        randomise(network, layer, seed, how)
        results.append(network.face_encoder["first"].weight.clone())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert abs(np.corrcoef(old.flatten(), results[0].flatten())[0, 1]) < 0.15
    assert float(results[0].std()) == pytest.approx(float(old.std()), rel=0.1)
    if how == "permute":
        assert torch.equal(old.flatten().sort().values, results[0].flatten().sort().values)
    with pytest.raises(OptionError, match="melt"):
        randomise(network, layer, 0, "melt")


@pytest.mark.parametrize("how", ["permute", "normal"])
def test_gains_go_with_the_block(network: Network, how: str) -> None:
    gains = torch.arange(1.0, 1 + network.streams["face"])
    network.attach_gains({"face": gains})
    head, _, block, *_ = layers_from_the_logits(network)
    randomise(network, head, 0, how)
    torch.testing.assert_close(network.gains["face"], gains, atol=0, rtol=0)
    randomise(network, block, 0, how)
    assert not torch.equal(network.gains["face"], gains)
    torch.testing.assert_close(network.gains["face"].sort().values, gains, atol=0, rtol=0)


def test_statistics_are_those_of_the_segments(network: Network) -> None:
    segments = [_segment(seed=1), _segment(seed=2)]
    layers = layers_from_the_logits(network)[-1:]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    take_statistics(network, layers, segments)
    outputs = [
        network.face_encoder["first"](inputs_of(network, s)["face"][0][:, None].float() / 255 - 0.5) for s in segments
    ]
    norm = network.face_encoder["norm1"]
    torch.testing.assert_close(norm.running_mean, torch.stack([o.mean((0, 2, 3)) for o in outputs]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([o.var((0, 2, 3)) for o in outputs]).mean(0))
    assert not norm.training
    assert norm.momentum == 0.1
    fused = torch.cat(
        [torch.cat([network(**inputs_of(network, s)).pooled[n] for n in network.streams], -1)[0] for s in segments]
    )
    torch.testing.assert_close(network.fusion_gate.mean, fused.mean(0))
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {
        *(f"face_encoder.norm1.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")),
        "fusion_gate.mean",
        "fusion_gate.std",
    }


def test_a_quiet_channel_does_not_explode(network: Network) -> None:
    network.face_encoder["first"].weight[0] *= 1e-3
    network.face_encoder["norm1"].running_var[0] *= 1e-6
    segment = _segment()
    calm = []
    for how in ("permute", "normal"):
        *_, (depth, _, changed) = cascade(network, [segment], 0, how)
        assert depth == 5
        output = changed(**inputs_of(changed, segment))
        calm.append(float(output.maps["face"].max()))
        assert output.logits.abs().max() < 30
    # Without new statistics it does.
    randomise(network, Layer("first", ("face_encoder.first",)), 0)
    assert float(network(**inputs_of(network, segment)).maps["face"].max()) > 5 * max(calm)


def test_the_cascade_tells_maps_of_the_network_from_others(network: Network) -> None:
    before = {k: v.clone() for k, v in network.state_dict().items()}
    explainers = {"one": OneChannel(), "mean": PlainMean(), "se": SqueezeHeat(), "centre": Centre()}
    calls = []
    segments = [_segment("a#1@0"), _segment("b#1@0", seed=5)]
    rows = cascading_randomisation(network, segments, explainers, seeds=range(4), progress=lambda: calls.append(None))
    assert len(rows) == len(calls) == 4 * 6 * 4 * 2
    assert {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])} == set()
    alike = {(r["explainer"], r["depth"]): r for r in by_depth(rows)}
    assert [alike["one", d]["layer"] for d in (0, 1, 3)] == ["none", "classifier head", GATES]
    for name in explainers:
        assert alike[name, 0]["spearman"] == alike[name, 0]["pearson"] == pytest.approx(1)
    for depth in range(6):
        assert alike["centre", depth]["spearman"] == pytest.approx(1)
        # What is behind the maps does not reach them.
        if depth < 4:
            assert alike["one", depth]["spearman"] == alike["mean", depth]["pearson"] == pytest.approx(1)
    # Gates reach the heat; nothing is left once the encoder is gone (noise in, so no edges to find again).
    assert 0.5 < alike["se", 3]["spearman"] < 0.999
    assert abs(alike["one", 5]["spearman"]) < 0.2
    assert abs(alike["one", 5]["pearson"]) < 0.2
    assert alike["one", 5]["over_seeds"] > 0
    assert alike["one", 5]["segments"] == 2


def test_rows_are_reproducible_and_depths_can_be_chosen(network: Network) -> None:
    segment = _segment()
    explainers = {"se": SqueezeHeat()}
    full = cascading_randomisation(network, [segment], explainers, seeds=(0, 1))
    again = cascading_randomisation(network, [segment], explainers, seeds=(1,), at=(3, 5))
    assert again == [r for r in full if r.seed == 1 and r.depth in (3, 5)]
    first, second = ([r.spearman for r in full if r.seed == s and r.depth > 2] for s in (0, 1))
    assert first != second


@pytest.mark.parametrize("frames", [1, 2])
def test_short_segments_without_sound(network: Network, frames: int) -> None:
    rows = cascading_randomisation(
        network, [_segment(frames=frames, audio=False)], {"se": SqueezeHeat(), "centre": Centre()}, seeds=(0,)
    )
    assert all(np.isfinite((r.spearman, r.pearson)).all() and r.frames == frames for r in rows)


def test_similarity_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4, 5, 6)).round(1)
    spearman, pearson, frames = map_similarity(a, b)
    pairs = [(abs(x).ravel(), abs(y).ravel()) for x, y in zip(a, b, strict=True)]
    assert spearman == pytest.approx(np.mean([stats.spearmanr(*p).statistic for p in pairs]))
    assert pearson == pytest.approx(np.mean([stats.pearsonr(*p).statistic for p in pairs]))
    assert frames == 4


def test_similarity_of_maps_that_say_nothing() -> None:
    a = np.random.default_rng(0).random((4, 3, 3))
    b = a.copy()
    a[0] = 0.5  # the original says nothing: left out
    a[1, 0, 0] = np.nan
    b[2] = 0.0  # nothing left: 0; frame 3 is the same: 1
    assert map_similarity(a, b) == (pytest.approx(0.5), pytest.approx(0.5), 2)
    spearman, pearson, frames = map_similarity(a[:1], b[:1])
    assert np.isnan((spearman, pearson)).all()
    assert frames == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), power=st.floats(0.3, 3), scale=st.floats(1e-12, 1e12))
def test_similarity_laws(seed: int, power: float, scale: float) -> None:
    a, b = np.random.default_rng(seed).random((2, 3, 4, 4))
    assert map_similarity(a, scale * a**power)[0] == pytest.approx(1)  # any rising function keeps the ranks
    assert map_similarity(a, -scale * a)[1] == pytest.approx(1)
    assert map_similarity(a, b)[:2] == pytest.approx(map_similarity(b, a)[:2])
    assert all(abs(v) <= 1 + 1e-9 for v in map_similarity(a, b)[:2])


def test_rows_of_segments_that_say_nothing_do_not_spoil_the_table(network: Network) -> None:
    rows = cascading_randomisation(network, [_segment()], {"se": SqueezeHeat()}, seeds=(0,), at=(0,))
    nothing = dataclasses.replace(rows[0], segment="b", spearman=float("nan"), pearson=float("nan"), frames=0)
    assert by_depth([*rows, nothing]) == by_depth(rows)
