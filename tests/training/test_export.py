"""Weights files: what float16 holds comes back, what it cannot hold is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from asd_explain.errors import OutputError, WeightsError
from asd_explain.models.registry import create_model
from asd_explain.training.export import export_weights
from asd_explain.weights.store import load_state, read_state


def test_a_network_comes_back_rounded_to_float16(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("squeeze_asd")
    path = tmp_path / "new" / "weights.safetensors"
    export_weights(model, path)
    assert {v.dtype for v in load_file(path).values()} == {torch.float16, torch.int64}
    assert path.stat().st_size < 0.6 * sum(v.numel() * v.element_size() for v in model.state_dict().values())
    back = create_model("squeeze_asd")
    load_state(back, read_state(path), str(path))
    for (key, was), now in zip(model.state_dict().items(), back.state_dict().values(), strict=True):
        assert now.dtype == was.dtype
        expected = was.half().float() if was.dtype.is_floating_point else was
        assert torch.equal(now, expected), key
    face = torch.randint(0, 256, (1, 4, 112, 112), dtype=torch.uint8)
    audio = 10 * torch.randn(1, 16, 13)
    with torch.inference_mode():
        torch.testing.assert_close(back(face, audio).logits, model(face, audio).logits, atol=5e-3, rtol=5e-3)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 7e4])
def test_values_that_do_not_fit_are_refused_and_what_is_there_stays(
    tiny: torch.nn.Module, tmp_path: Path, value: float
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"before")
    with torch.no_grad():
        tiny.head.bias[1] = value
    with pytest.raises(WeightsError, match=r"head\.bias has values that float16 cannot hold"):
        export_weights(tiny, path)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_write_that_fails_leaves_nothing_behind(
    tiny: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(state: dict, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("asd_explain.training.export.save_file", full_disk)
    with pytest.raises(OutputError, match="no space"):
        export_weights(tiny, tmp_path / "weights.safetensors")
    assert list(tmp_path.iterdir()) == []
