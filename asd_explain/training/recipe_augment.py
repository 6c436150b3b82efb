"""How the published recipes disturb an entity: one view of its crops for the whole clip, another voice under its own.

As in the training code of TalkNet (Tao et al., arXiv 2107.06592), which Light-ASD, LR-ASD, BIAS and ASDnB took over.
Two things differ: the sum of two sounds is clipped at full scale, where 16-bit integers there wrap around; and
signal-to-noise ratios are of the sounds' energies, where squares of 16-bit integers there overflow.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from asd_explain.training.augment_sound import mix
from asd_explain.training.recipe_config import AugmentConfig

KINDS = ("as it is", "mirrored", "cut", "turned")


@dataclass(frozen=True)
class View:
    """What is done to every crop of a clip alike.

    Attributes:
        kind: one of ``KINDS``.
        left, top, side: of what a cut leaves, px.
        turn_deg: counter-clockwise.
    """

    kind: str = KINDS[0]
    left: int = 0
    top: int = 0
    side: int = 0
    turn_deg: float = 0.0

    def apply(self, crops: np.ndarray) -> np.ndarray:
        """(T, H, W) uint8 crops, seen this way; the same shape. What a turn brings in from outside is black."""
        if self.kind == "mirrored":
            return np.ascontiguousarray(crops[:, :, ::-1])
        height, width = crops.shape[1:]
        if self.kind == "cut":
            parts = crops[:, self.top : self.top + self.side, self.left : self.left + self.side]
            return np.stack([cv2.resize(np.ascontiguousarray(part), (width, height)) for part in parts])
        if self.kind == "turned":
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), self.turn_deg, 1)
            return np.stack([cv2.warpAffine(crop, turn, (width, height)) for crop in crops])
        return crops


def draw_view(rng: np.random.Generator, config: AugmentConfig, size: int) -> View:
    """A view of crops of ``size`` x ``size`` px; each kind comes equally often."""
    if not config.view:
        return View()
    kind = KINDS[rng.integers(len(KINDS))]
    side = min(size, max(1, int(size * rng.uniform(*config.crop))))
    left, top = (int(rng.integers(0, size - side + 1)) for _ in range(2))
    turn = float(rng.uniform(-config.rotate_deg, config.rotate_deg))
    return View(kind, left, top, side, turn)


def add_voice(own: np.ndarray, other: np.ndarray, snr_db: float) -> np.ndarray:
    """A sound with another beneath it.

    Args:
        own: (n,) float32 in [-1, 1].
        other: (m,) float32; repeated where it is shorter.
        snr_db: of the energies over all samples.

    Returns:
        (n,) float32 in [-1, 1]; ``own`` where either is digital silence.
    """
    if not len(own) or not len(other):
        return own
    return np.clip(mix(own, np.resize(other, len(own)), snr_db), -1, 1)
