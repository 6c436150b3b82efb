"""Files that are there as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asd_explain.datasets.face_clips import save_arrays
from asd_explain.errors import OptionError, OutputError
from asd_explain.evaluate.json_report import write_report
from asd_explain.outputs import check_writable, whole_file, whole_folder, write_text
from asd_explain.training.config import LoopConfig
from asd_explain.training.export import export_weights
from asd_explain.training.folder import CHECKPOINT, CONFIG, check_config, save_checkpoint, write_config


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as partial:
        partial.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(RuntimeError), whole_file(path) as partial:
        partial.write_text("tw")
        raise RuntimeError
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    assert path.read_text() == "one"


def test_where_nothing_can_be_written_one_line_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file" / "x.json", tmp_path / "file" / "deeper" / "x.json"):
        for write in (
            lambda path: write_text(path, "a"),
            lambda path: write_report({"a": 1}, path),
            lambda path: save_arrays(path, {"a": np.zeros(1)}),
            lambda path: write_config(LoopConfig(), path),
            lambda path: save_checkpoint({}, path),
            lambda path: export_weights(torch.nn.Linear(1, 1), path),
        ):
            with pytest.raises(OutputError, match="cannot be written"):
                write(place)


def test_a_full_disk_is_told_in_one_line_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / CHECKPOINT
    save_checkpoint({"step": 1}, path)

    def full(stored, where):
        where.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="is the disk full"):
        save_checkpoint({"step": 2}, path)
    assert torch.load(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_folder_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "set"
    with whole_folder(path) as part:
        (part / "deep").mkdir()
        (part / "deep" / "a.txt").write_text("one")
        assert not path.exists()
    assert (path / "deep" / "a.txt").read_text() == "one"
    with pytest.raises(RuntimeError), whole_folder(path) as part:
        (part / "b.txt").write_text("tw")
        raise RuntimeError
    assert [p.name for p in path.parent.iterdir()] == ["set"]
    assert [p.name for p in path.rglob("*")] == ["deep", "a.txt"]
    with whole_folder(path) as part:
        (part / "b.txt").write_text("two")
        assert (path / "deep").exists()  # what was there stays until the other is whole
    assert [p.name for p in tmp_path.rglob("*")] == ["new", "set", "b.txt"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    path, rename = tmp_path / "set", Path.rename
    path.mkdir()
    (path / "a.txt").touch()

    def fail(self, target):
        if ".part-" in self.name:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OutputError, match="set cannot be written: No space left"), whole_folder(path):
        pass
    assert [p.name for p in tmp_path.rglob("*")] == ["set", "a.txt"]


def test_a_folder_that_cannot_even_be_put_back_is_not_lost(tmp_path, monkeypatch):
    path, rename = tmp_path / "set", Path.rename
    path.mkdir()
    (path / "a.txt").touch()

    def fail(self, target):
        if self.name.startswith("."):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OutputError, match="set cannot be written: Input/output error"), whole_folder(path):
        pass
    kept = list(tmp_path.iterdir())
    assert len(kept) == 1
    assert kept[0].name.startswith(".set.old-")
    assert (kept[0] / "a.txt").exists()


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "disk" / "set").mkdir(parents=True)
    (tmp_path / "disk" / "set" / "a.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "set")
    with whole_folder(tmp_path / "link") as part:
        (part / "b.txt").touch()
    assert (tmp_path / "link").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "link"]
    assert [p.name for p in (tmp_path / "disk").rglob("*")] == ["set", "b.txt"]


def test_a_folder_is_not_made_below_a_file(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file" / "set", tmp_path / "file" / "deeper" / "set"):
        with pytest.raises(OutputError, match="cannot be written"), whole_folder(place):
            pytest.fail("there is no folder to write into")


@pytest.mark.parametrize("text", ["{", "[1, 2]", "7"])
def test_a_damaged_configuration_is_told_in_one_line(text, tmp_path):
    (tmp_path / CHECKPOINT).touch()
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(OptionError, match="cannot be read as a configuration"):
        check_config(LoopConfig(), tmp_path)


def test_numbers_that_json_lacks_become_null(tmp_path):
    write_report({"a": [float("inf"), float("nan"), 1.5]}, tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text().split() == ["{", '"a":', "[", "null,", "null,", "1.5", "]", "}"]


def test_what_cannot_be_written_is_found_out_before_the_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        check_writable(tmp_path / "file" / "scores.csv")
    check_writable(tmp_path / "new" / "scores.csv")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_file_is_no_folder_to_replace(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(OutputError, match="is a file"), whole_folder(tmp_path / "there") as folder:
        (folder / "x").write_text("y")
    assert (tmp_path / "there").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
