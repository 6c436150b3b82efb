"""tools/prepare.py: complete, resumable, verified, and honest about what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_support import level, numbered_video, track, write_orig

from asd_explain.datasets import preparing
from asd_explain.datasets.annotations import orig_lines
from asd_explain.datasets.ava import AvaSet
from asd_explain.datasets.miniature import original_lines
from asd_explain.datasets.wasd import WasdSet
from asd_explain.tools.prepare import main

NAMES = ("-tr_00-mini", "_tr-01_mini", "tr02-__mini")


@pytest.fixture
def raw(tmp_path):
    """Annotations in AVA's original dialect and three videos, two people each."""
    for k, name in enumerate(NAMES):
        numbered_video(tmp_path / "orig_videos" / "trainval" / f"{name}.mkv", 24, (25, 30, 10)[k])
        folder = tmp_path / "csv" / "ava_activespeaker_train_v1.0"
        folder.mkdir(parents=True, exist_ok=True)
        rows = [track(name, patch, 0, 20, (25, 30, 10)[k]) for patch in "12"]
        (folder / f"{name}-activespeaker.csv").write_text("\n".join(original_lines(rows)) + "\n")
    return tmp_path


def _run(raw: Path, *more: str, dataset: str = "ava", split: str = "train") -> int:
    words = ["--dataset", dataset, "--split", split, "--csv", str(raw / "csv"), "--videos", str(raw / "orig_videos")]
    return main([*words, "--out", str(raw / "out"), "--workers", "1", "--quiet", *more])


def _files(out: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(out)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.parts[-2] != "prepared"
    }


def _report(raw: Path, split: str = "train") -> dict:
    return json.loads((raw / "out" / "prepared" / f"{split}.json").read_text())


def test_everything_is_made_and_named_as_the_field_does(raw, capsys):
    assert _run(raw) == 0
    assert "ava train: 6 of 6 tracks are complete (6 made now, 0 kept, 120 crops written)" in capsys.readouterr().out
    expected = {"csv/train_orig.csv", "csv/train_loader.csv"}
    for k, name in enumerate(NAMES):
        for patch in "12":
            entity = f"{name}_0000_0060:{patch}"
            expected.add(f"clips_audios/train/{name}/{entity}.wav")
            fps = (25, 30, 10)[k]
            expected |= {f"clips_videos/train/{name}/{entity}/{n / fps:.2f}.jpg" for n in range(20)}
    assert set(_files(raw / "out")) == expected
    dumped, streamed = AvaSet.dumped(raw / "out"), AvaSet.streamed(raw / "csv", raw / "orig_videos")
    assert [r.entity_id for r in dumped.rows] == [r.entity_id for r in streamed.rows]
    for i in range(6):
        one, other = dumped.load(i), streamed.load(i)
        assert np.abs(one.face.astype(int) - other.face).max() < 4
        assert np.array_equal(one.waveform, other.waveform)
        assert one.entity.label_names == other.entity.label_names
        assert np.array_equal(one.entity.boxes, other.entity.boxes)


def test_a_second_run_touches_nothing(raw, capsys):
    assert _run(raw) == 0
    before = _files(raw / "out")
    assert _run(raw) == 0
    after = _files(raw / "out")
    assert before.keys() == after.keys()
    clips = [name for name in before if name.startswith("clips")]
    assert [before[name] for name in clips] == [after[name] for name in clips]
    assert "(0 made now, 6 kept, 0 crops written)" in capsys.readouterr().out


def test_several_processes_make_the_same(raw):
    assert _run(raw) == 0
    one = {name: data for name, (_, data) in _files(raw / "out").items()}
    words = ["--dataset", "ava", "--split", "train", "--csv", str(raw / "csv"), "--videos", str(raw / "orig_videos")]
    assert main([*words, "--out", str(raw / "two"), "--workers", "2", "--quiet"]) == 0
    assert {name: data for name, (_, data) in _files(raw / "two").items()} == one


