"""Gains of an image classifier's block: how much a channel's map counts for a class, per unit of gate.

Why a gate needs a gain, and how gains are fitted to what patches of a blurred picture reveal, stands in
:mod:`asd_explain.explain.gains`. Two things differ for pictures. The answer is the log odds of the class that the
network says of the whole picture against all others (of attributes: those of the one that is most surely there). And a
channel that speaks for cats says nothing of ships, so that each class has gains of its own. They are held towards those
that fit all pictures alike, the more the fewer pictures were said to be of the class; a class that was said of fewer
than five has the gains of all.

No label is read, and no gradient: a picture costs 51 passes, once. Explaining then costs what it cost before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.images import picture_baseline
from asd_explain.explain.gains import (
    PATCH_SIGMA_PX,
    SIDE,
    agreement,
    channel_scale,
    normal_equations,
    ridge_weights,
    soft_patches,
)
from asd_explain.explain.gradients import need_evaluation_mode
from asd_explain.explain.image_fitting import batches_of
from asd_explain.explain.images import STREAM, PictureNetwork, predicted
from asd_explain.models.images import block_of
from asd_explain.models.output import Output
from asd_explain.tracks.crops import CROP_SIZE

#: Standard deviation of a patch, as a share of the picture's sides.
SIGMA = PATCH_SIGMA_PX / CROP_SIZE
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
#: How hard a class is held towards all pictures: divided by the number of its pictures, it is a ridge.
#: With the last one no class has gains of its own.
HOLDS = (1.0, 3.0, 10.0, 30.0, 100.0, math.inf)
#: Every so-manieth picture said to be of a class is held back to choose ridge and hold on.
HELD_BACK = 5
#: Pictures from which a class has gains of its own.
MIN_SAID = 5
#: What moves the log odds by less shows nothing but rounding.
MOVED = 1e-3
#: With fewer there is nothing to choose on.
MIN_PICTURES = 2 * HELD_BACK


@dataclass(frozen=True)
class GainsFit:
    """What was fitted, and how well it did on every fifth picture, held back, before it was fitted to all.

    Ridge and hold were chosen on the same pictures, so the figures flatter a little.

    Attributes:
        pictures: how many showed something.
        classes: how many classes have gains of their own; 0 where all share theirs.
        ridge, hold: chosen on the pictures held back.
        without: mean correlation over cells with what patches reveal, of gate times map alone.
        shared: the same with the gains of all pictures.
        own: the same with each class's own.
    """

    pictures: int
    classes: int
    ridge: float
    hold: float
    without: float
    shared: float
    own: float


@dataclass(frozen=True)
class _Look:
    """One picture: the class that is said, gate times map (C, h, w), and what patches reveal at the cells (h, w)."""

    said: int
    maps: np.ndarray
    target: np.ndarray


def log_odds(logits: torch.Tensor, target: int, multilabel: bool) -> torch.Tensor:
    """(N,) log of P / (1 - P) of a class (softmax) or of an attribute (sigmoid), of logits (N, classes)."""
    if multilabel or logits.shape[1] == 1:
        return logits[:, target]
    others = torch.cat((logits[:, :target], logits[:, target + 1 :]), 1)
    return logits[:, target] - others.logsumexp(1)


def picture_patches(size: tuple[int, int]) -> torch.Tensor:
    """Soft patches on a grid of 7 x 7 over a picture of (H, W) pixels, rows first: (49, H, W) in [0, 1], 1 = shown."""
    down, across = ((torch.arange(SIDE) + 0.5) * n / SIDE - 0.5 for n in size)
    return soft_patches(down, across, (SIGMA * size[0], SIGMA * size[1]), size)


@torch.inference_mode()
def picture_reveal(model: nn.Module, picture: torch.Tensor, target: int, multilabel: bool = False) -> np.ndarray:
    """By how much showing one patch of a blurred picture raises the log odds of a class.

    Args:
        model: a classifier, in evaluation mode.
        picture: (3, H, W) as it takes it.
        target: the class, or attribute.
        multilabel: whether the logits are of attributes.

    Returns:
        (7, 7) float32, over the log odds of the picture that is blurred everywhere.
    """
    hidden = torch.from_numpy(picture_baseline(picture.float().cpu().numpy(), "blur")).to(picture)
    shown = picture_patches(tuple(picture.shape[1:])).to(picture)[:, None]
    answers = log_odds(model(torch.cat((hidden[None], picture * shown + hidden * (1 - shown)))), target, multilabel)
    return (answers[1:] - answers[0]).reshape(SIDE, SIDE).float().cpu().numpy()


def fit_gains(
    model: nn.Module,
    images: torch.Tensor | Iterable,
    *,
    multilabel: bool = False,
    progress: Callable[[int], object] | None = None,
) -> GainsFit:
    """Fit the gains of a squeezed classifier and leave them in its block; they are part of its state dict from then on.

    Args:
        model: squeezed and trained or fitted, in evaluation mode, wrapped or not.
        images: (N, 3, H, W) as the network takes them, or batches of such, or of (pictures, anything) as a DataLoader
            gives them; ten pictures at least. A hundred a class do; fewer lean on those of all classes.
        multilabel: whether the logits are of attributes.
        progress: called after each picture with 1.

    Raises:
        OptionError: there are too few pictures that show something, they cannot be read as pictures, the block has
            learnt nothing, or heat with gains goes no better with what is revealed than heat without.
    """
    network, block = PictureNetwork(model), block_of(model)
    need_evaluation_mode(network)
    if not block.learnt:
        raise OptionError("the block has learnt nothing yet: train the network, or fit the block, before its gains")
    looks, classes = [], 0
    for picture in _pictures(images, next(model.parameters()).device):
        output = network.score(picture[None])[0]
        classes = output.logits.shape[-1]
        looks.append(_look(model, picture, output, multilabel))
        if progress is not None:
            progress(1)
    telling = [
        k for k in looks if np.ptp(k.target) > MOVED and np.isfinite(k.target).all() and np.isfinite(k.maps).all()
    ]
    if len(telling) < MIN_PICTURES:
        raise OptionError(
            f"of {len(looks)} pictures {len(telling)} have a place that moves the answer when it alone is shown; gains "
            f"need at least {MIN_PICTURES}, a hundred a class are better"
        )
    gains, found = _fitted(telling, classes)
    if not found.own > found.without:  # at worst what all share: one of the holds leaves classes nothing of their own
        raise OptionError(
            f"gains go with what patches reveal no better (correlation {found.own:.3f}) than gates alone "
            f"({found.without:.3f}); give more pictures, or do without"
        )
    block.set_gains(torch.from_numpy(gains).to(next(model.parameters()).device))
    return found


def _pictures(images: torch.Tensor | Iterable, device: torch.device) -> Iterator[torch.Tensor]:
    for pictures in batches_of(images):
        if pictures.dim() != 4 or pictures.shape[1] != 3 or not pictures.is_floating_point():
            raise OptionError(
                f"pictures must be (N, 3, H, W) of floats, or batches of them, not {tuple(pictures.shape)} of "
                f"{pictures.dtype}"
            )
        yield from pictures.to(device)


def _look(model: nn.Module, picture: torch.Tensor, output: Output, multilabel: bool) -> _Look:
    said = predicted(output.logits[0, 0])
    gated = output.maps[STREAM][0, 0].float() * output.gates[STREAM][0, 0].float()[:, None, None]
    maps = gated.cpu().numpy()
    places = [(np.arange(n) + 0.5) * SIDE / n - 0.5 for n in maps.shape[1:]]
    revealed = picture_reveal(model, picture, said, multilabel)
    target = map_coordinates(revealed, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
    return _Look(said, maps, target)


def _shared(looks: Sequence[_Look], scale: np.ndarray, ridges: Sequence[float]) -> dict[float, np.ndarray]:
    equations = normal_equations([k.maps for k in looks], [k.target for k in looks], scale)
    return {ridge: ridge_weights(*equations, ridge) for ridge in ridges}


def _own(
    looks: Sequence[_Look], scale: np.ndarray, shared: np.ndarray, holds: Sequence[float]
) -> dict[float, dict[int, np.ndarray]]:
    """{hold: {class: weights}} of the classes that are said of ``MIN_SAID`` pictures at least."""
    found: dict[float, dict[int, np.ndarray]] = {hold: {} for hold in holds}
    for said in sorted({look.said for look in looks}):
        some = [look for look in looks if look.said == said]
        if len(some) < MIN_SAID:
            continue
        equations = normal_equations([k.maps for k in some], [k.target for k in some], scale)
        for hold in filter(math.isfinite, holds):
            found[hold][said] = ridge_weights(*equations, hold / len(some), shared)
    return found


def _agreement(looks: Sequence[_Look], weights_of: Callable[[int], np.ndarray]) -> float:
    return float(np.mean([agreement(weights_of(look.said), [look.maps], [look.target]) for look in looks]))


def _fitted(looks: Sequence[_Look], classes: int) -> tuple[np.ndarray, GainsFit]:
    """((classes, C) float32 in [0, 1], the largest of a class 1; what was found)."""
    # By class: of each the same share is held back, in whatever order they came.
    looks = sorted(looks, key=lambda look: look.said)
    held_back, rest = looks[::HELD_BACK], [k for i, k in enumerate(looks) if i % HELD_BACK]
    scale = channel_scale([k.maps for k in looks])
    tried = _shared(rest, scale, RIDGES)
    of_all = {ridge: _agreement(held_back, lambda _, w=w: w / scale) for ridge, w in tried.items()}
    ridge = max(of_all, key=of_all.get)
    own = _own(rest, scale, tried[ridge], HOLDS)
    of_own = {h: _agreement(held_back, lambda s, w=w: w.get(s, tried[ridge]) / scale) for h, w in own.items()}
    hold = max(reversed(HOLDS), key=of_own.get)  # of equals the strongest
    shared = _shared(looks, scale, [ridge])[ridge]
    weights = _own(looks, scale, shared, [hold])[hold]
    gains = np.stack([weights.get(k, shared) for k in range(classes)]) / scale
    if not shared.max() > 0:
        raise OptionError("no channel's map goes with what patches reveal; there are no gains to fit")
    # A class that nothing speaks for has the gains of all.
    gains = np.where(gains.max(1, keepdims=True) > 0, gains, shared / scale)
    gains /= gains.max(1, keepdims=True)
    without = _agreement(held_back, lambda _: np.ones(len(scale)))
    found = GainsFit(len(looks), len(weights), ridge, hold, without, of_all[ridge], of_own[hold])
    return gains.astype(np.float32), found
