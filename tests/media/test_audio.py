"""Sound: rate, channels, resampling in pieces, gaps, offsets, damage, memory."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
import torchaudio.functional
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.errors import ClipError, OptionError
from asd_explain.media import Audio, audio, load_audio
from asd_explain.media.audio import ChunkedResampler, downmix

TIMES = [i / 25 for i in range(25)]


def resampled(signal: np.ndarray, rate: int) -> np.ndarray:
    return torchaudio.functional.resample(torch.from_numpy(signal), rate, 16000).numpy()


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000])
def test_pieces_equal_the_whole(rate, monkeypatch):
    monkeypatch.setattr(audio, "_CHUNK_S", 0.3)
    signal = np.random.default_rng(0).standard_normal(int(2.17 * rate)).astype(np.float32)
    resampler = ChunkedResampler(rate)
    pieces = []
    for block in np.array_split(signal, 37):
        pieces.extend(resampler.push(block))
    assert len(pieces) > 3
    pieces.append(resampler.flush())
    whole = resampled(signal, rate)
    ours = np.concatenate(pieces)
    assert ours.shape == whole.shape
    np.testing.assert_allclose(ours, whole, atol=2e-6)


@given(cuts=st.lists(st.integers(1, 5000), min_size=1, max_size=12), rate=st.sampled_from([22050, 44100, 48000]))
@settings(max_examples=20, deadline=None)
def test_any_blocks_give_the_same(cuts, rate):
    signal = np.random.default_rng(1).standard_normal(sum(cuts)).astype(np.float32)
    resampler = ChunkedResampler(rate)
    resampler._chunk = resampler._in * 10
    pieces, start = [], 0
    for n in cuts:
        pieces.extend(resampler.push(signal[start : start + n]))
        start += n
    pieces.append(resampler.flush())
    np.testing.assert_allclose(np.concatenate(pieces), resampled(signal, rate), atol=2e-6)


@pytest.mark.parametrize(("codec", "name"), [("pcm_s16le", "a.mkv"), ("pcm_f32le", "a.mkv"), ("flac", "a.mkv")])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_lossless_sound_comes_back(clip, tone, codec, name, rate):
    sound = tone(1.0, rate, channels=2)
    sound[1] *= 0.5
    path = clip(name, TIMES, sound=sound, sound_rate=rate, sound_codec=codec)
    loaded = load_audio(path)
    assert loaded.start_s == pytest.approx(0, abs=1e-3)
    assert loaded.rate == 16000
    assert loaded.waveform.dtype == np.float32
    np.testing.assert_allclose(loaded.waveform, resampled(sound.mean(0), rate), atol=2e-4)


def test_aac_starts_in_step(clip, tone):
    sound = tone(1.0)
    loaded = load_audio(clip("a.mp4", TIMES, sound=sound))
    expected = resampled(sound[0], 48000)
    assert loaded.start_s == 0
    n = min(len(expected), len(loaded.waveform))
    assert n >= 16000
    assert np.corrcoef(loaded.waveform[:n], expected[:n])[0, 1] > 0.98


def test_no_sound(clip, tmp_path):
    assert load_audio(clip("a.mp4", TIMES)) is None
    with pytest.raises(ClipError, match="no such file"):
        load_audio(tmp_path / "nowhere.mp4")
    with pytest.raises(OptionError):
        load_audio(clip("b.mp4", TIMES), start_s=2.0, end_s=1.0)


def test_late_sound_keeps_its_offset(clip, tone):
    loaded = load_audio(clip("a.mp4", TIMES, sound=tone(0.5), sound_start_s=0.4))
    # The encoder's silent lead-in may lie before the sound.
    assert loaded.start_s == pytest.approx(0.4, abs=0.025)
    onset = int(np.argmax(np.abs(loaded.slice(0.0, 16000)) > 0.1)) / 16000
    assert onset == pytest.approx(0.4, abs=0.003)


def test_piece_equals_the_same_piece_of_the_whole(clip, tone):
    path = clip("a.mkv", TIMES, sound=tone(2.0), sound_codec="pcm_s16le")
    whole, piece = load_audio(path), load_audio(path, start_s=0.5, end_s=0.9)
    assert piece.start_s == pytest.approx(0.5, abs=1e-4)
    assert len(piece.waveform) == pytest.approx(6400, abs=2)
    n = len(piece.waveform) - 20
    np.testing.assert_allclose(piece.waveform[20:n], whole.slice(piece.start_s, n)[20:], atol=1e-3)


def write_blocks(path, blocks, rate=48000):
    """A pcm track in Matroska of (start in samples, (n,) float32) blocks with these timestamps."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=rate, layout="mono")
        stream.time_base = Fraction(1, rate)
        for start, samples in blocks:
            frame = av.AudioFrame.from_ndarray((samples[None] * 32767).astype(np.int16), format="s16", layout="mono")
            frame.sample_rate = rate
            frame.time_base = Fraction(1, rate)
            frame.pts = start
            for packet in stream.encode(frame):
                packet.pts = packet.dts = start
                out.mux(packet)
    return path


