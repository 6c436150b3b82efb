"""Clips of talking photographs: truth, labels, files."""

from __future__ import annotations

import csv
from dataclasses import replace
from fractions import Fraction
from itertools import islice, pairwise

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.datasets.portraits import Look
from asd_explain.datasets.speech_synth import Voice
from asd_explain.datasets.talking_photos import (
    AUDIO_HZ,
    frame_times,
    main,
    make_clip,
    panels,
    render_frames,
)
from asd_explain.datasets.talking_scene import PRESETS, Offscreen, Person, Scene, Shot
from asd_explain.datasets.talking_truth import LABELS, speaking_rule
from asd_explain.errors import OptionError, OutputError

SILENT = Person(Look("hopper"), Voice())
"""Says nothing: needs neither espeak-ng nor scikit-image."""


def _decode(path):
    """(N, H, W) luma, (N,) times and (n,) samples of a file."""
    with av.open(str(path)) as container:
        frames = [(f.time, f.to_ndarray(format="gray")) for f in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = [f.to_ndarray()[0] for f in container.decode(audio=0)] if container.streams.audio else [np.zeros(0)]
    return np.stack([f for _, f in frames]), np.array([t for t, _ in frames]), np.concatenate(sound)


# --- the rule of the labels, frame times, panels, checks ---------------------------------------------------------


def test_rule_fills_short_pauses_only():
    #                 voice  short    voice  long        voice
    voiced = np.array([0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0], bool)
    expected = np.array([0, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0], bool)
    assert np.array_equal(speaking_rule(voiced, rate_hz=10, pause_s=0.2), expected)
    assert np.array_equal(speaking_rule(voiced, rate_hz=10, pause_s=0.0), voiced)
    assert not speaking_rule(np.zeros(5, bool), 10, 0.2).any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 6))
def test_rule_against_brute_force(voiced, pause):
    expected = np.array(voiced)
    sounding = np.flatnonzero(expected)
    for a, b in pairwise(sounding):
        if b - a - 1 <= pause:
            expected[a:b] = True
    assert np.array_equal(speaking_rule(np.array(voiced), rate_hz=10, pause_s=pause / 10), expected)


@pytest.mark.parametrize(
    ("fps", "exact"),
    [
        (25, Fraction(25)),
        (29.97, Fraction(30000, 1001)),
        ("24000/1001", Fraction(24000, 1001)),
        (12.5, Fraction(25, 2)),
    ],
)
def test_frame_rates_are_exact(fps, exact):
    scene = Scene((SILENT,), fps=fps, duration_s=2.0)
    stamps, unit = frame_times(scene)
    assert scene.rate == exact
    assert len(stamps) == round(2 * exact)
    assert all(stamp * unit == n / exact for n, stamp in enumerate(stamps))


def test_variable_rate_drops_single_frames():
    stamps, unit = frame_times(Scene((SILENT,), duration_s=8.0, variable_rate=True))
    steps = np.rint(np.diff(stamps) * float(unit) * 25)
    assert set(steps) == {1.0, 2.0}
    assert 0.1 < np.mean(steps == 2) < 0.4


@pytest.mark.parametrize(("count", "size"), [(1, (640, 360)), (2, (640, 360)), (2, (360, 640)), (3, (640, 360))])
def test_panels_cover_the_frame_without_overlap(count, size):
    taken = np.zeros((size[1], size[0]), int)
    for x1, y1, x2, y2 in panels(count, *size):
        taken[y1:y2, x1:x2] += 1
    assert taken.max() == 1
    assert taken.mean() > 0.97
    assert len(panels(count, *size)) == count


