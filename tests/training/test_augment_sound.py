"""Disturbed sound: exact ratios, levels, spectra, no shift in time, chance only from the seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.signal import welch

from asd_explain.errors import OptionError
from asd_explain.training.augment_sound import (
    COLOURS,
    SoundAugment,
    augment_sound,
    mix,
    music_like,
    near_silence,
    noise,
)

OFF = SoundAugment.off()
ALL = replace(OFF, noise=1.0, music=1.0, gain=1.0, band=1.0, room=1.0)
MAKERS = {**{c: lambda n, rng, c=c: noise(n, rng, c) for c in COLOURS}, "music": music_like}


def hum(n: int = 16000, level: float = 0.2) -> np.ndarray:
    seconds = np.arange(n) / 16000
    return (level * np.sin(2 * np.pi * 440 * seconds) * (1 + np.sin(2 * np.pi * 3 * seconds))).astype(np.float32)


def rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(sound.astype(np.float64) ** 2)))


def snr_db(signal: np.ndarray, mixed: np.ndarray) -> float:
    return 20 * np.log10(rms(signal) / rms(mixed.astype(np.float64) - signal))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(200, 4000),
    wanted=st.floats(-30, 40),
    signal_db=st.floats(-80, 0),
    noise_db=st.floats(-80, 0),
)
def test_mix_states_the_ratio_exactly(seed: int, n: int, wanted: float, signal_db: float, noise_db: float) -> None:
    rng = np.random.default_rng(seed)
    signal, other = (
        (rng.standard_normal(n) * 10 ** (db / 20)).astype(np.float32) for db in (signal_db - 12, noise_db - 12)
    )
    assume(signal.any() and other.any())
    mixed = mix(signal, other, wanted)
    assert mixed.dtype == np.float32
    assert snr_db(signal, mixed) == pytest.approx(wanted, abs=0.1)


def test_faint_signals_have_a_ratio_too() -> None:
    """Their energy is below float32's least number."""
    signal, other = hum(level=1e-24), hum()[::-1].copy()
    assert snr_db(signal, mix(signal, other, 6.0)) == pytest.approx(6.0, abs=0.1)


@pytest.mark.parametrize(("signal", "other"), [(0, 1), (1, 0), (0, 0)])
def test_silence_has_no_ratio_and_stays(signal: int, other: int) -> None:
    signal, other = signal * hum(), other * hum()[::-1].copy()
    mixed = mix(signal, other, 3.0)
    np.testing.assert_array_equal(mixed, signal)
    assert mixed is not signal


@pytest.mark.parametrize("name", ["noise", "music"])
def test_the_chain_keeps_the_ratio_too(name: str) -> None:
    key = "snr_db" if name == "noise" else "music_snr_db"
    signal = hum(level=0.05)
    for seed in range(6):
        config = replace(OFF, **{name: 1.0, key: (7.0, 7.0)})
        assert snr_db(signal, augment_sound(signal, np.random.default_rng(seed), config)) == pytest.approx(7, abs=0.1)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), n=st.sampled_from([1, 2, 3, 17, 640, 16001]))
def test_any_length_comes_out_finite_in_range_and_the_same_again(seed: int, n: int) -> None:
    signal = np.clip(np.random.default_rng(seed).standard_normal(n), -1, 1).astype(np.float32)
    before = signal.copy()
    first, again = (augment_sound(signal, np.random.default_rng(seed), ALL) for _ in range(2))
    assert first.shape == (n,)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert np.abs(first).max() <= 1
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(signal, before)


def test_off_is_the_sound_itself() -> None:
    signal = hum()
    same = augment_sound(signal, np.random.default_rng(0), OFF)
    np.testing.assert_array_equal(same, signal)
    assert same is not signal


def test_digital_silence_stays_digital_silence() -> None:
    for seed in range(5):
        assert not augment_sound(np.zeros(4000, np.float32), np.random.default_rng(seed), ALL).any()


def test_gain_is_stated_in_db() -> None:
    signal = hum(level=0.1)
    softer = augment_sound(signal, np.random.default_rng(0), replace(OFF, gain=1.0, gain_db=(-6.0, -6.0)))
    assert 20 * np.log10(rms(softer) / rms(signal)) == pytest.approx(-6, abs=1e-3)
    louder = augment_sound(hum(level=0.45), np.random.default_rng(0), replace(OFF, gain=1.0, gain_db=(12.0, 12.0)))
    assert np.abs(louder).max() == 1


@pytest.mark.parametrize("name", ["room", "band"])
def test_rooms_and_bands_do_not_move_the_sound_in_time(name: str) -> None:
    """Nothing is heard before the click, and most of what is heard at once."""
    click = np.zeros(8000, np.float32)
    click[3000] = 0.5
    for seed in range(8):
        heard = augment_sound(click, np.random.default_rng(seed), replace(OFF, **{name: 1.0}))
        assert np.abs(heard[:3000]).max() < 1e-5
        assert 3000 <= np.abs(heard).argmax() < 3016


