"""Gradients of single frames' logits, without running the encoders again: what the gradient methods share.

The encoders are the dear part of these networks; fusion point and classifier are cheap. So the pooled embeddings are
taken as they are, copied once for every target frame of a batch, and one backward pass through the copies gives every
target its own gradient. Parameters are never asked for a gradient, and nothing stays attached to the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.models.output import Output

BATCH_TARGETS = 50
WINDOW_FRAMES = 250  # as long as the windows that tracks are scored in


@contextmanager
def gradients_on() -> Iterator[None]:
    """Gradients are recorded inside, even where the caller scores in inference mode or without gradients."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def _plain_recurrence() -> Iterator[None]:
    """cuDNN refuses the backward pass of a recurrent layer in evaluation mode; the plain kernels do not."""
    with torch.backends.cudnn.flags(enabled=False):
        yield


def need_evaluation_mode(model: nn.Module) -> None:
    """Raise an OptionError where the model is in training mode: dropout and batch statistics would mix the copies."""
    if model.training:
        raise OptionError("only a network in evaluation mode can be explained; call model.eval() first")


def embeddings(
    model: nn.Module, inputs: dict[str, torch.Tensor], output: Output | None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Pooled embeddings and maps of one clip as plain tensors that gradients can start from.

    Args:
        model: a backbone with ``encode``.
        inputs: arguments of ``encode``; may be empty where ``output`` holds maps and embeddings.
        output: the network's output for them, where it is known; then the encoders do not run.

    Returns:
        ({stream: (1, T, C)}, {visual stream: (1, T, C, h, w)}), detached; call inside :func:`gradients_on`.

    Raises:
        OptionError: neither maps nor inputs are given.
    """
    if output is not None and output.maps and output.pooled:
        pooled, maps = output.pooled, output.maps
    elif inputs:
        with torch.no_grad():
            pooled, maps = model.encode(**inputs)
    else:
        raise OptionError("neither the network's inputs nor an output with maps is given")
    return _plain(pooled), _plain(maps)


def _plain(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # A tensor made in inference mode cannot take part in a graph; its copy can.
    return {s: (x.clone() if x.is_inference() else x).detach() for s, x in tensors.items()}


def frame_gradients(
    model: nn.Module,
    pooled: dict[str, torch.Tensor],
    streams: list[str],
    target: int = 1,
    reach: int = 0,
    batch: int = BATCH_TARGETS,
    window: int = WINDOW_FRAMES,
) -> dict[str, torch.Tensor]:
    """For every frame t: the gradient of its own logit by the embeddings of frames t - reach .. t + reach.

    A clip of more than ``window`` frames is classified, for each target, in the window that is centred on it (at the
    clip's ends: the first and the last window), so what counts for a frame does not depend on how long the clip is.

    Args:
        model: a backbone with ``fuse``, in evaluation mode.
        pooled: {stream: (1, T, C)}.
        streams: those whose gradients are wanted.
        target: column of the logits.
        reach: neighbours on either side, frames.
        batch: targets in one backward pass; memory grows with ``batch * min(T, window)``.
        window: frames.

    Returns:
        {stream: (T, 2 * reach + 1, C)}; zero where a neighbour lies outside the clip or the window.
    """
    need_evaluation_mode(model)
    length = next(iter(pooled.values())).shape[1]
    size = min(length, window)
    around = torch.arange(-reach, reach + 1)
    parts: dict[str, list[torch.Tensor]] = {stream: [] for stream in streams}
    with gradients_on(), _plain_recurrence():
        for first in range(0, length, batch):
            frames = torch.arange(first, min(length, first + batch))
            starts = (frames - size // 2).clamp(0, length - size)
            rows = torch.arange(len(frames))
            copies = {s: x[0][(starts[:, None] + torch.arange(size)).to(x.device)] for s, x in pooled.items()}
            leaves = [copies[stream].requires_grad_() for stream in streams]
            logits = model.fuse(copies).logits[rows, frames - starts, target]
            gradients = torch.autograd.grad(logits.sum(), leaves, allow_unused=True, materialize_grads=True)
            near = (frames - starts)[:, None] + around
            inside = (near >= 0) & (near < size)
            for stream, gradient in zip(streams, gradients, strict=True):
                picked = gradient[rows[:, None], near.clamp(0, size - 1)]
                parts[stream].append(picked * inside[..., None].to(picked))
    return {stream: torch.cat(pieces) for stream, pieces in parts.items()}


def clip_gradients(
    model: nn.Module, pooled: dict[str, torch.Tensor], streams: list[str], target: int = 1
) -> dict[str, torch.Tensor]:
    """{stream: (T, C)}: the gradient of the mean over the frames of the logit ``target`` by the embeddings."""
    need_evaluation_mode(model)
    with gradients_on(), _plain_recurrence():
        leaves = {s: x.detach().requires_grad_(s in streams) for s, x in pooled.items()}
        mean = model.fuse(leaves).logits[0, :, target].mean()
        gradients = torch.autograd.grad(mean, [leaves[s] for s in streams], allow_unused=True, materialize_grads=True)
    return {stream: gradient[0] for stream, gradient in zip(streams, gradients, strict=True)}


def maps_of(model: nn.Module, stream: str, crops: torch.Tensor, inputs: dict[str, torch.Tensor | None]) -> torch.Tensor:
    """A visual stream's maps of crops (B, T, 112, 112), beside whatever other crops its maps depend on.

    Args:
        model: a backbone with ``<stream>_maps``.
        stream: "face" or "body".
        crops: of the stream.
        inputs: of the same frames; other crops are taken from it, of one clip or of B.
    """
    names = [name for name in getattr(model, "beside", {}).get(stream, ()) if inputs.get(name) is not None]
    others = {name: inputs[name].expand(len(crops), -1, -1, -1) for name in names}
    return getattr(model, f"{stream}_maps")(crops, **others)


def through_pool(model: nn.Module, maps: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient by the maps, given that by the pooled embeddings: whatever the network's spatial pool is.

    Args:
        model: a backbone with ``pool``.
        maps: (T, C, h, w).
        gradient: (T, C).

    Returns:
        (T, C, h, w). Under a max pool only a channel's strongest cell has one; cells that tie share it.
    """
    with gradients_on():
        leaf = maps.detach().requires_grad_()
        (by_maps,) = torch.autograd.grad(model.pool(leaf[None]), leaf, gradient[None])
    return by_maps
