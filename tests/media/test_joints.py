"""Files whose clock starts anew: parts of known content put behind each other, byte by byte and as bare times."""

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.media import VideoReader, probe
from asd_explain.media.audio import load_audio
from asd_explain.media.joints import _Packet, _Parts, joints_of
from asd_explain.media.random_access import RandomAccess
from asd_explain.media.sound_track import add_audio

# Binary fractions of a second, so that sums are exact.
FRAME = 1 / 32
SOUND = 1 / 64


def joined(tmp_path, *parts):
    path = tmp_path / f"joined{parts[0].suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.fixture
def part(clip):
    """A part whose pictures show their number and whose sound rises after a second, when picture 25 comes."""

    def make(name, count, clock_s=0.0, sound_s=None, **settings):
        silence_then_noise = np.zeros((1, round((count / 25 if sound_s is None else sound_s) * 48000)), np.float32)
        rng = np.random.default_rng(0)
        silence_then_noise[:, 48000:] = rng.uniform(-0.5, 0.5, silence_then_noise[:, 48000:].shape)
        return clip(
            name, [clock_s + i / 25 for i in range(count)], sound=silence_then_noise, sound_start_s=clock_s, **settings
        )

    return make


def rises_s(audio):
    """Where silence turns to noise, seconds on the container's clock."""
    loud = np.convolve(np.abs(audio.waveform), np.ones(80) / 80, "same") > 0.05
    return [audio.start_s + at / audio.rate for at in np.flatnonzero(loud[1:] & ~loud[:-1])]


@pytest.mark.parametrize("clocks_s", [(0, 0), (0, 3600), (3600, 7), (0, 0, 0), (50, 0, 200)])
def test_parts_follow_each_other_in_step(part, tmp_path, index_of, clocks_s):
    counts = [50, 40, 60][: len(clocks_s)]
    path = joined(
        tmp_path, *(part(f"{i}.ts", n, float(c)) for i, (n, c) in enumerate(zip(counts, clocks_s, strict=True)))
    )
    with VideoReader(path) as reader:
        frames = [(index_of(frame.luma()), frame.time_s) for frame in reader]
        info = reader.info
    assert [number for number, _ in frames] == [i for n in counts for i in range(n)]
    steps = np.diff([time_s for _, time_s in frames])
    assert (steps > 0.02).all()
    assert steps.max() < 0.15  # the longer one of a part's tracks sets where the next begins
    assert info.duration_s == pytest.approx(sum(counts) / 25, abs=0.15 * len(counts))
    seconds = [time_s for number, time_s in frames if number == 25]
    found = rises_s(load_audio(path))
    assert len(found) == len(counts)
    np.testing.assert_allclose(found, seconds, atol=0.03)


def test_sound_that_ends_early_does_not_drag_the_next_part(part, tmp_path, index_of):
    path = joined(tmp_path, part("a.ts", 100, 10.0, sound_s=1.5), part("b.ts", 50, 12.0))
    with VideoReader(path) as reader:
        frames = [(index_of(frame.luma()), frame.time_s) for frame in reader]
    assert len(frames) == 150
    np.testing.assert_allclose(
        rises_s(load_audio(path)), [time_s for number, time_s in frames if number == 25], atol=0.03
    )


def read(path, index_of):
    with VideoReader(path) as reader:
        return [(index_of(frame.luma()), frame.time_s) for frame in reader]


@pytest.mark.parametrize("counts", [(3, 3, 50), (50, 1, 1), (50, 4, 4), (2, 2, 2)])
@pytest.mark.parametrize("sound_s", [None, 0])
def test_parts_of_few_pictures_are_kept(clip, tone, tmp_path, index_of, counts, sound_s):
    sounds = [None if sound_s is None else tone(n / 25) for n in counts]
    parts = [clip(f"{i}.ts", [k / 25 for k in range(n)], sound=sounds[i]) for i, n in enumerate(counts)]
    frames = read(joined(tmp_path, *parts), index_of)
    assert [number for number, _ in frames] == [k for n in counts for k in range(n)]