@pytest.mark.parametrize("damage", ["crop missing", "crop cut short", "crop too many", "sound missing", "other box"])
def test_what_is_not_whole_is_found_and_replaced_only_on_demand(damage, raw, capsys):
    assert _run(raw) == 0
    good = {name: data for name, (_, data) in _files(raw / "out").items()}
    folder = raw / "out" / "clips_videos" / "train" / NAMES[1] / f"{NAMES[1]}_0000_0060:2"
    crop = folder / "0.10.jpg"
    if damage == "crop missing":
        crop.unlink()
    elif damage == "crop cut short":
        crop.write_bytes(crop.read_bytes()[:40])
    elif damage == "crop too many":
        (folder / "9.99.jpg").write_bytes(crop.read_bytes())
    elif damage == "sound missing":
        (raw / "out" / "clips_audios" / "train" / NAMES[1] / f"{folder.name}.wav").unlink()
    else:
        path = raw / "csv" / "ava_activespeaker_train_v1.0" / f"{NAMES[1]}-activespeaker.csv"
        path.write_text(path.read_text().replace(",0.875000,", ",0.750000,"))
    assert _run(raw) == 1
    out = capsys.readouterr().out
    assert "5 of 6 tracks are complete" in out
    assert f"{folder}: holds something else, or not all; --overwrite replaces it" in out
    assert f"{folder.name}" not in (raw / "out" / "csv" / "train_loader.csv").read_text()
    assert len(AvaSet.dumped(raw / "out")) == 5
    assert _run(raw, "--overwrite") == 0
    again = {name: data for name, (_, data) in _files(raw / "out").items()}
    if damage != "other box":
        assert again == good
    assert len(AvaSet.dumped(raw / "out")) == 6


def test_a_folder_that_cannot_be_written_is_found_out_before_any_video_is_read(raw, monkeypatch, caplog):
    (raw / "file").write_text("in the way")
    monkeypatch.setattr("asd_explain.tools.prepare.prepare_video", lambda job: pytest.fail("read a video"))
    assert _run(raw, "--out", str(raw / "file" / "out")) == 2
    assert "cannot be written" in caplog.text
    assert _run(raw, "--out", str(raw / "file")) == 2


def test_frames_that_would_share_a_name_are_no_complete_track(raw, capsys):
    """At 120 frames a second a crop would silently stand for two frames."""
    numbered_video(raw / "orig_videos" / "trainval" / f"{NAMES[0]}.mkv", 24, 120)
    rows = [track(NAMES[0], patch, 0, 12, 120) for patch in "12"]
    exact = [replace(row, timestamps_s=np.arange(12) / 120) for row in rows]
    path = raw / "csv" / "ava_activespeaker_train_v1.0" / f"{NAMES[0]}-activespeaker.csv"
    path.write_text("".join(f"{line.rsplit(',', 2)[0]}\n" for line in list(orig_lines(exact))[1:]))
    assert _run(raw) == 1
    assert "4 of 6 tracks are complete" in capsys.readouterr().out
    assert all("less than 10 ms apart" in text for text in _report(raw)["failed"].values())
    streamed = AvaSet.streamed(path, raw / "orig_videos").load(0)
    assert np.abs(streamed.face.reshape(12, -1).mean(1) - [level(n, "1") for n in range(12)]).max() < 4


def test_crops_of_tracks_that_failed_are_not_counted(raw, monkeypatch, capsys):
    def full(path, waveform):
        raise OSError("no space left on device")

    monkeypatch.setattr(preparing, "write_wav", full)
    assert _run(raw) == 1
    assert "0 of 6 tracks are complete (0 made now, 0 kept, 0 crops written)" in capsys.readouterr().out
    (raw / "out" / "prepared" / "train.json").write_text("[]")
    monkeypatch.undo()
    assert _run(raw, "--overwrite") == 0


