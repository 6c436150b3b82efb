"""One set of tests that every registered network has to pass."""

from __future__ import annotations

import copy
import functools
import math

import pytest
import torch
from torch import nn

from asd_explain.explain.base import create_explainer, list_explainers
from asd_explain.explain.shares import modality_shares
from asd_explain.media.features import AUDIO_FEATURES
from asd_explain.models.output import Output
from asd_explain.models.padding import forward_padded
from asd_explain.models.registry import create_model, list_models
from asd_explain.models.se import SqueezeExcite

MODELS = list_models()
#: Networks that torch.export does not take, and why. None.
NOT_EXPORTED: dict[str, str] = {}


@functools.cache
def network(name: str) -> nn.Module:
    """Fresh parameters, the same in every test, in evaluation mode; not to be changed.

    Norms have the statistics of some input. Without them activations fade from layer to layer, and the logits of any
    two clips agree to six digits: then nothing could be seen to leak from one into the other.
    """
    with torch.inference_mode(False), torch.no_grad():
        torch.manual_seed(0)
        model = create_model(name).requires_grad_(False)
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        usual = [m.momentum for m in norms]
        for norm in norms:
            norm.momentum = 1.0
        model.train()(**inputs_of(model, 4, clips=3, seed=9))
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
        return model.eval()


