"""Voices and how they move a mouth."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from asd_explain.datasets.speech_synth import Utterance, Voice, synthesise
from asd_explain.datasets.talking_motion import CONTROL_HZ, FaceMotion, articulate, level_db
from asd_explain.errors import AsdExplainError

RATE = 16000


def _tone(*spans: tuple[float, float], duration_s: float = 2.0, phonemes=()) -> Utterance:
    times = np.arange(int(duration_s * RATE)) / RATE
    gate = np.any([(times >= a) & (times < b) for a, b in spans], axis=0)
    wave = (0.3 * np.sin(2 * np.pi * 200 * times) * gate).astype(np.float32)
    return Utterance(wave, RATE, np.array([0.0, 0.5, 1.0, 1.5]), tuple(phonemes))


def test_level_is_the_mean_square_in_db():
    wave = np.full(RATE, 0.5, np.float32)
    assert level_db(wave, RATE)[100] == pytest.approx(20 * np.log10(0.5), abs=0.05)


def test_mouth_opens_with_the_voice_and_shuts_without():
    speech = articulate(_tone((0.5, 1.0)))
    at = lambda t: int(t * CONTROL_HZ)  # noqa: E731
    assert speech.opening[at(0.75)] > 0.5
    assert speech.opening[at(0.2)] == pytest.approx(0, abs=0.01)
    assert speech.opening[at(1.4)] == pytest.approx(0, abs=0.01)
    assert speech.voiced[at(0.75)]
    assert not speech.voiced[at(0.3)]
    assert np.abs(np.diff(speech.opening)).max() < 0.12  # lips have mass


def test_lips_close_on_m_though_it_is_loud():
    speech = articulate(_tone((0.0, 2.0), phonemes=((0.0, "'A:"), (0.9, "m"), (1.1, "'A:"))))
    opening = speech.opening
    assert opening[int(1.0 * CONTROL_HZ)] < 0.25 * opening[int(0.5 * CONTROL_HZ)]


def test_rounding_follows_the_vowel():
    speech = articulate(_tone((0.0, 2.0), phonemes=((0.0, "i:"), (1.0, "u:"))))
    assert speech.rounding[int(0.5 * CONTROL_HZ)] < -0.5
    assert speech.rounding[int(1.5 * CONTROL_HZ)] > 0.5


def test_cut_ends_at_a_word_and_fades():
    whole = _tone((0.0, 2.0), phonemes=((0.0, "a"), (1.2, "o")))
    short = whole.cut(1.3)
    assert short.duration_s == pytest.approx(1.0)
    assert short.waveform[-1] == 0
    assert [p for _, p in short.phonemes] == ["a"]
    assert whole.cut(5.0) is whole


def test_still_liveliness_is_a_still_photograph():
    zero = np.zeros(400)
    motion = FaceMotion(zero, zero, zero, seed=3, liveliness=0.0)
    assert motion.at(0.1) == motion.at(1.7)
    lively = FaceMotion(zero, zero, zero, seed=3)
    assert lively.at(0.1) != lively.at(1.7)


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(AsdExplainError, match=r"pip install asd-explain\[demo\]"):
        synthesise([("Hello.", Voice())])


def test_no_jobs_need_no_synthesiser(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert synthesise([]) == []


@pytest.mark.demo
class TestEspeak:
    @pytest.fixture(autouse=True)
    def _espeak(self):
        pytest.importorskip("espeakng_loader", reason="espeak-ng comes with the demo extra")

    def test_speech_with_words_and_phonemes_is_the_same_each_time(self):
        jobs = [("Papa moves the big map.", Voice("en-us+f2", 170, 60)), ("Guten Morgen, ihr beiden.", Voice("de"))]
        first, again = synthesise(jobs), synthesise(jobs[::-1])[::-1]
        for one, other in zip(first, again, strict=True):
            assert np.array_equal(one.waveform, other.waveform)
            assert 0.8 < one.duration_s < 3
            assert np.abs(one.waveform).max() > 0.1
            assert len(one.words) >= 4
            assert np.all(np.diff([t for t, _ in one.phonemes]) >= 0)
        assert sum("p" in mnemonic for _, mnemonic in first[0].phonemes) >= 3

    def test_pitch_and_speed_are_heard(self):
        slow, fast, high = synthesise(
            [("One two three four five.", Voice("en", *how)) for how in ((120, 20, 0), (240, 20, 0), (120, 90, 0))]
        )
        assert slow.duration_s > 1.5 * fast.duration_s

        def pitch(utterance):
            middle = utterance.waveform[len(utterance.waveform) // 4 :][:4096]
            spectrum = np.fft.irfft(np.abs(np.fft.rfft(middle, 16384)) ** 2)
            lags = np.arange(utterance.rate_hz // 400, utterance.rate_hz // 60)
            return utterance.rate_hz / lags[np.argmax(spectrum[lags])]

        assert pitch(high) > 1.2 * pitch(slow)

    def test_unknown_voice_is_named(self):
        with pytest.raises(AsdExplainError, match="xx-nobody"):
            synthesise([("Hello.", Voice("xx-nobody"))])
