"""Controls: what they draw, that draws are seeded, and where the blobs lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asd_explain.errors import OptionError
from asd_explain.explain.base import create_explainer
from asd_explain.explain.controls import FACE_ASPECT, MOUTH_AT, blob_in_crop
from asd_explain.explain.squeeze import SqueezeHeat
from asd_explain.models.output import Output
from asd_explain.models.registry import create_model
from asd_explain.tracks.crops import body_box, crop_window

CONTROLS = ("random", "activation", "se-shuffled", "centre", "mouth")


class _Geometry:
    """Stands for a network of which only the place of the cells is asked."""

    streams = {"audio": 2, "face": 2, "body": 2}  # noqa: RUF012
    map_stride_px, map_offset_px = 8.0, 0.0


def _crops(frames: int = 3) -> dict[str, torch.Tensor | None]:
    crops = torch.zeros(1, frames, 112, 112, dtype=torch.uint8)
    return {"face": crops, "body": crops, "audio": None}


def _output(frames: int = 3, channels: int = 6, seed: int = 0) -> Output:
    generator = torch.Generator().manual_seed(seed)
    maps = {s: torch.randn(1, frames, channels, 4, 5, generator=generator) for s in ("face", "body")}
    gates = {s: torch.rand(1, frames, channels, generator=generator) for s in ("audio", "face", "body")}
    return Output(logits=torch.zeros(1, frames, 2), gates=gates, maps=maps)


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_need_an_output_or_crops_and_no_gradient(name: str) -> None:
    torch.manual_seed(0)
    explainer, model = create_explainer(name), create_model("squeeze_asd")
    assert not explainer.needs_gradient
    assert explainer.name == name
    inputs = {"face": torch.randint(0, 256, (1, 2, 112, 112), dtype=torch.uint8), "audio": None}
    with torch.inference_mode():
        output = model(**inputs)
    without, given = explainer.heat(model, inputs), explainer.heat(model, {}, output=output)
    for heat in (without, given):
        assert {s: tuple(h.shape) for s, h in heat.items()} == {"face": (2, 14, 14)}
        assert (heat["face"] >= 0).all()
    torch.testing.assert_close(without["face"], given["face"])
    torch.testing.assert_close(given["face"], explainer.heat(model, {}, 0, output)["face"])


def test_random_is_uniform_and_seeded() -> None:
    first = create_explainer("random").heat(_Geometry(), _crops(40))
    again = create_explainer("random").heat(_Geometry(), _crops(40))
    other = create_explainer("random", seed=1).heat(_Geometry(), _crops(40))
    torch.testing.assert_close(first["face"], again["face"], atol=0, rtol=0)
    for a, b in (
        (first["face"], other["face"]),
        (first["face"], first["body"]),
        (first["face"][:-1], first["face"][1:]),
    ):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.05
    assert first["face"].mean().item() == pytest.approx(0.5, abs=0.02)
    assert first["face"].std().item() == pytest.approx(12**-0.5, abs=0.01)


def test_activation_is_the_plain_mean() -> None:
    output = _output()
    heat = create_explainer("activation").heat(None, {}, output=output)
    for stream, maps in output.maps.items():
        np.testing.assert_allclose(heat[stream], np.maximum(maps[0].numpy().mean(1), 0), atol=1e-6)


def test_shuffled_gates_are_one_permutation_a_call_and_stream() -> None:
    # One map a channel that is 1 in a cell of its own: the heat shows the gates in their new order.
    channels = 12
    output = _output(channels=channels)
    maps = torch.eye(channels).view(1, 1, channels, 3, 4).expand(1, 3, -1, -1, -1)
    output.maps = {"face": maps, "body": maps}
    heat = create_explainer("se-shuffled", seed=5).heat(None, {}, output=output)
    orders = {}
    for stream in ("face", "body"):
        shown = heat[stream].flatten(1) * channels
        gates = output.gates[stream][0]
        orders[stream] = [int((gates[0] - g).abs().argmin()) for g in shown[0]]
        assert sorted(orders[stream]) == list(range(channels))
        torch.testing.assert_close(shown, gates[:, orders[stream]])
    assert orders["face"] != orders["body"]
    assert orders["face"] != list(range(channels))
    again = create_explainer("se-shuffled", seed=5).heat(None, {}, output=output)
    torch.testing.assert_close(heat["face"], again["face"], atol=0, rtol=0)
    other = create_explainer("se-shuffled", seed=6).heat(None, {}, output=output)
    assert not torch.equal(heat["face"], other["face"])


def test_shuffling_equal_gates_is_squeeze_heat_and_the_output_is_not_changed() -> None:
    output = _output()
    output.gates = {s: torch.full_like(g, 0.3) for s, g in output.gates.items()}
    heat = create_explainer("se-shuffled").heat(None, {}, output=output)
    torch.testing.assert_close(heat["face"], SqueezeHeat().heat(None, {}, output=output)["face"])
    output = _output()
    before = output.gates["face"].clone()
    create_explainer("se-shuffled", percentile=0.9, scope="clip").heat(None, {}, output=output)
    torch.testing.assert_close(output.gates["face"], before, atol=0, rtol=0)


@pytest.mark.parametrize("geometry", ["box", "demo"])
@pytest.mark.parametrize("where", ["centre", "mouth"])
def test_blobs_peak_where_they_should_in_every_frame(where: str, geometry: str) -> None:
    heat = create_explainer(where, geometry=geometry).heat(_Geometry(), _crops())
    for stream, values in heat.items():
        (x, y), _ = blob_in_crop(where, stream, geometry)
        row, column = divmod(int(values[0].argmax()), 14)
        assert abs(8 * row - y) <= 4
        assert abs(8 * column - x) <= 4
        assert 0.75 < values.max() <= 1
        assert values.min() > 0  # so that every order of the cells is one of distance
        torch.testing.assert_close(values[0], values[2])


def test_the_mouth_lies_where_the_crops_put_it() -> None:
    face = np.array([500.0, 300.0, 600.0, 300.0 + 100 * FACE_ASPECT])
    mouth = face[:2] + np.array(MOUTH_AT) * (face[2:] - face[:2])
    windows = {
        ("face", "box"): crop_window(face, "box"),
        ("face", "demo"): crop_window(face, "demo"),
        ("body", "box"): body_box(face, 2000, 2000),
    }
    for (stream, geometry), window in windows.items():
        (x, y), sigma = blob_in_crop("mouth", stream, geometry)
        relative = (mouth - window[:2]) / (window[2:] - window[:2])
        np.testing.assert_allclose([x + 0.5, y + 0.5], 112 * relative, atol=0.1)
        assert (sigma > 0).all()
    # By hand: 0.74 of the box; (0.48 + 0.3) / 1.4 of the demo's window.
    assert blob_in_crop("mouth", "face", "box")[0][1] == pytest.approx(0.74 * 112 - 0.5, abs=0.01)
    assert blob_in_crop("mouth", "face", "demo")[0][1] == pytest.approx(
        (2 * 0.74 - 1 + 0.3) / 1.4 * 112 - 0.5, abs=0.01
    )
    assert blob_in_crop("centre", "face", "demo")[0] == pytest.approx([55.5, 55.5])
    # A face is a third of the body crop's width.
    assert blob_in_crop("centre", "body", "box")[1][0] == pytest.approx(0.20 / 3 * 112, rel=0.01)


def test_the_weights_card_tells_the_geometry() -> None:
    class Carded(_Geometry):
        class card:  # noqa: N801
            geometry = "demo"

    by_card = create_explainer("mouth").heat(Carded(), _crops())["face"]
    torch.testing.assert_close(by_card, create_explainer("mouth", geometry="demo").heat(_Geometry(), _crops())["face"])
    plain = create_explainer("mouth").heat(_Geometry(), _crops())["face"]
    torch.testing.assert_close(plain, create_explainer("mouth", geometry="box").heat(_Geometry(), _crops())["face"])
    assert not torch.equal(by_card, plain)


def test_bad_options_are_refused() -> None:
    with pytest.raises(OptionError, match="geometry"):
        create_explainer("mouth", geometry="profile")
    for name in ("random", "centre"):
        with pytest.raises(OptionError, match="crops"):
            create_explainer(name).heat(_Geometry(), {})