def test_missing_videos_are_reported_and_made_later(raw, capsys):
    video = raw / "orig_videos" / "trainval" / f"{NAMES[0]}.mkv"
    video.rename(raw / "elsewhere.mkv")
    assert _run(raw) == 1
    out = capsys.readouterr().out
    assert "4 of 6 tracks are complete" in out
    assert f"videos missing: 1 ({NAMES[0]})" in out
    assert _report(raw)["missing_videos"] == [NAMES[0]]
    assert len(AvaSet.dumped(raw / "out")) == 4
    assert AvaSet.dumped(raw / "out").load(0).entity.video_id == NAMES[1]
    (raw / "elsewhere.mkv").rename(video)
    assert _run(raw) == 0  # its own tables may grow
    assert (_report(raw)["made"], _report(raw)["kept"]) == (2, 4)
    assert len(AvaSet.dumped(raw / "out")) == 6


def test_everything_that_a_video_lacks_is_reported(raw, capsys):
    folder = raw / "orig_videos" / "trainval"
    numbered_video(folder / f"{NAMES[0]}.mkv", 24, 25, sound=False)
    numbered_video(folder / f"{NAMES[1]}.mkv", 15, 30)  # annotated to frame 19
    (folder / f"{NAMES[2]}.mkv").write_bytes(b"no video")
    assert _run(raw) == 1
    report = _report(raw)
    assert report["complete"] == 0
    assert report["videos_without_sound"] == [NAMES[0]]
    late = [0.53, 0.57, 0.6, 0.63]  # frame 15 at 0.50 s still counts as the last, 33 ms off
    assert report["tracks_outside_their_video"] == {f"{NAMES[1]}_0000_0060:{p}": late for p in "12"}
    assert all("no media file" in text for text in report["failed"].values())
    assert len(report["failed"]) == 2
    assert "tracks with frames outside their video: 2" in capsys.readouterr().out
    assert not list((raw / "out").rglob("*.jpg"))


def test_a_run_cut_off_leaves_whole_tracks_only_and_goes_on(raw, monkeypatch):
    calls = []

    def add(self, k, luma, where, original=preparing._Part.add):
        calls.append(k)
        if len(calls) == 70:
            raise KeyboardInterrupt
        return original(self, k, luma, where)

    with monkeypatch.context() as patched:
        patched.setattr(preparing._Part, "add", add)
        assert _run(raw) == 130
    names = _files(raw / "out")
    assert len([name for name in names if name.endswith(".jpg")]) == 40  # the first video's two tracks
    assert not [path for path in (raw / "out").rglob(".part*")]
    assert not (raw / "out" / "csv").exists()
    assert _run(raw) == 0
    assert (_report(raw)["made"], _report(raw)["kept"]) == (4, 2)


def test_a_killed_run_s_leftovers_are_no_tracks(raw):
    left = raw / "out" / "clips_videos" / "train" / NAMES[0] / ".part-abc"
    left.mkdir(parents=True)
    (left / "0.00.jpg").write_bytes(b"half")
    sound = raw / "out" / "clips_audios" / "train" / NAMES[0] / f"{NAMES[0]}_0000_0060:1.wav"
    assert _run(raw) == 0
    assert not left.exists()
    whole = sound.read_bytes()
    # killed between the sound's name and the crops'
    crops = raw / "out" / "clips_videos" / "train" / NAMES[0] / f"{NAMES[0]}_0000_0060:1"
    for path in crops.iterdir():
        path.unlink()
    crops.rmdir()
    assert _run(raw) == 0
    assert sound.read_bytes() == whole
    assert len(list(crops.iterdir())) == 20


def test_a_stranger_s_table_is_kept(raw, caplog):
    table = raw / "out" / "csv" / "train_orig.csv"
    table.parent.mkdir(parents=True)
    table.write_text("mine")
    assert _run(raw) == 2
    assert f"{table} exists and was not made by this command" in caplog.text
    assert table.read_text() == "mine"
    assert not (raw / "out" / "clips_videos").exists()
    assert _run(raw, "--overwrite") == 0
    assert len(AvaSet.dumped(raw / "out")) == 6