def inputs_of(model: nn.Module, frames: int, clips: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """All that the network takes: crops, sound, and one other candidate's face where it sees several."""
    generator = torch.Generator().manual_seed(seed + 100 * frames)

    def crops(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, (*shape, 112, 112), dtype=torch.uint8, generator=generator)

    _, width = AUDIO_FEATURES[model.audio_feature]
    found = {"face": crops(clips, frames), "audio": torch.randn(clips, 4 * frames, width, generator=generator)}
    if "body" in model.crops:
        found["body"] = crops(clips, frames)
    if model.scored_together > 1:
        found["context"] = crops(clips, frames, 1)
    return found


def check(model: nn.Module, output: Output, clips: int, frames: int) -> None:
    assert output.logits.shape == (clips, frames, 2)
    assert torch.isfinite(output.logits).all()
    assert list(output.gates) == list(model.streams)
    for stream, width in model.streams.items():
        assert output.gates[stream].shape == (clips, frames, width)
        assert ((output.gates[stream] > 0) & (output.gates[stream] <= 1)).all()
        assert output.pooled[stream].shape == (clips, frames, width)
    for stream, width in model.fusion_streams.items():
        assert output.standardised[stream].shape == output.fusion_gates[stream].shape == (clips, frames, width)
    for stream, maps in output.maps.items():
        cells = math.ceil(112 / model.map_stride_px)
        assert maps.shape == (clips, frames, model.streams[stream], cells, cells)
        torch.testing.assert_close(model.pool(maps), output.pooled[stream])
    assert set(output.maps) == set(model.streams) - {"audio"} <= set(model.crops)
    _, shares = modality_shares(output)
    torch.testing.assert_close(shares.sum(-1), torch.ones(clips, frames))


@torch.inference_mode()
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_forward_with_one_frame_and_with_odd_numbers_of_frames(name: str, frames: int) -> None:
    model = network(name)
    check(model, model(**inputs_of(model, frames, clips=2)), 2, frames)


@pytest.mark.parametrize("name", MODELS)
def test_finite_gradients_reach_every_parameter_in_use(name: str) -> None:
    torch.manual_seed(1)
    model = create_model(name).train()
    if model.fusion_gate is None:
        model.attach_gates(SqueezeExcite(sum(model.fusion_streams.values())))
    model(**inputs_of(model, 3, clips=2)).logits.square().sum().backward()
    for key, parameter in model.named_parameters():
        if key.startswith(tuple(f"{name}." for name in model.idle)):
            assert parameter.grad is None, key  # or it would not be idle
        elif not key.startswith("absent."):  # what stands for streams that are not there
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key


@torch.inference_mode()
@pytest.mark.parametrize("name", MODELS)
def test_half_precision(name: str) -> None:
    model = network(name)
    inputs = inputs_of(model, 5)
    full = model(**inputs).p_speaking
    with torch.autocast("cpu", torch.bfloat16):
        half = model(**inputs)
    assert half.logits.shape == (1, 5, 2)
    assert half.maps["face"].dtype == torch.bfloat16
    torch.testing.assert_close(half.logits.float().softmax(-1)[..., 1], full, atol=0.05, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parameters_in_half_precision(name: str, dtype: torch.dtype) -> None:
    """The same inputs, as they come: crops in bytes, sound in float32."""
    model = network(name)
    inputs = inputs_of(model, 5)
    half = copy.deepcopy(model).to(dtype)(**inputs)
    assert half.logits.dtype == half.maps["face"].dtype == dtype
    torch.testing.assert_close(half.p_speaking.float(), model(**inputs).p_speaking, atol=0.05, rtol=0)


class _Logits(nn.Module):
    """``torch.export`` wants tensors, and takes None for what is not there."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, face, audio, body=None, context=None):
        return self.model(face, audio, body, context).logits


@pytest.mark.parametrize("name", [name for name in MODELS if name not in NOT_EXPORTED])
def test_torch_export_gives_the_same_logits(name: str) -> None:
    model = network(name)
    inputs = inputs_of(model, 2)
    arguments = tuple(inputs.get(key) for key in ("face", "audio", "body", "context"))
    with torch.no_grad():
        exported = torch.export.export(_Logits(model), arguments).module()
        torch.testing.assert_close(exported(*arguments), model(**inputs).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_every_explainer_explains_it(name: str) -> None:
    model = network(name)
    inputs = inputs_of(model, 3)
    with torch.inference_mode():
        output = model(**inputs)
    for title in list_explainers():
        heat = create_explainer(title).heat(model, inputs, output=output)
        assert set(heat) == set(output.maps), title
        for stream, values in heat.items():
            cells = output.maps[stream].shape[-2:]
            assert values.shape in ((3, *cells), (3, 112, 112)), title
            assert torch.isfinite(values).all(), title
            assert (values >= 0).all(), title
    assert all(parameter.grad is None for parameter in model.parameters())


@torch.inference_mode()
@pytest.mark.parametrize("name", MODELS)
def test_a_clip_says_the_same_alone_and_beside_others(name: str) -> None:
    """Clips of any length in one batch: neither neighbours nor what fills a clip up is seen or heard."""
    model, lengths, most = network(name), (2, 3, 1), 3
    batch = inputs_of(model, most, clips=len(lengths))
    together = forward_padded(model, lengths, **batch)
    whole = model(**batch)
    apart = torch.pdist(whole.logits.flatten(1), math.inf)
    assert apart.min() > 1e-3, "clips that say the same would hide a leak"
    for i, length in enumerate(lengths):
        cut = {key: x[i : i + 1, : length * (4 if key == "audio" else 1)] for key, x in batch.items()}
        alone = model(**cut)
        torch.testing.assert_close(together.logits[i, :length], alone.logits[0], atol=1e-5, rtol=1e-4)
        assert (together.logits[i, length:] == 0).all()
        for stream, maps in alone.maps.items():
            torch.testing.assert_close(together.maps[stream][i, :length], maps[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(together.gates[stream][i, :length], alone.gates[stream][0], atol=1e-5, rtol=1e-4)
        if length == most:
            torch.testing.assert_close(whole.logits[i], alone.logits[0], atol=1e-5, rtol=1e-4)


def test_lengths_that_do_not_fit_are_refused() -> None:
    model = network("light_asd")
    for lengths in ((1,), (0, 2), (2, 9)):
        with pytest.raises(ValueError, match="do not go with 2 clips of 3 frames"):
            forward_padded(model, lengths, **inputs_of(model, 3, clips=2))


@torch.inference_mode()
@pytest.mark.parametrize("name", MODELS)
def test_another_kind_of_sound_or_number_of_steps_is_refused(name: str) -> None:
    model = network(name)
    inputs = inputs_of(model, 3)
    with pytest.raises(ValueError, match="four"):
        model(**inputs | {"audio": inputs["audio"][:, 1:]})
    with pytest.raises(ValueError, match="numbers a step"):
        model(**inputs | {"audio": torch.randn(1, 12, 77 - inputs["audio"].shape[-1])})
