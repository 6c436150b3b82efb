"""A clip through TalkNet, BIAS, ASDnB and LoCoNet, from a checkpoint as their publishers write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rule_support import rule_state

from asd_explain import pipeline
from asd_explain.models.registry import create_model
from asd_explain.weights.first_use import recorded


@pytest.mark.parametrize("name", ["asdnb", "bias", "loconet", "talknet"])
def test_a_clip_is_explained(
    tmp_path: Path, face_clip: Path, face_boxes: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path / "cache"))
    with torch.device("meta"):
        model = create_model(name)
    path = tmp_path / "published.model"
    torch.save({f"module.{key}": value for key, value in rule_state(model).items()}, path)
    result = pipeline.explain_video(
        face_clip, tmp_path / "o.mp4", model=name, weights=path, boxes=face_boxes, device="cpu", end_s=0.5
    )
    scores, weights = result.tracks[0].scores, result.manifest["weights"]
    assert recorded(tmp_path / "cache", weights["name"]) == weights["sha256"]
    assert weights["audio"] == ("log_mel" if name == "loconet" else "mfcc")
    assert weights["geometry"] == ("demo" if name == "talknet" else "box")
    assert scores.streams == list(model.streams)
    assert np.isfinite(scores.logits).all()
    side = 14 if name == "asdnb" else 4
    assert set(scores.heat) == set(model.streams) - {"audio"}
    assert all(values.shape == (len(scores.logits), side, side) for values in scores.heat.values())
    # BIAS alone was published with blocks at its maps.
    assert ("no fitted gates: plain activations shown" in result.notes) == (name != "bias")
    assert ("each face scored as if alone" in result.notes) == (name == "loconet")
    assert (tmp_path / "o.mp4").is_file()
