"""The commands, on a tiny network and made-up tracks; and the gates that are shipped."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from asd_explain.evaluate.gate_report import CURVE, FILLS, GateReport
from asd_explain.evaluate.pooled import PooledCache, PooledTrack
from asd_explain.models.registry import create_model
from asd_explain.tools import compare_checkpoints, fit_gates
from asd_explain.weights.cards import Card, cards
from asd_explain.weights.store import load, load_gates, locate, sha256_of

GATES = sorted(c.name for c in cards().values() if c.kind == "gates")
NETWORKS = sorted(c.name for c in cards().values() if c.kind == "network" and c.url)


@pytest.fixture
def command(
    tiny: torch.nn.Module, tracks: list[PooledTrack], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> list[str]:
    """Arguments of a quick run, with the corpus and the network replaced."""
    monkeypatch.setattr(fit_gates, "load", lambda name, weights=None, gates=True: tiny)
    monkeypatch.setattr(fit_gates, "list_clips", lambda shared, per_speaker: [])
    monkeypatch.setattr(PooledCache, "collect", lambda self, entries: tracks)
    return [
        *("--model", NETWORKS[0], "--shared", str(tmp_path), "--cache", str(tmp_path / "cache")),
        *("--steps", "30", "--reduction", "4", "--seeds", "2", "--quiet", "--out", str(tmp_path / "out")),
    ]


def test_fits_reports_and_writes_a_card_that_loads(
    command: list[str], tiny: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit_gates.main([*command, "--sparsity", "0.1", "0.5"]) == 0
    text = capsys.readouterr().out
    for part in ("dev, sparsity 0.1", "dev, sparsity 0.5", "Chosen on dev", "**test: the gated network** (2 seeds)"):
        assert part in text
    assert "| random | zero |" in text
    assert "| gate | mean |" in text
    path = tmp_path / "out" / f"gates.{NETWORKS[0]}.safetensors"
    values = tomllib.loads((tmp_path / "out" / "cards" / f"gates.{NETWORKS[0]}.toml").read_text())
    values["limits"] = tuple(values["limits"])
    card = Card(**values)
    assert card.base == NETWORKS[0]
    assert card.url is None
    assert card.sha256 == sha256_of(path)
    assert len(card.results["mean_change_of_p_seeds"]) == 2
    assert str(tmp_path) not in str(values), "no path of this machine goes into a card"
    load_gates(tiny, card, path)
    x = torch.zeros(1, 3, 16)
    assert tiny.fuse({"audio": x, "face": x}).fusion.shape == (1, 3, 32)


def test_does_not_replace_what_is_there(command: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"gates.{NETWORKS[0]}.safetensors").touch()
    assert fit_gates.main(command) == 2
    assert "--overwrite" in caplog.text


def test_names_what_is_missing(
    command: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert fit_gates.main([*command, "--report"]) == 2
    assert "no gates in the package" in caplog.text
    monkeypatch.setattr(PooledCache, "collect", lambda self, entries: [])
    assert fit_gates.main(command) == 2
    assert "no faces in the split fit, dev, test" in caplog.text


def _report(drift: float, same: float, top: float) -> GateReport:
    moved = {"all": top, "speaking": top, "silent": top}
    return GateReport(
        drift={"all": drift},
        agreement={"all": same},
        over_channels=0.2,
        over_time=0.2,
        within_track=0.1,
        mean_gate=0.4,
        top={("gate", fill): moved for fill in FILLS},
        curve=dict.fromkeys(CURVE, top),
    )


def test_choice_wants_the_verdict_kept_before_a_good_ranking() -> None:
    good, bad, drifting = _report(0.01, 0.995, 0.04), _report(0.01, 0.995, 0.2), _report(0.05, 0.97, 0.01)
    assert fit_gates.choose_seed([bad, good, drifting]) == 1
    assert fit_gates.choose_sparsity({0.1: [good, bad], 0.3: [good, good], 1.0: [drifting, good]}) == 0.3
    assert fit_gates.choose_sparsity({1.0: [drifting], 2.0: [_report(0.03, 0.98, 0.5)]}) == 2.0


def test_auc_equals_counting_pairs() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 8, 40) / 8, rng.integers(0, 6, 30) / 8
    pairs = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    assert compare_checkpoints.auc(positive, negative) == pytest.approx(pairs.mean())
    assert np.isnan(compare_checkpoints.auc(positive, np.array([])))


def test_comparison_of_a_known_network(tiny: torch.nn.Module, tracks: list[PooledTrack]) -> None:
    row = compare_checkpoints.measure(tiny, tracks)
    assert set(compare_checkpoints.COLUMNS) - set(row) == {"listening", "hints"}
    expected = np.concatenate([(4 * t.audio[:, 3] + 4 * t.face[:, 1] - 1 > 0).numpy() for t in tracks])
    assert row["talking"] == pytest.approx(100 * expected.mean())
    text = compare_checkpoints.table({("tiny", "box"): row})
    assert text.splitlines()[-1].startswith("| tiny | box | ")
    assert text.splitlines()[-1].count("|") == len(compare_checkpoints.COLUMNS) + 3


def test_every_published_network_has_its_gates() -> None:
    assert sorted(card.base for card in cards().values() if card.kind == "gates" and card.base in NETWORKS) == NETWORKS


@pytest.mark.parametrize("name", GATES)
def test_shipped_gates_fit_their_network_and_keep_their_promises(name: str) -> None:
    card = cards()[name]
    assert card.name == f"gates.{card.base}"
    assert locate(name).stat().st_size == card.size_bytes < 150_000
    model = create_model(card.model)
    load_gates(model, card)
    block = model.fusion_gate
    x = block.mean + block.std * torch.randn(1, 50, block.channels, generator=torch.Generator().manual_seed(0))
    gates = block.excitation(x)
    assert gates.min() >= 0
    assert gates.max() <= 1
    assert gates.std(1).mean() > 0.01, "gates follow the frame"
    results = card.results
    assert results["mean_change_of_p"] <= 0.02
    assert results["agreement"] >= 0.99
    assert results["gate_spread_over_channels"] > 0.1
    assert results["gate_spread_over_time"] > 0.05
    moved = {
        ranking: [results[f"top10_{ranking}_others_{fill}"] for fill in FILLS]
        for ranking in ("gate", "activation", "gate_x_activation", "random")
    }
    for ranking in ("activation", "gate_x_activation", "random"):
        assert sum(moved["gate"]) < sum(moved[ranking]), f"over both fills, the gate ranks better than {ranking}"
    assert max(moved["gate"]) < 0.5 * min(moved["random"])
    assert max(results["top10_gate_others_zero_seeds"]) < 0.5 * results["top10_random_others_zero"]


@pytest.mark.shared
@pytest.mark.parametrize("name", NETWORKS)
def test_gates_leave_the_verdict_on_the_reference_clip_alone(shared_dir: Path, name: str) -> None:
    reference = np.load(shared_dir / "reference" / f"{name}.npz")
    inputs = torch.from_numpy(reference["faces"])[None], torch.from_numpy(reference["mfcc"])[None]
    with torch.inference_mode():
        gated, plain = load(name)(*inputs), load(name, gates=False)(*inputs)
    assert gated.fusion is not None
    assert float((gated.p_speaking - plain.p_speaking).abs().mean()) < 0.05
