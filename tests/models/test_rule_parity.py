"""TalkNet, BIAS, ASDnB and LoCoNet against the outputs of the published code, parameters made by rule."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rule_support import rule_state
from torch import nn

from asd_explain.models.registry import create_model

NAMES = ("asdnb", "bias", "loconet", "talknet")
pytestmark = pytest.mark.shared


def _close(ours: torch.Tensor, published: np.ndarray) -> None:
    """Relative 1e-4 of the largest value: activations grow large under the rule."""
    assert tuple(ours.shape) == published.shape
    assert np.abs(ours.numpy() - published).max() <= 1e-4 * np.abs(published).max()


@pytest.fixture(scope="module")
def network() -> dict[str, nn.Module]:
    found = {}
    for name in NAMES:
        with torch.device("meta"):  # nothing is drawn that would be thrown away
            found[name] = create_model(name)
        found[name].load_state_dict(rule_state(found[name]), strict=True, assign=True)
    return found


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, shared_dir: Path, network: dict) -> tuple[str, nn.Module, dict]:
    with np.load(shared_dir / "reference" / f"{request.param}.rule.npz") as stored:
        return request.param, network[request.param], dict(stored)


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_has_exactly_the_published_keys_and_shapes(shared_dir: Path, name: str) -> None:
    published = json.loads((shared_dir / "reference" / f"{name}.rule.keys.json").read_text())
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in create_model(name).state_dict().items()}
    assert ours == published


@torch.inference_mode()
def test_equals_published_outputs(case: tuple[str, nn.Module, dict]) -> None:
    name, model, reference = case
    face, body = (torch.from_numpy(reference[key])[None] for key in ("faces", "bodies"))
    if name == "loconet":
        _loconet(model, face, torch.from_numpy(reference["log_mel"])[:, 0], reference)
        return
    output = model(face, torch.from_numpy(reference["mfcc"])[None], body)
    _close(output.logits[0], reference["logits"])
    _close(output.pooled["audio"][0], reference["audio_embedding"])
    if name == "asdnb":
        _close(output.pooled["face"][0], reference["visual_embedding"])
    if name == "talknet":
        _close(model.face_embedding(output.pooled["face"])[0], reference["face_embedding"])
    if name == "bias":
        for stream in ("face", "body"):
            _close(model.visual_embedding(stream, output.pooled[stream])[0], reference[f"{stream}_embedding"])
            gates = output.gates[stream][0]
            assert (gates == gates[:1]).all()  # one vector for the clip
            _close(gates[0], reference[f"{stream}_gate"])
            _close((output.maps[stream][0] * gates[..., None, None])[:4], reference[f"{stream}_features"])
        assert (output.fusion == output.fusion[:, :1]).all()
        _close(output.fusion[0, 0], reference["fusion_gate"])


def _loconet(model: nn.Module, face: torch.Tensor, audio: torch.Tensor, reference: dict) -> None:
    others = torch.stack((face.flip(1), torch.zeros_like(face)), 2)
    pooled, _ = model.encode(face, audio, None, others)
    _close(pooled["audio"][0], reference["audio_embedding"])
    # The published code runs the 5-frame convolution over the tracks laid end to end. Given what leaks from one track
    # into the next, everything is as published ...
    joined = model.pool(model.face_maps(torch.cat((face, face.flip(1), torch.zeros_like(face)), 1)))[0]
    first, *rest = joined.split(face.shape[1])
    leaked = pooled | {"face": first[None], "context": torch.stack(rest, 1)[None]}
    _close(model.face_embedding(leaked["face"])[0], reference["face_embedding"])
    vector = torch.cat(list(model.at_fusion(leaked).values()), -1)
    _close(model.candidates(vector, leaked)[0], reference["logits"])
    _close(model.fuse(leaked).logits[0], reference["logits"][0])
    # ... and without it the first track differs in its last two frames before anything averages over the clip.
    torch.testing.assert_close(pooled["face"][0, :-2], first[:-2], rtol=1e-4, atol=1e-4)
    assert (pooled["face"][0, -2:] - first[-2:]).abs().amin(0).max() > 1
