"""Weights that a user trained: a file with its card beside it, and the block that was trained in.

``tools/train.py`` leaves ``best.safetensors`` and ``best.toml``. The card says how crops are to be cut; the block at
the fusion point, in a network that was published without one, is known by its keys.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import torch

from asd_explain.errors import WeightsError
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.se import SqueezeExcite
from asd_explain.weights.cards import Card

_PREFIX = "fusion_gate."


def card_beside(path: Path, sha256: str) -> Card | None:
    """The card that lies beside a weights file under its name, or None where there is none.

    It is known by its hash, so that both files may be renamed together; another hash is an error where it names the
    file, else it is somebody else's.

    Args:
        path: the weights.
        sha256: their hash.

    Raises:
        WeightsError: there is one, of other weights.
    """
    beside = path.with_suffix(".toml")
    try:
        values = tomllib.loads(beside.read_text(encoding="utf-8"))
        found = Card(**{**values, "limits": tuple(values.get("limits", ()))})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError):
        return None  # no file, or none of ours
    if found.kind != "network":
        return None
    if found.sha256 != sha256:
        if found.file != path.name:
            return None  # the two may have been renamed together, but these are not
        raise WeightsError(
            f"{beside} is the card of other weights than {path}: sha256 is {sha256[:12]}..., the card says "
            f"{found.sha256[:12]}...; put the right one there, or remove it"
        )
    return found


def attach_trained_gates(model: FusionBackbone, state: dict[str, torch.Tensor], gate: dict) -> None:
    """Give a network the block that its weights were trained with, where they hold one and it has none.

    Args:
        model: with fresh parameters.
        state: the weights.
        gate: of the card: "reduction" and "scope".

    Raises:
        WeightsError: the card says nothing of the block, or something else than the keys.
    """
    hidden = state.get(f"{_PREFIX}reduce.weight")
    if hidden is None or model.fusion_gate is not None:
        return
    if "reduction" not in gate:
        raise WeightsError(
            "these weights hold a squeeze-excitation block, and no card beside them says how to build it"
        )
    block = SqueezeExcite(
        hidden.shape[1], gate["reduction"], gate.get("scope", "frame"), standardise=f"{_PREFIX}mean" in state
    )
    if block.reduce.weight.shape != hidden.shape:
        raise WeightsError(
            f"the card's reduction of {gate['reduction']} gives {len(block.reduce.weight)} hidden units, the weights "
            f"have {len(hidden)}"
        )
    try:
        model.attach_gates(block.eval())
    except ValueError as error:
        raise WeightsError(f"the block in these weights does not fit {type(model).__name__}: {error}") from None
