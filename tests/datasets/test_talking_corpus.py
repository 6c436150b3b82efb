"""The corpus of talking photographs: the same for everybody, splits apart, truth that fits the sound, the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asd_explain.datasets import talking_corpus, talking_tracks
from asd_explain.datasets.face_geometry import shape_shift
from asd_explain.datasets.portraits import GEOMETRY, Look, geometry_of, load_photo
from asd_explain.datasets.shared_clips import SPLITS, ClipEntry
from asd_explain.datasets.speech_synth import Voice
from asd_explain.datasets.talking_body import BodyMotion
from asd_explain.datasets.talking_corpus import COUNTS, TalkingClipCache, talking_entries
from asd_explain.datasets.talking_draws import VOICES, Treatment, talking_scene
from asd_explain.datasets.talking_face import Pose, TalkingFace
from asd_explain.datasets.talking_hands import Hand
from asd_explain.datasets.talking_scene import Person, Scene
from asd_explain.datasets.talking_tracks import render_clips
from asd_explain.errors import OptionError

ENTRY = ClipEntry(Path("x"), "talking_photos/fit_000", "talking_photos", "fit", "x")
SILENT = Scene((Person(Look("hopper"), Voice(), torso=1.0),), width=96, height=96, duration_s=1.6, fps=30)
PLAIN = Treatment(box_error=0.0)


def test_scenes_are_a_function_of_split_and_number():
    for split in SPLITS:
        assert talking_scene(split, 3) == talking_scene(split, 3)
    assert talking_scene("fit", 3) != talking_scene("fit", 4)
    assert talking_scene("fit", 3) != talking_scene("test", 3)
    assert talking_entries("dev") == talking_entries("dev")


def test_every_scene_can_be_made_and_the_sizes_are_as_promised():
    minutes = {}
    for split in SPLITS:
        scenes = [talking_scene(split, n)[0] for n in range(COUNTS[split])]
        for scene in scenes:
            scene.check()
            assert 1 <= len(scene.people) <= 4
        minutes[split] = sum(scene.duration_s for scene in scenes) / 60
    assert minutes == pytest.approx({"fit": 43, "dev": 2, "test": 3}, abs=0.35)


def test_splits_share_no_voice_and_test_no_face_with_fit():
    assert not set(VOICES["fit"]) & set(VOICES["test"])
    assert not set(VOICES["fit"] + VOICES["test"]) & set(VOICES["dev"])
    used = {split: set() for split in SPLITS}
    for split in SPLITS:
        for n in range(COUNTS[split]):
            scene, _, _ = talking_scene(split, n)
            used[split] |= {one.voice.name.partition("+")[2] for one in (*scene.people, *scene.offscreen)}
            for person in scene.people:
                assert (person.look.jaw * person.look.brow < 0) == (split == "test")
        assert used[split] <= set(VOICES[split])


def test_entries_name_their_voices_and_portraits():
    entries = talking_entries("test")
    assert len({e.name for e in entries}) == COUNTS["test"]
    assert entries[7].name == "talking_photos/test_007"
    assert {e.split for e in entries} == {"test"}
    scene, _, _ = talking_scene("test", 7)
    assert entries[7].person.count("+") == len(scene.people) - 1
    assert scene.people[0].look.photo in entries[7].person


def test_unknown_splits_and_entries_are_named(tmp_path):
    with pytest.raises(OptionError, match="nothing"):
        talking_entries("nothing")
    for name in ("single/talk_2", "talking_photos/fit_999"):
        with pytest.raises(OptionError, match=name):
            TalkingClipCache(tmp_path).get(replace(ENTRY, name=name))
    assert not list(tmp_path.rglob("*.npz"))


def test_a_silent_scene_becomes_crops_on_the_grid():
    (clip,) = render_clips(ENTRY, SILENT, PLAIN)
    assert len(clip) == 40  # 1.6 s less a source frame, 25 a second
    assert clip.faces["box"].shape == clip.faces["demo"].shape == clip.bodies.shape == (40, 112, 112)
    assert clip.wide.shape == (40, 160, 160)
    assert clip.mfcc.shape == (160, 13)
    assert len(clip.waveform) == 40 * 640
    assert not clip.truth.any()
    assert not clip.talking.any()
    again = render_clips(ENTRY, SILENT, PLAIN)[0]
    np.testing.assert_array_equal(clip.bodies, again.bodies)
    np.testing.assert_array_equal(clip.waveform, again.waveform)


def test_boxes_err_by_a_constant_and_a_little_wobble():
    exact = render_clips(ENTRY, replace(SILENT, people=(replace(SILENT.people[0], liveliness=0, torso=0),)), PLAIN)[0]
    side = float(np.sqrt(np.prod(exact.boxes[0, 2:] - exact.boxes[0, :2])))
    assert np.abs(exact.boxes - exact.boxes.mean(0)).max() < 0.05 * side
    rough = [
        talking_tracks._detected(np.random.default_rng(k), exact.boxes, 0.035).mean(0) - exact.boxes.mean(0)
        for k in range(40)
    ]
    assert 0.02 * side < np.std(rough) < 0.08 * side


def test_cache_round_trip(tmp_path, monkeypatch):
    calls = []

    def made(split: str, index: int):
        calls.append((split, index))
        return SILENT, PLAIN, "turns"

    monkeypatch.setattr(talking_corpus, "talking_scene", made)
    first = TalkingClipCache(tmp_path).get(ENTRY)
    again = TalkingClipCache(tmp_path).get(ENTRY)
    assert calls == [("fit", 0)]
    for one, two in zip(first, again, strict=True):
        assert (one.entry, one.track_id, one.kind, one.size) == (two.entry, two.track_id, two.kind, two.size)
        for field in ("truth", "talking", "bodies", "wide", "waveform", "mfcc", "boxes"):
            np.testing.assert_array_equal(getattr(one, field), getattr(two, field))


@pytest.mark.demo
def test_truth_is_the_voice_that_is_heard_and_mouthing_is_not():
    pytest.importorskip("espeakng_loader", reason="espeak-ng comes with the demo extra")
    person = Person(Look("hopper"), Voice("en-us+f2"), turns=((0.6, 1.9),), mouthing=((2.4, 3.5),))
    scene = Scene((person,), width=64, height=64, duration_s=3.8, room_db=-80)
    (clip,) = render_clips(ENTRY, scene, PLAIN)
    level = np.sqrt(np.mean(clip.waveform.reshape(len(clip), 640).astype(float) ** 2, axis=1))
    known = ~np.isnan(clip.truth)
    assert 0.5 < known.mean() < 1
    assert np.median(level[clip.truth == 1]) > 30 * np.median(level[clip.truth == 0])
    times = clip.times_s
    speaking = times[clip.truth == 1]
    assert 0.55 < speaking.min() < 0.8
    assert 1.2 < speaking.max() < 1.9
    silent_mouth = (clip.talking == 1) & (clip.truth == 0)
    assert silent_mouth.sum() > 12
    assert times[silent_mouth].min() > 2.4
    # every change of the truth lies within a gap of unknown frames of 0.16 s
    runs = np.flatnonzero(np.diff(known.astype(int)))
    assert len(runs) % 2 == 0
    assert np.all(np.diff(runs)[::2] >= 3)


@pytest.mark.demo
def test_one_clip_of_the_corpus(tmp_path):
    pytest.importorskip("espeakng_loader", reason="espeak-ng comes with the demo extra")
    pytest.importorskip("skimage", reason="the astronaut's photograph comes with scikit-image (demo extra)")
    areas = [talking_scene("dev", n)[0] for n in range(COUNTS["dev"])]
    cheapest = int(np.argmin([s.width * s.height * s.duration_s for s in areas]))
    entry = talking_entries("dev")[cheapest]
    clips = TalkingClipCache(tmp_path).get(entry)
    assert clips
    assert len({c.track_id for c in clips}) == len(clips)
    for clip in clips:
        assert clip.has_audio
        assert set(np.unique(clip.truth[~np.isnan(clip.truth)])) <= {0.0, 1.0}
        assert np.all(clip.talking[clip.truth == 1] == 1)


# --- other faces, bodies, hands -----------------------------------------------------------------------------------


def test_reshaped_points_come_from_where_the_geometry_says():
    g = GEOMETRY["hopper"]
    new = g.reshaped(0.1, -0.08, 0.03)
    x, y = np.array(new.lip_x, np.float32), np.array(new.upper_lip, np.float32)
    dx, dy = shape_shift(g, x, y, 0.1, -0.08, 0.03)
    assert x + dx == pytest.approx(np.array(g.lip_x), abs=0.6)
    assert y + dy == pytest.approx(np.array(g.upper_lip), abs=0.6)
    assert g.reshaped(0.0, 0.0, 0.0).face == pytest.approx(g.face)


def test_backdrop_and_room_keep_the_person():
    look = Look("hopper", backdrop=4, room=(0.5, 0.25, 1.0))
    picture, g = load_photo(look), geometry_of(look)
    assert (picture.shape[1], picture.shape[0]) == g.size
    x1, y1, x2, y2 = (round(v) for v in g.face)
    inside = slice(20, 150), slice(30, 150)  # of the face's box, whose corners show the background
    old = load_photo(Look("hopper"))[124:335, 177:356][inside]
    assert np.abs(picture[y1:y2, x1:x2][inside].astype(int) - old).mean() < 1
    assert np.abs(picture[:20, :20].astype(int) - load_photo(replace(look, backdrop=5))[:20, :20]).mean() > 1


def test_leaning_moves_face_box_and_pixels_alike():
    import cv2

    face = TalkingFace(Look("hopper"), 320, 360)
    rest, moved = Pose(), Pose(lean=(0.08, 0.02))
    x1, y1, x2, _ = face.face_box(rest).astype(int)
    patch = face.render(rest)[y1 + 30 : y1 + 80, x1 + 20 : x2 - 20]
    match = cv2.matchTemplate(face.render(moved), patch, cv2.TM_CCOEFF_NORMED)
    _, best, _, (x, y) = cv2.minMaxLoc(match)
    step = face.face_box(moved) - face.face_box(rest)
    assert step[0] > 5
    assert best > 0.95
    assert abs(x - (x1 + 20) - step[0]) <= 1.2
    assert abs(y - (y1 + 30) - step[1]) <= 1.2


def test_shrug_and_hands_change_the_body_and_not_the_face():
    face = TalkingFace(Look("hopper"), 320, 360)
    rest = face.render(Pose()).astype(int)
    x1, y1, x2, y2 = face.face_box(Pose()).astype(int)
    for pose in (Pose(shrug=(0.1, 0.05)), Pose(hands=(Hand(-1, 0.6, 0.7),))):
        change = np.abs(face.render(pose).astype(int) - rest).max(axis=2)
        assert change[y2 + 20 :].mean() > 1
        assert change[y1 : y2 - 10, x1:x2].mean() < 0.5


def test_bodies_move_in_silence_too_and_more_in_speech():
    rate = 200.0
    activity = np.zeros(12_000)
    rng = np.random.default_rng(0)
    activity[4000:8000] = np.clip(rng.standard_normal(4000).cumsum() % 1.0, 0, 1)
    quiet, busy = [], []
    for seed in range(8):
        body = BodyMotion(activity, rate, seed, torso=1.0, gestures=0.5)
        path = np.array([body.at(t)["lean"] + body.at(t)["shrug"] for t in np.arange(0, 60, 0.04)])
        speed = np.abs(np.diff(path, axis=0)).sum(1)
        quiet.append(np.concatenate([speed[:450], speed[1050:]]).mean())
        busy.append(speed[550:950].mean())
    assert min(quiet) > 0
    assert 1.0 < np.mean(busy) / np.mean(quiet) < 6
    still = BodyMotion(activity, rate, 1, torso=0.0, gestures=0.0)
    assert still.at(25.0)["hands"] == ()
    assert still.at(25.0)["lean"] == (0.0, 0.0)
