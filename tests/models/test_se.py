"""The squeeze-and-excitation block against hand-computed answers."""

from __future__ import annotations

import math

import pytest
import torch

from asd_explain.errors import OptionError
from asd_explain.models.registry import create_model
from asd_explain.models.se import SqueezeExcite


def _hand_made(scope: str = "frame") -> SqueezeExcite:
    block = SqueezeExcite(2, reduction=2, scope=scope)
    with torch.no_grad():
        block.reduce.weight.copy_(torch.tensor([[1.0, -1.0]]))
        block.reduce.bias.fill_(0.5)
        block.expand.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        block.expand.bias.copy_(torch.tensor([0.0, 1.0]))
    return block


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_gates_of_a_frame_by_hand() -> None:
    # hidden = relu(3 - 1 + 0.5) = 2.5; gates = sigmoid(5), sigmoid(-2.5 + 1)
    gates = _hand_made().excitation(torch.tensor([[[3.0, 1.0]]]))
    assert gates[0, 0].tolist() == pytest.approx([_sigmoid(5.0), _sigmoid(-1.5)], abs=1e-6)


def test_forward_multiplies_by_the_gates() -> None:
    x = torch.tensor([[[3.0, 1.0]]])
    block = _hand_made()
    torch.testing.assert_close(block(x), x * block.excitation(x))


def test_maps_are_squeezed_over_space() -> None:
    maps = torch.tensor([2.0, 4.0, 1.0, 1.0]).reshape(1, 1, 2, 1, 2)
    block = _hand_made()
    torch.testing.assert_close(block.excitation(maps), block.excitation(torch.tensor([[[3.0, 1.0]]])))
    assert block(maps).shape == maps.shape


def test_clip_scope_averages_over_time_and_frame_scope_does_not() -> None:
    x = torch.tensor([[[3.0, 1.0], [0.0, 4.0]]])
    clip = _hand_made("clip").excitation(x)
    torch.testing.assert_close(clip[:, 0], clip[:, 1])
    torch.testing.assert_close(clip[:, :1], _hand_made().excitation(x.mean(1, keepdim=True)))
    frame = _hand_made().excitation(x)
    assert not torch.allclose(frame[:, 0], frame[:, 1])


def test_standardising_uses_the_stored_statistics() -> None:
    block = SqueezeExcite(2, standardise=True)
    block.set_statistics(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0]), floor=0.5)
    x = torch.tensor([[[3.0, 3.0]]])
    torch.testing.assert_close(block.standardised(x), torch.tensor([[[1.0, 2.0]]]))


def test_unknown_scope_and_missing_statistics_are_refused() -> None:
    with pytest.raises(OptionError, match="scope"):
        SqueezeExcite(4, scope="video")
    with pytest.raises(OptionError, match="statistics"):
        SqueezeExcite(4).set_statistics(torch.zeros(4), torch.ones(4))


def test_a_block_of_another_width_cannot_be_attached() -> None:
    with pytest.raises(ValueError, match="256"):
        create_model("lr_asd").attach_gates(SqueezeExcite(128))


@pytest.mark.parametrize("name", ["light_asd", "lr_asd"])
def test_a_positive_gate_commutes_with_the_max_pool(name: str) -> None:
    """Gating the maps and pooling equals pooling and gating: a fusion gate on the face draws on the face map."""
    torch.manual_seed(0)
    model = create_model(name)
    model.attach_gates(SqueezeExcite(256))
    face = torch.randint(0, 256, (1, 5, 112, 112), dtype=torch.uint8)
    with torch.inference_mode():
        output = model(face, torch.randn(1, 20, 13))
        gated_maps = output.maps["face"] * output.gates["face"][..., None, None]
        torch.testing.assert_close(gated_maps.amax((-2, -1)), output.pooled["face"] * output.gates["face"])
        again = model.classify(output.pooled["audio"] * output.gates["audio"], gated_maps.amax((-2, -1)))
    torch.testing.assert_close(again, output.logits)


def test_open_gates_leave_the_network_as_it_is() -> None:
    torch.manual_seed(0)
    model = create_model("lr_asd")
    face, audio = torch.randint(0, 256, (1, 4, 112, 112), dtype=torch.uint8), torch.randn(1, 16, 13)
    with torch.inference_mode():
        plain = model(face, audio).logits
        block = SqueezeExcite(256)
        block.expand.weight.zero_()
        block.expand.bias.fill_(30.0)
        model.attach_gates(block)
        torch.testing.assert_close(model(face, audio).logits, plain, atol=1e-5, rtol=1e-5)
