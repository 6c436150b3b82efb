"""Labels of face tracks: what is exact, what the teacher says, what nobody knows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from asd_explain.errors import OptionError
from asd_explain.training.augment_view import face_boxes_in_body
from asd_explain.training.corpus import load_tracks, track_of

TRUTH = np.tile(np.array([1, 0, np.nan, 0], np.float32), 10)
TALKING = np.tile(np.array([1, 1, np.nan, 0], np.float32), 10)


def test_truth_is_taken_before_the_teacher(make_clip: Callable, make_lesson: Callable) -> None:
    track = track_of(make_clip("anna", truth=TRUTH), make_lesson(40))
    np.testing.assert_array_equal(track.own, TRUTH)
    np.testing.assert_array_equal(track.lips, TRUTH)
    assert track.own.dtype == track.lips.dtype == np.float32
    assert len(track) == 40


def test_the_teacher_is_taken_where_there_is_no_truth(make_clip: Callable, make_lesson: Callable) -> None:
    lesson = make_lesson(40, own=0.3)
    track = track_of(make_clip("anna"), lesson)
    np.testing.assert_array_equal(track.own, lesson.own)
    np.testing.assert_array_equal(track.lips, lesson.own)
    assert track.lesson is lesson


def test_lips_that_talk_unheard_are_lips_only(make_clip: Callable) -> None:
    track = track_of(make_clip("anna", truth=TRUTH, talking=TALKING), None)
    np.testing.assert_array_equal(track.own, TRUTH)
    np.testing.assert_array_equal(track.lips, TALKING)


def test_a_generated_clip_that_does_not_state_its_lips_has_those_of_its_truth(make_clip: Callable) -> None:
    np.testing.assert_array_equal(track_of(make_clip("anna", truth=TRUTH, talking=None), None).lips, TRUTH)


@pytest.mark.parametrize("truth", [None, TRUTH])
def test_without_a_sound_track_nobody_is_heard_and_lips_are_unknown(
    make_clip: Callable, make_lesson: Callable, truth: np.ndarray | None
) -> None:
    track = track_of(make_clip("anna", voice=False, truth=truth), make_lesson(40))
    np.testing.assert_array_equal(track.own, np.zeros(40))
    assert np.isnan(track.lips).all()
    assert len(track.lips) == 40
    assert track.voiced == 0


def test_a_clip_that_nothing_is_known_of_is_refused(make_clip: Callable) -> None:
    with pytest.raises(OptionError, match="single/anna_0"):
        track_of(make_clip("anna"), None)


def test_what_else_a_track_states(make_clip: Callable, make_lesson: Callable) -> None:
    clip = make_clip("standup_two_left_voice_only")
    track = track_of(clip, make_lesson(40))
    assert track.voice == "standup_two", "clips with the same people share a voice"
    assert track.voiced > 0.9
    np.testing.assert_array_equal(track.face_in_body, face_boxes_in_body(clip.boxes, clip.size))


def test_tracks_of_clips_with_and_without_a_teacher(make_clip: Callable, make_lesson: Callable) -> None:
    clips = {name: [make_clip(name, seed=i, truth=TRUTH) for i in range(2)] for name in ("anna", "bob")}
    entries = [found[0].entry for found in clips.values()]

    class Source:
        def get(self, entry: object) -> list:
            return clips[entry.person]

    class Says:
        def lessons(self, entry: object, found: list) -> list:
            return [make_lesson(len(c), seed=i) for i, c in enumerate(found)]

    seen = []
    tracks = load_tracks(entries, Source(), Says(), lambda items: seen.append(len(items)) or items)
    assert seen == [2]
    assert [(t.voice, t.lesson is not None) for t in tracks] == [("anna", True)] * 2 + [("bob", True)] * 2
    assert all(t.lesson is None for t in load_tracks(iter(entries), Source(), None))
