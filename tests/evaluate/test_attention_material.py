"""From clips to segments: which clips, cutting on the grid, what is known of a face, and which stretches are taken."""

from __future__ import annotations

import csv
import logging
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import write_clip
from torch import nn

from asd_explain.datasets.portraits import Look
from asd_explain.datasets.shared_clips import ClipEntry
from asd_explain.datasets.speech_synth import Voice
from asd_explain.datasets.talking_draws import Treatment
from asd_explain.datasets.talking_photos import make_clip
from asd_explain.datasets.talking_scene import Person, Scene, Shot
from asd_explain.datasets.talking_tracks import render_clips
from asd_explain.errors import BoxesError, OptionError
from asd_explain.evaluate import attention_material
from asd_explain.evaluate.attention_material import (
    CutTrack,
    clip_names,
    clip_paths,
    corpus_tracks,
    cut_clip,
    pick_segments,
)
from asd_explain.evaluate.attention_picking import MIN_FRAMES, p_speaking, track_regions
from asd_explain.evaluate.attention_truth import KnownPerson, ScenePoints, iou, match_people, read_labels
from asd_explain.evaluate.segments import inputs_of
from asd_explain.grid import grid_length
from asd_explain.media.audio import load_audio
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.media.probing import probe
from asd_explain.media.reader import VideoReader
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.tracks.crops import body_box, crop
from asd_explain.tracks.detect import create_detector

#: Two people who say nothing, so that no synthesiser is needed; then a closer shot of the second.
SCENE = Scene(
    (Person(Look("hopper"), Voice()), Person(Look("astronaut"), Voice())),
    shots=(Shot(0.0, (0, 1)), Shot(0.9, (1,), 1.2)),
    width=256,
    height=144,
    duration_s=1.6,
    fps=30,
)


@pytest.fixture(scope="module")
def detector():
    return create_detector("yunet-2023mar")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """The truth of the clip of :data:`SCENE`, the table beside it saying that the second person speaks from 0.5 s."""
    truth = make_clip(SCENE, tmp_path_factory.mktemp("scene") / "pair.mp4")
    with truth.mouths_path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["person"] == "1" and float(row["time_s"]) >= 0.5:
            row["label"] = "SPEAKING_AUDIBLE"
        elif row["person"] == "0" and float(row["time_s"]) >= 0.3:
            row["label"] = "SPEAKING_NOT_AUDIBLE"
    with truth.mouths_path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return truth


@pytest.fixture(scope="module")
def scene_tracks(scene, detector):
    return cut_clip(scene.path, detector=detector)


# --- which clips ------------------------------------------------------------------------------------------------------


def test_folders_give_their_clips_sorted_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    names = ("b.mp4", "a.MOV", "notes.txt", "b.mouths.csv", ".c.part.mp4", "deep/d.webm", ".hidden/e.mp4", "g")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    assert [p.relative_to(tmp_path).as_posix() for p in clip_paths([tmp_path])] == ["a.MOV", "b.mp4", "deep/d.webm"]
    given = [tmp_path / "g", tmp_path / "deep" / ".." / "b.mp4", tmp_path]
    assert [p.name for p in clip_paths(given)] == ["g", "b.mp4", "a.MOV", "d.webm"], "each once, in the order given"
    assert [p.name for p in clip_paths([tmp_path / ".hidden"])] == ["e.mp4"], "asked for by name"


