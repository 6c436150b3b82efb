"""Tables of AVA and WASD: every dialect, and what is wrong with one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_explain.datasets import annotations
from asd_explain.datasets.annotations import (
    declare_rates,
    find_table,
    loader_lines,
    orig_lines,
    read_loader,
    read_tracks,
    video_of_entity,
)
from asd_explain.datasets.entities import DataError, EntityRow, nominal_fps, sample_span

ORIGINAL = """\
-a_B-c_D-e_,902.12,0.1,0.2,0.3,0.400001,NOT_SPEAKING,-a_B-c_D-e__0900_0960:1
-a_B-c_D-e_,902.16,0.11,0.2,0.31,0.4,SPEAKING_AUDIBLE,-a_B-c_D-e__0900_0960:1
-a_B-c_D-e_,902.2,0.12,0.2,0.32,0.4,SPEAKING_NOT_AUDIBLE,-a_B-c_D-e__0900_0960:1
xxxxxxxxxxx,0.0,0.5,0.5,1.0,1.0,SPEAKING_AUDIBLE,xxxxxxxxxxx_0000_0060:2
"""
HEADER = "video_id,frame_timestamp,entity_box_x1,entity_box_y1,entity_box_x2,entity_box_y2,label,entity_id"


def _same(a: list[EntityRow], b: list[EntityRow]) -> None:
    assert [row.entity_id for row in a] == [row.entity_id for row in b]
    for one, other in zip(a, b, strict=True):
        assert one.video_id == other.video_id
        assert one.label_names == other.label_names
        assert np.array_equal(one.timestamps_s, other.timestamps_s)
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.boxes, other.boxes)


@pytest.fixture
def original(tmp_path):
    path = tmp_path / "ava_activespeaker_train_v1.0.csv"
    path.write_text(ORIGINAL)
    return path


def test_original_dialect(original):
    first, second = read_tracks(original)
    assert (first.entity_id, first.video_id) == ("-a_B-c_D-e__0900_0960:1", "-a_B-c_D-e_")
    assert first.timestamps_s.tolist() == [902.12, 902.16, 902.2]
    assert first.labels.dtype == np.int8
    assert first.labels.tolist() == [0, 1, 0]
    assert first.label_names == ("NOT_SPEAKING", "SPEAKING_AUDIBLE", "SPEAKING_NOT_AUDIBLE")
    assert first.boxes[0].tolist() == [0.1, 0.2, 0.3, 0.400001]
    assert first.fps == pytest.approx(25)
    assert (len(second), second.fps, second.video_id) == (1, 25.0, "xxxxxxxxxxx")


def test_dialects_agree(original, tmp_path):
    tracks = read_tracks(original)
    talknet = tmp_path / "train_orig.csv"
    talknet.write_text("\r\n".join(orig_lines(tracks)) + "\r\n", encoding="utf-8-sig")
    _same(read_tracks(talknet), tracks)
    assert talknet.read_text(encoding="utf-8-sig").splitlines()[0] == f"{HEADER},label_id,instance_id"
    folder = tmp_path / "csv" / "ava_activespeaker_train_v1.0"
    folder.mkdir(parents=True)
    for k, lines in enumerate((ORIGINAL.splitlines()[:3], ORIGINAL.splitlines()[3:])):
        (folder / f"{k}-activespeaker.csv").write_text("\n".join(lines) + "\n")
    _same(read_tracks(find_table(tmp_path / "csv", "train")), tracks)
    columns = tmp_path / "columns.csv"
    shuffled = [line.split(",")[::-1] for line in [HEADER, *ORIGINAL.splitlines()]]
    columns.write_text("\n".join(",".join(cells) for cells in shuffled))
    _same(read_tracks(columns), tracks)


def test_instances_count_runs_of_one_label(original):
    lines = [line.split(",") for line in list(orig_lines(read_tracks(original)))[1:]]
    assert [cells[8] for cells in lines] == ["0", "1", "2", "1"]
    assert [cells[9].rpartition(":")[2] for cells in lines] == ["0", "1", "2", "0"]


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (2, "v_1,nan,0,0,1,1,NOT_SPEAKING,e", "line 2: frame_timestamp is 'nan'"),
        (2, "v_1,soon,0,0,1,1,NOT_SPEAKING,e", "line 2: frame_timestamp is 'soon'"),
        (3, "v_1,-1,0,0,1,1,NOT_SPEAKING,e", "line 3: frame_timestamp"),
        (2, "v_1,1.0,0,0,640,1,NOT_SPEAKING,e", "line 2: entity_box_x2 is '640'; are these pixels"),
        (2, "v_1,1.0,0.5,0,0.5,1,NOT_SPEAKING,e", "line 2: a box without area"),
        (4, "v_1,1.0,0,0,1,1,TALKING,e", "line 4: label 'TALKING'"),
        (2, "v_1,1.0,0,0,1,1,NOT_SPEAKING", "line 2: 7 columns instead of 8"),
        (2, "../up,1.0,0,0,1,1,NOT_SPEAKING,e", "line 2: video_id '../up' cannot name a file"),
        (2, "v_1,1.0,0,0,1,1,NOT_SPEAKING,a/b", "line 2: entity_id 'a/b' cannot name a file"),
        (2, "v_1,902.16,0,0,1,1,NOT_SPEAKING,-a_B-c_D-e__0900_0960:1", "twice at one time"),
        (2, "v_1,903,0,0,1,1,NOT_SPEAKING,-a_B-c_D-e__0900_0960:1", "in two videos"),
    ],
)
def test_malformed_rows_are_named(line, text, message, tmp_path):
    path = tmp_path / "bad.csv"
    lines = ORIGINAL.splitlines()
    lines.insert(line - 1, text)
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message) as caught:
        read_tracks(path)
    assert str(path) in str(caught.value)
    with_header = tmp_path / "header.csv"
    with_header.write_text("\n".join([HEADER, *lines]))
    with pytest.raises(DataError, match=message.replace(f"line {line}", f"line {line + 1}")):
        read_tracks(with_header)


def test_tables_longer_than_what_is_read_at_once(original, tmp_path, monkeypatch):
    whole = read_tracks(original)
    monkeypatch.setattr(annotations, "_CHUNK", 2)
    _same(read_tracks(original), whole)
    for head, line in (([], 4), ([HEADER], 5)):
        path = tmp_path / "bad.csv"
        path.write_text("\n".join([*head, *ORIGINAL.splitlines()[:3], "v,1.0,0,0,1,1,TALKING,e"]))
        with pytest.raises(DataError, match=f"line {line}: label 'TALKING'"):
            read_tracks(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no annotation in it"),
        (HEADER + "\n", "no annotation in it"),
        ("a,b,c\n1,2,3\n", "3 columns without a header"),
        (HEADER.replace(",label", "") + "\n", "its header lacks label"),
        (HEADER + ",score\nv,1,0,0,1,1,SPEAKING_AUDIBLE,e,0.5\n", "holds predictions"),
        (HEADER + ",label_id\nv,1,0,0,1,1,SPEAKING_AUDIBLE,e,0\n", "line 2: label SPEAKING_AUDIBLE has label_id 0"),
        ("\x00\xff", "columns"),
    ],
)
def test_malformed_files_are_named(text, message, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_tracks(path)


def test_missing_tables(tmp_path):
    with pytest.raises(DataError, match="no such annotation csv"):
        read_tracks(tmp_path / "none.csv")
    with pytest.raises(DataError, match="no such annotation csv or folder"):
        find_table(tmp_path / "none", "train")
    with pytest.raises(DataError, match=r"no annotations of val; looked for .*val_orig.csv"):
        find_table(tmp_path, "val")


def test_official_annotations_win_over_what_was_made_of_them(tmp_path):
    (tmp_path / "train_orig.csv").touch()
    assert find_table(tmp_path, "train") == [tmp_path / "train_orig.csv"]
    official = tmp_path / "ava_activespeaker_train_v1.0.csv"
    official.touch()
    assert find_table(tmp_path, "train") == [official]


@pytest.mark.parametrize("name", ["train_body_orig.csv", "train_orig_body.csv"])
def test_bodies_under_both_names(name, original, tmp_path):
    text = ORIGINAL.replace("0.1,0.2,0.3,0.400001", "0,0.1,0.5,0.9").splitlines()
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / name).write_text("\n".join([text[3], text[0], text[2]]))
    (body,) = find_table(tmp_path / "csv", "train", body=True)
    first, second = read_tracks(original, body)
    assert first.body_boxes[0].tolist() == [0, 0.1, 0.5, 0.9]
    assert np.isnan(first.body_boxes[1]).all()  # its row is not there
    assert first.body_boxes[2].tolist() == [0.12, 0.2, 0.32, 0.4]
    assert second.body_boxes.tolist() == [[0.5, 0.5, 1.0, 1.0]]


def test_bodies_of_another_split_are_refused(original, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("v,0.0,0,0,1,1,NOT_SPEAKING,somebody\n")
    with pytest.raises(DataError, match="none of its entities is among the faces"):
        read_tracks(original, other)


_SHARES = st.floats(0, 0.49, allow_nan=False)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from([10, 15, 23.976, 25, 29.97, 60]), _SHARES, _SHARES),
        min_size=1,
        max_size=5,
    ),
    st.randoms(use_true_random=False),
)
def test_tracks_survive_the_table_in_any_order_of_rows(tmp_path_factory, tracks, random):
    rows = []
    for k, (count, fps, x, y) in enumerate(tracks):
        names = tuple(random.choice(("NOT_SPEAKING", "SPEAKING_AUDIBLE", "SPEAKING_NOT_AUDIBLE")) for _ in range(count))
        labels = np.array([name == "SPEAKING_AUDIBLE" for name in names], np.int8)
        times_s = np.round(900 + np.arange(count) / fps, 2)
        boxes = np.tile([x, y, x + 0.5, y + 0.50000012345], (count, 1))
        rows.append(EntityRow(f"v{k}_0_1:{k}", f"v{k}", times_s, labels, fps, boxes, label_names=names))
    path = tmp_path_factory.mktemp("orig") / "train_orig.csv"
    header, *lines = orig_lines(rows)
    random.shuffle(lines)
    path.write_text("\n".join([header, *lines]))
    by_name = {row.entity_id: row for row in read_tracks(path)}
    _same([by_name[row.entity_id] for row in rows], rows)
    loader = path.with_name("train_loader.csv")
    loader.write_text("\n".join(loader_lines(rows)))
    for row, line in zip(rows, read_loader(loader), strict=True):
        assert line.entity_id == row.entity_id
        assert line.fps == pytest.approx(row.fps, rel=1e-5)
        assert line.labels.tolist() == row.labels.tolist()
    again = declare_rates(list(by_name.values()), read_loader(loader), loader)
    assert [row.entity_id for row in again] == [row.entity_id for row in rows]


def test_loader_lines_are_what_talknet_parses(original):
    # TalkNet's loaders: split at tabs; frames, fps, labels between brackets at commas, and an int last.
    for row, line in zip(read_tracks(original), loader_lines(read_tracks(original)), strict=True):
        cells = line.split("\t")
        assert cells[0] == row.entity_id
        assert (int(cells[1]), float(cells[2])) == (len(row), pytest.approx(row.fps, rel=1e-5))
        assert [int(v) for v in cells[3].replace("[", "").replace("]", "").split(",")] == row.labels.tolist()
        assert int(cells[-1]) >= 0


@pytest.mark.parametrize("labels", ["[0, 1, 2]", "[0,1,2]", "[0 1 2]"])
def test_loader_labels(labels, tmp_path):
    path = tmp_path / "train_loader.csv"
    path.write_text(f"e_0_1:1\t3\t23.98\t{labels}\t7\n\n")
    (line,) = read_loader(path)
    assert line.labels.tolist() == [0, 1, 0]
    assert line.fps == 23.98


@pytest.mark.parametrize(
    "text", ["e\t3\t25\t[0, 1]\t1", "e\t2\t0\t[0, 1]\t1", "e\t2\t25\t[0, 3]\t1", "e,2,25", "e\t1\t25\t[]"]
)
def test_malformed_loader_lines_are_named(text, tmp_path):
    path = tmp_path / "train_loader.csv"
    path.write_text(f"e_0_1:1\t1\t25\t[1]\t7\n{text}\n")
    with pytest.raises(DataError, match="line 2"):
        read_loader(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"e_0_1:1\t1\t25\t[inf]\t7\n", "line 1"),
        (b"e_0_1:1\t1\t25\t[99999999999999999999]\t7\n", "line 1"),
        (b"e_0_1:1\t1\tinf\t[1]\t7\n", "line 1: .* at inf fps"),
        (b"e_0_1:1\t1\t25\t[1]\t7\n\ne_0_1:1\t1\t25\t[1]\t7\n", "line 3: e_0_1:1 is there twice"),
        (b"\n", "lists no track"),
        (b"\xe9_0_1:1\t1\t25\t[1]\t7\n", "is no loader csv: it is not UTF-8"),
    ],
)
def test_loader_files_that_cannot_be_used_are_named(data, message, tmp_path):
    path = tmp_path / "train_loader.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"train_loader\.csv.*{message}"):
        read_loader(path)


def test_a_byte_order_mark_is_no_part_of_a_loader_s_first_track(tmp_path):
    path = tmp_path / "train_loader.csv"
    path.write_bytes(b"\xef\xbb\xbfe_0_1:1\t1\t25\t[1]\t7\n")
    assert [line.entity_id for line in read_loader(path)] == ["e_0_1:1"]


def test_loader_that_disagrees_is_refused(original, tmp_path):
    tracks, path = read_tracks(original), tmp_path / "train_loader.csv"
    path.write_text("xxxxxxxxxxx_0000_0060:2\t1\t25\t[0]\t1\n")
    with pytest.raises(DataError, match="other labels"):
        declare_rates(tracks, read_loader(path), path)
    path.write_text("nobody\t1\t25\t[0]\t1\n")
    with pytest.raises(DataError, match="nobody is not in the annotations"):
        declare_rates(tracks, read_loader(path), path)


_ID = st.text("abcXYZ019-_", min_size=11, max_size=11)


@settings(max_examples=200, deadline=None)
@given(_ID, st.integers(0, 9999), st.integers(1, 99), st.booleans())
def test_video_of_entity_against_the_published_cuts(name, start, number, wasd):
    video = f"{name}_{start}-{start + 30}" if wasd else name
    entity = f"{video}_{start:04d}_{start + 60:04d}:{number}"
    assert video_of_entity(entity, {video, "other"}) == video
    assert video_of_entity(entity) == "_".join(entity.split("_")[:-2])  # BIAS
    if not wasd:
        assert video_of_entity(entity, {video}) == entity[:11]  # TalkNet


def test_video_of_entity_takes_the_longest_known():
    assert video_of_entity("ab_cd_0000_0060:1", {"ab", "ab_cd"}) == "ab_cd"
    assert video_of_entity("clip:3", {"clip"}) == "clip"
    assert video_of_entity("whole", {"whole"}) == "whole"
    with pytest.raises(DataError, match="no known video"):
        video_of_entity("ab_cd_0000_0060:1", {"zz"})


@pytest.mark.parametrize("fps", [10, 15, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60])
def test_nominal_rate_of_rounded_times(fps):
    times_s = np.round(902.13 + np.arange(40) / fps, 2)
    assert nominal_fps(times_s) == pytest.approx(fps, abs=fps * 0.01 / (39 / fps))
    assert nominal_fps(times_s, declared=12.5) == 12.5


def test_tables_are_read_without_torch():
    code = "import sys; import asd_explain.datasets.annotations; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_are_checked_and_sound_has_the_field_s_length():
    times_s = np.array([1.0, 1.04])
    row = EntityRow("e", "v", times_s, np.zeros(2, np.int8), 25)
    assert sample_span(row) == (16000, 640)
    assert sample_span(EntityRow("e", "v", times_s[:1], np.zeros(1, np.int8), 50)) == (16000, 320)
    with pytest.raises(DataError, match="no frame"):
        EntityRow("e", "v", times_s[:0], np.zeros(0, np.int8), 25)
    with pytest.raises(DataError, match="3 labels for 2 timestamps"):
        EntityRow("e", "v", times_s, np.zeros(3, np.int8), 25)
    with pytest.raises(DataError, match="frame rate"):
        EntityRow("e", "v", times_s, np.zeros(2, np.int8), 0)
