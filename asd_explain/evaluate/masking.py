"""Which pixels go first, and what is put in their place: the parts of every test that removes evidence.

A crop cannot be cut out of a network's input, something must stand where it was. Three stand-ins, none of which is
right on its own: a *blur* of each frame takes away detail but keeps coarse motion; the *mean* grey of the segment holds
still and holds nothing, but its edges are a picture of the mask; ROAD's *noisy linear imputation* (Rong et al., "A
Consistent and Efficient Evaluation Strategy for Attribution Methods", arXiv 2202.00449) continues the picture smoothly
into the hole, so that the hole's outline tells the network little.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from asd_explain.errors import OptionError

MOVES = ("frame", "tube")
BASELINES = ("blur", "mean")
BLUR_SIGMA_PX = 10.0  # a mouth is about 40 px wide and 20 high in a crop of 112: its opening is gone
ROAD_NOISE = 0.01 * 255  # grey levels, standard deviation; the authors' 0.01 of the range of values
_TIES_SEED = 20220449


@lru_cache(maxsize=4)
def _lottery(pixels: int) -> np.ndarray:
    return np.random.default_rng(_TIES_SEED).permutation(pixels)


def order(heat: np.ndarray, move: str) -> np.ndarray:
    """When each pixel's turn comes, as a fraction of the pixels: those of rank < f are the most important fraction f.

    Ties are decided by one random permutation of the pixels, the same for every frame, clip and method: a constant map
    is a random order, not a raster scan, and one that does not change from frame to frame.

    Args:
        heat: (T, H, W); what is not finite counts as less than everything else.
        move: "frame": each frame has its own order; "tube": all have one, from the mean over time of what is finite.

    Returns:
        (T, H, W) float32 in [0, 1): 0 for the most important pixel, then 1 / (H W), 2 / (H W), ...

    Raises:
        OptionError: for an unknown move.
    """
    if move not in MOVES:
        raise OptionError(f"unknown move {move!r}; choose one of {', '.join(MOVES)}")
    heat = np.asarray(heat)
    length, height, width = heat.shape
    flat = heat.reshape(length, height * width)
    usable = np.isfinite(flat)
    if move == "tube":
        total = np.where(usable, flat, 0).sum(0, keepdims=True, dtype=np.float64)
        counts = usable.sum(0, keepdims=True)
        flat, usable = total / np.maximum(counts, 1), counts > 0
    lottery = _lottery(height * width)
    falling = np.where(usable, -flat, np.inf)[:, lottery]
    first = lottery[np.argsort(falling, 1, kind="stable")]
    ranks = np.empty(first.shape, np.float32)
    turns = (np.arange(height * width) / (height * width)).astype(np.float32)
    np.put_along_axis(ranks, first, np.broadcast_to(turns, first.shape), 1)
    return np.broadcast_to(ranks.reshape(-1, height, width), heat.shape).copy()


def baseline(crops: np.ndarray, kind: str) -> np.ndarray:
    """What is put in the place of removed pixels, for a whole segment.

    Args:
        crops: (T, H, W) uint8.
        kind: "blur": each frame blurred by a Gaussian of ``BLUR_SIGMA_PX``, which keeps coarse motion and light;
            "mean": the mean grey of all frames, everywhere and always: without any motion.

    Returns:
        (T, H, W) uint8.

    Raises:
        OptionError: for an unknown kind.
    """
    if kind == "mean":
        return np.full_like(crops, np.uint8(np.rint(crops.mean(dtype=np.float64))))
    if kind == "blur":
        return np.stack([cv2.GaussianBlur(c, (0, 0), BLUR_SIGMA_PX, borderType=cv2.BORDER_REPLICATE) for c in crops])
    raise OptionError(f"unknown baseline {kind!r}; choose one of {', '.join(BASELINES)}")


@lru_cache(maxsize=4)
def _smoothness(height: int, width: int) -> sparse.csr_matrix:
    """D - W of the grid: row i says "d_i times pixel i is the weighted sum of its neighbours", d_i the weights' sum."""
    pixels = np.arange(height * width).reshape(height, width)
    pairs = (
        (pixels[:, :-1], pixels[:, 1:], 1 / 6),
        (pixels[:-1], pixels[1:], 1 / 6),
        (pixels[:-1, :-1], pixels[1:, 1:], 1 / 12),
        (pixels[:-1, 1:], pixels[1:, :-1], 1 / 12),
    )
    one, other = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    weight = np.concatenate([np.full(pair[0].size, pair[2]) for pair in pairs])
    half = sparse.coo_matrix((weight, (one, other)), shape=(pixels.size, pixels.size))
    neighbours = (half + half.T).tocsr()
    return (sparse.diags(np.asarray(neighbours.sum(1)).ravel()) - neighbours).tocsr()


def linear_fill(pictures: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Holes filled so that every removed pixel is the weighted mean of its eight neighbours.

    Weights are 1/6 for the four direct neighbours and 1/12 for the diagonal ones (Rong et al. 2022, section 4.2);
    beyond the border there is no neighbour, and the rest counts in full. One sparse symmetric system, factorised once
    for all pictures.

    Args:
        pictures: (T, H, W).
        mask: (H, W) bool, True where removed. Where everything is, nothing is known but the picture's mean.

    Returns:
        (T, H, W) float64; pixels that were not removed are as they were.
    """
    filled = np.asarray(pictures, np.float64).copy()
    flat = filled.reshape(len(filled), -1)  # a view
    removed, kept = np.flatnonzero(mask), np.flatnonzero(~mask)
    if not len(removed):
        return filled
    if not len(kept):
        flat[:] = flat.mean(1, keepdims=True)
        return filled
    rows = _smoothness(*mask.shape)[removed]
    known = rows[:, kept] @ flat[:, kept].T
    # Symmetric and diagonally dominant: no pivoting is needed, and the ordering may be that of a symmetric matrix.
    factors = splu(
        rows[:, removed].tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    flat[:, removed] = factors.solve(-known).T
    return filled


def road_impute(crops: np.ndarray, mask: np.ndarray, rng: np.random.Generator, noise: float = ROAD_NOISE) -> np.ndarray:
    """ROAD's noisy linear imputation: :func:`linear_fill` and a little white noise on what was filled.

    The noise keeps a smooth hole from standing out. It is one picture of noise for all frames: noise that changes from
    frame to frame would be motion.

    Args:
        crops: (T, H, W) uint8.
        mask: True where removed; (H, W), one for all frames and fast, or (T, H, W).
        rng: of the noise; draws H x W numbers whatever the mask is.
        noise: standard deviation in grey levels.

    Returns:
        (T, H, W) uint8, rounded and cut off at 0 and 255.
    """
    mask = np.asarray(mask, bool)
    if mask.ndim == 2:
        filled = linear_fill(crops, mask)
    else:
        filled = np.concatenate([linear_fill(c[None], m) for c, m in zip(crops, mask, strict=True)])
    grain = rng.standard_normal(crops.shape[1:]) * noise
    filled += np.where(mask, grain, 0.0)
    return np.clip(np.rint(filled), 0, 255).astype(np.uint8)
