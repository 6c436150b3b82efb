"""A network learns on a miniature: faces, voices and turns that it has not seen are told apart, after a fixed epoch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from asd_explain.datasets.ava import AvaSet
from asd_explain.datasets.miniature import MiniClip, ava_clips, make_miniature, wasd_clips
from asd_explain.datasets.miniature_people import PHOTOS
from asd_explain.datasets.wasd import WasdSet
from asd_explain.evaluate.detection import average_precision
from asd_explain.tools import predict_asd, prepare, train

SIZES = {
    "ava": {"train": 72, "val": 12, "seconds": 4.0},
    "wasd": {"train": 14, "val": 2, "seconds": 4.0},  # a category
}


@pytest.mark.slow
@pytest.mark.demo
@pytest.mark.parametrize("dataset", SIZES)
def test_a_network_learns_on_a_miniature(dataset: str, tmp_path: Path) -> None:
    """The network of the last epoch, not the best of them."""
    pytest.importorskip("espeakng_loader", reason="espeak-ng comes with the demo extra")
    pytest.importorskip("skimage", reason="the astronaut's photograph comes with scikit-image (demo extra)")
    mini = make_miniature(dataset, tmp_path / "mini", **SIZES[dataset])
    data, runs, scores = tmp_path / "data", tmp_path / "runs", tmp_path / "scores.csv"
    where = ["--csv", str(mini / "csv"), "--videos", str(mini / "orig_videos"), "--out", str(data)]
    assert prepare.main(["--dataset", dataset, *where, "--workers", "1", "--quiet"]) == 0
    words = ["--data", str(data), "--threads", "1", "--workers", "0", "--quiet"]
    assert train.main([f"squeeze_asd_miniature_{dataset}", "--out", str(runs), *words]) == 0
    assert predict_asd.main(["--weights", str(runs / "last.safetensors"), "--out", str(scores), *words]) == 0
    {"ava": check_ava, "wasd": check_wasd}[dataset](figures(dataset, data, scores))


def check_ava(found: dict[str, float]) -> None:
    """Thresholds lie below what two seeds gave after the ninth epoch.

    Seeds 0 and 2: base rate 0.21; AP 0.83 and 0.46, of the unseen photograph 0.82 and 0.45, of drawn faces 0.87 and
    0.52; which of several 0.78 and 0.54, by sound alone 0.41 and 0.40.
    """
    assert found["base rate"] < 0.25
    assert found["AP"] > 0.40, found
    assert found["AP, unseen photograph"] > 0.38, found
    assert found["AP, unseen drawn faces"] > 0.45, found
    assert found["AP, which of several"] > found["AP, which of several, by sound alone"] + 0.08, found


def check_wasd(found: dict[str, float]) -> None:
    """Thresholds lie below what seed 0 gave after the ninth epoch.

    Base rate 0.42; AP 0.78, of the unseen photograph 0.92, of drawn faces 0.72; which of several 0.71, by sound alone
    0.58.
    """
    assert found["base rate"] < 0.45
    assert found["AP"] > 0.62, found
    assert found["AP, unseen photograph"] > 0.65, found
    assert found["AP, unseen drawn faces"] > 0.55, found
    assert found["AP, which of several"] > found["AP, which of several, by sound alone"] + 0.05, found


def figures(dataset: str, data: Path, scores: Path) -> dict[str, float]:
    """Average precision over all rows, those of each kind of face, and those of pictures in which one of several talks.

    Args:
        dataset: "ava" or "wasd".
        data: the prepared miniature of ``SIZES``.
        scores: csv of predictions.

    Returns:
        Besides, the share of speaking rows, and what the last figure is where all faces of a picture share one score:
        a network that only hears cannot do better than that on the mean of its own scores.
    """
    with scores.open(newline="", encoding="utf-8") as file:
        given = {
            (r["entity_id"], round(float(r["frame_timestamp"]), 4)): float(r["score"]) for r in csv.DictReader(file)
        }
    clips = {"ava": ava_clips, "wasd": wasd_clips}[dataset](**SIZES[dataset])
    drawn_of = faces_of([clip for clip in clips if clip.split == "val"])
    rows = {"ava": AvaSet, "wasd": WasdSet}[dataset].dumped(data, "val").rows
    p, label, drawn, moments = [], [], [], []
    for row in rows:
        for time_s, speaks in zip(row.timestamps_s, row.labels, strict=True):
            p.append(given[row.entity_id, round(float(time_s), 4)])
            label.append(bool(speaks))
            drawn.append(drawn_of[row.video_id, int(row.entity_id.rpartition(":")[2])])
            moments.append((row.video_id, round(float(time_s), 2)))
    p, label, drawn = np.array(p), np.array(label), np.array(drawn)
    _, moment = np.unique([f"{video} {time_s}" for video, time_s in moments], return_inverse=True)
    faces, talking = np.bincount(moment), np.bincount(moment, label)
    several = (faces[moment] > 1) & (talking[moment] > 0)
    shared = (np.bincount(moment, p) / faces)[moment]
    return {
        "base rate": float(label.mean()),
        "AP": average_precision(p, label),
        "AP, unseen photograph": average_precision(p[~drawn], label[~drawn]),
        "AP, unseen drawn faces": average_precision(p[drawn], label[drawn]),
        "base rate, which of several": float(label[several].mean()),
        "AP, which of several": average_precision(p[several], label[several]),
        "AP, which of several, by sound alone": average_precision(shared[several], label[several]),
    }


def faces_of(clips: Sequence[MiniClip]) -> dict[tuple[str, int], bool]:
    """{(video, number of the entity): whether its face is drawn}; they are numbered by person, then by shot."""
    found = {}
    for clip in clips:
        looks = [p.look.photo for k, p in enumerate(clip.scene.people) for s in clip.scene.camera() if k in s.people]
        found |= {(clip.video_id, number): photo != PHOTOS["val"] for number, photo in enumerate(looks, 1)}
    return found