@pytest.mark.parametrize("body_name", ["val_body_orig.csv", "val_orig_body.csv"])
def test_wasd_in_place(body_name, tmp_path, capsys):
    """Annotations in the data set's own folder stay as they are; only what is missing is added."""
    video = numbered_video(tmp_path / "WASD" / "orig_videos" / "a-b_c-d_e-f_30-60.mkv", 20, 15)
    rows = [track(video.stem, patch, 0, 15, 15, body=True) for patch in "12"]
    orig = write_orig(tmp_path / "WASD" / "csv" / "val_orig.csv", rows)
    body = write_orig(tmp_path / "WASD" / "csv" / body_name, rows, body=True)
    before = orig.read_bytes(), body.read_bytes()
    words = ["--dataset", "wasd", "--split", "val", "--csv", str(orig.parent), "--videos", str(tmp_path / "WASD")]
    words += ["--out", str(tmp_path / "WASD"), "--quiet", "--workers", "1", "--backend", "pyav"]
    assert main(words) == 0
    assert "(2 made now, 0 kept, 60 crops written)" in capsys.readouterr().out
    assert (orig.read_bytes(), body.read_bytes()) == before
    assert (tmp_path / "WASD" / "csv" / "val_body_loader.csv").is_file()
    clip = WasdSet.dumped(tmp_path / "WASD", "val").load(1)
    assert clip.body.shape == (15, 112, 112)
    assert main(words) == 0
    faces_only = [*words, "--no-body"]
    faces_only[faces_only.index("--out") + 1] = str(tmp_path / "faces")
    assert main(faces_only) == 0
    assert not (tmp_path / "faces" / "clips_videos_body").exists()


def test_tracks_without_all_bodies_are_reported(tmp_path):
    video = numbered_video(tmp_path / "v" / "a-b_c-d_e-f_30-60.mkv", 12)
    rows = [track(video.stem, patch, 0, 10, body=True) for patch in "12"]
    write_orig(tmp_path / "csv" / "val_orig.csv", rows)
    path = write_orig(tmp_path / "csv" / "val_body_orig.csv", rows, body=True)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:3] + lines[4:]) + "\n")
    words = ["--dataset", "wasd", "--split", "val", "--csv", str(tmp_path / "csv"), "--videos", str(tmp_path / "v")]
    assert main([*words, "--out", str(tmp_path / "out"), "--quiet", "--workers", "1"]) == 1
    report = json.loads((tmp_path / "out" / "prepared" / "val.json").read_text())
    assert report["tracks_without_body_boxes"] == {rows[0].entity_id: [0.08]}
    assert report["complete"] == 1


def test_columbia(tmp_path):
    video = numbered_video(tmp_path / "panel.mkv", 40, 30)
    (tmp_path / "fusion").mkdir()
    (tmp_path / "fusion" / "bell.txt").write_text("".join(f"{n}\t6\t8\t10\t{n % 2}\n" for n in range(3, 30)))
    words = ["--dataset", "columbia", "--csv", str(tmp_path / "fusion"), "--videos", str(video)]
    assert main([*words, "--out", str(tmp_path / "out"), "--quiet"]) == 0
    (row,) = AvaSet.dumped(tmp_path / "out", "test").rows
    assert row.entity_id == "panel_000003_000029:bell"
    assert row.labels.tolist() == [n % 2 for n in range(3, 30)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--csv": "nowhere"}, "no such annotation csv or folder"),
        ({"--videos": "nowhere"}, "no such folder of videos"),
        ({"--split": "test"}, "no annotations of test"),
        ({"--workers": "-1"}, "--workers -1 is negative"),
        ({"--split": "../up"}, "name each split once"),
    ],
)
def test_wrong_options_end_in_one_line(changes, message, raw, caplog):
    words = {
        **{"--dataset": "ava", "--split": "train", "--csv": str(raw / "csv"), "--videos": str(raw / "orig_videos")},
        **{"--out": str(raw / "out"), **changes},
    }
    assert main([word for pair in words.items() for word in pair]) == 2
    assert message in caplog.text
    assert not (raw / "out").exists()
