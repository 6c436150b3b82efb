"""Miniature AVA and WASD: the real ones' files, unseen material in val, and the way from raw to training layout."""

from __future__ import annotations

import csv
import json
from itertools import pairwise

import numpy as np
import pytest

from asd_explain.datasets import miniature
from asd_explain.datasets.annotations import find_table, read_tracks
from asd_explain.datasets.ava import AvaSet
from asd_explain.datasets.entities import LABEL_NAMES
from asd_explain.datasets.miniature import CATEGORIES, ava_clips, main, make_miniature, wasd_clips
from asd_explain.datasets.talking_photos import main as talking_photos
from asd_explain.datasets.talking_truth import LABELS
from asd_explain.datasets.wasd import WasdSet
from asd_explain.errors import OptionError, OutputError
from asd_explain.media.probing import probe
from asd_explain.tools.prepare import main as prepare


def _needs_demo():
    pytest.importorskip("espeakng_loader", reason="espeak-ng comes with the demo extra")
    pytest.importorskip("skimage", reason="the astronaut's photograph comes with scikit-image (demo extra)")


# --- what is planned: no voice is spoken, no picture drawn -------------------------------------------------------


@pytest.mark.parametrize(
    "clips",
    [
        *(ava_clips(12, 8, 4.0), wasd_clips(5, 2, 4.0), ava_clips(24, 8, 4.0)),
        *(ava_clips(24, 8, 4.0, drawn=2), wasd_clips(5, 2, 4.0, drawn=1)),
    ],
)
def test_plans_can_be_drawn_and_val_is_unseen(clips):
    for clip in clips:
        clip.scene.check()
    assert len({clip.video_id for clip in clips}) == len(clips)
    for clip in clips:  # TalkNet's loaders take 11 characters for the video
        assert len(clip.video_id.rpartition("_")[0] if clip.category is not None else clip.video_id) == 11

    names = ("train", "val")

    def seen(split, what):
        return {what(p) for clip in clips if clip.split == split for p in (*clip.scene.people, *clip.scene.offscreen)}

    def photo(person):
        return getattr(getattr(person, "look", None), "photo", None)

    assert not (seen("train", photo) & seen("val", photo)) - {None}
    assert not seen("train", lambda p: p.voice.name) & seen("val", lambda p: p.voice.name)
    assert not seen("train", lambda p: p.lines) & seen("val", lambda p: p.lines)
    turns = {split: {tuple(p.turns for p in c.scene.people) for c in clips if c.split == split} for split in names}
    assert not turns["train"] & turns["val"]


@pytest.mark.parametrize(("drawn", "share"), [(0, 0.0), (1, 1.0), (2, 0.5), (4, 0.25)])
def test_faces_of_val_are_many_and_those_of_train_as_asked(drawn, share):
    for clips in (ava_clips(24, 8, 4.0, drawn=drawn), wasd_clips(8, 4, 4.0, drawn=drawn)):
        photos = {s: [p.look.photo for c in clips if c.split == s for p in c.scene.people] for s in ("train", "val")}
        for split, wanted, photo in (("train", share, "hopper"), ("val", 0.5, "astronaut")):
            assert set(photos[split]) & {"hopper", "astronaut"} <= {photo}
            others = [name for name in photos[split] if name != photo]
            assert len(others) / len(photos[split]) == pytest.approx(wanted, abs=0.1)
            assert len(set(others)) >= 0.9 * len(others), "hardly a face comes twice"


def test_plans_are_varied():
    clips = ava_clips(12, 8, 4.0)
    for split in ("train", "val"):
        here = [clip.scene for clip in clips if clip.split == split]
        assert {len(scene.people) for scene in here} == {1, 2, 3}
        assert len({scene.rate for scene in here}) == 4
        assert any(scene.shots for scene in here)
        assert any(scene.offscreen for scene in here)
        assert any(person.mouthing for scene in here for person in scene.people)
    clips = wasd_clips(2, 2, 4.0)
    assert {clip.category for clip in clips} == set(range(5))
    assert {round(clip.scene.rate) for clip in clips} == {10, 15, 24, 25, 30}
    by_name = {name: [c.scene for c in clips if CATEGORIES[c.category] == name] for name in CATEGORIES}
    assert all(scene.offscreen for scene in by_name["HVN"])
    assert all(person.gestures for scene in by_name["FO"] for person in scene.people)
    assert all(person.look.face_fraction < 0.25 for scene in by_name["SS"] for person in scene.people)
    for scene in by_name["SI"]:  # two at once
        turns = sorted(turn for person in scene.people for turn in person.turns)
        assert any(b[0] < a[1] for a, b in pairwise(turns))


def test_plans_depend_on_the_seed_alone():
    assert ava_clips(3, 2, 4.0) == ava_clips(3, 2, 4.0)
    assert ava_clips(3, 2, 4.0)[:2] == ava_clips(2, 2, 4.0)[:2]
    assert ava_clips(3, 2, 4.0, seed=1) != ava_clips(3, 2, 4.0)


