"""Videos whose pictures and sound say what they are, and annotations on them, for tests of data sets."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from asd_explain.datasets.annotations import orig_lines
from asd_explain.datasets.entities import EntityRow

SIZE = (96, 64)
RATE = 16000
PATCHES = {"1": (0.125, 0.25, 0.375, 0.75), "2": (0.5, 0.125, 0.875, 0.5)}
"""Boxes in shares of the frame, on whole pixels of ``SIZE``: each person's face."""
BODY = (0.0, 0.125, 0.4375, 1.0)


def level(frame: int, patch: str) -> int:
    """Gray level of a person's patch in a frame."""
    return (30 if patch == "1" else 130) + (frame * 7) % 90


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """(n,) int16 sound that repeats nowhere."""
    return np.random.default_rng(seed).integers(-9000, 9000, round(seconds * RATE)).astype(np.int16)


def numbered_video(path: Path, frames: int, fps: Fraction | int = 25, sound: bool = True) -> Path:
    """A Matroska video with lossless PCM: patches of a gray level that tells the frame, over a dark ground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = SIZE
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "6", "preset": "ultrafast", "g": "12"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono") if sound else None
        if audio is not None:
            samples = noise(frames / float(fps))
            for first in range(0, len(samples), 1600):
                block = av.AudioFrame.from_ndarray(samples[None, first : first + 1600], format="s16", layout="mono")
                block.sample_rate, block.pts, block.time_base = RATE, first, Fraction(1, RATE)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
        for frame in range(frames):
            picture = np.full((height, width), 10, np.uint8)
            for patch, (x1, y1, x2, y2) in PATCHES.items():
                picture[int(y1 * height) : int(y2 * height), int(x1 * width) : int(x2 * width)] = level(frame, patch)
            frame = av.VideoFrame.from_ndarray(np.repeat(picture[..., None], 3, axis=2), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def track(
    video: str,
    patch: str,
    first: int,
    count: int,
    fps: Fraction | int = 25,
    span: str = "0000_0060",
    body: bool = False,
) -> EntityRow:
    """The track of one person in a numbered video, as annotators write it: times to 10 ms."""
    rng = np.random.default_rng(first + count)
    times_s = np.round((first + np.arange(count)) / float(fps), 2)
    names = tuple(rng.choice(["NOT_SPEAKING", "SPEAKING_AUDIBLE", "SPEAKING_NOT_AUDIBLE"], count))
    return EntityRow(
        entity_id=f"{video}_{span}:{patch}",
        video_id=video,
        timestamps_s=times_s,
        labels=np.array([n == "SPEAKING_AUDIBLE" for n in names], np.int8),
        fps=float(fps),
        boxes=np.tile(PATCHES[patch], (count, 1)),
        body_boxes=np.tile(BODY, (count, 1)) if body else None,
        label_names=names,
    )


def write_orig(path: Path, rows: list[EntityRow], body: bool = False) -> Path:
    """Annotations in TalkNet's dialect."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in orig_lines(rows, body=body)))
    return path
