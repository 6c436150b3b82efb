"""AVA, WASD and Columbia from a dump and straight from videos, on pictures and sound that say what they are."""

from __future__ import annotations

import pickle
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from data_support import BODY, RATE, SIZE, level, noise, numbered_video, track, write_orig
from scipy.io import wavfile
from torch.utils.data import DataLoader, Dataset

from asd_explain.datasets.annotations import loader_lines
from asd_explain.datasets.ava import AvaSet
from asd_explain.datasets.columbia import FPS, ColumbiaSet, person_of, read_people
from asd_explain.datasets.dumped import as_input, fit_span, pixel_box, read_wav
from asd_explain.datasets.entities import DataError, EntityRow
from asd_explain.datasets.preparing import VideoJob, prepare_video
from asd_explain.datasets.streamed import find_videos, frames_of, span_of
from asd_explain.datasets.wasd import WasdSet
from asd_explain.errors import OptionError
from asd_explain.media.audio import Audio

RATES = (10, 15, Fraction(24000, 1001), 25, Fraction(30000, 1001), 60)
JPEG = 3.0  # levels; the patches are flat


def _levels(crops: np.ndarray) -> np.ndarray:
    """Gray level of the middle of each crop, the border left out."""
    return crops[:, 8:-8, 8:-8].astype(np.float64).mean((1, 2))


@pytest.mark.parametrize("backend", ["pyav", "auto"])
@pytest.mark.parametrize("fps", RATES, ids=str)
def test_streamed_tracks_show_and_sound_the_annotated_frames(fps, backend, tmp_path):
    video = numbered_video(tmp_path / "v" / "-a_b-c_d-e_.mkv", 40, fps)
    rows = [
        track(video.stem, "1", 5, 30, fps),
        track(video.stem, "2", 0, 40, fps),
        track(video.stem, "1", 37, 1, fps, "a_b"),
    ]
    entities = AvaSet.streamed(write_orig(tmp_path / "train_orig.csv", rows), tmp_path / "v", backend=backend)
    assert len(entities) == 3
    sound = noise(40 / float(fps)).astype(np.float32) / 32768
    for i, (row, patch, first) in enumerate(zip(rows, "121", (5, 0, 37), strict=True)):
        clip = entities.load(i)
        assert clip.entity is entities.rows[i]
        assert clip.face.shape == (len(row), 112, 112)
        assert clip.face.dtype == np.uint8
        assert clip.body is None
        expected = [level(first + k, patch) for k in range(len(row))]
        assert np.abs(_levels(clip.face) - expected).max() < JPEG
        assert clip.labels.tolist() == row.labels.tolist()
        assert np.array_equal(clip.entity.timestamps_s, row.timestamps_s)
        start = int(row.timestamps_s[0] * RATE)
        stop = int(row.timestamps_s[-1] * RATE) if len(row) > 1 else start + round(RATE / clip.fps)
        assert np.abs(clip.waveform[: len(sound) - start] - sound[start:stop]).max() < 1e-4
        assert len(clip.waveform) == stop - start
        if len(row) > 1:
            assert clip.fps == pytest.approx(float(fps), rel=0.02)


def _dump(root: Path, rows: list[EntityRow], video: Path | None, split: str = "train", body: bool = False) -> None:
    """A dump made by ``prepare_video``, with its tables."""
    report = prepare_video(VideoJob(rows[0].video_id, video, tuple(rows), root, split, with_body=body))
    assert report.made == [row.entity_id for row in sorted(rows, key=lambda r: r.timestamps_s[-1])]
    write_orig(root / "csv" / f"{split}_orig.csv", rows)
    (root / "csv" / f"{split}_loader.csv").write_text("".join(f"{line}\n" for line in loader_lines(rows)))
    if body:
        write_orig(root / "csv" / f"{split}_body_orig.csv", rows, body=True)


@pytest.fixture
def dump(tmp_path):
    video = numbered_video(tmp_path / "videos" / "w-x_y_z_abc_30-60.mkv", 30, 24)
    rows = [track(video.stem, "1", 2, 20, 24, body=True), track(video.stem, "2", 0, 29, 24, body=True)]
    _dump(tmp_path / "WASD", rows, video, "val", body=True)
    return tmp_path / "WASD"


