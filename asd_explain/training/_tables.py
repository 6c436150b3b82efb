"""Option dataclasses read from TOML tables, and the checks that they share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
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
