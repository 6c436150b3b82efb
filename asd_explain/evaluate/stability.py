"""Do maps hold still? From frame to frame, and when the picture is disturbed in ways that change nothing in it.

A still map is no proof of a true one: a blob that never moves is perfectly stable. A map that flickers, or turns into
another one because of a little noise, cannot be read by anybody.
"""

from __future__ import annotations

import io
import itertools
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import av
import cv2
import numpy as np
import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.placement import finite_mean
from asd_explain.evaluate.segments import Segment, Smoothing, inputs_of, on_pixels
from asd_explain.explain.base import Explainer
from asd_explain.explain.geometry import TIE, drawable_frames
from asd_explain.tracks.crops import CROP_SIZE

logger = logging.getLogger(__name__)

#: A crop follows its face, so what moves further from one frame to the next is no motion but a wrong estimate.
MOST_MOTION_PX = 12.0
COMPARED_PX = 2
KINDS = ("noise", "shift", "recoding")
NOISE_GREY_LEVELS = 2.0
#: Quantiser of the re-encoding: well compressed, still pleasant (x264's default is near 23, 51 is the worst).
RECODING_QP = 28
TOP_SHARE = 0.1

# With pictures of this size x264's lookahead was seen to decide otherwise from run to run. Nothing here depends on it:
# one quantiser, frame types at fixed places, no weighted prediction.
_X264 = "b-adapt=0:scenecut=0:weightp=0:weightb=0:mbtree=0:rc-lookahead=0"
_FLOW = {"pyr_scale": 0.5, "levels": 3, "winsize": 21, "iterations": 3, "poly_n": 7, "poly_sigma": 1.5, "flags": 0}
# The picture's content moves by so much: (right, down) in pixels.
_SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def crop_motion(crops: np.ndarray) -> np.ndarray:
    """How far the picture as a whole moves from each crop to the next.

    The median of dense optical flow (Farnebäck, "Two-Frame Motion Estimation Based on Polynomial Expansion", 2003):
    lips and lids that move on their own cover too little of the crop to sway it. On real faces cut at known distances
    of 0.3 to 8 px, with noise, it was wrong by 0.04 px (0.11 at most), and by nothing when only the mouth was moved;
    phase correlation was wrong by 0.1 (0.24), and the best alignment of all pixels (ECC) took the moving mouth for
    0.2 to 0.7 px. An estimate is believed only if it is at most ``MOST_MOTION_PX`` long and moving the picture by it
    brings the two frames closer together; otherwise the motion is taken to be zero. Turning, nearing and leaning are
    not motion here. 3 ms a frame on one thread.

    Args:
        crops: (T, h, w) uint8.

    Returns:
        (T - 1, 2) float64, right and down in pixels.
    """
    motion = np.zeros((max(0, len(crops) - 1), 2))
    for t, (before, after) in enumerate(itertools.pairwise(crops)):
        flow = cv2.calcOpticalFlowFarneback(before, after, None, **_FLOW)
        found = np.median(flow.reshape(-1, 2), 0)
        if np.hypot(*found) > MOST_MOTION_PX:
            continue
        before, after = before.astype(np.float32), after.astype(np.float32)
        moved, valid = _move(before, *found)
        if np.abs(moved - after)[valid].mean() < np.abs(before - after)[valid].mean():
            motion[t] = found
    return motion


def neighbour_correlations(maps: np.ndarray, motion: np.ndarray | None = None) -> np.ndarray:
    """Pearson's correlation of each frame's map with the next one's.

    Args:
        maps: (T, h, w), cells or pixels.
        motion: (T - 1, 2) of the crop's picture, in shares of the crop's side: the earlier map is moved by it first,
            and only what both then cover is compared. None compares in place.

    Returns:
        (T - 1,) float64 in [-1, 1]; NaN where either map is not finite or constant.
    """
    maps = np.asarray(maps, np.float32)
    result = np.full(max(0, len(maps) - 1), np.nan)
    usable = drawable_frames(maps)
    for t in np.flatnonzero(usable[:-1] & usable[1:]):
        before, valid = maps[t], np.ones(maps.shape[1:], bool)
        if motion is not None:
            right, down = motion[t]
            before, valid = _move(before, right * maps.shape[2], down * maps.shape[1])
        result[t] = _correlation(before[valid], maps[t + 1][valid])
    return result


def temporal_consistency(maps: np.ndarray, crops: np.ndarray | None = None) -> float:
    """Mean correlation of neighbouring frames' maps, after motion where the crops are given.

    Args:
        maps: (T, h, w), cells that are 112 / w pixels apart, or pixels.
        crops: (T, 112, 112) uint8 that the maps belong to, or None to compare in place.

    Returns:
        In [-1, 1], higher is steadier; NaN where no two neighbours can be compared (one frame, constant maps).

    Raises:
        OptionError: another number of crops than of maps.
    """
    return finite_mean(neighbour_correlations(maps, None if crops is None else _shares(crops, len(maps))))


