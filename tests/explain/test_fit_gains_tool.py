"""The command that fits gains, on a network whose reading is known; and the gains that are shipped."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from asd_explain.errors import WeightsError
from asd_explain.evaluate.segments import Segment
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.registry import create_model
from asd_explain.tools import fit_gains
from asd_explain.weights.cards import Card, cards
from asd_explain.weights.store import gains_for, load, load_gains, locate, sha256_of

SHIPPED = sorted(c.name for c in cards().values() if c.kind == "gains")
NETWORK = "squeeze_asd.distilled"


class Squares(FusionBackbone):
    """Channel 0 sees the lower left of a face, channel 1 its upper right, ten times as strong; only 0 is read."""

    streams = {"audio": 2, "face": 2}  # noqa: RUF012
    halo_frames = 0
    map_stride_px, map_offset_px = 8.0, 0.0

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.card = Card(NETWORK, "network", "x", "0" * 64, 1, "MIT", "made up", model="squares", geometry="box")

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*audio.shape[:1], audio.shape[1] // 4, 2)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        cells = nn.functional.avg_pool2d(face.float() / 255, 8)
        lower, upper = torch.zeros(14, 14), torch.zeros(14, 14)
        lower[8:12, 2:6], upper[1:5, 8:12] = 1, 10
        return torch.stack((cells * lower, cells * upper), 2)

    def classify(self, audio: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        margin = 6 * face[..., 0] - 2 + 0 * audio[..., 0]
        return torch.stack((torch.zeros_like(margin), margin), -1)


def _segment(name: str, model: nn.Module) -> Segment:
    del model
    rng = np.random.default_rng(len(name))
    crops = rng.integers(0, 40, (6, 112, 112)).astype(np.uint8)
    crops[:, 64:96, 16:48] = 250
    crops[:, 8:40, 64:96] = 250
    return Segment(f"{name}#0@0", name, "real", {"face": crops}, np.zeros((24, 13), np.float32))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    model = Squares().eval()
    monkeypatch.setattr(fit_gains, "load", lambda name: model)
    monkeypatch.setattr(fit_gains, "tracks_of", lambda split, args: [[f"{split}{i}"] for i in range(3)])
    monkeypatch.setattr(
        fit_gains, "pick_segments", lambda model, tracks, *rest, per_clip: [_segment(t, model) for t in tracks]
    )
    return ["--model", NETWORK, "--out", str(tmp_path / "out"), "--photos", "7", "--quiet", "--threads", "1"]


def test_the_channel_that_is_read_gets_the_gain(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit_gains.main(command) == 0
    path = tmp_path / "out" / f"gains.{NETWORK}.safetensors"
    assert "face_correlation_with_occlusion_dev" in capsys.readouterr().out
    text = path.with_suffix(".toml").read_text()
    values = tomllib.loads(text)
    values["limits"] = tuple(values["limits"])
    written = Card(**values)
    assert (written.base, written.sha256, written.url) == (NETWORK, sha256_of(path), None)
    assert written.results["face_correlation_with_occlusion_dev"] > 0.6
    assert written.results["face_without_gains_dev"] < 0.3, "the strong channel that is not read leads astray"
    assert str(tmp_path) not in text, "no path of this machine goes into a card"
    assert written.results["command"].endswith(f"--model {NETWORK} --photos 7")
    model = Squares()
    load_gains(model, written, path)
    assert model.gains["face"][0] == 1
    assert model.gains["face"][1] < 0.01
    with pytest.raises(WeightsError, match="does not fit LRASD"):
        load_gains(create_model("lr_asd"), written, path)


def test_what_is_there_stays_and_bad_options_are_named(
    command: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / f"gains.{NETWORK}.toml").write_text("mine")
    assert fit_gains.main(command) == 2
    assert "--overwrite" in caplog.text
    assert (out / f"gains.{NETWORK}.toml").read_text() == "mine"
    assert fit_gains.main([*command, "--overwrite", "--photos", "-1"]) == 2
    assert "--photos" in caplog.text


def test_a_folder_that_cannot_be_made_is_one_line_before_anything_is_cut(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fit_gains, "tracks_of", lambda split, args: pytest.fail("too late"))
    (tmp_path / "file").write_text("")
    assert fit_gains.main([*command, "--out", str(tmp_path / "file" / "out")]) == 2
    assert "--out" in caplog.text


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_gains_have_the_hash_of_their_card_and_fit_their_network(name: str) -> None:
    gains = cards()[name]
    assert gains_for(gains.base) == name
    assert sha256_of(locate(name)) == gains.sha256
    model = create_model(gains.model)
    load_gains(model, gains)
    visual = [stream for stream in model.streams if stream != "audio"]
    assert list(model.gains) == visual
    for stream in visual:
        values = model.gains[stream]
        assert values.min() >= 0
        assert values.max() == 1
        better = f"{stream}_correlation_with_occlusion_dev", f"{stream}_without_gains_dev"
        assert gains.results[better[0]] > gains.results[better[1]]


def test_gains_come_with_the_network_and_can_be_left_out() -> None:
    assert gains_for(NETWORK) is not None
    assert set(load(NETWORK).gains) == {"face", "body"}
    assert load(NETWORK, gates=False).gains == {}