def test_labels_have_ava_s_numbers():
    assert LABEL_NAMES == LABELS


@pytest.mark.parametrize(
    "wrong", [{"dataset": "vox"}, {"train": 0}, {"val": 100}, {"seconds": 1}, {"seconds": 31}, {"drawn": -1}]
)
def test_impossible_miniatures_are_refused(wrong, tmp_path):
    with pytest.raises(OptionError):
        make_miniature(**{"dataset": "ava", "out": tmp_path / "mini", **wrong})
    assert not (tmp_path / "mini").exists()


def test_only_a_miniature_is_replaced(tmp_path):
    (tmp_path / "ava").mkdir()
    (tmp_path / "ava" / "film.mp4").touch()
    with pytest.raises(OutputError, match="exists and is no miniature; give another name"):
        make_miniature("ava", tmp_path / "ava", overwrite=True)
    assert main(["-o", str(tmp_path)]) == 2
    assert (tmp_path / "ava" / "film.mp4").exists()


@pytest.mark.demo
def test_a_miniature_is_replaced_on_demand(tmp_path):
    _needs_demo()
    (tmp_path / "ava").mkdir()
    (tmp_path / "ava" / "miniature.json").touch()
    (tmp_path / "ava" / "old").touch()
    make_miniature("ava", tmp_path / "ava", train=1, val=1, seconds=1.5, overwrite=True)
    assert {path.name for path in (tmp_path / "ava").iterdir()} == {"csv", "orig_videos", "miniature.json"}


def test_nothing_half_made_stays(tmp_path, monkeypatch):
    def fail(scene, path):
        path.parent.mkdir(parents=True)
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(miniature, "make_clip", fail)
    with pytest.raises(OutputError, match="No space left"):
        make_miniature("ava", tmp_path / "ava")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.shared
def test_wasd_files_have_the_official_form(shared_dir):
    with (shared_dir / "reference" / "wasd" / "wasd_metadata.csv").open(newline="") as file:
        assert tuple(next(csv.reader(file))) == miniature._METADATA
    text = (shared_dir / "reference" / "wasd" / "dataset_division.txt").read_text()
    assert [line[2:] for line in text.splitlines() if line.startswith("#")] == list(miniature._HEADINGS)


# --- made ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ava(tmp_path_factory):
    _needs_demo()
    return make_miniature("ava", tmp_path_factory.mktemp("mini") / "ava", train=3, val=1, seconds=2.0)


@pytest.fixture(scope="module")
def wasd(tmp_path_factory):
    _needs_demo()
    return make_miniature("wasd", tmp_path_factory.mktemp("mini") / "wasd", train=1, val=1, seconds=1.5)


@pytest.mark.demo
def test_ava_is_annotated_as_the_original(ava):
    lines = [line for path in find_table(ava / "csv", "train") for line in path.read_text().splitlines()]
    assert all(len(line.split(",")) == 8 for line in lines)
    assert {line.split(",")[6] for line in lines} == set(LABEL_NAMES)
    tracks = read_tracks(find_table(ava / "csv", "train"))
    assert len({row.video_id for row in tracks}) == 3
    assert len(tracks) == 6
    labels = np.concatenate([row.labels for row in tracks])
    assert 0.15 < labels.mean() < 0.6
    for row in tracks:
        info = probe(ava / "orig_videos" / "trainval" / f"{row.video_id}.mp4")
        assert row.fps == pytest.approx(float(info.fps), rel=0.01)
        assert len(row) == round(2.0 * info.fps)
        assert row.boxes.min() >= 0
        assert row.boxes.max() <= 1
    summary = json.loads((ava / "miniature.json").read_text())
    assert summary["tracks"]["train"] == 6
    assert summary["photographs"] == {"train": "hopper", "val": "astronaut"}
    for split, photo in summary["photographs"].items():
        assert set(summary["faces"][split]) <= {photo, "drawn"}
    assert summary["faces"]["train"] == {"hopper": 6, "drawn": 0}
    for word in ("photograph", "drawn faces", "voices", "turns", "Shared"):
        assert word in summary["unseen in val"]


@pytest.mark.demo
def test_ava_from_raw_to_training_layout(ava, tmp_path, capsys):
    words = ["--dataset", "ava", "--csv", str(ava / "csv"), "--videos", str(ava / "orig_videos")]
    assert prepare([*words, "--out", str(tmp_path), "--workers", "1", "--quiet"]) == 0
    assert "ava train: 6 of 6" in capsys.readouterr().out
    for split in ("train", "val"):
        _same(AvaSet.dumped(tmp_path, split), AvaSet.streamed(ava / "csv", ava / "orig_videos", split))


