"""Which frames count as what, and what a network whose decisions are known gets."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from asd_explain.datasets.face_clips import FaceClip
from asd_explain.evaluate.asd_protocol import (
    Look,
    Material,
    ensemble_of,
    label_tracks,
    looks,
    materials,
    members_against_ensemble,
    photo_material,
    section,
)
from asd_explain.evaluate.asd_report import calibration, tables
from asd_explain.evaluate.calibration import sigmoid
from asd_explain.evaluate.stream_views import Scorer, ViewedTrack, view_clip
from asd_explain.models.fusion_backbone import FusionBackbone


def viewed(model: FusionBackbone, corpus: dict[str, FaceClip], split: str = "test") -> list[ViewedTrack]:
    return [view_clip(model, c, "box") for c in corpus.values() if c.entry.split == split]


def own_ensemble(model: FusionBackbone, tracks: list[ViewedTrack]) -> dict[str, np.ndarray]:
    scorer = Scorer(model, tracks)
    return {t.pooled.name: sigmoid(scorer.margin(t)) for t in tracks}


def test_balanced_weights() -> None:
    material = Material()
    material.add("a", "own voice", np.zeros(3), 1)
    material.add("a", "silence", np.zeros(10), 0)
    material.add("b", "silence", np.zeros(30), 0)
    material.add("b", "frozen", np.zeros(5), 0)
    material.add("c", "shifted", None, 0)
    label, weights = material.label, material.weights
    assert len(label) == 48
    assert weights.mean() == pytest.approx(1)
    assert weights[label == 1].sum() == pytest.approx(24)
    assert weights[3:43].sum() == pytest.approx(weights[43:].sum())
    assert np.ptp(weights[3:43]) == 0
    material.balanced = False
    assert (material.weights == 1).all()


def test_sections_without_both_classes_say_why() -> None:
    material = Material()
    assert section(material)["why_not"].startswith("no frames")
    material.add("a", "own", np.ones(4), 1)
    found = section(material)
    assert math.isnan(found["ap"])
    assert "only one class" in found["why_not"]
    assert found["speaking_rates"] == {"own, speaking": 1.0}


def test_talking_faces_are_those_whose_voice_it_is(tiny: FusionBackbone, corpus: dict[str, FaceClip]) -> None:
    tracks = viewed(tiny, corpus)
    labels = label_tracks([t.pooled for t in tracks], own_ensemble(tiny, tracks))
    assert set(labels.talking) == {f"tracks/test_{i}#1" for i in range(3)}
    assert list(labels.left_out) == ["tracks/test_3#1"]
    assert "less than half" in labels.left_out["tracks/test_3#1"]
    assert all(voiced.all() for voiced in labels.talking.values())


def test_a_network_that_sees_and_hears_but_does_not_match(tiny: FusionBackbone, corpus: dict[str, FaceClip]) -> None:
    tracks = viewed(tiny, corpus)
    labels = label_tracks([t.pooled for t in tracks], own_ensemble(tiny, tracks))
    found = {name: section(m, draws=50) for name, m in materials(Scorer(tiny, tracks), tracks, labels).items()}
    assert found["ensemble"]["ap"] == 1  # it is its own teacher
    assert found["ensemble"]["base_rate"] == pytest.approx(0.6, abs=0.05)
    assert (found["ensemble"]["frames"], found["ensemble"]["clips"]) == (200, 5)
    for name in ("own_vs_silence", "own_vs_frozen", "own_vs_listeners"):
        assert found[name]["ap"] > 0.98
        assert found[name]["base_rate"] == pytest.approx(0.5)
    for name in ("own_vs_other_voice", "own_vs_shifted"):  # noise is noise
        assert found[name]["ap"] == pytest.approx(0.5, abs=0.1)
    assert found["ensemble_balanced"]["base_rate"] == pytest.approx(0.5)
    assert math.isnan(found["hints"]["ap"])
    assert found["certain"]["speaking_rates"]["own voice, speaking"] > 0.9
    assert found["certain"]["speaking_rates"]["frozen, silent"] == 0


def test_looks_at_what_there_is(tiny_body: FusionBackbone, corpus: dict[str, FaceClip]) -> None:
    assert set(looks(("audio", "face"))) == {"face 16 px", "face 24 px", "face 40 px"}
    names = looks(("audio", "face", "body"))
    assert {"audio+body", "audio+body, face hidden", "face", "face 16 px, audio+face"} <= set(names)
    assert names["audio+body, face hidden"].still == "hidden_still"
    tracks = viewed(tiny_body, corpus)
    labels = label_tracks([t.pooled for t in tracks], own_ensemble(tiny_body, tracks))
    deaf = materials(Scorer(tiny_body, tracks), tracks, labels, Look(("face",)))
    assert not {"certain", "ensemble_balanced"} & set(deaf)  # other mixes than with sound
    assert math.isnan(section(deaf["own_vs_silence"])["ap"])
    assert section(deaf["own_vs_frozen"], draws=10)["ap"] > 0.98
    blind = materials(Scorer(tiny_body, tracks), tracks, labels, Look(("audio",)))
    assert not [p for p in blind["own_vs_frozen"].parts if p.kind == "frozen"]


def test_photos_count_by_their_truth(tiny: FusionBackbone, corpus: dict[str, FaceClip]) -> None:
    truth = np.full(40, np.nan, np.float32)
    truth[5:15], truth[20:30] = 1, 0
    clips = [replace(c, truth=truth) for c in corpus.values()]
    found = photo_material(tiny, {"turns": [view_clip(tiny, c, "box") for c in clips]})
    assert len(found.label) == 20 * len(clips)
    assert found.label.mean() == 0.5
    assert set(found.speaking_rates()) == {"turns, speaking", "turns, silent"}


def test_members_and_their_mean() -> None:
    rng = np.random.default_rng(0)
    truth = {f"clip_{i}#1": rng.normal(0, 2, 50) for i in range(6)}
    members = {
        m: {k: v + rng.normal(0, s, 50) for k, v in truth.items()} for m, s in (("a", 0.1), ("b", 0.1), ("c", 3))
    }
    mean = ensemble_of(members)
    assert mean["clip_0#1"] == pytest.approx(sum(sigmoid(m["clip_0#1"]) for m in members.values()) / 3)
    found = members_against_ensemble(members, draws=50)
    assert found["c"]["others"]["ap"] < found["c"]["all"]["ap"] < found["a"]["all"]["ap"]


def test_report_holds_calibration_and_tables(tiny: FusionBackbone, corpus: dict[str, FaceClip]) -> None:
    found = {}
    for split in ("dev", "test"):
        tracks = viewed(tiny, corpus, split)
        labels = label_tracks([t.pooled for t in tracks], own_ensemble(tiny, tracks))
        found[split] = materials(Scorer(tiny, tracks), tracks, labels)
    figures = calibration(found["dev"], found["test"])
    assert set(figures) == {"ensemble_balanced", "certain"}
    assert figures["certain"]["nll_after"] < figures["certain"]["nll_before"]
    same = calibration(found["test"], found["test"])["ensemble_balanced"]
    assert same["nll_after"] <= same["nll_before"]
    sections = {name: section(m, draws=20) for name, m in found["test"].items()}
    report = {
        "split": "test",
        "clips": {"test": 5},
        "people": 5,
        "talking_tracks": 3,
        "left_out": {},
        "members": {"a": {"all": sections["ensemble"]}},
        "networks": {"tiny": {"sections": sections, "looks": {"face": sections}, "calibration": figures}},
    }
    text = tables(report)
    for part in ("| own_vs_frozen | 100.0", "| hints | - |", "tiny: AP by streams", "| tiny | certain |"):
        assert part in text
    assert "nan" not in text
