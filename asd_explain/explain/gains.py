"""Gains: how much a channel's map counts, per unit of gate.

A gate alone cannot say which of two channels matters more. Double a channel's activations and halve the weights that
read it, and the network is the same while gate times map has doubled; where a batch norm follows the block, even the
gate's own size is taken back. So heat that adds up gate times map needs one factor a channel, fixed for a network: its
gain. Gains are fitted by *occlusion*, on stretches that the network calls speaking, without labels:

1. A crop is blurred, still over the stretch, but for one soft round patch. By how much the log odds of speaking rise
   over those of the crop that is blurred everywhere is what the patch reveals: the *reveal map*, a value a patch of a
   grid. (Occlusion the other way about: Zeiler and Fergus, arXiv 1311.2901, hide one patch of a whole picture. A
   network that still sees the other half of a mouth hardly minds, so hiding little says little; and P itself is flat
   where the network is sure, hence log odds.)
2. The gains are the non-negative weights by which the sum of the channels' gated maps, each averaged over the stretch,
   comes closest to the reveal maps: least squares within each stretch (what is the same in all cells is taken off),
   with a ridge; stretches in which showing something moves the log odds more count for more.

This is next to what insertion with a blur measures, on other clips, and less directly what deletion does: heat with
gains is fitted to that test, rivals are not. What it was not fitted to (ROAD's imputation, the mean grey, where the
mouth is) tells whether more was learnt than the test.

Occlusion costs dozens of passes, which is why it is done once, when gains are fitted, and not when a clip is
explained. The gated maps then predict what occlusion would find, for one product a channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from scipy.optimize import minimize, nnls
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.masking import baseline
from asd_explain.evaluate.segments import Segment, inputs_of
from asd_explain.explain.gradients import maps_of
from asd_explain.explain.smooth import smooth_heat
from asd_explain.models.output import Output
from asd_explain.tracks.crops import CROP_SIZE

#: Between the centres of patches, the first on pixel 8: two cells of the networks' maps.
PATCH_STEP_PX = 16
#: Patches in a row and in a column.
SIDE = CROP_SIZE // PATCH_STEP_PX
#: Of a patch: neighbours overlap, and one shows about a mouth.
PATCH_SIGMA_PX = 10.0
#: Fewer frames called speaking than these say nothing about speech.
MIN_SPEAKING = 5
_BATCH = 3
#: Channels; beyond, the active set that is exact takes minutes where descent takes a second.
_EXACT_UP_TO = 256


def soft_patches(
    down: torch.Tensor, across: torch.Tensor, sigma: tuple[float, float], size: tuple[int, int]
) -> torch.Tensor:
    """Gaussian patches, rows first: (len(down) * len(across), height, width) float32 in [0, 1], 1 = shown.

    Args:
        down, across: pixels that the patches are centred on.
        sigma: standard deviations down and across, px.
        size: (height, width), px.
    """
    lines = [
        torch.exp(-0.5 * ((torch.arange(n, dtype=torch.float32) - centres[:, None]) / width).square())
        for centres, width, n in zip((down, across), sigma, size, strict=True)
    ]
    return torch.einsum("ay,bx->abyx", *lines).flatten(0, 1)


def patches() -> torch.Tensor:
    """Those of a crop, on a grid, rows first: (49, 112, 112) float32 in [0, 1], 1 = shown."""
    centres = torch.arange(PATCH_STEP_PX // 2, CROP_SIZE, PATCH_STEP_PX, dtype=torch.float32)
    return soft_patches(centres, centres, (PATCH_SIGMA_PX, PATCH_SIGMA_PX), (CROP_SIZE, CROP_SIZE))


@torch.inference_mode()
def reveal_map(model: nn.Module, segment: Segment, stream: str, output: Output) -> np.ndarray | None:
    """By how much showing one patch of a blurred stream raises the log odds of speaking.

    Args:
        model: a backbone, in evaluation mode.
        segment: T frames.
        stream: "face" or "body".
        output: the network's output for the segment.

    Returns:
        (7, 7) float32, the mean over the frames called speaking, at the centres of :func:`patches`; or None where
        fewer than ``MIN_SPEAKING`` frames are.
    """
    speaking = output.p_speaking[0] >= 0.5
    if int(speaking.sum()) < MIN_SPEAKING:
        return None
    device = next(model.parameters()).device
    inputs = inputs_of(model, segment)
    crops = inputs[stream][0].float()
    hidden = torch.from_numpy(baseline(segment.crops[stream], "blur")).to(device).float()
    shown = patches()
    others = {s: v for s, v in output.pooled.items() if s != stream}
    answers = []
    for some in torch.cat((torch.zeros_like(shown[:1]), shown)).to(device).split(_BATCH):
        part = some[:, None]
        pooled = model.pool(maps_of(model, stream, crops * part + hidden * (1 - part), inputs))
        there = {s: v.expand(len(some), -1, -1) for s, v in others.items()}
        answers.append(model.fuse(there | {stream: pooled}).margin[:, speaking].mean(1))
    answer = torch.cat(answers).float().cpu().numpy()
    return (answer[1:] - answer[0]).reshape(SIDE, SIDE)


def gated_maps(output: Output, stream: str, cells: float = 1.0) -> np.ndarray:
    """(C, h, w) float32: gate times map of one stream, averaged over the frames, smoothed over ``cells``."""
    gated = output.maps[stream][0].float() * output.gates[stream][0].float()[..., None, None]
    return smooth_heat(gated.mean(0).cpu().numpy(), 0.0, cells)


def at_cells(revealed: np.ndarray, shape: tuple[int, int], stride: float, offset: float) -> np.ndarray:
    """(h, w) values of a reveal map (7, 7) at the centres of a map's cells: bilinear, edges replicated."""
    rows, columns = ((stride * np.arange(n) + offset - PATCH_STEP_PX // 2) / PATCH_STEP_PX for n in shape)
    return map_coordinates(
        np.asarray(revealed, np.float32), np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest"
    )


def _centred(maps: np.ndarray) -> np.ndarray:
    """(C, h, w) to (h w, C) float64, each channel minus its mean over the cells."""
    flat = maps.reshape(len(maps), -1).T.astype(np.float64)
    return flat - flat.mean(0)


def channel_scale(maps: Sequence[np.ndarray]) -> np.ndarray:
    """(C,) float64, the mean size of each channel of (C, h, w) maps; infinite where it is next to nothing."""
    scale = np.mean([np.abs(m).mean((1, 2)) for m in maps], 0, dtype=np.float64)
    return np.where(scale > 1e-6 * scale.max(), scale, np.inf)


def normal_equations(
    maps: Sequence[np.ndarray], targets: Sequence[np.ndarray], scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of the targets by the channels, each over its scale: means over cells and stretches.

    Returns:
        (C, C) and (C,) float64: the weights w that fit best solve ``square @ w = cross``.
    """
    square, cross = np.zeros((len(scale), len(scale))), np.zeros(len(scale))
    for one, target in zip(maps, targets, strict=True):
        x, y = _centred(one) / scale, target.reshape(-1) - target.mean(dtype=np.float64)
        x /= np.sqrt(len(y) * len(maps))
        square += x.T @ x
        cross += x.T @ (y / np.sqrt(len(y) * len(maps)))
    return square, cross


def ridge_weights(square: np.ndarray, cross: np.ndarray, ridge: float, toward: np.ndarray | float = 0.0) -> np.ndarray:
    """(C,) weights >= 0 that minimise ``w' square w - 2 w' cross + ridge * m * |w - toward|^2``.

    m is the mean of the diagonal over channels that are not nothing: so a ridge is in units of a channel's mean square.
    Where all are nothing there is no more to learn: ``toward``, as far as it is not below 0.
    """
    start = np.broadcast_to(np.maximum(np.asarray(toward, np.float64), 0), cross.shape).copy()
    if not np.trace(square) > 0:
        return start
    held = max(ridge, 1e-9) * np.trace(square) / int((np.diag(square) > 0).sum())
    matrix, right = square + held * np.eye(len(cross)), cross + held * toward
    if len(cross) <= _EXACT_UP_TO:
        # |L' w - L^-1 b|^2 has the same minimum as the quadratic form.
        lower = np.linalg.cholesky(matrix)
        return nnls(lower.T, np.linalg.solve(lower, right), maxiter=50 * len(cross))[0]

    def form(w: np.ndarray) -> tuple[float, np.ndarray]:
        product = matrix @ w
        return 0.5 * float(w @ product) - float(right @ w), product - right

    options = {"maxiter": 5000, "maxfun": 10000, "maxcor": 30, "ftol": 1e-14, "gtol": 1e-9 * np.abs(right).max()}
    return minimize(form, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(cross), options=options).x


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
    scale = channel_scale(maps)
    square, cross = normal_equations(maps, targets, scale)
    if not np.trace(square) > 0:
        raise OptionError("every channel's map is the same in all cells; there are no gains to fit")
    gains = ridge_weights(square, cross, ridge) / scale
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
