"""The corpus: what belongs to which split, hints as labels, and the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asd_explain.datasets import shared_clips
from asd_explain.datasets.shared_clips import ClipEntry, FaceClip, FaceClipCache, hinted_labels, list_clips, split_of
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


def test_smaller_subsets_lie_within_larger_ones(folder: Path) -> None:
    names = {n: {e.name for e in list_clips(folder, groups=("tracks",), per_speaker=n)} for n in (1, 4, 12, 30)}
    assert [len(names[n]) for n in (1, 4, 12, 30)] == [3, 12, 36, 90]
    assert names[1] <= names[12]
    assert names[4] <= names[12] <= names[30]


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


def test_cache_gives_back_what_was_cut_and_cuts_once(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = next(e for e in list_clips(folder) if e.name == "single/talk_2")
    rng = np.random.default_rng(0)
    calls = []

    def cut(entry: ClipEntry, detector: object) -> list[FaceClip]:
        calls.append(detector)
        faces = {g: rng.integers(0, 255, (30, 112, 112), np.uint8) for g in ("box", "demo")}
        boxes, mfcc = rng.random((30, 4), np.float32), rng.random((120, 13), np.float32)
        views = {"wide": np.zeros((30, 160, 160), np.uint8), "bodies": rng.integers(0, 255, (30, 112, 112), np.uint8)}
        sound = {"mfcc": mfcc, "waveform": np.arange(19200, dtype=np.int16)}
        return [
            FaceClip(entry, i, 0.5, boxes, (64, 48), faces, **views, **sound, has_audio=i == 1, truth=truth)
            for i, truth in ((1, None), (4, np.ones(30, np.float32)))
        ]

    monkeypatch.setattr(shared_clips, "cut_faces", cut)
    monkeypatch.setattr(shared_clips, "create_detector", lambda _: "detector")
    first = FaceClipCache(tmp_path / "cache").get(entry)
    again = FaceClipCache(tmp_path / "cache").get(entry)
    assert calls == ["detector"]
    for one, two in zip(first, again, strict=True):
        assert (one.track_id, one.start_s, one.size, one.has_audio) == (
            two.track_id,
            two.start_s,
            two.size,
            two.has_audio,
        )
        assert one.entry == two.entry
        np.testing.assert_array_equal(one.faces["demo"], two.faces["demo"])
        np.testing.assert_array_equal(one.mfcc, two.mfcc)
    assert [c.track_id for c in again] == [1, 4]
    assert not [p for p in (tmp_path / "cache").rglob(".*") if p.is_file()], "no partial files are left"
    assert again[0].times_s[1] == pytest.approx(0.54)


@pytest.mark.shared
def test_a_real_clip_is_cut_into_two_faces(shared_dir: Path) -> None:
    from asd_explain.tracks.detect import create_detector

    entries = list_clips(shared_dir, groups=("conversations",))
    entry = next(e for e in entries if e.name == "conversations/two_overlapping_1")
    clips = shared_clips.cut_faces(entry, create_detector("haar"))
    assert len(clips) >= 2
    for clip in clips:
        assert clip.faces["box"].shape == clip.faces["demo"].shape == (len(clip), 112, 112)
        assert clip.mfcc.shape == (4 * len(clip), 13)
