"""Squeeze-and-excitation heat against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from asd_explain.errors import OptionError
from asd_explain.explain.base import create_explainer, list_explainers
from asd_explain.explain.squeeze import SqueezeHeat, gated_mean, selected_channels
from asd_explain.models.output import Output
from asd_explain.models.registry import create_model


def _output(frames: int = 3, channels: int = 6, seed: int = 0) -> Output:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(1, frames, channels, 4, 5, generator=generator)
    gates = torch.rand(1, frames, channels, generator=generator)
    return Output(logits=torch.zeros(1, frames, 2), gates={"face": gates, "audio": gates}, maps={"face": maps})


def _brute_force(maps: np.ndarray, gates: np.ndarray, percentile: float | None) -> np.ndarray:
    frames, channels, height, width = maps.shape
    heat = np.zeros((frames, height, width))
    for t in range(frames):
        kept = list(range(channels))
        if percentile is not None:
            threshold = gates[t].mean() + norm.ppf(percentile) * gates[t].std()
            kept = [c for c in kept if gates[t, c] > threshold] or [int(gates[t].argmax())]
        for c in kept:
            heat[t] += gates[t, c] * maps[t, c] / len(kept)
    return np.maximum(heat, 0)


@settings(max_examples=30, deadline=None)
@given(
    frames=st.integers(1, 4),
    channels=st.integers(1, 40),
    seed=st.integers(0, 1000),
    percentile=st.sampled_from([None, 0.75, 0.90, 0.99]),
)
def test_equals_brute_force(frames: int, channels: int, seed: int, percentile: float | None) -> None:
    output = _output(frames, channels, seed)
    heat = SqueezeHeat(percentile).heat(None, {}, output=output)["face"].numpy()
    expected = _brute_force(
        output.maps["face"][0].double().numpy(), output.gates["face"][0].double().numpy(), percentile
    )
    np.testing.assert_allclose(heat, expected, atol=1e-5)
    assert (heat >= 0).all()


def test_published_threshold_is_mean_plus_1_2816_population_std() -> None:
    gates = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.9])
    # mean 0.26, population std 0.32: threshold 0.6701
    assert selected_channels(gates, 0.90).tolist() == [False, False, False, False, True]
    # a sample std (0.3578) would give 0.7185; a gate between the two tells them apart
    gates = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.9]) * 0.72 / 0.9
    assert selected_channels(gates, 0.90).sum() == 1


def test_at_least_one_channel_always_counts() -> None:
    assert selected_channels(torch.full((2, 7), 0.5), 0.90).sum(-1).tolist() == [1, 1]
    assert selected_channels(torch.full((1, 1), 0.5), 0.99).sum() == 1


def test_how_many_channels_passed_is_recorded() -> None:
    explainer = SqueezeHeat(0.90)
    explainer.heat(None, {}, output=_output(frames=3))
    explainer.heat(None, {}, output=_output(frames=2))
    assert len(explainer.channels_kept["face"]) == 5
    assert all(count >= 1 for count in explainer.channels_kept["face"])


def test_clip_scope_uses_the_mean_gates_of_the_piece() -> None:
    output = _output()
    mean = output.gates["face"].mean(1, keepdim=True).expand_as(output.gates["face"])
    heat = SqueezeHeat(0.75, scope="clip").heat(None, {}, output=output)["face"]
    kept = selected_channels(mean[0], 0.75)
    torch.testing.assert_close(heat, gated_mean(output.maps["face"][0], mean[0], kept))


def test_a_single_frame_and_a_single_channel_work() -> None:
    heat = SqueezeHeat(0.90).heat(None, {}, output=_output(frames=1, channels=1))["face"]
    assert heat.shape == (1, 4, 5)


def test_heat_follows_the_open_gate() -> None:
    maps = torch.zeros(1, 1, 2, 3, 3)
    maps[0, 0, 0, 0, 0] = maps[0, 0, 1, 2, 2] = 1.0
    gates = torch.tensor([[[0.9, 0.1]]])
    heat = SqueezeHeat().heat(None, {}, output=Output(torch.zeros(1, 1, 2), {"face": gates}, {"face": maps}))["face"]
    assert heat[0, 0, 0] == pytest.approx(0.45)
    assert heat[0, 2, 2] == pytest.approx(0.05)


@pytest.mark.parametrize("name", list_explainers())
def test_every_explainer_keeps_the_contract(name: str) -> None:
    torch.manual_seed(0)
    model = create_model("lr_asd")
    inputs = {"face": torch.randint(0, 256, (1, 4, 112, 112), dtype=torch.uint8), "audio": torch.randn(1, 16, 13)}
    heat = create_explainer(name).heat(model, inputs)
    assert set(heat) == {"face"}
    assert heat["face"].shape == ((4, 112, 112) if name == "fullgrad" else (4, 14, 14))
    assert torch.isfinite(heat["face"]).all()
    assert (heat["face"] >= 0).all()


def test_squeeze_heat_does_not_depend_on_the_target() -> None:
    output = _output()
    explainer = SqueezeHeat()
    torch.testing.assert_close(
        explainer.heat(None, {}, 0, output)["face"], explainer.heat(None, {}, 1, output)["face"], atol=0, rtol=0
    )


def test_bad_options_are_refused() -> None:
    with pytest.raises(OptionError, match="explainer"):
        create_explainer("tea-leaves")
    with pytest.raises(OptionError, match="percentile"):
        selected_channels(torch.rand(4), 1.5)
    with pytest.raises(OptionError, match="scope"):
        SqueezeHeat(scope="video")
