"""Cards of what was trained or fitted here: TOML beside the file that was written."""

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
    names = {"name": f"{kind}.{base}", "kind": kind, "model": model, "base": base}
    return _card_text(names, path, source, training_data, {}, limits, tables)


def network_card_text(
    name: str,
    model: str,
    path: Path,
    *,
    licence: str,
    source: str,
    training_data: str,
    geometry: str,
    audio: str = "mfcc",
    limits: Sequence[str],
    tables: Mapping[str, Mapping[str, object]],
) -> str:
    """The card of a network's weights.

    Args:
        name: of the card.
        model: name of the backbone in the registry.
        path: the file, already written.
        licence, source, training_data, geometry, audio, limits: see :class:`asd_explain.weights.cards.Card`.
        tables: as for :func:`fitted_card_text`.
    """
    names = {"name": name, "kind": "network", "model": model}
    return _card_text(
        names, path, source, training_data, {"geometry": geometry, "audio": audio}, limits, tables, licence
    )


def classifier_card_text(
    name: str,
    arch: str,
    path: Path,
    *,
    source: str,
    training_data: str,
    limits: Sequence[str],
    tables: Mapping[str, Mapping[str, object]],
) -> str:
    """The card of a classifier of pictures, see :mod:`asd_explain.weights.images`.

    Args:
        name: of the card.
        arch: of the network.
        path: the file, already written.
        source, training_data, limits: see :class:`asd_explain.weights.cards.Card`.
        tables: as for :func:`fitted_card_text`.
    """
    names = {"name": name, "kind": "classifier", "model": arch}
    return _card_text(names, path, source, training_data, {}, limits, tables, "that of whoever trained it")


def _card_text(
    names: Mapping[str, str],
    path: Path,
    source: str,
    training_data: str,
    more: Mapping[str, str],
    limits: Sequence[str],
    tables: Mapping[str, Mapping[str, object]],
    licence: str = "MIT (this project)",
) -> str:
    head = {
        **names,
        "file": path.name,
        "sha256": sha256_of(path),
        "size_bytes": path.stat().st_size,
        "licence": licence,
        "source": source,
        "training_data": training_data,
        **more,
    }
    lines = [f"{key} = {_toml(value)}" for key, value in head.items()]
    lines += ["limits = [", *(f"  {_toml(text)}," for text in limits), "]"]
    for name, values in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """A text, truth value, number or list of those, which TOML writes as JSON and Python do (NaN, too)."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)
