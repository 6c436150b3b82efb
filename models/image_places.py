"""Where in an image classifier the block stands: found by running it once without numbers.

The network runs on the meta device (shapes only, no arithmetic, no memory), while every call of a module and every
averaging over space is noted. The *last* average whose input nothing else reads (before or after) is the pooling: the
pool inside a squeeze-and-excitation of the network itself does not qualify, as what it pools is multiplied afterwards.
How the pooling is written (a module, ``adaptive_avg_pool2d``, ``mean([2, 3])``) does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from asd_explain.errors import OptionError

_POOLS = (F.adaptive_avg_pool2d, torch._C._nn.adaptive_avg_pool2d)
_WINDOWS = (F.avg_pool2d, torch._C._nn.avg_pool2d)
_MEANS = (torch.mean, torch.Tensor.mean)
_RECTIFIERS = (F.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_)


@dataclass(frozen=True)
class Place:
    """Where the block stands in its host.

    Attributes:
        module: dotted name of the module at which the host is caught.
        side: "input", what the module is given, or "output", what it returns.
        rectified: the host rectifies that output before it pools; the block then rectifies first, after which the
            host's own ReLU changes nothing (gates are positive).
        layout: "maps" (N, C, h, w) or "tokens" (N, L, C).
        class_token: of tokens, whether the first is no part of the grid.
        channels: C.
        grid: (h, w) at an image of ``size``.
        averaged: whether each channel's plain mean over space is all that the host reads behind the block.
        size: (H, W) of the image at which it was found, px.
        front: what the host computes before the block: (dotted name, shape of what each call returns), outermost
            modules only.
    """

    module: str
    side: str
    rectified: bool
    layout: str
    class_token: bool
    channels: int
    grid: tuple[int, int]
    averaged: bool
    size: tuple[int, int]
    front: tuple[tuple[str, tuple[object, ...]], ...]


@dataclass
class _Call:
    """One call of a module that has not returned yet."""

    name: str
    given: object
    version: int | None
    finished: list[tuple[str, object]] = field(default_factory=list)


@dataclass
class _Pool:
    """One averaging over space."""

    x: torch.Tensor
    spot: tuple[str, str, bool] | None
    averaged: bool
    shared: bool = False


def version_of(x: object) -> int | None:
    """How often a tensor was written to; None for anything else."""
    return x._version if isinstance(x, torch.Tensor) and not x.is_inference() else None


class _Run(TorchFunctionMode):
    """One forward on the meta device; ``at`` names a place whose reaching is noted in ``reached``."""

    def __init__(self, host: nn.Module, at: tuple[str, str] | None = None) -> None:
        super().__init__()
        self._host, self._at = host, at
        self.stack: list[_Call] = []
        self.opened: dict[str, list[object]] = {}
        self.closed: list[tuple[str, object, int | None]] = []
        self.rectified: dict[int, tuple[object, int | None, object]] = {}
        self.pools: list[_Pool] = []
        # Tensor that was read, as often written to as this; held so that its id stays its own.
        self.read: dict[tuple[int, int | None], object] = {}
        self.reached: list[tuple[object, list[tuple[str, object]]]] = []

    def open(self, name: str, given: object) -> None:
        """A module is called."""
        self.opened.setdefault(name, []).append(given)
        if (name, "input") == self._at:
            self._reach(given)
        self.stack.append(_Call(name, given, version_of(given)))

    def close(self, name: str, returned: object) -> None:
        """A module returns."""
        self.stack.pop()
        if self.stack:
            self.stack[-1].finished.append((name, returned))
        self.closed.append((name, returned, version_of(returned)))
        if (name, "output") == self._at:
            self._reach(returned)

    def _reach(self, x: object) -> None:
        self.reached.append((x, [done for call in self.stack for done in call.finished]))

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Called by torch in place of every function while the context is open."""
        del types
        kwargs = kwargs or {}
        before = [(leaf, version_of(leaf)) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        result = func(*args, **kwargs)
        if not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(result)):
            return result
        x = args[0] if args else kwargs.get("input")
        for pool in self.pools:
            pool.shared |= any(leaf is pool.x for leaf, _ in before)
        if func in _RECTIFIERS:
            self.rectified[id(result)] = (x, version_of(result), result)
        elif isinstance(x, torch.Tensor) and x.dim() == 4 and isinstance(result, torch.Tensor):
            averages = func in _POOLS or (func in _MEANS and _over_space(args[1:], kwargs))
            window = func in _WINDOWS and result.shape[-2:] == (1, 1)
            if averages or window:
                one = result.numel() == x.shape[0] * x.shape[1] and (averages or _whole(x, args[1:], kwargs))
                self.pools.append(_Pool(x, self._spot(x), one, shared=(id(x), version_of(x)) in self.read))
        # What hands on the very tensor (dropout in evaluation mode) reads nothing of it.
        self.read |= {(id(leaf), version): leaf for leaf, version in before if leaf is not result}
        return result

    def _spot(self, x: torch.Tensor) -> tuple[str, str, bool] | None:
        """(module, side, rectified) at which ``x`` can be caught, exactly as it is."""
        version = version_of(x)
        for call in reversed(self.stack):
            if call.given is x and call.version == version:
                return call.name, "input", False
        for name, returned, then in reversed(self.closed):
            if returned is x and then == version:
                return name, "output", False
        source, after, _ = self.rectified.get(id(x), (None, None, None))
        if source is not None and after == version:
            for name, returned, _ in reversed(self.closed):
                if returned is source:
                    return name, "output", True
        return None