def test_gaps_become_silence_and_overlaps_are_dropped(tmp_path):
    rng = np.random.default_rng(0)
    signal = (0.3 * rng.standard_normal(48000)).clip(-1, 1).astype(np.float32)
    blocks = [(s, signal[s : s + 2400]) for s in range(0, 48000, 2400) if not 12000 <= s < 24000]
    blocks.insert(8, (blocks[7][0], signal[blocks[7][0] : blocks[7][0] + 2400]))  # one block twice
    loaded = load_audio(write_blocks(tmp_path / "a.mkv", blocks))
    expected = signal.copy()
    expected[12000:24000] = 0
    assert len(loaded.waveform) == 16000
    np.testing.assert_allclose(loaded.waveform, resampled(expected, 48000), atol=2e-3)


def test_jitter_of_timestamps_is_ignored(tmp_path):
    signal = (0.3 * np.sin(np.arange(48000) * 0.05)).astype(np.float32)
    shifts = np.random.default_rng(2).integers(0, 400, 20)
    shifts[0] = 0
    blocks = [(i * 2400 + int(shift), signal[i * 2400 : (i + 1) * 2400]) for i, shift in enumerate(shifts)]
    loaded = load_audio(write_blocks(tmp_path / "a.mkv", blocks))
    np.testing.assert_allclose(loaded.waveform, resampled(signal, 48000), atol=2e-3)


def test_clock_that_jumps_back_is_played_on(clip, tone, monkeypatch):
    path = clip("a.mkv", TIMES, sound=tone(2.0), sound_codec="pcm_s16le")
    expected = load_audio(path)
    honest = audio._time_of

    def reset(frame, stream, default_s):
        time_s = honest(frame, stream, default_s)
        return time_s if time_s < 1.0 else time_s - 1.5 if time_s < 1.5 else time_s + 1e5

    monkeypatch.setattr(audio, "_time_of", reset)
    loaded = load_audio(path)
    np.testing.assert_allclose(loaded.waveform, expected.waveform, atol=1e-6)


def test_damaged_packets_do_not_end_the_run(clip, tmp_path, tone):
    path = clip("a.ts", TIMES, sound=tone(3.0))
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(len(data) // 3, len(data) - 200, 12):
        data[position : position + 60] = rng.bytes(60)
    broken = tmp_path / "broken.ts"
    broken.write_bytes(bytes(data))
    loaded = load_audio(broken)
    assert loaded is not None
    assert np.isfinite(loaded.waveform).all()
    assert len(loaded.waveform) > 16000


def test_long_sound_lives_in_a_file(clip, tone, monkeypatch):
    path = clip("a.mkv", TIMES, sound=tone(3.0), sound_codec="pcm_s16le")
    short = load_audio(path)
    monkeypatch.setattr(audio, "_IN_MEMORY_S", 1.0)
    monkeypatch.setattr(audio, "_CHUNK_S", 0.5)
    long = load_audio(path)
    assert isinstance(long.waveform, np.memmap)
    np.testing.assert_allclose(long.waveform, short.waveform, atol=2e-6)
    kept = long.slice(1.0, 100)
    long.close()
    assert len(long.waveform) == 0
    assert kept.any()
    long.close()


def test_slice_pads_with_silence():
    sound = Audio(np.arange(1, 11, dtype=np.float32), 1.0)
    np.testing.assert_array_equal(sound.slice(1.0 - 2 / 16000, 5), [0, 0, 1, 2, 3])
    np.testing.assert_array_equal(sound.slice(1.0 + 8 / 16000, 4), [9, 10, 0, 0])
    assert not sound.slice(50.0, 3).any()
    assert not sound.slice(-50.0, 3).any()
    taken = sound.slice(1.0, 3)
    taken[:] = 7
    assert sound.waveform[0] == 1


def test_downmix_weights():
    mono = np.ones((1, 4), np.float32)
    assert downmix(mono, ["FC"]) is mono
    np.testing.assert_allclose(downmix(np.array([[1.0], [0.0]], np.float32), ["FL", "FR"]), [[0.5]])
    names = ["FL", "FR", "FC", "LFE", "SL", "SR"]
    every = [float(downmix(np.eye(6, dtype=np.float32)[:, i : i + 1], names)[0, 0]) for i in range(6)]
    assert sum(every) == pytest.approx(1)
    assert every[3] == 0
    assert every[2] == max(every)


@pytest.mark.shared
def test_real_sound(shared_dir):
    clips = shared_dir / "clips"
    loaded = load_audio(clips / "conversations" / "stage_shot_cuts.mp4")
    assert loaded.start_s == pytest.approx(0.008, abs=1e-4)
    assert len(loaded.waveform) == pytest.approx(160125, abs=16)
    assert load_audio(clips / "listening" / "talk_no_audio.mp4") is None
    assert len(load_audio(clips / "single" / "studio_bbaf2n.mpg").waveform) == pytest.approx(47648, abs=400)
