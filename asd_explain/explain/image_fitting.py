"""Fit the block of an image classifier to its frozen host, without labels.

The objective is that of :mod:`asd_explain.explain.gate_fitting`: leave the answers alone, close gates where that is
possible, and order channels by what the decision needs. Only what an answer is differs: a distribution over classes, or
one over yes and no for each attribute. What comes before the block is computed once for every picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.explain.gate_fitting import FitOptions, GateFitter
from asd_explain.models.images import START_GATE, ImageSqueeze, block_of, front, tail, without_block

#: Pictures in a step of the fit.
BATCH = 64


@dataclass(frozen=True)
class Fit:
    """What a fitted block does to its host's answers, on the pictures that it was fitted to.

    Attributes:
        drift: mean change of the answer in [0, 1]: total variation of the classes' probabilities, or mean |change| of
            the attributes'.
        agreement: share of pictures of the same class as before (of attributes: share told the same).
        mean_gate: in (0, 1).
        pictures: how many.
    """

    drift: float
    agreement: float
    mean_gate: float
    pictures: int


class PictureGateFitter(GateFitter):
    """Fits a new block for a squeezed classifier; see :class:`asd_explain.explain.gate_fitting.GateFitter`.

    Fusion vectors are here (B, 1, ...) of what the block is given: averages (C,) where the host reads nothing else
    (gates commute with them), all cells or tokens otherwise.

    Args:
        model: squeezed, frozen, in evaluation mode, its block bypassed.
        mean, std: (C,) of what is squeezed, over the pictures.
        options, seed: as there.
        multilabel: whether the logits are of attributes.
    """

    def __init__(
        self,
        model: nn.Module,
        mean: torch.Tensor,
        std: torch.Tensor,
        options: FitOptions,
        seed: int,
        multilabel: bool = False,
    ) -> None:
        self.options, self.model, self.multilabel, self.mean = options, model, multilabel, mean
        self.widths = [len(mean)]
        self.generator = torch.Generator().manual_seed(seed)
        self._place = block_of(model).place
        self._device = block_of(model).expand.weight.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.block = ImageSqueeze(self._place, options.reduction)
        self.block.set_statistics(mean, std)
        self.log_lambda = torch.tensor(2.0)
        self.smooth_drift = options.target_drift

    def margin(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, classes) logits."""
        x = x[:, 0]
        if x.dim() == 2:
            x = x[..., None, None].expand(-1, -1, *self._place.grid)
        # The fit itself is small and stays on the CPU, wherever the host is.
        return tail(self.model, x.to(self._device)).to(x)[:, None]

    def split(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the base class; nothing else is needed."""
        return x, x[..., :0]

    def joined(self, x: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        """See the base class."""
        del rest
        return x

    def squeezed(self, x: torch.Tensor) -> torch.Tensor:
        """See the base class."""
        return x if x.dim() == 3 else self.block.pooled(x[:, 0])[:, None]

    def _shaped(self, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """(..., C) as it broadcasts with ``x``."""
        if x.dim() == 3:
            return values
        return values[..., None, :] if self._place.layout == "tokens" else values[..., None, None]

    def gated(self, x: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """See the base class."""
        return self.block.scaled(x[:, 0], gates[:, 0])[:, None] if x.dim() > 3 else x * gates / START_GATE

    def kept(self, x: torch.Tensor, mask: torch.Tensor, by_mean: torch.Tensor) -> torch.Tensor:
        """See the base class."""
        filled = torch.where(by_mean, self.mean, torch.zeros(()))
        mask = self._shaped(mask, x)
        return mask * x + (1 - mask) * self._shaped(filled, x)

    def divergence(self, answer: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
        """See the base class; of attributes, the mean over them."""
        if self.multilabel:
            return super().divergence(answer, changed).mean(-1)
        return F.kl_div(changed.log_softmax(-1), answer.log_softmax(-1), reduction="none", log_target=True).sum(-1)

    def moved(self, answer: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
        """See the base class; total variation of the classes' probabilities."""
        if self.multilabel:
            return super().moved(answer, changed)
        return (changed.softmax(-1) - answer.softmax(-1)).abs().sum(-1).mean() / 2

    def balanced(self, loss: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        """See the base class; of attributes, the plain mean."""
        if self.multilabel:
            return loss.mean()
        classes = answer.argmax(-1)
        return torch.stack([loss[classes == c].mean() for c in classes.unique()]).mean()


def fit(
    model: nn.Module,
    images: torch.Tensor | Iterable,
    *,
    multilabel: bool = False,
    options: FitOptions | None = None,
    seed: int = 0,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> Fit:
    """Fit the block of a squeezed classifier; the host's weights, flags and modes stay as they are.

    Args:
        model: squeezed, in evaluation mode, wrapped or not.
        images: (N, 3, H, W) as the network takes them, or batches of such, or of (pictures, anything) as a DataLoader
            gives them; all of one size, at least two pictures. A few hundred that show every class do.
        multilabel: whether the logits are of attributes.
        options: see :class:`~asd_explain.explain.gate_fitting.FitOptions`; the reduction is the block's own.
        seed: of the start and of every draw.
        progress: called after each step with the objective's parts.

    Returns:
        What the fitted block does to the answers.

    Raises:
        OptionError: the network is in training mode, or there are fewer than two pictures.
    """
    block = block_of(model)
    if model.training or block.training:
        raise OptionError("a block is fitted to a network in evaluation mode; call model.eval() first")
    options = options or FitOptions()
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        with without_block(model), torch.enable_grad():
            x = _given(model, images)
            pooled = x[:, 0] if x.dim() == 3 else block.pooled(x[:, 0])
            own = FitOptions(**{**vars(options), "reduction": max(1, block.channels // block.reduce.out_features)})
            fitter = PictureGateFitter(model, pooled.mean(0), pooled.std(0), own, seed, multilabel)
            fitted = fitter.run(_batches(x, seed), progress)
        block.load_state_dict(fitted.state_dict())
        return _report(fitter, x)
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def batches_of(images: torch.Tensor | Iterable) -> Iterator[torch.Tensor]:
    """Batches (B, 3, H, W) of pictures (N, 3, H, W), or of batches of such or of (pictures, anything)."""
    for batch in images.split(BATCH) if isinstance(images, torch.Tensor) else images:
        yield batch if isinstance(batch, torch.Tensor) else batch[0]


def _given(model: nn.Module, images: torch.Tensor | Iterable) -> torch.Tensor:
    """(N, 1, ...) of what the block is given, or of its averages where nothing else is read; on the CPU."""
    block = block_of(model)
    device = next(model.parameters()).device
    parts = []
    for pictures in batches_of(images):
        with torch.no_grad():
            x, _ = front(model, pictures.to(device))
        parts.append((block.pooled(x) if block.place.averaged else x).float().cpu())
    if sum(map(len, parts)) < 2:
        raise OptionError("a block is fitted to at least two pictures; a few hundred are better")
    return torch.cat(parts)[:, None]


def _batches(x: torch.Tensor, seed: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        for chosen in torch.randperm(len(x), generator=generator).split(BATCH):
            # Another's selection needs another.
            if len(chosen) > 1:
                yield x[chosen]


@torch.no_grad()
def _report(fitter: PictureGateFitter, x: torch.Tensor) -> Fit:
    drifts, agree, gates = [], [], []
    with without_block(fitter.model):
        for some in x.split(BATCH):
            opened = fitter.block.excitation(fitter.squeezed(some))
            answer, changed = fitter.margin(some), fitter.margin(fitter.gated(some, opened))
            drifts.append(float(fitter.moved(answer, changed)) * len(some))
            same = (answer > 0) == (changed > 0) if fitter.multilabel else answer.argmax(-1) == changed.argmax(-1)
            agree.append(float(same.float().mean()) * len(some))
            gates.append(float(opened.mean()) * len(some))
    n = len(x)
    return Fit(sum(drifts) / n, sum(agree) / n, sum(gates) / n, n)