def _over_space(args: tuple, kwargs: dict) -> bool:
    dims = args[0] if args else kwargs.get("dim")
    return isinstance(dims, tuple | list) and sorted(d % 4 for d in dims) == [2, 3]


def _pair(value: object) -> tuple[object, ...]:
    """A size as torch takes it, one number or one or two of them, as two."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    return values * 2 if len(values) == 1 else values


def _whole(x: torch.Tensor, args: tuple, kwargs: dict) -> bool:
    """Whether the one window of ``avg_pool2d`` is the whole map: 7 x 7 cells of 8 x 8 are not, nor is a padded map."""
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    given = dict(zip(names, args, strict=False)) | kwargs
    kernel, padding = (_pair(v) for v in (given["kernel_size"], given.get("padding", 0)))
    cells = x.shape[-2] * x.shape[-1]
    return kernel == tuple(x.shape[-2:]) and padding == (0, 0) and given.get("divisor_override") in (None, cells)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode inside, and in its own mode again afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _run(host: nn.Module, size: tuple[int, int], at: tuple[str, str] | None = None) -> _Run:
    run = _Run(host, at)
    handles = []
    for name, module in host.named_modules():
        handles.append(
            module.register_forward_pre_hook(
                lambda _, args, kwargs, name=name: run.open(name, args[0] if args else None), with_kwargs=True
            )
        )
        handles.append(module.register_forward_hook(lambda _, args, returned, name=name: run.close(name, returned)))
    state = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in (
            *host.named_parameters(remove_duplicate=False),
            *host.named_buffers(remove_duplicate=False),
        )
    }
    dtype = next((p.dtype for p in host.parameters()), torch.float32)
    try:
        with evaluation_mode(host), torch.no_grad(), run:
            image = torch.empty(2, 3, *size, device="meta", dtype=dtype)
            torch.func.functional_call(host, state, (image,))
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OptionError(
            f"{type(host).__name__} cannot be run on images of 3 x {size[0]} x {size[1]} ({reason}); bring "
            "them to the size that it takes: squeeze(model, size=(H, W)), in a configuration [data] size"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    return run


def token_grid(tokens: int, image: tuple[int, int]) -> tuple[int, int, bool] | None:
    """(h, w, class token) of so many tokens over an image (H, W): a grid of the image's shape, or one and a token."""
    for extra in (0, 1):
        count = tokens - extra
        height = round((count * image[0] / image[1]) ** 0.5)
        if height > 0 and count == height * (width := count // height) and height * image[1] == width * image[0]:
            return height, width, bool(extra)
    return None


def _last_encoder_layer(host: nn.Module, run: _Run) -> str | None:
    """The last layer of a stack of attention layers over tokens: where a class token reads the others for the last
    time."""
    found = None
    for name, module in host.named_modules():
        calls = run.opened.get(name, [])
        tokens = len(calls) == 1 and isinstance(calls[0], torch.Tensor) and calls[0].dim() == 3
        stacked = isinstance(host.get_submodule(name.rpartition(".")[0]), nn.Sequential | nn.ModuleList)
        if tokens and stacked and any(isinstance(m, nn.MultiheadAttention) for m in module.children()):
            found = name
    return found


def find_place(host: nn.Module, before: str, size: tuple[int, int]) -> Place:
    """Where the block of ``host`` stands.

    Args:
        host: any classifier of images (N, 3, H, W).
        before: "auto", or the dotted name of the module whose input is to be gated.
        size: (H, W) of the images that it is run on, px.

    Returns:
        The place in front of the global pooling; in a network of class token and patches, in front of the last layer,
        behind which nothing of the patches is read.

    Raises:
        OptionError: there is no such module, or no place that is certain.
    """
    kind = type(host).__name__
    averaged = False
    if before != "auto":
        if before not in dict(host.named_modules()) or not before:
            raise OptionError(f"{kind} has no module {before!r}; name one of named_modules()")
        spot = (before, "input", False)
    else:
        run = _run(host, size)
        pools = [pool for pool in run.pools if not pool.shared]
        if pools:
            spot, averaged = pools[-1].spot, pools[-1].averaged
            if spot is None:
                raise OptionError(
                    f"{kind} pools what no module of it returns; name the module to stand before with before=..."
                )
        else:
            layer = _last_encoder_layer(host, run)
            if layer is None:
                raise OptionError(
                    f"{kind} has no pooling over space and no layers over a grid of tokens; name the module to stand "
                    "before with before=..."
                )
            spot = (layer, "input", False)
    module, side, rectified = spot
    reached = _run(host, size, (module, side)).reached
    if len(reached) != 1:
        raise OptionError(f"{module} of {kind} is called {len(reached)} times an image; the block needs one place")
    x, front = reached[0]
    layout, class_token, channels, grid = _layout(x, size, f"{module} of {kind}")
    calls: dict[str, list[object]] = {}
    for name, returned in front:
        calls.setdefault(name, []).append(_shapes(returned))
    return Place(
        module=module,
        side=side,
        rectified=rectified,
        layout=layout,
        class_token=class_token,
        channels=channels,
        grid=grid,
        averaged=averaged,
        size=size,
        front=tuple((name, tuple(shapes)) for name, shapes in calls.items()),
    )


def _layout(x: object, size: tuple[int, int], where: str) -> tuple[str, bool, int, tuple[int, int]]:
    if isinstance(x, torch.Tensor) and x.dim() == 4:
        return "maps", False, x.shape[1], tuple(x.shape[-2:])
    if isinstance(x, torch.Tensor) and x.dim() == 3 and (grid := token_grid(x.shape[1], size)) is not None:
        return "tokens", grid[2], x.shape[2], grid[:2]
    seen = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
    raise OptionError(f"{where} sees {seen}, neither maps (N, C, h, w) nor a grid of tokens (N, L, C)")


def _shapes(returned: object) -> object:
    """The shape of a tensor for a batch of one, None for what is none; tuples and lists as tuples."""
    if isinstance(returned, torch.Tensor):
        return torch.Size((1, *returned.shape[1:]))
    if isinstance(returned, tuple | list):
        return tuple(_shapes(one) for one in returned)
    return None
