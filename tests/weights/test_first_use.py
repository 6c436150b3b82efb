"""Published files whose hash we do not know: recorded at first use, checked from then on."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from asd_explain.errors import WeightsError
from asd_explain.models.registry import create_model
from asd_explain.weights import first_use, store
from asd_explain.weights.cards import card

NAME = "asdnb.published"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _file(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    torch.save(create_model("asdnb").state_dict(), path)
    return path


def test_the_first_file_is_recorded_and_others_are_refused(tmp_path: Path, cache: Path) -> None:
    first, other = _file(tmp_path / "first.model", 0), _file(tmp_path / "other.model", 1)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, other)]
    model = store.load(NAME, weights=first)
    assert model.card.name == NAME
    assert model.weights_sha256 == digests[0]
    assert first_use.recorded(cache, NAME) == digests[0]
    store.load(NAME, weights=first)
    with pytest.raises(WeightsError) as caught:
        store.load(NAME, weights=other)
    message = str(caught.value)
    assert "\n" not in message
    assert all(digest in message for digest in digests)
    assert f"delete {first_use.record_of(cache, NAME)}" in message
    # Doing what the message says makes it work.
    first_use.record_of(cache, NAME).unlink()
    store.load(NAME, weights=other)
    assert first_use.recorded(cache, NAME) == digests[1]
    assert [path.name for path in (cache / "first_use").iterdir()] == [f"{NAME}.sha256"]


def test_a_file_that_does_not_fit_is_not_recorded(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "odd.model"
    torch.save({"lossAV.FC.bias": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match=r"odd\.model does not fit ASDnB: missing lossA"):
        store.load(NAME, weights=path)
    assert first_use.recorded(cache, NAME) is None


def test_own_weights_are_not_taken_for_the_published_file(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "own.safetensors"
    save_file(create_model("asdnb").state_dict(), path)
    store.load(NAME, weights=path)
    assert first_use.recorded(cache, NAME) is None
    assert "is not a file we know" in caplog.text


def test_without_a_path_the_error_says_to_give_one() -> None:
    assert not store.is_available(NAME)
    with pytest.raises(WeightsError, match=r"Tiago-Roxo/ASDnB.*--weights PATH"):
        store.load(NAME)


def test_a_record_that_is_no_hash_is_named(tmp_path: Path, cache: Path) -> None:
    first_use.record(cache, NAME, tmp_path / "x", "ab" * 32)
    assert first_use.recorded(cache, NAME) == "ab" * 32
    for text in ("abc", "g" * 64, "\u00e4" * 64):
        first_use.record_of(cache, NAME).write_text(text, encoding="utf-8")
        with pytest.raises(WeightsError, match="delete it"):
            first_use.recorded(cache, NAME)


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path / "taken"))
    with caplog.at_level(logging.WARNING):
        model = store.load(NAME, weights=_file(tmp_path / "a.model", 0))
    assert model.card.name == NAME
    assert "cannot be recorded" in caplog.text


@pytest.mark.parametrize("prefix", ["module.", "model.module.", "model.", "module.model.module."])
def test_what_training_wrappers_put_before_the_keys_is_taken_off(tmp_path: Path, prefix: str) -> None:
    plain = torch.load(_file(tmp_path / "plain.pth", 3))
    torch.save({prefix + key: value for key, value in plain.items()}, tmp_path / "wrapped.pth")
    found = store.read_state(tmp_path / "wrapped.pth")
    assert set(found) == set(plain)
    assert all(torch.equal(found[key], value) for key, value in plain.items())


def test_a_training_checkpoint_gives_its_state_and_a_strange_one_nothing(tmp_path: Path) -> None:
    state = create_model("asdnb").state_dict()
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 3, "model_state_dict": state, "optimizer": {"lr": 0.1}}, path)
    assert set(store.read_state(path)) == set(state)
    for odd in ({"epoch": 3}, {"model": state, "state_dict": state}, [1], {"model": {"a": 1}}):
        torch.save(odd, path)
        with pytest.raises(WeightsError, match="no plain state dict"):
            store.read_state(path)


def test_a_card_that_names_another_sound_than_the_network_hears_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = dataclasses.replace(card(NAME), audio="log_mel")
    monkeypatch.setattr(store, "card", lambda name: wrong)
    with pytest.raises(WeightsError, match="says log_mel, but asdnb hears mfcc"):
        store.load(NAME, weights=_file(tmp_path / "a.model", 0))
