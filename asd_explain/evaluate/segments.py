"""A stretch of one face track, ready for a network, with what is known of it: what explanations are measured on.

A segment is shown to a network as if it were a clip of its own: nothing outside it is seen or heard. So no evidence
that a test has deleted can come back from frames around it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from asd_explain.explain.base import Explainer
from asd_explain.explain.geometry import upsample
from asd_explain.explain.smooth import smooth_heat
from asd_explain.media.features import need_mfcc
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.tracks.crops import CROP_SIZE

REGIONS = ("mouth", "eyes", "rest of face", "rest of body", "outside")


@dataclass(frozen=True)
class Segment:
    """T grid frames (25 a second) of one face track.

    Attributes:
        name: "clip#track@first frame", unique.
        clip: the clip's name; intervals are taken over clips.
        kind: "real" or "talking photos".
        crops: {visual stream: (T, 112, 112) uint8}; "face" in the geometry of the network that is measured.
        mfcc: (4T, 13) float32, or None where the clip has no sound track.
        truth: (T,) 1 speaking, 0 silent, NaN unknown; None where nothing is known.
        regions: {visual stream: {region of ``REGIONS``: (T, 112, 112) bool}}, disjoint; empty where nothing is known.
        times_s: (T,) seconds from the clip's beginning.
        decisive: (T,) name of the stream that must decide, "" where none does alone; None where that is not known.
    """

    name: str
    clip: str
    kind: str
    crops: dict[str, np.ndarray]
    mfcc: np.ndarray | None
    truth: np.ndarray | None = None
    regions: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    times_s: np.ndarray | None = None
    decisive: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.crops["face"])


@dataclass(frozen=True)
class Smoothing:
    """What is done to every method's raw maps alike before they are measured or drawn.

    Attributes:
        seconds: standard deviation along time, 0 for none.
        cells: standard deviation in cells of the map, 0 for none.
        interpolation: from cells to pixels, see :func:`asd_explain.explain.geometry.upsample`.
    """

    seconds: float = 0.0
    cells: float = 0.0
    interpolation: str = "bicubic"


def visual_streams(model: nn.Module, segment: Segment) -> list[str]:
    """The network's visual streams of which the segment has crops, in the network's order."""
    return [stream for stream in model.streams if stream in segment.crops]


def inputs_of(model: nn.Module, segment: Segment) -> dict[str, torch.Tensor | None]:
    """The arguments of the network's ``encode`` and ``forward``, on its device.

    {"face": (1, T, 112, 112) uint8, "audio": (1, 4T, 13)}, and "body" where the network sees bodies, with or without a
    stream of their own, and the segment has them. A clip without a sound track is silence to a network that knows of no
    absence, else None.

    Raises:
        OptionError: the network does not hear MFCC.
    """
    device = next(model.parameters()).device
    need_mfcc(model)
    seen = [s for s in getattr(model, "crops", visual_streams(model, segment)) if s in segment.crops]
    inputs = {s: torch.from_numpy(segment.crops[s])[None].to(device) for s in seen}
    if segment.mfcc is not None:
        inputs["audio"] = torch.from_numpy(np.asarray(segment.mfcc, np.float32))[None].to(device)
    elif getattr(model, "learned_absence", False):
        inputs["audio"] = None
    else:
        inputs["audio"] = aligned_mfcc(None, 0.0, len(segment))[None].to(device)
    return inputs


def raw_heat(explainer: Explainer, model: nn.Module, segment: Segment, target: int = 1) -> dict[str, np.ndarray]:
    """{visual stream: (T, h, w) float32} as the explainer gives it."""
    heat = explainer.heat(model, inputs_of(model, segment), target)
    return {stream: values.float().cpu().numpy() for stream, values in heat.items()}


def on_pixels(model: nn.Module, raw: np.ndarray, smoothing: Smoothing) -> np.ndarray:
    """(T, h, w) raw heat smoothed and enlarged to (T, 112, 112) float32.

    Maps of a side of 112 are pixels already and are not moved; others lie where the network's strides put their cells.
    """
    smooth = smooth_heat(raw, smoothing.seconds, smoothing.cells)
    if smooth.shape[1:] == (CROP_SIZE, CROP_SIZE):
        return smooth
    stride, offset = model.map_stride_px, model.map_offset_px
    return np.stack([upsample(m, stride, offset, CROP_SIZE, smoothing.interpolation) for m in smooth])
