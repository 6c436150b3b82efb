"""Which network a name stands for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from asd_explain.errors import OptionError, WeightsError
from asd_explain.models.registry import create_model, list_models
from asd_explain.weights import choice
from asd_explain.weights.cards import cards
from asd_explain.weights.store import is_available


def test_every_backbone_has_weights_to_stand_for_it() -> None:
    for model in list_models():
        assert cards()[choice.choose(model)].model == model


def test_auto_takes_the_first_that_is_at_hand_and_never_one_to_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    at_hand = set(choice.AUTO)
    monkeypatch.setattr(choice, "is_available", lambda name: name in at_hand)
    monkeypatch.setattr(choice, "locate", lambda name: Path(name))
    assert choice.choose("auto") == choice.AUTO[0]
    at_hand.discard(choice.AUTO[0])
    assert choice.choose("auto") == choice.AUTO[1]


def test_auto_passes_over_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path))
    monkeypatch.setenv("ASD_EXPLAIN_SHARED", str(tmp_path))
    (tmp_path / cards()["lr_asd.pretrain_AVA"].file).write_bytes(b"half of it")
    assert choice.choose("auto") == choice.AUTO[-1]
    assert "is not lr_asd.pretrain_AVA" in caplog.text


def test_the_last_resort_is_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path))
    monkeypatch.setenv("ASD_EXPLAIN_SHARED", str(tmp_path))
    assert is_available(choice.AUTO[-1])
    assert choice.choose("auto") == choice.AUTO[-1]


@pytest.mark.parametrize("model", list_models())
def test_a_file_says_by_its_keys_which_network_it_is_of(tmp_path: Path, model: str) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(create_model(model).state_dict(), path)
    assert choice.choose("auto", path) == choice.PREFERRED[model]


def test_a_file_to_be_given_is_known_by_its_name_where_a_backbone_has_several(tmp_path: Path) -> None:
    assert choice.choose("talknet", tmp_path / "pretrain_AVA.model") == "talknet.pretrain_AVA"
    assert choice.choose("talknet", tmp_path / "pretrain_TalkSet.model") == "talknet.pretrain_TalkSet"
    assert choice.choose("talknet", tmp_path / "mine.model") == choice.PREFERRED["talknet"]
    # Others have hashes, and the same names.
    assert choice.choose("lr_asd", tmp_path / "pretrain_AVA.model") == choice.PREFERRED["lr_asd"]


def test_files_and_names_that_say_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"odd\.safetensors: its keys are those of no network"):
        choice.choose("auto", path)
    with pytest.raises(WeightsError, match="no such weights file"):
        choice.choose("auto", tmp_path / "gone.pt")
    with pytest.raises(OptionError, match="choose one of auto, asdnb"):
        choice.choose("no_such_net")
