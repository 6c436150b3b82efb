"""Gains against small cases solved by hand, and against what occlusion must find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.errors import OptionError
from asd_explain.evaluate.attention_store import fingerprint
from asd_explain.evaluate.masking import baseline
from asd_explain.evaluate.segments import Segment
from asd_explain.explain import gains as gains_module
from asd_explain.explain.base import create_explainer
from asd_explain.explain.gains import (
    agreement,
    at_cells,
    channel_scale,
    fit_gains,
    gated_maps,
    normal_equations,
    patches,
    reveal_map,
    ridge_weights,
)
from asd_explain.explain.squeeze import SqueezeHeat
from asd_explain.models.output import Output
from asd_explain.models.registry import create_model

SIDE = 6


def _maps(channels: int = 5, stretches: int = 8, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.random((channels, SIDE, SIDE)).astype(np.float32) for _ in range(stretches)]


def test_patches_are_round_soft_and_reach_everywhere() -> None:
    shown = patches()
    assert shown.shape == (49, 112, 112)
    down, across = np.divmod(np.arange(49), 7)
    for patch, y, x in zip(shown.numpy(), 16 * down + 8, 16 * across + 8, strict=True):
        assert np.unravel_index(patch.argmax(), patch.shape) == (y, x)
        assert patch[y, x] == 1
        assert patch[y, x + 7 if x < 100 else x - 7] == pytest.approx(np.exp(-0.5 * 0.7**2))
        assert patch.sum() < 0.06 * patch.size  # sigma 10: 2 pi sigma^2 pixels
    assert shown.amax(0).min() > 0.4  # no pixel that no patch shows


def test_weights_that_made_the_targets_are_found_again() -> None:
    true = np.array([0.0, 1.0, 0.25, 0.0, 0.5])
    maps = _maps()
    targets = [np.tensordot(true, m, 1) + 3.0 for m in maps]  # a constant in all cells does not matter
    found = fit_gains(maps, targets, 0.0)
    np.testing.assert_allclose(found, true, atol=1e-3)
    assert agreement(found, maps, targets) == pytest.approx(1.0, abs=1e-4)
    assert agreement(np.ones(5), maps, targets) < 0.95


def test_a_channel_that_speaks_against_gets_nothing_and_never_less() -> None:
    maps = _maps()
    targets = [2 * m[0] - m[1] for m in maps]
    found = fit_gains(maps, targets, 1e-3)
    assert found[1] == 0
    assert found.min() >= 0
    assert found.argmax() == 0
    assert found.max() == 1


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(0.01, 100), channel=st.integers(0, 4))
def test_doubling_a_channel_halves_its_gain(factor: float, channel: int) -> None:
    # The law that gains are there for: heat does not depend on how large a channel happens to be.
    maps = _maps()
    targets = [m[0] + 0.5 * m[channel] for m in maps]
    scaled = [m.copy() for m in maps]
    for m in scaled:
        m[channel] *= factor
    one, other = fit_gains(maps, targets, 0.3), fit_gains(scaled, targets, 0.3)
    heat, again = np.tensordot(one, maps[0], 1), np.tensordot(other, scaled[0], 1)
    np.testing.assert_allclose(again / again.max(), heat / heat.max(), atol=1e-3)


def test_dead_channels_and_bad_input() -> None:
    maps = _maps()
    for m in maps:
        m[2] = 0
    assert fit_gains(maps, [m[0] for m in maps], 0.1)[2] == 0
    with pytest.raises(OptionError, match="nothing to fit"):
        fit_gains([], [], 0.1)
    with pytest.raises(OptionError, match="nothing to fit"):
        fit_gains(maps, [m[0] for m in maps], -1.0)
    with pytest.raises(OptionError, match="same in all cells"):
        fit_gains([np.ones_like(m) for m in maps], [m[0] for m in maps], 0.1)
    with pytest.raises(OptionError, match="no channel"):
        fit_gains(maps, [-m.sum(0) for m in maps], 0.1)
    assert np.isnan(agreement(np.ones(5), [], []))
    assert agreement(np.ones(5), maps, [np.ones((SIDE, SIDE))] * len(maps)) == 0


def test_many_channels_are_solved_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = _maps(channels=24, stretches=12)
    targets = [m[:6].sum(0) - 0.5 * m[8:12].sum(0) for m in maps]
    equations = normal_equations(maps, targets, channel_scale(maps))
    toward = np.linspace(-1, 1, 24)
    exact = [ridge_weights(*equations, 0.01), ridge_weights(*equations, 3.0, toward)]
    monkeypatch.setattr(gains_module, "_EXACT_UP_TO", 0)
    descent = [ridge_weights(*equations, 0.01), ridge_weights(*equations, 3.0, toward)]
    np.testing.assert_allclose(descent, exact, atol=1e-5)
    nothing = np.zeros((24, 24)), np.zeros(24)
    np.testing.assert_array_equal(ridge_weights(*nothing, 0.1, toward), np.maximum(toward, 0))


def test_cells_read_the_map_between_the_centres_of_its_patches() -> None:
    # A plane is read exactly by bilinear interpolation: value = 2 y + x at pixel (y, x), centres on 8, 24, ..., 104.
    y, x = np.meshgrid(np.arange(8, 112, 16), np.arange(8, 112, 16), indexing="ij")
    cells = at_cells(2 * y + x, (14, 14), 8.0, 0.0)
    down, across = np.meshgrid(8 * np.arange(14), 8 * np.arange(14), indexing="ij")
    np.testing.assert_allclose(cells, 2 * np.clip(down, 8, None) + np.clip(across, 8, None), atol=1e-3)
    later = at_cells(2 * y + x, (14, 14), 8.0, 4.0)  # a network whose cells lie half a stride further
    assert later[5, 9] == pytest.approx(2 * 44 + 76)
    assert later[13, 13] == pytest.approx(2 * 104 + 104)  # beyond the last centre, at pixel 108


class _LooksAt(torch.nn.Module):
    """Says "speaking" as far as a square of the face is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.streams = {"audio": 1, "face": 1}
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        return face[:, :, None, 64:96, 32:64].float() / 255

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.mean((-2, -1))

    def fuse(self, pooled: dict[str, torch.Tensor]) -> Output:
        margin = 8 * pooled["face"][..., 0] - 2
        return Output(torch.stack((torch.zeros_like(margin), margin), -1))


