"""The data path, the drawing and the results with a network that sees bodies as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from asd_explain import pipeline
from asd_explain.errors import OptionError
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.se import SqueezeExcite
from asd_explain.weights.cards import card


class _Tiny(FusionBackbone):
    """Three streams, two channels each: brightness and darkness of 8-pixel cells; sound by its mean."""

    streams = {"audio": 2, "face": 2, "body": 2}  # noqa: RUF012
    halo_frames = 0
    map_stride_px, map_offset_px = 8.0, 3.5

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 2)
        self.seen: dict[str, list[torch.Tensor]] = {"face": [], "body": []}

    def _maps(self, crops: torch.Tensor) -> torch.Tensor:
        bright = F.avg_pool2d(crops.float() / 255, 8)
        return torch.stack((bright, 1 - bright), 2)

    def encode(self, face: torch.Tensor, audio: torch.Tensor, body: torch.Tensor | None = None) -> tuple[dict, dict]:
        self.seen["face"].append(face)
        self.seen["body"].append(body)
        maps = {"face": self._maps(face), "body": self._maps(body)}
        sound = audio.reshape(*face.shape[:2], -1).mean(-1, keepdim=True).expand(-1, -1, 2)
        return {"audio": sound, **{s: m.amax((-2, -1)) for s, m in maps.items()}}, maps

    def classify(self, *streams: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat(streams, -1))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> _Tiny:
    torch.manual_seed(0)
    model = _Tiny().eval()
    model.attach_gates(SqueezeExcite(6, reduction=2))
    model.card, model.weights_sha256 = card("lr_asd.pretrain_AVA"), "0" * 64
    monkeypatch.setattr(pipeline, "load", lambda *_, **__: model)
    return model


def test_bodies_are_cut_scored_drawn_and_written(
    tmp_path: Path, face_clip: Path, face_boxes: Path, network: _Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = tmp_path / "bodies.csv"
    bodies.write_text("\n".join(f"face,{i / 25:.2f},0.2,0.1,0.9,1.0,NOT_SPEAKING,face_0" for i in range(30)))
    drawn = []
    of = pipeline.Views.of
    monkeypatch.setattr(pipeline.Views, "of", lambda self, frame: drawn.append(of(self, frame)) or drawn[-1])
    result = pipeline.explain_video(
        face_clip, tmp_path / "o.mp4", boxes=face_boxes, body_boxes=bodies, layout="panel", device="cpu"
    )
    item = result.tracks[0]
    np.testing.assert_allclose(item.track.bodies[0], [0.2 * 256, 0.1 * 200, 0.9 * 256, 200], atol=0.1)
    assert item.scores.heat["body"].shape == (30, 14, 14)
    assert item.scores.streams == ["audio", "face", "body"]
    assert not torch.equal(network.seen["face"][0], network.seen["body"][0])
    view = drawn[0][0]
    np.testing.assert_allclose(view.body, item.track.bodies[0])
    np.testing.assert_allclose(view.windows["body"], item.track.bodies[0])
    assert view.heat["body"].shape == (112, 112)
    assert view.crops["body"].shape == (112, 112)
    with np.load(tmp_path / "o.heat.npz") as stored:
        assert stored["1.heat.body"].shape == (30, 14, 14)
        assert stored["1.bodies"].shape == (30, 4)
        assert stored["1.gates.body"].shape == (30, 2)


def test_bodies_are_derived_from_faces_where_none_are_given(face_clip: Path, face_boxes: Path, network: _Tiny) -> None:
    item = pipeline.explain_video(face_clip, boxes=face_boxes, device="cpu").tracks[0]
    face, body = item.track.boxes[0], item.track.bodies[0]
    assert body[0] < face[0]
    assert body[2] > face[2]
    assert body[3] > face[3]
    assert body[0] >= 0
    assert body[1] >= 0
    assert body[2] <= 256
    assert body[3] <= 200


def test_a_stream_that_is_not_wanted_is_not_drawn(
    tmp_path: Path, face_clip: Path, face_boxes: Path, network: _Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    of = pipeline.Views.of
    monkeypatch.setattr(pipeline.Views, "of", lambda self, frame: drawn.append(of(self, frame)) or drawn[-1])
    pipeline.explain_video(face_clip, tmp_path / "o.mp4", boxes=face_boxes, streams=("body",), device="cpu")
    assert set(drawn[0][0].heat) == {"body"}


def test_asking_a_face_network_for_bodies_alone_is_refused(
    face_clip: Path, face_boxes: Path, random_weights: Path
) -> None:
    with pytest.raises(OptionError, match="it sees face"):
        pipeline.explain_video(
            face_clip, model="lr_asd", weights=random_weights, boxes=face_boxes, streams=("body",), device="cpu"
        )
