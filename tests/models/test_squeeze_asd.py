"""Our own network: absent streams, gates in place, pooling that the heat can account for."""

from __future__ import annotations

import pytest
import torch

from asd_explain.explain.base import create_explainer
from asd_explain.explain.shares import modality_shares
from asd_explain.models.registry import create_model
from asd_explain.scoring import classify


def _inputs(frames: int = 7, clips: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(frames)
    crops = torch.randint(0, 256, (2, clips, frames, 112, 112), dtype=torch.uint8, generator=generator)
    return {"face": crops[0], "body": crops[1], "audio": 5 * torch.randn(clips, 4 * frames, 13, generator=generator)}


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    network = create_model("squeeze_asd")
    network.fusion_gate.set_statistics(torch.rand(352), 0.5 + torch.rand(352))
    return network


def test_size_is_as_promised(model: torch.nn.Module) -> None:
    assert sum(p.numel() for p in model.parameters()) <= 1_500_000
    assert create_model("squeeze_asd", gated=False).fusion_gate is None


@torch.inference_mode()
def test_both_visual_streams_have_maps_whose_channels_the_gates_weigh(model: torch.nn.Module) -> None:
    output = model(**_inputs())
    assert output.maps["face"].shape == (1, 7, 128, 14, 14)
    assert output.maps["body"].shape == (1, 7, 96, 14, 14)
    for stream in ("face", "body"):
        # No projection in between: the gated map's mean is what the classifier is given.
        gated = output.maps[stream] * output.gates[stream][..., None, None]
        torch.testing.assert_close(gated.mean((-2, -1)), output.pooled[stream] * output.gates[stream])
        assert (output.maps[stream] >= 0).all()


@torch.inference_mode()
def test_heat_of_every_cell_sums_to_what_the_gates_let_through(model: torch.nn.Module) -> None:
    output = model(**_inputs())
    heat = create_explainer("se").heat(model, {}, output=output)
    for stream in ("face", "body"):
        passed = (output.pooled[stream] * output.gates[stream])[0]
        torch.testing.assert_close(heat[stream].mean((-2, -1)), passed.mean(-1), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("gone", [("audio",), ("face",), ("body",), ("face", "body"), ("audio", "body")])
def test_an_absent_stream_is_a_learned_state(model: torch.nn.Module, gone: tuple[str, ...]) -> None:
    inputs = _inputs()
    output = model(**{s: None if s in gone else x for s, x in inputs.items()})
    assert output.logits.shape == (1, 7, 2)
    assert not set(gone) & set(output.maps)
    streams, shares = modality_shares(output)
    for stream, share in zip(streams, shares[0].T, strict=True):
        assert (share == 0).all() if stream in gone else (share > 0).all()
    # Neither zeros nor anything else that is fed could be mistaken for it: only the learned vector changes the answer.
    before = output.logits.clone()
    for stream in gone:
        model.absent[stream].add_(1.0)
    after = model(**{s: None if s in gone else x for s, x in inputs.items()}).logits
    assert (after - before).abs().max() > 1e-4


@torch.inference_mode()
def test_nothing_given_is_refused(model: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="at least one stream"):
        model(None, None)
    inputs = _inputs()
    with pytest.raises(ValueError, match="exactly four"):
        model(inputs["face"], inputs["audio"][:, :-1])


@torch.inference_mode()
def test_digital_silence_is_no_outlier_and_not_absence(model: torch.nn.Module) -> None:
    inputs = _inputs()
    silent, faint = (inputs["audio"] * 0 for _ in range(2))
    silent[..., 0], faint[..., 0] = -36.04, -5.0
    torch.testing.assert_close(model.audio_embedding(silent), model.audio_embedding(faint))
    assert (model(inputs["face"], silent).logits - model(inputs["face"], None).logits).abs().max() > 1e-5


@torch.inference_mode()
def test_a_long_track_without_sound_is_scored_in_windows(model: torch.nn.Module) -> None:
    pooled = {"face": torch.rand(1, 40, 128), "body": torch.rand(1, 40, 96)}
    logits = classify(model, pooled, window=20, hop=5)
    assert logits.shape == (1, 40, 2)
    assert torch.isfinite(logits).all()


@torch.inference_mode()
def test_scaling_the_logits_scales_nothing_else(model: torch.nn.Module) -> None:
    inputs = _inputs()
    before = model(**inputs)
    model.scale_logits(0.5)
    after = model(**inputs)
    torch.testing.assert_close(after.logits, before.logits / 2)
    torch.testing.assert_close(after.fusion, before.fusion)
