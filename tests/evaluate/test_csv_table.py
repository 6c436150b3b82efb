"""Strict csv reading: dialects accepted, faults named, against Python's own reader."""

from __future__ import annotations

import csv
import io
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asd_explain.evaluate import csv_table
from asd_explain.evaluate.csv_table import CsvError, Table, read_table


def read(path: Path, data: str | bytes, **options: object) -> Table:
    """Columns a (number) and w (words) of a file with this content."""
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_table(path, ("a",), ("w",), **options)


def cells(table: Table) -> list[tuple[float, str, int]]:
    words = table.texts["w"]
    return [(a, words[i], line) for i, (a, line) in enumerate(zip(table.numbers["a"], table.lines, strict=True))]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("a,w\n1,x\n2.5,y\n", (2, 3)),
        ("a,w\n1,x\n2.5,y", (2, 3)),  # no end of line at the end
        ("\ufeffa,w\n1,x\n2.5,y\n", (2, 3)),
        ("a,w\r\n1,x\r\n2.5,y\r\n", (2, 3)),
        ("a,w\r1,x\r2.5,y\r", (2, 3)),
        ("\n a , W \n\n1,x\n\n \n2.5 , y \n\n\n", (4, 7)),
        ('"a","w"\n"1","x"\n2.5,"y"\n', (2, 3)),
        ("extra,w,more,a\n,x,,1\nz,y,z,25e-1\n", (2, 3)),
        ('note,w,a\n"of, two\nlines",x,1\n"",y,2.5\n', (3, 4)),
    ],
)
def test_accepts_every_dialect(tmp_path: Path, data: str, lines: tuple[int, int]) -> None:
    assert cells(read(tmp_path / "t.csv", data)) == [(1, "x", lines[0]), (2.5, "y", lines[1])]


def test_columns_known_by_place(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", "\n1,x\n2,y\n", without_header=("a", "w"))
    assert cells(table) == [(1, "x", 2), (2, "y", 3)]
    quoted = read(tmp_path / "t.csv", '1,"x\ny"\n2,z\n', without_header=("a", "w"))
    assert cells(quoted) == [(1, "x\ny", 2), (2, "z", 3)]


def test_optional_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert "v" not in read(path, "a,w\n1,x\n", optional_texts=("v",)).texts
    assert read(path, "v,a,w\np,1,x\n", optional_texts=("v",)).texts["v"].names == ("p",)


def test_infinity_is_a_number(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", "a,w\n-inf,x\n1e400,x\n")
    assert table.numbers["a"].tolist() == [-math.inf, math.inf]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "is empty"),
        ("\n \n\n", "is empty"),
        ("a,w\n\n", "no rows below its header"),
        ("a,b\n1,2\n", "line 1: no column w; it has a, b"),
        ("a,w,a\n1,x,1\n", "line 1: two columns are called a"),
        ("1,x\n", "line 1: no header with a, w"),
        ("a,w\n1,x\n2\n", "line 3: 1 cells where 2"),
        ("a,w\n1,x\n\n2,y,z\n", "line 4: 3 cells where 2"),
        ('a,w\n1,"x"\n2,y,z\n', "line 3: 3 cells where 2"),
        ("a,w\n1,x\n2,y\nhigh,z\n", "line 4: a 'high' is no number"),
        ("a,w\n1,x\nnan,y\n", "line 3: a 'nan' is no number"),
        ("a,w\n1,x\n , y\n", "line 3: no a"),
        ("a,w\n1_0,x\n", "line 2: a '1_0' is no number"),
        ("a,w\n1,x\n2,  \n", "line 3: no w"),
        ("a\tw\n1\tx\n", "line 1: separated by tabs"),
        ("a;w\n1;x\n", "line 1: separated by semicolons"),
        ("a|w\n1|x\n", "line 1: separated by bars"),
        ('a,w\n1,x\n2,"y\n3,z\n', "line 4: not a csv"),
        ('a,"w\n1,x\n', "line 2: not a csv"),
        (b"PK\x03\x04\0\0\0", "binary file or UTF-16"),
        ("a,w\n1,x\n".encode("utf-16"), "binary file or UTF-16"),
        (b"a,w\n1,x\n2,\xff\xfe\n", "not UTF-8"),
    ],
)
def test_names_file_line_and_cure(tmp_path: Path, data: str | bytes, said: str) -> None:
    with pytest.raises(CsvError, match=said) as caught:
        read(tmp_path / "t.csv", data)
    assert str(tmp_path / "t.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_says_what_a_file_without_header_must_have(tmp_path: Path) -> None:
    with pytest.raises(CsvError, match=r"3 columns without a header; expected 2 \(a, w\)"):
        read(tmp_path / "t.csv", "1,x,2\n", without_header=("a", "w"))
    with pytest.raises(CsvError, match="separated by tabs"):
        read(tmp_path / "t.csv", "1\tx\n", without_header=("a", "w"))


@pytest.mark.parametrize("make", [lambda p: p, lambda p: p / "absent.csv"])
def test_a_file_that_cannot_be_read(tmp_path: Path, make) -> None:
    with pytest.raises(CsvError, match="cannot be read"):
        read_table(make(tmp_path), ("a",), ("w",))


rows = st.lists(
    st.tuples(
        st.floats(allow_nan=False),
        st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
        st.text("ab", min_size=1, max_size=2),
        st.integers(0, 2),  # blank lines before the row
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows,
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.booleans(),
    st.integers(1, 4),
)
def test_equals_pythons_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list, end: str, quoting: int, mark: bool, piece: int
) -> None:
    monkeypatch.setattr(csv_table, "_PIECE", piece)  # so that pieces end everywhere
    if quoting == csv.QUOTE_MINIMAL and end == "\n" and any("\r" in note for _, note, _, _ in rows):
        quoting = csv.QUOTE_ALL  # Python before 3.13 leaves a bare \r without quotes, and then reads it as a line's end
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=quoting, lineterminator=end)
    writer.writerow(["note", "a", "w"])
    for number, note, word, blank in rows:
        stream.write(end * blank)
        writer.writerow([note, number, word])
    path = tmp_path / "t.csv"
    path.write_bytes(("\ufeff" * mark + stream.getvalue()).encode())
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        expected = [(float(r[1]), r[2], reader.line_num) for r in itertools.islice(reader, 1, None) if r]
    assert cells(read_table(path, ("a",), ("w",))) == expected


def test_many_rows_in_pieces(tmp_path: Path) -> None:
    n = 3 * csv_table._PIECE + 5
    path = tmp_path / "t.csv"
    path.write_text("a,w\n" + "".join(f"{i / 8},{'xyz'[i % 3]}\n" for i in range(n)))
    table = read_table(path, ("a",), ("w",))
    assert np.array_equal(table.numbers["a"], np.arange(n) / 8)
    assert [table.texts["w"][i] for i in (0, 4, n - 1)] == ["x", "y", "xyz"[(n - 1) % 3]]
    assert table.lines[-1] == n + 1
    with path.open("a") as file:
        file.write("loud,x\n")
    with pytest.raises(CsvError, match=f"line {n + 2}: a 'loud'"):
        read_table(path, ("a",), ("w",))
