"""What a camera and a codec do to a chunk of crops: tone, blur, resolution, noise, compression, in that order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from asd_explain.tracks.crops import CROP_SIZE

if TYPE_CHECKING:
    from asd_explain.training.augment_view import ViewAugment

_NOISE_TILE = 256
_JPEG_LONGEST = 65500  # libjpeg's limit of a side, px
_DOWN = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)
_UP = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)


@dataclass(frozen=True)
class Camera:
    """What a camera and a codec do to a chunk; None is what they leave out. Lengths are in pixels of the face crop."""

    tone: np.ndarray | None  # (256,) uint8
    blur_px: float | None
    motion_deg: float | None  # direction of motion blur; None: out of focus
    noise: np.ndarray | None  # (256, 256) int16
    small_px: int | None
    down: int
    up: int
    quality: np.ndarray | None  # (T,) int

    @classmethod
    def draw(cls, n: int, rng: np.random.Generator, config: ViewAugment) -> Camera:
        tone = blur_px = motion_deg = noise = small_px = quality = None
        if rng.random() < config.tone:
            gamma, contrast = np.exp(rng.uniform(-0.4, 0.4)), np.exp(rng.uniform(-0.4, 0.3))
            levels = (np.linspace(0, 1, 256) ** gamma - 0.5) * contrast + 0.5 + rng.uniform(-0.15, 0.15)
            tone = np.rint(255 * np.clip(levels, 0, 1)).astype(np.uint8)
        if rng.random() < config.blur:
            blur_px = rng.uniform(0.5, 2.5)
            motion_deg = rng.uniform(0, 180) if rng.random() < 0.4 else None
        if rng.random() < config.small:
            small_px = int(rng.integers(config.small_px[0], config.small_px[1], endpoint=True))
        down, up = (int(rng.choice(kinds)) for kinds in (_DOWN, _UP))
        if rng.random() < config.noise:
            tile = rng.standard_normal((_NOISE_TILE, _NOISE_TILE), dtype=np.float32)
            noise = np.rint(tile * np.float32(rng.uniform(2, 12))).astype(np.int16)
        if rng.random() < config.compress:
            low, high = config.quality
            levels = rng.integers(low, high, size=1 if rng.random() < 0.5 else 3, endpoint=True)
            quality = levels[rng.integers(0, len(levels), n)]
        return cls(tone, blur_px, motion_deg, noise, small_px, down, up, quality)

    def take(self, frames: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
        """(T, 112, 112) uint8 of frames in which the face's side is ``share`` of 112 px."""
        if self.tone is not None:
            frames = cv2.LUT(frames.reshape(-1, CROP_SIZE), self.tone).reshape(frames.shape)
        if self.blur_px is not None and self.blur_px * share > 0.25:
            frames = self._blurred(frames, self.blur_px * share)
        side = CROP_SIZE if self.small_px is None else round(self.small_px / share)
        if side < CROP_SIZE:
            frames = _resized(frames, side, self.down)
        if self.noise is not None:
            frames = frames.copy()
            for frame, (x, y) in zip(
                frames, rng.integers(0, _NOISE_TILE - frames.shape[1] + 1, (len(frames), 2)), strict=True
            ):
                cv2.add(
                    frame,
                    self.noise[y : y + frame.shape[0], x : x + frame.shape[1]],
                    dst=frame,
                    dtype=cv2.CV_8U,
                )
        if self.quality is not None:
            frames = through_jpeg(frames, self.quality)
        return _resized(frames, CROP_SIZE, self.up) if side < CROP_SIZE else frames

    def _blurred(self, frames: np.ndarray, blur_px: float) -> np.ndarray:
        if self.motion_deg is None:
            return np.stack([cv2.GaussianBlur(f, (0, 0), blur_px, borderType=cv2.BORDER_REPLICATE) for f in frames])
        # A line as long as a box of that standard deviation, sqrt(12) of it, drawn with sub-pixel ends.
        radius = int(np.ceil(blur_px * np.sqrt(3)))
        along = np.linspace(-1, 1, 33) * blur_px * np.sqrt(3)
        x, y = np.cos(np.deg2rad(self.motion_deg)) * along, np.sin(np.deg2rad(self.motion_deg)) * along
        kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
        np.add.at(kernel, (np.rint(y).astype(int) + radius, np.rint(x).astype(int) + radius), 1 / 33)
        return np.stack([cv2.filter2D(f, -1, kernel, borderType=cv2.BORDER_REPLICATE) for f in frames])


def _resized(frames: np.ndarray, side: int, how: int) -> np.ndarray:
    return np.stack([cv2.resize(f, (side, side), interpolation=how) for f in frames])


def through_jpeg(frames: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Each frame as JPEG of its quality leaves it. Frames go through one below the other: 8 x 8 blocks are alone."""
    out = np.empty_like(frames)
    side = frames.shape[1]
    high = -side % 8 + side
    most = _JPEG_LONGEST // high
    for level in np.unique(quality):
        members = np.flatnonzero(quality == level)
        for first in range(0, len(members), most):
            part = members[first : first + most]
            pile = np.pad(frames[part], ((0, 0), (0, high - side), (0, 0)), mode="edge").reshape(-1, side)
            _, code = cv2.imencode(".jpg", pile, (cv2.IMWRITE_JPEG_QUALITY, int(level)))
            out[part] = cv2.imdecode(code, cv2.IMREAD_GRAYSCALE).reshape(len(part), high, side)[:, :side]
    return out
