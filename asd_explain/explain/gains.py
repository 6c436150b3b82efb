"""Gains: how much a channel's map counts, per unit of gate.

A gate alone cannot say which of two channels matters more. Double a channel's activations and halve the weights that
read it, and the network is the same while gate times map has doubled; where a batch norm follows the block, even the
gate's own size is taken back. So heat that adds up gate times map needs one factor a channel, fixed for a network: its
gain. Gains are fitted by *occlusion*, on stretches that the network calls speaking, without labels:

1. Random soft masks show parts of a crop and blur the rest, still over the stretch (RISE, Petsiuk et al., arXiv
   1806.07421). The covariance of P(speaking) with each pixel of the masks, over the pixel's variance, is the *occlusion
   map*: by how much P rises when the pixel is shown.
2. The gains are the non-negative weights by which the sum of the channels' gated maps, each averaged over the stretch,
   comes closest to the occlusion maps: least squares within each stretch (what is the same in all cells is taken off),
   with a ridge; stretches in which hiding something moves P more count for more.

This is next to what deletion and insertion with a blur measure, on other clips: heat with gains is fitted to that test,
rivals are not. What it was not fitted to (ROAD's imputation, the mean grey, where the mouth is) tells whether more was
learnt than the test.

Occlusion costs hundreds of passes, which is why it is done once, when gains are fitted, and not when a clip is
explained. The gated maps then predict what occlusion would find, for one product a channel.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.masking import baseline
from asd_explain.evaluate.segments import Segment, inputs_of
from asd_explain.explain.gradients import maps_of
from asd_explain.explain.smooth import smooth_heat
from asd_explain.models.output import Output
from asd_explain.tracks.crops import CROP_SIZE

#: Squares of 16 pixels, twice a cell of the networks' maps; a mouth covers about three by two.
MASK_CELL_PX = 16
#: Fewer frames called speaking than these say nothing about speech.
MIN_SPEAKING = 5
_BATCH = 3


def occlusion_masks(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Random soft masks: squares shown or hidden by a coin, enlarged bilinearly and shifted by up to a square.

    Args:
        count: how many.
        rng: of coins and shifts.

    Returns:
        (count, 112, 112) float32 in [0, 1], 1 = shown.
    """
    squares = CROP_SIZE // MASK_CELL_PX + 1
    coins = torch.from_numpy(rng.integers(0, 2, (count, 1, squares, squares)).astype(np.float32))
    large = F.interpolate(coins, scale_factor=MASK_CELL_PX, mode="bilinear", align_corners=False)[:, 0]
    shifts = rng.integers(0, MASK_CELL_PX, (count, 2))
    return torch.stack([m[y : y + CROP_SIZE, x : x + CROP_SIZE] for m, (y, x) in zip(large, shifts, strict=True)])


