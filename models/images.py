"""One squeeze-and-excitation block in front of any image classifier's global pooling.

The host stays what it is: its forward, its weights and the keys of its state dict are untouched; the block is one more
child, ``squeeze_excite``, through which a hook passes what is about to be pooled (:mod:`.image_places` finds where).

A block starts with ``expand`` at zero, so that every gate is sigmoid(0) = 1/2, and hands on ``x * gate / (1/2)``: the
host answers exactly as it did, and the gates start where the sigmoid is steepest. The factor 2 is one constant for all
channels, which the next layer could as well hold in its weights. A block with ``expand`` at zero has learnt nothing,
and is refused by explainers.

After: Roxo et al., arXiv 2412.05134 (a block before the classifier of any network); Hu et al., arXiv 1709.01507.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from asd_explain.errors import OptionError, WeightsError
from asd_explain.models.image_hosts import CifarResNet, cifar_resnet
from asd_explain.models.image_places import Place, find_place, token_grid
from asd_explain.models.se import SqueezeExcite

__all__ = [
    "BLOCK",
    "CifarResNet",
    "ImageSqueeze",
    "block_of",
    "cifar_resnet",
    "front",
    "host_of",
    "host_state_dict",
    "load_host_state_dict",
    "squeeze",
    "tail",
    "without_block",
]

#: Name of the block in its host, and so the prefix of its keys.
BLOCK = "squeeze_excite"
START_GATE = 0.5


class ImageSqueeze(SqueezeExcite):
    """The block of an image classifier: one gate in (0, 1) a channel and image.

    It standardises what it squeezes by statistics that a label-free fit sets; until then they are 0 and 1, which change
    nothing. (So all its state dicts have the same keys.)

    Args:
        place: where it stands.
        reduction: the hidden layer has ``max(1, C // reduction)`` units.

    Attributes:
        bypassed: whether it hands on what it is given, as if it were not there.
        gains: (classes, C) in [0, 1], how much a channel's map counts for a class, per unit of gate, see
            :mod:`asd_explain.explain.image_gains`; None until they are fitted or loaded. Answers do not depend on them.
    """

    def __init__(self, place: Place, reduction: int = 16) -> None:
        super().__init__(place.channels, reduction, standardise=True)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)
        self.place = place
        self.register_buffer("gains", None)
        self.bypassed = False
        self._given: torch.Tensor | None = None
        self._seen: list[torch.Tensor] | None = None

    @property
    def learnt(self) -> bool:
        """Whether it was fitted, trained or loaded; else all gates are equal, and they say nothing."""
        return bool(self.expand.weight.detach().any() or self.expand.bias.detach().any())

    def set_gains(self, gains: torch.Tensor | None) -> None:
        """Take up gains (classes, C), finite and >= 0, or none; they are part of the state dict from then on.

        Raises:
            ValueError: they do not fit the block.
        """
        if gains is not None and (fault := self._fault_of(gains)):
            raise ValueError(fault)
        self.gains = gains

    def _fault_of(self, gains: torch.Tensor) -> str | None:
        if gains.dim() != 2 or gains.shape[1] != self.channels:
            return f"gains of {self.channels} channels must be (classes, channels), not {tuple(gains.shape)}"
        good = torch.isfinite(gains).all() and (gains >= 0).all()
        return None if good else "gains must be finite and not below 0"

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        # A buffer that is None is in no state dict, and one that has it would be refused.
        gains = state_dict.get(f"{prefix}gains")
        errors: list[str] = args[-1]
        if gains is not None and (fault := self._fault_of(gains)):
            errors.append(f"{prefix}gains: {fault}")
        elif any(key.startswith(prefix) for key in state_dict):
            self.gains = None if gains is None else torch.zeros_like(gains, device=self.expand.weight.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def as_maps(self, x: torch.Tensor, image: tuple[int, int] | None = None) -> torch.Tensor:
        """Maps (N, C, h, w) of what the block is given: as they are, or the tokens of the grid.

        Args:
            x: (N, C, h, w), or (N, L, C).
            image: (H, W) of the images; None where the grid is as at the start.
        """
        if self.place.layout == "maps":
            return x
        grid = token_grid(x.shape[1], image or self.place.size)
        height, width = self.place.grid if grid is None else grid[:2]
        return x[:, int(self.place.class_token) :].transpose(1, 2).unflatten(2, (height, width))

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C): the squeeze, each channel's mean over space (over the grid's tokens, without the class token)."""
        if self.place.layout == "maps":
            return x.mean((-2, -1))
        return x[:, int(self.place.class_token) :].mean(1)

    def gates_of(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C) gates in (0, 1) of what the block is given."""
        return self.excitation(self.pooled(x)[:, None])[:, 0]

    def scaled(self, x: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """``x`` times gates (N, C), over the gate of the start."""
        shaped = gates[:, None] if self.place.layout == "tokens" else gates[..., None, None]
        return x * (shaped / START_GATE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the host pools (or reads) instead of ``x``; the same shape."""
        if self.place.rectified:
            x = torch.relu(x)
        if self._given is not None:
            x = self._given
        if self._seen is not None:
            self._seen.append(x)
        # Hosts may write into what they are given (DenseNet's last relu does): never into what was given to the block.
        return x.clone() if self.bypassed else self.scaled(x, self.gates_of(x))

    # Bound methods as hooks: a copied or unpickled host calls its own block.
    def on_input(self, module: nn.Module, args: tuple) -> tuple:
        """Hook before the module of the place."""
        del module
        return (self(args[0]), *args[1:])

    def on_output(self, module: nn.Module, args: tuple, returned: torch.Tensor) -> torch.Tensor:
        """Hook after the module of the place."""
        del module, args
        return self(returned)


def squeeze(
    model: nn.Module, before: str = "auto", *, reduction: int = 16, size: int | tuple[int, int] | None = None
) -> nn.Module:
    """Put a block right before a classifier's global pooling; the host itself is changed and returned.

    Args:
        model: a classifier, images (N, 3, H, W) to logits (N, classes); its weights stay, and its answers too until the
            block is trained or fitted.
        before: "auto", or the dotted name of the module before which the block shall stand. Its input must be
            (N, C, h, w), or (N, L, C) tokens of a grid. In networks of a class token and patches, "auto" is before the
            last layer.
        reduction: channels over hidden units.
        size: of the images on which the place is looked for (without arithmetic), px; None is the network's own, or
            224.

    Raises:
        OptionError: there is no place that is certain, the network has a block already or cannot carry one.
    """
    kind = type(model).__name__
    if blocks_in(model):
        raise OptionError(f"{kind} has a squeeze-and-excitation block already")
    if isinstance(model, nn.Sequential | nn.ModuleList | torch.jit.ScriptModule) or hasattr(model, BLOCK):
        raise OptionError(f"{kind} cannot carry a further module; put it into a module of its own and squeeze that")
    if reduction < 1:
        raise OptionError(f"the reduction must be at least 1, not {reduction}")
    size = size or getattr(model, "image_size", None) or 224
    place = find_place(model, before, (size, size) if isinstance(size, int) else tuple(size))
    block = ImageSqueeze(place, reduction)
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    if like is not None:
        block = block.to(like.device, like.dtype)
    block.train(model.training)
    module = model.get_submodule(place.module)
    if place.side == "input":
        module.register_forward_pre_hook(block.on_input)
    else:
        module.register_forward_hook(block.on_output)
    model.add_module(BLOCK, block)
    return model


def blocks_in(model: nn.Module) -> list[ImageSqueeze]:
    """All blocks of a network, wrapped or not."""
    return [module for module in model.modules() if isinstance(module, ImageSqueeze)]


def block_of(model: nn.Module) -> ImageSqueeze:
    """The block of a squeezed network, or of whatever is wrapped around one.

    Raises:
        OptionError: there is none, or more than one.
    """
    found = blocks_in(model)
    if len(found) != 1:
        raise OptionError(
            f"{type(model).__name__} has {len(found)} squeeze-and-excitation blocks, one is needed; see squeeze(model)"
        )
    return found[0]


def host_of(model: nn.Module) -> nn.Module:
    """The squeezed network itself, inside whatever is wrapped around it."""
    block = block_of(model)
    return next(module for module in model.modules() if getattr(module, BLOCK, None) is block)


def host_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of a squeezed network without its block's keys: that of the host, key by key."""
    return {key: value for key, value in host_of(model).state_dict().items() if not key.startswith(f"{BLOCK}.")}


def load_host_state_dict(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Load a plain host's state dict, such as published weights, into a squeezed network; its block stays as it is.

    Raises:
        WeightsError: keys or shapes are not exactly the host's.
    """
    host = host_of(model)
    state = {key: value for key, value in state.items() if not key.startswith(f"{BLOCK}.")}
    own = {key: value for key, value in host.state_dict().items() if key.startswith(f"{BLOCK}.")}
    try:
        host.load_state_dict({**state, **own}, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"not the weights of {type(host).__name__}: {' '.join(str(error).split())[:300]}") from None


@contextmanager
def without_block(model: nn.Module) -> Iterator[None]:
    """The network answers as if it had no block."""
    block = block_of(model)
    before, block.bypassed = block.bypassed, True
    try:
        yield
    finally:
        block.bypassed = before


def front(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the block is given, (N, C, h, w) or (N, L, C), and the logits (N, classes), in one forward.

    Gradients flow through both where they are recorded. The network must be in evaluation mode.
    """
    block = block_of(model)
    block._seen = []
    try:
        logits = model(images)
        (x,) = block._seen
    finally:
        block._seen = None
    return x, logits


def tail(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Logits (N, classes) from what the block is given, block included, without computing what comes before.

    The modules before the block return placeholders meanwhile. Not for several threads at once.

    Args:
        model: a squeezed network in evaluation mode.
        x: (N, C, h, w) or (N, L, C), as :func:`front` gives it.
    """
    block, host = block_of(model), host_of(model)
    place = block.place
    like = {"device": x.device, "dtype": x.dtype}
    with ExitStack() as undo:
        for name, shapes in place.front:
            undo.enter_context(_returning(host.get_submodule(name), shapes, like))
        block._given = x
        try:
            return model(torch.zeros(1, 3, *place.size, **like))
        finally:
            block._given = None


@contextmanager
def _returning(module: nn.Module, shapes: tuple[object, ...], like: dict) -> Iterator[None]:
    """The module returns zeros of these shapes, call after call, instead of computing."""
    calls = iter(shapes)

    def made(shape: object) -> object:
        if isinstance(shape, torch.Size):
            return torch.zeros(shape, **like)
        return None if shape is None else tuple(made(one) for one in shape)

    own = module.__dict__.get("forward")
    module.forward = lambda *args, **kwargs: made(next(calls))
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
