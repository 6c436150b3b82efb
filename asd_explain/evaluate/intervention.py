"""Do modality shares say what the network would miss? Frame by frame, on segments.

Each stream of a segment is replaced in turn while the others stay; what P(speaking) and the margin then do is the truth
that the shares are held against. Every stream is encoded once, whatever is tried. (:mod:`.gate_reactions` asks
the same of whole tracks.)

Two limits of this truth. What replaces a stream is evidence too: silence and a still say "silent", and where the lips
are still already, a still changes nothing although the face decides. Only "absent", which says nothing, can turn such a
verdict round. And where two streams are both needed, taking either takes all: their effects are then equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from asd_explain.errors import OptionError
from asd_explain.evaluate.gate_reactions import clip_interval
from asd_explain.evaluate.pooled import crops_beside, held_stream, pooled_audio
from asd_explain.evaluate.segments import Segment, inputs_of, visual_streams
from asd_explain.evaluate.sufficiency import rank_correlation
from asd_explain.explain.shares import KINDS, modality_shares
from asd_explain.media.mfcc import aligned_mfcc
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.output import Output
from asd_explain.tracks.crops import CROP_SIZE, OUTSIDE

#: What a stream can be replaced by. Sound: digital silence, or its learned absence. Pictures: the segment's middle one
#: held, an even gray, or the learned absence. Absence only where the network knows of it.
REPLACEMENTS = {
    "audio": ("silence", "absent"),
    "face": ("still", "gray", "absent"),
    "body": ("still", "gray", "absent"),
}
#: Sets of replacements that take every stream away in a like manner, for comparisons between streams.
REMOVALS = {
    "absent": {"audio": "absent", "face": "absent", "body": "absent"},
    "still": {"audio": "silence", "face": "still", "body": "still"},
    "gray": {"audio": "silence", "face": "gray", "body": "gray"},
}
#: Shares that need the segment and not the frame alone, or the network from the fusion point on.
FURTHER_KINDS = ("gated-deviation", "left-at-mean", "left-at-mean, P")
ALL_KINDS = (*KINDS, *FURTHER_KINDS)
EFFECTS = ("P", "margin")
FRAMES = ("all", "speaking", "silent")
#: Changes smaller than this are rounding.
_STILL = 1e-6
TALKING_KINDS = ("turns", "overlap", "monologue", "offscreen", "mouthing", "dubbed")
#: Those in which a voice of somebody else is heard most of the time that a person is silent.
_OTHER_VOICES = ("turns", "overlap", "offscreen", "dubbed")


@dataclass(frozen=True)
class Change:
    """What a replacement does: (T,) float64 value with it minus value without, of P(speaking) and of the margin."""

    p: np.ndarray
    margin: np.ndarray

    def moved(self, effect: str) -> np.ndarray:
        """(T,) absolute change of "P" or "margin"."""
        return np.abs(self.p if effect == "P" else self.margin)


@dataclass(frozen=True)
class SegmentEffects:
    """One segment.

    Attributes:
        name, clip: the segment's.
        p, margin: (T,) float64 as it is.
        changes: {(stream, replacement): what it does}; streams that the segment has not are missing.
        shares: {kind of ``ALL_KINDS``: {stream: (T,)}}, summing to 1 over the network's streams.
    """

    name: str
    clip: str
    p: np.ndarray
    margin: np.ndarray
    changes: dict[tuple[str, str], Change]
    shares: dict[str, dict[str, np.ndarray]]

    def frames(self, which: str) -> np.ndarray:
        """(T,) bool: "all", or those called "speaking" (P >= 0.5) or "silent"."""
        speaking = self.p >= 0.5
        return {"all": np.ones_like(speaking), "speaking": speaking, "silent": ~speaking}[which]


def _deviation_amounts(output: Output) -> list[torch.Tensor]:
    """Sum over channels of gate times |standardised activation minus its mean over the clip's frames|."""
    return [
        (gates * (output.standardised[s] - output.standardised[s].mean(1, keepdim=True)).abs()).sum(-1)
        for s, gates in output.fusion_gates.items()
    ]


