"""Reactions of shares, against what can be computed by hand on a network whose gates are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gated_support import KnownGates, known_track

from asd_explain.errors import OptionError
from asd_explain.evaluate.gate_reactions import (
    OWN,
    Change,
    Intervention,
    TrackReactions,
    clip_interval,
    correlation,
    importance,
    interventions,
    mean_with_interval,
    pooled_under,
    react,
    removals,
    summarise,
    verdict,
)
from asd_explain.evaluate.stream_views import Scorer
from asd_explain.explain.shares import KINDS
from asd_explain.tracks.crops import OUTSIDE


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.fixture
def scorer() -> Scorer:
    tracks = [known_track("a"), known_track("b", audio=4.0), known_track("c", has_audio=False, length=25)]
    found = Scorer(KnownGates(), tracks)
    found.tracks = tracks
    return found


def test_every_reaction_by_hand(scorer: Scorer) -> None:
    # Gates x activations: audio 0.5 * 2 = 1, face 0.25 * 4 = 1, body 0.25 * 8 = 2; the margin is their sum - 4 = 0.
    model, track = scorer.model, scorer.tracks[0]
    found = react(model, scorer, track, interventions(tuple(model.streams), True))
    assert found.clip == "single/a"
    assert found.p == pytest.approx(0.5)
    assert found.shares["gated-activation"] == pytest.approx({"audio": 0.25, "face": 0.25, "body": 0.5})
    assert found.shares["mean-gate"] == pytest.approx({"audio": 0.5, "face": 0.25, "body": 0.25})

    def moved(name: str, audio: float, face: float, body: float, margin: float) -> None:
        change, total = found.changes[name], audio + face + body
        expected = {"audio": audio / total - 0.25, "face": face / total - 0.25, "body": body / total - 0.5}
        assert change.shares["gated-activation"] == pytest.approx(expected, abs=1e-6), name
        assert change.shares["mean-gate"] == pytest.approx(dict.fromkeys(expected, 0.0), abs=1e-6)
        assert change.p == pytest.approx(sigmoid(margin) - 0.5, abs=1e-6)
        assert change.p_moved == pytest.approx(abs(sigmoid(margin) - 0.5), abs=1e-6)
        assert change.margin_moved == pytest.approx(abs(margin), abs=1e-5)

    gray = 2 * 0.25 * OUTSIDE / 100  # both channels
    moved("silence", 0, 1, 2, -1)
    moved("audio absent", 0, 1, 2, -1)
    moved("face absent", 1, 0, 2, -1)
    moved("body absent", 1, 1, 0, -2)
    moved("face gray", 1, gray, 2, gray - 1)
    moved("face gray, in the body too", 1, gray, 1.5, gray - 1.5)
    moved("face 16 px", 1, 0.5, 2, -0.5)
    moved("other voice", 2, 1, 2, 1)
    assert found.changes["silence"].frames == 15  # the voiced half
    assert found.changes["face 16 px"].frames == 30


def test_a_clip_without_sound_is_judged_by_sight(scorer: Scorer) -> None:
    model, silent = scorer.model, scorer.tracks[2]
    assert set(pooled_under(model, scorer, silent, OWN)) == {"face", "body"}
    found = react(model, scorer, silent, interventions(tuple(model.streams), True))
    assert not {"silence", "other voice", "audio absent"} & set(found.changes)
    assert found.shares["gated-activation"]["audio"] == 0
    model.learned_absence = False
    assert not pooled_under(model, scorer, silent, OWN)["audio"].any()
    with pytest.raises(OptionError, match="no absent state"):
        pooled_under(model, scorer, silent, Intervention("face absent", views={"face": "absent"}))


def test_what_can_be_asked_of_a_network() -> None:
    three = {i.name: i for i in interventions(("audio", "face", "body"), True)}
    assert (three["face 24 px"].watched, three["face 24 px"].expected) == ("body", 1)
    assert "face 40 px, body as small" not in three, "such a body has more pixels than its crop"
    two = interventions(("audio", "face"), False)
    assert not [i for i in two if "body" in (*i.views, i.watched) or "absent" in (i.sound, *i.views.values())]
    assert removals(("audio", "face"), False) == {"audio": "silence", "face": "face gray"}
    for streams, absence in ((("audio", "face", "body"), True), (("audio", "face"), False)):
        names = [i.name for i in interventions(streams, absence)]
        assert len(names) == len(set(names))
        assert set(removals(streams, absence).values()) <= set(names)


def test_intervals_draw_whole_clips() -> None:
    seen = []
    clip_interval(lambda chosen: seen.append(sorted(chosen.tolist())) or 0.0, ["a", "b", "a"], draws=40)
    assert {tuple(s) for s in seen} == {(0, 0, 2, 2), (0, 1, 2), (1, 1)}
    found = mean_with_interval(np.array([0.0, 0.0, 1.0, 1.0]), ["a", "a", "b", "b"], draws=200)
    assert found == {"mean": 0.5, "low": 0.0, "high": 1.0}
    assert math.isnan(mean_with_interval(np.array([1.0, 2.0]), ["a", "a"])["low"])
    assert math.isnan(mean_with_interval(np.array([]), [])["mean"])


@pytest.mark.parametrize(
    ("low", "high", "expected", "said"),
    [
        (0.1, 0.2, 1, "as expected"),
        (0.1, 0.2, -1, "contrary"),
        (-0.2, -0.1, -1, "as expected"),
        (-0.1, 0.2, 1, "not shown"),
        (math.nan, math.nan, 1, "not shown"),
        (0.1, 0.2, 0, "nothing expected"),
        (0.0, 1e-9, 1, "not shown"),
    ],
)
def test_verdict(low: float, high: float, expected: int, said: str) -> None:
    assert verdict({"low": low, "high": high}, expected) == said


def reaction(clip: str, share: float, change: float, moved: tuple[float, float] = (0.0, 0.0)) -> TrackReactions:
    """Audio's share is ``share`` and moves by ``change``; P and margin move by ``moved`` without audio, face."""
    shares = {kind: {"audio": share, "face": 1 - share} for kind in KINDS}
    changes = {
        name: Change({kind: {"audio": change, "face": -change} for kind in KINDS}, -by, by, 2 * by, 10)
        for name, by in zip(("audio absent", "face absent"), moved, strict=True)
    }
    return TrackReactions(clip, shares, 0.5, changes)


