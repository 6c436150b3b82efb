"""Reading csv tables of a million rows strictly and fast, with an error that names file and line for whatever is wrong.

Accepted: UTF-8 with or without byte order mark, any line ends, quoted fields, blank lines, a header line in any order,
case and with further columns, or none where the columns are known by their place. Lines are taken in pieces, so that
memory stays near that of the numbers.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from asd_explain.evaluate.detection import EvaluationError

_PIECE = 1 << 12
_PROBE_BYTES = 1 << 13
_OTHER_SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars"}


class CsvError(EvaluationError):
    """A csv that cannot be used; the message names file, line and cure."""


@dataclass(frozen=True)
class Texts:
    """A column of words, each different one kept once.

    Attributes:
        names: the different words.
        codes: (N,) int64, which of them each row has.
    """

    names: tuple[str, ...]
    codes: np.ndarray

    def __getitem__(self, row: int) -> str:
        return self.names[self.codes[row]]


@dataclass(frozen=True)
class Table:
    """Columns of a csv.

    Attributes:
        path: of the file.
        numbers: {column: (N,) float64}.
        texts: {column: words}.
        lines: (N,) int64, the line of the file that each row ends on, counted from 1.
    """

    path: Path
    numbers: dict[str, np.ndarray]
    texts: dict[str, Texts]
    lines: np.ndarray

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.path}, line {self.lines[row]}"


def read_lines(path: Path) -> list[str]:
    """The lines of a small text file in UTF-8, with or without byte order mark.

    Raises:
        CsvError: it cannot be read, or is no such text.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise CsvError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise CsvError(f"{path}: not UTF-8 text; save it as UTF-8") from None


def read_table(
    path: Path | str,
    numbers: Sequence[str],
    texts: Sequence[str],
    *,
    optional_texts: Sequence[str] = (),
    without_header: Sequence[str] | None = None,
) -> Table:
    """Read columns of a csv by their names; all others are skipped.

    Args:
        path: the csv.
        numbers: columns to read as numbers; ``nan`` is none, infinity is one.
        texts: columns to read as words, stripped of blanks, not empty.
        optional_texts: the same, left out of the result where the file has no such column.
        without_header: the columns of a file whose first line is no header, in order; None: a header is needed.

    Raises:
        CsvError: unreadable, binary, empty, wrongly separated; a column missing or doubled; a row of another length; a
            cell that is no number, or empty.
    """
    path = Path(path)
    wanted = (*numbers, *texts)
    lines: list[np.ndarray] = []
    values: dict[str, list[np.ndarray]] = {}
    words: dict[str, _Words] = {}
    try:
        with path.open("rb") as file:
            if b"\0" in file.read(_PROBE_BYTES):
                raise CsvError(f"{path} is a binary file or UTF-16 text, not a csv; save it as UTF-8 csv")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            with _named(path, reader):
                first = next((cells for cells in reader if not _blank(cells)), None)
            if first is None:
                raise CsvError(f"{path} is empty; expected {', '.join(wanted)}")
            header, headed = _header(path, first, reader.line_num, wanted, optional_texts, without_header)
            places = {name: header.index(name) for name in (*wanted, *optional_texts) if name in header}
            values = {name: [] for name in places}
            words = {name: _Words() for name in places if name not in numbers}
            pieces = _pieces(path, file, reader.line_num, len(header))
            if not headed:
                pieces = itertools.chain([([[cell] for cell in first], np.array([reader.line_num]))], pieces)
            for columns, at in pieces:
                lines.append(at)
                for name, place in places.items():
                    convert = words[name].codes if name in words else _numbers
                    values[name].append(convert(columns[place], name, path, at))
    except OSError as error:
        raise CsvError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        read = int(lines[-1][-1]) if lines else 0
        raise CsvError(f"{path}, after line {read}: not UTF-8 text; save it as UTF-8 csv") from None
    if not lines:
        raise CsvError(f"{path} holds no rows below its header; expected {', '.join(wanted)}")
    joined = {name: np.concatenate(parts) for name, parts in values.items()}
    return Table(
        path,
        {name: joined[name] for name in numbers},
        {name: Texts(tuple(found.names), joined[name]) for name, found in words.items()},
        np.concatenate(lines),
    )


@contextmanager
def _named(path: Path, reader: Any, before: int = 0) -> Iterator[None]:
    """Errors of Python's csv reader, which began after the line ``before``, with file and line."""
    try:
        yield
    except csv.Error as error:
        line = before + reader.line_num
        raise CsvError(f"{path}, line {line}: not a csv ({error}); is a quotation mark left open?") from None


def _blank(cells: list[str]) -> bool:
    return not cells or (len(cells) == 1 and not cells[0].strip())


