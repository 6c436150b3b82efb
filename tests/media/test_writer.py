"""The MP4 that comes out: frame times, pixels, tags, sound in step, and nothing half-written."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from asd_explain.errors import OptionError, OutputError
from asd_explain.media import VideoReader, VideoWriter, check_output, load_audio, probe
from asd_explain.media.sound_track import COPIED_AUDIO

RATES = [Fraction(n) for n in (10, 15, 24, 25, 30, 50, 60)] + [Fraction(24000, 1001), Fraction(30000, 1001)]
TIMES = [i / 25 for i in range(50)]


def rewrite(path: Path, out: Path, *, start_s=None, end_s=None, **options) -> Path:
    """Decode and write again, sound along, as the pipeline does."""
    with VideoReader(path, start_s=start_s, end_s=end_s, threads=1) as reader:
        info = reader.info
        size = {"width": info.width + info.width % 2, "height": info.height + info.height % 2}
        with VideoWriter(
            out, source=info, audio_path=path, start_s=start_s, end_s=end_s, threads=1, **size, **options
        ) as writer:
            for frame in reader:
                writer.write(frame.planes(), frame.time_s)
    return out


def times_of(path: Path) -> list[float]:
    with VideoReader(path, threads=1) as reader:
        return [frame.time_s for frame in reader]


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if ".part" in p.name)


@pytest.mark.parametrize(
    "rate",
    RATES,
    ids=str,
)
def test_source_times_are_kept(clip, tmp_path, index_of, rate):
    path = clip("a.mp4", [i / rate for i in range(15)], rate=rate, time_base=1 / rate)
    out = rewrite(path, tmp_path / "out.mp4")
    assert times_of(out) == times_of(path)
    assert probe(out).fps == rate
    assert probe(out).duration_s == pytest.approx(float(15 / rate), abs=1e-4)
    with VideoReader(out, threads=1) as reader:
        assert [index_of(frame.luma()) for frame in reader] == list(range(15))


def test_variable_rate_and_late_start(clip, tmp_path):
    ticks = np.cumsum([4567, *[3000, 3750, 1500, 9000] * 6]).tolist()
    path = clip("a.mp4", [Fraction(t, 90000) for t in ticks], options={"bf": "2", "crf": "8"})
    out = rewrite(path, tmp_path / "out.mp4")
    assert times_of(out) == times_of(path)
    assert probe(out).duration_s == pytest.approx(probe(path).duration_s, abs=0.05)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("a.avi", {"codec": "mpeg4"}), ("a.mpg", {"codec": "mpeg1video"}), ("a.mkv", {}), ("a.ts", {})],
)
def test_other_containers(clip, tmp_path, name, settings):
    path = clip(name, [Fraction(i, 25) for i in range(20)], **settings)
    before, after = np.array(times_of(path)), np.array(times_of(rewrite(path, tmp_path / "out.mp4")))
    np.testing.assert_allclose(after, before, atol=2e-5)


def test_pixels_outside_drawing_survive(clip, tmp_path):
    path = clip("a.mp4", [0.0, 0.04, 0.08])
    out = rewrite(path, tmp_path / "out.mp4", crf=1)
    with VideoReader(path, threads=1) as a, VideoReader(out, threads=1) as b:
        for before, after in zip(a, b, strict=True):
            assert np.abs(before.luma().astype(int) - after.luma()).mean() < 1
            assert np.abs(before.planes().v.astype(int) - after.planes().v).mean() < 1


@pytest.mark.parametrize("full_range", [False, True])
def test_tags_are_carried_over(clip, tmp_path, full_range):
    tags = {"colorspace": 1, "color_primaries": 1, "color_trc": 13, "sample_aspect_ratio": Fraction(4, 3)}
    path = clip("a.mp4", TIMES[:3], full_range=full_range, **tags)
    before, after = probe(path), probe(rewrite(path, tmp_path / "out.mp4"))
    for name in ("full_range", "matrix", "colorspace", "color_primaries", "color_trc", "sample_aspect_ratio"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.full_range is full_range
    assert after.codec == "h264"
    assert after.pixel_format == ("yuvj420p" if full_range else "yuv420p")


def test_rotated_and_odd_clips_come_out_upright_and_even(clip, tmp_path):
    path = clip("a.mp4", TIMES[:3], rotation=90)
    info = probe(rewrite(path, tmp_path / "out.mp4"))
    assert (info.width, info.height, info.rotation) == (64, 96, 0)
    odd = clip("odd.mkv", TIMES[:3], size=(97, 65), codec="ffv1", options={})
    info = probe(rewrite(odd, tmp_path / "odd.mp4"))
    assert (info.width, info.height) == (98, 66)


@pytest.mark.parametrize("size", [(8, 8), (2, 2), (16, 350)])
def test_tiny_and_single_frame_clips(clip, tmp_path, size):
    path = clip("a.mkv", [0.0], size=size, codec="ffv1", options={})
    out = rewrite(path, tmp_path / "out.mp4")
    assert times_of(out) == [0.0]


def test_the_index_comes_first(clip, tmp_path):
    data = rewrite(clip("a.mp4", TIMES), tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


# Sound

SOUNDS = {
    "aac": ("a.mp4", "aac", 48000),
    "mp3": ("a.mkv", "libmp3lame", 44100),
    "ac3": ("a.mkv", "ac3", 48000),
    "alac": ("a.mov", "alac", 48000),
    "opus": ("a.mkv", "libopus", 48000),
    "flac": ("a.mkv", "flac", 48000),
    "mp2": ("a.mpg", "mp2", 44100),
    "pcm_s16le": ("a.avi", "pcm_s16le", 22050),
    "vorbis": ("a.mkv", "libvorbis", 44100),
    "aac in ts": ("a.ts", "aac", 48000),
}


@pytest.mark.parametrize("kind", SOUNDS)
def test_sound_is_copied_or_encoded(clip, tmp_path, tone, kind):
    name, encoder, rate = SOUNDS[kind]
    if encoder not in av.codecs_available:
        pytest.skip(f"no encoder {encoder}")
    video = {"a.mpg": {"codec": "mpeg1video"}, "a.avi": {"codec": "mpeg4"}}.get(name, {})
    sound = tone(2.0, rate, channels=2)
    path = clip(name, [Fraction(i, 25) for i in range(50)], sound=sound, sound_rate=rate, sound_codec=encoder, **video)
    codec = probe(path).audio_codec
    out = rewrite(path, tmp_path / "out.mp4")
    assert probe(out).audio_codec == (codec if codec in COPIED_AUDIO else "aac")
    before, after = load_audio(path), load_audio(out)
    shift = probe(path).start_s - probe(out).start_s
    n = 25600
    a, b = before.slice(shift + 0.1, n), after.slice(0.1, n)
    if codec in COPIED_AUDIO:
        # The same packets: the same samples, at most a tick apart.
        assert max(np.corrcoef(a[40:-40], b[40 + k : len(b) - 40 + k])[0, 1] for k in range(-20, 21)) > 0.98
    else:
        assert np.corrcoef(a, b)[0, 1] > 0.97


def click_and_flash(clip, name, *, at_s, length_s, start_s, fps=25, n=60, rate=48000, codec="aac", clock_s=0):
    """One white frame and, at its time, the onset of a loud burst; the sound runs from start_s for length_s."""
    sound = np.zeros((1, round(length_s * rate)), np.float32)
    first = round((at_s - start_s) * rate)
    burst = 0.8 * np.sign(np.sin(np.arange(2400) * 2 * np.pi * 1000 / rate))
    sound[0, first : first + 2400] = burst.astype(np.float32)
    flash = round(at_s * fps)

    def draw(i):
        return np.full((64, 96, 3), 250 if i == flash else 20, np.uint8)

    times = [clock_s + Fraction(i, fps) for i in range(n)]
    sounds = {"sound": sound, "sound_rate": rate, "sound_start_s": clock_s + start_s, "sound_codec": codec}
    return clip(name, times, rate=fps, pictures=draw, **sounds)


def flash_and_click(path: Path) -> tuple[float, float]:
    """Times of the white frame and of the burst's onset, seconds on the container's clock."""
    with VideoReader(path, threads=1) as reader:
        flash = next(frame.time_s for frame in reader if frame.luma().mean() > 128)
    sound = load_audio(path)
    click = sound.start_s + int(np.argmax(np.abs(sound.waveform) > 0.25)) / 16000
    return flash, click


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize(
    ("start_s", "length_s"),
    [(0.0, 2.4), (0.0, 1.5), (0.0, 4.0), (0.6, 1.2), (0.6, 3.0)],
    ids=["equal", "shorter", "longer", "late", "late and longer"],
)
@pytest.mark.parametrize("fps", [25, 60])
def test_click_and_flash_stay_together(clip, tmp_path, codec, start_s, length_s, fps):
    path = click_and_flash(
        clip,
        "a.mp4" if codec == "aac" else "a.mkv",
        at_s=1.0,
        start_s=start_s,
        length_s=length_s,
        fps=fps,
        n=round(2.4 * fps),
        codec=codec,
    )
    flash, click = flash_and_click(path)
    assert abs(flash - click) < 0.005
    out = rewrite(path, tmp_path / "out.mp4")
    flash_out, click_out = flash_and_click(out)
    assert flash_out == pytest.approx(flash, abs=1e-4)
    assert abs((click_out - flash_out) - (click - flash)) < 0.5 / fps


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize("start_s", [0.0, 0.6, 1.6])
def test_a_piece_is_cut_in_step(clip, tmp_path, codec, start_s):
    name = "a.mp4" if codec == "aac" else "a.mkv"
    path = click_and_flash(clip, name, at_s=2.0, start_s=start_s, length_s=4.0, n=120, codec=codec)
    out = rewrite(path, tmp_path / "out.mp4", start_s=1.5, end_s=2.9)
    flash, click = flash_and_click(out)
    assert flash == pytest.approx(0.5, abs=0.001)
    assert click == pytest.approx(0.5, abs=0.02)
    # Time zero is the moment asked for; the first frame in the piece comes 20 ms later.
    assert times_of(out) == pytest.approx([0.02 + i / 25 for i in range(35)], abs=1e-4)
    sound = load_audio(out)
    assert sound.start_s == pytest.approx(max(0.0, start_s - 1.5), abs=0.03)
    assert sound.end_s == pytest.approx(1.4, abs=0.06)


def test_transport_stream_that_starts_late_stays_in_step(clip, tmp_path):
    path = click_and_flash(clip, "a.ts", at_s=1.0, start_s=0.0, length_s=2.4, clock_s=500)
    before, after = flash_and_click(path), flash_and_click(rewrite(path, tmp_path / "out.mp4"))
    assert before[0] > 500
    assert after[0] == pytest.approx(1.0, abs=0.05)
    assert (after[1] - after[0]) == pytest.approx(before[1] - before[0], abs=0.02)


def test_damaged_sound_does_not_end_the_run(clip, tmp_path, tone):
    path = clip("a.ts", [i / 25 for i in range(100)], sound=tone(4.0))
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(audio=0) if packet.size]
    for position in places[20:120:7]:
        # Past the transport packet's and the PES header, into the AAC frames.
        data[position + 20 : position + 180] = rng.bytes(160)
    broken = tmp_path / "broken.ts"
    broken.write_bytes(bytes(data))
    out = rewrite(broken, tmp_path / "out.mp4")
    assert len(times_of(out)) == 100
    assert load_audio(out).end_s > 3


def test_sound_and_picture_are_interleaved(clip, tmp_path, tone):
    path = clip("a.mp4", [i / 25 for i in range(200)], sound=tone(8.0))
    out = rewrite(path, tmp_path / "out.mp4")
    places: dict[str, list[tuple[float, int]]] = {"video": [], "audio": []}
    with av.open(str(out)) as container:
        for packet in container.demux():
            if packet.size:
                places[packet.stream.type].append((float(packet.pts * packet.time_base), packet.pos))
    middle = [np.interp(4.0, *zip(*sorted(places[kind]), strict=True)) for kind in ("video", "audio")]
    assert abs(middle[0] - middle[1]) < 0.35 * out.stat().st_size


# Nothing half-written


def test_existing_output_is_kept_or_replaced(clip, tmp_path):
    path, out = clip("a.mp4", TIMES[:3]), tmp_path / "out.mp4"
    out.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        rewrite(path, out)
    assert out.read_bytes() == b"precious"
    rewrite(path, out, overwrite=True)
    assert times_of(out) == times_of(path)
    assert leftovers(tmp_path) == []


def test_the_clip_itself_is_never_overwritten(clip, tmp_path):
    path = clip("a.mp4", TIMES[:3])
    data = path.read_bytes()
    with pytest.raises(OutputError, match="the clip itself"):
        rewrite(path, path, overwrite=True)
    link = tmp_path / "link.mp4"
    link.symlink_to(path)
    with pytest.raises(OutputError, match="the clip itself"):
        rewrite(path, link, overwrite=True)
    assert path.read_bytes() == data


def test_bad_places(tmp_path):
    with pytest.raises(OutputError, match="is a directory"):
        check_output(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        check_output(tmp_path / "nowhere" / "out.mp4")
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(OutputError, match="does not exist"):
        check_output(file / "out.mp4")
    for bad in (tmp_path / ("x" * 250 + ".mp4"), Path("/proc/out.mp4")):
        if bad.parent.is_dir():
            with pytest.raises(OutputError) as caught:
                check_output(bad)
            assert "\n" not in str(caught.value)
            assert "cannot be written" in str(caught.value)
    check_output(tmp_path / "fine.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_interrupted_run_leaves_nothing(clip, tmp_path, tone, error):
    path, out = clip("a.mp4", TIMES, sound=tone(2.0)), tmp_path / "out.mp4"
    with VideoReader(path, threads=1) as reader:
        frames = list(reader)

    def run():
        with VideoWriter(out, width=96, height=64, source=reader.info, audio_path=path, threads=1) as writer:
            for frame in frames[:30]:
                writer.write(frame.planes(), frame.time_s)
            assert leftovers(tmp_path) != []
            assert leftovers(tmp_path)[0].startswith(".")
            assert not out.exists()
            raise error

    with pytest.raises(error):
        run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]


def test_nothing_written_is_an_error(clip, tmp_path):
    info = probe(clip("a.mp4", TIMES[:1]))
    with (
        pytest.raises(OutputError, match="no frame was written"),
        VideoWriter(tmp_path / "out.mp4", width=96, height=64, source=info),
    ):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]


def test_name_taken_meanwhile(clip, tmp_path):
    path, out = clip("a.mp4", TIMES[:2]), tmp_path / "out.mp4"
    reader = VideoReader(path)
    writer = VideoWriter(out, width=96, height=64, source=reader.info)
    for frame in reader:
        writer.write(frame.planes(), frame.time_s)
    out.write_bytes(b"somebody else's")
    with pytest.raises(OutputError, match="appeared meanwhile"):
        writer.close()
    assert out.read_bytes() == b"somebody else's"
    assert leftovers(tmp_path) == []


def test_wrong_use(clip, tmp_path):
    path, out = clip("a.mp4", TIMES[:2]), tmp_path / "out.mp4"
    info = probe(path)
    with pytest.raises(ValueError, match="even"):
        VideoWriter(out, width=97, height=64, source=info)
    with pytest.raises(OptionError):
        VideoWriter(out, width=96, height=64, source=info, start_s=2.0, end_s=1.0)
    with VideoReader(path) as reader:
        frame = next(iter(reader))
        with VideoWriter(out, width=96, height=64, source=info) as writer:
            writer.write(frame.planes(), 0.0)
            with pytest.raises(ValueError, match="increase"):
                writer.write(frame.planes(), 0.0)
            small = replace(frame.planes(), y=np.zeros((2, 2), np.uint8))
            with pytest.raises(ValueError, match="planes"):
                writer.write(small, 1.0)
        with pytest.raises(ValueError, match="closed"):
            writer.write(frame.planes(), 2.0)


def test_permissions_are_those_of_a_new_file(clip, tmp_path):
    out = rewrite(clip("a.mp4", TIMES[:2]), tmp_path / "out.mp4")
    fresh = tmp_path / "fresh"
    fresh.touch()
    assert out.stat().st_mode == fresh.stat().st_mode


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        "conversations/stage_shot_cuts.mp4",
        "single/variable_frame_rate.mp4",
        "single/studio_bbaf2n.mpg",
        "listening/talk_no_audio.mp4",
    ],
)
def test_real_clips_keep_times_and_sound(shared_dir, tmp_path, name):
    path = shared_dir / "clips" / name
    out = rewrite(path, tmp_path / "out.mp4", preset="ultrafast")
    assert times_of(out) == times_of(path)
    before, after = load_audio(path), load_audio(out)
    assert (before is None) == (after is None)
    if before is not None:
        assert after.start_s == pytest.approx(before.start_s, abs=1e-3)
        a, b = before.waveform[8000:24000], after.waveform[8000:24000]
        assert np.corrcoef(a, b)[0, 1] > 0.98