def test_pictures_that_lean_on_later_ones_are_kept(clip, tmp_path, index_of):
    leaning = clip("a.ts", [k / 25 for k in range(50)], options={"bf": "3", "preset": "medium"})
    path = joined(tmp_path, leaning, clip("b.ts", [k / 25 for k in range(50)]), leaning)
    assert [number for number, _ in read(path, index_of)] == [*range(50)] * 3


def test_sound_alone_that_overlaps_is_no_joint(part, tmp_path, index_of):
    path = joined(tmp_path, part("a.ts", 50, 10.0, sound_s=2.3), part("b.ts", 50, 12.0))
    frames = read(path, index_of)
    np.testing.assert_allclose(
        rises_s(load_audio(path))[-1], [time_s for number, time_s in frames if number == 25][-1], atol=0.03
    )


def test_sound_that_would_go_on_by_chance_moves_with_its_part(part, tmp_path, index_of):
    path = joined(tmp_path, part("a.ts", 100, 10.0, sound_s=1.5), part("b.ts", 50, 11.5))
    frames = read(path, index_of)
    np.testing.assert_allclose(
        rises_s(load_audio(path))[-1], [time_s for number, time_s in frames if number == 25][-1], atol=0.03
    )


def test_slides_may_pause(clip, index_of):
    times = [0, 1, 12, 13, 26, 60, 61, 75]
    frames = read(clip("a.ts", times), index_of)
    np.testing.assert_allclose([time_s - frames[0][1] for _, time_s in frames], times, atol=1e-3)


def test_a_pause_is_not_put_in_again_at_the_joint(clip, tmp_path, index_of):
    times = [*(k / 25 for k in range(50)), 8.0]
    frames = read(joined(tmp_path, clip("a.ts", times), clip("b.ts", [k / 25 for k in range(50)])), index_of)
    assert len(frames) == 101
    assert frames[51][1] - frames[50][1] < 0.15


def test_tracks_of_other_numbers_in_the_second_part_are_left_out_in_a_line(part, tmp_path, index_of, caplog):
    other = part("b.ts", 50, container_options={"mpegts_start_pid": "0x300", "mpegts_pmt_start_pid": "0x500"})
    path = joined(tmp_path, part("a.ts", 50), other)
    assert [number for number, _ in read(path, index_of)] == [*range(50)]
    assert load_audio(path).end_s == pytest.approx(2, abs=0.1)
    assert "tracks that begin later in the file are left out" in caplog.text


def test_pieces_and_single_frames_of_a_joined_file(part, tmp_path, index_of):
    path = joined(tmp_path, part("a.ts", 50), part("b.ts", 50))
    with VideoReader(path) as reader:
        whole = [(index_of(frame.luma()), frame.time_s) for frame in reader]
        start_s = reader.info.start_s
    with VideoReader(path, start_s=2.5, end_s=3.0) as reader:
        piece = [(index_of(frame.luma()), frame.time_s) for frame in reader]
    assert piece == [(n, t) for n, t in whole if start_s + 2.5 <= t < start_s + 3.0]
    with RandomAccess(path) as access:
        np.testing.assert_array_equal(access.times_s, [time_s for _, time_s in whole])
        assert [index_of(luma) for luma in access.luma([99, 3, 70])] == [49, 3, 20]


@pytest.mark.parametrize("first_s", [None, 2.6])
def test_copied_sound_goes_on(part, tmp_path, first_s):
    path = joined(tmp_path, part("a.ts", 75), part("b.ts", 75))
    origin_s = probe(path).start_s + (first_s or 0)
    out = tmp_path / "out.mp4"
    with av.open(str(out), "w") as output:
        sound = add_audio(output, path, origin_s, None if first_s is None else origin_s, None)
        for packet in sound.packets(None):
            output.mux(packet)
        sound.close()
    expected, copied = load_audio(path), load_audio(out)
    want = [s - origin_s for s in rises_s(expected) if s > origin_s]
    np.testing.assert_allclose(rises_s(copied), want, atol=0.03)
    assert copied.end_s == pytest.approx(expected.end_s - origin_s, abs=0.1)


