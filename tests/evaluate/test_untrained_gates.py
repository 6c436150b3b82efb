"""The sufficiency of gates that have learned nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.sufficiency import top_mask
from asd_explain.evaluate.untrained_gates import gates_against_untrained, untrained
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.se import SqueezeExcite


class ByOne(FusionBackbone):
    """Says "speaking" by channel 3 of the audio and channel 5 of the face; ten channels each, gates as they are set."""

    streams = {"audio": 10, "face": 10}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.attach_gates(SqueezeExcite(20, 4, standardise=True))

    def classify(self, audio: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        margin = 6 * audio[..., 3] + 6 * face[..., 5]
        return torch.stack((torch.zeros_like(margin), margin), -1)


@pytest.fixture
def by_one() -> ByOne:
    torch.manual_seed(0)
    model = ByOne().eval().requires_grad_(False)
    for layer in (model.fusion_gate.reduce, model.fusion_gate.expand):
        nn.init.zeros_(layer.weight)
    model.fusion_gate.expand.bias.copy_(torch.linspace(-1, 1, 20))
    model.fusion_gate.expand.bias[[3, 15]] = 3.0
    return model


def _vectors(lengths: tuple[int, ...] = (20, 30)) -> list[torch.Tensor]:
    return [torch.randn(n, 20, generator=torch.Generator().manual_seed(n)) for n in lengths]


@pytest.mark.parametrize("gated", [True, False])
def test_trained_gates_beat_random_ones_and_untrained_gates_do_not(by_one: ByOne, gated: bool) -> None:
    found = gates_against_untrained(by_one, _vectors(), range(40), (0.2,), gated=gated)
    for fill in ("zero", "mean"):
        assert found.mean("trained", 0.2, fill) == pytest.approx(0, abs=1e-6)
        assert found.difference("trained", 0.2, fill) > 0.15
        assert abs(found.difference("untrained", 0.2, fill)) < 0.25 * found.difference("trained", 0.2, fill)
    assert found.frames == 50
    assert found.by_track["untrained", 0.2, "zero"].shape == (40, 2)
    drift = found.by_track["untrained", 0.2, "zero"].double() @ torch.tensor([0.4, 0.6]).double()
    assert found.mean("untrained", 0.2, "zero") == pytest.approx(float(drift.mean()))


def test_untrained_drift_by_brute_force(by_one: ByOne) -> None:
    vectors = _vectors()
    found = gates_against_untrained(by_one, vectors, (7,), (0.3,), gated=False)
    block = untrained(by_one.fusion_gate, 7)
    moved = []
    for x in vectors:
        kept = top_mask(block.excitation(x[None])[0], (10, 10), 0.3)
        p, q = (torch.sigmoid(6 * v[:, 3] + 6 * v[:, 15]) for v in (x, torch.where(kept, x, 0.0)))
        moved.append((p - q).abs())
    assert found.mean("untrained", 0.3, "zero") == pytest.approx(float(torch.cat(moved).mean()), abs=1e-6)
    again = gates_against_untrained(by_one, vectors, (7,), (0.3,), gated=False)
    assert again.drift == found.drift


def test_dead_channels_are_no_choice_of_anybody(by_one: ByOne) -> None:
    vectors = _vectors()
    for x in vectors:
        x[:, :3] = x[:, 4:10] = 0.0  # of the audio only channel 3 lives
        x[:, 10:15] = x[:, 16:] = 0.0
    found = gates_against_untrained(by_one, vectors, range(3), (0.1,))
    assert all(
        found.mean(name, 0.1, "zero") == pytest.approx(0, abs=1e-6) for name in ("trained", "untrained", "random")
    )


def test_untrained_block_keeps_its_statistics_and_leaves_the_own_one(by_one: ByOne) -> None:
    own = by_one.fusion_gate
    own.set_statistics(torch.arange(20.0), torch.full((20,), 2.0))
    before = {k: v.clone() for k, v in own.state_dict().items()}
    state = torch.random.get_rng_state()
    fresh = [untrained(own, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(fresh[0].expand.weight, fresh[1].expand.weight)
    assert not torch.equal(fresh[0].expand.weight, fresh[2].expand.weight)
    assert torch.equal(fresh[0].mean, own.mean)
    assert all(torch.equal(v, before[k]) for k, v in own.state_dict().items())


def test_a_network_without_a_block_is_refused(by_one: ByOne) -> None:
    by_one.attach_gates(None)
    with pytest.raises(OptionError, match="block"):
        gates_against_untrained(by_one, _vectors())
