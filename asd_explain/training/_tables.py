"""Option dataclasses read from TOML tables, and the checks that they share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

from asd_explain.errors import OptionError


class FromTable:
    """Mixin of a dataclass that can be read from a TOML table; ``_table`` names it in messages."""

    _table = "table"

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """The options that a TOML table states, the others by default.

        Raises:
            OptionError: the table has an unknown key or a value that cannot be used.
        """
        names = [f.name for f in fields(cls)]
        for key in table:
            if key not in names:
                raise OptionError(f"[{cls._table}] has no option {key!r}; choose from {', '.join(names)}")
        return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in table.items()})

    def _check_number(self, names: Iterable[str], low: float, high: float) -> None:
        for name in names:
            if not _within(getattr(self, name), low, high):
                raise OptionError(f"[{self._table}] {name} = {getattr(self, name)!r} is not from {low:g} to {high:g}")

    def _check_range(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        pair = isinstance(value, tuple) and len(value) == 2 and all(_within(v, low, high) for v in value)
        if not (pair and value[0] <= value[1]):
            raise OptionError(
                f"[{self._table}] {name} = {value!r} is not [least, most] with both from {low:g} to {high:g}"
            )


def _within(value: object, low: float, high: float) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and low <= value <= high


def check_tables(content: Mapping[str, object], path: Path, tables: Iterable[str], others: Iterable[str] = ()) -> None:
    """See that a TOML file holds nothing but what is known.

    Args:
        content: of the file.
        path: of the file, for messages.
        tables: names of its tables.
        others: names of what stands above them.

    Raises:
        OptionError: it holds something else, or no table where there should be one.
    """
    tables, others = list(tables), list(others)
    if unknown := sorted(set(content) - {*tables, *others}):
        raise OptionError(f"{path}: unknown {', '.join(unknown)}; known are {', '.join([*others, *tables])}")
    for name in tables:
        if not isinstance(content.get(name, {}), dict):
            raise OptionError(
                f"{path}: {name} = {content[name]!r} is not a table; write [{name}] and the options below"
            )


def options_of(content: Mapping[str, Mapping[str, Any]], kinds: Mapping[str, type[FromTable]]) -> dict[str, Any]:
    """{name: the options of that table}, by default where the content lacks it.

    Raises:
        OptionError: a table has an unknown key or a value that cannot be used.
    """
    found = {name: kind.from_table(content.get(name, {})) for name, kind in kinds.items()}
    for name, table in found.items():
        for option in fields(table):
            value = getattr(table, option.name)
            if type(option.default) in (int, bool) and type(value) is not type(option.default):
                kind = "a whole number" if type(option.default) is int else "true or false"
                raise OptionError(f"[{name}] {option.name} = {value!r} is not {kind}")
    return found


def seed_of(content: Mapping[str, object], path: Path) -> int:
    """The seed that a TOML file states, or 0.

    Raises:
        OptionError: it is no whole number from 0.
    """
    seed = content.get("seed", 0)
    if type(seed) is not int or seed < 0:
        raise OptionError(f"{path}: seed = {seed!r} is not a whole number from 0")
    return seed
