"""The two files of the official evaluation: dialects, joining, faults, the official figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asd_explain.evaluate.ava_csv import Matched, ava_average_precision, join, read_predictions, read_truth
from asd_explain.evaluate.csv_table import CsvError

ROWS = [
    "v,1.00,0.1,0.2,0.3,0.4,SPEAKING_AUDIBLE,v:1",
    "v,1.04,0.1,0.2,0.3,0.4,NOT_SPEAKING,v:1",
    "v,1.04,0.5,0.2,0.7,0.4,SPEAKING_NOT_AUDIBLE,v:2",
]
HEADER = "video_id,frame_timestamp,entity_box_x1,entity_box_y1,entity_box_x2,entity_box_y2,label,entity_id"


def write_pair(folder: Path, truth: list[str], guess: list[str], header: bool = True) -> tuple[Path, Path]:
    paths = folder / "truth.csv", folder / "guess.csv"
    for path, rows, extra in zip(paths, (truth, guess), ("", ",score"), strict=True):
        path.write_text("\n".join([HEADER + extra] * header + rows) + "\n")
    return paths


def guesses(scores: list[object]) -> list[str]:
    said = (
        row.replace("SPEAKING_NOT_AUDIBLE", "NOT_SPEAKING").replace("NOT_SPEAKING", "SPEAKING_AUDIBLE") for row in ROWS
    )
    return [f"{row},{score}" for row, score in zip(said, scores, strict=True)]


def read_ava(truth: Path, guess: Path) -> Matched:
    return join(read_truth(truth), read_predictions(guess))


@pytest.mark.shared
@pytest.mark.parametrize(("name", "percent"), [("small", 72.18592142535212), ("large", 97.49528962497148)])
def test_official_figures(shared_dir: Path, tmp_path: Path, name: str, percent: float) -> None:
    truth, guess = (shared_dir / "reference" / "ava_eval" / f"{name}_{k}.csv" for k in ("groundtruth", "predictions"))
    assert 100 * ava_average_precision(truth, guess) == pytest.approx(percent, abs=1e-9)
    # The same without headers, sorted by entity, and on the other system's line ends.
    for path in (truth, guess):
        rows = sorted(path.read_text().splitlines()[1:], key=lambda row: row.split(",")[7])
        (tmp_path / path.name).write_bytes("\r\n".join(rows).encode())
    value = ava_average_precision(tmp_path / truth.name, tmp_path / guess.name)
    assert 100 * value == pytest.approx(percent, abs=1e-9)


@pytest.mark.parametrize("header", [True, False])
def test_rows_are_joined_by_time_and_entity(tmp_path: Path, header: bool) -> None:
    paths = write_pair(tmp_path, ROWS, guesses([0.9, 0.2, 0.95])[::-1], header)
    found = read_ava(*paths)
    assert found.scores.tolist() == [0.9, 0.2, 0.95]
    assert found.labels.tolist() == [1, 0, 0]
    assert [found.entities[i] for i in range(3)] == ["v:1", "v:1", "v:2"]
    assert [found.videos[i] for i in range(3)] == ["v"] * 3
    assert ava_average_precision(*paths) == 0.5


def test_reads_talknets_files_and_our_own_scores(tmp_path: Path) -> None:
    truth, guess = tmp_path / "val_orig.csv", tmp_path / "scores.csv"
    ids = [1, 0, 2]
    rows = [f"{row},{i},v:0:{k}" for k, (row, i) in enumerate(zip(ROWS, ids, strict=True))]
    truth.write_text("\n".join([f"{HEADER},label_id,instance_id", *rows]))
    more = [f"{row},{logit},1,1,0,own" for row, logit in zip(guesses([0.9, 0.2, 0.3]), (2.2, -1.4, -0.8), strict=True)]
    guess.write_text("\n".join([f"{HEADER},score,logit,speaking,track,interpolated,audio", *more]))
    assert read_ava(truth, guess).scores.tolist() == [0.9, 0.2, 0.3]
    assert read_predictions(guess, "Logit").scores.tolist() == [2.2, -1.4, -0.8]
    truth.write_text(truth.read_text().replace("v:1,0,", "v:1,1,"))
    with pytest.raises(CsvError, match="line 3: label NOT_SPEAKING but label_id 1"):
        read_truth(truth)
    truth.write_text(truth.read_text().replace("v:1,1,v:0:1", "v:1,7,v:0:1"))
    with pytest.raises(CsvError, match="line 3: label_id '7'"):
        read_truth(truth)


def test_times_are_numbers_not_words(tmp_path: Path) -> None:
    paths = write_pair(tmp_path, ROWS, [row.replace("1.00", "1e0") for row in guesses([3, 2, 1])])
    assert ava_average_precision(*paths) == 1


@pytest.mark.parametrize(
    ("truth", "guess", "said"),
    [
        (
            ROWS,
            guesses([1, 2, 3])[:2],
            r"no prediction for 1 of the 3 rows of .*truth.csv: v:2 at 1.04 s \(line 4\)",
        ),
        (ROWS[:2], guesses([1, 2, 3]), r"no annotation for 1 of the 3 rows of .*guess.csv: v:2 at 1.04 s \(line 4\)"),
        (ROWS, [row.replace("v:2", "v:3") for row in guesses([1, 2, 3])], "v:2 at 1.04 .* -- and .*v:3 at 1.04"),
        (ROWS, guesses([1, "", 3]), "guess.csv, line 3: no score"),
        (ROWS, guesses([1, "nan", 3]), "guess.csv, line 3: score 'nan' is no number"),
        (ROWS, guesses([1, "high", 3]), "guess.csv, line 3: score 'high' is no number"),
        (ROWS, [row.replace("1.00", "inf") for row in guesses([1, 2, 3])], "line 2: frame_timestamp is infinite"),
        (ROWS, [row.replace("0.5,0.2", "0.6,0.2") for row in guesses([1, 2, 3])], "guess.csv, line 4: another box"),
        (
            ROWS,
            [row.replace("0.1,", "0.10000001,") for row in guesses([1, 2, 3])],
            r"line 2: another .* \(2 such",
        ),
        (ROWS, [row.replace("1.00", "1.04") for row in guesses([1, 2, 3])], "guess.csv, line 3: a second row of v:1"),
        ([*ROWS, ROWS[0]], guesses([1, 2, 3]), "truth.csv, line 5: a second row of v:1 at 1 s"),
        (ROWS, [f"{row},1" for row in ROWS], "guess.csv, line 3: label 'NOT_SPEAKING'.* always SPEAKING_AUDIBLE"),
        (ROWS, ROWS, "8 cells where 9"),
        (
            [row.replace("NOT_SPEAKING", "QUIET") for row in ROWS],
            guesses([1, 2, 3]),
            "truth.csv, line 3: label 'QUI",
        ),
        ([], [], "no rows below its header"),
        ([ROWS[1]], guesses([1, 2, 3])[1:2], "truth.csv: only one class"),
    ],
)
def test_errors_name_file_line_and_cure(tmp_path: Path, truth: list[str], guess: list[str], said: str) -> None:
    with pytest.raises(CsvError, match=said) as caught:
        ava_average_precision(*write_pair(tmp_path, truth, guess))
    assert "\n" not in str(caught.value)


def test_names_the_first_few_of_many_missing_rows(tmp_path: Path) -> None:
    rows = [ROWS[0].replace("1.00", f"{i}.00") for i in range(9)]
    guess = [f"{row},0.5" for row in rows[:2]]
    with pytest.raises(CsvError, match=r"7 of the 9 rows .* v:1 at 2 s \(line 4\); .*3 s.*; .*4 s \(line 6\); \.\.\.;"):
        read_ava(*write_pair(tmp_path, rows, guess))


def test_a_box_may_differ_by_rounding(tmp_path: Path) -> None:
    near = [row.replace("0.1,", "0.1000000005,") for row in guesses([3, 2, 1])]
    assert ava_average_precision(*write_pair(tmp_path, ROWS, near)) == 1


@pytest.mark.parametrize("header", [True, False])
def test_without_a_score_column(tmp_path: Path, header: bool) -> None:
    truth, _ = write_pair(tmp_path, ROWS, ROWS, header)
    with pytest.raises(CsvError, match="no column score" if header else "8 columns without a header; expected 9"):
        read_predictions(truth)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 4), st.sampled_from(["v:1", "v:2", "w:1"])),
        st.tuples(st.integers(0, 2), st.floats(-9, 9)),
        min_size=1,
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_joining_equals_a_dictionary(tmp_path: Path, rows: dict, random) -> None:
    words = ("NOT_SPEAKING", "SPEAKING_AUDIBLE", "SPEAKING_NOT_AUDIBLE")
    truth = [f"v,{t / 25},0,0,1,1,{words[label]},{e}" for (t, e), (label, _) in rows.items()]
    guess = [f"v,{t / 25},0,0,1,1,SPEAKING_AUDIBLE,{e},{score!r}" for (t, e), (_, score) in rows.items()]
    random.shuffle(guess)
    found = read_ava(*write_pair(tmp_path, truth, guess))
    assert found.scores.tolist() == [score for _, score in rows.values()]
    assert np.array_equal(found.labels, [label == 1 for label, _ in rows.values()])


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_read_or_refused_by_name(tmp_path: Path, data: st.DataObject) -> None:
    sound = "\n".join([HEADER + ",score", *guesses([1, 2, 3])]).encode()
    at = data.draw(st.integers(0, len(sound)))
    gone = data.draw(st.integers(0, 30))
    put = data.draw(st.binary(max_size=4) | st.sampled_from([b"\n", b'"', b",", b"\0", b"\r", b"\xef\xbb\xbf", b";"]))
    path = tmp_path / "guess.csv"
    path.write_bytes(sound[:at] + put + sound[at + gone :])
    try:
        read_predictions(path)
    except CsvError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
