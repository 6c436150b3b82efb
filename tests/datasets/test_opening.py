"""Which data set lies in a folder: seen from what the preparation left, from bodies, from the names of the videos."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from entity_support import SmallNetwork

from asd_explain.ava_format import COLUMNS
from asd_explain.datasets.opening import detect_set
from asd_explain.errors import OptionError
from asd_explain.tools import predict_asd

AVA, WASD = "-5KQ66BBWC4", "0bjD_UYiW7k_30-60"
BOX = "0.1,0.1,0.5,0.5,NOT_SPEAKING"


def table(folder: Path, name: str, *videos: str, header: bool = True) -> None:
    (folder / "csv").mkdir(exist_ok=True)
    lines = [",".join(COLUMNS)] * header + [f"{video},0.04,{BOX},{video}_0000_0060:1" for video in videos]
    (folder / "csv" / name).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", ["ava", "wasd"])
def test_the_preparation_and_a_miniature_s_mark_say_it(kind: str, tmp_path: Path) -> None:
    table(tmp_path, "val_orig.csv", WASD if kind == "ava" else AVA)
    (tmp_path / "miniature.json").write_text(json.dumps({"dataset": kind}))
    assert detect_set(tmp_path, "val") == kind
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "val.json").write_text(json.dumps({"dataset": "wasd", "split": "val"}))
    assert detect_set(tmp_path, "val") == "wasd", "what prepared it knows best"


@pytest.mark.parametrize("damaged", ["", "[]", '{"split": "val"}', '{"dataset": 3}', "\xff"])
def test_a_damaged_report_is_passed_over(damaged: str, tmp_path: Path) -> None:
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "val.json").write_text(damaged, encoding="latin-1")
    table(tmp_path, "val_orig.csv", AVA)
    assert detect_set(tmp_path, "val") == "ava"


@pytest.mark.parametrize("bodies", ["clips_videos_body/val", "csv/val_orig_body.csv", "csv/val_body_orig.csv"])
def test_bodies_are_wasd(bodies: str, tmp_path: Path) -> None:
    table(tmp_path, "val_orig.csv", "film")
    path = tmp_path / bodies
    path.mkdir(parents=True) if not path.suffix else path.write_text("x\n")
    assert detect_set(tmp_path, "val") == "wasd"


@pytest.mark.parametrize(("video", "kind"), [(AVA, "ava"), (WASD, "wasd")])
@pytest.mark.parametrize("header", [True, False])
def test_videos_names_say_it_in_every_dialect(video: str, kind: str, header: bool, tmp_path: Path) -> None:
    table(tmp_path, "val_orig.csv", video, video, header=header)
    assert detect_set(tmp_path, "val") == kind


@pytest.mark.parametrize(("video", "kind"), [(AVA, "ava"), (WASD, "wasd")])
def test_a_loader_csv_is_enough(video: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "val_loader.csv").write_text(f"{video}_0000_0060:1\t2\t25\t[0, 1]\t7\n")
    assert detect_set(tmp_path, "val") == kind


def test_what_cannot_be_told_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"no csv of val is there; say which with --set ava or --set wasd"):
        detect_set(tmp_path, "val")
    table(tmp_path, "val_orig.csv", AVA, WASD)
    with pytest.raises(OptionError, match="could be videos of any set") as caught:
        detect_set(tmp_path, "val")
    assert "\n" not in str(caught.value)
    with pytest.raises(OptionError, match="there is no such folder"):
        detect_set(tmp_path / "nowhere", "val")
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "test.json").write_text('{"dataset": "columbia"}')
    with pytest.raises(OptionError, match="holds columbia; only ava and wasd can be opened"):
        detect_set(tmp_path, "test")


@pytest.mark.parametrize(
    ("words", "opened"), [([], ("wasd", True)), (["--set", "wasd"], ("wasd", True)), (["--set", "ava"], ("ava", True))]
)
def test_predicting_opens_what_the_folder_holds(
    words: list[str], opened: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set of a WASD folder is not AVA's, whose bodies nobody reads; ``--set`` has the last word."""
    asked = []

    def open_entities(name: str, root: Path, split: str, body: bool) -> SimpleNamespace:
        asked.append((name, body))
        raise OptionError("seen")

    monkeypatch.setattr(predict_asd, "open_entities", open_entities)
    monkeypatch.setattr(predict_asd, "choose", lambda *_: "x")
    monkeypatch.setattr(predict_asd, "load", lambda *_, **__: SmallNetwork())
    monkeypatch.setattr(predict_asd, "sees_body", lambda model: "if there")
    table(tmp_path, "val_orig.csv", WASD)
    assert predict_asd.main(["--data", str(tmp_path), "--out", str(tmp_path / "s.csv"), *words]) == 2
    assert asked == [opened]
    asked.clear()
    table(tmp_path, "val_orig.csv", "film")
    assert predict_asd.main(["--data", str(tmp_path), "--out", str(tmp_path / "s.csv")]) == 2
    assert asked == []