def test_dump_equals_stream(dump):
    dumped = WasdSet.dumped(dump, "val")
    streamed = WasdSet.streamed(dump / "csv", dump.parent / "videos", "val")
    assert [row.entity_id for row in dumped.rows] == [row.entity_id for row in streamed.rows]
    assert dumped.with_body
    for i in range(2):
        one, other = dumped.load(i), streamed.load(i)
        for entities, clip in ((dumped, one), (streamed, other), (streamed.select(lambda _: True), other)):
            assert np.array_equal(entities.sound(i), clip.waveform)
        assert np.array_equal(one.waveform, other.waveform)
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.entity.timestamps_s, other.entity.timestamps_s)
        assert np.array_equal(one.entity.boxes, other.entity.boxes)
        assert np.array_equal(one.entity.body_boxes, other.entity.body_boxes)
        assert one.fps == 24  # declared in the loader csv
        assert other.fps == pytest.approx(24, rel=0.02)  # measured
        for a, b in ((one.face, other.face), (one.body, other.body)):
            assert np.abs(a.astype(int) - b).mean() < JPEG
        assert one.body.std() > 10  # the whole body box, not the flat face


def test_dump_is_what_the_published_loaders_read(dump):
    """Their steps, from their code: folders by name, crops by glob in order of time, BGR to gray, resize; int16 wav."""
    entities = WasdSet.dumped(dump, "val")
    for i, line in enumerate((dump / "csv" / "val_loader.csv").read_text().splitlines()):
        name, count, fps, labels, _ = line.split("\t")
        clip = entities.load(i)
        folder = dump / "clips_videos" / "val" / "_".join(name.split("_")[:-2]) / name
        paths = sorted(folder.glob("*.jpg"), key=lambda path: float(path.name[:-4]))
        assert len(paths) == int(count) == len(clip)
        faces = [cv2.resize(cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2GRAY), (112, 112)) for p in paths]
        assert np.array_equal(np.array(faces), clip.face)
        rate, sound = wavfile.read(dump / "clips_audios" / "val" / "_".join(name.split("_")[:-2]) / f"{name}.wav")
        assert rate == 16000
        assert np.array_equal(sound, np.rint(clip.waveform * 32768))
        assert [int(v) for v in labels.strip("[]").split(",")] == clip.labels.tolist()
        assert float(fps) == clip.fps


@pytest.mark.parametrize("layout", ["first 11", "flat", "no colon", "colour"])
def test_other_layouts_of_a_dump(layout, dump):
    reference = WasdSet.dumped(dump, "val").load(0)
    name = reference.entity.entity_id
    for kind, suffix in (("clips_videos", ""), ("clips_videos_body", ""), ("clips_audios", ".wav")):
        folder = dump / kind / "val"
        old = folder / reference.entity.video_id / f"{name}{suffix}"
        if layout == "first 11":
            new = folder / name[:11] / old.name
        elif layout == "no colon":
            new = old.with_name(old.name.replace(":", "_"))
        elif layout == "flat":
            new = (dump / "clip_audio" / "val" if suffix else folder) / old.name
        else:
            for path in old.glob("*.jpg"):
                cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_COLOR), [cv2.IMWRITE_JPEG_QUALITY, 100])
            continue
        new.parent.mkdir(parents=True, exist_ok=True)
        old.rename(new)
    clip = WasdSet.dumped(dump, "val").load(0)
    assert np.abs(clip.face.astype(int) - reference.face).max() <= (1 if layout == "colour" else 0)
    assert np.array_equal(clip.waveform, reference.waveform)


def test_loader_csv_alone_is_enough(dump):
    for path in (dump / "csv").glob("*_orig.csv"):
        path.unlink()
    entities = WasdSet.dumped(dump, "val")
    first = entities.rows[0]
    assert (first.video_id, first.boxes, first.label_names) == ("w-x_y_z_abc_30-60", None, None)
    assert first.timestamps_s.tolist() == np.round((2 + np.arange(20)) / 24, 2).tolist()
    assert entities.load(0).body.shape == (20, 112, 112)
    next((dump / "clips_videos" / "val" / first.video_id / first.entity_id).glob("*.jpg")).unlink()
    with pytest.raises(DataError, match="19 crops where 20 labels are"):
        WasdSet.dumped(dump, "val")