@dataclass(frozen=True)
class ConsistencyRow:
    """Consistency of one stream's maps at one smoothing.

    Attributes:
        smoothing: what was done to the raw maps.
        in_place: mean correlation of neighbouring frames' maps.
        after_motion: the same after the earlier map has been moved with the picture.
        pairs: neighbours that could be compared.
    """

    smoothing: Smoothing
    in_place: float
    after_motion: float
    pairs: int


def consistency_table(
    model: nn.Module, raw: np.ndarray, crops: np.ndarray, smoothings: Sequence[Smoothing]
) -> list[ConsistencyRow]:
    """The consistency of raw maps (T, h, w) over their crops (T, 112, 112) at each smoothing, compared on every
    ``COMPARED_PX``-th pixel: a cell is eight of them, so nothing is lost but time."""
    motion = _shares(crops, len(raw))
    rows = []
    for smoothing in smoothings:
        maps = on_pixels(model, raw, smoothing)[:, ::COMPARED_PX, ::COMPARED_PX]
        found = neighbour_correlations(maps)
        moved = finite_mean(neighbour_correlations(maps, motion))
        rows.append(ConsistencyRow(smoothing, finite_mean(found), moved, int(np.isfinite(found).sum())))
    return rows


@dataclass(frozen=True)
class Sensitivity:
    """What one disturbance does to one stream's maps.

    Attributes:
        kind: one of ``KINDS``.
        stream: visual stream.
        correlation: mean over frames of Pearson's correlation of the map before and after, in [-1, 1].
        overlap: mean over frames of the intersection over union of the hottest ``TOP_SHARE`` of the pixels before and
            after, in [0, 1]; maps that have nothing to do with each other overlap by about 0.05.
        crop_change: mean absolute change of the stream's crops in grey levels: how strong the disturbance was.
        p_change: mean absolute change of P(speaking); a map need not be steadier than the network.
        frames: frames whose maps could be compared.
    """

    kind: str
    stream: str
    correlation: float
    overlap: float
    crop_change: float
    p_change: float
    frames: int


def sensitivity(
    explainer: Explainer,
    model: nn.Module,
    segment: Segment,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
    *,
    smoothing: Smoothing | None = None,
    target: int = 1,
) -> list[Sensitivity]:
    """Compare a segment's maps with those of the same segment, disturbed; all visual streams are disturbed at once.

    Args:
        explainer, model: whose maps.
        segment: what is disturbed; see :func:`disturbed`.
        kinds: of ``KINDS``.
        seed: with the segment's name decides the noise and the shift's direction.
        smoothing: of the maps before they are compared, none if None.
        target: class that the maps are about.

    Returns:
        One row for each kind and visual stream, in their order.

    Raises:
        OptionError: an unknown kind.
    """
    smoothing = smoothing or Smoothing()
    for kind in kinds:
        _check_kind(kind)
    maps, p = _maps_and_p(explainer, model, segment, smoothing, target)
    rows = []
    for kind in kinds:
        changed, (right, down) = disturbed(segment, kind, seed)
        others, other_p = _maps_and_p(explainer, model, changed, smoothing, target)
        for stream, before in maps.items():
            # The disturbed picture's map goes back to where its picture came from; what came in at the edge drops out.
            after = np.roll(others[stream], (-down, -right), (1, 2))
            rows_kept, columns_kept = _kept(down), _kept(right)
            before, after = before[:, rows_kept, columns_kept], after[:, rows_kept, columns_kept]
            usable = np.flatnonzero(drawable_frames(before) & drawable_frames(after))
            change = changed.crops[stream].astype(np.float32) - segment.crops[stream]
            rows.append(
                Sensitivity(
                    kind=kind,
                    stream=stream,
                    correlation=finite_mean(np.array([_correlation(before[t], after[t]) for t in usable])),
                    overlap=finite_mean(np.array([top_overlap(before[t], after[t]) for t in usable])),
                    crop_change=float(np.abs(change).mean()),
                    p_change=float(np.abs(other_p - p).mean()),
                    frames=len(usable),
                )
            )
    return rows


def disturbed(segment: Segment, kind: str, seed: int = 0) -> tuple[Segment, tuple[int, int]]:
    """A segment whose pictures say the same in slightly other pixels; sound, name and truth stay.

    "noise": Gaussian, ``NOISE_GREY_LEVELS`` standard deviation, new in every pixel and frame. "shift": all crops one
    pixel left, right, up or down (edges repeated), as a box one pixel beside would cut them. "recoding": each stream's
    crops encoded as H.264 at the quantiser ``RECODING_QP`` and decoded (MPEG-4 Part 2 at its quantiser 8 where FFmpeg
    has no x264). The codec sees the crop, not the whole frame; real clips are compressed before they are cropped.

    Returns:
        The segment, and (right, down) in pixels by which its pictures have moved.

    Raises:
        OptionError: an unknown kind.
    """
    _check_kind(kind)
    rng = np.random.default_rng([seed, zlib.crc32(segment.name.encode()), KINDS.index(kind)])
    moved = (0, 0)
    if kind == "noise":
        crops = {}
        for stream, values in segment.crops.items():
            noisy = values + NOISE_GREY_LEVELS * rng.standard_normal(values.shape, np.float32)
            crops[stream] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    elif kind == "shift":
        moved = right, down = _SHIFTS[rng.integers(len(_SHIFTS))]
        crops = {}
        for stream, values in segment.crops.items():
            framed = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")
            crops[stream] = framed[:, 1 - down : 1 - down + CROP_SIZE, 1 - right : 1 - right + CROP_SIZE].copy()
    else:
        crops = {stream: recoded(values) for stream, values in segment.crops.items()}
    return replace(segment, crops=crops), moved


