"""One segment measured, segments summed up, figures kept on disk, and the command over clips."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from asd_explain.errors import ClipError, OptionError
from asd_explain.evaluate.attention import Settings, measure
from asd_explain.evaluate.attention_store import FORMAT, ClipFigures, Store
from asd_explain.evaluate.attention_summary import rows_for_csv, summarise
from asd_explain.evaluate.faithfulness import Protocol
from asd_explain.evaluate.intervention import effects
from asd_explain.evaluate.segments import REGIONS, Segment, Smoothing
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.se import SqueezeExcite
from asd_explain.tools import evaluate_attention as tool

SMALL = Settings(
    protocol=Protocol(steps=2, road_shares=(0.5,)),
    smoothings=(Smoothing(), Smoothing(seconds=0.2)),
    explainers=("se", "activation", "mouth", "random"),
    variants=False,
    sensitivity=False,
)


class Small(FusionBackbone):
    """A face stream of three channels on 14x14 cells and a sound, gated, with a classifier that looks around."""

    streams = {"audio": 2, "face": 3}  # noqa: RUF012
    halo_frames = 1
    map_stride_px, map_offset_px = 8.0, 0.0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.face_conv = nn.Conv3d(1, 3, (3, 9, 9), (1, 8, 8), (1, 4, 4))
        self.around = nn.Conv1d(5, 2, 3, padding=1)
        self.attach_gates(SqueezeExcite(5, reduction=2, standardise=True))
        self.card = SimpleNamespace(name="small", geometry="box")
        self.weights_sha256 = "0" * 64
        self.eval().requires_grad_(False)

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        return audio[..., :2].unflatten(1, (-1, 4)).mean(2)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.face_conv(face[:, None].float() / 50 - 2)).transpose(1, 2)

    def classify(self, *streams: torch.Tensor) -> torch.Tensor:
        return self.around(torch.cat(streams, -1).transpose(1, 2)).transpose(1, 2)


def segment(name: str = "a", kind: str = "real", length: int = 5) -> Segment:
    rng = np.random.default_rng(len(name) + length)
    masks = {region: np.zeros((length, 112, 112), bool) for region in REGIONS}
    masks["mouth"][:, 70:90, 40:72] = True
    masks["outside"] = ~masks["mouth"]
    return Segment(
        f"{name}#1@0",
        name,
        kind,
        {"face": rng.integers(0, 256, (length, 112, 112)).astype(np.uint8)},
        rng.standard_normal((4 * length, 13)).astype(np.float32),
        truth=np.ones(length, np.float32),
        regions={"face": masks},
    )


def test_every_method_is_measured_alike() -> None:
    got = measure(Small(), segment(), SMALL)
    record = got.record
    assert list(record["methods"]) == ["se", "activation", "mouth", "random"]
    shapes = set()
    for figures in record["methods"].values():
        shapes.add(tuple((r["metric"], r["baseline"], r["move"], r["verdict"]) for r in figures["faithfulness"]))
        assert all(0 <= r["value"] <= 1 for r in figures["faithfulness"] if r["metric"] != "road")
        assert {(r["by"], r["state"]) for r in figures["placement"]} >= {("truth", "speaking")}
    assert len(shapes) == 1, "the same figures for all"
    assert record["called_speaking"] == (got.arrays["p"] >= 0.5).tolist()
    (level,) = record["methods"]["random"]["level"]
    assert level["stream"] == "face"
    assert np.shape(level["mean"]) == np.shape(level["peak"]) == (5,)
    assert all(0.4 < mean < 0.6 < 0.9 < peak < 1 for mean, peak in zip(level["mean"], level["peak"], strict=True))
    mouth = record["methods"]["mouth"]
    assert mouth["placement"][-1]["pointing"]["mouth"] == 1, "the mouth blob's peak lies in the mouth's region"
    assert got.heat["mouth"]["face"].shape == (5, 112, 112)
    assert np.ptp(got.heat["mouth"]["face"], axis=0).max() < 1e-6, "a fixed blob"
    assert got.arrays["gates.face"].shape == (5, 3)
    assert json.dumps(record, allow_nan=True)


def test_a_fixed_blob_cannot_tell_silence() -> None:
    model, records = Small(), []
    for name, speaks in (("a#1@0", 50.0), ("a#2@0", -50.0)):
        model.around.bias.copy_(torch.tensor([0.0, speaks]))
        records.append(measure(model, replace(segment(), name=name), SMALL).record)
    assert [record["speaking_frames"] for record in records] == [5, 0]
    methods = summarise(records)["methods"]
    blob = {row["of"]: row["mean"] for row in methods["mouth"]["silence"]}
    assert blob == {"mean": pytest.approx(1), "peak": pytest.approx(1)}
    drawn = {row["of"]: row["mean"] for row in methods["random"]["silence"]}
    assert drawn["mean"] == pytest.approx(1, abs=0.1)
    assert drawn["mean"] != 1


def test_random_heat_differs_between_segments_and_not_between_runs() -> None:
    model = Small()
    one, again, other = (measure(model, s, SMALL).heat["random"]["face"] for s in (segment(), segment(), segment("bb")))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.01


def test_unknown_explainers_are_refused() -> None:
    with pytest.raises(OptionError, match="tea"):
        Settings(explainers=("se", "tea"))
    with pytest.raises(OptionError, match="once"):
        Settings(explainers=("se", "se"))


def record(clip: str, kind: str, **values: float) -> dict:
    methods = {}
    for name, value in values.items():
        row = {"segment": f"{clip}#1@0", "clip": clip, "method": name, "stream": "face", "metric": "deletion"}
        row |= {"baseline": "blur", "move": "tube", "verdict": "speaking", "value": value, "frames": 5}
        curve = {"stream": "face", "baseline": "blur", "move": "tube", "curve": "deletion", "verdict": "speaking"}
        methods[name] = {
            "s": 0.5,
            "needs_gradient": False,
            "faithfulness": [row],
            "curves": [{**curve, "frames": 5, "fractions": [0.0, 1.0], "p": [1.0, value]}],
            "level": [{"stream": "face", "mean": [value] * 5, "peak": [2 * value] * 5}],
            "placement": [],
            "consistency": [{"stream": "face", "seconds": 0.0, "cells": 0.0, "value": value, "in_place": value}],
            "sensitivity": [],
        }
    same = {"segment": f"{clip}#1@0", "clip": clip, "kind": kind, "frames": 5, "speaking_frames": 5}
    return {**same, "called_speaking": [True] * 5, "scoring_s": 1.0, "methods": methods}


def silent_record(clip: str, kind: str, **values: float) -> dict:
    own = record(clip, kind, **values)
    return own | {"segment": f"{clip}#2@40", "speaking_frames": 0, "called_speaking": [False] * 5}


def test_means_and_differences_are_over_clips() -> None:
    records = [
        record("a", "real", se=0.1, fem=0.4),
        record("b", "real", se=0.3, fem=0.4),
        record("c", "talking photos", se=0.5, fem=0.4),
        record("c", "talking photos", se=0.7, fem=0.4),
    ]
    found = summarise(records)["methods"]
    by_kind = {row["kind"]: row for row in found["se"]["faithfulness"]}
    assert by_kind["real"]["mean"] == pytest.approx(0.2)
    assert by_kind["talking photos"]["mean"] == pytest.approx(0.6), "two segments of one clip"
    assert by_kind["all"]["mean"] == pytest.approx((0.1 + 0.3 + 0.6) / 3), "each clip counts once"
    assert by_kind["all"]["clips"] == 3
    assert math.isnan(by_kind["talking photos"]["low"]), "one clip has no interval"
    against = {row["kind"]: row for row in found["fem"]["against_se"]}
    assert against["real"]["difference"] == pytest.approx(-0.2), "se minus the rival"
    assert against["real"]["wins"] == 1.0, "deletion: lower is better"
    assert against["real"]["verdict_of_comparison"] == "open", "two clips are no evidence"
    assert math.isnan(against["real"]["low"])
    assert against["all"]["wins"] == pytest.approx(2 / 3)
    assert "against_se" not in found["se"]
    assert found["fem"]["ms_per_frame"] == pytest.approx(100)
    curve = next(c for c in found["se"]["curves"] if c["kind"] == "real")
    assert curve["p"] == pytest.approx([1.0, 0.2])


def test_six_clips_that_agree_are_a_verdict() -> None:
    records = [record(name, "real", se=0.1 + 0.01 * i, fem=0.4) for i, name in enumerate("abcdef")]
    (row,) = summarise(records)["methods"]["fem"]["against_se"]
    assert row["verdict_of_comparison"] == "better"
    assert row["low"] <= row["difference"] <= row["high"] < 0


def test_frames_weigh_alike_within_a_clip_and_clips_alike_among_each_other() -> None:
    records = [record("a", "real", se=0.0), record("a", "real", se=1.0), record("b", "real", se=0.5)]
    for got, frames in zip(records, (1, 4, 1), strict=True):
        figures = got["methods"]["se"]
        figures["faithfulness"][0]["frames"] = figures["curves"][0]["frames"] = frames
    found = summarise(records)["methods"]["se"]
    assert found["faithfulness"][0]["mean"] == pytest.approx((0.8 + 0.5) / 2)
    assert found["curves"][0]["p"][-1] == pytest.approx((0.8 + 0.5) / 2), "the curve is the table's"


def test_a_figure_that_one_segment_lacks_stays_for_the_others(tmp_path: Path) -> None:
    records = [record("a", "real", se=math.nan), record("b", "real", se=0.5)]
    store = Store(tmp_path, {})
    for one in records:
        store.put("net", ClipFigures(one["clip"], [one], pooled=[np.zeros((1, 1))]))
    back = [store.get("net", clip).records[0] for clip in "ab"]
    assert summarise(back)["methods"]["se"]["consistency"][0]["value"] == pytest.approx(0.5)


def test_heat_on_silent_tracks_is_summed_up_over_clips_and_goes_into_the_table() -> None:
    records = [
        record("a", "real", se=0.4, fem=0.0),
        silent_record("a", "real", se=0.1, fem=0.3),
        record("b", "talking photos", se=0.2),
        silent_record("b", "talking photos", se=0.15),
        record("c", "real", se=0.2),
    ]
    found = summarise(records)["methods"]
    rows = {(row["kind"], row["of"]): row for row in found["se"]["silence"]}
    assert rows["real", "mean"]["mean"] == pytest.approx(0.25)
    assert rows["all", "peak"]["mean"] == pytest.approx((0.25 + 0.75) / 2), "each clip counts once"
    assert rows["all", "mean"]["low"] < 0.5 < rows["all", "mean"]["high"]
    assert [rows["all", "mean"][key] for key in ("stream", "clips", "frames")] == ["face", 2, 10], "c has no silence"
    assert found["fem"]["silence"] == [], "no heat in speech, so nothing to compare with"
    table = [row for row in rows_for_csv("net", records) if row["metric"].startswith("silent")]
    assert len({tuple(row) for row in rows_for_csv("net", records)}) == 1, "the same columns everywhere"
    assert {(r["clip"], r["method"], r["metric"]): r["value"] for r in table} == {
        (clip, "se", f"silent {of}"): pytest.approx(value)
        for clip, value in (("a", 0.25), ("b", 0.75))
        for of in ("mean", "peak")
    }


def test_dead_maps_weigh_in_pointing_and_not_in_mass() -> None:
    one, other = record("a", "real", se=0.5), record("a", "real", se=0.5)
    place = {"stream": "face", "by": "called", "state": "speaking", "frames": 5, "area": dict.fromkeys(REGIONS, 0.2)}
    for got, counted, share in ((one, 5, 1.0), (other, 0, math.nan)):
        hits = {"pointing": dict.fromkeys(REGIONS, counted / 5), "mass": dict.fromkeys(REGIONS, share)}
        got["methods"]["se"]["placement"] = [{**place, **hits, "known": 5, "counted": counted, "dead": 1 - counted / 5}]
    (row,) = summarise([one, other])["methods"]["se"]["placement"]
    assert (row["known"], row["counted"], row["dead"]) == (10, 5, 0.5)
    assert row["pointing"]["mouth"] == 0.5, "half of the frames are misses"
    assert row["mass"]["mouth"] == 1.0, "the heat there is lies on the mouth"


def test_figures_of_an_older_format_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path, {})
    store.put("net", ClipFigures("a"))
    path = store.path("net", "a")
    stored = json.loads(path.read_text())
    assert stored["format"] == FORMAT
    for older in ({"format": FORMAT - 1}, {}):
        path.write_text(json.dumps({key: value for key, value in stored.items() if key != "format"} | older))
        with pytest.raises(OptionError, match="another version of this tool"):
            store.get("net", "a")


def test_figures_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    model, one = Small(), segment()
    got = measure(model, one, SMALL)
    figures = ClipFigures(
        "dir/a clip",
        [got.record],
        [{"face": got.arrays["gates.face"]}],
        [np.arange(10, dtype=np.float32).reshape(2, 5)],
        [effects(model, one)],
        [{"depth": 0}],
        {"residual": 0.5},
        [("caption", 1.5, b"\x89PNG")],
        {"dir/a clip#1@0": np.array(["", "face"])},
    )
    store = Store(tmp_path, {"steps": 2, "pair": (1, 2)})
    assert store.get("net", figures.clip) is None
    store.put("net", figures)
    back = store.get("net", figures.clip)
    assert back.records[0]["methods"]["se"]["faithfulness"] == got.record["methods"]["se"]["faithfulness"]
    assert back.records[0]["methods"]["se"]["level"] == got.record["methods"]["se"]["level"]
    assert back.records[0]["called_speaking"] == got.record["called_speaking"]
    np.testing.assert_array_equal(back.gates[0]["face"], figures.gates[0]["face"])
    np.testing.assert_array_equal(back.pooled[0], figures.pooled[0])
    assert back.pictures == figures.pictures
    assert back.sanity == figures.sanity
    assert back.decisive["dir/a clip#1@0"].tolist() == ["", "face"]
    for key, change in figures.effects[0].changes.items():
        np.testing.assert_array_equal(back.effects[0].changes[key].p, change.p)
        np.testing.assert_array_equal(back.effects[0].changes[key].margin, change.margin)
    for kind, shares in figures.effects[0].shares.items():
        for stream, values in shares.items():
            np.testing.assert_array_equal(back.effects[0].shares[kind][stream], values)
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()], "nothing half-written is left"
    with pytest.raises(OptionError, match="other settings \\(steps\\)"):
        Store(tmp_path, {"steps": 3, "pair": (1, 2)}).get("net", figures.clip)
    assert store.get("net", figures.clip, "another file") is None, "made from something else"
    store.path("net", figures.clip).with_suffix(".npz").write_bytes(b"PK damaged")
    with pytest.raises(OptionError, match="cannot be read"):
        store.get("net", figures.clip)
    store.path("net", figures.clip).with_suffix(".npz").unlink()
    with pytest.raises(OptionError, match="cannot be read"):
        store.get("net", figures.clip)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments for two made-up clips and a small network."""
    monkeypatch.setattr(tool, "load_networks", lambda names, weights, device: {"small": Small()})
    clips = [tool.Clip(name, "made up", lambda name=name: [name]) for name in ("first", "second")]
    monkeypatch.setattr(tool, "clips_of", lambda args: clips)
    monkeypatch.setattr(tool, "pick_segments", lambda model, tracks, *rest: [segment(name) for name in tracks])
    options = ["--explainers", "se,activation,mouth", "--steps", "2", "--sanity-clips", "0", "--quiet"]
    return ["x.mp4", "--out", str(tmp_path / "out"), "--no-variants", "--segments", "1", *options, "--threads", "1"]