def _bright_square(value: int) -> tuple[_LooksAt, Segment, Output]:
    model = _LooksAt()
    crops = np.zeros((6, 112, 112), np.uint8)
    crops[:, 64:96, 32:64] = value
    segment = Segment("a#0@0", "a", "real", {"face": crops}, np.zeros((24, 13), np.float32))
    maps = model.face_maps(torch.from_numpy(crops)[None])
    pooled = {"audio": torch.zeros(1, 6, 1), "face": model.pool(maps)}
    output = model.fuse(pooled)
    output.pooled = pooled
    return model, segment, output


def test_what_a_patch_reveals_is_the_rise_of_the_log_odds() -> None:
    model, segment, output = _bright_square(255)
    found = reveal_map(model, segment, "face", output)
    assert found.shape == (7, 7)
    # By hand: the margin is 8 x the square's mean - 2, and a patch puts back its share of what the blur took from it.
    crop, hidden = (c[0].astype(np.float64) for c in (segment.crops["face"], baseline(segment.crops["face"], "blur")))
    lost = (patches().numpy() * (crop - hidden))[:, 64:96, 32:64].mean((1, 2))
    np.testing.assert_allclose(found.reshape(-1), 8 * lost / 255, atol=1e-4)
    assert np.unravel_index(found.argmax(), found.shape) in [(4, 2), (4, 3), (5, 2), (5, 3)]
    np.testing.assert_array_equal(found, reveal_map(model, segment, "face", output))


def test_a_stretch_called_silent_reveals_nothing() -> None:
    model, segment, output = _bright_square(10)
    assert reveal_map(model, segment, "face", output) is None