@pytest.mark.demo
def test_wasd_from_raw_to_training_layout(wasd, tmp_path, capsys):
    assert {p.name for p in (wasd / "csv").iterdir()} == {
        *("train_orig.csv", "val_orig.csv", "train_body_orig.csv", "val_orig_body.csv")
    }
    words = ["--dataset", "wasd", "--csv", str(wasd / "csv"), "--videos", str(wasd / "orig_videos")]
    assert prepare([*words, "--out", str(tmp_path), "--workers", "1", "--quiet"]) == 0
    assert "wasd val: 8 of 8" in capsys.readouterr().out
    for split in ("train", "val"):
        dumped = WasdSet.dumped(tmp_path, split)
        _same(dumped, WasdSet.streamed(wasd / "csv", wasd / "orig_videos", split))
        assert {round(row.fps) for row in dumped.rows} == {10, 24, 25, 30}
        clip = dumped.load(0)
        moved = np.abs(np.diff(clip.body.astype(int), axis=0)).mean()
        assert moved > 0.1


def _same(dumped, streamed):
    assert [row.entity_id for row in dumped.rows] == [row.entity_id for row in streamed.rows]
    for i, (row, other) in enumerate(zip(dumped.rows, streamed.rows, strict=True)):
        assert np.array_equal(row.timestamps_s, other.timestamps_s)
        assert np.array_equal(row.labels, other.labels)
        assert row.label_names == other.label_names
        assert np.array_equal(row.boxes, other.boxes)
        a, b = dumped.load(i), streamed.load(i)
        assert np.abs(a.waveform - b.waveform).max() <= 0.5 / 32768 + 1e-7
        for one, two in ((a.face, b.face), (a.body, b.body)):
            if one is not None or two is not None:
                error = np.abs(one.astype(int) - two)
                assert error.mean() < 2.5, row.entity_id
                assert np.quantile(error, 0.99) < 16, row.entity_id


@pytest.mark.demo
def test_mouths_and_labels_are_in_step(ava):
    """The mouth's region of the crop changes more while the label says speaking, unseen photograph included."""
    for split in ("train", "val"):
        entities = AvaSet.streamed(ava / "csv", ava / "orig_videos", split)
        ratios = []
        for i, row in enumerate(entities.rows):
            speaking = row.labels[1:] & row.labels[:-1]
            if 8 <= speaking.sum() <= len(row) - 8:
                mouth = entities.load(i).face[:, 70:105, 25:87].astype(int)
                change = np.abs(np.diff(mouth, axis=0)).mean((1, 2))
                ratios.append(change[speaking == 1].mean() / change[speaking == 0].mean())
        assert ratios
        assert np.mean(ratios) > 1.2, ratios


@pytest.mark.demo
def test_wasd_metadata_and_division(wasd):
    with (wasd / "eval" / "wasd_metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    videos = {row.video_id for s in ("train", "val") for row in read_tracks(find_table(wasd / "csv", s))}
    assert {row["Video"] for row in rows} == videos
    assert {int(row["Category"]) for row in rows} == set(range(5))
    for row in rows:
        info = probe(wasd / "orig_videos" / "trainval" / f"{row['Video']}.mp4")
        assert row["Image Size"] == f"{info.width}x{info.height}"
        assert int(row["FPS"]) == round(info.fps)
        assert 0 <= float(row["Overlap Communication"]) <= float(row["Talking Proportion"]) <= 1
        assert 0 < float(row["Head Body Proportion"]) < 1
    headings, ids = {}, {}
    for line in (wasd / "eval" / "dataset_division.txt").read_text().splitlines():
        if line.startswith("#"):
            heading = headings.setdefault(line[2:], [])
        else:
            heading.append(line)
            ids[line] = len(headings)
    assert list(headings) == ["Interview", "Debate", "React", "Podcast", "Police"]
    # FIELD: Interview = OC, Debate = SI, React = HVN, Podcast = FO, Police = SS
    expected = {"Interview": 0, "Debate": 1, "React": 3, "Podcast": 2, "Police": 4}
    for row in rows:
        assert [h for h, names in headings.items() if any(n in row["Video"] for n in names)] == [
            next(h for h, number in expected.items() if number == int(row["Category"]))
        ]


@pytest.mark.demo
def test_command_lines(tmp_path, monkeypatch, caplog):
    _needs_demo()
    made = []

    def make(name, out, **settings):
        made.append(settings)
        return make_miniature(name, out, **{**settings, "train": 1, "val": 1, "seconds": 1.5})

    monkeypatch.setattr(miniature, "make_miniature", make)
    assert talking_photos(["--dataset", "ava", "-o", str(tmp_path), "--seed", "3"]) == 0
    assert json.loads((tmp_path / "ava" / "miniature.json").read_text())["seed"] == 3
    assert talking_photos(["--dataset", "ava", "-o", str(tmp_path)]) == 2
    assert "exists; give another name" in caplog.text
    assert main(["-o", str(tmp_path), "--train", "7", "--val", "2", "--seconds", "3", "--dataset", "ava"]) == 2
    assert [made[-1][k] for k in ("train", "val", "seconds", "seed", "overwrite")] == [7, 2, 3.0, 0, False]
    with pytest.raises(SystemExit):
        talking_photos(["--dataset", "ava", "-o", str(tmp_path), "--fps", "25"])