def test_where_nothing_is_the_error_says_what(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").touch()
    for arguments, message in (
        ([tmp_path / "text"], r"text: no clip in this folder.*\.mp4"),
        ([tmp_path / "gone.mp4"], r"gone\.mp4: no such file or folder"),
        ([], "no clips were given"),
    ):
        with pytest.raises(OptionError, match=message):
            clip_paths(arguments)


def test_no_two_clips_share_a_name() -> None:
    paths = [Path(p) for p in ("/x/a/talk.mp4", "/x/b/talk.mp4", "/x/b/other.mp4", "/y/b/talk.mp4", "/x/b/talk.avi")]
    names = clip_names(paths)
    assert names[0] == "a/talk"
    assert names[2] == "other"
    assert names[4] == "b/talk.avi"
    assert len(set(names)) == len(paths)


# --- cutting ----------------------------------------------------------------------------------------------------------


def _check_against_frames(track: CutTrack, path: Path) -> None:
    """Every crop is that of the decoded frame nearest in time to its place on the grid."""
    frames = [(f.time_s, f.luma()) for f in VideoReader(path, threads=1)]
    first_s = frames[0][0]
    for t in {0, 1, len(track) // 2, len(track) - 1}:
        apart = [abs(time_s - first_s - track.times_s[t]) for time_s, _ in frames]
        luma = frames[int(np.argmin(np.round(apart, 5)))][1]
        for geometry in ("box", "demo"):
            assert np.array_equal(track.faces[geometry][t], crop(luma, track.boxes[t], geometry))
        assert np.array_equal(track.body[t], crop(luma, body_box(track.boxes[t], *track.size), "box"))


@pytest.mark.parametrize(("frames", "fps"), [(25, 25), (36, Fraction(30000, 1001)), (18, 15)])
def test_a_face_is_cut_on_the_grid_at_any_rate(tmp_path: Path, detector, frames: int, fps: Fraction | int) -> None:
    path = write_clip(tmp_path / "face.mp4", frames=frames, fps=fps)
    (track,) = cut_clip(path, detector=detector)
    length = grid_length(0.0, (frames - 1) / float(fps))
    assert len(track) == len(track.times_s) == len(track.landmarks) == length
    assert np.allclose(track.times_s, np.arange(length) / 25, atol=1e-6)
    assert (track.clip, track.kind, track.name, track.size) == ("face", "real", "face#1", (256, 200))
    assert (track.truth, track.mouths) == (None, None)
    assert track.faces["box"].shape == track.faces["demo"].shape == track.body.shape == (length, 112, 112)
    _check_against_frames(track, path)
    start_s = probe(path).start_s
    assert np.array_equal(track.mfcc, aligned_mfcc(load_audio(path), start_s, length).numpy())
    assert track.mfcc.shape == (4 * length, 13)
    low, high = track.boxes[:, None, :2], track.boxes[:, None, 2:]
    assert ((track.landmarks > low) & (track.landmarks < high)).all(), "points of a frontal face lie in its box"


def test_without_sound_and_without_a_face(tmp_path: Path, detector, caplog: pytest.LogCaptureFixture) -> None:
    (track,) = cut_clip(write_clip(tmp_path / "mute.mp4", frames=15, sound=False), detector=detector, name="other")
    assert track.mfcc is None
    assert track.name == "other#1"
    assert cut_clip(write_clip(tmp_path / "flat.mp4", frames=15, face=False), detector=detector) == []
    assert "flat.mp4: no face found" in caplog.text


def test_only_so_many_seconds_are_looked_at(face_clip: Path, detector, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (whole,) = cut_clip(face_clip, detector=detector)
    assert "are looked at" not in caplog.text
    (part,) = cut_clip(face_clip, detector=detector, start_s=0.2, max_seconds=0.6)
    assert "only 0.6 s from second 0.2 on are looked at" in caplog.text
    assert np.allclose(part.times_s, 0.2 + np.arange(15) / 25, atol=1e-6)
    assert np.array_equal(part.mfcc[1:40], whole.mfcc[21:60]), "its sound moves with it"
    caplog.clear()
    (asked,) = cut_clip(face_clip, detector=detector, end_s=0.6, max_seconds=0.6)
    assert len(asked) == 15
    assert "are looked at" not in caplog.text
    for wrong in ({"max_seconds": 0}, {"max_seconds": float("nan")}, {"start_s": -1}, {"start_s": 0.5, "end_s": 0.4}):
        with pytest.raises(OptionError):
            cut_clip(face_clip, detector=detector, **wrong)


def test_boxes_from_a_csv_borrow_landmarks_of_the_detector(face_clip: Path, face_boxes: Path, detector) -> None:
    (bare,) = cut_clip(face_clip, detector=None, boxes_csv=face_boxes)
    assert np.allclose(bare.boxes, [0.36 * 256, 0.12 * 200, 0.66 * 256, 0.72 * 200], atol=1e-3)
    assert bare.landmarks.shape == (30, 5, 2)
    assert np.isnan(bare.landmarks).all()
    (marked,) = cut_clip(face_clip, detector=detector, boxes_csv=face_boxes)
    (found,) = cut_clip(face_clip, detector=detector)
    assert np.array_equal(marked.boxes, bare.boxes)
    assert np.array_equal(marked.landmarks, found.landmarks)
    with pytest.raises(OptionError, match="give one"):
        cut_clip(face_clip, detector=None)


def test_landmarks_are_not_borrowed_from_another_face(face_clip: Path, tmp_path: Path, detector) -> None:
    elsewhere = tmp_path / "boxes.csv"
    elsewhere.write_text("".join(f"face,{i / 25:.2f},0.0,0.6,0.2,0.95,NOT_SPEAKING,f\n" for i in range(30)))
    (track,) = cut_clip(face_clip, detector=detector, boxes_csv=elsewhere)
    assert np.isnan(track.landmarks).all()


# --- what is known ----------------------------------------------------------------------------------------------------


def test_overlap_by_hand() -> None:
    a = np.array([0, 0, 4, 4])
    assert np.allclose(iou(a, np.array([[0, 0, 4, 4], [2, 0, 6, 4], [4, 0, 8, 4], [1, 1, 3, 3]])), [1, 1 / 3, 0, 0.25])


def test_a_face_is_the_person_it_overlaps_most_at_the_nearest_time() -> None:
    left, right = np.array([0, 0, 10, 10.0]), np.array([6, 0, 16, 10.0])
    people = [
        KnownPerson(np.array([0.0, 0.1]), np.stack([left, left]), np.array([1, 0])),
        KnownPerson(np.array([0.0, 0.2]), np.stack([right, right]), np.array([0, 1]), np.stack([right, left])),
    ]
    times = np.array([0.0, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3])
    truth, mouths = match_people(times, np.tile([1, 0, 11, 10.0], (7, 1)), people)
    #         left's first row, twice; the second from the middle on; 0.15 is 0.05 from both, right overlaps a third;
    assert np.array_equal(truth[:5], [1, 1, 0, 0, 0])
    assert truth[5] == 1, "the left one is 0.1 s away: the right one, who overlaps a third"
    assert np.isnan(truth[6]), "nobody near in time"
    assert np.isnan(mouths[:5]).all()
    assert np.array_equal(mouths[5], left)
    assert match_people(times, np.tile([30, 0, 40, 10.0], (7, 1)), people) == (None, None)
    assert match_people(times, np.tile(left, (7, 1)), []) == (None, None)


def test_labels_of_a_csv_reach_the_tracks(face_clip: Path, tmp_path: Path, detector, caplog) -> None:
    header = "frame_timestamp,video_id,entity_box_x1,entity_box_y1,entity_box_x2,entity_box_y2,label,entity_id,label_id"
    table = tmp_path / "labels.csv"
    # Labels every 0.2 s, so that a grid frame 0.08 s from the nearest has none; somebody else speaks beside the face.
    states = ("NOT_SPEAKING", "SPEAKING_AUDIBLE", "SPEAKING_NOT_AUDIBLE", "SPEAKING_AUDIBLE")
    rows = [f"{i / 5},face,0.36,0.12,0.66,0.72,{label},f,1" for i, label in enumerate(states)]
    rows += [f"{i / 5},face,0.0,0.6,0.2,0.95,SPEAKING_AUDIBLE,other,1" for i in range(4)]
    table.write_text("\n".join([header, *rows, "0.0,another_clip,0,0,1,1,NOT_SPEAKING,x,0", ""]))
    (track,) = cut_clip(face_clip, detector=detector, labels_csv=table)
    n = np.nan
    expected = [0, 0, n, n, 1, 1, 1, n, n, 0, 0, 0, n, n, 1, 1, 1]
    assert np.array_equal(track.truth[:17], expected, equal_nan=True)
    assert np.isnan(track.truth[17:]).all()
    assert track.truth.dtype == np.float32

    table.write_text("another_clip,0.0,0,0,1,1,NOT_SPEAKING,x\n")
    assert read_labels(table, probe(face_clip)) == []
    assert "no row with video_id face" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("face,0.0,0,0,1,1,TALKING,x\n", "line 1: label 'TALKING'; expected NOT_SPEAKING"),
        ("\nface,0.0,0,0,1,1\n", "line 2: 6 columns"),
        ("video_id,frame_timestamp,entity_id\n", "no column entity_box_x1.*label"),
        ("face,soon,0,0,1,1,NOT_SPEAKING,x\n", "must be numbers"),
        ("", "empty"),
    ],
)
def test_what_is_wrong_with_labels_is_named(face_clip: Path, tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(BoxesError, match=message):
        read_labels(table, probe(face_clip))
    with pytest.raises(BoxesError, match="gone"):
        read_labels(tmp_path / "gone.csv", probe(face_clip))


def test_talking_photos_bring_label_and_mouth(scene, scene_tracks) -> None:
    shots = {0: [t for t in scene_tracks if t.times_s[0] < 0.5], 1: [t for t in scene_tracks if t.times_s[0] > 0.5]}
    assert [len(shots[0]), len(shots[1])] == [2, 1], "a track does not cross the cut"
    left, right = sorted(shots[0], key=lambda t: t.boxes[0, 0])
    for track, who in ((left, 0), (right, 1), (shots[1][0], 1)):
        assert track.kind == "talking photos"
        person = scene.people[who]
        shown = np.array([np.argmin(np.abs(scene.times_s - t) + 1e-5 * scene.times_s) for t in track.times_s])
        assert np.allclose(track.mouths, person.mouth[shown], atol=0.01)
        assert np.array_equal(track.truth, (scene.times_s[shown] >= 0.5) & (who == 1)), "mouthing is not speaking"


def test_given_labels_go_before_those_of_the_table(scene, scene_tracks, detector) -> None:
    tracks = cut_clip(scene.path, detector=detector, labels_csv=scene.csv_path, end_s=0.8)
    assert [t.truth.max() for t in tracks] == [0, 0], "the clip's AVA csv, which the fixture leaves alone"
    assert all(np.isfinite(t.mouths).all() for t in tracks)


def test_a_table_that_is_none_is_named(tmp_path: Path, detector) -> None:
    path = write_clip(tmp_path / "face.mp4", frames=15)
    for text in ("frame,person\n1,2\n", "person,label\n0\n"):
        path.with_suffix(".mouths.csv").write_text(text)
        with pytest.raises(BoxesError, match=r"face\.mouths\.csv, line 2: not the table of mouths"):
            cut_clip(path, detector=detector)


def test_points_of_a_scene_are_those_of_its_clip(scene, scene_tracks) -> None:
    points = ScenePoints(SCENE)
    for shot, who, first_s in ((0, 0, 0.0), (0, 1, 0.0), (1, 1, 0.9)):
        times = first_s + np.arange(15) / 25
        mouths, landmarks = points.of(shot, who, times)
        shown = np.array([np.argmin(np.abs(scene.times_s - t) + 1e-5 * scene.times_s) for t in times])
        assert np.allclose(mouths, scene.people[who].mouth[shown])
        # What YuNet sees in the encoded clip.
        face = scene.people[who].face[shown[0]]
        here = [t for t in scene_tracks if abs(t.times_s[0] - first_s) < 0.05 and iou(t.boxes[0], face) > 0.3]
        (track,) = here
        width = np.median(track.boxes[:, 2] - track.boxes[:, 0])
        apart = np.linalg.norm(landmarks - track.landmarks[:15], axis=-1).mean(0) / width
        assert (apart[[0, 1, 3, 4]] < 0.15).all(), apart
        assert apart[2] < 0.3, "the nose's base is not its tip"


def test_corpus_tracks_add_the_scene_to_what_is_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = ClipEntry(Path("x"), "talking_photos/test_003", "talking_photos", "test", "x")
    small = replace(SCENE, people=SCENE.people[:1], shots=(), width=96, height=96, duration_s=1.2)
    clips = render_clips(entry, small, Treatment(box_error=0.0), "turns")
    asked = []

    class Cache:
        def __init__(self, folder: Path) -> None:
            asked.append(folder)

        def get(self, entry: ClipEntry):
            return clips

    monkeypatch.setenv("ASD_EXPLAIN_CACHE", str(tmp_path))
    monkeypatch.setattr(attention_material, "TalkingClipCache", Cache)
    monkeypatch.setattr(attention_material, "talking_scene", lambda *key: asked.append(key) or (small, None, ""))
    (track,) = corpus_tracks(entry)
    assert asked == [tmp_path / "corpus", ("test", 3)]
    assert (track.clip, track.kind, track.track_id) == (entry.name, "talking photos", 0)
    assert track.truth is clips[0].truth
    assert track.faces is clips[0].faces
    assert np.array_equal(track.times_s, clips[0].times_s)
    middle = (track.mouths[:, :2] + track.mouths[:, 2:]) / 2
    place = (middle - track.boxes[:, :2]) / (track.boxes[:, 2:] - track.boxes[:, :2])
    assert ((place > [0.3, 0.6]) & (place < [0.7, 0.95])).all(), "the mouth is low in the face"
    assert (track.landmarks[:, :2, 1] < middle[:, None, 1]).all()
    with pytest.raises(OptionError, match="single/talk_2"):
        monkeypatch.undo()
        corpus_tracks(replace(entry, name="single/talk_2"), tmp_path)


# --- picking ----------------------------------------------------------------------------------------------------------


class Bright(FusionBackbone):
    """P(speaking) of a frame is the brightness of its picture; the sound is heard only if it is louder than silence."""

    streams = {"audio": 1, "face": 1}  # noqa: RUF012
    halo_frames = 0

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return audio[..., :1].unflatten(1, (-1, 4)).mean(2)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        return face[..., :1, :1].float()[:, :, None] / 255

    def classify(self, audio: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        p = face.clamp(1e-3, 1 - 1e-3)
        margin = torch.log(p / (1 - p)) - 4 * (audio < -30)
        return torch.cat((torch.zeros_like(margin), margin), -1)


def made(light: np.ndarray, clip: str = "clip", track_id: int = 1, **changes) -> CutTrack:
    """A track whose frames are as bright as told, 0..1."""
    n = len(light)
    face = np.tile(np.rint(np.asarray(light) * 255).astype(np.uint8)[:, None, None], (1, 112, 112))
    fields = {
        "clip": clip,
        "kind": "real",
        "track_id": track_id,
        "times_s": 3 + np.arange(n) / 25,
        "size": (320, 240),
        "boxes": np.tile(np.array([100, 50, 140, 100], np.float32), (n, 1)),
        "landmarks": np.full((n, 5, 2), np.nan, np.float32),
        "faces": {"box": face, "demo": 255 - face},
        "body": face,
        "mfcc": np.zeros((4 * n, 13), np.float32) + np.repeat(np.arange(n), 4)[:, None],
    }
    return CutTrack(**(fields | changes))


def _picked(tracks: list[CutTrack], **options) -> list[tuple[str, int]]:
    segments = pick_segments(Bright().eval(), tracks, "box", regions_of=lambda *_: {}, **options)
    return [(s.name, len(s)) for s in segments]


def test_the_most_and_the_least_speaking_stretch_are_taken() -> None:
    light = np.full(140, 0.3)
    light[50:90] = 0.9
    light[95:140] = 0.1
    track = made(light)
    assert _picked([track]) == [("clip#1@50", 40), ("clip#1@95", 40)]
    assert _picked([track, made(np.full(60, 0.05), track_id=2)]) == [("clip#1@50", 40), ("clip#2@0", 40)]
    assert _picked([track], frames=60, per_clip=4) == [("clip#1@30", 60), ("clip#1@90", 50), ("clip#1@0", 30)]


def test_segments_hold_what_the_track_holds_there() -> None:
    light = np.concatenate([np.full(45, 0.1), np.full(45, 0.9)])
    truth = (light > 0.5).astype(np.float32)
    asked = []

    def regions_of(track: CutTrack, part: slice, geometry: str):
        asked.append((track.name, part, geometry))
        return {s: {"mouth": np.ones((40, 112, 112), bool)} for s in ("face", "body")}

    track = made(light, kind="talking photos", truth=truth)
    model = Bright().eval()
    loud, quiet = pick_segments(model, [track], "box", regions_of=regions_of)
    assert (loud.name, loud.clip, loud.kind) == ("clip#1@45", "clip", "talking photos")
    assert quiet.name == "clip#1@0"
    assert asked == [("clip#1", slice(45, 85), "box"), ("clip#1", slice(0, 40), "box")]
    assert list(loud.crops) == list(loud.regions) == ["face"], "the network sees no body"
    assert np.array_equal(loud.crops["face"], track.faces["box"][45:85])
    assert np.array_equal(loud.mfcc[:, 0], np.repeat(np.arange(45, 85), 4))
    assert np.array_equal(loud.truth, np.ones(40))
    assert np.array_equal(loud.times_s, track.times_s[45:85])
    assert not np.shares_memory(loud.mfcc, track.mfcc)
    inputs = inputs_of(model, loud)
    assert model(**inputs).logits.shape == (1, 40, 2)
    (dark, *_) = pick_segments(model, [track], "demo", regions_of=lambda *_: {})
    assert dark.name == "clip#1@0", "the other geometry shows the reverse"
    with pytest.raises(OptionError, match="clip#1: no faces cut as 'oval'"):
        pick_segments(model, [track], "oval")
    for wrong in ({"frames": 12}, {"per_clip": 0}):
        with pytest.raises(OptionError):
            pick_segments(model, [track], "box", **wrong)


def test_short_tracks_give_short_segments_and_very_short_ones_none() -> None:
    assert _picked([made(np.full(12, 0.9))]) == []
    assert _picked([made(np.full(13, 0.9))]) == [("clip#1@0", 13)]
    assert _picked([made(np.full(13, 0.9)), made(np.full(40, 0.6), track_id=2)])[0] == ("clip#2@0", 40), "full first"
    # What the speaking one leaves of the track is too short for a second one, or just not.
    assert _picked([made(np.concatenate([np.full(40, 0.9), np.full(12, 0.1)]))]) == [("clip#1@0", 40)]
    assert _picked([made(np.concatenate([np.full(40, 0.9), np.full(13, 0.1)]))])[1:] == [("clip#1@40", 13)]


def test_a_silent_clip_has_no_speaking_stretch() -> None:
    half = np.tile([0.45, 0.55], 20)
    assert len(_picked([made(half)], per_clip=1)) == 1, "half of the frames are enough"
    half[1] = 0.45
    assert _picked([made(half)], per_clip=1) == []
    assert _picked([made(half)]) == [("clip#1@0", 40)], "it is the silent one"
    # The mean is highest where one bright frame outshines a majority that is called silent.
    light = np.concatenate([np.full(25, 0.49), np.full(15, 1.0), np.full(5, 0.0), np.full(40, 0.51)])
    assert _picked([made(light)])[0][0] != "clip#1@0"


def test_a_truly_silent_short_stretch_goes_before_a_speaking_long_one() -> None:
    tracks = [made(np.full(100, 0.9)), made(np.full(20, 0.1), track_id=2)]
    assert _picked(tracks) == [("clip#1@0", 40), ("clip#2@0", 20)]


def test_clips_are_picked_from_apart_and_in_order() -> None:
    tracks = [made(np.full(40, 0.9), "b"), made(np.full(40, 0.1), "a"), made(np.full(40, 0.2), "b", 2)]
    assert [name for name, _ in _picked(tracks)] == ["b#1@0", "b#2@0", "a#1@0"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 10), min_size=1, max_size=45), min_size=1, max_size=3), st.integers(1, 4))