def test_gated_maps_are_means_over_time_of_gate_times_map() -> None:
    gates, maps = torch.rand(1, 3, 2), torch.rand(1, 3, 2, 4, 4)
    output = Output(torch.zeros(1, 3, 2), gates={"face": gates}, maps={"face": maps})
    wanted = (gates[0, :, :, None, None] * maps[0]).mean(0).numpy()
    np.testing.assert_allclose(gated_maps(output, "face", 0.0), wanted, atol=1e-6)


def _output(model: torch.nn.Module) -> Output:
    generator = torch.Generator().manual_seed(1)
    shape = {s: (1, 3, width, 4, 4) for s, width in model.streams.items() if s != "audio"}
    maps = {s: torch.rand(v, generator=generator) for s, v in shape.items()}
    gates = {s: torch.rand(v[:3], generator=generator) for s, v in shape.items()}
    return Output(torch.zeros(1, 3, 2), gates=gates, maps=maps)


def test_heat_with_gains_is_the_mean_of_gate_times_gain_times_map() -> None:
    model = create_model("squeeze_asd")
    output = _output(model)
    plain = SqueezeHeat().heat(model, {}, output=output)
    gain = torch.linspace(0, 1, model.streams["face"])
    model.attach_gains({"face": gain})
    heat = SqueezeHeat().heat(model, {}, output=output)
    weights = output.gates["face"][0] * gain
    wanted = (weights[..., None, None] * output.maps["face"][0]).mean(1)
    torch.testing.assert_close(heat["face"], wanted)
    torch.testing.assert_close(heat["body"], plain["body"])  # no gains there
    for name in ("se-plain", "se-paper"):
        torch.testing.assert_close(
            create_explainer(name).heat(model, {}, output=output)["face"],
            create_explainer(name).heat(None, {}, output=output)["face"],
        )
    torch.testing.assert_close(create_explainer("se-plain").heat(model, {}, output=output), plain)


def test_controls_of_gains() -> None:
    model = create_model("squeeze_asd")
    output = _output(model)
    gain = torch.rand(model.streams["face"], generator=torch.Generator().manual_seed(2))
    model.attach_gains({"face": gain})
    se = SqueezeHeat().heat(model, {}, output=output)["face"]
    # Where all maps are alike, which channel has which weight does not matter if gate and gain go together.
    alike = replace(output, maps={"face": output.maps["face"][:, :, :1].expand_as(output.maps["face"])})
    together = create_explainer("weights-shuffled", seed=3).heat(model, {}, output=alike)["face"]
    torch.testing.assert_close(together, SqueezeHeat().heat(model, {}, output=alike)["face"])
    # Gates alone: channels without a gain stay out, whatever gate they are dealt.
    model.attach_gains({"face": (torch.arange(len(gain)) == 7).float()})
    shuffled = create_explainer("se-shuffled", seed=3).heat(model, {}, output=output)["face"]
    shape = output.maps["face"][0, :, 7]
    scale = shuffled.amax((1, 2)) / shape.amax((1, 2))
    torch.testing.assert_close(shuffled, shape * scale[:, None, None])
    assert not torch.allclose(shuffled, se)


def test_gains_of_the_wrong_width_or_stream_are_refused_and_are_no_state() -> None:
    model = create_model("lr_asd")
    keys = set(model.state_dict())
    with pytest.raises(ValueError, match="gains of face"):
        model.attach_gains({"face": torch.ones(3)})
    with pytest.raises(ValueError, match="gains of body"):
        model.attach_gains({"body": torch.ones(128)})
    with pytest.raises(ValueError, match="gains of audio"):
        model.attach_gains({"audio": torch.ones(128)})
    for bad in (torch.full((128,), torch.nan), torch.full((128,), -1.0)):
        with pytest.raises(ValueError, match="finite"):
            model.attach_gains({"face": bad})
    assert model.gains == {}
    before = fingerprint(model)
    model.attach_gains({"face": torch.ones(128)})
    assert fingerprint(model) != before, "figures made with other gains are other figures"
    assert list(model.gains) == ["face"]
    assert set(model.state_dict()) == keys