def test_summary_counts_tracks_that_moved_as_expected() -> None:
    tracks = [reaction(f"c{i}", 0.5, change) for i, change in enumerate((-0.3, -0.1, 0.0, 0.2))]
    asked = [
        Intervention("audio absent", "absent", watched="audio", expected=-1),
        Intervention("never", watched="P", expected=-1),
    ]
    found = summarise(tracks, asked, draws=50)
    assert list(found) == ["audio absent"]
    audio = found["audio absent"]["shares"]["mean-gate"]["audio"]
    assert audio["mean"] == pytest.approx(-0.05)
    assert audio["moved_as_expected"] == 0.5, "standing still is not moving"
    assert audio["verdict"] == "not shown"
    assert "verdict" not in found["audio absent"]["shares"]["mean-gate"]["face"]
    assert found["audio absent"]["shares"]["gated-activation"]["audio"]["by_definition"]
    assert "by_definition" not in audio


def test_importance_of_shares_that_mean_it_and_of_shares_that_do_not() -> None:
    right = [reaction(f"c{i}", s, 0.0, (s, 1 - s)) for i, s in enumerate((0.1, 0.3, 0.6, 0.8, 0.9))]
    without = {"audio": "audio absent", "face": "face absent"}
    found = importance(right, without, draws=50)
    assert found["tracks"] == 5
    assert found["effect"]["audio"]["mean"] == pytest.approx(0.54)
    assert found["part"] == pytest.approx({"audio": 0.54, "face": 0.46})
    assert all(c["rho"] == pytest.approx(1) for c in found["correlation"]["mean-gate"]["face"].values())
    assert found["same_first"]["mean-gate"] == {"agreement": 1.0, "constant": 0.6}
    wrong = [reaction(f"c{i}", s, 0.0, (1 - s, s)) for i, s in enumerate((0.1, 0.3, 0.6, 0.8, 0.9))]
    found = importance(wrong, without, draws=50)
    assert found["correlation"]["mean-gate"]["audio"]["part, margin"]["rho"] == pytest.approx(-1)
    assert found["same_first"]["mean-gate"]["agreement"] == 0
    assert importance([], without) == {"tracks": 0, "removed_by": without}


def test_correlation_of_constants_is_unknown() -> None:
    assert math.isnan(correlation(np.ones(4), np.arange(4.0), list("abcd"), draws=5)["rho"])
    assert math.isnan(correlation(np.arange(2.0), np.arange(2.0), list("ab"), draws=5)["rho"])


def test_gates_of_the_network_are_those_that_were_set(scorer: Scorer) -> None:
    assert torch.allclose(
        scorer.model.fusion_gate.excitation(torch.zeros(1, 1, 6)), torch.tensor([0.5, 0.5] + [0.25] * 4)
    )
