"""Fit a squeeze-and-excitation block to a frozen network without labels.

The block shall (1) leave the verdict alone, (2) close gates wherever it can, and (3) order channels by what the
decision needs, so that the channels with the widest gates suffice for it. Point 3 does not follow from 1 and 2: gates
that only have to be small on average find many arrangements, and which channels come first differs from run to run.
So what is to be measured is also trained. With x the fusion vector, g its gates, P the frozen network from the fusion
point on, and M its margin::

    minimise   w E_k KL(P(x) || P(keep_k(x))) + s mean(g) + saturation
    subject to mean |P(g x) - P(x)| <= target_drift

as  lambda (KL(P(x) || P(g x)) + |P(g x) - P(x)| + m Huber((M(g x) - M(x)) / scale))  plus the line to minimise, where
lambda is steered: it rises while the mean |change of P| is above the target and falls while it is below (dual ascent,
as in Rezende and Viola, arXiv 1810.00597). So the weight need not be guessed for each network, and all seeds end
equally near.

``keep_k`` keeps, in every frame, the k channels of each stream with the widest gates, unweighted; the others become
zero or, in half of the clips, their mean. k is drawn anew for each clip, log-uniformly (a nested dropout, Rippel
et al., arXiv 1402.0915, in the order of the gates). The choice is hard; its gradient is that of a logistic function
around the k-th gate (straight-through, Bengio et al., arXiv 1308.3432), and the order is jittered in training, so that
close ranks are tried both ways. Fidelity of a selection as an expected KL divergence is the objective of "Learning to
Explain" (Chen et al., arXiv 1802.07814); preserving the output under as small a mask as possible that of "meaningful
perturbations" (Fong and Vedaldi, arXiv 1704.03296).

Frames called speaking and frames called silent count alike in that expectation.

In half of the clips the selection of another clip of the batch is used. Without that, the choice of channels itself
tells the verdict: a selection made in a silent frame turned speaking ones silent (LR-ASD on dev: P moved by 0.55; with
it, by 0.09, at the same sufficiency), which is an answer in code and no evidence (Jethani et al., arXiv 2103.01890).

The saturation term holds pre-activations within +-5. Without it gates run to exactly 1 in floating point, where they
tie, and the order among the widest, the only ones that count, is lost. That, more than the data or the sparsity, made
rankings good in one run and useless in the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from asd_explain.evaluate.sufficiency import kept_count
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.se import SqueezeExcite

#: Pre-activations beyond this are pushed back: gates stay within 0.007 and 0.993.
PRE_LIMIT = 5.0


@dataclass(frozen=True)
class FitOptions:
    """How a gate is fitted.

    Attributes:
        reduction: of the block; channels / reduction hidden units.
        steps: of Adam.
        learning_rate: at its start; it falls to a hundredth along a cosine.
        target_drift: mean |change of P(speaking)| of the gated network that lambda steers to.
        keep_weight: w, weight of the hard selection; 0 leaves only the soft gate.
        margin_weight: m, weight of the change of the margin.
        sparsity: s, weight of the mean gate.
        mean_fill: share of clips in which channels not kept become their mean; in the others they become zero.
        jitter: standard deviation of the noise on the gates' pre-activations in ``keep_k`` (falls to zero).
        swap: share of clips that are given the selection of another clip of the batch.
        input_noise: standard deviation of the noise on the block's standardised input in training.
        temperature: width of the straight-through gradient, in pre-activations.
        least_share, most_share: range from which k is drawn, as shares of a stream's channels.
    """

    reduction: int = 16
    steps: int = 600
    learning_rate: float = 1e-2
    target_drift: float = 0.003
    keep_weight: float = 1.0
    margin_weight: float = 0.05
    sparsity: float = 0.3
    mean_fill: float = 0.5
    swap: float = 0.5
    jitter: float = 0.5
    input_noise: float = 0.3
    temperature: float = 2.0
    least_share: float = 0.05
    most_share: float = 0.3


def straight_through_top(pre: torch.Tensor, counts: torch.Tensor, temperature: float) -> torch.Tensor:
    """A hard mask of the largest entries whose gradient is that of a logistic function around the last one kept.

    Args:
        pre: (B, T, C) scores.
        counts: (B,) int, how many are kept in each frame of clip b, 1 to C.
        temperature: width of the logistic function.

    Returns:
        (B, T, C) of zeros and ones.
    """
    ordered = pre.detach().sort(-1, descending=True).values
    index = counts[:, None, None].expand(-1, pre.shape[1], 1)
    last = ordered.gather(-1, index - 1)
    after = ordered.gather(-1, index.clamp_max(pre.shape[-1] - 1))
    soft = torch.sigmoid((pre - (last + after) / 2) / temperature)
    hard = (pre.detach() >= last).to(pre.dtype)
    return hard + (soft - soft.detach())


def _kl(margin: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """KL divergence of two Bernoulli variables given by their log odds, elementwise."""
    p = torch.sigmoid(margin)
    return F.softplus(changed) - p * changed - (F.softplus(margin) - p * margin)


def _by_class(loss: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
    """Mean of the means over frames called speaking and over frames called silent, so that both classes count alike."""
    speaking = margin > 0
    if not speaking.any() or speaking.all():
        return loss.mean()
    return (loss[speaking].mean() + loss[~speaking].mean()) / 2


class GateFitter:
    """Fits one block; see the module's text.

    Args:
        model: frozen, in evaluation mode; its own block is ignored.
        mean, std: (C,) statistics of the fusion vector over the data.
        options: how.
        seed: of the start and of every draw.
    """

    def __init__(
        self, model: FusionBackbone, mean: torch.Tensor, std: torch.Tensor, options: FitOptions, seed: int
    ) -> None:
        self.options = options
        self.model = model
        self.widths = list(model.fusion_streams.values())
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.block = SqueezeExcite(sum(self.widths), options.reduction, standardise=True)
        nn.init.zeros_(self.block.expand.weight)
        nn.init.constant_(self.block.expand.bias, 2.0)
        self.block.set_statistics(mean, std)
        self.mean = mean
        self.log_lambda = torch.tensor(2.0)
        self.smooth_drift = options.target_drift

    def margin(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T) log odds of speaking of fusion vectors (B, T, C), without a block."""
        logits = self.model.classify(*x.split(self.widths, -1))
        return logits[..., 1] - logits[..., 0]

    def squeezed(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, C) what the block sees of ``x``."""
        return x

    def gated(self, x: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """``x`` behind gates (B, T, C)."""
        return gates * x

    def kept(self, x: torch.Tensor, mask: torch.Tensor, by_mean: torch.Tensor) -> torch.Tensor:
        """``x`` where the mask (B, T, C) is 1; elsewhere zero or, where ``by_mean`` (B, 1, 1), the channel's mean."""
        return mask * x + (1 - mask) * torch.where(by_mean, self.mean, torch.zeros(()))

    def divergence(self, answer: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
        """(B, T) KL divergence of what is answered from what is answered of the changed vectors."""
        return _kl(answer, changed)

    def moved(self, answer: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
        """Mean change of P, in [0, 1]."""
        return (torch.sigmoid(changed) - torch.sigmoid(answer)).abs().mean()

    def balanced(self, loss: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        """Mean of a loss (B, T) in which all verdicts count alike."""
        return _by_class(loss, answer)

    def _selection(self, pre: torch.Tensor, jitter: float) -> torch.Tensor:
        o = self.options
        pre = pre + jitter * torch.randn(pre.shape, generator=self.generator)
        low, high = torch.tensor(o.least_share).log(), torch.tensor(o.most_share).log()
        shares = (low + (high - low) * torch.rand(len(pre), generator=self.generator)).exp()
        return torch.cat(
            [
                straight_through_top(
                    part, torch.tensor([kept_count(part.shape[-1], float(s)) for s in shares]), o.temperature
                )
                for part in pre.split(self.widths, -1)
            ],
            -1,
        )

    def loss(self, x: torch.Tensor, jitter: float) -> tuple[torch.Tensor, dict[str, float]]:
        """The objective on a batch of fusion vectors (B, T, C), and its parts."""
        o = self.options
        b = len(x)
        seen = self.block.standardised(self.squeezed(x))
        seen = seen + o.input_noise * torch.randn(seen.shape, generator=self.generator)
        pre = self.block.expand(torch.relu(self.block.reduce(seen)))
        gates = torch.sigmoid(pre)
        changed = [x, self.gated(x, gates)]
        if o.keep_weight:
            mask = self._selection(pre, jitter)
            swapped = torch.rand(b, 1, 1, generator=self.generator) < o.swap
            mask = torch.where(swapped, mask.roll(1, 0), mask)
            by_mean = torch.rand(b, 1, 1, generator=self.generator) < o.mean_fill
            changed.append(self.kept(x, mask, by_mean))
        margins = self.margin(torch.cat(changed)).split(b)
        margin = margins[0].detach()
        drift = self.moved(margin, margins[1])
        kl = self.divergence(margin, margins[1]).mean()
        off = F.huber_loss((margins[1] - margin) / margin.std().clamp_min(1.0), torch.zeros_like(margin))
        kept = self.balanced(self.divergence(margin, margins[2]), margin) if o.keep_weight else torch.zeros(())
        weight = float(self.log_lambda.exp())
        faithful = kl + drift + o.margin_weight * off
        saturation = F.relu(pre.abs() - PRE_LIMIT).square().mean()
        total = (weight * faithful + o.keep_weight * kept + o.sparsity * gates.mean() + saturation) / (1 + weight)
        return total, {
            "drift": float(drift.detach()),
            "kept": float(kept.detach()),
            "gate": float(gates.detach().mean()),
            "lambda": weight,
        }

    def run(
        self, batches: Iterator[torch.Tensor], progress: Callable[[int, dict[str, float]], None] | None = None
    ) -> SqueezeExcite:
        """Fit on batches (B, T, C), as many as there are steps; returns the block in evaluation mode."""
        o = self.options
        optimiser = torch.optim.Adam(self.block.parameters(), o.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, o.steps, o.learning_rate / 100)
        for step in range(o.steps):
            total, parts = self.loss(next(batches), o.jitter * (1 - step / o.steps))
            optimiser.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(self.block.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            self.smooth_drift += 0.05 * (parts["drift"] - self.smooth_drift)
            excess = (self.smooth_drift - o.target_drift) / o.target_drift
            self.log_lambda = (self.log_lambda + 0.02 * max(-1.0, min(1.0, excess))).clamp(-2.0, 9.0)
            if progress is not None:
                progress(step, parts)
        return self.block.eval().requires_grad_(False)