def _header(
    path: Path,
    first: list[str],
    line: int,
    wanted: Sequence[str],
    optional: Sequence[str],
    without_header: Sequence[str] | None,
) -> tuple[list[str], bool]:
    """The columns' names, and whether the first line holds them."""
    names = [cell.strip().lower() for cell in first]
    known = {*wanted, *optional, *(without_header or ())}
    headed = not known.isdisjoint(names)
    if not headed and without_header is not None and len(names) == len(without_header):
        return list(without_header), False
    if len(names) == 1 or not headed:
        for separator, word in _OTHER_SEPARATORS.items():
            if first[0].count(separator) >= len(wanted) - 1 > 0:
                raise CsvError(f"{path}, line {line}: separated by {word}; commas are needed")
    if not headed:
        if without_header is None:
            raise CsvError(f"{path}, line {line}: no header with {', '.join(wanted)}")
        raise CsvError(
            f"{path}, line {line}: {len(names)} columns without a header; expected {len(without_header)} "
            f"({', '.join(without_header)}), or a header that names them"
        )
    if missing := [name for name in wanted if name not in names]:
        raise CsvError(f"{path}, line {line}: no column {', '.join(missing)}; it has {', '.join(names)}")
    if doubled := [name for name in (*wanted, *optional) if names.count(name) > 1]:
        raise CsvError(f"{path}, line {line}: two columns are called {doubled[0]}; keep one")
    return names, True


def _pieces(path: Path, file: TextIO, start: int, width: int) -> Iterator[tuple[Sequence[Sequence[str]], np.ndarray]]:
    """(the columns' cells, lines of the file) of some rows at a time; blank lines are left out.

    Text without quotation marks is split at its commas, three times as fast as by Python's csv reader.

    Args:
        path: for messages.
        file: placed after the header.
        start: lines read before.
        width: cells of a row.
    """
    while lines := list(itertools.islice(file, _PIECE)):
        text = "".join(lines)
        if '"' in text:
            yield from _quoted_pieces(path, itertools.chain(lines, file), start, width)
            return
        numbers = np.arange(start + 1, start + 1 + len(lines))
        start += len(lines)
        if set(map(str.count, lines, itertools.repeat(","))) != {width - 1}:
            kept = [i for i, line in enumerate(lines) if line.strip()]
            for i in kept:
                _check_width(path, numbers[i], lines[i].count(",") + 1, width)
            if not kept:
                continue
            text, numbers = "".join(lines[i] for i in kept), numbers[kept]
        cells = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").replace("\n", ",").split(",")
        yield [cells[i::width] for i in range(width)], numbers


def _quoted_pieces(
    path: Path, lines: Iterator[str], start: int, width: int
) -> Iterator[tuple[Sequence[Sequence[str]], np.ndarray]]:
    """The same by Python's csv reader, which knows where a quoted field ends."""
    reader = csv.reader(lines, strict=True)
    rows, numbers = [], []
    with _named(path, reader, start):
        for row in reader:
            if _blank(row):
                continue
            _check_width(path, start + reader.line_num, len(row), width)
            rows.append(row)
            numbers.append(start + reader.line_num)
            if len(rows) == _PIECE:
                yield list(zip(*rows, strict=True)), np.array(numbers)
                rows, numbers = [], []
    if rows:
        yield list(zip(*rows, strict=True)), np.array(numbers)


def _check_width(path: Path, line: int, cells: int, width: int) -> None:
    if cells != width:
        raise CsvError(f"{path}, line {line}: {cells} cells where {width} are expected")


def _numbers(cells: Sequence[str], name: str, path: Path, lines: np.ndarray) -> np.ndarray:
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
        if not np.isnan(values).any() and "_" not in "".join(cells):  # Python reads 1_0 as 10
            return values
    except ValueError:
        pass
    cell, line = next((cell, line) for cell, line in zip(cells, lines, strict=True) if not _is_number(cell))
    what = f"{name} {cell.strip()!r} is no number" if cell.strip() else f"no {name}"
    raise CsvError(f"{path}, line {line}: {what}; every row needs one")


def _is_number(cell: str) -> bool:
    try:
        return not math.isnan(float(cell)) and "_" not in cell
    except ValueError:
        return False


class _Words:
    """Numbers the different words of a column."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self._cells: dict[str, int] = {}  # with the blanks around them

    def codes(self, cells: Sequence[str], name: str, path: Path, lines: np.ndarray) -> np.ndarray:
        for cell in sorted(set(cells) - self._cells.keys()):
            word = cell.strip()
            if not word:
                raise CsvError(f"{path}, line {lines[cells.index(cell)]}: no {name}; every row needs one")
            self._cells[cell] = self.names.setdefault(word, len(self.names))
        return np.fromiter(map(self._cells.__getitem__, cells), np.int64, len(cells))
