"""Class activation maps of the gradient family, with the frame as target, and FEM, their relative without gradients.

The formulas are pure functions of activations A and gradients G, both (N, C, *cells). In the protocol "frame", ours, N
is the frames and the cells are a frame's (h, w): the heat of frame t is about the logit of frame t. In the protocol
"clip" N is 1 and the cells are (T, h, w): one logit, the mean over the frames, and one weight a channel for the clip.
That is what the library pytorch-grad-cam makes of a network for video, and it is here to be compared with that.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.explain.base import Explainer, register, scored
from asd_explain.explain.gradients import (
    clip_gradients,
    embeddings,
    frame_gradients,
    gradients_on,
    need_evaluation_mode,
    through_pool,
)
from asd_explain.models.output import Output

PROTOCOLS = ("frame", "clip")
LIBRARY_EPSILON = 1e-6  # in the denominator of pytorch-grad-cam's GradCAM++


def _weighted(activations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return torch.einsum("nc...,nc->n...", activations, weights)


def gradcam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """GradCAM (Selvaraju et al., arXiv 1610.02391, equations 1 and 2) before its ReLU.

    Args:
        activations, gradients: (N, C, *cells).

    Returns:
        (N, *cells): sum over channels of A weighted by the mean of G over the cells.
    """
    return _weighted(activations, gradients.flatten(2).mean(-1))


def gradcam_plus_plus(activations: torch.Tensor, gradients: torch.Tensor, epsilon: float = 0.0) -> torch.Tensor:
    """GradCAM++ (Chattopadhay et al., arXiv 1710.11063, equations 10 and 19 for an exponential score), before its ReLU.

    With S the channel's sum of A, a cell of positive gradient g weighs g * g^2 / (2 g^2 + S g^3 + epsilon), which is
    g / (2 + S g + epsilon / g^2); other cells do not count.

    Args:
        activations, gradients: (N, C, *cells).
        epsilon: 0 is the paper's formula. A constant makes the map depend on the logit's scale; pytorch-grad-cam has
            1e-6.

    Returns:
        (N, *cells).
    """
    total = activations.flatten(2).sum(-1)
    g = gradients.flatten(2).clamp_min(0)
    below = 2 + total[..., None] * g
    if epsilon:
        below = below + epsilon / g.square()
    weights = torch.where((g > 0) & (below != 0), g / below, 0.0).sum(-1)
    return _weighted(activations, weights)


def eigengradcam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """EigenGradCAM: G * A projected on its first principal component (EigenCAM, arXiv 2008.00299, on G * A).

    Cells are samples, channels variables; each channel's mean over the cells is taken off. A principal component has no
    sign of its own, and pytorch-grad-cam takes the one that its linear algebra happens to give. Ours is fixed: the map
    correlates positively over the cells with the sum of G * A over the channels, which is to say that the component's
    entries sum to a positive number. On the reference clip this is also the library's sign.

    Args:
        activations, gradients: (N, C, *cells).

    Returns:
        (N, *cells), mean zero over the cells; zero where G * A is the same in all cells.
    """
    product = (activations * gradients).flatten(2).double()
    product = product - product.mean(-1, keepdim=True)
    # C x C whatever the number of cells; in double precision squaring the singular values loses nothing that counts.
    _, vectors = torch.linalg.eigh(product @ product.mT)
    first = vectors[..., -1]
    first = first * torch.where(first.sum(-1, keepdim=True) < 0, -1.0, 1.0)
    projected = torch.einsum("ncm,nc->nm", product, first)
    return projected.to(activations.dtype).reshape(activations.shape[:1] + activations.shape[2:])


def fem(activations: torch.Tensor, k: float = 2.0) -> torch.Tensor:
    """Feature Explanation Method (Fuad et al., IPTA 2020): where each channel is unusually strong.

    A channel's cells at or above mean + k standard deviations (population) are one, the others zero; the channels are
    summed, weighted by their means. A channel that is the same everywhere marks nothing.

    Args:
        activations: (N, C, *cells).
        k: the authors' and pytorch-grad-cam's default is 2.

    Returns:
        (N, *cells).
    """
    flat = activations.flatten(2)
    mean, std = flat.mean(-1, keepdim=True), flat.std(-1, correction=0, keepdim=True)
    strong = (flat >= mean + k * std) & (flat.amax(-1, keepdim=True) > flat.amin(-1, keepdim=True))
    heat = torch.einsum("ncm,nc->nm", strong.to(flat), mean[..., 0])
    return heat.reshape(activations.shape[:1] + activations.shape[2:])


class GradientHeat(Explainer):
    """A formula over activations and gradients, with the contract of an explainer around it.

    The encoders run at most once and without gradients, not at all where an output with maps is given. Works inside
    inference mode, and leaves parameters, flags and modes of the network alone.

    Args:
        name: name in the registry.
        formula: (A, G) to (N, *cells).
        protocol: "frame" or "clip".

    Raises:
        OptionError: for an unknown protocol.
    """

    needs_gradient = True

    def __init__(
        self, name: str, formula: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], protocol: str = "frame"
    ) -> None:
        if protocol not in PROTOCOLS:
            raise OptionError(f"unknown protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
        self.name, self.protocol, self._formula = name, protocol, formula

    def heat(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], target: int = 1, output: Output | None = None
    ) -> dict[str, torch.Tensor]:
        """See :meth:`Explainer.heat`; {stream: (T, h, w)} of the network's last maps.

        Raises:
            OptionError: the network is in training mode, or nothing is given to explain.
        """
        return {stream: raw.relu() for stream, raw in self.raw(model, inputs, target, output).items()}

    def raw(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], target: int = 1, output: Output | None = None
    ) -> dict[str, torch.Tensor]:
        """Like :meth:`heat`, before negative values are cut off."""
        need_evaluation_mode(model)
        with gradients_on():
            pooled, maps = embeddings(model, inputs, output)
        gradients_of = clip_gradients if self.protocol == "clip" else frame_gradients
        gradients = gradients_of(model, pooled, list(maps), target)
        result = {}
        for stream, values in maps.items():
            # One neighbour, the frame itself, in the protocol "frame".
            by_pooled = gradients[stream].reshape(pooled[stream].shape[1:])
            by_maps = through_pool(model, values[0], by_pooled)
            if self.protocol == "clip":
                result[stream] = self._formula(values.transpose(1, 2), by_maps.transpose(0, 1)[None])[0]
            else:
                result[stream] = self._formula(values[0], by_maps)
        return result


@register("gradcam")
def gradcam_heat(protocol: str = "frame") -> GradientHeat:
    """GradCAM, see :func:`gradcam`."""
    return GradientHeat("gradcam", gradcam, protocol)


@register("gradcam++")
def gradcam_plus_plus_heat(protocol: str = "frame") -> GradientHeat:
    """GradCAM++, see :func:`gradcam_plus_plus`; with the library's epsilon under its protocol, with none under ours.

    Under a max pool a channel that is zero in all of a frame's cells has a tie, and the gradient is shared by the cells
    that tie; a pool module would give it to the first cell. Only GradCAM++ in the protocol "clip" can tell: by up to
    8 % of the largest value on the reference clip.
    """
    epsilon = LIBRARY_EPSILON if protocol == "clip" else 0.0
    return GradientHeat("gradcam++", lambda a, g: gradcam_plus_plus(a, g, epsilon), protocol)


@register("eigengradcam")
def eigengradcam_heat(protocol: str = "frame") -> GradientHeat:
    """EigenGradCAM, see :func:`eigengradcam`, also for the sign."""
    return GradientHeat("eigengradcam", eigengradcam, protocol)


@register("fem")
class FemHeat(Explainer):
    """FEM of every frame by itself, see :func:`fem`. Needs no gradient and knows no target.

    Args:
        k: standard deviations above the mean from which a cell counts.
    """

    name = "fem"

    def __init__(self, k: float = 2.0) -> None:
        self.k = k

    def heat(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], target: int = 1, output: Output | None = None
    ) -> dict[str, torch.Tensor]:
        """See :meth:`Explainer.heat`."""
        del target
        output = scored(model, inputs, output)
        return {stream: fem(maps[0], self.k).relu() for stream, maps in output.maps.items()}
