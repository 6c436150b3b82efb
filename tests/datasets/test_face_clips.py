"""Faces of clips as tracks on the grid: cut once, and given back by the cache as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asd_explain.datasets import face_clips
from asd_explain.datasets.face_clips import FaceClip, FaceClipCache
from asd_explain.datasets.shared_clips import ClipEntry, list_clips
from asd_explain.tracks.detect import create_detector


def test_cache_gives_back_what_was_cut_and_cuts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ClipEntry(tmp_path / "talk_2.mp4", "single/talk_2", "single", "fit", "talk_2")
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

    monkeypatch.setattr(face_clips, "cut_faces", cut)
    monkeypatch.setattr(face_clips, "create_detector", lambda _: "detector")
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
    entries = list_clips(shared_dir, groups=("conversations",))
    entry = next(e for e in entries if e.name == "conversations/two_overlapping_1")
    clips = face_clips.cut_faces(entry, create_detector("haar"))
    assert len(clips) >= 2
    for clip in clips:
        assert clip.faces["box"].shape == clip.faces["demo"].shape == (len(clip), 112, 112)
        assert clip.mfcc.shape == (4 * len(clip), 13)
