"""The corpus: what belongs to which split, and hints as labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asd_explain.datasets.shared_clips import hinted_labels, list_clips, split_of
from asd_explain.errors import OptionError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clips = tmp_path / "clips"
    names = {
        "conversations": ["four_panel_call.mp4", "car_noisy.mp4", "two_overlapping_1.avi", "notes.txt"],
        "single": ["selfie_31s.mp4", "office_talk.mp4", "talk_2.mp4"],
        "listening": ["expressions_d14.mp4"],
    }
    names |= {f"tracks/speaker_{n:02d}": [f"clip_{i:02d}.mp4" for i in range(30)] for n in (1, 2, 9, 17)}
    for group, files in names.items():
        (clips / group).mkdir(parents=True)
        for name in files:
            (clips / group / name).touch()
    return tmp_path


def test_splits_follow_the_readme(folder: Path) -> None:
    by_name = {e.name: e for e in list_clips(folder, per_speaker=2)}
    assert by_name["conversations/four_panel_call"].split == "test"
    assert by_name["conversations/car_noisy"].split == "fit"
    assert by_name["single/office_talk"].split == "dev"
    assert {e.split for e in by_name.values() if e.person == "speaker_09"} == {"test"}
    assert {e.split for e in by_name.values() if e.person == "speaker_02"} == {"dev"}
    assert not [e for e in by_name.values() if e.person == "speaker_17"], "mixes people of other splits"
    assert "conversations/notes" not in by_name
    assert split_of("speaker_01") == "fit"


def test_up_to_twelve_are_of_the_same_twelve(folder: Path) -> None:
    names = {n: {e.name for e in list_clips(folder, groups=("tracks",), per_speaker=n)} for n in (*range(1, 13), 30)}
    assert [len(chosen) for chosen in names.values()] == [3 * n for n in names]
    assert all(names[n] <= names[12] for n in range(1, 13))
    assert names[12] <= names[30]


def test_no_clip_of_a_speaker_is_refused(folder: Path) -> None:
    with pytest.raises(OptionError, match="--per-speaker is 1 or more"):
        list_clips(folder, per_speaker=0)


def test_a_folder_without_clips_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"no clips below .*--shared"):
        list_clips(tmp_path)


def test_hints_become_labels_with_borders_left_out() -> None:
    times = np.arange(0, 15, 0.04)
    size, box = (1280, 720), np.array([840, 84, 921, 196], np.float32)
    labels = hinted_labels(
        "conversations/four_panel_call", times, np.tile(box, (len(times), 1)), size, np.ones(len(times), bool)
    )
    assert (labels[times <= 3.8] == 1).all(), "the clip's own start is no border"
    assert np.isnan(labels[(times > 3.81) & (times < 4.79)]).all()
    assert (labels[(times > 4.8) & (times < 9.5)] == 0).all()
    assert (labels[(times > 10.5) & (times < 12.5)] == 1).all()
    small = np.array([1166, 387, 1214, 451], np.float32)
    assert hinted_labels("conversations/four_panel_call", times, small[None], size, times > 0) is None
    assert hinted_labels("single/talk_2", times, box[None], size, times > 0) is None
