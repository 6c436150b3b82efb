"""Fixtures every area shares."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]

# Two test processes share two cores; more threads each would only wait for one another.
torch.set_num_threads(1)


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


def photo(width: int, height: int) -> np.ndarray:
    """A public-domain photograph with one frontal face (matplotlib ships it), (height, width, 3) uint8 RGB."""
    import cv2
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    with get_sample_data("grace_hopper.jpg") as stream:
        picture = np.asarray(Image.open(stream).convert("RGB"))[:400]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def write_clip(
    path: Path,
    *,
    frames: int = 30,
    fps: Fraction | int = 25,
    size: tuple[int, int] = (256, 200),
    sound: bool = True,
    face: bool = True,
) -> Path:
    """A small MP4: a photograph that sways a little (or a flat picture), with a tone or without sound."""
    width, height = size
    still = photo(width, height) if face else np.full((height, width, 3), 90, np.uint8)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "18", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for i in range(frames):
            picture = np.roll(still, round(2 * np.sin(i / 4)), axis=1)
            for packet in video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in video.encode():
            container.mux(packet)
        if audio is not None:
            n = int(frames / float(fps) * 16000)
            tone = (0.3 * np.sin(2 * np.pi * 220 * np.arange(n) / 16000)).astype(np.float32)
            for first in range(0, n, 1024):
                block = av.AudioFrame.from_ndarray(tone[None, first : first + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts = 16000, first
                for packet in audio.encode(block):
                    container.mux(packet)
            for packet in audio.encode():
                container.mux(packet)
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