def test_goes_on_where_it_was_cut_off_and_writes_everything(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = []

    def interrupted(model: nn.Module, clip: str, *rest: object) -> ClipFigures:
        if clip == "second" and "second" not in measured:
            measured.append(clip)
            raise KeyboardInterrupt
        measured.append(clip)
        return original(model, clip, *rest)

    original = tool.figures_of
    monkeypatch.setattr(tool, "figures_of", interrupted)
    out = tmp_path / "out"
    assert tool.main(command) == 130
    assert not (out / "report.html").exists()
    assert tool.main(command) == 0
    assert measured == ["first", "second", "second"], "the first clip was not measured again"
    assert capsys.readouterr().out == f"{out / 'report.html'}\n"
    summary = json.loads((out / "metrics.json").read_text())
    methods = summary["networks"]["small"]["methods"]
    assert set(methods) == {"se", "activation", "mouth"}
    assert summary["networks"]["small"]["left_out"] == []
    with (out / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["clip"] for row in rows} == {"first", "second"}
    assert {row["method"] for row in rows} == set(methods)
    page = (out / "report.html").read_text()
    assert "first" in page
    assert "data:image/png;base64" in page


def test_an_older_report_stays_unless_asked(
    command: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("mine")
    assert tool.main(command) == 2
    assert "exists already" in caplog.text
    assert (tmp_path / "out" / "report.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--explainers", "se,tea"], "tea"),
        (["--steps", "0"], "steps"),
        (["--baselines", "fog"], "fog"),
        (["--smooth", "-1"], "--smooth"),
        (["--frames", "5"], "--frames"),
        (["--segments", "0"], "--segments"),
    ],
)
def test_mistakes_are_one_line(
    command: list[str], arguments: list[str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert tool.main([*command, *arguments]) == 2
    (message,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert said in message
    assert "\n" not in message


def test_a_clip_that_cannot_be_cut_is_left_out(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> list:
        raise ClipError("damaged.mp4 is damaged")

    clips = [tool.Clip("damaged", "x", broken), tool.Clip("first", "x", lambda: ["first"])]
    monkeypatch.setattr(tool, "clips_of", lambda args: clips)
    assert tool.main(command) == 0
    assert "left out: damaged.mp4 is damaged" in caplog.text
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert summary["settings"]["left_out"] == [{"name": "damaged", "why": "damaged.mp4 is damaged"}]


def test_without_gates_the_rest_is_measured_and_the_report_says_so(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Small()
    plain.attach_gates(None)
    monkeypatch.setattr(tool, "load_networks", lambda *_: {"small": plain})
    assert tool.main([word for word in command if word != "--no-variants"]) == 0
    assert "small has no gates: se are left out" in caplog.text
    network = json.loads((tmp_path / "out" / "metrics.json").read_text())["networks"]["small"]
    assert set(network["methods"]) == {"activation", "mouth"}
    assert (network["left_out"], network["weights"]["gates"]) == (["se"], None)
    assert network["assumptions"] == {"distribution": [], "selection": [], "variants": []}
    assert "This network has no gates, so se could not be measured" in (tmp_path / "out" / "report.html").read_text()
    assert tool.main([*command, "--explainers", "se,se-paper", "--overwrite"]) == 2
    assert "has no gates, and --explainers se,se-paper need them" in caplog.text


def test_figures_of_other_weights_are_not_taken(
    command: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert tool.main(command) == 0
    other = Small()
    other.around.bias.add_(1)
    monkeypatch.setattr(tool, "load_networks", lambda *_: {"small": other})
    assert tool.main([*command, "--overwrite"]) == 2
    assert "measured with other settings (network)" in caplog.text


def test_no_clip_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert tool.main([str(tmp_path / "none.mp4"), "--out", str(tmp_path / "out")]) == 2
    assert "none.mp4" in caplog.text
    assert not (tmp_path / "out").exists()
