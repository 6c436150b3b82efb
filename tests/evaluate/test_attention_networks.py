"""Networks from a user's file: named by their own card, with no gates or gains that were fitted to other weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from asd_explain.errors import OptionError, WeightsError
from asd_explain.evaluate.attention import METHODS, Settings
from asd_explain.evaluate.attention_networks import OF_GATES, load_networks, settings_for, weights_record
from asd_explain.evaluate.attention_store import Store, fingerprint
from asd_explain.models.registry import create_model
from asd_explain.models.se import SqueezeExcite
from asd_explain.tools import evaluate_attention as tool
from asd_explain.weights.card_writing import network_card_text
from asd_explain.weights.cards import card
from asd_explain.weights.store import gains_for, gates_for, sha256_of

CPU = torch.device("cpu")
PACKAGED = "lr_asd.pretrain_AVA"


def trained(folder: Path, name: str, gated: bool = False) -> Path:
    """An untrained LR-ASD under a card, as a recipe leaves one."""
    torch.manual_seed(0)
    model = create_model("lr_asd")
    tables = {}
    if gated:
        model.attach_gates(SqueezeExcite(sum(model.fusion_streams.values()), reduction=8))
        tables = {"gate": {"reduction": 8, "scope": "frame"}}
    path = folder / "best.safetensors"
    save_file(model.state_dict(), path)
    text = network_card_text(
        *(name, "lr_asd", path), licence="mine", source="here", training_data="none", geometry="demo", limits=(),
        tables=tables,
    )  # fmt: skip
    path.with_suffix(".toml").write_text(text, encoding="utf-8")
    return path


def test_a_trained_file_is_named_by_its_card_without_model(tmp_path: Path) -> None:
    path = trained(tmp_path, "lr_asd.mine.best", gated=True)
    for names in (["auto"], ["lr_asd"]):
        ((name, model),) = load_networks(names, path, CPU).items()
        assert name == "lr_asd.mine.best"
        assert weights_record(model) == {
            **{"card": name, "sha256": sha256_of(path), "geometry": "demo"},
            **{"gates": {"name": "trained with the network"}, "gains": None},
        }
    assert settings_for(model, Settings()) == Settings()
    with pytest.raises(WeightsError, match="are weights of lr_asd, not of light_asd"):
        load_networks(["light_asd"], path, CPU)


def test_a_card_that_borrows_a_name_gets_nothing_fitted_to_that_name_s_weights(tmp_path: Path) -> None:
    assert gates_for(PACKAGED)
    assert gains_for(PACKAGED)
    ((name, model),) = load_networks(["auto"], trained(tmp_path, PACKAGED), CPU).items()
    assert name == PACKAGED
    assert model.fusion_gate is None
    assert model.gains == {}
    record = weights_record(model)
    assert (record["gates"], record["gains"]) == (None, None)
    assert record["sha256"] != card(PACKAGED).sha256


def test_a_file_without_a_card_is_not_taken_for_the_packages_network(tmp_path: Path) -> None:
    path = trained(tmp_path, "x")
    path.with_suffix(".toml").unlink()
    ((name, model),) = load_networks(["auto"], path, CPU).items()
    assert name == f"lr_asd.best.{sha256_of(path)[:8]}"
    assert (model.card.geometry, model.card.sha256) == (card(PACKAGED).geometry, sha256_of(path))
    assert PACKAGED in model.card.limits[0]
    assert model.card.results == {}
    assert model.fitted == {}


def test_packaged_networks_say_what_was_fitted() -> None:
    ((name, model),) = load_networks(["squeeze_asd"], None, CPU).items()
    record = weights_record(model)
    assert record["card"] == name == "squeeze_asd.distilled"
    assert record["gates"] == {"name": "trained with the network"}
    assert record["gains"] == {"name": gains_for(name), "sha256": card(gains_for(name)).sha256}


def test_fingerprints_follow_the_file(tmp_path: Path) -> None:
    path = trained(tmp_path, "lr_asd.mine.best")
    (one,) = load_networks(["auto"], path, CPU).values()
    state = create_model("lr_asd").state_dict()
    other = tmp_path / "other.safetensors"
    save_file(state, other)
    (two,) = load_networks(["auto"], other, CPU).values()
    assert fingerprint(one) != fingerprint(two)


def test_several_models_and_one_file_are_refused_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = trained(tmp_path, "lr_asd.mine.best")
    (tmp_path / "x.mp4").touch()
    words = [str(tmp_path / "x.mp4"), "--weights", str(path), "--out", str(tmp_path / "out")]
    assert tool.main([*words, "--model", "lr_asd", "squeeze_asd"]) == 2
    (message,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert f"--weights {path}: one file is one network, and --model names 2; give one" in message
    assert "\n" not in message


def test_methods_about_gates_need_gates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (model,) = load_networks(["auto"], trained(tmp_path, "lr_asd.mine.best"), CPU).values()
    own = settings_for(model, Settings())
    assert set(METHODS) - set(own.explainers) == set(OF_GATES)
    assert not own.variants
    assert "lr_asd.mine.best has no gates: se, se-plain, se-paper, se-shuffled, weights-shuffled are left out" in (
        caplog.text
    )
    with pytest.raises(OptionError, match="has no gates, and --explainers se need them"):
        settings_for(model, Settings(explainers=("se",)))


def test_a_card_s_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    path = Store(tmp_path / "parts", {}).path("../../elsewhere", "clip")
    assert path.parent.parent == tmp_path / "parts"
    assert Store(tmp_path / "parts", {}).path("lr_asd.pretrain_AVA", "clip").parent.name == "lr_asd.pretrain_AVA"
