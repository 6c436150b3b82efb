"""What measures explanations takes every network of the field, also those with projections behind their maps."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.faithfulness import Probe, Protocol
from asd_explain.evaluate.gate_report import p_of
from asd_explain.evaluate.intervention import ALL_KINDS, effects, shares_at_fusion
from asd_explain.evaluate.pooled import pooled_audio
from asd_explain.evaluate.sanity import GATES, cascade, layers_from_the_logits
from asd_explain.evaluate.segments import Segment, Smoothing, inputs_of, on_pixels, raw_heat
from asd_explain.explain.base import create_explainer
from asd_explain.explain.gains import reveal_map
from asd_explain.models.registry import create_model
from asd_explain.models.se import SqueezeExcite


@pytest.fixture(params=["asdnb", "bias", "talknet"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    network = create_model(request.param).requires_grad_(False)
    if network.fusion_gate is None:
        network.attach_gates(SqueezeExcite(sum(network.fusion_streams.values())).requires_grad_(False))
    return network


@pytest.fixture
def segment(model: nn.Module) -> Segment:
    rng = np.random.default_rng(0)
    crops = {name: rng.integers(0, 256, (6, 112, 112), dtype=np.uint8) for name in model.crops}
    return Segment("a#1@0", "a", "real", crops, rng.standard_normal((24, 13)).astype(np.float32))


@torch.inference_mode()
def test_deletion_and_insertion_begin_and_end_where_they_should(model: nn.Module, segment: Segment) -> None:
    probe = Probe(model, segment, Protocol(steps=2, road_shares=(), moves=("frame",)))
    whole = model(**inputs_of(model, segment)).p_speaking[0]
    np.testing.assert_allclose(probe.p_speaking, whole, atol=1e-4)
    raw = raw_heat(create_explainer("se"), model, segment)
    heat = {stream: on_pixels(model, values, Smoothing()) for stream, values in raw.items()}
    assert set(heat) == set(probe.streams) == set(model.streams) - {"audio"}
    curves = {(c.stream, c.baseline, c.move, c.kind): c for c in probe.curves(heat)}
    for (stream, what, move, kind), curve in curves.items():
        assert np.isfinite(curve.p).all()
        if kind == "deletion":
            np.testing.assert_allclose(curve.p[0], probe.p_class, atol=1e-4)
            insertion = curves[stream, what, move, "insertion"]
            np.testing.assert_allclose(curve.p[0], insertion.p[-1], atol=1e-4)


@torch.inference_mode()
def test_interventions_and_all_kinds_of_shares(model: nn.Module, segment: Segment) -> None:
    pooled, _ = model.encode(**inputs_of(model, segment))
    for kind in ALL_KINDS:
        streams, shares = shares_at_fusion(model, pooled, kind)
        assert streams == list(model.streams)
        torch.testing.assert_close(shares.sum(-1), torch.ones(1, 6))
    found = effects(model, segment)
    assert {stream for stream, _ in found.changes} == set(model.streams)


@torch.inference_mode()
def test_the_classifier_takes_fusion_vectors(model: nn.Module, segment: Segment) -> None:
    pooled, _ = model.encode(**inputs_of(model, segment))
    vectors = torch.cat(list(model.at_fusion(pooled).values()), -1)
    gated = vectors * model.fusion_gate.excitation(vectors)
    torch.testing.assert_close(p_of(model, gated), model.fuse(pooled).p_speaking)


@torch.inference_mode()
def test_the_cascade_randomises_every_layer_once_and_changes_the_verdict(model: nn.Module, segment: Segment) -> None:
    layers = layers_from_the_logits(model)
    named = [name for layer in layers for name in layer.modules]
    assert len(named) == len(set(named))
    idle = tuple(f"{name}." for name in model.idle)
    used = {n for n, m in model.named_modules() if list(m.parameters(recurse=False)) and not f"{n}.".startswith(idle)}
    assert set(named) == used
    names = [layer.name for layer in layers]
    assert names.index("classifier head") < names.index(GATES) < len(names) - 1
    before = model(**inputs_of(model, segment)).logits
    for depth, _, network in islice(cascade(model, [segment], seed=0), 4):
        logits = network(**inputs_of(network, segment)).logits
        assert torch.isfinite(logits).all()
        if depth == 0:
            torch.testing.assert_close(logits, before)
    assert (logits - before).abs().max() > 1e-4
    torch.testing.assert_close(model(**inputs_of(model, segment)).logits, before)


@torch.inference_mode()
def test_a_reveal_map_sees_what_the_network_sees(model: nn.Module, segment: Segment) -> None:
    output = model(**inputs_of(model, segment))
    output.logits[..., 1] += 100.0  # all speaking
    found = reveal_map(model, segment, "face", output)
    assert found.shape == (7, 7)
    assert np.isfinite(found).all()


def test_who_hears_something_else_than_mfcc_is_refused() -> None:
    with torch.device("meta"):
        network = create_model("loconet")
    crops = np.zeros((1, 112, 112), np.uint8)
    with pytest.raises(OptionError, match="LoCoNet hears log_mel"):
        inputs_of(network, Segment("a#1@0", "a", "real", {"face": crops}, np.zeros((4, 13), np.float32)))
    with pytest.raises(OptionError, match="LoCoNet hears log_mel"):
        pooled_audio(network, np.zeros((4, 13), np.float32))