def test_nothing_prepared_is_said_in_one_line(tmp_path):
    with pytest.raises(DataError, match=r"neither train_loader.csv nor train_orig.csv"):
        AvaSet.dumped(tmp_path, "train")


@pytest.mark.parametrize("kind", ["face", "body", "sound"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage"])
def test_what_a_dump_lacks_is_an_error_with_its_name(kind, damage, dump):
    entities = WasdSet.dumped(dump, "val")
    row = entities.rows[1]
    folder = {"face": "clips_videos", "body": "clips_videos_body", "sound": "clips_audios"}[kind]
    path = dump / folder / "val" / row.video_id / row.entity_id
    path = path.with_name(f"{path.name}.wav") if kind == "sound" else path / f"{row.timestamps_s[3]:.2f}.jpg"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else b"no picture and no sound")
    with pytest.raises(DataError) as caught:
        entities.load(1)
    assert str(path) in str(caught.value)
    entities.load(0)
    if kind == "body":
        WasdSet.dumped(dump, "val", with_body=False).load(1)


@pytest.mark.parametrize(
    ("rate", "samples", "message"),
    [
        (16000, np.zeros(100, np.int16), "0.01 s of sound"),
        (44100, np.zeros(40000, np.int16), "44100 Hz"),
        (16000, np.zeros((40000, 2), np.int16), "mono"),
        (16000, np.zeros(40000, np.float32), "float32"),
    ],
)
def test_wrong_sound_in_a_dump(rate, samples, message, dump):
    entities = WasdSet.dumped(dump, "val")
    path = dump / "clips_audios" / "val" / entities.rows[0].video_id / f"{entities.rows[0].entity_id}.wav"
    wavfile.write(path, rate, samples)
    with pytest.raises(DataError, match=message) as caught:
        entities.load(0)
    assert str(path) in str(caught.value)


def test_sound_that_was_cut_short_is_no_silence_however_short_the_track(dump):
    """Up to half a second may be missing at a track's end: a short track would lose all of its sound unnoticed."""
    entities = WasdSet.dumped(dump, "val").select(lambda row: len(row) > 1)
    row = entities.rows[0]
    path = dump / "clips_audios" / "val" / row.video_id / f"{row.entity_id}.wav"
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with pytest.raises(DataError, match="Reached EOF prematurely") as caught:
        entities.load(0)
    assert str(path) in str(caught.value)
    wavfile.write(path, 16000, np.zeros(0, np.int16))
    short = EntityRow("e", "v", np.array([0.0, 0.2]), np.zeros(2, np.int8), 5)
    with pytest.raises(DataError, match=r"0\.00 s of sound for e, which lasts 0\.20 s"):
        fit_span(read_wav(path).astype(np.float32), short, path)
    path.write_bytes(whole)
    entities.load(0)


def test_what_videos_lack_is_an_error_with_their_name(tmp_path):
    video = numbered_video(tmp_path / "v" / "video.mkv", 30)
    mute = numbered_video(tmp_path / "v" / "mute.mkv", 10, sound=False)
    rows = [
        track("video", "1", 0, 20, body=True),
        track("video", "1", 0, 10, span="holes", body=True),
        track("video", "2", 25, 20, span="late", body=True),
        track("mute", "1", 0, 5, body=True),
        track("gone", "1", 0, 5, body=True),
    ]
    orig = write_orig(tmp_path / "csv" / "val_orig.csv", rows)
    with pytest.raises(DataError, match="no annotations of val"):
        WasdSet.streamed(orig, tmp_path / "v", "val")
    write_orig(tmp_path / "csv" / "val_orig_body.csv", [r for r in rows if r is not rows[1]], body=True)
    entities = WasdSet.streamed(orig, tmp_path / "v", "val")
    assert entities.load(0).body.shape == (20, 112, 112)
    for i, message in (
        (1, f"{video}: video_holes:1 has no body box at 0.00 s"),
        (2, f"{video}: no frame at 1.24 s"),
        (3, f"{mute}: it has no sound"),
        (4, "no video named gone for gone_0000_0060:1"),
    ):
        with pytest.raises(DataError) as caught:
            entities.load(i)
        assert message in str(caught.value)
    assert len(WasdSet.streamed(orig, tmp_path / "v", "val", with_body=False).load(1)) == 10
    video.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"video.mkv.*needed for video_0000_0060:1"):
        WasdSet.streamed(orig, tmp_path / "v", "val").load(0)


