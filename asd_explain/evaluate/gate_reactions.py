"""Do modality shares react to what is done to a modality, and do they say what the network would miss?

On each face track a picture or a sound is changed, everything else stays, and the shares of
:mod:`asd_explain.explain.shares`, of both kinds, are compared on the same frames. Every intervention has an expected
direction for one stream, written down here before anything is measured; what is measured is reported whichever way it
goes. "Importance by intervention" is how far P(speaking) moves when a stream is made absent: what the shares would have
to rank the tracks by if they meant importance.

P is that of the whole track in one pass. A frame's share does not depend on the frames beside it (but for the
encoders' few). A track counts as one, however long; intervals are over clips, as the faces of a clip share its sound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from asd_explain.errors import OptionError
from asd_explain.evaluate.detection import Interval
from asd_explain.evaluate.pooled import held_stream
from asd_explain.evaluate.stream_views import TINY, Scorer, ViewedTrack
from asd_explain.evaluate.sufficiency import rank_correlation
from asd_explain.explain.shares import KINDS, modality_shares
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.output import Output
from asd_explain.tracks.crops import CROP_SIZE, OUTSIDE

P = "P"
#: Width of the body box in sides of the face: bodies of larger faces have more pixels than their crop.
BODY_SIDE = 3
#: Changes smaller than this are rounding, not a direction.
_STILL = 1e-6


@dataclass(frozen=True)
class Intervention:
    """What is changed on a track, and what is expected of it.

    Attributes:
        name: for the report.
        sound: "own", "silence", "other" (another person's voice) or "absent".
        views: {visual stream: view}; a view of :mod:`~asd_explain.evaluate.stream_views`, "gray" (an even gray crop) or
            "absent"; streams that are not named are as they are.
        watched: the stream whose share, or ``P``, is expected to move.
        expected: 1 it rises, -1 it falls, 0 nothing is expected.
        voiced_only: whether only frames count in which voices are heard, before and after.
    """

    name: str
    sound: str = "own"
    views: Mapping[str, str] = field(default_factory=dict)
    watched: str = P
    expected: int = 0
    voiced_only: bool = False


OWN = Intervention("own")


def interventions(streams: Sequence[str], learned_absence: bool) -> list[Intervention]:
    """All that can be done to a network of these streams.

    Args:
        streams: "audio", "face" and maybe "body".
        learned_absence: whether the network knows of streams that are not there.
    """
    found = [
        Intervention("silence", "silence", watched="audio", expected=-1, voiced_only=True),
        Intervention("other voice", "other", watched=P, expected=-1, voiced_only=True),
        Intervention("face gray", views={"face": "gray"}, watched="face", expected=-1),
    ]
    body = "body" in streams
    if body:
        hidden = {"face": "gray", "body": "hidden"}
        found += [
            Intervention("face gray, in the body too", views=hidden, watched="face", expected=-1),
            Intervention("body gray", views={"body": "gray"}, watched="body", expected=-1),
        ]
    if learned_absence:
        found.append(Intervention("audio absent", "absent", watched="audio", expected=-1))
        found += [
            Intervention(f"{s} absent", views={s: "absent"}, watched=s, expected=-1) for s in streams if s != "audio"
        ]
    for tiny in TINY:
        px = tiny.removeprefix("tiny")
        if body:
            found.append(Intervention(f"face {px} px", views={"face": tiny}, watched="body", expected=1))
            if int(px) * BODY_SIDE < CROP_SIZE:
                both = {"face": tiny, "body": tiny}
                found.append(Intervention(f"face {px} px, body as small", views=both, watched="body", expected=1))
        else:
            found.append(Intervention(f"face {px} px", views={"face": tiny}, watched="face", expected=-1))
    return found


def removals(streams: Sequence[str], learned_absence: bool) -> dict[str, str]:
    """{stream: name of the intervention that takes it away}: its learned absence, or else silence and gray crops."""
    if learned_absence:
        return {s: f"{s} absent" for s in streams}
    return {s: "silence" if s == "audio" else f"{s} gray" for s in streams}


def pooled_under(
    model: FusionBackbone, scorer: Scorer, track: ViewedTrack, what: Intervention
) -> dict[str, torch.Tensor] | None:
    """{stream: (1, T, C)} embeddings of a track under an intervention; absent streams are left out.

    A clip without a sound track has none before either: its audio is absent, or silence for a network that knows no
    absence. None where its sound would have to be changed, or where there is no other voice.

    Raises:
        OptionError: a stream is to be absent for a network that does not know absence.
    """
    base, absence = track.pooled, model.learned_absence
    if not absence and "absent" in (what.sound, *what.views.values()):
        raise OptionError(f"{type(model).__name__} has no absent state; use gray crops and silence")
    sound = what.sound
    if not base.has_audio:
        if sound != "own":
            return None
        sound = "absent" if absence else "silence"
    pooled: dict[str, torch.Tensor] = {}
    for stream in model.streams:
        view = sound if stream == "audio" else what.views.get(stream, "own")
        if view == "absent":
            continue
        if stream == "audio":
            given = scorer.conditions.inputs(base, sound)
            if given is None:
                return None
            pooled[stream] = given[0][None]
        elif view == "gray":
            gray = np.full((CROP_SIZE, CROP_SIZE), OUTSIDE, np.uint8)
            beside = dict.fromkeys(model.beside.get(stream, ()), gray)
            pooled[stream] = held_stream(model, stream, gray, len(base), beside)[None]
        else:
            pooled[stream] = track.views[view][stream][None]
    return pooled


@dataclass(frozen=True)
class Change:
    """What an intervention does to one track, means over its frames.

    Attributes:
        shares: {kind: {stream: change of the share}}.
        p: change of P(speaking).
        p_moved: mean |change of P(speaking)|.
        margin_moved: mean |change of the margin|.
        frames: how many frames counted.
    """

    shares: dict[str, dict[str, float]]
    p: float
    p_moved: float
    margin_moved: float
    frames: int


@dataclass(frozen=True)
class TrackReactions:
    """One track.

    Attributes:
        clip: the clip's name, by which intervals resample.
        shares: {kind: {stream: mean share}} as the track is.
        p: mean P(speaking) as it is.
        changes: {intervention: what it does}; interventions that this track does not allow are missing.
    """

    clip: str
    shares: dict[str, dict[str, float]]
    p: float
    changes: dict[str, Change]


def _shares(output: Output) -> dict[str, dict[str, torch.Tensor]]:
    found = {}
    for kind in KINDS:
        streams, shares = modality_shares(output, kind)
        found[kind] = dict(zip(streams, shares[0].double().unbind(-1), strict=True))
    return found


@torch.inference_mode()
def react(model: FusionBackbone, scorer: Scorer, track: ViewedTrack, asked: Sequence[Intervention]) -> TrackReactions:
    """All interventions on one track.

    Args:
        model: with its gates.
        scorer: of the material that the track is from; it knows the sounds.
        track: under all views.
        asked: what to do.
    """
    own = model.fuse(pooled_under(model, scorer, track, OWN))
    before, p, margin = _shares(own), own.p_speaking[0].double(), own.margin[0].double()
    changes = {}
    for what in asked:
        pooled = pooled_under(model, scorer, track, what)
        if pooled is None:
            continue
        where = torch.ones(len(p), dtype=torch.bool)
        if what.voiced_only:
            where &= torch.from_numpy(track.pooled.voiced)
            if what.sound == "other":
                where &= torch.from_numpy(scorer.voiced(track, "other"))
        if not where.any():
            continue
        output = model.fuse(pooled)
        moved, margin_moved = (output.p_speaking[0] - p)[where], (output.margin[0] - margin)[where]
        after = _shares(output)
        changes[what.name] = Change(
            shares={k: {s: float((after[k][s] - v)[where].mean()) for s, v in before[k].items()} for k in KINDS},
            p=float(moved.mean()),
            p_moved=float(moved.abs().mean()),
            margin_moved=float(margin_moved.abs().mean()),
            frames=int(where.sum()),
        )
    return TrackReactions(
        clip=track.pooled.name.split("#")[0],
        shares={k: {s: float(v.mean()) for s, v in before[k].items()} for k in KINDS},
        p=float(p.mean()),
        changes=changes,
    )


def clip_interval(
    statistic: Callable[[np.ndarray], float],
    clips: Sequence[str],
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic of tracks when whole clips are drawn with replacement.

    Args:
        statistic: of the (n,) indices of the tracks drawn; resamples in which it is NaN are left out.
        clips: (N,) which clip each track is from.
        draws, level, seed: as for :func:`asd_explain.evaluate.detection.bootstrap_interval`.

    Returns:
        Ends are NaN with fewer than two clips.
    """
    names, index = np.unique(np.asarray(clips), return_inverse=True)
    members = [np.flatnonzero(index == i) for i in range(len(names))]
    rng = np.random.default_rng(seed)
    found = []
    if len(names) > 1:
        for _ in range(draws):
            found.append(statistic(np.concatenate([members[i] for i in rng.integers(len(names), size=len(names))])))
    kept = np.array([value for value in found if not math.isnan(value)])
    if not len(kept):
        return Interval(math.nan, math.nan, len(names), 0)
    low, high = np.quantile(kept, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(low), float(high), len(names), len(kept))


def mean_with_interval(values: np.ndarray, clips: Sequence[str], *, draws: int = 1000, seed: int = 0) -> dict:
    """{"mean", "low", "high"} of (N,) values of tracks; NaN where there is none."""
    values = np.asarray(values, np.float64)
    if not len(values):
        return {"mean": math.nan, "low": math.nan, "high": math.nan}
    ends = clip_interval(lambda chosen: float(values[chosen].mean()), clips, draws=draws, seed=seed)
    return {"mean": float(values.mean()), "low": ends.low, "high": ends.high}


def verdict(figures: Mapping[str, float], expected: int) -> str:
    """What an interval says of an expected direction.

    Args:
        figures: with "low" and "high".
        expected: 1, -1 or 0.

    Returns:
        "as expected" or "contrary" where the interval lies on one side of zero; else "not shown"; "nothing expected".
    """
    if not expected:
        return "nothing expected"
    low, high = sorted((expected * figures["low"], expected * figures["high"]))
    return "as expected" if low > _STILL else "contrary" if high < -_STILL else "not shown"


def summarise(
    tracks: Sequence[TrackReactions], asked: Sequence[Intervention], *, draws: int = 1000, seed: int = 0
) -> dict:
    """Reactions of all tracks, intervention by intervention.

    Returns:
        {intervention: {"watched", "expected", "frames": "voiced" or "all", "tracks", "P": and "shares": {kind: {stream:
        }}: mean change over tracks with its interval; of what is watched also "moved_as_expected", the share of tracks
        that moved that way (0.5 would be chance), "verdict", and "by_definition": the share of an absent stream is zero
        for the kind "gated-activation" whatever the network does; "P_moved": mean |change of P|}}. Interventions that
        no track allows are left out.
    """
    found = {}
    for what in asked:
        own = [t for t in tracks if what.name in t.changes]
        if not own:
            continue
        clips, changes = [t.clip for t in own], [t.changes[what.name] for t in own]

        def figures(values: list[float], watched: bool, what: Intervention = what, clips: list[str] = clips) -> dict:
            found = mean_with_interval(np.array(values), clips, draws=draws, seed=seed)
            if watched and what.expected:
                moved = np.array(values) * what.expected > _STILL
                found |= {"moved_as_expected": float(moved.mean()), "verdict": verdict(found, what.expected)}
            return found

        absent = {s for s, view in {**what.views, "audio": what.sound}.items() if view == "absent"}
        shares = {
            kind: {s: figures([c.shares[kind][s] for c in changes], s == what.watched) for s in changes[0].shares[kind]}
            for kind in KINDS
        }
        for stream in absent:
            shares["gated-activation"][stream]["by_definition"] = True
        found[what.name] = {
            "watched": what.watched,
            "expected": what.expected,
            "frames": "voiced" if what.voiced_only else "all",
            "tracks": len(own),
            "P": figures([c.p for c in changes], what.watched == P),
            "P_moved": float(np.mean([c.p_moved for c in changes])),
            "shares": shares,
        }
    return found


def importance(
    tracks: Sequence[TrackReactions], without: Mapping[str, str], *, draws: int = 1000, seed: int = 0
) -> dict:
    """Do the shares rank the tracks as taking the stream away does?

    Over the tracks on which every stream can be taken away. A stream's ``effect`` on a track is the mean |change of P|
    (or of the margin) without it, its ``part`` that effect over the sum of all streams' effects: shares sum to one, so
    the part is the fairer thing to compare with.

    Args:
        tracks: with the reactions to ``without``.
        without: {stream: the intervention that takes it away}, see :func:`removals`.
        draws, seed: of the intervals.

    Returns:
        "tracks"; "removed_by"; "effect": {stream: mean |change of P| with its interval}; "part": {stream: mean part of
        P's change}; "share": {kind: {stream: mean}}; "correlation": {kind: {stream: {"effect, P", "part, P", "effect,
        margin", "part, margin": {"rho": Spearman's over tracks, "low", "high"}}}}; "same_first": {kind: {"agreement":
        share of tracks whose largest share is the stream of the largest effect on the margin, "constant": what always
        naming one stream would reach}}.
    """
    own = [t for t in tracks if all(name in t.changes for name in without.values())]
    clips, streams = [t.clip for t in own], list(without)
    found: dict = {"tracks": len(own), "removed_by": dict(without)}
    if not own:
        return found
    effects = {
        "P": np.array([[t.changes[without[s]].p_moved for s in streams] for t in own]),
        "margin": np.array([[t.changes[without[s]].margin_moved for s in streams] for t in own]),
    }
    parts = {k: e / np.maximum(e.sum(1, keepdims=True), 1e-12) for k, e in effects.items()}
    found["effect"] = {
        s: mean_with_interval(effects["P"][:, i], clips, draws=draws, seed=seed) for i, s in enumerate(streams)
    }
    found["part"] = {s: float(parts["P"][:, i].mean()) for i, s in enumerate(streams)}
    found["share"], found["correlation"], found["same_first"] = {}, {}, {}
    first = effects["margin"].argmax(1)
    for kind in KINDS:
        shares = np.array([[t.shares[kind][s] for s in streams] for t in own])
        found["share"][kind] = dict(zip(streams, shares.mean(0).tolist(), strict=True))
        found["correlation"][kind] = {
            s: {
                f"{title}, {of}": correlation(shares[:, i], values[of][:, i], clips, draws=draws, seed=seed)
                for of in effects
                for title, values in (("effect", effects), ("part", parts))
            }
            for i, s in enumerate(streams)
        }
        found["same_first"][kind] = {
            "agreement": float((shares.argmax(1) == first).mean()),
            "constant": float(np.bincount(first).max() / len(first)),
        }
    return found


def correlation(a: np.ndarray, b: np.ndarray, clips: Sequence[str], *, draws: int = 1000, seed: int = 0) -> dict:
    """{"rho": Spearman's correlation of two (N,) samples of tracks, "low", "high"}; NaN with fewer than three tracks or
    where one is constant."""
    x, y = torch.as_tensor(a), torch.as_tensor(b)

    def rho(chosen: np.ndarray) -> float:
        c, d = x[chosen], y[chosen]
        if len(c) < 3 or c.min() == c.max() or d.min() == d.max():
            return math.nan
        return rank_correlation(c, d)

    ends = clip_interval(rho, clips, draws=draws, seed=seed)
    return {"rho": rho(np.arange(len(x))), "low": ends.low, "high": ends.high}
