"""TalkNet, BIAS, ASDnB and LoCoNet: gates where projections lie behind the maps, context, what a frame depends on."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.explain.base import create_explainer
from asd_explain.explain.shares import modality_shares
from asd_explain.models.registry import create_model
from asd_explain.models.se import SqueezeExcite
from asd_explain.models.talknet_layers import VisualTrunk

NAMES = ("asdnb", "bias", "loconet", "talknet")
PROJECTED = ("bias", "loconet", "talknet")


@functools.cache
def network(name: str, **options: object) -> nn.Module:
    with torch.inference_mode(False):
        torch.manual_seed(0)
        return create_model(name, **options).requires_grad_(False)


def _crops(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _inputs(model: nn.Module, frames: int) -> dict[str, torch.Tensor]:
    sound = torch.randn(1, 4 * frames, model.audio_width, generator=torch.Generator().manual_seed(frames))
    bodies = {"body": _crops(1, frames, seed=1)} if "body" in model.crops else {}
    return {"face": _crops(1, frames), "audio": sound, **bodies}


# --- what a frame depends on ------------------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("name", NAMES)
def test_maps_of_overlapping_pieces_are_those_of_the_whole_and_the_halo_is_needed(name: str) -> None:
    model, halo = network(name), network(name).halo_frames
    length, first, last = 2 * halo + 6, halo + 2, halo + 4
    inputs = {key: x for key, x in _inputs(model, length).items() if key != "audio"}

    def encoded(begin: int, end: int) -> tuple[dict, dict]:
        return model.encode(**{key: x[:, begin:end] for key, x in inputs.items()}, audio=None)

    pooled, maps = encoded(0, length)
    piece_pooled, piece_maps = encoded(first - halo, last + halo)
    for stream in maps:
        for piece, whole in ((piece_maps, maps), (piece_pooled, pooled)):
            torch.testing.assert_close(piece[stream][:, halo:-halo], whole[stream][:, first:last], atol=1e-4, rtol=1e-4)
    short = encoded(first - halo + 1, last + halo)[0]["face"][:, halo - 1]
    assert (short - pooled["face"][:, first]).abs().max() > 1e-6
    with pytest.raises(ValueError, match="needs audio as well"):
        model.fuse(pooled, maps)


@torch.inference_mode()
def test_sound_of_a_piece_with_its_context_is_that_of_the_whole_for_the_one_without_averages() -> None:
    model = network("loconet")
    sound = torch.randn(1, 4 * 60, 64)
    whole, context = model.audio_embedding(sound), model.audio_context_frames
    for begin, end in ((0, 20), (20, 40), (40, 60)):
        low, high = max(0, begin - context), min(60, end + context)
        piece = model.audio_embedding(sound[:, 4 * low : 4 * high])[:, begin - low : end - low]
        torch.testing.assert_close(piece, whole[:, begin:end], atol=1e-5, rtol=1e-4)
    # The deepest maps hold two frames: an odd beginning would shift them.
    odd = model.audio_embedding(sound[:, 4 * 7 :])[:, 13:33]
    assert (odd - whole[:, 20:40]).abs().max() > 1e-4


@pytest.mark.parametrize("frames", [1, 3])
def test_five_frames_as_five_channels_equal_the_three_dimensional_convolution(frames: int) -> None:
    trunk = VisualTrunk()
    crops = _crops(2, frames)
    trunk.eval()
    with torch.no_grad():
        fast = trunk(crops)
    torch.testing.assert_close(fast, trunk(crops).detach(), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("name", PROJECTED)
def test_a_cell_is_centred_where_the_strides_put_it(name: str) -> None:
    """A small patch excites most the cell whose centre it lies on: cell i looks at pixel stride * i + offset."""
    model = network(name)
    stride = int(model.map_stride_px)
    ground = model.face_maps(torch.zeros(1, 1, 112, 112))
    for i in (1, 2):
        face = torch.zeros(1, 1, 112, 112)
        centre = stride * i + int(model.map_offset_px)
        face[..., centre - 2 : centre + 3, centre - 2 : centre + 3] = 200.0
        response = (model.face_maps(face) - ground).abs().sum((0, 1, 2))
        row, column = divmod(int(response.argmax()), response.shape[1])
        assert (row, column) == (i, i)


# --- gates ------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_bias_scopes_share_parameters_and_differ_in_time() -> None:
    clip, frame = network("bias"), network("bias", scope="frame")
    frame.load_state_dict(clip.state_dict())
    inputs = _inputs(clip, 6)
    a, b = clip(**inputs), frame(**inputs)
    for stream in ("face", "body"):
        assert (a.gates[stream] == a.gates[stream][:, :1]).all()
        assert b.gates[stream].std(1).max() > 0
        # The clip's gate is that of the mean over time and space, by the published formula.
        block = clip.trunk_gate(stream)
        mean = a.maps[stream].mean((1, 3, 4))
        by_hand = torch.sigmoid(torch.relu(mean @ block.fc["0"].weight.T) @ block.fc["2"].weight.T)
        torch.testing.assert_close(a.gates[stream][:, 0], by_hand)
    assert (a.fusion == a.fusion[:, :1]).all()
    assert b.fusion.std(1).max() > 0
    # One frame is a clip of its own: there the scopes agree.
    single = {key: x[:, : 4 if key == "audio" else 1] for key, x in inputs.items()}
    torch.testing.assert_close(clip(**single).logits, frame(**single).logits)
    with pytest.raises(OptionError, match="scope"):
        create_model("bias", scope="track")


@torch.inference_mode()
def test_bias_heat_is_of_the_maps_gates_and_shares_are_of_the_fusion_gates() -> None:
    model = network("bias")
    output = model(**_inputs(model, 4))
    heat = create_explainer("se").heat(model, {}, output=output)
    for stream in ("face", "body"):
        expected = (output.maps[stream] * output.gates[stream][..., None, None]).mean(2)[0]
        torch.testing.assert_close(heat[stream], expected.relu(), atol=1e-4, rtol=1e-4)
    streams, shares = modality_shares(output, "mean-gate")
    means = torch.stack([g.mean(-1) for g in output.fusion.split(128, -1)], -1)
    assert streams == ["audio", "face", "body"]
    torch.testing.assert_close(shares, means / means.sum(-1, keepdim=True))


@torch.inference_mode()
def test_bias_needs_both_crops() -> None:
    inputs = _inputs(network("bias"), 2)
    with pytest.raises(ValueError, match="body"):
        network("bias")(inputs["face"], inputs["audio"])


@torch.inference_mode()
@pytest.mark.parametrize("name", PROJECTED)
def test_blocks_can_be_attached_at_the_fusion_point_and_at_the_trunk(name: str) -> None:
    torch.manual_seed(1)
    model = create_model(name)
    inputs = _inputs(model, 3)
    width = sum(model.fusion_streams.values())
    model.attach_gates(None)
    model.attach_trunk_gates("face", None)
    if name == "bias":
        model.attach_trunk_gates("body", None)
    plain = model(**inputs)
    assert plain.fusion is None
    assert not model.maps_are_gated
    assert (plain.gates["face"] == 1).all()

    model.attach_gates(SqueezeExcite(width))
    fused = model(**inputs)
    assert fused.fusion.shape == (1, 3, width)
    assert (fused.gates["face"] == 1).all()  # the fusion gates are not those of the maps
    assert not model.maps_are_gated
    assert not torch.allclose(fused.logits, plain.logits)

    trunk = SqueezeExcite(512)
    model.attach_trunk_gates("face", trunk)
    gated = model(**inputs)
    assert model.maps_are_gated
    torch.testing.assert_close(gated.maps["face"], plain.maps["face"])  # maps are handed out ungated
    torch.testing.assert_close(gated.gates["face"], trunk.excitation(gated.maps["face"]))
    assert not torch.allclose(gated.logits, fused.logits)
    # Gating the maps before their mean is the same as gating the mean.
    by_maps = model.pool(gated.maps["face"] * gated.gates["face"][..., None, None])
    torch.testing.assert_close(by_maps, model.gated_pool("face", gated.pooled["face"]))

    for wrong, where in ((SqueezeExcite(7), "gates"), (SqueezeExcite(width), "trunk")):
        with pytest.raises(ValueError, match="channels"):
            model.attach_gates(wrong) if where == "gates" else model.attach_trunk_gates("face", wrong)
    with pytest.raises(ValueError, match="audio has no maps"):
        model.attach_trunk_gates("audio", trunk)


@torch.inference_mode()
def test_asdnb_gates_weigh_its_one_map_and_its_body_reaches_the_verdict() -> None:
    torch.manual_seed(2)
    model = create_model("asdnb")
    model.attach_gates(SqueezeExcite(256))
    inputs = _inputs(model, 4)
    output = model(**inputs)
    assert model.crops == ("face", "body")
    assert list(output.maps) == ["face"]
    torch.testing.assert_close(output.gates["face"], output.fusion[..., 128:])
    without = model(inputs["face"], inputs["audio"])
    assert (without.maps["face"] - output.maps["face"]).abs().max() > 1e-3
    # Without a body the network is shown the mean gray of its training.
    gray = torch.full((1, 4, 112, 112), 255 * 0.4161)
    torch.testing.assert_close(model(inputs["face"], inputs["audio"], gray).logits, without.logits)


def test_fullgrad_and_faithfulness_see_the_body_beside_the_face() -> None:
    from asd_explain.explain.gradients import maps_of

    model = network("asdnb")
    inputs = _inputs(model, 3)
    own = model.encode(inputs["face"], None, inputs["body"])[1]["face"]
    torch.testing.assert_close(maps_of(model, "face", inputs["face"], inputs), own)
    twice = maps_of(model, "face", inputs["face"].expand(2, -1, -1, -1), inputs)
    torch.testing.assert_close(twice[1:], own)
    assert (maps_of(model, "face", inputs["face"], {"body": None}) - own).abs().max() > 1e-3
    create_explainer("fullgrad").heat(model, inputs)


def test_fullgrad_lays_maps_of_four_cells_where_their_strides_put_them() -> None:
    from asd_explain.explain.fullgrad import _on_crop

    peak = torch.zeros(1, 4, 4)
    peak[0, 1, 2] = 1.0
    drawn = _on_crop(network("talknet"), {(4, 4): peak}, slice(0, 1), (112, 112))
    assert divmod(int(drawn[0].argmax()), 112) == (32, 64)
    finer = torch.zeros(1, 7, 7)
    finer[0, 3, 5] = 1.0
    drawn = _on_crop(network("talknet"), {(7, 7): finer}, slice(0, 1), (112, 112))
    assert divmod(int(drawn[0].argmax()), 112) == (48, 80)


# --- other candidates -------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_loconet_scores_a_face_beside_others() -> None:
    model = network("loconet")
    inputs = _inputs(model, 4)
    face, others = inputs["face"], _crops(1, 4, 3, seed=5)

    def logits(context: torch.Tensor | None) -> torch.Tensor:
        return model(**inputs, context=context).logits

    alone = logits(None)
    # A face alone stands in all places.
    torch.testing.assert_close(logits(torch.stack((face, face), 2)), alone)
    torch.testing.assert_close(logits(others[:, :, :0]), alone)
    # One other is repeated; of three, two count; a face that is never there is black, which is not the same as none.
    torch.testing.assert_close(logits(others[:, :, :1]), logits(others[:, :, [0, 0]]))
    torch.testing.assert_close(logits(others), logits(others[:, :, :2]))
    black = logits(torch.zeros_like(others[:, :, :2]))
    found = [alone, logits(others[:, :, :1]), logits(others[:, :, :2]), black]
    for i, a in enumerate(found):
        assert all((a - b).abs().max() > 1e-4 for b in found[:i])
    with pytest.raises(ValueError, match="context"):
        logits(others[:, :3])


@torch.inference_mode()
def test_a_block_weighs_every_candidate_of_loconet() -> None:
    torch.manual_seed(3)
    model = create_model("loconet")
    inputs, others = _inputs(model, 3), _crops(1, 3, 2, seed=6)
    plain = model(**inputs, context=others).logits
    block = SqueezeExcite(256)
    nn.init.zeros_(block.expand.weight)
    nn.init.constant_(block.expand.bias, 20.0)  # gates of one
    model.attach_gates(block)
    torch.testing.assert_close(model(**inputs, context=others).logits, plain)
    nn.init.constant_(block.expand.bias, -20.0)  # gates of zero: nothing is left to tell faces apart
    shut = model(**inputs, context=others).logits
    torch.testing.assert_close(shut, model(**inputs, context=others.flip(1)).logits, atol=1e-5, rtol=1e-4)
