"""Clips with known content, made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

BITS = 8


def picture(index: int, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB: a tinted ramp whose top half shows ``index`` as eight black or white stripes."""
    ramp = np.linspace(60, 180, width, dtype=np.float32)[None, :, None] * np.array([1.0, 0.8, 0.6], np.float32)
    out = np.repeat(ramp, height, 0).astype(np.uint8)
    edges = np.linspace(0, width, BITS + 1).astype(int)
    for bit in range(BITS):
        out[: height // 2, edges[bit] : edges[bit + 1]] = 235 if index >> bit & 1 else 20
    return out


def read_index(luma: np.ndarray) -> int:
    """The number that :func:`picture` drew, from the gray picture."""
    height, width = luma.shape
    edges = np.linspace(0, width, BITS + 1).astype(int)
    middles = (edges[:-1] + edges[1:]) // 2
    return sum(1 << bit for bit, x in enumerate(middles) if luma[height // 4, x] > 127)


def write_clip(
    path: Path,
    times_s: Sequence[float],
    *,
    size: tuple[int, int] = (96, 64),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rate: Fraction | int = 25,
    time_base: Fraction | None = None,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    sound: np.ndarray | None = None,
    sound_rate: int = 48000,
    sound_start_s: float = 0.0,
    sound_codec: str = "aac",
    pictures: Callable[[int], np.ndarray] | None = None,
    full_range: bool = False,
    container: str | None = None,
    container_options: dict[str, str] | None = None,
    **codec_settings: Any,
) -> Path:
    """Write a clip whose frame i, at ``times_s[i]``, is ``picture(i)``; ``sound`` is (channels, n) float32."""
    width, height = size
    time_base = time_base or Fraction(1, 90000)
    with av.open(str(path), "w", format=container, options=container_options or {}) as out:
        video = out.add_stream(codec, rate=rate)
        video.width, video.height, video.pix_fmt = width, height, pixel_format
        if codec != "mpeg4" and codec != "mpeg1video":
            video.time_base = video.codec_context.time_base = time_base
        else:
            time_base = video.codec_context.time_base = 1 / Fraction(rate)
        video.options = options or ({"preset": "ultrafast", "crf": "8"} if codec == "libx264" else {})
        for name, value in codec_settings.items():
            setattr(video.codec_context, name, value)
        if full_range:
            video.codec_context.color_range = 2
        if rotation:
            video.set_display_rotation(-rotation)
        audio = None
        if sound is not None:
            layout = "mono" if len(sound) == 1 else "stereo"
            audio = out.add_stream(sound_codec, rate=sound_rate, layout=layout)
            audio.time_base = Fraction(1, sound_rate)

        def pump_sound(until_s: float | None) -> None:
            nonlocal position
            while audio is not None and position < sound.shape[1]:
                if until_s is not None and sound_start_s + position / sound_rate > until_s:
                    return
                piece = np.ascontiguousarray(sound[:, position : position + 1024].astype(np.float32))
                frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=audio.layout.name)
                frame.sample_rate = sound_rate
                frame.time_base = Fraction(1, sound_rate)
                frame.pts = position + round(sound_start_s * sound_rate)
                converter = av.AudioResampler(audio.format.name, audio.layout.name, sound_rate)
                for ready in converter.resample(frame):
                    out.mux(audio.encode(ready))
                position += piece.shape[1]

        position = 0
        for index, time_s in enumerate(times_s):
            rgb = picture(index, width, height) if pictures is None else pictures(index)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            ranges = {"dst_color_range": "JPEG"} if full_range else {}
            frame = frame.reformat(format=pixel_format, src_color_range="JPEG", **ranges)
            frame.pts = round(Fraction(time_s) / time_base)
            frame.time_base = time_base
            pump_sound(time_s)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        pump_sound(None)
        if audio is not None:
            out.mux(audio.encode(None))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """Write a clip in the test's folder: ``clip("name.mp4", times_s, **settings of write_clip)``."""

    def make(name: str, times_s: Sequence[float], **settings: Any) -> Path:
        return write_clip(tmp_path / name, times_s, **settings)

    return make


@pytest.fixture
def index_of() -> Callable[[np.ndarray], int]:
    """Reads the frame number out of a gray picture of a made clip."""
    return read_index


@pytest.fixture
def picture_of() -> Callable[[int, int, int], np.ndarray]:
    """Draws the picture of a made clip: ``picture_of(index, width, height)``."""
    return picture


def make_tone(seconds: float, rate: int = 48000, channels: int = 1, seed: int = 0) -> np.ndarray:
    """(channels, n) float32: a chord with a slow swell and a little noise."""
    t = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(seed)
    signal = 0.3 * np.sin(2 * np.pi * 440 * t) + 0.2 * np.sin(2 * np.pi * 1250 * t + 1)
    signal = signal * (0.6 + 0.4 * np.sin(2 * np.pi * 1.7 * t)) + 0.01 * rng.standard_normal(len(t))
    return np.repeat(signal[None], channels, 0).astype(np.float32)


@pytest.fixture
def tone() -> Callable[..., np.ndarray]:
    """Makes sound: ``tone(seconds, rate=48000, channels=1)``."""
    return make_tone
