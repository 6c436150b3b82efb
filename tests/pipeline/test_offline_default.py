"""With no network and nothing cached the plain command does all its work on what the package embeds."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
from tests_support import write_clip

from asd_explain.tools.explain_video import main
from asd_explain.weights.store import is_available


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache, no shared material, and every attempt to reach another machine fails the test."""

    def refuse(*args: object, **_: object) -> None:
        pytest.fail(f"something reached for the network: {args[1:2] or args}")

    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path / "empty_cache"))
    monkeypatch.setenv("ASD_EXPLAIN_SHARED", str(tmp_path / "no_shared"))
    monkeypatch.delenv("ASD_EXPLAIN_OFFLINE")  # fetching is not forbidden: it must not be needed
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("cut_off")
def test_a_face_is_found_scored_and_explained_with_its_body(tmp_path: Path, face_clip: Path) -> None:
    assert not is_available("lr_asd.pretrain_AVA")
    assert main([str(face_clip), "-o", str(tmp_path / "o.mp4"), "--quiet"]) == 0
    told = json.loads((tmp_path / "o.manifest.json").read_text())
    assert told["weights"]["name"] == "squeeze_asd.distilled"
    assert told["weights"]["gates"] == {"name": "trained with the network"}
    assert told["weights"]["gains"]["name"] == "gains.squeeze_asd.distilled"
    assert told["detector"] == "yunet-2023mar"
    assert told["tracks"] == 1
    assert not (tmp_path / "empty_cache").exists()
    with np.load(tmp_path / "o.heat.npz") as stored:
        for stream in ("face", "body"):
            heat = stored[f"1.heat.{stream}"]
            assert heat.shape[1:] == (14, 14)
            assert heat.max() > 0


@pytest.mark.usefixtures("cut_off")
def test_a_clip_without_sound_is_judged_by_sight(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = write_clip(tmp_path / "silent.mp4", sound=False)
    assert main([str(clip), "-o", str(tmp_path / "o.mp4"), "--quiet"]) == 0
    assert "no audio track" in caplog.text
    with np.load(tmp_path / "o.heat.npz") as stored:
        streams = list(stored["1.streams"])
        assert (stored["1.shares"][:, streams.index("audio")] == 0).all()
