"""Small clips for tests, made on the spot."""

from __future__ import annotations

import signal
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image

#: A shell starts its background jobs with interrupts ignored, and what they start ignores them too.
interruptible = pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) == signal.SIG_IGN, reason="interrupts are ignored here, as in a background job"
)


def photo(width: int, height: int) -> np.ndarray:
    """A public-domain photograph with one frontal face (matplotlib ships it), (height, width, 3) uint8 RGB."""
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
