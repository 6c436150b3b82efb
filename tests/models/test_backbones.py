"""The light backbones against the outputs of the published implementations, and against themselves in pieces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from asd_explain.errors import OptionError
from asd_explain.models.registry import create_model
from asd_explain.models.se import SqueezeExcite
from asd_explain.weights.store import load

#: The networks whose own files are tested here; tests/models/test_every_network.py has what holds for all.
LIGHT = ("light_asd", "lr_asd", "squeeze_asd")
PUBLISHED = (
    "light_asd.pretrain_AVA_CVPR",
    "light_asd.finetuning_TalkSet",
    "lr_asd.pretrain_AVA",
    "lr_asd.finetuning_TalkSet",
)


@pytest.mark.shared
@pytest.mark.parametrize("name", PUBLISHED)
def test_equals_published_outputs_with_the_block_switched_off(shared_dir: Path, name: str) -> None:
    reference = np.load(shared_dir / "reference" / f"{name}.npz")
    model = load(name, gates=False)
    with torch.inference_mode():
        output = model(torch.from_numpy(reference["faces"])[None], torch.from_numpy(reference["mfcc"])[None])
    assert model.fusion_gate is None
    assert output.fusion is None
    np.testing.assert_allclose(output.logits[0], reference["logits"], atol=1e-4)
    np.testing.assert_allclose(output.pooled["audio"][0], reference["audio_embedding"], atol=1e-4)
    np.testing.assert_allclose(output.pooled["face"][0], reference["face_embedding"], atol=1e-4)


@pytest.mark.shared
@pytest.mark.parametrize("name", PUBLISHED)
def test_state_dict_has_exactly_the_published_keys_and_shapes(shared_dir: Path, name: str) -> None:
    published = json.loads((shared_dir / "reference" / f"{name}.keys.json").read_text())
    ours = {key: list(value.shape) for key, value in create_model(name.split(".")[0]).state_dict().items()}
    assert ours == published


def _inputs(frames: int, clips: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(frames)
    face = torch.randint(0, 256, (clips, frames, 112, 112), dtype=torch.uint8, generator=generator)
    return face, torch.randn(clips, 4 * frames, 13, generator=generator)


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize("frames", [1, 3, 8])
def test_shapes_at_any_length(name: str, frames: int) -> None:
    model = create_model(name)
    output = model(*_inputs(frames, clips=2))
    assert output.logits.shape == (2, frames, 2)
    assert output.maps["face"].shape == (2, frames, 128, 14, 14)
    for stream, width in model.streams.items():
        assert output.gates[stream].shape == (2, frames, width)
    assert torch.isfinite(output.logits).all()


@pytest.mark.parametrize("name", LIGHT)
def test_clips_of_a_batch_do_not_see_each_other(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name)
    face, audio = _inputs(6, clips=3)
    with torch.inference_mode():
        together = model(face, audio).logits
        alone = torch.cat([model(face[i : i + 1], audio[i : i + 1]).logits for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", LIGHT)
def test_encoding_in_overlapping_pieces_changes_nothing(name: str) -> None:
    torch.manual_seed(1)
    model = create_model(name)
    face, audio = _inputs(40)
    halo = model.halo_frames
    with torch.inference_mode():
        whole, maps = model.encode(face, audio)
        begin, end, first, last = 14 - halo, 24 + halo, 14, 24
        piece, piece_maps = model.encode(face[:, begin:end], audio[:, 4 * begin : 4 * end])
    inside = slice(first - begin, last - begin)
    for stream in whole:
        torch.testing.assert_close(piece[stream][:, inside], whole[stream][:, first:last], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(piece_maps["face"][:, inside], maps["face"][:, first:last], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", LIGHT)
def test_halo_is_no_larger_than_needed(name: str) -> None:
    """One frame less on one side must change something, or the halo costs time for nothing."""
    torch.manual_seed(2)
    model = create_model(name)
    face, audio = _inputs(40)
    halo = model.halo_frames - 1
    with torch.inference_mode():
        whole, _ = model.encode(face, audio)
        begin = 20 - halo
        piece, _ = model.encode(face[:, begin:], audio[:, 4 * begin :])
    assert (piece["face"][:, halo] - whole["face"][:, 20]).abs().max() > 1e-6


@pytest.mark.parametrize("name", LIGHT)
def test_training_mode_gives_gradients(name: str) -> None:
    model = create_model(name).train()
    if model.fusion_gate is None:
        model.attach_gates(SqueezeExcite(256))
    face, audio = _inputs(4, clips=2)
    model(face, audio, face.flip(-1)).logits.square().sum().backward()
    aside = ("lossV", "absent")  # an auxiliary head, and what stands for streams that are there
    assert all(p.grad is not None for key, p in model.named_parameters() if not key.startswith(aside))


@pytest.mark.parametrize("name", LIGHT)
def test_folding_the_norm_equals_applying_it(name: str) -> None:
    """Evaluation folds batch norms into convolutions; the plain way, module by module, must say the same."""
    torch.manual_seed(3)
    model = create_model(name)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    if name == "squeeze_asd":
        conv, norm = model.face_encoder.layers[0].conv, model.face_encoder.layers[0].norm
    else:
        block = model.model["visualEncoder"].block1
        conv, norm = (block.s_3, block.bn_s_3) if name == "light_asd" else (block.s_1, block.s_norm_1)
    x = torch.randn(1, 1, 4, 20, 20)
    from asd_explain.models.layers import spatial

    plain = torch.relu(norm(conv(x)))[0].transpose(0, 1)
    torch.testing.assert_close(spatial(x[0].transpose(0, 1), conv, norm), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [*LIGHT, "asdnb"])
def test_a_cell_is_centred_where_the_strides_put_it(name: str) -> None:
    """Cell i looks at pixel stride * i + offset: moving the picture by one stride moves the maps by one cell."""
    torch.manual_seed(4)
    model = create_model(name)
    stride = int(model.map_stride_px)
    face = torch.zeros(1, 1, 112, 112)
    face[..., 60 : 60 + 5, 60 : 60 + 5] = 200.0
    with torch.inference_mode():
        background = model.face_maps(torch.zeros(1, 1, 112, 112))
        there = (model.face_maps(face) - background).abs().sum((0, 1, 2))
        moved = (model.face_maps(face.roll(stride, -1)) - background).abs().sum((0, 1, 2))
        mirrored = (model.face_maps(face.flip(-1)) - background).abs().sum((0, 1, 2))
    torch.testing.assert_close(moved[:, 5:11], there[:, 4:10], atol=1e-3, rtol=1e-3)
    # A patch centred on pixel 62 excites cells around 62 / 8 = 7.75; mirrored it is centred on 49, cell 6.1.
    columns = torch.arange(14.0)
    for response, pixel in ((there, 62.0), (mirrored, 49.0)):
        centre = (response.sum(0) * columns).sum() / response.sum()
        assert abs(centre.item() - (pixel - model.map_offset_px) / stride) < 0.3


def test_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match="no_such_net"):
        create_model("no_such_net")


def test_audio_must_have_four_steps_a_frame() -> None:
    face, audio = _inputs(4)
    with pytest.raises(ValueError, match="four"):
        create_model("lr_asd")(face, audio[:, :-1])