def mask_effect(masks: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """By how much the answer rises when a pixel is shown: covariance of p with the pixel over the pixel's variance.

    Args:
        masks: (N, H, W) in [0, 1].
        p: (N,) the answer under each mask.

    Returns:
        (H, W); zero where the masks never change.
    """
    moved = masks - masks.mean(0)
    variance = moved.square().mean(0)
    covariance = torch.einsum("n,nhw->hw", p - p.mean(), moved) / len(p)
    return torch.where(variance > 0, covariance / variance.clamp_min(1e-12), 0.0)


@torch.inference_mode()
def occlusion_map(
    model: nn.Module, segment: Segment, stream: str, output: Output, count: int, seed: int = 0
) -> np.ndarray | None:
    """The occlusion map of a visual stream on a segment.

    Args:
        model: a backbone, in evaluation mode.
        segment: T frames.
        stream: "face" or "body".
        output: the network's output for the segment.
        count: masks.
        seed: of the masks, together with the segment's name.

    Returns:
        (112, 112) float32, change of the mean P(speaking) of the frames called speaking per unit of mask; or None where
        fewer than ``MIN_SPEAKING`` frames are.
    """
    speaking = output.p_speaking[0] >= 0.5
    if int(speaking.sum()) < MIN_SPEAKING:
        return None
    device = next(model.parameters()).device
    inputs = inputs_of(model, segment)
    crops = inputs[stream][0].float()
    hidden = torch.from_numpy(baseline(segment.crops[stream], "blur")).to(device).float()
    rng = np.random.default_rng(zlib.crc32(f"{seed}/{segment.name}/{stream}".encode()))
    masks = occlusion_masks(count, rng)
    others = {s: v for s, v in output.pooled.items() if s != stream}
    answers = []
    for some in masks.to(device).split(_BATCH):
        shown = some[:, None]
        pooled = model.pool(maps_of(model, stream, crops * shown + hidden * (1 - shown), inputs))
        there = {s: v.expand(len(some), -1, -1) for s, v in others.items()}
        answers.append(model.fuse(there | {stream: pooled}).p_speaking[:, speaking].mean(1))
    return mask_effect(masks, torch.cat(answers).float().cpu()).numpy()


def gated_maps(output: Output, stream: str, cells: float = 1.0) -> np.ndarray:
    """(C, h, w) float32: gate times map of one stream, averaged over the frames, smoothed over ``cells``."""
    gated = output.maps[stream][0].float() * output.gates[stream][0].float()[..., None, None]
    return smooth_heat(gated.mean(0).cpu().numpy(), 0.0, cells)


def at_cells(pixels: np.ndarray, shape: tuple[int, int], stride: float, offset: float) -> np.ndarray:
    """(h, w) values of (112, 112) pixels at the centres of a map's cells, each a mean over about a cell around it."""
    picture = smooth_heat(np.asarray(pixels, np.float32)[None], 0.0, 0.375 * stride)[0]
    rows, columns = (np.clip(np.rint(stride * np.arange(n) + offset).astype(int), 0, CROP_SIZE - 1) for n in shape)
    return picture[np.ix_(rows, columns)]


def _centred(maps: np.ndarray) -> np.ndarray:
    """(C, h, w) to (h w, C) float64, each channel minus its mean over the cells."""
    flat = maps.reshape(len(maps), -1).T.astype(np.float64)
    return flat - flat.mean(0)


def fit_gains(maps: Sequence[np.ndarray], targets: Sequence[np.ndarray], ridge: float) -> np.ndarray:
    """Non-negative weights by which the channels' maps add up to the targets; see the module's text.

    Args:
        maps: (C, h, w) of each stretch, of :func:`gated_maps`.
        targets: (h, w) of each stretch, of :func:`at_cells`.
        ridge: weight of the squared weights, in units of the mean squared channel; a channel's scale is taken off
            before it, so that it holds all channels down alike.

    Returns:
        (C,) float32 in [0, 1], the largest 1.

    Raises:
        OptionError: there is no stretch, a ridge below 0, or no channel explains anything.
    """
    if not maps or len(maps) != len(targets) or ridge < 0:
        raise OptionError(f"{len(maps)} maps, {len(targets)} targets, ridge {ridge}: nothing to fit")
    scale = np.mean([np.abs(m).mean((1, 2)) for m in maps], 0, dtype=np.float64)
    live = scale > 1e-6 * scale.max()
    scale = np.where(live, scale, 1.0)
    channels = len(scale)
    square, cross = np.zeros((channels, channels)), np.zeros(channels)
    for one, target in zip(maps, targets, strict=True):
        x, y = _centred(one) / scale * live, target.reshape(-1) - target.mean(dtype=np.float64)
        square += x.T @ x / len(y) / len(maps)
        cross += x.T @ y / len(y) / len(maps)
    if not np.trace(square) > 0:
        raise OptionError("every channel's map is the same in all cells; there are no gains to fit")
    square += max(ridge, 1e-9) * np.trace(square) / max(int(live.sum()), 1) * np.eye(channels)
    # |L' w - L^-1 b|^2 has the same minimum as the quadratic form.
    lower = np.linalg.cholesky(square)
    weights, _ = nnls(lower.T, np.linalg.solve(lower, cross), maxiter=50 * channels)
    gains = weights * live / scale
    if not gains.max() > 0:
        raise OptionError("no channel's map goes with what occlusion finds; there are no gains to fit")
    return (gains / gains.max()).astype(np.float32)


def agreement(gains: np.ndarray, maps: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> float:
    """Mean over stretches of the correlation over cells between the weighted maps and the targets, in [-1, 1].

    A stretch where either is the same in all cells counts as 0; NaN without stretches.
    """
    found = []
    for one, target in zip(maps, targets, strict=True):
        heat = np.tensordot(gains, one, 1).reshape(-1)
        usable = heat.std() > 0 and target.std() > 0
        found.append(float(np.corrcoef(heat, target.reshape(-1))[0, 1]) if usable else 0.0)
    return float(np.mean(found)) if found else float("nan")
