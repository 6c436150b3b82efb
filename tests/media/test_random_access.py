"""Random access: both backends against the streaming reader."""

from __future__ import annotations

import contextlib
from fractions import Fraction

import numpy as np
import pytest

from asd_explain.errors import ClipError, OptionError
from asd_explain.media import RandomAccess, VideoReader, random_access

HAVE_DECORD = True
try:
    import decord  # noqa: F401
except ImportError:
    HAVE_DECORD = False

BACKENDS = ["pyav", pytest.param("decord", marks=pytest.mark.skipif(not HAVE_DECORD, reason="decord not installed"))]


def streamed(path):
    with VideoReader(path, threads=1) as reader:
        frames = list(reader)
    return np.array([frame.time_s for frame in frames]), frames


def check(path, backend, indices, mean=1.0, most=12):
    """Times equal; RGB and luma of ``indices`` as the streaming reader gives them (in levels)."""
    times, frames = streamed(path)
    with RandomAccess(path, backend, threads=1) as access:
        np.testing.assert_array_equal(access.times_s, times)
        assert len(access) == len(times)
        luma, rgb = access.luma(indices), access.frames(indices)
        for row, index in enumerate(indices):
            wrong = np.abs(luma[row].astype(int) - frames[index].luma())
            assert wrong.mean() <= mean, (index, wrong.mean())
            assert np.percentile(wrong, 99) <= most
            wrong = np.abs(rgb[row].astype(int) - frames[index].rgb())
            assert wrong.mean() <= mean, (index, wrong.mean())
        return access


CLIPS = {
    "constant": {"times_s": [i / 25 for i in range(70)], "options": {"bf": "3", "g": "20", "crf": "8"}},
    "late": {"times_s": [0.5 + i / 30 for i in range(40)], "rate": 30, "options": {"bf": "2", "g": "12", "crf": "8"}},
    "variable": {
        "times_s": [Fraction(t, 90000) for t in np.cumsum([0, *[3000, 3750, 1500, 9000] * 10]).tolist()],
        "options": {"bf": "2", "g": "15", "crf": "8"},
    },
    # The keyframes of an open group of pictures have frames before them that need the group before.
    "open": {
        "times_s": [i / 25 for i in range(70)],
        "options": {"bf": "3", "g": "20", "crf": "8", "x264-params": "open-gop=1:b-pyramid=none:bframes=3:b-adapt=0"},
    },
    "rotated": {"times_s": [i / 25 for i in range(20)], "rotation": 90},
    "full_range": {"times_s": [i / 25 for i in range(20)], "full_range": True},
    "bt709": {"times_s": [i / 25 for i in range(20)], "colorspace": 1},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CLIPS)
def test_same_times_and_frames_as_streaming(clip, backend, name):
    path = clip("a.mp4", **CLIPS[name])
    n = len(CLIPS[name]["times_s"])
    indices = [n - 1, 0, *np.random.default_rng(3).integers(0, n, 14).tolist(), 1, 1]
    access = check(path, backend, indices)
    assert access.backend == backend


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "settings"),
    [("a.avi", {"codec": "mpeg4"}), ("a.mpg", {"codec": "mpeg1video"}), ("a.mkv", {}), ("a.ts", {})],
)
def test_containers(clip, backend, name, settings):
    path = clip(name, [Fraction(i, 25) for i in range(40)], **settings)
    # decord may refuse such a file; it must not be wrong.
    with contextlib.suppress(*([ClipError] if backend == "decord" else [])):
        check(path, backend, [39, 3, 25, 17, 24, 0])
    check(path, "auto", [39, 3, 25, 17, 24, 0])


def test_hd_without_a_named_matrix(clip):
    path = clip("hd.mp4", [0.0, 0.04, 0.08], size=(1280, 720))
    check(path, "auto", [2, 0], mean=1.5)


def test_truncated_clip_is_read_from_the_beginning(clip, tmp_path):
    fast = {"movflags": "+faststart"}
    whole = clip("a.mp4", [i / 25 for i in range(60)], container_options=fast, options={"g": "10", "crf": "8"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    check(cut, "auto", [7, 3, 15], mean=0.6)


def test_decord_is_not_needed(clip, monkeypatch):
    path = clip("a.mp4", [i / 25 for i in range(5)])

    def absent():
        raise ImportError("decord")

    monkeypatch.setattr(random_access, "_import_decord", absent)
    assert RandomAccess(path).backend == "pyav"
    with pytest.raises(ClipError, match="decord is not installed"):
        RandomAccess(path, "decord")


@pytest.mark.skipif(not HAVE_DECORD, reason="decord not installed")
def test_decord_is_not_believed_where_it_is_wrong(clip, monkeypatch, index_of):
    path = clip("a.mp4", [i / 25 for i in range(40)], options={"g": "10", "crf": "8", "bf": "0"})
    honest = random_access._Decord.get

    def shifted(self, index):
        return honest(self, min(index + 1, 39) if 10 <= index < 20 else index)

    monkeypatch.setattr(random_access._Decord, "get", shifted)
    access = RandomAccess(path, "decord")
    assert [index_of(luma) for luma in access.luma([5, 12, 19, 30])] == [5, 12, 19, 30]
    assert access._decord.verdicts == {0: True, 10: False, 30: True}


def test_at_finds_the_nearest_frame(clip):
    access = RandomAccess(clip("a.mp4", [0.2 + i / 25 for i in range(5)]), "pyav")
    assert [access.at(t) for t in (0.0, 0.2, 0.22, 0.225, 0.36, 99.0)] == [0, 0, 0, 1, 4, 4]


def test_wrong_use(clip, tmp_path):
    path = clip("a.mp4", [0.0, 0.04])
    with pytest.raises(OptionError, match="choose auto, decord or pyav"):
        RandomAccess(path, "vlc")
    with pytest.raises(ClipError, match="no such file"):
        RandomAccess(tmp_path / "nowhere.mp4")
    access = RandomAccess(path)
    for bad in ([-1], [0, 2]):
        with pytest.raises(IndexError):
            access.frames(bad)
    assert access.frames([]).shape == (0, 64, 96, 3)


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        "single/variable_frame_rate.mp4",
        "single/studio_bbaf2n.mpg",
        "conversations/stage_shot_cuts.mp4",
        "conversations/car_front_voice_only.mp4",
    ],
)
def test_real_clips(shared_dir, name):
    path = shared_dir / "clips" / name
    check(path, "auto", [70, 2, 61, 60, 58, 3, 74])
