"""Explanations of pictures, by the same explainers as for faces in a clip: a picture is one stream of one frame.

    heat = explain(model, picture)                        # squeeze-and-excitation, (H, W)
    heat = explain(model, picture, "gradcam", target=3)   # of one class, or of one attribute

``model`` is what :func:`asd_explain.models.images.squeeze` returned, wrapped or not, in evaluation mode; ``picture`` is
what it takes. Gradients are those of the target's logit by what the block is given, so they pass through the block, as
they do in a network for clips. A network without a trained block is explained by the rivals if it is squeezed first: a
block that has learnt nothing changes nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.explain.base import Explainer, create_explainer
from asd_explain.explain.fullgrad import Completeness, FullGradHeat, completeness
from asd_explain.explain.geometry import over_picture, upsample
from asd_explain.explain.gradients import need_evaluation_mode
from asd_explain.explain.squeeze import SqueezeHeat
from asd_explain.models.images import block_of, front, tail
from asd_explain.models.output import Output

STREAM = "image"
#: Of the control "centre": standard deviation of the blob, as a share of the picture's sides.
CENTRE_SIGMA = 0.25
#: What asks for a face and has no meaning for a picture.
FACES_ONLY = ("mouth",)
_NOT_SPLIT = (nn.LayerNorm, nn.GroupNorm, nn.MultiheadAttention, nn.RMSNorm)


class PictureNetwork:
    """A squeezed classifier in the shape of a network for clips: one stream, "image", whose frames are pictures.

    ``pool`` keeps all cells, and ``fuse`` is the host from the block on. So whatever the host does behind its block
    (average, flatten, attend), gradients by the maps are exact.

    Args:
        model: a squeezed classifier.
    """

    halo_frames = 0
    # Cells cover a picture from edge to edge; see asd_explain.explain.geometry.over_picture.
    map_stride_px, map_offset_px = None, None
    learned_absence = False
    beside: dict[str, tuple[str, ...]] = {}  # noqa: RUF012

    def __init__(self, model: nn.Module) -> None:
        self.model, self.block = model, block_of(model)
        self.streams = {STREAM: self.block.channels}
        self._shape: torch.Size | None = None
        self._class_token: torch.Tensor | None = None

    @property
    def training(self) -> bool:
        """Whether the network or its block is in training mode."""
        return self.model.training or self.block.training

    @property
    def gains(self) -> dict[str, torch.Tensor]:
        """{"image": (classes, C)} of the block, if it has any."""
        return {} if self.block.gains is None else {STREAM: self.block.gains}

    def score(self, images: torch.Tensor) -> list[Output]:
        """One forward without gradients: an output, of one frame, of each of the pictures (N, 3, H, W)."""
        with torch.no_grad():
            x, logits = front(self.model, images)
            maps, gates = self.block.as_maps(x, tuple(images.shape[-2:])), self.block.gates_of(x)
        flat = x.flatten(1)
        return [
            Output(
                logits=logits[i][None, None],
                gates={STREAM: gates[i][None, None]},
                maps={STREAM: maps[i][None, None]},
                pooled={STREAM: flat[i][None, None]},
                standardised={STREAM: flat[i][None, None]},
            )
            for i in range(len(images))
        ]

    def image_maps(self, images: torch.Tensor) -> torch.Tensor:
        """(1, N, 3, H, W) to maps (1, N, C, h, w), with gradients where they are recorded."""
        x, _ = front(self.model, images[0].to(self.block.expand.weight.dtype))
        return self._keep(x, tuple(images.shape[-2:]))[None]

    def _keep(self, x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        self._shape = x.shape[1:]
        self._class_token = x[:, :1] if self.block.place.class_token else None
        return self.block.as_maps(x, size)

    def encode(self, image: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """See :meth:`asd_explain.models.fusion_backbone.FusionBackbone.encode`."""
        maps = self.image_maps(image)
        return {STREAM: self.pool(maps)}, {STREAM: maps}

    def restore(self, output: Output) -> None:
        """Take up an output of :meth:`score` again, so that :meth:`pool` knows what else its picture had."""
        rows, maps = output.pooled[STREAM][0], output.maps[STREAM]
        tokens = self.block.place.layout == "tokens"
        self._shape = torch.Size((rows.shape[1] // maps.shape[2], maps.shape[2])) if tokens else maps.shape[2:]
        self._class_token = rows.unflatten(1, self._shape)[:, :1] if self.block.place.class_token else None

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        """(1, N, C, h, w) to (1, N, D): all that the block is given, in one row."""
        if self.block.place.layout == "maps":
            return maps.flatten(2)
        tokens = maps[0].flatten(2).transpose(1, 2)
        if self._class_token is not None:
            tokens = torch.cat((self._class_token, tokens), 1)
        return tokens.flatten(1)[None]

    def fuse(self, pooled: dict[str, torch.Tensor]) -> Output:
        """(B, T, D) rows of :meth:`pool` to logits (B, T, classes)."""
        rows = pooled[STREAM]
        logits = tail(self.model, rows.flatten(0, 1).unflatten(1, self._shape))
        return Output(logits=logits.unflatten(0, rows.shape[:2]), pooled=pooled)


class CentreHeat(Explainer):
    """A Gaussian in the middle of the picture, on its own pixels; 1 at its centre."""

    name = "centre"
    needs_inputs = True

    def heat(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], target: int = 1, output: Output | None = None
    ) -> dict[str, torch.Tensor]:
        """See :meth:`Explainer.heat`."""
        del model, target, output
        height, width = inputs[STREAM].shape[-2:]
        down, across = (((torch.arange(n) + 0.5) / n - 0.5) / CENTRE_SIGMA for n in (height, width))
        return {STREAM: torch.exp(-0.5 * (down[:, None] ** 2 + across**2))[None]}


def picture_explainer(method: str, **options: object) -> Explainer:
    """An explainer of the registry for pictures.

    Raises:
        OptionError: there is none of this name, or it has no meaning for a picture.
    """
    if method in FACES_ONLY:
        raise OptionError(f"explainer {method!r} knows where a face has its mouth; a picture has no such place")
    return CentreHeat() if method == "centre" else create_explainer(method, **options)


def beyond_fullgrad(model: nn.Module) -> nn.Module | None:
    """A module that FullGrad does not split into input and biases, if there is any."""
    return next((module for module in model.modules() if isinstance(module, _NOT_SPLIT)), None)


def predicted(logits: torch.Tensor) -> list[int]:
    """The class of the largest logit, picture by picture; of attributes the one that is most surely there."""
    return logits.argmax(-1).tolist()


def raw_heat(
    model: nn.Module,
    images: torch.Tensor,
    method: str | Explainer = "se",
    target: int | Sequence[int] | None = None,
    outputs: Sequence[Output] | None = None,
    **options: object,
) -> list[np.ndarray]:
    """Heat as the method makes it, on its own cells.

    Args:
        model, images, method, target, options: see :func:`explain_batch`; or an explainer in place of its name.
        outputs: of :meth:`PictureNetwork.score`, where they are known.

    Returns:
        One (h, w) float32 array >= 0 a picture.
    """
    explainer = picture_explainer(method, **options) if isinstance(method, str) else method
    network = PictureNetwork(model)
    need_evaluation_mode(network)
    images = _checked(images, network, explainer)
    outputs = network.score(images) if outputs is None else outputs
    targets = _targets(target, outputs)
    found = []
    for image, output, one in zip(images, outputs, targets, strict=True):
        network.restore(output)
        inputs = {STREAM: image[None, None]} if explainer.needs_inputs else {}
        found.append(explainer.heat(network, inputs, one, output)[STREAM][0].float().cpu().numpy())
    return found


def _checked(images: torch.Tensor, network: PictureNetwork, explainer: Explainer) -> torch.Tensor:
    """The pictures in the network's own precision."""
    if images.dim() != 4 or images.shape[1] != 3 or not images.numel():
        raise OptionError(f"pictures must be (N, 3, H, W), at least one of them, not {tuple(images.shape)}")
    if not images.is_floating_point() or not bool(torch.isfinite(images).all()):
        raise OptionError(f"pictures must be finite floating point numbers, as the network takes them ({images.dtype})")
    if isinstance(explainer, SqueezeHeat) and not network.block.learnt:
        raise OptionError(
            f"the block has learnt nothing yet, so {explainer.name!r} would explain nothing: train the network, or fit "
            "the block with asd_explain.explain.image_fitting.fit(model, images)"
        )
    if isinstance(explainer, FullGradHeat) and (odd := beyond_fullgrad(network.model)) is not None:
        raise OptionError(
            "fullgrad splits networks of convolutions, batch norms and linear layers; this one has a "
            f"{type(odd).__name__}, whose share it does not define"
        )
    return images.to(network.block.expand.weight.dtype)


