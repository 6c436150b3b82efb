"""The comparison of a network with and without its gates: what is run, kept, refused and said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from asd_explain.errors import WeightsError
from asd_explain.models.registry import create_model
from asd_explain.tools import ablate_gates


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Seeds and variants that were trained; the block is worth 2 points on seed 0 and 4 on seed 1."""
    done: list[tuple[int, bool]] = []

    def one_run(config: object, seed: int, gated: bool, *rest: object) -> dict[str, dict[str, float]]:
        done.append((seed, gated))
        return {split: {"own": 0.9 + gated * 0.02 * (seed + 1)} for split in ("dev", "test")}

    monkeypatch.setattr(ablate_gates, "one_run", one_run)
    monkeypatch.setattr(ablate_gates, "tracks_of", lambda config, split, args: [])
    monkeypatch.setattr(ablate_gates, "keep_large_blocks", lambda: None)
    return done


def test_each_run_once_and_differences_over_seeds(
    tmp_path: Path, runs: list[tuple[int, bool]], capsys: pytest.CaptureFixture
) -> None:
    command = ["--out", str(tmp_path), "--seeds", "0", "1"]
    assert ablate_gates.main(command) == 0
    assert runs == [(0, True), (0, False), (1, True), (1, False)]
    # Differences 2 and 4: mean 3, standard deviation sqrt(2), standard error 1.
    assert "| test | own | 93.0 (92.0 to 94.0) | 90.0 (90.0 to 90.0) | +3.0 (1.0) |" in capsys.readouterr().out
    assert ablate_gates.main(command) == 0
    assert len(runs) == 4


def test_figures_of_another_configuration_are_not_taken_for_these(
    tmp_path: Path, runs: list[tuple[int, bool]], caplog: pytest.LogCaptureFixture
) -> None:
    command = ["--out", str(tmp_path), "--seeds", "0"]
    assert ablate_gates.main(command) == 0
    assert ablate_gates.main([*command, "--set", "data.per_speaker=3"]) == 2
    assert "another configuration; give another --out" in caplog.text
    assert len(runs) == 2


def test_encoders_come_from_a_file_and_the_rest_stays(tmp_path: Path) -> None:
    taught, fresh = create_model("squeeze_asd"), create_model("squeeze_asd", gated=False)
    save_file(taught.state_dict(), tmp_path / "taught.safetensors")
    before = {k: v.clone() for k, v in fresh.state_dict().items()}
    ablate_gates.load_encoders(fresh, tmp_path / "taught.safetensors")
    for key, value in fresh.state_dict().items():
        source = taught.state_dict() if "_encoder." in key else before
        torch.testing.assert_close(value, source[key])
    save_file({"head.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="does not hold the encoders"):
        ablate_gates.load_encoders(fresh, tmp_path / "other.safetensors")


def test_both_variants_begin_alike() -> None:
    """The block is made last, so from one seed everything else is the same."""
    states = []
    for gated in (True, False):
        torch.manual_seed(3)
        states.append(create_model("squeeze_asd", gated=gated).state_dict())
    for key, value in states[1].items():
        torch.testing.assert_close(value, states[0][key])
    assert {k for k in states[0] if k not in states[1]} == {k for k in states[0] if k.startswith("fusion_gate.")}
