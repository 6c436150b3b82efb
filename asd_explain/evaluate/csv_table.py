"""Reading csv tables of a million rows strictly and fast, with an error that names file and line for whatever is wrong.

Accepted: UTF-8 with or without byte order mark, any line ends, quoted fields, blank lines, a header line in any order,
case and with further columns, or none where the columns are known by their place. Python's reader splits the lines (it
alone knows where a quoted field ends), columns are converted in pieces, so memory stays near that of the numbers.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asd_explain.evaluate.detection import EvaluationError

_PIECE = 1 << 16
_PROBE_BYTES = 1 << 13
_OTHER_SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars"}


class CsvError(EvaluationError):
    """A csv that cannot be used; the message names file, line and cure."""


@dataclass(frozen=True)
class Texts:
    """A column of words, each different one kept once.

    Attributes:
        names: the different words, in order of first appearance.
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
    pieces: dict[str, list[np.ndarray]] = {}
    tables: dict[str, dict[str, int]] = {}
    lines: list[np.ndarray] = []
    reader = None
    try:
        with path.open("rb") as file:
            if b"\0" in file.read(_PROBE_BYTES):
                raise CsvError(f"{path} is a binary file or UTF-16 text, not a csv; save it as UTF-8 csv")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            first = next((cells for cells in reader if not _blank(cells)), None)
            if first is None:
                raise CsvError(f"{path} is empty; expected {', '.join(wanted)}")
            header, headed = _header(path, first, reader.line_num, wanted, optional_texts, without_header)
            places = {name: header.index(name) for name in (*wanted, *optional_texts) if name in header}
            start = reader.line_num
            rows: Iterator[list[str]] = reader
            if not headed:
                rows, start = itertools.chain([first], reader), start - 1 - sum(cell.count("\n") for cell in first)
            pieces = {name: [] for name in places}
            tables = {name: {} for name in places if name not in numbers}
            while piece := list(itertools.islice(rows, _PIECE)):
                kept, at = _numbered(path, piece, start, reader.line_num, len(header))
                start = reader.line_num
                lines.append(at)
                columns = list(zip(*kept, strict=True)) if kept else [()] * len(header)
                for name, place in places.items():
                    convert = _numbers if name in numbers else _codes
                    pieces[name].append(convert(columns[place], name, path, at, tables.get(name)))
    except OSError as error:
        raise CsvError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        line = 0 if reader is None else reader.line_num
        raise CsvError(f"{path}, after line {line}: not UTF-8 text; save it as UTF-8 csv") from None
    except csv.Error as error:
        line = 0 if reader is None else reader.line_num
        raise CsvError(f"{path}, line {line}: not a csv ({error}); is a quotation mark left open?") from None
    if not sum(map(len, lines)):
        raise CsvError(f"{path} holds no rows below its header; expected {', '.join(wanted)}")
    joined = {name: np.concatenate(parts) for name, parts in pieces.items()}
    return Table(
        path,
        {name: joined[name] for name in numbers},
        {name: Texts(tuple(table), joined[name]) for name, table in tables.items()},
        np.concatenate(lines),
    )


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


def _numbered(
    path: Path, piece: list[list[str]], start: int, end: int, width: int
) -> tuple[list[list[str]], np.ndarray]:
    """The rows that are not blank, and the line each ends on, given the lines read before and after the piece."""
    if end - start == len(piece):
        lines = np.arange(start + 1, end + 1)
    else:  # some field holds line ends
        lines = start + np.cumsum([1 + sum(cell.count("\n") for cell in row) for row in piece])
    if all(len(row) == width for row in piece) and (width > 1 or not any(map(_blank, piece))):
        return piece, lines
    kept = [i for i, row in enumerate(piece) if not _blank(row)]
    for i in kept:
        if len(piece[i]) != width:
            raise CsvError(f"{path}, line {lines[i]}: {len(piece[i])} cells where {width} are expected")
    return [piece[i] for i in kept], lines[kept]


def _numbers(cells: Sequence[str], name: str, path: Path, lines: np.ndarray, _: object) -> np.ndarray:
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
        if not np.isnan(values).any() and "_" not in "".join(cells):
            return values
    except ValueError:
        pass
    for cell, line in zip(cells, lines, strict=True):
        try:
            fine = "_" not in cell and not math.isnan(float(cell))
        except ValueError:
            fine = False
        if not fine:
            what = f"{name} {cell.strip()!r} is no number" if cell.strip() else f"no {name}"
            raise CsvError(f"{path}, line {line}: {what}; every row needs one")
    raise AssertionError("unreachable: some cell above is no number")


def _codes(cells: Sequence[str], name: str, path: Path, lines: np.ndarray, table: dict[str, int]) -> np.ndarray:
    known = len(table)
    codes = np.fromiter((table.setdefault(cell, len(table)) for cell in map(str.strip, cells)), np.int64, len(cells))
    if len(table) > known and "" in table:
        row = int(np.flatnonzero(codes == table[""])[0])
        raise CsvError(f"{path}, line {lines[row]}: no {name}; every row needs one")
    return codes