def _tensor(images: object) -> torch.Tensor:
    if not isinstance(images, torch.Tensor):
        raise OptionError(f"pictures must be a torch tensor, not {type(images).__name__}; see torch.as_tensor")
    return images


def _targets(target: int | Sequence[int] | None, outputs: Sequence[Output]) -> list[int]:
    """Numbers of classes; whatever stands for whole numbers does (numpy's, tensors of one)."""
    classes = outputs[0].logits.shape[-1]
    if target is None:
        return [predicted(output.logits[0, 0]) for output in outputs]
    single = isinstance(target, torch.Tensor | np.ndarray) and target.ndim == 0
    try:
        if single or not hasattr(target, "__iter__"):
            targets = [operator.index(target)] * len(outputs)
        else:
            targets = [operator.index(one) for one in target]
    except TypeError:
        raise OptionError(f"target {target!r} is no class: give its number, 0 to {classes - 1}") from None
    if len(targets) != len(outputs) or not all(0 <= t < classes for t in targets):
        raise OptionError(f"{len(outputs)} pictures need as many targets in 0 to {classes - 1}, not {targets[:10]}")
    return targets


def explain_batch(
    model: nn.Module,
    images: torch.Tensor,
    method: str = "se",
    target: int | Sequence[int] | None = None,
    interpolation: str = "bicubic",
    **options: object,
) -> np.ndarray:
    """Heat of several pictures.

    Args:
        model: a squeezed classifier in evaluation mode, wrapped or not.
        images: (N, 3, H, W) float, as the network takes them.
        method: a name of :func:`asd_explain.explain.base.list_explainers`.
        target: class (or attribute: column of the logits), one for all or one a picture; None is the predicted one.
            Only the gradient methods depend on it, and SE whose gains are fitted.
        interpolation: "bicubic", "bilinear" or "nearest".
        options: of the explainer.

    Returns:
        (N, H, W) float32, raw: not brought to any scale, every value >= 0.

    Raises:
        OptionError: the block is needed and has learnt nothing, or something given cannot be used.
    """
    size = tuple(_tensor(images).shape[-2:])
    heats = raw_heat(model, images, method, target, **options)
    return np.stack([enlarged(heat, size, interpolation) for heat in heats])


