"""Heat of silent tracks: by hand, which tracks are silent, what counts as known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from asd_explain.errors import OptionError
from asd_explain.evaluate.silence import Level, level, level_rows, silence_means, silence_rows, silent_track_heat


def _record(segment: str, called: list[int], **raw: np.ndarray) -> dict:
    methods = {"se": {"level": json.loads(json.dumps(level_rows(raw)))}}
    return {"segment": segment, "clip": "a@b", "kind": "real", "called_speaking": called, "methods": methods}


def _even(*values: float) -> np.ndarray:
    return np.stack([np.full((2, 2), value, np.float32) for value in values])


def test_levels_by_hand() -> None:
    raw = np.stack((np.full((2, 2), 3.0), [[0, 0], [0, 4.0]], [[0, 1], [np.inf, 0]], np.zeros((2, 2))))
    found = level(raw)
    np.testing.assert_array_equal(found.mean, [3, 1, np.nan, 0])
    np.testing.assert_array_equal(found.peak, [3, 4, np.nan, 0])
    np.testing.assert_array_equal(found.of(np.array([False, True, False, True])).peak, [4, 0])


def test_heat_of_a_silent_track() -> None:
    silent = np.stack((np.full((2, 2), 1.0), [[0, 0], [0, 4.0]], np.full((2, 2), np.nan)))
    loud = [np.full((1, 2, 2), 4.0), np.array([[[2.0, 10], [0, 4]], [[0, 0], [0, 0]]])]
    found = silent_track_heat([level(silent)], [level(part) for part in loud])
    assert (found.mean, found.peak) == (1.0, 2.5)  # (1 + 1) / 2 and (1 + 4) / 2
    assert found.relative_mean == pytest.approx(1 / ((4 + 4 + 0) / 3))
    assert found.relative_peak == pytest.approx(2.5 / ((4 + 10 + 0) / 3))
    assert (found.frames, found.speaking_frames) == (2, 3)
    alone = silent_track_heat([level(silent)], [])
    assert alone.mean == 1.0
    assert np.isnan([alone.relative_mean, alone.relative_peak]).all()
    assert alone.speaking_frames == 0


def test_a_track_is_silent_only_if_all_its_segments_are() -> None:
    records = [
        _record("a@b#1@0", [1, 0], face=_even(8, 2), body=_even(1, 1)),
        _record("a@b#1@50", [0, 0], face=_even(100, 100), body=_even(1, 1)),  # speaks elsewhere: neither here nor there
        _record("a@b#2@0", [0, 0], face=_even(1, 3), body=_even(0, 0)),
        _record("a@b#2@50", [0], face=_even(5), body=_even(0)),
        _record("a@b#3@0", [1], face=_even(4), body=_even(1)),
    ]
    face, body = silence_rows(records, "se")
    assert [face[key] for key in ("clip", "kind", "stream")] == ["a@b", "real", "face"]
    assert (face["mean"], face["relative_mean"]) == (3, 0.5), "(1 + 3 + 5) / 3 of (8 + 4) / 2"
    assert (face["frames"], face["speaking_frames"]) == (3, 2)
    assert (body["stream"], body["relative_peak"]) == ("body", 0)
    assert silence_rows(records, "fem") == []
    for without in (records[:2], records[2:4]):
        assert silence_rows(without, "se") == [], "a clip needs both"


def test_a_clip_whose_speech_is_dark_says_nothing() -> None:
    dark = [_record("a@b#1@0", [1], face=_even(0)), _record("a@b#2@0", [0], face=_even(2))]
    (row,) = silence_rows(dark, "se")
    assert np.isnan([row["relative_mean"], row["relative_peak"]]).all()
    assert silence_means([row]) == []
    known = {**row, "clip": "c", "relative_mean": 0.5, "relative_peak": 0.25}
    mean, peak = silence_means([row, known])
    assert (mean["of"], mean["mean"], mean["clips"], mean["frames"]) == ("mean", 0.5, 1, 1)
    assert (peak["of"], peak["mean"]) == ("peak", 0.25)
    assert np.isnan(mean["low"]), "one clip has no interval"


def test_what_is_no_level_is_refused() -> None:
    with pytest.raises(OptionError, match="raw heat"):
        level(np.ones((3, 4)))
    with pytest.raises(OptionError, match="as many means"):
        Level([1.0, 2.0], [1.0])
