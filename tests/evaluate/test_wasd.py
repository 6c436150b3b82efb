"""WASD by category: placement against brute force, faults of the official files, groups."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.evaluate.calibration import expected_calibration_error
from asd_explain.evaluate.csv_table import CsvError
from asd_explain.evaluate.detection import average_precision
from asd_explain.evaluate.wasd import (
    CATEGORIES,
    faults,
    place_once,
    place_published,
    read_division,
    read_metadata,
    recording,
    wasd_figures,
)

DIVISION = """# Interview
aaaaaaaaaaa
# Debate
b-b_bbbbbbb
twotwotwot2
# React
ccccccccccc
twotwotwot2

# Podcast
ddddddddddd
# Police
eeeeeeeeeee
lonelonelo1   """
METADATA = """Video,Category,Facial Occlusion
aaaaaaaaaaa_0-30,0,0
aaaaaaaaaaa_30-60,0,0
b-b_bbbbbbb_0-30,1,0
twotwotwot2_0-30,1,0
twotwotwot2_0-30,3,0
ccccccccccc_0-30,3,0
ddddddddddd_5-35,2,1
eeeeeeeeeee_0-30,4,0
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "wasd_metadata.csv", tmp_path / "dataset_division.txt"
    for path, text in zip(paths, (METADATA, DIVISION), strict=True):
        path.write_text(text)
    return paths


def of(members: dict[str, np.ndarray], video: int) -> list[str]:
    return [name for name in CATEGORIES if members[name][video]]


def test_every_row_counts_once_by_its_sub_clip(files: tuple[Path, Path]) -> None:
    metadata, division = read_metadata(files[0]), read_division(files[1])
    videos = ["aaaaaaaaaaa_30-60", "aaaaaaaaaaa_60-90", "twotwotwot2_0-30", "lonelonelo1_0-30", "nobodynobod_0-30"]
    both = place_once(videos, metadata, division)
    assert [of(both.members, i) for i in range(5)] == [["OC"], ["OC"], [], ["SS"], []]
    assert [re.split("[:,]", note)[0] for note in both.notes] == [
        "sub-clips without a row in the metadata",
        "sub-clips of recordings without a row in the metadata",
        "sub-clips that the file itself places in two categories",
        "sub-clips in none of the files given",
    ]
    alone = place_once(videos, metadata)
    assert [of(alone.members, i) for i in range(5)] == [["OC"], ["OC"], [], [], []]
    lists = place_once(videos, None, division)
    assert [of(lists.members, i) for i in range(5)] == [["OC"], ["OC"], [], ["SS"], []]
    published = place_published(videos, division)
    assert [of(published.members, i) for i in range(5)] == [["OC"], ["OC"], ["SI", "HVN"], ["SS"], []]
    assert "twotwotwot2" in published.notes[0]
    assert "nobodynobod" in published.notes[1]


def test_names_faults_of_the_files(files: tuple[Path, Path]) -> None:
    metadata, division = read_metadata(files[0]), read_division(files[1])
    assert faults(metadata, division) == [
        "sub-clips to which the metadata give two categories: 1 (of twotwotwot2)",
        "the division file lists twotwotwot2 under two headings",
        "the division file lists lonelonelo1, of which the metadata have no row",
    ]
    less = {**division, "OC": ()}
    assert "the metadata have rows of aaaaaaaaaaa" in faults(metadata, less)[-1]
    assert faults(None, None) == []


@pytest.mark.shared
def test_the_official_files(shared_dir: Path) -> None:
    folder = shared_dir / "reference" / "wasd"
    metadata, division = read_metadata(folder / "wasd_metadata.csv"), read_division(folder / "dataset_division.txt")
    assert len(metadata) == 3694
    assert {name: len(ids) for name, ids in division.items()} == dict(
        zip(CATEGORIES, (35, 33, 23, 50, 25), strict=True)
    )
    said = " ".join(faults(metadata, division))
    assert "two categories: 30 (of B068jfKfC8A)" in said
    assert "lists B068jfKfC8A under two" in said
    assert "yZb7qpAPx-0, ob77T58HeIo" in said
    videos = list(metadata)
    once, published = place_once(videos, metadata, division), place_published(videos, division)
    # The metadata's counts (820, 783, 675, 726, 720 rows), without and with the 30 sub-clips that have two rows.
    assert [int(once.members[c].sum()) for c in CATEGORIES] == [820, 753, 675, 696, 720]
    assert [int(published.members[c].sum()) for c in CATEGORIES] == [820, 783, 675, 726, 720]
    # Apart from the recording listed twice, the two files agree on everything.
    differ = [v for i, v in enumerate(videos) if of(once.members, i) != of(published.members, i)]
    assert {recording(v) for v in differ} == {"B068jfKfC8A"}
    lost = place_once(["yZb7qpAPx-0_10-40", "ob77T58HeIo_0-30"], metadata, division)
    assert [of(lost.members, i) for i in range(2)] == [["HVN"], ["SS"]]