def explain(
    model: nn.Module,
    image: torch.Tensor,
    method: str = "se",
    target: int | None = None,
    interpolation: str = "bicubic",
    **options: object,
) -> np.ndarray:
    """Heat (H, W) float32 >= 0 of one picture (3, H, W); see :func:`explain_batch`."""
    if _tensor(image).dim() != 3:
        raise OptionError(f"a picture must be (3, H, W), not {tuple(image.shape)}; explain_batch takes several")
    return explain_batch(model, image[None], method, target, interpolation, **options)[0]


def enlarged(heat: np.ndarray, size: tuple[int, int], interpolation: str = "bicubic") -> np.ndarray:
    """(h, w) cells on the (H, W) pixels of a picture that they cover from edge to edge."""
    if heat.shape == size:
        return heat
    return upsample(heat, *over_picture(heat.shape, size), size, interpolation)


def picture_completeness(model: nn.Module, image: torch.Tensor, target: int) -> Completeness:
    """FullGrad's equation for one logit of a picture (3, H, W); see :func:`asd_explain.explain.fullgrad.completeness`.

    Exact for a network of affine layers, ReLUs and pools whose block has learnt nothing or is bypassed; gates that
    depend on the picture multiply activations, which leaves a residual.
    """
    network = PictureNetwork(model)
    return completeness(network, {STREAM: image[None, None]}, target, frame=0)