def test_a_room_rings_on_at_the_same_loudness() -> None:
    signal = hum()
    signal[8000:] = 0
    for seed in range(4):
        wet = augment_sound(signal, np.random.default_rng(seed), replace(OFF, room=1.0))
        assert rms(wet[8000:9000]) > 1e-4
        assert rms(wet) == pytest.approx(rms(signal), rel=0.1)


def test_bands_take_the_highs() -> None:
    signal = noise(32000, np.random.default_rng(0), "white")
    for seed in range(8):
        hz, power = welch(augment_sound(signal, np.random.default_rng(seed), replace(OFF, band=1.0)), 16000)
        assert power[hz > 7500].mean() < 0.2 * power[(hz > 600) & (hz < 1000)].mean()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("n", [1, 999, 64000])
def test_made_up_sounds_have_their_level_and_their_seed(name: str, n: int) -> None:
    first, again, other = (MAKERS[name](n, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.shape == (n,)
    assert first.dtype == np.float32
    assert rms(first) == pytest.approx(0.1, rel=1e-3)
    np.testing.assert_array_equal(first, again)
    assert n == 1 or (first != other).any()


@pytest.mark.parametrize(("colour", "db_an_octave"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)])
def test_colours_fall_as_they_should(colour: str, db_an_octave: float) -> None:
    hz, power = welch(noise(320000, np.random.default_rng(0), colour), 16000, nperseg=4096)
    band = (hz > 100) & (hz < 6000)
    slope = np.polyfit(np.log2(hz[band]), 10 * np.log10(power[band]), 1)[0]
    assert slope == pytest.approx(db_an_octave, abs=0.25)


def test_music_has_pitch_and_changes() -> None:
    """Power gathers in few bins, unlike noise's, and its spectrum is another one later on."""
    peaky, moved = [], []
    for seed in range(10):
        sound = music_like(64000, np.random.default_rng(seed))
        power = np.sort(np.abs(np.fft.rfft(sound)) ** 2)[::-1]
        peaky.append(power[:320].sum() / power.sum())  # the strongest hundredth of all bins
        halves = [np.abs(np.fft.rfft(half)) for half in (sound[:32000], sound[32000:])]
        moved.append(np.corrcoef(halves)[0, 1])
    assert np.median(peaky) > 0.7
    assert np.median(moved) < 0.95


def test_near_silence_is_nothing_or_next_to_it() -> None:
    levels = [rms(near_silence(4000, np.random.default_rng(seed))) for seed in range(100)]
    faint = 20 * np.log10([level for level in levels if level > 0])
    assert 20 < levels.count(0.0) < 60
    assert faint.min() >= -80.01
    assert faint.max() <= -49.99


@pytest.mark.parametrize(
    "waveform",
    [
        np.zeros(0, np.float32),
        np.zeros((2, 100), np.float32),
        np.zeros(100),
        np.zeros(100, np.int16),
        np.array([0.1, np.nan], np.float32),
        np.array([0.1, np.inf], np.float32),
        np.array([0.1, 3000.0], np.float32),
    ],
)
def test_other_sounds_are_refused(waveform: np.ndarray) -> None:
    with pytest.raises(OptionError, match="waveform") as told:
        augment_sound(waveform, np.random.default_rng(0), OFF)
    assert "\n" not in str(told.value)


def test_other_mixes_and_noises_are_refused() -> None:
    with pytest.raises(OptionError, match="equally long"):
        mix(hum(), hum(100), 0.0)
    with pytest.raises(OptionError, match="snr_db"):
        mix(hum(), hum(), float("nan"))
    with pytest.raises(OptionError, match="disturbance"):
        mix(hum(), hum().astype(np.float64), 0.0)
    with pytest.raises(OptionError, match="household"):
        noise(100, np.random.default_rng(0), "violet")
    for make in (*MAKERS.values(), near_silence):
        with pytest.raises(OptionError, match="at least one"):
            make(0, np.random.default_rng(0))


def test_options_from_a_table() -> None:
    config = SoundAugment.from_table({"noise": 1, "snr_db": [5, 10]})
    assert (config.noise, config.snr_db, config.music) == (1, (5, 10), 0.15)


@pytest.mark.parametrize(
    "table",
    [{"nose": 1}, {"noise": 2}, {"music": float("nan")}, {"snr_db": [10, 5]}, {"gain_db": [0, 99]}, {"snr_db": 5}],
)
def test_useless_options_are_refused_by_name(table: dict) -> None:
    with pytest.raises(OptionError, match=f"sound.*{next(iter(table))}"):
        SoundAugment.from_table(table)
