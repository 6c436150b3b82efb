"""What is drawn: the clip as a whole (`Scene`) and one face of one frame (`FaceView`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

_Time = TypeVar("_Time", float, np.ndarray)


class YuvPlanes(Protocol):
    """The yuv420p picture that is drawn on: `y` (H, W), `u` and `v` (H/2, W/2), all uint8; H and W even.

    It is a dataclass; `full_range` says whether luma uses 0..255 or 16..235, `matrix` names the RGB-YUV matrix.
    """

    y: np.ndarray
    u: np.ndarray
    v: np.ndarray
    full_range: bool
    matrix: str


@dataclass(frozen=True)
class FaceView:
    """Everything that is drawn for one track in one source frame.

    Attributes:
        track_id: id of the track.
        box: (4,) face box, x1 y1 x2 y2 in pixels of the upright frame.
        body: (4,) body box in pixels, or None.
        p: P(speaking) in [0, 1]; NaN where the network gave no score.
        speaking: the decision at the threshold.
        interpolated: True where no detection was made in this very frame.
        heat: for each stream ("face", "body") an (h, w) map already scaled to [0, 1], or None. Its cells tile the
            window uniformly.
        windows: for each stream the (4,) pixel window that its heat (and its crop) covers; it may leave the frame and
            may be larger or smaller than the box.
        shares: share of each stream ("audio", "face", "body") in the decision, summing to 1, or None.
        crops: for each stream the (112, 112) uint8 full-range gray crop that the network saw (panel layout only).
    """

    track_id: int
    box: np.ndarray
    body: np.ndarray | None
    p: float
    speaking: bool
    interpolated: bool
    heat: dict[str, np.ndarray | None] = field(default_factory=dict)
    windows: dict[str, np.ndarray] = field(default_factory=dict)
    shares: dict[str, float] | None = None
    crops: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class TimelineTrack:
    """One track's probability curve: `times_s` (N,) increasing seconds on the clip's clock, `p` (N,) in [0, 1]."""

    track_id: int
    times_s: np.ndarray
    p: np.ndarray


@dataclass(frozen=True)
class Scene:
    """What stays the same over the clip.

    Attributes:
        width, height: size of the upright source frame in pixels.
        start_s, end_s: time of the first frame and end of the last, on the same clock as every other time.
        tracks: one probability curve a track.
        loudness: (times_s (m,), level (m,) in [0, 1]) of the audio, or None.
        threshold: P(speaking) from which a face counts as speaking.
        notes: short remarks shown in the picture, such as "no audio track".
        smooth_s: width of the temporal smoothing of the heat in seconds, 0 for none.
        model: name of the network, as shown.
        explainer: name of the explainer, as shown ("se", "gradcam", ...).
        zero_s: the time that is shown as 0:00, the clip's first frame where only a part is drawn; None for `start_s`.
    """

    width: int
    height: int
    start_s: float
    end_s: float
    tracks: list[TimelineTrack]
    loudness: tuple[np.ndarray, np.ndarray] | None
    threshold: float
    notes: list[str]
    smooth_s: float
    model: str
    explainer: str
    zero_s: float | None = None

    def shown_s(self, time_s: _Time) -> _Time:
        """A time as the viewer reads it, in seconds from the clip's beginning."""
        return time_s - (self.start_s if self.zero_s is None else self.zero_s)
