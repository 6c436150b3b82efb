"""FullGrad (Srinivas and Fleuret, arXiv 1905.00780): a logit split into what the input and what every bias adds to it.

For a network f of affine layers and ReLU (or max pools) f(x) = grad_x f . x + sum over layers of grad_b f . b, exactly.
A batch norm in evaluation mode is affine with the bias b - mean * w / sqrt(var + eps), as in the authors' code. The
networks here call their convolutions as functions, with the norm folded in, so hooks on modules would never fire; the
functions themselves are watched while a context is open.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from asd_explain.errors import OptionError
from asd_explain.explain.base import Explainer, register
from asd_explain.explain.geometry import over_picture, upsample
from asd_explain.explain.gradients import (
    embeddings,
    frame_gradients,
    gradients_on,
    maps_of,
    need_evaluation_mode,
)
from asd_explain.models.output import Output

_AFFINE = (torch.conv1d, torch.conv2d, torch.conv3d, F.linear)
PIECE_FRAMES = 26


class BiasWatch(TorchFunctionMode):
    """While it is open, the gradient at every bias of a convolution, linear layer or batch norm is handed out.

    The layers may be called as modules or as functions. A backward pass, also one after the context is closed, calls
    ``on_bias(layer, bias, gradient)``: the layer's number in the order of the calls, the bias shaped so that it
    broadcasts, and the gradient by the layer's output, in the layout in which the layer was called. Weights and biases
    are constants to that pass. What it keeps dies with the graph.

    Args:
        on_bias: called once a layer and backward pass.

    Attributes:
        first_input: what the first such layer was given, or None.
    """

    def __init__(self, on_bias: Callable[[int, torch.Tensor, torch.Tensor], None]) -> None:
        super().__init__()
        self._on_bias, self._layers = on_bias, 0
        self.first_input: torch.Tensor | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Called by torch in place of every function while the context is open."""
        del types
        if func in _AFFINE:
            return self._affine(func, *args, **(kwargs or {}))
        if func is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _affine(self, func, input, weight, bias=None, *rest, **options):
        self._note(input)
        weightless = func(input, weight.detach(), None, *rest, **options)
        # Channels lie before the kernel's dimensions: last for a linear layer.
        return weightless if bias is None else self._add(weightless, bias.detach(), 1 - weight.dim())

    def _batch_norm(
        self, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
    ):
        del momentum
        if training or running_mean is None:
            raise OptionError("FullGrad needs batch norms in evaluation mode, with running statistics")
        self._note(input)
        scale = torch.rsqrt(running_var + eps)
        if weight is not None:
            scale = scale * weight.detach()
        shift = -running_mean * scale
        if bias is not None:
            shift = shift + bias.detach()
        # Statistics may be kept in another precision; a batch norm answers in its input's.
        scaled = (input * scale.view(-1, *[1] * (input.dim() - 2))).to(input.dtype)
        return self._add(scaled, shift.to(input.dtype), 1 - input.dim())

    def _note(self, input: torch.Tensor) -> None:
        if self.first_input is None:
            self.first_input = input

    def _add(self, x: torch.Tensor, bias: torch.Tensor, axis: int) -> torch.Tensor:
        bias = bias.view(-1, *[1] * (-axis - 1))
        if x.requires_grad:
            layer, on_bias = self._layers, self._on_bias
            x.register_hook(lambda gradient: on_bias(layer, bias, gradient))
        self._layers += 1
        # A new tensor: the networks rectify it in place.
        return x + bias


def by_frames(x: torch.Tensor, frames: int) -> torch.Tensor:
    """What a layer of a visual encoder made of one clip, whichever way it was laid out, as (T, C, h, w).

    Known: (T, C, h, w); (1, C, T, h, w); (1, C, T, h * w) with square maps, which is how temporal convolutions run.

    Raises:
        OptionError: for any other shape.
    """
    shape = tuple(x.shape)
    if x.dim() == 5 and shape[0] == 1 and shape[2] == frames:
        return x[0].transpose(0, 1)
    if x.dim() == 4:
        side = round(shape[3] ** 0.5)
        temporal = shape[0] == 1 and shape[2] == frames and side * side == shape[3]
        # One frame of a map one cell high could be either and is the same either way.
        if temporal and (frames != 1 or shape[3] != shape[2]):
            return x[0].transpose(0, 1).unflatten(-1, (side, side))
        if shape[0] == frames:
            return x
    raise OptionError(f"FullGrad cannot tell frames from space in a layer's output of shape {shape}, {frames} frames")


def channel_sum(amounts: torch.Tensor, rescale: bool) -> torch.Tensor:
    """Absolute amounts (n, C, h, w) of a layer summed over its channels, (n, h, w).

    Args:
        amounts: gradient times bias (or input).
        rescale: the authors' psi: each frame's block of channels is first brought to [0, 1] by its least and largest
            value. A block that is the same everywhere gives zero.
    """
    amounts = amounts.abs()
    if rescale:
        flat = amounts.flatten(1)
        low = flat.amin(1)[:, None, None, None]
        spread = flat.amax(1)[:, None, None, None] - low
        amounts = torch.where(spread > 0, (amounts - low) / spread.clamp_min(torch.finfo(flat.dtype).tiny), 0.0)
    return amounts.sum(1)


