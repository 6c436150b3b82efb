"""Finding, checking and refusing weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from asd_explain.errors import OptionError, WeightsError
from asd_explain.media.features import AUDIO_FEATURES
from asd_explain.models.registry import create_model, list_models
from asd_explain.tracks.crops import GEOMETRIES
from asd_explain.weights import store
from asd_explain.weights.cards import card, cards


def test_every_card_is_complete() -> None:
    for entry in cards().values():
        if not entry.by_path_only:
            assert len(entry.sha256) == 64
            assert entry.size_bytes > 0
        assert entry.licence
        if entry.kind == "network":
            assert entry.model in list_models()
            assert entry.geometry in GEOMETRIES
            assert entry.audio in AUDIO_FEATURES
        if entry.url is not None:
            assert entry.url.startswith("https://")
        if entry.kind == "gates":
            assert cards()[entry.base].kind == "network"


def test_embedded_gates_load_and_fit_their_networks() -> None:
    for entry in cards().values():
        if entry.kind == "gates":
            model = create_model(entry.model)
            store.load_gates(model, entry)
            gates = model.fusion_gate.excitation(torch.zeros(1, 3, 256))
            assert torch.isfinite(gates).all()


def test_without_network_cache_and_shared_the_error_says_where_to_put_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ASD_EXPLAIN_SHARED", str(tmp_path / "nothing"))
    with pytest.raises(WeightsError) as caught:
        store.locate("lr_asd.pretrain_AVA")
    message = str(caught.value)
    assert card("lr_asd.pretrain_AVA").file in message
    assert "https://" in message
    assert str(tmp_path / "cache") in message
    assert "\n" not in message


def test_a_fetch_that_fails_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setenv("ASD_EXPLAIN_OFFLINE", "0")
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path))
    monkeypatch.setenv("ASD_EXPLAIN_SHARED", str(tmp_path / "nothing"))
    monkeypatch.setattr(store.urllib.request, "urlopen", refuse)
    with pytest.raises(WeightsError, match="no route"):
        store.locate("yunet")
    assert list(tmp_path.iterdir()) == []


def test_what_is_fetched_is_checked_and_not_kept_when_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setenv("ASD_EXPLAIN_OFFLINE", "0")
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path))
    monkeypatch.setenv("ASD_EXPLAIN_SHARED", str(tmp_path / "nothing"))
    monkeypatch.setattr(store.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b"an error page"))
    with pytest.raises(WeightsError, match="hash differs"):
        store.locate("yunet")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_hash_in_the_cache_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path))
    (tmp_path / card("yunet").file).write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"sha256 .* expected"):
        store.locate("yunet")


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path: Path, random_weights: Path) -> None:
    broken = tmp_path / "broken.model"
    broken.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(WeightsError, match=r"broken\.model"):
        store.load("lr_asd.pretrain_AVA", weights=broken)
    with pytest.raises(WeightsError, match=r"absent\.model"):
        store.load("lr_asd.pretrain_AVA", weights=tmp_path / "absent.model")
    with pytest.raises(WeightsError, match=r"random\.safetensors does not fit LightASD: missing model\.GRU"):
        store.load("light_asd.pretrain_AVA_CVPR", weights=random_weights)


def test_missing_reshaped_and_infinite_tensors_are_named(tmp_path: Path, random_weights: Path) -> None:
    state = load_file(random_weights)
    for change, words in (
        (lambda s: s.pop("lossAV.FC.bias"), "missing lossAV.FC.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "unknown extra"),
        (lambda s: s.update({"lossAV.FC.bias": torch.zeros(3)}), "of another shape lossAV.FC.bias"),
        (lambda s: s["lossAV.FC.bias"].fill_(float("nan")), "not finite lossAV.FC.bias"),
    ):
        changed = {key: value.clone() for key, value in state.items()}
        change(changed)
        path = tmp_path / "changed.safetensors"
        save_file(changed, path)
        with pytest.raises(WeightsError, match=words):
            store.load("lr_asd.pretrain_AVA", weights=path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "trap.model"
    torch.save({"weight": Trap()}, path)
    with pytest.raises(WeightsError, match=r"trap\.model"):
        store.load("lr_asd.pretrain_AVA", weights=path)
    assert not (tmp_path / "sprung").exists()


def test_own_weights_load_without_gates_and_with_the_cards_geometry(random_weights: Path) -> None:
    model = store.load("lr_asd.pretrain_AVA", weights=random_weights)
    assert model.fusion_gate is None
    assert model.card.geometry == card("lr_asd.pretrain_AVA").geometry


@pytest.mark.shared
def test_a_published_file_is_known_by_its_hash(shared_dir: Path) -> None:
    path = shared_dir / "weights" / "lr_asd" / "finetuning_TalkSet.model"
    model = store.load("lr_asd.pretrain_AVA", weights=path)
    assert model.card.name == "lr_asd.finetuning_TalkSet"


def test_unknown_card_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"lr_asd\.pretrain_AVA"):
        card("nonsense")