def test_panels_of_four_are_two_by_two_and_two_stand_along_the_longer_side():
    assert len({y for _, y, _, _ in panels(4, 640, 360)}) == 2
    assert len({y for _, y, _, _ in panels(2, 640, 360)}) == 1
    assert len({x for x, _, _, _ in panels(2, 360, 640)}) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"people": ()}, "at least one person"),
        ({"width": 8}, "too small"),
        ({"fps": 500}, "frames a second"),
        ({"duration_s": 0.0}, "longer"),
        ({"people": (replace(SILENT, turns=((1.0, 9.0),)),)}, "within the clip"),
        ({"people": (replace(SILENT, turns=((0.1, 0.6), (0.5, 0.9))),)}, "overlap"),
        ({"people": (replace(SILENT, turns=((0.1, 0.6),), mouthing=((0.3, 0.9),)),)}, "overlap"),
        ({"offscreen": (Offscreen(Voice(), ((-1.0, 0.5),)),)}, "within the clip"),
        ({"people": (replace(SILENT, look=Look("nobody")),)}, "no photograph"),
        ({"shots": (Shot(0.5, (0,)),)}, "start at 0"),
        ({"shots": (Shot(0, (1,)),)}, "of 1 people"),
    ],
)
def test_impossible_scenes_are_refused_in_one_line(changes, message, tmp_path):
    scene = replace(Scene((SILENT,), width=64, height=48, duration_s=1.0), **changes)
    with pytest.raises(OptionError, match=message) as caught:
        make_clip(scene, tmp_path / "x.mp4")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


# --- files, without a voice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "fps"), [(64, 48, 10), (161, 91, 29.97), (90, 160, 60), (16, 16, 25), (640, 360, 15)]
)
def test_sizes_and_frame_rates(width, height, fps, tmp_path):
    scene = Scene((SILENT,), width=width, height=height, fps=fps, duration_s=0.5)
    truth = make_clip(scene, tmp_path / "clip.mp4")
    luma, times, sound = _decode(truth.path)
    assert luma.shape == (len(truth.times_s), height, width)
    assert times == pytest.approx(truth.times_s, abs=1e-4)
    assert len(sound) / AUDIO_HZ == pytest.approx(0.5, abs=0.06)
    assert truth.people[0].face.shape == (len(times), 4)
    assert not truth.people[0].label.any()


def test_variable_rate_and_no_audio(tmp_path):
    scene = Scene((SILENT,), width=64, height=48, duration_s=2.0, variable_rate=True, audio=False)
    truth = make_clip(scene, tmp_path / "clip.mp4")
    _, times, sound = _decode(truth.path)
    assert times == pytest.approx(truth.times_s, abs=1e-4)
    assert len(np.unique(np.diff(times).round(3))) == 2
    assert not len(sound)