def _without(
    model: FusionBackbone, pooled: Mapping[str, torch.Tensor], output: Output
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(|change of margin|, |change of P|), (B, T) each, of each stream when it is held at its mean embedding."""
    block, widths = model.fusion_gate, list(model.fusion_streams.values())
    stored = None
    # Behind projections the block's statistics are of other vectors than those that `fuse` takes.
    if block is not None and block.mean is not None and model.fusion_streams == model.streams:
        stored = dict(zip(model.streams, block.mean.split(widths), strict=True))
    amounts = []
    for stream in model.streams:
        if stream not in pooled:  # absent: nothing to take away
            amounts.append((torch.zeros_like(output.margin), torch.zeros_like(output.margin)))
            continue
        own = pooled[stream]
        mean = own.mean(1, keepdim=True) if stored is None else stored[stream]
        changed = model.fuse({**pooled, stream: mean.expand_as(own)})
        amounts.append(((changed.margin - output.margin).abs(), (changed.p_speaking - output.p_speaking).abs()))
    return amounts


def shares_at_fusion(
    model: FusionBackbone, pooled: Mapping[str, torch.Tensor], kind: str, output: Output | None = None
) -> tuple[list[str], torch.Tensor]:
    """Shares of the streams of any of ``ALL_KINDS``, without gradient and without an encoder.

    ``gated-deviation``: sum over a stream's channels of gate times |standardised activation minus its mean over the
    frames given|; it costs nothing beyond scoring. ``left-at-mean``:
    how far the margin (or P) moves when the stream is held at its mean, from which alone nothing can be told: the mean
    stored in the block, else that over the frames given. It costs one more ``fuse`` a stream: no encoder, the
    classifier once more. All are divided by their sum over the streams; where that is zero, they share equally.

    Args:
        model: the network.
        pooled: {stream: (B, T, C)} of whole clips or segments; streams that are not there are missing.
        kind: of ``ALL_KINDS``.
        output: what ``fuse`` makes of them, where it is known.

    Returns:
        (stream names, (B, T, streams) shares that sum to 1).

    Raises:
        OptionError: for an unknown kind.
    """
    if kind not in ALL_KINDS:
        raise OptionError(f"unknown kind of shares {kind!r}; choose one of {', '.join(ALL_KINDS)}")
    output = model.fuse(dict(pooled)) if output is None else output
    if kind in KINDS:
        return modality_shares(output, kind)
    if kind == "gated-deviation":
        amounts = _deviation_amounts(output)
    else:
        amounts = [by_margin if kind == "left-at-mean" else by_p for by_margin, by_p in _without(model, pooled, output)]
    stacked = torch.stack(amounts, -1)
    total = stacked.sum(-1, keepdim=True)
    tiny = torch.finfo(total.dtype).tiny
    return list(model.streams), torch.where(total > 0, stacked / total.clamp_min(tiny), 1 / len(amounts))


def replaced(model: FusionBackbone, segment: Segment, stream: str, replacement: str) -> torch.Tensor | None:
    """(1, T, C) embedding of what takes a stream's place; None for its learned absence.

    Raises:
        OptionError: a replacement that the stream, or the network, does not know.
    """
    if replacement not in REPLACEMENTS.get(stream, ()):
        raise OptionError(f"{stream} cannot be replaced by {replacement!r}; it can by {REPLACEMENTS.get(stream, ())}")
    if replacement == "absent":
        if not model.learned_absence:
            raise OptionError(f"{type(model).__name__} has no absent state; use silence, stills or gray crops")
        return None
    if stream == "audio":
        return pooled_audio(model, aligned_mfcc(None, 0.0, len(segment)))[None]
    pictures = {stream: segment.crops[stream]} | crops_beside(model, stream, segment.crops)
    gray = np.full((CROP_SIZE, CROP_SIZE), OUTSIDE, np.uint8)
    held = {s: crops[len(segment) // 2] if replacement == "still" else gray for s, crops in pictures.items()}
    return held_stream(model, stream, held.pop(stream), len(segment), held)[None]


@torch.inference_mode()
def effects(model: FusionBackbone, segment: Segment) -> SegmentEffects:
    """Replace every stream that a segment has by everything that can replace it; see ``REPLACEMENTS``.

    A clip without a sound track has no sound to replace. A stream is not made absent where no other is left.
    """
    pooled, _ = model.encode(**inputs_of(model, segment))
    own = model.fuse(pooled)
    p, margin = (v[0].double().cpu().numpy() for v in (own.p_speaking, own.margin))
    there = [*(["audio"] if segment.mfcc is not None else []), *visual_streams(model, segment)]
    changes = {}
    for stream in (s for s in model.streams if s in there):
        for replacement in REPLACEMENTS[stream]:
            others = {s: v for s, v in pooled.items() if s != stream}
            if replacement == "absent" and not (model.learned_absence and others):
                continue
            values = replaced(model, segment, stream, replacement)
            output = model.fuse(others if values is None else {**others, stream: values})
            after = (v[0].double().cpu().numpy() for v in (output.p_speaking, output.margin))
            changes[stream, replacement] = Change(*(a - b for a, b in zip(after, (p, margin), strict=True)))
    shares = {}
    for kind in ALL_KINDS:
        streams, values = shares_at_fusion(model, pooled, kind, own)
        shares[kind] = dict(zip(streams, values[0].double().cpu().numpy().T, strict=True))
    return SegmentEffects(segment.name, segment.clip, p, margin, changes, shares)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation of two (N,) samples, ties averaged; NaN with fewer than three values, or where one moves
    by no more than rounding."""
    if len(a) < 3 or min(np.ptp(a), np.ptp(b)) < _STILL:
        return math.nan
    return rank_correlation(torch.from_numpy(a), torch.from_numpy(b))


def correlation_rows(found: Sequence[SegmentEffects], *, draws: int = 200, seed: int = 0) -> list[dict]:
    """Does a stream's share rise and fall with what the network would miss without it?

    Returns:
        One dict a kind of shares, stream, replacement, effect ("P", "margin") and class of frames: "pooled", Spearman's
        correlation over all frames, with its interval over clips ("low", "high"); "segment", mean of that within each
        segment, over those "segments" in which neither is constant; "effect", mean absolute change; "share", mean
        share; "frames". What does not exist is None. 1 is best; 0 is chance.
    """
    keys = dict.fromkeys(key for one in found for key in one.changes)
    rows = []
    for stream, replacement in keys:
        own = [one for one in found if (stream, replacement) in one.changes]
        for frames in FRAMES:
            masks = [one.frames(frames) for one in own]
            clips = np.concatenate([np.repeat(one.clip, m.sum()) for one, m in zip(own, masks, strict=True)])
            for effect in EFFECTS:
                moved = [one.changes[stream, replacement].moved(effect)[m] for one, m in zip(own, masks, strict=True)]
                for kind in ALL_KINDS:
                    shares = [one.shares[kind][stream][m] for one, m in zip(own, masks, strict=True)]
                    what = {"kind": kind, "stream": stream, "replacement": replacement}
                    rows.append(
                        {**what, "effect_on": effect, "of": frames, **_correlated(shares, moved, clips, draws, seed)}
                    )
    return rows


def _correlated(
    shares: Sequence[np.ndarray], moved: Sequence[np.ndarray], clips: np.ndarray, draws: int, seed: int
) -> dict:
    within = np.array([spearman(a, b) for a, b in zip(shares, moved, strict=True)])
    within = within[np.isfinite(within)]
    share, effect = np.concatenate(shares), np.concatenate(moved)
    ends = clip_interval(lambda chosen: spearman(share[chosen], effect[chosen]), clips, draws=draws, seed=seed)
    figures = {
        "pooled": spearman(share, effect),
        "low": ends.low,
        "high": ends.high,
        "segment": float(within.mean()) if len(within) else math.nan,
        "effect": float(effect.mean()) if len(effect) else math.nan,
        "share": float(share.mean()) if len(share) else math.nan,
    }
    known = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return {**known, "segments": len(within), "frames": len(share)}


def agreement_rows(found: Sequence[SegmentEffects], *, draws: int = 200, seed: int = 0) -> list[dict]:
    """Within a frame, does the largest share name the stream whose removal moves the network most?

    Frames count in which the segment has all streams compared and the largest effect is no rounding and no tie. Two
    levels of chance: what naming one and the same stream always would reach ("constant"), and what shares with the same
    frequencies of streams but no other relation would ("independent", the chance of Cohen's kappa).

    Returns:
        One dict a kind of shares, removal of ``REMOVALS`` (where a network knows all of it), effect and class of
        frames: "agreement" with its interval over clips ("low", "high"), "constant", "independent", "frames", and
        "streams", {stream: share of frames in which it has the largest effect}. None where no frame counts.
    """
    rows = []
    for removal, replacements in REMOVALS.items():
        own = [one for one in found if one.shares and _compared(one, replacements)]
        for effect in EFFECTS if own else ():
            for frames in FRAMES:
                for kind in ALL_KINDS:
                    parts = [_firsts(one, replacements, effect, frames, kind) for one in own]
                    by_share, by_effect, clips = (np.concatenate(v) for v in zip(*parts, strict=True))
                    what = {"kind": kind, "removal": removal, "effect_on": effect, "of": frames}
                    rows.append({**what, **_agreement(by_share, by_effect, clips, draws, seed)})
    return rows


def _compared(one: SegmentEffects, replacements: Mapping[str, str]) -> list[str]:
    """Streams that the segment has and that can be taken away so; none where there is nothing to compare."""
    there = list(dict.fromkeys(stream for stream, _ in one.changes))
    known = [s for s in there if (s, replacements[s]) in one.changes]
    return known if len(known) > 1 and known == there else []


def _firsts(
    one: SegmentEffects, replacements: Mapping[str, str], effect: str, frames: str, kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(stream of the largest share, of the largest effect, clip) of the frames that count."""
    streams = _compared(one, replacements)
    moved = np.stack([one.changes[s, replacements[s]].moved(effect) for s in streams])
    shares = np.stack([one.shares[kind][s] for s in streams])
    ordered = np.sort(moved, 0)
    counts = one.frames(frames) & (ordered[-1] - ordered[-2] > _STILL)
    names = np.array(streams)
    return names[shares.argmax(0)][counts], names[moved.argmax(0)][counts], np.repeat(one.clip, counts.sum())


def _agreement(by_share: np.ndarray, by_effect: np.ndarray, clips: np.ndarray, draws: int, seed: int) -> dict:
    if not len(by_share):
        nothing = dict.fromkeys(("agreement", "low", "high", "constant", "independent"))
        return {**nothing, "frames": 0, "streams": {}}
    same = by_share == by_effect
    ends = clip_interval(lambda chosen: float(same[chosen].mean()), clips, draws=draws, seed=seed)
    names = np.unique(by_effect)
    first = {str(s): float((by_effect == s).mean()) for s in names}
    return {
        "agreement": float(same.mean()),
        "low": ends.low if math.isfinite(ends.low) else None,
        "high": ends.high if math.isfinite(ends.high) else None,
        "constant": max(first.values()),
        "independent": float(sum(first[str(s)] * (by_share == s).mean() for s in names)),
        "frames": len(same),
        "streams": first,
    }


def known_decisive(kind: str, truth: np.ndarray, talking: np.ndarray, voiced: np.ndarray | None = None) -> np.ndarray:
    """Which stream of a talking photo must carry the decision, frame by frame, by how the scene was made.

    * Speaking (``truth`` 1): sound and lips are both needed, and no one stream decides: "".
    * The mouth talks unheard in a "mouthing" scene: lips and body say yes, and nobody else has the word meanwhile. Only
      the sound can say no: "audio".
    * The mouth talks unheard in a "dubbed" scene: as a rule under another's voice. That lips and voice do not go
      together is seen in neither alone: "". (Where ``voiced`` says that no voice is heard: "audio".)
    * The mouth rests while a voice is heard (from outside, or in another's turn): the sound says yes, only the lips can
      say no: "face".
    * The mouth rests and nothing is heard: either says no: "".

    Of a person that is silent, a replacement that says "silent" as well (silence, a still) cannot show which stream
    decides; only "absent" can, or the shares themselves.

    Args:
        kind: of the scene, one of ``TALKING_KINDS``.
        truth: (T,) 1 speaking and heard, 0 not, NaN unknown.
        talking: (T,) 1 where the mouth talks, heard or not, NaN unknown.
        voiced: (T,) bool, whether a voice is heard, see :func:`asd_explain.evaluate.pooled.voiced_frames`. Without it
            one is taken to be heard whenever a mouth rests in a scene with other voices ("turns", "overlap",
            "offscreen", "dubbed"), though these have pauses; of resting mouths in other scenes nothing is said.

    Returns:
        (T,) "audio", "face" or "".

    Raises:
        OptionError: for an unknown kind.
    """
    if kind not in TALKING_KINDS:
        raise OptionError(f"unknown kind of talking photo {kind!r}; choose one of {', '.join(TALKING_KINDS)}")
    truth, talking = np.asarray(truth, np.float64), np.asarray(talking, np.float64)
    heard = np.full(len(truth), kind in _OTHER_VOICES) if voiced is None else np.asarray(voiced, bool)
    unheard, resting = (truth == 0) & (talking == 1), (truth == 0) & (talking == 0)
    quiet = (kind == "mouthing") | (~heard & (voiced is not None))
    by_sound = unheard & quiet
    return np.where(by_sound, "audio", np.where(resting & heard, "face", ""))


def decisive_rows(
    found: Sequence[SegmentEffects], decisive: Mapping[str, np.ndarray], *, draws: int = 200, seed: int = 0
) -> list[dict]:
    """Do shares name the stream that must decide, in frames that the network does call silent?

    Frames called speaking are left out: there the network was not decided by that stream, but wrong.

    Args:
        found: segments; those that ``decisive`` lacks are left out.
        decisive: {segment's name: (T,) of :func:`known_decisive`}.
        draws, seed: of the intervals.

    Returns:
        One dict a kind of shares, as of :func:`agreement_rows` but with the decisive stream in place of the effect; and
        for comparison one a removal ("kind": "effect of absent on P", ...): whether intervention names that stream.
    """
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {}
    for one in found:
        known = decisive.get(one.name)
        if known is None:
            continue
        counts = (np.asarray(known) != "") & one.frames("silent")
        candidates = {kind: one.shares[kind] for kind in ALL_KINDS}
        for removal, replacements in REMOVALS.items():
            streams = _compared(one, replacements)
            for effect in EFFECTS if streams else ():
                moved = {s: one.changes[s, replacements[s]].moved(effect) for s in streams}
                candidates[f"effect of {removal} on {effect}"] = moved
        for kind, amounts in candidates.items():
            names = np.array(list(amounts))
            named = names[np.stack(list(amounts.values())).argmax(0)][counts]
            parts.setdefault(kind, []).append((named, np.asarray(known)[counts], np.repeat(one.clip, counts.sum())))
    rows = []
    for kind, own in parts.items():
        named, known, clips = (np.concatenate(v) for v in zip(*own, strict=True))
        rows.append({"kind": kind, **_agreement(named, known, clips, draws, seed)})
    return rows