class _Sums:
    """Adds up what single frames get from the layers, apart by the size of the maps."""

    def __init__(self, frames: int, rescale: bool) -> None:
        self.frames, self._rescale = frames, rescale
        self.at = torch.empty(0, dtype=torch.long)  # frames that the backward pass now running is about
        self.maps: dict[tuple[int, int], torch.Tensor] = {}

    def bias(self, layer: int, bias: torch.Tensor, gradient: torch.Tensor) -> None:
        del layer
        # Shaped to broadcast in the layer's own layout, which by_frames has undone.
        self.add(by_frames(gradient.detach(), self.frames)[self.at] * bias.reshape(-1, 1, 1))

    def add(self, amounts: torch.Tensor) -> None:
        """Amounts (n, C, h, w) of the frames ``at``."""
        summed = channel_sum(amounts, self._rescale)
        size = tuple(summed.shape[1:])
        if size not in self.maps:
            self.maps[size] = summed.new_zeros(self.frames, *size)
        self.maps[size][self.at] += summed


@register("fullgrad")
class FullGradHeat(Explainer):
    """FullGrad with the frame as target: the heat of frame t is what its own crop and the biases at frame t add.

    At every layer of a stream's encoder the magnitudes of gradient times bias, and at the entrance those of gradient
    times input, are summed over channels, enlarged bilinearly to the crop's pixels and added. The input is what the
    encoder's first layer is given, that is the standardised crop, as in the paper. Layers behind the spatial pool have
    no place in the crop and do not show; :func:`completeness` counts them.

    The logit of frame t depends on its neighbours' embeddings too, and these on the crop of frame t; both ways are
    exact (within the classifier's window). Targets that lie so far apart that they cannot meet share one backward pass,
    so a clip of any length takes 2 * halo + 1 of them over all its frames: 20 to 50 times the cost of scoring.
    Memory is that of the graph of ``piece`` + 4 * halo frames.

    Args:
        rescale: see :func:`channel_sum`. True is the method as published: layers of small and of large amounts count
            alike, and so do frames. False keeps the amounts.
        piece: frames explained at a time.
    """

    name = "fullgrad"
    needs_gradient = True
    needs_inputs = True

    def __init__(self, rescale: bool = True, piece: int = PIECE_FRAMES) -> None:
        self.rescale, self.piece = rescale, piece

    def heat(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], target: int = 1, output: Output | None = None
    ) -> dict[str, torch.Tensor]:
        """See :meth:`Explainer.heat`; {stream: (T, side, side)} on the crop's pixels, whatever the maps' size.

        Raises:
            OptionError: no crops are given, the network is in training mode, or it has layers of unknown layout.
        """
        need_evaluation_mode(model)
        crops = {s: x for s, x in inputs.items() if s != "audio" and s in model.streams and x is not None}
        if not crops:
            raise OptionError("fullgrad needs the crops themselves, an output of the network is not enough")
        with gradients_on():
            pooled, _ = embeddings(model, inputs, output)
            near = frame_gradients(model, pooled, list(crops), target, reach=model.halo_frames)
            return {s: self._stream(model, s, values, near[s], inputs) for s, values in crops.items()}

    def _stream(
        self, model: nn.Module, stream: str, crops: torch.Tensor, near: torch.Tensor, inputs: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        length, halo = crops.shape[1], model.halo_frames
        pieces = []
        for first in range(0, length, self.piece):
            last = min(length, first + self.piece)
            # Targets' neighbours must be encoded exactly, so their neighbours have to be there as well.
            begin, end = max(0, first - 2 * halo), min(length, last + 2 * halo)
            beside = {s: x[:, begin:end] for s, x in inputs.items() if s != stream and s != "audio" and x is not None}
            sums = self._piece(model, stream, crops[:, begin:end], near[first:last], first - begin, beside)
            pieces.append(_on_crop(model, sums.maps, slice(first - begin, last - begin), tuple(crops.shape[-2:])))
        return torch.from_numpy(np.concatenate(pieces)).to(crops.device)

    def _piece(
        self,
        model: nn.Module,
        stream: str,
        crops: torch.Tensor,
        near: torch.Tensor,
        shift: int,
        beside: dict[str, torch.Tensor],
    ) -> _Sums:
        """Sums of the piece's frames; target i of ``near`` (n, 2 * halo + 1, C) is frame ``shift + i`` of the crops."""
        frames, halo = crops.shape[1], near.shape[1] // 2
        sums = _Sums(frames, self.rescale)
        start = crops.detach().float().clone().requires_grad_()
        with BiasWatch(sums.bias) as watch:
            pooled = model.pool(maps_of(model, stream, start, beside))
        entrance = start if watch.first_input is None else watch.first_input
        phases = min(2 * halo + 1, len(near))
        for phase in range(phases):
            targets = range(phase, len(near), 2 * halo + 1)
            by_pooled = torch.zeros_like(pooled)
            for i in targets:
                left, right = max(0, shift + i - halo), min(frames, shift + i + halo + 1)
                offset = shift + i - halo
                by_pooled[0, left:right] = near[i, left - offset : right - offset]
            sums.at = torch.tensor([shift + i for i in targets], device=crops.device)
            (gradient,) = torch.autograd.grad(pooled, entrance, by_pooled, retain_graph=phase < phases - 1)
            amounts = entrance.detach() * gradient
            sums.add((amounts[0][:, None] if entrance is start else by_frames(amounts, frames))[sums.at])
        return sums


def _on_crop(
    model: nn.Module, maps: dict[tuple[int, int], torch.Tensor], frames: slice, size: tuple[int, int]
) -> np.ndarray:
    """Maps of several sizes enlarged to (T, H, W) and added; cells lie as strides and paddings put them."""
    total = 0.0
    for cells, values in maps.items():
        values = values[frames].float().cpu().numpy()
        if cells != size:
            strides, offsets = _lie(model, cells, size)
            values = np.stack([upsample(v, strides, offsets, size, "bilinear") for v in values])
        total = total + values
    return total


def _lie(
    model: nn.Module, cells: tuple[int, int], size: tuple[int, int]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(strides, offsets) of a layer's cells, px; of a picture's network, which states none, from edge to edge."""
    if model.map_stride_px is None:
        return over_picture(cells, size)
    # The network's own maps may hang over the crop's end: 4 cells of 32 pixels on 112.
    own = cells[0] == math.ceil(size[0] / model.map_stride_px)
    stride = model.map_stride_px if own else size[0] / cells[0]
    offset = model.map_offset_px * (stride - 1) / max(model.map_stride_px - 1, 1)
    return (stride, stride), (offset, offset)


@dataclass(frozen=True)
class Completeness:
    """How far one frame's logit is explained by inputs and biases.

    Attributes:
        logit: the frame's logit of the target.
        inputs: {stream: sum of gradient times input}.
        biases: {stream: sum of gradient times bias over its encoder's layers; for a stream that is not there, gradient
            times its learned state}, and "classifier": the same of the linear layers, 1-D convolutions and batch norms
            behind the pool.
    """

    logit: float
    inputs: dict[str, float]
    biases: dict[str, float]

    @property
    def attributed(self) -> float:
        """All of it together."""
        return sum(self.inputs.values()) + sum(self.biases.values())

    @property
    def residual(self) -> float:
        """``logit - attributed``: zero for piecewise linear networks; what recurrent layers, sigmoids and products of
        activations leave unexplained otherwise."""
        return self.logit - self.attributed


def completeness(
    model: nn.Module, inputs: dict[str, torch.Tensor | None], target: int = 1, frame: int | None = None
) -> Completeness:
    """Check FullGrad's equation for one frame's logit, all streams and the classifier together.

    Args:
        model: a backbone in evaluation mode.
        inputs: arguments of its ``encode``; no longer than a piece, the whole graph is in memory.
        target: column of the logits.
        frame: whose logit; None is the middle one.

    Raises:
        OptionError: the network is in training mode.
    """
    need_evaluation_mode(model)
    sums: dict[str, float] = {}
    entrances, pooled = {}, {}
    with gradients_on(), torch.backends.cudnn.flags(enabled=False):
        for stream in (s for s in model.streams if inputs.get(s) is not None):
            start = inputs[stream].detach().float().clone().requires_grad_()
            with _watch(sums, stream) as watch:
                if stream == "audio":
                    pooled[stream] = model.audio_embedding(start)
                else:
                    pooled[stream] = model.pool(maps_of(model, stream, start, inputs))
            entrances[stream] = start if watch.first_input is None else watch.first_input
        shape = next(iter(pooled.values())).shape[:2]
        absent = [s for s in model.streams if s not in pooled and model.learned_absence]
        for stream in absent:
            pooled[stream] = model.absent[stream].detach().expand(*shape, -1).clone().requires_grad_()
        with _watch(sums, "classifier"):
            logits = model.fuse(pooled).logits
        logit = logits[0, shape[1] // 2 if frame is None else frame, target]
        wanted = entrances | {s: pooled[s] for s in absent}
        gradients = torch.autograd.grad(logit, list(wanted.values()), allow_unused=True, materialize_grads=True)
        amounts = {
            s: float((x.detach().double() * g.double()).sum())
            for (s, x), g in zip(wanted.items(), gradients, strict=True)
        }
    return Completeness(
        logit=float(logit.detach()),
        inputs={s: amounts[s] for s in entrances},
        biases=sums | {s: amounts[s] for s in absent},
    )


def _watch(sums: dict[str, float], name: str) -> BiasWatch:
    """A watch that adds gradient times bias to ``sums[name]``."""
    sums[name] = 0.0

    def add(layer: int, bias: torch.Tensor, gradient: torch.Tensor) -> None:
        del layer
        sums[name] += float((gradient.double() * bias.double()).sum())

    return BiasWatch(add)