def test_existing_output_is_kept_and_nothing_half_written(tmp_path):
    scene = Scene((SILENT,), width=32, height=32, duration_s=0.1)
    (tmp_path / "a.mp4").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        make_clip(scene, tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == b"mine"
    make_clip(scene, tmp_path / "a.mp4", overwrite=True)
    with pytest.raises(OutputError, match=r"\.mp4"):
        make_clip(scene, tmp_path / "a.avi")
    with pytest.raises(OutputError, match="cannot be written"):
        make_clip(scene, tmp_path / "a.csv" / "b.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.mouths.csv", "a.mp4"]


def test_same_seed_same_frames_other_seed_other_frames():
    scene = Scene((SILENT,), width=64, height=48, duration_s=0.5, seed=5)
    frames = [f for _, f in render_frames(scene)]
    assert all(np.array_equal(a, b) for a, (_, b) in zip(frames, render_frames(scene), strict=True))
    assert any(
        not np.array_equal(a, b) for a, (_, b) in zip(frames, render_frames(replace(scene, seed=6)), strict=True)
    )


# --- with voices --------------------------------------------------------------------------------------------------

TALKER = Person(
    Look("hopper"), Voice("en-us+f2", 170), turns=((0.5, 2.3),), lines=("Wow, we are all here now. Hello!",)
)
LISTENER = Person(Look("hopper", mirrored=True), Voice("en-us+m3"))


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """Two people, the left one talks, the right one moves the mouth in silence at the end; a voice off screen."""
    pytest.importorskip("espeakng_loader", reason="espeak-ng comes with the demo extra")
    scene = Scene(
        (TALKER, replace(LISTENER, mouthing=((2.5, 3.5),))),
        (Offscreen(Voice("en+m1"), ((3.6, 4.4),)),),
        shots=(Shot(0, (0, 1)), Shot(3.6, (1,))),
        **{"width": 256, "height": 128, "duration_s": 4.4, "seed": 4},
    )
    return scene, make_clip(scene, tmp_path_factory.mktemp("talk") / "talk.mp4")


@pytest.mark.demo
def test_truth_of_a_scene(talk):
    _, truth = talk
    left, right = truth.people
    times = truth.times_s
    assert len(times) == 110
    assert set(left.label) == {0, 1}
    assert set(right.label) == {0, 2}
    speaking = times[left.label == 1]
    assert speaking.min() == pytest.approx(0.5, abs=0.1)
    assert 1.4 < speaking.max() <= 2.3
    assert np.all((times[right.label == 2] >= 2.5) & (times[right.label == 2] < 3.5))
    assert not right.voiced.any()
    assert np.all(left.label[left.voiced] == 1)
    # the shot cut
    assert np.array_equal(left.visible, times < 3.6)
    assert right.visible.all()
    assert set(right.entity) == {"talk_0000:2", "talk_0001:2"}
    assert np.all(np.isnan(left.face[~left.visible]))
    assert truth.shot[times >= 3.6].min() == 1


@pytest.mark.demo
def test_labels_are_the_rule_on_the_voice_that_is_heard(talk):
    """Computed again from the waveform of the voice, by the rule's words."""
    _, truth = talk
    wave = truth.voices[0]
    block = AUDIO_HZ // 200
    level = np.array([np.sqrt(np.mean(wave[max(0, k - 551) : k + 551] ** 2)) for k in range(0, len(wave), block)])
    loud = np.percentile(level[level > 1e-3], 95)
    voiced = np.flatnonzero(level > loud * 10 ** (-30 / 20)) / 200
    wrong = 0
    for time_s, label in zip(truth.times_s, truth.people[0].label, strict=True):
        before, after = voiced[voiced <= time_s + 0.003], voiced[voiced >= time_s - 0.003]
        expected = len(before) and len(after) and after[0] - before[-1] <= 0.205
        wrong += bool(expected) != (label == 1)
    assert wrong <= 2  # frames at the very edge of a sound


@pytest.mark.demo
def test_csv_is_ava_and_agrees_with_the_truth(talk):
    scene, truth = talk
    with truth.csv_path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == sum(int(p.visible.sum()) for p in truth.people)
    assert all(len(row) == 8 for row in rows)
    assert {row[0] for row in rows} == {"talk"}
    assert {row[6] for row in rows} <= set(LABELS)
    boxes = np.array([row[2:6] for row in rows], float)
    assert np.all((boxes >= 0) & (boxes <= 1))
    assert np.all(boxes[:, 2:] > boxes[:, :2])
    left = [row for row in rows if row[7].endswith(":1")]
    assert [row[1] for row in left] == [f"{t:.2f}" for t in truth.times_s[truth.people[0].visible]]
    assert [row[6] for row in left] == [LABELS[k] for k in truth.people[0].label[truth.people[0].visible]]
    size = np.array([scene.width, scene.height] * 2)
    assert np.array([row[2:6] for row in left], float) * size == pytest.approx(
        truth.people[0].face[truth.people[0].visible], abs=1e-3
    )
    with truth.mouths_path.open(newline="") as file:
        mouths = list(csv.DictReader(file))
    assert len(mouths) == len(rows)
    assert float(mouths[7]["mouth_x1"]) == pytest.approx(truth.people[0].mouth[7, 0], abs=0.01)


@pytest.mark.demo
def test_mouth_is_in_the_face_and_moves_while_it_talks(talk):
    _, truth = talk
    luma, _, _ = _decode(truth.path)
    luma = luma.astype(np.float32)
    left, right = truth.people
    for person in (left, right):
        seen = person.visible
        assert np.all(person.mouth[seen, :2] >= person.face[seen, :2])
        assert np.all(person.mouth[seen, 2:] <= person.face[seen, 2:])

    def change(person, frames):
        """Mean absolute change of the mouth's pixels, the picture's own noise included."""
        values = []
        for n in frames:
            x1, y1, x2, y2 = person.mouth[n].astype(int)
            values.append(np.abs(luma[n + 1, y1:y2, x1:x2] - luma[n, y1:y2, x1:x2]).mean())
        return np.mean(values)

    talking = np.flatnonzero(left.voiced[:-1] & left.visible[1:])
    quiet = np.flatnonzero((truth.times_s > 2.6) & (truth.times_s < 3.4))
    assert change(left, talking) > 2.5 * change(left, quiet)
    assert change(right, np.flatnonzero(right.label[:-1] == 2)) > 2.0 * change(right, range(2, 40))


@pytest.mark.demo
@pytest.mark.parametrize("fps", [10, 25, 50])
def test_mouth_and_sound_are_in_step(fps, tmp_path):
    """In the file as it plays: the mouth's opening, seen in its pixels, follows the sound within one frame."""
    pytest.importorskip("espeakng_loader", reason="espeak-ng comes with the demo extra")
    person = replace(TALKER, turns=((0.4, 3.6),), lines=(), liveliness=0.0)
    scene = Scene((person,), width=128, height=128, fps=fps, duration_s=4.0, noise=0.5, seed=2)
    truth = make_clip(scene, tmp_path / "sync.mp4")
    luma, times, sound = _decode(truth.path)
    x1, y1, x2, y2 = np.array([truth.people[0].mouth[:, k].mean() for k in range(4)]).astype(int)
    mouth = np.abs(luma[:, y1:y2, x1:x2].astype(float) - luma[0, y1:y2, x1:x2]).mean(axis=(1, 2))
    grid = np.arange(0, 3.9, 0.01)
    seen = np.interp(grid, times, mouth)
    half = AUDIO_HZ // 50
    heard = np.array([np.sqrt(np.mean(sound[max(0, int(t * AUDIO_HZ) - half) :][: 2 * half] ** 2)) for t in grid])
    seen, heard = seen - seen.mean(), heard - heard.mean()
    lags = np.arange(-30, 31)
    scores = [np.sum(seen[40:-40] * np.roll(heard, lag)[40:-40]) for lag in lags]
    assert abs(lags[int(np.argmax(scores))] * 0.01) <= max(1 / fps, 0.04)


@pytest.mark.demo
def test_off_screen_voice_is_heard_and_nobody_speaks(talk):
    _, truth = talk
    _, _, sound = _decode(truth.path)
    late = (truth.times_s > 3.7) & (truth.times_s < 4.2)
    assert np.sqrt(np.mean(sound[int(3.7 * AUDIO_HZ) : int(4.2 * AUDIO_HZ)] ** 2)) > 0.02
    assert all(not p.label[late].any() for p in truth.people)
    assert np.sqrt(np.mean(sound[int(2.6 * AUDIO_HZ) : int(3.4 * AUDIO_HZ)] ** 2)) < 0.003  # mouthing is not heard


@pytest.mark.demo
def test_presets_can_be_made():
    pytest.importorskip("espeakng_loader", reason="espeak-ng comes with the demo extra")
    pytest.importorskip("skimage", reason="the astronaut's photograph comes with scikit-image (demo extra)")
    for make in PRESETS.values():
        scene = replace(make(), width=128, height=72)
        assert [f.shape for _, f in islice(render_frames(scene), 2)] == [(72, 128, 3)] * 2


@pytest.mark.demo
def test_command_line(tmp_path, caplog):
    pytest.importorskip("espeakng_loader", reason="espeak-ng comes with the demo extra")
    pytest.importorskip("skimage", reason="the astronaut's photograph comes with scikit-image (demo extra)")
    command = ["--preset", "monologue", "-o", str(tmp_path), "--width", "64", "--height", "48", "--fps", "12.5"]
    assert main(command) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["monologue.csv", "monologue.mouths.csv", "monologue.mp4"]
    assert main(command) == 1
    assert "exists" in caplog.text