def test_sets_travel_to_workers(dump):
    for entities in (
        WasdSet.dumped(dump, "val"),
        WasdSet.streamed(dump / "csv", dump.parent / "videos", "val"),
        WasdSet.streamed(dump / "csv", dump.parent / "videos", "val").select(lambda row: row.entity_id.endswith(":2")),
    ):
        before = entities.load(len(entities) - 1)
        again = pickle.loads(pickle.dumps(entities)).load(len(entities) - 1)
        assert np.array_equal(before.face, again.face)
        assert np.array_equal(before.waveform, again.waveform)


class _Crops(Dataset):
    """What a training makes of a set."""

    def __init__(self, entities):
        self.entities = entities

    def __len__(self):
        return len(self.entities)

    def __getitem__(self, index):
        return torch.from_numpy(self.entities.load(index).face)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_forked_workers_do_not_use_the_parent_s_decoders(dump):
    entities = WasdSet.streamed(dump / "csv", dump.parent / "videos", "val")
    here = [entities.load(i).face for i in range(2)]  # opens the video here first
    loader = DataLoader(_Crops(entities), batch_size=None, num_workers=1, timeout=60, multiprocessing_context="fork")
    there = list(loader)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(here, there, strict=True))


def test_subsets(dump):
    whole = WasdSet.dumped(dump, "val")
    some = whole.select(lambda row: row.entity_id.endswith(":2"))
    assert [row.entity_id for row in some.rows] == [whole.rows[1].entity_id]
    assert np.array_equal(some.load(0).face, whole.load(1).face)
    assert some.with_body
    with pytest.raises(OptionError):
        type(some)(whole, [2])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0.126, 0.251, 0.374, 0.749), (12, 16, 35, 47)),  # rounded down, as the field does
        ((-0.1, -0.1, 1.1, 1.1), (0, 0, 96, 64)),
        ((0.5, 0.5, 0.5001, 0.5001), (48, 32, 49, 33)),
        ((1.0, 1.0, 1.2, 1.2), (95, 63, 96, 64)),
    ],
)
def test_boxes_in_pixels(box, expected):
    assert pixel_box(np.array(box), *SIZE) == expected
    with pytest.raises(DataError):
        pixel_box(np.array([np.nan, 0, 1, 1]), *SIZE)


def test_as_input_matches_the_published_resize():
    picture = np.random.default_rng(0).integers(0, 256, (37, 91, 3), np.uint8)
    expected = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), (112, 112))
    assert np.array_equal(as_input(picture), expected)


def test_frames_of_times_off_the_clip():
    times_s = np.arange(10) / 25 + 0.5
    found = frames_of(times_s, np.array([0.4, 0.46, 0.5, 0.535, 0.86, 0.9, 1.0]), 25)
    assert found.tolist() == [-1, 0, 0, 1, 9, 9, -1]


@pytest.mark.parametrize("start_s", [0.0, 0.25, -0.1])
def test_sound_is_cut_on_the_video_s_clock(start_s, tmp_path):
    samples = noise(3.0).astype(np.float32) / 32768
    audio = Audio(samples, start_s)
    row = EntityRow("e", "v", np.array([1.0, 1.5, 2.0]), np.zeros(3, np.int8), 2)
    first = round((1.0 - start_s) * RATE)
    assert np.array_equal(span_of(audio, row, tmp_path), samples[first : first + RATE])


