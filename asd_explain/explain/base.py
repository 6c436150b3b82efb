"""The contract of an explainer, and the registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.models.output import Output

_EXPLAINERS: dict[str, Callable[..., Explainer]] = {}


class Explainer:
    """Says where in the crops the network's evidence lies.

    Attributes:
        name: name in the registry.
        needs_gradient: whether :meth:`heat` must run the network again with gradients; when False, the output of the
            scoring pass is enough and explaining costs no second forward.
    """

    name: str
    needs_gradient = False
    needs_inputs = False

    def heat(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], target: int = 1, output: Output | None = None
    ) -> dict[str, torch.Tensor]:
        """Raw heat, not normalised.

        Args:
            model: a backbone.
            inputs: {"face": (1, T, 112, 112), "audio": (1, 4T, 13), optionally "body"}; may be empty when ``output`` is
                given and no gradient is needed.
            target: class the heat is about, 1 = speaking. Squeeze-excitation heat does not depend on it.
            output: the model's output for these inputs, where it is already known.

        Returns:
            {stream: (T, h, w)} float32, every value >= 0; h and w are those of the network's maps, or the crop's for a
            method that sees pixels.
        """
        raise NotImplementedError


def scored(model: nn.Module, inputs: dict[str, torch.Tensor | None], output: Output | None) -> Output:
    """The output that is given, else that of a scoring pass without gradients."""
    if output is None:
        with torch.inference_mode():
            output = model(**inputs)
    return output


def register(name: str) -> Callable[[Callable[..., Explainer]], Callable[..., Explainer]]:
    """Decorator that makes an explainer known by ``name``."""

    def add(factory: Callable[..., Explainer]) -> Callable[..., Explainer]:
        _EXPLAINERS[name] = factory
        return factory

    return add


def list_explainers() -> list[str]:
    """Names of all explainers, sorted."""
    import asd_explain.explain.cams
    import asd_explain.explain.controls
    import asd_explain.explain.fullgrad
    import asd_explain.explain.squeeze  # noqa: F401  (all of them register)

    return sorted(_EXPLAINERS)


def create_explainer(name: str, **options: object) -> Explainer:
    """An explainer by name.

    Raises:
        OptionError: for an unknown name, or options that it does not have.
    """
    known = list_explainers()
    if name not in _EXPLAINERS:
        raise OptionError(f"unknown explainer {name!r}; choose one of {', '.join(known)}")
    try:
        inspect.signature(_EXPLAINERS[name]).bind(**options)
    except TypeError as error:
        raise OptionError(f"explainer {name!r}: {error}") from None
    return _EXPLAINERS[name](**options)
