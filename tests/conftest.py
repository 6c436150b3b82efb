"""Fixtures every area shares."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch
from safetensors.torch import save_file
from tests_support import write_clip

ROOT = Path(__file__).resolve().parents[1]

# Two test processes share two cores; more threads each would only wait for one another.
torch.set_num_threads(1)

# The same examples each time, so that a commit passes or fails the same everywhere. To search further:
# `pytest --hypothesis-profile=default`.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The shared material, or a skip that says what is absent."""
    folder = Path(os.environ.get("ASD_EXPLAIN_SHARED") or ROOT.parent / "shared")
    if not (folder / "weights").is_dir():
        pytest.skip(f"shared material not found at {folder}; set ASD_EXPLAIN_SHARED")
    return folder


@pytest.fixture(autouse=True)
def _no_fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches for the network."""
    monkeypatch.setenv("ASD_EXPLAIN_OFFLINE", "1")


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LR-ASD with random parameters: a network that runs where no published weights are."""
    from asd_explain.models.registry import create_model

    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file(create_model("lr_asd").state_dict(), path)
    return path


@pytest.fixture(scope="session")
def face_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 30-frame clip of one photographed face, with a tone."""
    return write_clip(tmp_path_factory.mktemp("clips") / "face.mp4")


@pytest.fixture(scope="session")
def face_boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the face is in :func:`face_clip`, as AVA csv without header."""
    path = tmp_path_factory.mktemp("boxes") / "face_boxes.csv"
    rows = [f"face,{i / 25:.2f},0.36,0.12,0.66,0.72,NOT_SPEAKING,face_0" for i in range(30)]
    path.write_text("\n".join(rows) + "\n")
    return path