def test_only_a_little_sound_may_be_missing_at_the_ends(tmp_path):
    samples = noise(3.0).astype(np.float32) / 32768

    def row(first_s, last_s):
        return EntityRow("e", "v", np.array([first_s, last_s]), np.zeros(2, np.int8), 2)

    late = span_of(Audio(samples, 0.25), row(0.0, 1.0), tmp_path)
    assert np.array_equal(late, np.concatenate([np.zeros(4000, np.float32), samples[:12000]]))
    early = span_of(Audio(samples, 0.0), row(2.0, 3.25), tmp_path)
    assert np.array_equal(early, np.concatenate([samples[32000:], np.zeros(4000, np.float32)]))
    with pytest.raises(DataError, match=r"its sound begins at 0\.75 s, after e"):
        span_of(Audio(samples, 0.75), row(0.0, 1.0), tmp_path)
    for first_s, last_s, there in ((2.0, 3.75, "1.00"), (3.5, 5.0, "0.00")):
        with pytest.raises(DataError, match=f"{there} s of sound for e, which lasts"):
            span_of(Audio(samples, 0.0), row(first_s, last_s), tmp_path)
    with pytest.raises(DataError, match="it has no sound, which e needs"):
        span_of(None, row(0.0, 1.0), tmp_path)


def test_find_videos(tmp_path):
    for name in ("b/x.mp4", "a/x.MKV", "a/y.webm", "a/.hidden.mp4", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_videos(tmp_path) == {"x": tmp_path / "a" / "x.MKV", "y": tmp_path / "a" / "y.webm"}
    with pytest.raises(DataError, match="no such folder"):
        find_videos(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no video in it"):
        find_videos(tmp_path / "empty")


def test_columbia(tmp_path):
    video = numbered_video(tmp_path / "columbia.mkv", 60, Fraction(30000, 1001))
    labels = tmp_path / "fusion"
    labels.mkdir()
    # Patch 1 is x 12..36, y 16..48 px; labels are squares at half the size.
    lines = [(n, 6, 8, 10, n % 2) for n in (3, 4, 5, 7)] + [(n, 6, 8, 10, 1) for n in range(30, 41)]
    text = "\n".join("\t".join(map(str, line)) for line in [*lines, (4, 0, 0, 1, 1)])
    (labels / "bell.txt").write_text(text + "\n")
    (labels / "sick.txt").write_text("20\t25\t5\t8\t0\n")
    entities = ColumbiaSet.streamed(labels, video)
    assert [person_of(row) for row in entities.rows] == ["bell", "bell", "sick"]
    first, second, third = (entities.load(i) for i in range(3))
    assert first.labels.tolist() == [1, 0, 1, 1]
    assert np.allclose(first.entity.timestamps_s, np.array([3, 4, 5, 7]) / FPS)
    assert first.entity.boxes[0].tolist() == [12 / 96, 16 / 64, 32 / 96, 36 / 64]
    assert np.abs(_levels(first.face) - [level(n, "1") for n in (3, 4, 5, 7)]).max() < JPEG
    assert np.abs(_levels(second.face) - [level(n, "1") for n in range(30, 41)]).max() < JPEG
    assert (len(third), third.fps) == (1, FPS)
    (labels / "sick.txt").write_text("20\t25\t5\t8\tyes\n")
    with pytest.raises(DataError, match=r"sick.txt, line 1"):
        ColumbiaSet.streamed(labels, video)
    (labels / "sick.txt").write_text("")
    with pytest.raises(DataError, match=r"sick.txt: no label"):
        ColumbiaSet.streamed(labels, video)
    (labels / "sick.txt").write_text("20\t25\t5\t99999999999999999999\t1\n")
    with pytest.raises(DataError, match=r"sick.txt, line 1"):
        ColumbiaSet.streamed(labels, video)
    (labels / "sick.txt").write_bytes(b"\xe9")
    with pytest.raises(DataError, match=r"sick.txt is no label file: it is not UTF-8"):
        ColumbiaSet.streamed(labels, video)
    (labels / "sick.txt").write_bytes(b"\xef\xbb\xbf20\t25\t5\t8\t0\n")
    assert len(ColumbiaSet.streamed(labels, video)) == 3
    with pytest.raises(DataError, match="no label files"):
        read_people(tmp_path, "v", 96, 64)


def test_body_box_is_cut_whole(dump):
    clip = WasdSet.dumped(dump, "val").load(0)
    x1, y1, x2, y2 = pixel_box(np.array(BODY), *SIZE)
    picture = np.full((y2 - y1, x2 - x1), 10, np.uint8)
    picture[16 - y1 : 48 - y1, 12 - x1 : 36 - x1] = level(2, "1")
    assert np.abs(clip.body[0].astype(int) - as_input(picture)).mean() < JPEG
