"""From nothing to measured explanations with the commands of the README, on a miniature AVA and a miniature WASD.

That every step takes what the one before it left is asked here, row by row; that a network learns is asked by
``test_miniature_learning.py``, which takes longer.
"""

from __future__ import annotations

import csv
import json
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from asd_explain.ava_format import COLUMNS, SPEAKING
from asd_explain.datasets import miniature
from asd_explain.evaluate.wasd import CATEGORIES
from asd_explain.tools import evaluate_asd, evaluate_attention, explain_video, predict_asd, prepare, train

pytestmark = pytest.mark.demo
TINY = ["--frames", "13", "--steps", "2", "--no-variants", "--sanity-clips", "0", "--threads", "1", "--seconds", "2"]


@pytest.fixture(autouse=True)
def _needs_demo() -> None:
    pytest.importorskip("espeakng_loader", reason="espeak-ng comes with the demo extra")
    pytest.importorskip("skimage", reason="the astronaut's photograph comes with scikit-image (demo extra)")


def trained(kind: str, folder: Path, clips: tuple[int, int], *recipe: str) -> tuple[Path, Path, Path]:
    """Miniature, prepared and trained on for an epoch: (miniature, prepared data, runs)."""
    sizes = ["--train", str(clips[0]), "--val", str(clips[1]), "--seconds", "1.5"]
    assert miniature.main(["--dataset", kind, "-o", str(folder / "mini"), *sizes]) == 0
    mini, data, runs = folder / "mini" / kind, folder / kind.upper(), folder / "runs"
    command = ["--dataset", kind, "--csv", str(mini / "csv"), "--videos", str(mini / "orig_videos"), "--out", str(data)]
    assert prepare.main([*command, "--split", "train", "val", "--workers", "1"]) == 0
    words = ["--data", str(data), "--out", str(runs), "--threads", "1", "--workers", "0", "--quiet"]
    assert train.main([*recipe, *words, "--set", "loop.epochs=1"]) == 0
    return mini, data, runs


def predicted(data: Path, runs: Path, scores: Path) -> float:
    """Predict; every annotated row has one score, in the annotation's order. Returns the training's own AP."""
    weights = runs / "best.safetensors"
    words = ["--data", str(data), "--out", str(scores), "--threads", "1", "--workers", "0", "--quiet"]
    assert predict_asd.main(["--weights", str(weights), *words]) == 0
    found, truth = rows(scores), rows(data / "csv" / "val_orig.csv")
    assert Counter(row["entity_id"] for row in found) == Counter(row["entity_id"] for row in truth)
    order = {name: k for k, name in enumerate(dict.fromkeys(row["entity_id"] for row in found))}
    truth.sort(key=lambda row: (order[row["entity_id"]], float(row["frame_timestamp"])))
    for one, other in zip(found, truth, strict=True):
        assert [one[k] for k in ("video_id", "entity_id")] == [other[k] for k in ("video_id", "entity_id")]
        for name in COLUMNS[1:6]:
            assert float(one[name]) == float(other[name]), (name, one, other)
        assert one["label"] == SPEAKING
    values = np.array([float(row["score"]) for row in found])
    assert values.min() >= 0
    assert values.max() <= 1
    assert len(np.unique(values)) > len(values) // 2, "scores of single frames"
    card = tomllib.loads(weights.with_suffix(".toml").read_text(encoding="utf-8"))
    logged = float(rows(runs / "log.csv")[0]["val_ap"])
    assert card["results"]["val_ap"] == pytest.approx(logged, abs=2e-6)
    return logged


def explained_and_measured(clip: Path, runs: Path, folder: Path, streams: set[str]) -> None:
    """A clip explained with the trained weights, and its explanations measured: both say whose they are."""
    weights = runs / "best.safetensors"
    card = tomllib.loads(weights.with_suffix(".toml").read_text(encoding="utf-8"))
    assert explain_video.main([str(clip), "--weights", str(weights), "-o", str(folder / "out.mp4"), "--quiet"]) == 0
    manifest = json.loads((folder / "out.manifest.json").read_text(encoding="utf-8"))
    assert manifest["tracks"] >= 1
    assert manifest["weights"]["name"] == card["name"]
    assert manifest["weights"]["sha256"] == card["sha256"]
    assert manifest["weights"]["gates"] == {"name": "trained with the network"}
    shown = rows(folder / "out.scores.csv")
    assert {row["track"] for row in shown} == {str(k) for k in range(1, manifest["tracks"] + 1)}
    assert all(0 <= float(row["score"]) <= 1 for row in shown)
    with np.load(folder / "out.heat.npz") as heat:
        assert {s for s in ("face", "body") if any(s in name for name in heat.files)} == streams

    command = [str(clip), "--weights", str(weights), "--out", str(folder / "attention"), "--quiet", *TINY]
    assert evaluate_attention.main([*command, "--explainers", "se,activation,mouth"]) == 0
    summary = json.loads((folder / "attention" / "metrics.json").read_text(encoding="utf-8"))
    (network,) = summary["networks"].values()
    assert list(summary["networks"]) == [card["name"]]
    assert network["weights"] == {
        **{"card": card["name"], "sha256": card["sha256"], "geometry": "box"},
        **{"gates": {"name": "trained with the network"}, "gains": None},
    }
    measured = rows(folder / "attention" / "metrics.csv")
    assert {row["method"] for row in measured} == {"se", "activation", "mouth"}
    assert {row["clip"] for row in measured} == {clip.stem}
    assert streams <= {row["stream"] for row in measured}
    areas = [float(row["value"]) for row in measured if row["metric"] in ("deletion", "insertion")]
    assert areas
    assert all(0 <= value <= 1 for value in areas)
    assert card["name"] in (folder / "attention" / "report.html").read_text(encoding="utf-8")


