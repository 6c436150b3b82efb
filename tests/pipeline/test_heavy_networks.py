"""A clip through TalkNet, BIAS and ASDnB, from checkpoints as their publishers write them, and through LoCoNet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rule_support import rule_state
from safetensors.torch import save_file

from asd_explain import pipeline
from asd_explain.models.registry import create_model
from asd_explain.weights.first_use import recorded


@pytest.mark.parametrize("name", ["asdnb", "bias", "talknet"])
def test_a_clip_is_explained(
    tmp_path: Path, face_clip: Path, face_boxes: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path / "cache"))
    with torch.device("meta"):
        model = create_model(name)
    path = tmp_path / "published.model"
    torch.save({f"module.{key}": value for key, value in rule_state(model).items()}, path)
    result = pipeline.explain_video(
        face_clip, tmp_path / "o.mp4", model=name, weights=path, boxes=face_boxes, device="cpu", end_s=0.3
    )
    scores, weights = result.tracks[0].scores, result.manifest["weights"]
    assert recorded(tmp_path / "cache", weights["name"]) == weights["sha256"]
    assert weights["audio"] == "mfcc"
    assert weights["geometry"] == ("demo" if name == "talknet" else "box")
    assert scores.streams == list(model.streams)
    assert np.isfinite(scores.logits).all()
    side = 14 if name == "asdnb" else 4
    assert set(scores.heat) == set(model.streams) - {"audio"}
    assert all(values.shape == (len(scores.logits), side, side) for values in scores.heat.values())
    # BIAS alone was published with blocks at its maps.
    assert ("no fitted gates: plain activations shown" in result.notes) == (name != "bias")
    assert (tmp_path / "o.mp4").is_file()


def test_loconet_scores_the_faces_of_a_picture_together(
    tmp_path: Path, face_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    path = tmp_path / "own.safetensors"
    save_file(create_model("loconet").state_dict(), path)
    rows = {
        who: [f"face,{i / 25:.2f},{x},0.12,{x + 0.3:.2f},0.72,NOT_SPEAKING,{who}" for i in range(10)]
        for who, x in (("a", 0.36), ("b", 0.1))
    }
    logits = {}
    for name, faces in (("both", ("a", "b")), ("alone", ("a",))):
        boxes = tmp_path / f"{name}.csv"
        boxes.write_text("\n".join(row for who in faces for row in rows[who]) + "\n")
        result = pipeline.explain_video(face_clip, model="loconet", weights=path, boxes=boxes, device="cpu", end_s=0.36)
        logits[name] = {track.entity_id: track.scores.logits for track in result.tracks}
    assert result.manifest["weights"]["audio"] == "log_mel"
    assert set(logits["both"]) == {"a", "b"}
    assert logits["both"]["a"].shape == logits["alone"]["a"].shape
    assert np.abs(logits["both"]["a"] - logits["alone"]["a"]).max() > 1e-4