def test_program_streams_are_joined_too(part, tmp_path, index_of):
    parts = [
        part(f"{i}.mpg", 50, codec="mpeg1video", sound_codec="mp2", container="mpeg", size=(128, 96)) for i in range(2)
    ]
    path = joined(tmp_path, *parts)
    with VideoReader(path) as reader:
        frames = [(index_of(frame.luma()), frame.time_s) for frame in reader]
    assert [number for number, _ in frames] == [*range(50)] * 2
    np.testing.assert_allclose(
        rises_s(load_audio(path)), [time_s for number, time_s in frames if number == 25], atol=0.05
    )


@pytest.mark.parametrize("name", ["a.ts", "a.mp4", "a.mkv"])
def test_a_clock_that_runs_through_is_left_alone(part, name):
    path = part(name, 50, 5.0)
    with av.open(str(path)) as container:
        assert joints_of(path, container) is None


def test_a_file_that_has_changed_is_read_anew(part, tmp_path):
    first, second = part("a.ts", 30), part("b.ts", 30)
    path = joined(tmp_path, first)
    assert probe(path).duration_s == pytest.approx(1.2, abs=0.1)
    joined(tmp_path, first, second)
    assert probe(path).duration_s == pytest.approx(2.4, abs=0.15)


def packets(parts, lag=0):
    """(track, time on the file's clock, length) in the file's order, sound ``lag`` seconds behind in the file."""
    for clock, frames, sounds in parts:
        video = [(clock + k * FRAME, 0, FRAME) for k in range(frames)]
        audio = [(clock + k * SOUND, 1, SOUND) for k in range(sounds)]
        order = sorted((time + (lag if index else 0), index, time, length) for time, index, length in video + audio)
        yield from ((index, time, length) for _, index, time, length in order)


def mended(seen):
    """{track: [time]} after the parts' shifts."""
    parts, raw = _Parts(0, others=True), {0: [], 1: []}
    for index, time, length in seen:
        parts.see(_Packet(index, time, time, length))
        raw[index].append(time)
    parts.end()
    out = {}
    for index, times in raw.items():
        steps, shift, out[index] = list(parts.tracks[index].steps), 0.0, []
        for number, time in enumerate(times):
            while steps and number >= steps[0][0]:
                shift = steps.pop(0)[1]
            out[index].append(time + shift)
    return out, parts.shifts


clocks = st.integers(0, 20).map(lambda n: n * 12.5)


@settings(deadline=None)
@given(
    st.lists(st.tuples(clocks, st.integers(10, 60), st.integers(-4, 4)), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.25]),
)
def test_law_every_part_stays_in_step_and_none_overlaps(drawn, lag):
    parts = [(clock, frames, int(frames * FRAME / SOUND) + more) for clock, frames, more in drawn]
    times, _ = mended(packets(parts, lag))
    video, audio, reached = iter(times[0]), iter(times[1]), None
    for _, frames, sounds in parts:
        pictures, samples = [next(video) for _ in range(frames)], [next(audio) for _ in range(sounds)]
        assert pictures[0] == samples[0]
        assert np.ptp(np.diff(pictures)) == 0
        assert np.ptp(np.diff(samples)) == 0
        if reached is not None:
            assert -0.1 <= pictures[0] - reached <= 10
        reached = max(pictures[-1] + FRAME, samples[-1] + SOUND)


@pytest.mark.parametrize("stray", [-3.0, 90000.0, -0.5])
def test_a_single_packet_out_of_time_is_no_joint(stray):
    seen = list(packets([(0.0, 100, 200)]))
    index, time, length = seen[60]
    seen[60] = (index, time + stray, length)
    _, shifts = mended(seen)
    assert shifts == [0]


def test_a_pause_of_one_track_is_no_joint():
    seen = [one for one in packets([(0.0, 1000, 2000)]) if not (one[0] == 1 and 5 < one[1] < 25)]
    _, shifts = mended(seen)
    assert shifts == [0]


def test_packets_without_a_time_are_counted():
    parts = _Parts(0, others=True)
    for time in (7.0, None, 7 + FRAME, None, 1.0, 1 + FRAME):
        parts.see(_Packet(0, time, time, FRAME))
    assert parts.tracks[0].steps == [(4, 7 + 2 * FRAME - 1)]
