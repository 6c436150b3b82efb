"""The command, on a network whose gates are known and made-up clips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gated_support import KnownGates

from asd_explain.datasets.face_clips import FaceClip, FaceClipCache
from asd_explain.datasets.talking_corpus import TalkingClipCache
from asd_explain.errors import AsdExplainError
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.tools import report_gates


@pytest.fixture
def command(corpus: dict[str, FaceClip], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Arguments of a quick run, with corpus and network replaced."""
    entries = [c.entry for c in corpus.values()]
    monkeypatch.setattr(report_gates, "load_network", lambda name, weights=None: KnownGates())
    monkeypatch.setattr(report_gates, "list_clips", lambda shared, per_speaker: entries)
    monkeypatch.setattr(report_gates, "talking_entries", lambda split: [e for e in entries if e.split == split])
    monkeypatch.setattr(FaceClipCache, "get", lambda self, entry: [corpus[entry.name]])
    monkeypatch.setattr(TalkingClipCache, "get", lambda self, entry: [corpus[entry.name]])
    return [
        *("--weights", "x.safetensors", "--shared", str(tmp_path), "--cache", str(tmp_path / "c"), "--quiet"),
        *("--limit", "3", "--bootstrap", "10", "--out", str(tmp_path / "gates.json")),
    ]


def test_reports_both_materials(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_gates.main(command) == 0
    text = capsys.readouterr().out
    for part in ("## clips: 3 clips", "## photos: 3 clips", "| 10% | random | zero |", "| face absent | face falls |"):
        assert part in text
    report = json.loads((tmp_path / "gates.json").read_text())
    assert str(tmp_path) not in json.dumps(report), "no path of this machine"
    clips = report["materials"]["clips"]
    assert clips["distribution"]["audio"]["mean"] == pytest.approx(0.5)
    assert clips["sufficiency"]["under"] == ["own", "other", "silence", "still"]
    assert clips["reactions"]["face absent"]["shares"]["gated-activation"]["face"]["verdict"] == "as expected"
    assert clips["reactions"]["silence"]["expected"] == -1
    assert clips["importance"]["removed_by"]["body"] == "body absent"
    assert clips["reactions"] == report["materials"]["photos"]["reactions"], "cached or not, it is the same"
    assert report_gates.main(command) == 2  # it is there
    assert report_gates.main([*command, "--overwrite", "--no-cache", "--materials", "clips"]) == 0
    again = json.loads((tmp_path / "gates.json").read_text())
    assert again["materials"] == {"clips": clips}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "report.txt"], "ends in .json"),
        (["--limit", "0"], "at least 1"),
        (["--split", "fit"], "no faces"),
    ],
)
def test_names_what_is_wrong(command: list[str], words: list[str], said: str, caplog: pytest.LogCaptureFixture) -> None:
    assert report_gates.main([*command, *words]) == 2
    assert said in caplog.text
    assert "\n" not in caplog.records[-1].message


def test_refuses_a_network_without_gates(
    command: list[str], tiny: FusionBackbone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(report_gates, "load_network", lambda name, weights=None: tiny)
    assert report_gates.main(command) == 2
    assert "tiny has no gates" in caplog.text


def test_goes_on_without_photos(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(self: TalkingClipCache, entry: object) -> list:
        raise AsdExplainError("install the demo extra")

    monkeypatch.setattr(TalkingClipCache, "get", missing)
    assert report_gates.main(command) == 0
    assert "left out: install the demo extra" in caplog.text
    assert list(json.loads((tmp_path / "gates.json").read_text())["materials"]) == ["clips"]
    assert report_gates.main([*command, "--overwrite", "--materials", "photos"]) == 2
