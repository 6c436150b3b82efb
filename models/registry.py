"""Backbones by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from torch import nn

from asd_explain.errors import OptionError

_FACTORIES: dict[str, Callable[..., nn.Module]] = {}
_MODULES = ("asdnb", "bias", "light_asd", "loconet", "lr_asd", "squeeze_asd", "talknet")


def register(name: str) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Class decorator that makes a backbone known by ``name``."""

    def add(factory: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        _FACTORIES[name] = factory
        return factory

    return add


def _load_all() -> None:
    for module in _MODULES:
        import_module(f"asd_explain.models.{module}")


def list_models() -> list[str]:
    """Names of all backbones, sorted."""
    _load_all()
    return sorted(_FACTORIES)


def create_model(name: str, **options: object) -> nn.Module:
    """A backbone with fresh parameters, in evaluation mode.

    Raises:
        OptionError: for an unknown name.
    """
    _load_all()
    if name not in _FACTORIES:
        raise OptionError(f"unknown model {name!r}; choose one of {', '.join(sorted(_FACTORIES))}")
    return _FACTORIES[name](**options).eval()
