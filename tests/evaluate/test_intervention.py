"""Modality shares against intervention, on a network whose effects can be computed by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.evaluate.intervention import (
    ALL_KINDS,
    FURTHER_KINDS,
    TALKING_KINDS,
    Change,
    SegmentEffects,
    agreement_rows,
    correlation_rows,
    decisive_rows,
    effects,
    known_decisive,
    replaced,
    shares_at_fusion,
)
from asd_explain.evaluate.segments import Segment, inputs_of
from asd_explain.explain.shares import KINDS, modality_shares
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.se import SqueezeExcite

WEIGHTS = {"audio": 1.0, "face": -2.0, "body": 0.0}
ABSENT = {"audio": 0.5, "face": 0.25, "body": 0.75}


class Sum(FusionBackbone):
    """Margin = 1 x energy / 10 - 2 x gray / 100 + 0 x body + 1; one channel that counts a stream, one that does not."""

    streams = {"audio": 2, "face": 2, "body": 2}  # noqa: RUF012
    halo_frames = 0
    learned_absence = True

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.absent = {s: torch.tensor([v, 0.0]) for s, v in ABSENT.items()}
        self.encoded: list[str] = []

    def audio_embedding(self, audio: torch.Tensor) -> torch.Tensor:
        self.encoded.append("audio")
        energy = audio[..., :1].clamp_min(0).unflatten(1, (-1, 4)).mean(2) / 10
        return torch.cat((energy, torch.ones_like(energy)), -1)

    def face_maps(self, face: torch.Tensor) -> torch.Tensor:
        self.encoded.append("picture")
        gray = face.float().mean((-2, -1))[:, :, None, None, None] / 100
        return torch.cat((gray, 0 * gray + 1), 2)

    body_maps = face_maps

    def encode(self, face=None, audio=None, body=None):
        given = {"audio": audio, "face": face, "body": body}
        pooled = {}
        for stream, values in given.items():
            if values is not None:
                pooled[stream] = (
                    self.audio_embedding(values) if stream == "audio" else self.pool(self.face_maps(values))
                )
        return pooled, {}

    def classify(self, *streams: torch.Tensor) -> torch.Tensor:
        margin = 1 + sum(WEIGHTS[name] * s[..., 0] for name, s in zip(self.streams, streams, strict=True))
        return torch.stack((torch.zeros_like(margin), margin), -1)


class TwoStreams(Sum):
    """Without body and without absence."""

    streams = {"audio": 2, "face": 2}  # noqa: RUF012
    learned_absence = False

    def encode(self, face=None, audio=None, body=None):
        return super().encode(face, audio)


LOUD = np.array([5.0, 30.0, 12.0, 18.0, 9.0], np.float32)
GRAY = np.array([100, 20, 60, 40, 80], np.uint8)


def _segment(name: str = "a#1@0", *, length: int = 5, audio: bool = True, body: bool = True) -> Segment:
    def pictures(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values[:length, None, None], (length, 112, 112)).copy()

    crops = {"face": pictures(GRAY)} | ({"body": pictures(GRAY[::-1])} if body else {})
    mfcc = np.zeros((4 * length, 13), np.float32)
    mfcc[:, 0] = np.repeat(LOUD[:length], 4)
    return Segment(name, name.split("#")[0], "real", crops, mfcc if audio else None)


@pytest.fixture
def model() -> Sum:
    return Sum().eval().requires_grad_(False)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_effects_by_hand(model: Sum) -> None:
    found = effects(model, _segment())
    margin = 1 + LOUD / 10 - 2 * GRAY / 100
    np.testing.assert_allclose(found.margin, margin, atol=1e-5)
    np.testing.assert_allclose(found.p, _sigmoid(margin), atol=1e-6)
    expected = {
        ("audio", "silence"): -LOUD / 10,
        ("audio", "absent"): 0.5 - LOUD / 10,
        ("face", "still"): -2 * (60 - GRAY.astype(float)) / 100,
        ("face", "gray"): -2 * (110 - GRAY.astype(float)) / 100,
        ("face", "absent"): -2 * (0.25 - GRAY / 100),
        ("body", "still"): 0 * LOUD,
        ("body", "gray"): 0 * LOUD,
        ("body", "absent"): 0 * LOUD,
    }
    assert set(found.changes) == set(expected)
    for key, moved in expected.items():
        change = found.changes[key]
        np.testing.assert_allclose(change.margin, moved, atol=1e-5, err_msg=str(key))
        np.testing.assert_allclose(change.p, _sigmoid(margin + moved) - _sigmoid(margin), atol=1e-6)
        np.testing.assert_allclose(change.moved("margin"), np.abs(moved), atol=1e-5)
        np.testing.assert_array_equal(change.moved("P"), np.abs(change.p))
    assert found.frames("speaking").tolist() == (margin >= 0).tolist()
    assert not (found.frames("silent") & found.frames("speaking")).any()


def test_every_stream_is_encoded_once_and_what_replaces_it_once(model: Sum) -> None:
    effects(model, _segment())
    # Own: one sound, two pictures. Instead: silence; a still and a gray each.
    assert sorted(model.encoded) == ["audio"] * 2 + ["picture"] * 6


def test_a_stream_that_is_ignored_has_no_effect_and_no_share_of_it(model: Sum) -> None:
    found = effects(model, _segment())
    for replacement in ("still", "gray", "absent"):
        assert found.changes["body", replacement].moved("P").max() == 0
    for kind in ("left-at-mean", "left-at-mean, P"):
        assert found.shares[kind]["body"].max() == 0
    # The shares from activations cannot know it.
    assert found.shares["gated-activation"]["body"].min() > 0


def test_shares_left_at_the_mean_by_hand(model: Sum) -> None:
    found = effects(model, _segment())
    audio, face = np.abs(LOUD - LOUD.mean()) / 10, 2 * np.abs(GRAY - GRAY.mean()) / 100
    face, audio = face.astype(np.float64), audio.astype(np.float64)
    # Frame 2 is at the mean of the face and near that of the sound.
    np.testing.assert_allclose(found.shares["left-at-mean"]["audio"], audio / (audio + face), atol=1e-4)
    deviations = np.stack([LOUD / 10, GRAY / 100, GRAY[::-1] / 100])
    deviations = np.abs(deviations - deviations.mean(1, keepdims=True))
    np.testing.assert_allclose(found.shares["gated-deviation"]["face"], deviations[1] / deviations.sum(0), atol=1e-4)
    for kind in ALL_KINDS:
        np.testing.assert_allclose(sum(found.shares[kind].values()), 1, atol=1e-6)


def test_stored_means_come_before_those_of_the_segment(model: Sum) -> None:
    block = SqueezeExcite(6, standardise=True).eval().requires_grad_(False)
    nn.init.zeros_(block.expand.weight)
    block.expand.bias.copy_(torch.tensor([0.8, 0.5, 0.5, 0.5, 0.9, 0.9]).logit())
    block.set_statistics(torch.tensor([1.0, 0.0, 0.2, 0.0, 0.3, 0.0]), torch.ones(6))
    model.attach_gates(block)
    pooled, _ = model.encode(**inputs_of(model, _segment()))
    streams, shares = shares_at_fusion(model, pooled, "left-at-mean")
    audio, face = 0.8 * np.abs(LOUD / 10 - 1.0), 0.5 * 2 * np.abs(GRAY / 100 - 0.2)
    assert streams == ["audio", "face", "body"]
    np.testing.assert_allclose(shares[0, :, 0], audio / (audio + face), atol=1e-5)
    for kind in KINDS:
        own = shares_at_fusion(model, pooled, kind)[1]
        torch.testing.assert_close(own, modality_shares(model.fuse(pooled), kind)[1])
    with pytest.raises(OptionError, match="votes"):
        shares_at_fusion(model, pooled, "votes")


@pytest.mark.parametrize("length", [1, 2])
def test_short_segments_and_constant_gates_give_no_nan(model: Sum, length: int) -> None:
    found = effects(model, _segment(length=length))
    for kind in ALL_KINDS:
        values = np.stack(list(found.shares[kind].values()))
        assert np.isfinite(values).all()
        np.testing.assert_allclose(values.sum(0), 1, atol=1e-6)
    rows = [correlation_rows([found], draws=5), agreement_rows([found], draws=5)]
    json.dumps(rows, allow_nan=False)
    if length == 1:  # nothing deviates from its own mean: all streams alike
        assert [float(found.shares["gated-deviation"][s][0]) for s in model.streams] == pytest.approx([1 / 3] * 3)


def test_what_is_not_there_is_not_replaced(model: Sum) -> None:
    found = effects(model, _segment(audio=False, body=False))
    assert set(found.changes) == {("face", "still"), ("face", "gray")}  # absent, nothing would be left
    for kind in FURTHER_KINDS:
        assert np.delete(found.shares[kind]["audio"], 2).max() == 0  # frame 2 is at the mean, all share equally
    assert agreement_rows([found]) == []  # one stream is no comparison
    two = TwoStreams().eval()
    assert set(effects(two, _segment()).changes) == {
        ("audio", "silence"),
        ("face", "still"),
        ("face", "gray"),
    }
    for stream, replacement in (("face", "absent"), ("face", "silence"), ("nose", "still")):
        with pytest.raises(OptionError, match=r"absent|replaced"):
            replaced(two, _segment(), stream, replacement)


def _made(
    name: str, shares: dict[str, list[float]], moved: dict[str, list[float]], p: list[float] | None = None
) -> SegmentEffects:
    """Effects made up, the same of every kind of shares and for P and margin, by silence and gray."""
    length = len(next(iter(shares.values())))
    values = {s: np.array(v, np.float64) for s, v in moved.items()}
    by = {"audio": "silence", "face": "gray", "body": "gray"}
    p = np.full(length, 0.9) if p is None else np.array(p)
    return SegmentEffects(
        name,
        name.split("#")[0],
        p,
        p,
        {(s, by[s]): Change(-v, v) for s, v in values.items()},
        {kind: {s: np.array(v, np.float64) for s, v in shares.items()} for kind in ALL_KINDS},
    )


def test_correlation_within_segments_and_over_all_by_hand() -> None:
    # Within each segment share and effect rise together; over both they do not.
    found = [
        _made("a#1@0", {"audio": [0.1, 0.2, 0.3]}, {"audio": [4.0, 5.0, 6.0]}),
        _made("b#1@0", {"audio": [0.7, 0.8, 0.9]}, {"audio": [1.0, 2.0, 3.0]}),
    ]
    rows = correlation_rows(found, draws=50)
    (row,) = [r for r in rows if (r["kind"], r["of"], r["effect_on"]) == ("mean-gate", "all", "P")]
    assert row["segment"] == pytest.approx(1)
    # ranks 1..6 against 4 5 6 1 2 3: 1 - 6 * 54 / 210
    assert row["pooled"] == pytest.approx(1 - 6 * 54 / 210)
    assert (row["segments"], row["frames"]) == (2, 6)
    assert (row["effect"], row["share"]) == (pytest.approx(3.5), pytest.approx(0.5))
    assert row["low"] <= row["pooled"] <= row["high"]
    (silent,) = [r for r in rows if (r["kind"], r["of"], r["effect_on"]) == ("mean-gate", "silent", "P")]
    assert (silent["frames"], silent["pooled"], silent["effect"]) == (0, None, None)
    assert correlation_rows(found, draws=50) == rows


def test_rounding_is_no_effect_to_rank_by() -> None:
    noise = (1e-9 * np.random.default_rng(0).random(20)).tolist()
    found = [_made("a#1@0", {"audio": np.linspace(0, 1, 20).tolist()}, {"audio": noise})]
    assert all(r["pooled"] is r["low"] is r["segment"] is None for r in correlation_rows(found, draws=5))


def test_agreement_and_its_chance_by_hand() -> None:
    shares = {"audio": [0.6, 0.6, 0.6, 0.1, 0.6], "face": [0.4, 0.4, 0.4, 0.9, 0.4]}
    moved = {"audio": [1.0, 1.0, 0.0, 0.0, 0.5], "face": [0.0, 0.0, 1.0, 1.0, 0.5]}  # the last is a tie
    rows = agreement_rows([_made("a#1@0", shares, moved)], draws=5)
    assert {r["removal"] for r in rows} == {"gray"}  # the others were not tried
    (row,) = [r for r in rows if (r["kind"], r["of"], r["effect_on"]) == ("mean-gate", "all", "margin")]
    assert row["frames"] == 4
    assert row["agreement"] == pytest.approx(3 / 4)
    assert row["constant"] == pytest.approx(2 / 4)
    assert row["independent"] == pytest.approx(3 / 4 * 2 / 4 + 1 / 4 * 2 / 4)
    assert row["streams"] == {"audio": 0.5, "face": 0.5}
    (none,) = [r for r in rows if (r["kind"], r["of"], r["effect_on"]) == ("mean-gate", "silent", "P")]
    assert (none["frames"], none["agreement"]) == (0, None)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999))
def test_shares_that_are_the_effects_agree_entirely(seed: int) -> None:
    values = np.random.default_rng(seed).random((3, 12)) + 1e-3
    moved = dict(zip(("audio", "face", "body"), values.tolist(), strict=True))
    found = [_made("a#1@0", dict(zip(moved, (values / values.sum(0)).tolist(), strict=True)), moved)]
    for row in agreement_rows(found, draws=0):
        assert row["frames"] == 0 or row["agreement"] == 1
    same = [_made("a#1@0", moved, {s: (5 * np.array(v) ** 3).tolist() for s, v in moved.items()})]
    for row in correlation_rows(same, draws=0):
        assert row["frames"] == 0 or row["pooled"] == pytest.approx(1)
        assert row["low"] is None


def test_left_at_mean_names_the_stream_of_the_largest_effect(model: Sum) -> None:
    # Without it the face is as in the segment's middle, which is its mean: the linear network moves by as much.
    found = effects(model, _segment())
    rows = {(r["kind"], r["stream"], r["replacement"]): r for r in correlation_rows([found], draws=0)
            if (r["of"], r["effect_on"]) == ("all", "margin")}  # fmt: skip
    assert rows["left-at-mean", "face", "still"]["effect"] == pytest.approx(2 * 24 / 100)
    moved = found.changes["face", "still"].moved("margin")
    held = 2 * np.abs(GRAY.astype(float) - 60) / 100
    np.testing.assert_allclose(moved, held, atol=1e-5)


NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "truth", "talking", "voiced", "expected"),
    [
        ("monologue", 1, 1, None, ""),
        ("mouthing", 0, 1, None, "audio"),
        ("mouthing", 0, 1, True, "audio"),  # music, say
        ("mouthing", 0, 0, None, ""),
        ("mouthing", 0, 0, True, "face"),
        ("dubbed", 0, 1, None, ""),
        ("dubbed", 0, 1, True, ""),
        ("dubbed", 0, 1, False, "audio"),
        ("dubbed", 0, 0, None, "face"),
        ("offscreen", 0, 0, None, "face"),
        ("offscreen", 0, 0, False, ""),
        ("offscreen", 1, 1, True, ""),
        ("turns", 0, 0, True, "face"),
        ("overlap", NAN, NAN, True, ""),
        ("offscreen", 0, NAN, None, ""),
    ],
)
def test_known_decisive(kind: str, truth: float, talking: float, voiced: bool | None, expected: str) -> None:
    heard = None if voiced is None else np.full(3, voiced)
    assert known_decisive(kind, np.full(3, truth), np.full(3, talking), heard).tolist() == [expected] * 3


def test_decisive_streams_are_known_of_silent_frames_only() -> None:
    for kind in TALKING_KINDS:
        speaking = known_decisive(kind, np.ones(2), np.ones(2), np.array([True, False]))
        assert speaking.tolist() == ["", ""]
    with pytest.raises(OptionError, match="opera"):
        known_decisive("opera", np.zeros(1), np.zeros(1))


def test_decisive_rows_by_hand() -> None:
    found = _made(
        "a#1@0",
        {"audio": [0.6, 0.6, 0.1, 0.1], "face": [0.4, 0.4, 0.9, 0.9]},
        {"audio": [1.0, 0.0, 1.0, 1.0], "face": [0.0, 1.0, 0.0, 0.0]},
        p=[0.1, 0.1, 0.1, 0.9],  # of the last the network says speaking
    )
    other = _made("b#1@0", {"audio": [1.0], "face": [0.0]}, {"audio": [1.0], "face": [0.0]}, p=[0.1])
    rows = {r["kind"]: r for r in decisive_rows([found, other], {"a#1@0": np.array(["audio", "face", "face", "face"])})}
    assert set(rows) == {*ALL_KINDS, "effect of gray on P", "effect of gray on margin"}
    assert rows["mean-gate"]["frames"] == 3
    assert rows["mean-gate"]["agreement"] == pytest.approx(2 / 3)
    assert rows["mean-gate"]["constant"] == pytest.approx(2 / 3)
    assert rows["effect of gray on P"]["agreement"] == pytest.approx(2 / 3)
    assert decisive_rows([other], {}) == []
