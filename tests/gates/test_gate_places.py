"""Places of a block: the network from there on is the network, and a block is fitted there as at the fusion point."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from asd_explain.errors import OptionError
from asd_explain.evaluate.gate_report import p_at, rank_without_gates, report, take_sample
from asd_explain.evaluate.pooled import Conditions, PooledCache, PooledTrack
from asd_explain.evaluate.sufficiency import live_channels
from asd_explain.explain.base import create_explainer
from asd_explain.explain.gate_fitting import FitOptions, GateFitter
from asd_explain.explain.gate_places import FusionPlace, TrunkPlace, place_of
from asd_explain.models.projected import ProjectedBackbone
from asd_explain.models.registry import create_model
from asd_explain.models.se import SqueezeExcite
from asd_explain.tools import fit_gates
from asd_explain.weights.cards import Card, cards
from asd_explain.weights.store import load_gates


class TinyProjected(ProjectedBackbone):
    """Decides by channel 3 of the audio and channel 1 of the face's maps, through projections that mix all channels."""

    streams = {"audio": 16, "face": 16}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        turned = [torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q for _ in range(2)]
        self.turn_audio, self.turn_face = (torch.nn.Parameter(q) for q in turned)

    @property
    def fusion_streams(self) -> dict[str, int]:
        return {"audio": 16, "face": 16}

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return audio[..., :1].unflatten(1, (-1, 4)).mean(2) / 10 * torch.linspace(-1, 1, 16)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        return (face.float().mean(-1) / 255)[:, :, :16, None, None].expand(-1, -1, -1, 2, 2)

    def at_fusion(self, pooled: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        face = self.gated_pool("face", pooled["face"])
        return {"audio": pooled["audio"] @ self.turn_audio, "face": face @ self.turn_face}

    def classify(self, audio: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        margin = 4 * (audio @ self.turn_audio.T)[..., 3] + 4 * (face @ self.turn_face.T)[..., 1] - 1
        return torch.stack((torch.zeros_like(margin), margin), -1)


@pytest.fixture
def projected() -> TinyProjected:
    model = TinyProjected().eval().requires_grad_(False)
    model.card = Card("tiny", "network", "x", "0" * 64, 1, "MIT", "made up", model="talknet", geometry="box")
    model.weights_sha256 = "0" * 64
    return model


@pytest.mark.parametrize("name", ["light_asd", "asdnb", "talknet", "loconet"])
@torch.inference_mode()
def test_the_network_from_a_place_on_is_the_network(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name)
    widths = model.streams
    pooled = {stream: torch.randn(2, 7, width) for stream, width in widths.items()}
    projects = model.fusion_streams != widths
    assert type(place_of(model)) is (TrunkPlace if projects else FusionPlace), "where gates can be drawn"
    for place in [FusionPlace(model), *([TrunkPlace(model)] if projects else [])]:
        x = place.vectors(pooled)
        torch.testing.assert_close(place.logits(x), model.fuse(pooled).logits)
        own, rest = place.split(x)
        assert own.shape[-1] == place.channels
        block = SqueezeExcite(place.channels)
        torch.nn.init.normal_(block.expand.weight)
        gated = place.logits(torch.cat((block(own), rest), -1))
        place.attach(block)
        assert place.block is block
        torch.testing.assert_close(model.fuse(pooled).logits, gated)
        place.attach(None)
        assert place.block is None
        torch.testing.assert_close(p_at(place, own[:1], rest[0]), model.fuse(pooled).p_speaking[:1])


def test_what_has_no_such_place_is_told() -> None:
    with torch.device("meta"):
        with pytest.raises(OptionError, match="has no projections behind its maps"):
            place_of(create_model("lr_asd"), "trunk")
        with pytest.raises(OptionError, match="sound and face; BIAS has audio, face, body"):
            place_of(create_model("bias"))


def _batches(seed: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(8, 20, 32, generator=generator)


@pytest.mark.parametrize("seed", [0, 1])
def test_at_the_trunk_the_channel_of_the_maps_that_decides_comes_first(projected: TinyProjected, seed: int) -> None:
    place = TrunkPlace(projected)
    options = FitOptions(reduction=4, steps=250, least_share=0.06, most_share=0.2)
    block = GateFitter(place, torch.zeros(16), torch.ones(16), options, seed).run(_batches(seed))
    x = next(_batches(99))
    own, rest = place.split(x)
    gates = block.excitation(own)
    assert (gates.argmax(-1) == 1).float().mean() > 0.95
    before, after = (place.logits(v).softmax(-1)[..., 1] for v in (x, torch.cat((own * gates, rest), -1)))
    assert (before - after).abs().mean() < 0.03
    others = torch.arange(16) != 1
    assert gates[..., others].mean() < gates[..., 1].mean() - 0.3


def test_the_report_keeps_what_the_block_does_not_weigh(projected: TinyProjected, tracks: list[PooledTrack]) -> None:
    place, own = TrunkPlace(projected), [t for t in tracks if t.split == "fit"]
    conditions = Conditions(projected, own)
    faces = torch.cat([t.face for t in own])
    sample = take_sample(place, own[:2], conditions, live_channels(faces), faces.mean(0), faces.std(0))
    (audio, face), x, rest = conditions.inputs(own[0], "own"), sample.x[0], sample.rest[0]
    assert torch.equal(x, face)
    assert torch.equal(rest, audio)
    found = report(_knowing(), sample)
    # By hand: the one channel that decides is kept with the tenth of 16 that are, and what is heard stays.
    assert found.top["gate", "zero"]["all"] == pytest.approx(0, abs=1e-6)
    controls = rank_without_gates(sample)
    p = torch.cat(sample.p)
    lost = torch.cat([torch.sigmoid(4 * r[:, 3] - 1) for r in sample.rest])
    assert found.top["gate", "zero"]["all"] < controls["random", "zero"]["all"] < float((p - lost).abs().mean()) + 1e-6


def _knowing() -> SqueezeExcite:
    """Gates that are wide for channel 1 and the narrower the further a channel lies behind it."""
    block = SqueezeExcite(16, 4, standardise=True)
    torch.nn.init.zeros_(block.expand.weight)
    with torch.no_grad():
        block.expand.bias.copy_(torch.linspace(2, -2, 16))
        block.expand.bias[1] = 4
    return block.eval().requires_grad_(False)


def test_the_command_fits_a_block_whose_gates_are_drawn(
    projected: TinyProjected, tracks: list[PooledTrack], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fit_gates, "load", lambda name, weights=None, gates=True: projected)
    monkeypatch.setattr(fit_gates, "list_clips", lambda shared, per_speaker: [])
    monkeypatch.setattr(PooledCache, "collect", lambda self, entries: tracks)
    words = ["--model", "talknet.pretrain_AVA", "--weights", str(tmp_path / "w.model"), "--shared", str(tmp_path)]
    words += ["--cache", str(tmp_path), "--steps", "20", "--reduction", "4", "--seeds", "1", "--quiet"]
    for place in ("trunk", "fusion"):
        out = tmp_path / place
        assert fit_gates.main([*words, "--out", str(out), "--at", place]) == 0
        values = tomllib.loads((out / "cards" / "gates.tiny.toml").read_text())
        card = Card(**{**values, "limits": tuple(values["limits"])})
        assert card.gate["place"] == place
        assert str(tmp_path) not in str(values)
        load_gates(projected, card, out / "gates.tiny.safetensors")
        x = torch.rand(1, 3, 16)
        output = projected.fuse({"audio": x, "face": x}, {"face": torch.rand(1, 3, 16, 4, 4)})
        drawn = not torch.equal(output.gates["face"], torch.ones(1, 3, 16))
        assert drawn is (place == "trunk")
        assert projected.maps_are_gated is drawn
        assert (output.fusion is not None) is not drawn
        heat = create_explainer("se").heat(projected, {}, output=output)["face"]
        plain = output.maps["face"][0].mean(1)
        assert torch.allclose(heat, plain) is not drawn
        place_of(projected, place).attach(None)
    projected.attach_gates(_joint())
    assert fit_gates.main([*words, "--out", str(tmp_path / "again")]) == 2


def _joint() -> SqueezeExcite:
    return SqueezeExcite(32).eval().requires_grad_(False)


def test_cards_of_the_package_stand_at_the_fusion_point() -> None:
    assert all(card.gate.get("place", "fusion") == "fusion" for card in cards().values() if card.kind == "gates")