def test_miniature_ava(tmp_path: Path) -> None:
    mini, data, runs = trained("ava", tmp_path, (2, 2), "light_asd_ava", "--set", "model.gates=true")
    scores, report = tmp_path / "scores.csv", tmp_path / "report.json"
    logged = predicted(data, runs, scores)
    assert evaluate_asd.main(["ava", str(data / "csv/val_orig.csv"), str(scores), "--out", str(report)]) == 0
    assert numbers(json.loads(report.read_text(encoding="utf-8")), "ap") == [pytest.approx(logged, abs=2e-6)]
    clip = sorted((mini / "orig_videos").rglob("*_va-*.mp4"))[-1]
    explained_and_measured(clip, runs, tmp_path, {"face"})


def test_miniature_wasd(tmp_path: Path) -> None:
    mini, data, runs = trained("wasd", tmp_path, (1, 1), "squeeze_asd_wasd", "--set", "batches.frames=150")
    scores, report = tmp_path / "scores.csv", tmp_path / "report.json"
    logged = predicted(data, runs, scores)
    files = ["--metadata", str(mini / "eval/wasd_metadata.csv"), "--division", str(mini / "eval/dataset_division.txt")]
    command = ["wasd", str(data / "csv/val_orig.csv"), str(scores), *files, "--out", str(report)]
    assert evaluate_asd.main(command) == 0
    schemes = json.loads(report.read_text(encoding="utf-8"))["schemes"]
    assert set(schemes) == {"once", "published"}
    truth = rows(data / "csv" / "val_orig.csv")
    category = {row["Video"]: CATEGORIES[int(row["Category"])] for row in rows(mini / "eval" / "wasd_metadata.csv")}
    counted = Counter(category[row["video_id"]] for row in truth)
    speaking = Counter(category[row["video_id"]] for row in truth if row["label"] == SPEAKING)
    for scheme in schemes.values():
        sections = scheme["sections"]
        assert {name: sections[name]["rows"] for name in CATEGORIES} == counted
        for name in CATEGORIES:
            assert sections[name]["base_rate"] == pytest.approx(speaking[name] / counted[name])
            assert 0 <= sections[name]["ap"] <= 1
        assert sections["Easy"]["rows"] == counted["OC"] + counted["SI"]
        assert sections["Hard"]["rows"] == counted["FO"] + counted["HVN"] + counted["SS"]
        assert sections["pooled"]["rows"] == len(truth)
        assert sections["pooled"]["ap"] == pytest.approx(logged, abs=2e-6)
        assert scheme["macro"] == pytest.approx(np.mean([sections[name]["ap"] for name in CATEGORIES]))

    # Bodies were seen: without them the same network says something else.
    without = tmp_path / "faces.csv"
    words = ["--data", str(data), "--out", str(without), "--set", "ava", "--threads", "1", "--workers", "0", "--quiet"]
    assert predict_asd.main(["--weights", str(runs / "best.safetensors"), *words]) == 0
    both = [np.array([float(row["score"]) for row in rows(path)]) for path in (scores, without)]
    assert np.abs(both[0] - both[1]).max() > 1e-4
    clip = sorted((mini / "orig_videos").rglob("w-c2_v*.mp4"))[0]
    explained_and_measured(clip, runs, tmp_path, {"face", "body"})


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a csv."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def numbers(value: object, key: str) -> list[float]:
    """Every number that stands under a key, at any depth."""
    if isinstance(value, dict):
        own = [v for k, v in value.items() if k == key and isinstance(v, float)]
        return own + [found for v in value.values() for found in numbers(v, key)]
    return []
