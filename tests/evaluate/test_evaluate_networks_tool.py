"""The command, on tiny networks and made-up clips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from asd_explain.datasets.face_clips import FaceClip, FaceClipCache
from asd_explain.errors import OptionError, WeightsError
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.registry import create_model
from asd_explain.tools import evaluate_networks


@pytest.fixture
def command(
    tiny: FusionBackbone,
    tiny_body: FusionBackbone,
    corpus: dict[str, FaceClip],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> list[str]:
    """Arguments of a run, with the corpus and all networks replaced."""
    networks = {"squeeze_asd": tiny_body, "lr_asd": tiny}
    monkeypatch.setattr(evaluate_networks, "load_network", lambda name, weights=None: networks[name])
    monkeypatch.setattr(evaluate_networks, "load", lambda name, gates=True: tiny)
    monkeypatch.setattr(evaluate_networks, "list_clips", lambda shared, per_speaker: [c.entry for c in corpus.values()])
    monkeypatch.setattr(FaceClipCache, "get", lambda self, entry: [corpus[entry.name]])
    return [
        *("--model", "squeeze_asd", "--compare", "lr_asd", "--shared", str(tmp_path), "--cache", str(tmp_path / "c")),
        *("--bootstrap", "20", "--quiet", "--no-photos", "--out", str(tmp_path / "asd.json")),
    ]


def test_reports_all_networks_by_one_protocol(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate_networks.main(command) == 0
    text = capsys.readouterr().out
    assert "| section | tiny_body | tiny |" in text
    assert "| audio+body, face hidden |" in text
    report = json.loads((tmp_path / "asd.json").read_text())
    assert (tmp_path / "asd.png").stat().st_size > 5000
    assert report["clips"] == {"dev": 5, "test": 5}
    assert list(report["left_out"]) == ["tracks/test_3#1"]
    assert report["networks"]["tiny"]["sections"]["own_vs_frozen"]["ap"] > 0.98
    assert report["networks"]["tiny"]["sections"]["ensemble"]["clips"] == 5
    assert str(tmp_path) not in json.dumps(report), "no path of this machine"
    assert evaluate_networks.main(command) == 2  # it is there
    assert evaluate_networks.main([*command, "--overwrite", "--plain", "--no-cache"]) == 0
    again = json.loads((tmp_path / "asd.json").read_text())
    assert again["networks"]["tiny_body"]["sections"] == report["networks"]["tiny_body"]["sections"]
    assert again["networks"]["tiny_body"]["looks"] == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "report.txt"], "ends in .json"),
        (["--bootstrap", "0"], "at least 1"),
        (["--compare", "squeeze_asd"], "twice"),
        (["--split", "fit"], "no clips of split fit"),
    ],
)
def test_names_what_is_wrong(command: list[str], words: list[str], said: str, caplog: pytest.LogCaptureFixture) -> None:
    assert evaluate_networks.main([*command, *words]) == 2
    assert said in caplog.text
    assert "\n" not in caplog.records[-1].message


@pytest.mark.parametrize("gated", [True, False])
def test_loads_a_file_of_a_registered_model(tmp_path: Path, gated: bool) -> None:
    torch.manual_seed(0)
    path = tmp_path / "best.safetensors"
    save_file(create_model("squeeze_asd", gated=gated).state_dict(), path)
    model = evaluate_networks.load_network("squeeze_asd", path)
    assert (model.fusion_gate is not None) is gated
    assert model.card.name == "squeeze_asd.best"
    assert model.card.geometry == "box"
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


def test_refuses_unknown_networks_and_files(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="unknown model 'nobody'"):
        evaluate_networks.load_network("nobody")
    with pytest.raises(WeightsError, match="no such weights file"):
        evaluate_networks.load_network("squeeze_asd", tmp_path / "absent.safetensors")
    save_file(create_model("lr_asd").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="does not fit"):
        evaluate_networks.load_network("squeeze_asd", tmp_path / "other.safetensors")


@pytest.mark.parametrize(("name", "geometry", "gated"), [("talknet", "demo", False), ("bias", "box", True)])
def test_a_file_of_a_heavy_network_is_fed_as_its_card_says(
    tmp_path: Path, name: str, geometry: str, gated: bool
) -> None:
    state = create_model(name).state_dict()
    path = tmp_path / "own.safetensors"
    save_file(state, path)
    model = evaluate_networks.load_network(name, path)
    assert model.card.geometry == geometry
    assert (model.fusion_gate is not None) is gated
    if gated:
        save_file({key: value for key, value in state.items() if not key.startswith("se.")}, path)
        assert evaluate_networks.load_network(name, path).fusion_gate is None