def test_picking_against_brute_force(lights: list[list[int]], per_clip: int) -> None:
    tracks = [made(np.array(light) / 10, track_id=k) for k, light in enumerate(lights)]
    model, frames = Bright().eval(), 20
    segments = pick_segments(model, tracks, "box", frames=frames, per_clip=per_clip, regions_of=lambda *_: {})
    spans = [(int(s.name[5 : s.name.index("@")]), int(s.name.split("@")[1]), len(s)) for s in segments]
    p = [p_speaking(model, t, "box") for t in tracks]
    used = [set() for _ in tracks]
    for k, first, length in spans:
        frames_of = set(range(first, first + length))
        assert not frames_of & used[k], "stretches do not overlap"
        assert MIN_FRAMES <= length <= frames
        used[k] |= frames_of
    full = [
        (p[k][a : a + frames].mean(), k, a)
        for k in range(len(p))
        for a in range(len(p[k]) - frames + 1)
        if (p[k][a : a + frames] >= 0.5).mean() >= 0.5
    ]
    if full:
        k, first, length = spans[0]
        assert length == frames
        assert p[k][first : first + frames].mean() == pytest.approx(max(full)[0], abs=1e-9)
    elif per_clip == 1:
        assert not spans or spans[0][2] < frames
    if full and per_clip > 1:
        taken = set(range(first, first + frames))
        quiet = [
            p[j][a : a + frames].mean()
            for j in range(len(p))
            for a in range(len(p[j]) - frames + 1)
            if (p[j][a : a + frames] >= 0.5).mean() <= 0.5 and not (j == k and taken & set(range(a, a + frames)))
        ]
        if quiet:
            j, a, length = spans[1]
            assert length == frames
            assert p[j][a : a + frames].mean() == pytest.approx(min(quiet), abs=1e-9)
    assert spans == [
        (int(s.name[5 : s.name.index("@")]), int(s.name.split("@")[1]), len(s))
        for s in pick_segments(model, tracks, "box", frames=frames, per_clip=per_clip, regions_of=lambda *_: {})
    ]


