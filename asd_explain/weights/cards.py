"""Weights cards: what a checkpoint is, where it comes from, and what must be fed to it. One TOML file each."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from asd_explain.errors import OptionError


@dataclass(frozen=True)
class Card:
    """One checkpoint, file of gates or gains, or detector.

    Attributes:
        name: unique name, also the stem of the TOML file.
        kind: "network", "gates", "gains" or "detector".
        file: file name of the weights; "" where it is not known.
        sha256: expected hash of the file; "" where it is not known to us. Such a file is given as a path, and what it
            hashes to is recorded at its first use (:mod:`asd_explain.weights.first_use`).
        size_bytes: expected size; 0 where it is not known.
        licence: licence of the file.
        source: where it was published, in words.
        url: https address, or None where the file is embedded in the package, or its hash is not known.
        shared: path below the shared material, or None.
        model: name in the registry of models (networks, gates and gains).
        base: name of the network that gates or gains were fitted to.
        training_data: what it was trained on.
        geometry: name of the crop geometry to cut faces by (networks).
        audio: what the network hears, a key of :data:`asd_explain.media.features.AUDIO_FEATURES`.
        gate: how to build the block (gates): reduction, scope; place: "fusion" (default) or "trunk", of the face.
        results: measured figures, with the command that reproduces them.
        limits: sentences on what it cannot do.
    """

    name: str
    kind: str
    file: str
    licence: str
    source: str
    sha256: str = ""
    size_bytes: int = 0
    url: str | None = None
    shared: str | None = None
    model: str | None = None
    base: str | None = None
    training_data: str = ""
    geometry: str | None = None
    audio: str = "mfcc"
    gate: dict = field(default_factory=dict)
    results: dict = field(default_factory=dict)
    limits: tuple[str, ...] = ()

    @property
    def by_path_only(self) -> bool:
        """Whether the file has to be given, as we know neither its hash nor where to fetch it."""
        return not self.sha256


@cache
def cards() -> dict[str, Card]:
    """Every card in the package, by name."""
    found = {}
    for entry in sorted((files("asd_explain.weights") / "cards").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            values = tomllib.loads(entry.read_text(encoding="utf-8"))
            values["limits"] = tuple(values.get("limits", ()))
            card = Card(**values)
            if card.name != entry.name.removesuffix(".toml"):
                raise ValueError(f"card {entry.name} calls itself {card.name}")
            found[card.name] = card
    return found


def card(name: str) -> Card:
    """The card of that name.

    Raises:
        OptionError: when there is none.
    """
    try:
        return cards()[name]
    except KeyError:
        known = ", ".join(c.name for c in cards().values() if c.kind == "network")
        raise OptionError(f"no weights called {name!r}; choose one of {known}") from None
