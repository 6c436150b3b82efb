"""Frame times, pieces, containers, tags and bad files of the streaming reader."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from asd_explain.errors import ClipError, OptionError
from asd_explain.media import VideoReader, probe

RATES = [
    Fraction(10),
    Fraction(15),
    Fraction(24000, 1001),
    Fraction(24),
    Fraction(25),
    Fraction(30000, 1001),
    Fraction(30),
    Fraction(50),
    Fraction(60),
]


def frames_of(path: Path, **options):
    with VideoReader(path, threads=1, **options) as reader:
        return list(reader)


@pytest.mark.parametrize("rate", RATES, ids=str)
def test_times_and_rate_are_exact(clip, index_of, rate):
    path = clip("a.mp4", [i / rate for i in range(12)], rate=rate, time_base=1 / rate, options={"bf": "3", "crf": "8"})
    frames = frames_of(path)
    assert probe(path).fps == rate
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.time_s for frame in frames] == [float(i / rate) for i in range(12)]
    assert [index_of(frame.luma()) for frame in frames] == list(range(12))


def test_variable_rate_and_late_start(clip, index_of):
    ticks = [4500, 6000, 9000, 9300, 15000, 30000, 31000]
    path = clip("vfr.mp4", [Fraction(t, 90000) for t in ticks], options={"bf": "2", "crf": "8"})
    frames = frames_of(path)
    assert [frame.time_s for frame in frames] == pytest.approx([t / 90000 for t in ticks], abs=1e-4)
    assert [index_of(frame.luma()) for frame in frames] == list(range(7))
    assert probe(path).start_s == frames[0].time_s


def test_piece_equals_the_same_frames_of_the_whole(clip, index_of):
    path = clip("a.mp4", [i / 25 for i in range(100)], options={"bf": "3", "g": "12", "crf": "8"})
    piece = frames_of(path, start_s=1.4, end_s=2.6)
    assert [index_of(frame.luma()) for frame in piece] == list(range(35, 65))
    assert piece[0].index == 0
    assert piece[0].time_s == pytest.approx(1.4)


def test_piece_without_frames_is_an_error(clip):
    path = clip("a.mp4", [i / 25 for i in range(5)])
    with pytest.raises(ClipError, match="no frame between start and end"):
        frames_of(path, start_s=9.0)


@pytest.mark.parametrize(("start_s", "end_s"), [(-1.0, None), (None, 0.0), (2.0, 1.0), (float("nan"), None)])
def test_senseless_pieces_are_refused(tmp_path, start_s, end_s):
    with pytest.raises(OptionError):
        VideoReader(tmp_path / "unread.mp4", start_s=start_s, end_s=end_s)


def test_a_reader_can_be_iterated_again(clip):
    path = clip("a.mp4", [i / 25 for i in range(5)])
    with VideoReader(path, threads=1) as reader:
        assert [frame.time_s for frame in reader] == [frame.time_s for frame in reader]


def test_frames_outlive_their_reader(clip, index_of):
    frames = frames_of(clip("a.mp4", [i / 25 for i in range(30)]))
    assert [index_of(frame.luma()) for frame in frames] == list(range(30))


def test_colour_tags_and_pixel_aspect(clip):
    path = clip("a.mp4", [0.0], colorspace=1, color_primaries=1, color_trc=1, sample_aspect_ratio=Fraction(4, 3))
    info = probe(path)
    assert info.matrix == "bt709"
    assert (info.colorspace, info.color_primaries, info.color_trc) == (1, 1, 1)
    assert info.sample_aspect_ratio == Fraction(4, 3)
    assert probe(clip("b.mp4", [0.0])).matrix == "bt601"
    assert probe(clip("c.mp4", [0.0], size=(1280, 720))).matrix == "bt709"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.avi", {"codec": "mpeg4"}),
        ("a.mpg", {"codec": "mpeg1video"}),
        ("a.mkv", {}),
        ("a.ts", {}),
        ("a.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    ],
)
def test_containers(clip, index_of, name, settings):
    if settings.get("codec", "libx264") not in av.codecs_available:
        pytest.skip("no encoder")
    path = clip(name, [Fraction(i, 25) for i in range(20)], **settings)
    frames = frames_of(path)
    assert [index_of(frame.luma()) for frame in frames] == list(range(20))
    assert np.diff([frame.time_s for frame in frames]) == pytest.approx([0.04] * 19, abs=1.1e-3)


def test_one_frame_and_tiny_clips(clip):
    assert len(frames_of(clip("one.mp4", [0.0]))) == 1
    tiny = frames_of(clip("tiny.mp4", [0.0, 0.04, 0.08], size=(8, 8)))
    assert [frame.luma().shape for frame in tiny] == [(8, 8)] * 3


def test_size_change_in_the_middle_keeps_the_first_size(clip, tmp_path):
    first = clip("a.ts", [i / 25 for i in range(5)], size=(96, 64))
    second = clip("b.ts", [1 + i / 25 for i in range(5)], size=(64, 48))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    frames = frames_of(joined)
    assert len(frames) > 5
    assert {frame.luma().shape for frame in frames} == {(64, 96)}
    assert {frame.planes().u.shape for frame in frames} == {(32, 48)}


# Bad input: one line, saying which file.


def refuse(path: Path, match: str) -> None:
    with pytest.raises(ClipError, match=match) as caught:
        probe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ClipError, match=match):
        frames_of(path)


def test_missing_file_and_directory(tmp_path):
    refuse(tmp_path / "nowhere.mp4", "no such file")
    refuse(tmp_path, "a directory")


def test_files_that_are_no_media(tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("This is no video.\n" * 200)
    refuse(text, "cannot be read as a video|no video track")
    notes = tmp_path / "notes.txt"
    notes.write_text("Neither is this.\n" * 200)
    refuse(notes, "cannot be read as a video|no video track")
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    refuse(empty, "empty")
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(np.random.default_rng(0).bytes(5000))
    refuse(noise, "cannot be read|no video track|no frame")


def test_truncated_without_index(clip, tmp_path):
    whole = clip("a.mp4", [i / 25 for i in range(50)]).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    refuse(cut, "cannot be read as a video")


def test_truncated_with_index_yields_what_it_holds(clip, tmp_path, index_of):
    fast = {"movflags": "+faststart"}
    whole = clip("a.mp4", [i / 25 for i in range(100)], container_options=fast, options={"g": "10", "crf": "8"})
    data = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 6 // 10])
    frames = frames_of(cut)
    assert 20 < len(frames) < 100
    assert [index_of(frame.luma()) for frame in frames[:20]] == list(range(20))
    times = np.array([frame.time_s for frame in frames])
    assert (np.diff(times) > 0).all()


def test_damage_in_the_middle_is_skipped(clip, tmp_path, index_of):
    path = clip("a.mp4", [i / 25 for i in range(60)], options={"g": "10", "crf": "8"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 8
    middle = start + (data.index(b"moov") - start) // 2
    assert middle + 300 < data.index(b"moov")
    data[middle : middle + 300] = np.random.default_rng(1).bytes(300)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(bytes(data))
    frames = frames_of(broken)
    assert len(frames) > 35
    assert index_of(frames[0].luma()) == 0
    assert index_of(frames[-1].luma()) == 59
    assert (np.diff([frame.time_s for frame in frames]) > 0).all()


def test_sound_only(tmp_path, tone):
    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(0.5), format="fltp", layout="mono")
        frame.sample_rate = 48000
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    refuse(path, "no video track")


def test_video_track_without_frames(tmp_path):
    path = tmp_path / "zero.mp4"
    with av.open(str(path), "w", options={"movflags": "+empty_moov+frag_keyframe"}) as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        out.start_encoding()
    refuse(path, "no frame that can be decoded|cannot be read|no video track")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "count", "size", "fps"),
    [
        ("conversations/stage_shot_cuts.mp4", 275, (640, 360), Fraction(2997, 100)),
        ("conversations/two_overlapping_1.avi", 201, (1280, 720), Fraction(25)),
        ("single/variable_frame_rate.mp4", 135, (700, 700), Fraction(1350, 61)),
        ("single/studio_bbaf2n.mpg", 75, (360, 288), Fraction(25)),
        ("single/elderly_talk_29_97fps.mp4", 209, (480, 360), Fraction(30000, 1001)),
        ("listening/talk_no_audio.mp4", 270, (256, 256), Fraction(30)),
    ],
)
def test_real_clips(shared_dir, name, count, size, fps):
    path = shared_dir / "clips" / name
    frames = frames_of(path)
    assert len(frames) == count
    assert (frames[0].width, frames[0].height) == size
    assert probe(path).fps == fps
    assert (np.diff([frame.time_s for frame in frames]) > 0).all()