def test_no_sound_is_silence_or_absence(tiny_body) -> None:
    model = Bright().eval()
    lit = made(np.full(20, 0.7), mfcc=None)
    silence = aligned_mfcc(None, 0.0, 20).numpy()
    assert np.allclose(p_speaking(model, lit, "box"), p_speaking(model, replace(lit, mfcc=silence), "box"))
    assert p_speaking(model, lit, "box")[0] < 0.3 < 0.69 < p_speaking(model, made(np.full(20, 0.7)), "box")[0]
    # A network that knows of absence; its sight is enough, and it sees the body.
    flicker = made(np.tile([0.2, 0.9], 20), mfcc=None)
    assert (p_speaking(tiny_body, flicker, "box") > 0.5).all()
    (segment,) = pick_segments(tiny_body, [flicker], "box", per_clip=1)
    assert list(segment.crops) == ["face", "body"]
    assert segment.mfcc is None
    assert segment.regions == {}, "nothing is known of where the mouth is"


def test_regions_come_from_mouths_or_landmarks() -> None:
    n = 20
    mouths = np.tile(np.array([112, 84, 128, 90], np.float32), (n, 1))
    track = made(np.full(n, 0.5), mouths=mouths)
    regions = track_regions(track, slice(2, 16), "box")
    assert list(regions) == ["face", "body"]
    face = regions["face"]["mouth"]
    assert face.shape == (14, 112, 112)
    rows, columns = np.nonzero(face[0])
    # The box is 40 x 50 px: the mouth's middle (120, 87) is at half its width, 37 / 50 of its height.
    assert abs(columns.mean() / 112 - 0.5) < 0.02
    assert abs(rows.mean() / 112 - 0.74) < 0.02
    assert 0 < regions["body"]["mouth"][0].sum() < face[0].sum()
    points = np.array([(110, 65), (130, 65), (120, 77), (113, 87), (127, 87)], np.float32)
    marked = track_regions(made(np.full(n, 0.5), landmarks=np.tile(points, (n, 1, 1))), slice(0, 20), "demo")
    assert marked["face"]["eyes"].any((1, 2)).all()
    assert marked["face"]["mouth"].any((1, 2)).all()
    assert track_regions(made(np.full(n, 0.5)), slice(0, 20), "box") == {}
