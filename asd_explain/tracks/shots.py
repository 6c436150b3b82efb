"""Hard cuts, frame by frame and at once: faces must not be followed from one camera to the next."""

from __future__ import annotations

import math
from collections import deque

import cv2
import numpy as np
from scenedetect.detectors import ContentDetector
from scenedetect.scene_detector import FlashFilter

_WORK_PIXELS = 160 * 90
_BLANK_STD = 3.0  # gray levels: an all-black or all-white frame has next to no structure


class ShotDetector:
    """Streaming detector of hard cuts.

    PySceneDetect's ``ContentDetector`` proposes (mean change of hue, saturation and brightness from frame to frame);
    a proposal counts as a cut when the picture's structure changed as well: the correlation of the two blurred luma
    images is below ``max_correlation``, and both that drop and the change of brightness stand out from the frames just
    before, which those of camera motion or of somebody who walks past the lens do not. Correlation ignores brightness
    and contrast: a camera flash over a visible scene is no cut. Blank frames (a white flash, black between two scenes)
    belong to the shot before them and are passed over: the frame after them is compared with the last one that showed
    something.

    Measured on the 38 whole clips of the shared material: on the 41 cuts, content change is 47 and more and correlation
    0.25 and less; on all other frames at most 20 and at least 0.72, but for one person who fills the picture in
    passing (26 and 0.6, for half a second).

    Args:
        threshold: content change (0..255) that proposes a cut.
        max_correlation: correlation (-1..1) above which two frames show the same scene.
        prominence: 1 - correlation and the change of brightness must be this many times their recent means.
    """

    def __init__(self, *, threshold: float = 20.0, max_correlation: float = 0.6, prominence: float = 2.5) -> None:
        self._content = ContentDetector(threshold=threshold, min_scene_len=0, filter_mode=FlashFilter.Mode.SUPPRESS)
        self._max_correlation = max_correlation
        self._prominence = prominence
        self._pushed = 0
        self._last: np.ndarray | None = None  # standardised luma of the last frame that was not blank
        self._before_cut: np.ndarray | None = None
        self._since_cut = 0
        self._after_blank = False
        self._last_luma: np.ndarray | None = None
        self._recent: deque[tuple[float, float]] = deque(maxlen=4)  # (1 - correlation, change of brightness)

    @staticmethod
    def working_size(width: int, height: int) -> tuple[int, int]:
        """Size (width, height) that is enough for a frame of ``width`` x ``height`` px; more is scaled down."""
        scale = min(1.0, math.sqrt(_WORK_PIXELS / (width * height)))
        return max(1, round(width * scale)), max(1, round(height * scale))

    def push(self, bgr_small: np.ndarray, time_s: float) -> bool:
        """Look at the next frame.

        Args:
            bgr_small: (h, w, 3) uint8, always of the same size; ``working_size`` is enough.
            time_s: presentation time in seconds (not used: hard cuts have no duration).

        Returns:
            True when a new shot begins with this frame. Never for the first frame.
        """
        size = self.working_size(bgr_small.shape[1], bgr_small.shape[0])
        if size != (bgr_small.shape[1], bgr_small.shape[0]):
            bgr_small = cv2.resize(bgr_small, size, interpolation=cv2.INTER_AREA)
        luma = cv2.GaussianBlur(cv2.cvtColor(bgr_small, cv2.COLOR_BGR2GRAY), (0, 0), 1.0).astype(np.float32)
        spread = float(luma.std())
        if spread < _BLANK_STD:
            self._after_blank = self._last is not None
            return False
        step = 0.0 if self._last_luma is None else float(np.abs(luma - self._last_luma).mean())
        self._last_luma = luma
        luma = (luma - luma.mean()) / spread
        proposed = bool(self._content.process_frame(self._pushed, bgr_small))
        self._pushed += 1
        previous, self._last = self._last, luma
        if previous is None:
            return False
        change = 1 - float((luma * previous).mean())
        # Out of black the picture comes up slowly: brightness says nothing there, structure alone decides.
        usual_change, usual_step = np.mean(self._recent or [(0.0, 0.0)], axis=0)
        stands_out = change >= self._prominence * usual_change and step >= self._prominence * usual_step
        cut = change > 1 - self._max_correlation and (self._after_blank or (proposed and stands_out))
        self._after_blank = False
        self._since_cut += 1
        if cut and self._since_cut <= 2 and self._before_cut is not None:
            # A picture of a frame or two, then the old one again: the shot that began with it simply goes on.
            cut = 1 - float((luma * self._before_cut).mean()) > 0.2
        if cut:
            self._before_cut, self._since_cut = previous, 0
            self._recent.clear()
        else:
            self._recent.append((change, step))
        return cut
