"""The card of what was fitted to a network: TOML beside the file that was written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from asd_explain.weights.store import sha256_of


def fitted_card_text(
    kind: str,
    base: str,
    model: str,
    path: Path,
    *,
    source: str,
    training_data: str,
    limits: Sequence[str],
    tables: Mapping[str, Mapping[str, object]],
) -> str:
    """The card of a file of ours that belongs to a network's weights.

    Args:
        kind: "gates" or "gains"; the card's name is ``kind``.``base``.
        base: name of the network's card.
        model: name of its backbone in the registry.
        path: the file, already written.
        source, training_data, limits: see :class:`asd_explain.weights.cards.Card`.
        tables: {"results": {...}, ...} in their order; values are texts, numbers and lists of numbers.
    """
    head = {
        "name": f"{kind}.{base}",
        "kind": kind,
        "model": model,
        "base": base,
        "file": path.name,
        "sha256": sha256_of(path),
        "size_bytes": path.stat().st_size,
        "licence": "MIT (this project)",
        "source": source,
        "training_data": training_data,
    }
    lines = [f"{key} = {_toml(value)}" for key, value in head.items()]
    lines += ["limits = [", *(f"  {_toml(text)}," for text in limits), "]"]
    for name, values in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """A text, number or list of numbers, which TOML writes as JSON and Python do (NaN, too)."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