def recoded(crops: np.ndarray, qp: int = RECODING_QP) -> np.ndarray:
    """(T, h, w) uint8 of even sides, encoded as video at 25 frames a second in memory, and decoded again."""
    x264 = "libx264" in av.codecs_available
    if not x264:
        logger.warning("FFmpeg without x264: re-encoding with MPEG-4 Part 2, which is not comparable")
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        options = {"qp": str(qp), "x264-params": _X264} if x264 else {"qmin": "8", "qmax": "8"}
        stream = container.add_stream("libx264" if x264 else "mpeg4", rate=25, options=options)
        stream.height, stream.width = crops.shape[1:]
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        # Luma goes in and comes out as it is: no conversion of range or matrix; the colour planes are grey.
        colour = np.full((crops.shape[1] // 2, crops.shape[2]), 128, np.uint8)
        for picture in crops:
            frame = av.VideoFrame.from_ndarray(np.concatenate((picture, colour)), format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        container.streams.video[0].thread_count = 1
        return np.stack([frame.to_ndarray()[: crops.shape[1]] for frame in container.decode(video=0)])


def top_overlap(a: np.ndarray, b: np.ndarray, share: float = TOP_SHARE) -> float:
    """Intersection over union of the hottest ``share`` of the pixels of two maps of one shape, in [0, 1];
    NaN if both are constant.

    Pixels as hot as the last one in belong to the hottest too, but never the coldest of the map: of a map with a few
    hot pixels on a dark ground only those count, and where the dark happens to be listed first plays no part.
    """
    first, second = _hottest(np.asarray(a), share), _hottest(np.asarray(b), share)
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else float("nan")


def _hottest(values: np.ndarray, share: float) -> np.ndarray:
    places = max(1, round(share * values.size))
    last = np.partition(values, -places, axis=None)[-places]
    return values >= last if last > values.min() else values > values.min()


def _maps_and_p(
    explainer: Explainer, model: nn.Module, segment: Segment, smoothing: Smoothing, target: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """{stream: (T, 112, 112)} smoothed maps and (T,) P(speaking)."""
    inputs = inputs_of(model, segment)
    with torch.inference_mode():
        output = model(**inputs)
    heat = explainer.heat(model, inputs, target, None if explainer.needs_gradient else output)
    maps = {stream: on_pixels(model, values.float().cpu().numpy(), smoothing) for stream, values in heat.items()}
    return maps, output.p_speaking[0].float().cpu().numpy()


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise OptionError(f"unknown disturbance {kind!r}; choose one of {', '.join(KINDS)}")


def _kept(shift: int) -> slice:
    """Rows (columns) of the untouched map that the disturbed picture still shows."""
    return slice(max(0, -shift), CROP_SIZE - max(0, shift))


def _shares(crops: np.ndarray, maps: int) -> np.ndarray:
    """:func:`crop_motion` in shares of the crop's sides."""
    if len(crops) != maps:
        raise OptionError(f"{len(crops)} crops for {maps} maps; one each is needed")
    return crop_motion(crops) / np.array([crops.shape[2], crops.shape[1]])


def _move(picture: np.ndarray, right: float, down: float) -> tuple[np.ndarray, np.ndarray]:
    """A float32 picture (h, w) moved, bilinear, and (h, w) bool where the moved picture is known."""
    height, width = picture.shape
    to = np.array([[1.0, 0.0, right], [0.0, 1.0, down]])
    moved = cv2.warpAffine(picture, to, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    from_column, from_row = np.arange(width) - right, np.arange(height) - down
    # A thousandth of a pixel of slack: a motion of nearly nothing must not cost the border.
    column = (from_column >= -1e-3) & (from_column <= width - 1 + 1e-3)
    row = (from_row >= -1e-3) & (from_row <= height - 1 + 1e-3)
    return moved, row[:, None] & column[None]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two arrays of one shape; NaN where either is (nearly) constant."""
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    if min(len(a), len(b)) < 2 or any(np.ptp(v) <= TIE * np.abs(v).max() for v in (a, b)):
        return float("nan")
    a, b = (v / np.abs(v).max() for v in (a, b))
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))
