"""The networks whose explanations are measured: by name or from a file, and what can be measured of each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.attention import PAPER, PLAIN, SE, Settings
from asd_explain.evaluate.untrained_gates import gates_against_untrained
from asd_explain.weights.cards import card
from asd_explain.weights.choice import choose
from asd_explain.weights.store import load

log = logging.getLogger(__name__)

#: Methods that are about gates: where all gates are one, each of them would be the plain mean of the maps.
OF_GATES = (SE, PLAIN, PAPER, "se-shuffled", "weights-shuffled")


def load_networks(names: Sequence[str], weights: Path | None, device: torch.device) -> dict[str, nn.Module]:
    """{name of the card in force: network}, in order.

    Args:
        names: "auto", backbones or cards, as ``choose`` takes them.
        weights: one network's file; its own card, not that of a published network, names it.
        device: where to put them.

    Raises:
        OptionError: a file for several networks, or an unknown name.
        WeightsError: weights cannot be had or do not fit.
    """
    if weights is not None and len(names) > 1:
        raise OptionError(f"--weights {weights}: one file is one network, and --model names {len(names)}; give one")
    chosen = dict.fromkeys(choose(name, weights) for name in names)
    loaded = [load(name, weights=weights, device=device) for name in chosen]
    return {model.card.name: model for model in loaded}


def settings_for(model: nn.Module, settings: Settings) -> Settings:
    """What can be measured of a network: methods that are about gates, and their variants, only where it has any.

    Raises:
        OptionError: nothing is left.
    """
    if model.maps_are_gated:
        return settings
    left = tuple(name for name in settings.explainers if name not in OF_GATES)
    name = model.card.name
    how = "a recipe trains a block in with --set model.gates=true"
    if not left:
        raise OptionError(
            f"{name} has no gates, and --explainers {','.join(settings.explainers)} need them; {how}; without gates "
            "choose among gradcam, gradcam++, eigengradcam, fullgrad, fem, activation"
        )
    if out := [method for method in settings.explainers if method in OF_GATES]:
        log.warning("%s has no gates: %s are left out (%s)", name, ", ".join(out), how)
    return replace(settings, explainers=left, variants=False)


def weights_record(model: nn.Module) -> dict[str, object]:
    """Which weights, gates and gains were measured, for the summary."""
    fitted = getattr(model, "fitted", {})
    gates, gains = ({"name": n, "sha256": card(n).sha256} if (n := fitted.get(k)) else None for k in ("gates", "gains"))
    if gates is None and model.maps_are_gated:
        gates = {"name": "trained with the network"}
    return {
        **{"card": model.card.name, "sha256": model.weights_sha256, "geometry": model.card.geometry},
        **{"gates": gates, "gains": gains},
    }


def untrained_rows(model: nn.Module, pooled: Sequence[np.ndarray]) -> list[dict]:
    """What becomes of P where gates that have learned nothing name the channels to keep; empty without a fusion block.

    Args:
        model: the network.
        pooled: (T, sum of C) fusion vectors before gating, a segment.
    """
    if model.fusion_gate is None or not pooled:
        return []
    trained_in = getattr(model, "fitted", {}).get("gates") is None
    test = gates_against_untrained(model, [torch.from_numpy(p) for p in pooled], gated=trained_in)
    return [
        {"ranking": ranking, "kept": share, "rest": fill, "change of P": test.mean(ranking, share, fill)}
        for ranking, share, fill in test.drift
    ]