ids = st.text("ab-_1", min_size=1, max_size=3)


@settings(deadline=None)
@given(
    st.fixed_dictionaries({c: st.lists(ids, max_size=3, unique=True).map(tuple) for c in CATEGORIES}),
    st.lists(st.text("ab-_1", min_size=1, max_size=5), min_size=1, max_size=8, unique=True),
    st.data(),
)
def test_figures_equal_brute_force(division: dict, videos: list[str], data: st.DataObject) -> None:
    """The published scheme by regular expressions as in the official script; figures from rows picked one by one."""
    n = data.draw(st.integers(2, 30))
    column = {"min_size": n, "max_size": n}
    scores = np.array(data.draw(st.lists(st.integers(0, 8), **column))) / 8
    labels = np.array(data.draw(st.lists(st.integers(0, 1), **column)))
    whose = np.array(data.draw(st.lists(st.integers(0, len(videos) - 1), **column)))
    found = wasd_figures(scores, labels, whose, place_published(videos, division))
    groups = {c: (c,) for c in CATEGORIES} | {"Easy": ("OC", "SI"), "Hard": ("FO", "HVN", "SS")}
    for name, parts in groups.items():
        listed = [i for c in parts for i in division[c]]
        rows = [r for r in range(n) if any(re.search(re.escape(i), videos[whose[r]]) for i in listed)]
        section = found.sections[name]
        assert (section.rows, section.speaking) == (len(rows), sum(labels[rows]))
        if not rows:
            assert (section.undefined, section.ap, section.ece, section.base_rate) == ("no row", None, None, None)
            continue
        assert section.ece == pytest.approx(expected_calibration_error(scores[rows], labels[rows]))
        if len(set(labels[rows])) == 1:
            assert section.undefined == ("no silent row" if labels[rows[0]] else "no speaking row")
            assert section.ap is None
        else:
            assert section.ap == pytest.approx(average_precision(scores[rows], labels[rows]), abs=1e-12)
            assert section.ap <= section.ap_best_tie_order
    assert found.sections["pooled"].rows == n
    parts = [found.sections[c].ap for c in CATEGORIES]
    assert found.macro is None if None in parts else found.macro == pytest.approx(np.mean(parts))


def test_macro_is_the_mean_of_five_and_pooled_is_not() -> None:
    rng = np.random.default_rng(0)
    videos = [f"{c}{c}_0-30" for c in "abcde"]
    division = {c: (v[:2],) for c, v in zip(CATEGORIES, videos, strict=True)}
    whose = np.arange(500) % 5
    labels = rng.integers(0, 2, 500)
    scores = labels * whose / 4 + rng.normal(0, 1, 500)
    found = wasd_figures(scores, labels, whose, place_once(videos, None, division))
    aps = [average_precision(scores[whose == i], labels[whose == i]) for i in range(5)]
    assert found.macro == pytest.approx(np.mean(aps))
    assert found.sections["pooled"].ap == pytest.approx(average_precision(scores, labels))
    easy = whose < 2
    assert found.sections["Easy"].ap == pytest.approx(average_precision(scores[easy], labels[easy]))
    assert not found.probabilities
    assert found.sections["OC"].ece is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("aaaaaaaaaaa\n# Interview\n", "line 1: an id before any heading"),
        ("# Interview\na b\n", "line 2: 'a b' is no YouTube id"),
        ("# Interviews\n", "line 1: heading 'Interviews'; expected Interview"),
        ("# Interview\n# Debate\n# React\n# Podcast\n", "no heading # Police"),
        ("", "no heading # Interview, # Debate"),
        (b"\xff\xff", "not UTF-8"),
    ],
)
def test_a_division_file_that_is_none(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "division.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(CsvError, match=said):
        read_division(path)
    with pytest.raises(CsvError, match="cannot be read"):
        read_division(tmp_path / "absent.txt")


def test_metadata_that_are_none(files: tuple[Path, Path]) -> None:
    files[0].write_text(METADATA.replace("_5-35,2", "_5-35,5"))
    with pytest.raises(CsvError, match=r"line 8: category '5'; expected 0 to 4 \(OC, SI, FO, HVN, SS\)"):
        read_metadata(files[0])
    files[0].write_text("Video,Kind\nv,0\n")
    with pytest.raises(CsvError, match="no column category"):
        read_metadata(files[0])
