"""From nothing to an explained clip with the commands that the README names, on a miniature AVA.

That a network learns on so little is not asked here; that every step takes what the one before it left, and that three
of them agree on one figure, is.
"""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path

import pytest

from asd_explain.datasets.miniature import make_miniature
from asd_explain.tools import evaluate_asd, explain_video, predict_asd, prepare, train


@pytest.mark.demo
def test_prepare_train_predict_evaluate_explain(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="espeak-ng comes with the demo extra")
    pytest.importorskip("skimage", reason="the astronaut's photograph comes with scikit-image (demo extra)")
    mini = make_miniature("ava", tmp_path / "mini", train=2, val=2, seconds=1.5)
    videos, data, runs = mini / "orig_videos", tmp_path / "AVA", tmp_path / "runs"
    command = ["--dataset", "ava", "--csv", str(mini / "csv"), "--videos", str(videos), "--out", str(data)]
    assert prepare.main([*command, "--split", "train", "val", "--workers", "1"]) == 0
    assert train.main(["light_asd_ava", "--data", str(data), "--out", str(runs), "--set", "loop.epochs=1"]) == 0
    weights, scores, report = runs / "best.safetensors", tmp_path / "scores.csv", tmp_path / "report.json"
    assert predict_asd.main(["--weights", str(weights), "--data", str(data), "--out", str(scores), "--quiet"]) == 0
    assert evaluate_asd.main(["ava", str(data / "csv/val_orig.csv"), str(scores), "--out", str(report)]) == 0

    with (runs / "log.csv").open(newline="") as file:
        logged = float(next(csv.DictReader(file))["val_ap"])
    card = tomllib.loads(weights.with_suffix(".toml").read_text(encoding="utf-8"))
    assert card["results"]["val_ap"] == pytest.approx(logged, abs=2e-6)
    assert _numbers(json.loads(report.read_text(encoding="utf-8")), "ap") == [pytest.approx(logged, abs=2e-6)]

    clip = sorted(path for path in videos.rglob("*") if path.is_file())[-1]
    assert explain_video.main([str(clip), "--weights", str(weights), "-o", str(tmp_path / "out.mp4"), "--quiet"]) == 0
    manifest = json.loads((tmp_path / "out.manifest.json").read_text(encoding="utf-8"))
    assert card["sha256"] in json.dumps(manifest)


def _numbers(value: object, key: str) -> list[float]:
    """Every number that stands under a key, at any depth."""
    if isinstance(value, dict):
        own = [v for k, v in value.items() if k == key and isinstance(v, float)]
        return own + [found for v in value.values() for found in _numbers(v, key)]
    return []
