"""What a gate does to its network, and whether its ranking of channels means anything.

:func:`report` is about a block fitted to a frozen network, against that network without it; :func:`trained_sufficiency`
about a network that was trained with its block, which has no ungated self. The former is measured on whole tracks under
all conditions of :mod:`asd_explain.evaluate.pooled`. All frames count alike. A frame's class is what the network says
of it (P(speaking) above 0.5 or not): the ungated one, where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from asd_explain.evaluate.pooled import CONDITIONS, Conditions, PooledTrack
from asd_explain.evaluate.sufficiency import (
    gate_spread,
    keep,
    live_channels,
    random_mask,
    rank_correlation,
    top_mask,
)
from asd_explain.explain.gate_places import Place
from asd_explain.explain.shares import KINDS, modality_shares
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.se import SqueezeExcite

SHARE = 0.10
CURVE = (0.03, 0.05, 0.10, 0.20, 0.30, 0.50)
DRAWS = 10
FILLS = ("zero", "mean")
EFFECTS = ("P", "margin")
#: The ranking that a frame of the other class has. A selection can encode the verdict instead of carrying the evidence
#: (Jethani et al., "Have We Learned to Explain?", arXiv 2103.01890): then this one turns the decision round.
OTHER_CLASS = "gate of a frame of the other class"
#: The same ranking for all frames: what is lost with it is what a frame's own gates know.
MEAN_GATE = "mean gate"
#: The scale of it all: no channel is kept.
NOTHING = "nothing kept"

_STREAMS = ("audio", "face")  # as Conditions gives them

Moved = dict[str, float]  # by class: "all", "speaking", "silent"


@dataclass
class Sample:
    """Vectors at a place of one split under every condition, with what the ungated network makes of them.

    Attributes:
        place: where.
        x: one (T, C) tensor a track and condition, the channels that a block weighs.
        rest: one (T, R) tensor each, what else the network needs from there on.
        p: one (T,) tensor each, P(speaking) of the ungated network.
        condition: the condition of each.
        live: (C,) bool, channels that random draws may take.
        mean: (C,) means of the data that the block was fitted to.
        std: (C,) their standard deviations.
    """

    place: Place
    x: list[torch.Tensor]
    rest: list[torch.Tensor]
    p: list[torch.Tensor]
    condition: list[str]
    live: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    @property
    def joined(self) -> torch.Tensor:
        """(N,) P(speaking) of all frames."""
        return torch.cat(self.p)


@dataclass
class GateReport:
    """Figures of one block on one split.

    Attributes:
        drift: mean |change of P(speaking)| of the gated network, by class.
        agreement: share of equal decisions, by class.
        over_channels, over_time: spread of the gates, see :func:`~asd_explain.evaluate.sufficiency.gate_spread`.
        within_track: mean over tracks and channels of the standard deviation over the frames of one track.
        mean_gate: mean of all gates.
        top: {(ranking, fill): by class} with the top tenth of each stream kept.
        curve: {share kept: mean |change of P|} for the ranking by gate, the others zero.
        shares: {kind of shares: {what: rank correlation}}.
    """

    drift: Moved
    agreement: Moved
    over_channels: float
    over_time: float
    within_track: float
    mean_gate: float
    top: dict[tuple[str, str], Moved] = field(default_factory=dict)
    curve: dict[float, float] = field(default_factory=dict)
    shares: dict[str, dict[str, float]] = field(default_factory=dict)


@torch.inference_mode()
def p_of(model: FusionBackbone, x: torch.Tensor) -> torch.Tensor:
    """(B, T) P(speaking) of the network without a block on fusion vectors (B, T, C)."""
    return model.classify(*x.split(list(model.fusion_streams.values()), -1)).softmax(-1)[..., 1]


@torch.inference_mode()
def p_at(place: Place, x: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """(B, T) P(speaking) of the network without a block, of B variants (B, T, C) of a track's vectors.

    Args:
        place: where they are.
        x: the channels that a block weighs.
        rest: (T, R), the same for all variants.
    """
    return place.logits(torch.cat((x, rest.expand(len(x), -1, -1)), -1)).softmax(-1)[..., 1]


def by_class(moved: torch.Tensor, speaking: torch.Tensor) -> Moved:
    """Mean of (N,) over all frames, over speaking and over silent ones (NaN where there are none)."""
    return {
        "all": float(moved.mean()),
        "speaking": float(moved[speaking].mean()),
        "silent": float(moved[~speaking].mean()),
    }


def take_sample(
    place: Place,
    tracks: Sequence[PooledTrack],
    conditions: Conditions,
    live: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
) -> Sample:
    """Every track under every condition that its clip allows."""
    sample = Sample(place, [], [], [], [], live, mean, std)
    for track in tracks:
        for name in CONDITIONS:
            given = conditions.inputs(track, name)
            if given is not None:
                with torch.inference_mode():
                    x, rest = place.split(place.vectors({s: v[None] for s, v in zip(_STREAMS, given, strict=True)})[0])
                sample.x.append(x)
                sample.rest.append(rest)
                sample.p.append(p_at(place, x[None], rest)[0])
                sample.condition.append(name)
    return sample


def rankings(x: torch.Tensor, z: torch.Tensor, gates: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """{ranking: (T, C) scores} from activations, the same standardised, and gates (None: those that need none)."""
    if gates is None:
        return {"activation": x.abs(), "standardised": z.abs()}
    return {"gate": gates, "gate x activation": gates * x.abs(), "gate x standardised": gates * z.abs()}


def filled(x: torch.Tensor, mask: torch.Tensor, mean: torch.Tensor) -> list[torch.Tensor]:
    """``x`` outside the mask set to zero and to the mean, in the order of ``FILLS``."""
    return [keep(x, mask, 0.0), keep(x, mask, mean)]


def rank_without_gates(sample: Sample, seed: int = 0) -> dict[tuple[str, str], Moved]:
    """The controls, which do not depend on a block: ten random draws, and rankings by activation.

    The rows of "random" are means over the draws; "least" and "most" those of single draws.
    """
    place, widths = sample.place, sample.place.widths
    generator = torch.Generator().manual_seed(seed)
    draws = [random_mask(sample.live, widths, SHARE, generator) for _ in range(DRAWS)]
    names = ["random"] * DRAWS + ["activation", "standardised"]
    parts = []
    for x, rest in zip(sample.x, sample.rest, strict=True):
        ranked = rankings(x, (x - sample.mean) / sample.std, None)
        masks = draws + [top_mask(ranked[name], widths, SHARE) for name in names[DRAWS:]]
        parts.append(p_at(place, torch.stack([v for mask in masks for v in filled(x, mask, sample.mean)]), rest))
    p = sample.joined
    moved = (torch.cat(parts, 1) - p).abs()
    found: dict[tuple[str, str], Moved] = {}
    for f, fill in enumerate(FILLS):
        rows = moved[f :: len(FILLS)]
        for name in dict.fromkeys(names):
            own = rows[[i for i, n in enumerate(names) if n == name]]
            found[name, fill] = by_class(own.mean(0), p > 0.5)
            found[name, fill] |= {"least": float(own.mean(1).min()), "most": float(own.mean(1).max())}
    return found


def frames_of_the_other_class(speaking: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """For each of (N,) frames the index of a random frame of the other class; of any frame where there is none."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(speaking), generator=generator)
    for wanted in (True, False):
        pool = (speaking != wanted).nonzero()[:, 0]
        n = int((speaking == wanted).sum())
        if len(pool) and n:
            index[speaking == wanted] = pool[torch.randint(len(pool), (n,), generator=generator)]
    return index


@torch.inference_mode()
def report(block: SqueezeExcite, sample: Sample) -> GateReport:
    """All figures of a block at the sample's place, but those of modality shares."""
    widths = sample.place.widths
    p = sample.joined
    gates = [block.excitation(x[None])[0] for x in sample.x]
    joined = torch.cat(gates)
    foreign = joined[frames_of_the_other_class(p > 0.5)].split([len(g) for g in gates])
    names = [*rankings(p, p, p), OTHER_CLASS]
    parts = []
    for x, rest, g, other in zip(sample.x, sample.rest, gates, foreign, strict=True):
        variants = [g * x]
        for scores in [*rankings(x, block.standardised(x), g).values(), other]:
            variants += filled(x, top_mask(scores, widths, SHARE), sample.mean)
        variants += [keep(x, top_mask(g, widths, share)) for share in CURVE]
        parts.append(p_at(sample.place, torch.stack(variants), rest))
    changed = torch.cat(parts, 1)
    moved = (changed - p).abs()
    channels, time = gate_spread(joined)
    rows = iter(moved[1 : 1 + len(names) * len(FILLS)])
    return GateReport(
        drift=by_class(moved[0], p > 0.5),
        agreement=by_class(((changed[0] > 0.5) == (p > 0.5)).float(), p > 0.5),
        over_channels=channels,
        over_time=time,
        within_track=float(torch.stack([g.std(0, correction=0).mean() for g in gates]).mean()),
        mean_gate=float(joined.mean()),
        top={(name, fill): by_class(next(rows), p > 0.5) for name in names for fill in FILLS},
        curve={share: float(row.mean()) for share, row in zip(CURVE, moved[-len(CURVE) :], strict=True)},
    )


@dataclass
class TrainedSufficiency:
    """How far P moves when only the first channels of a ranking are kept, in a network trained with its gates.

    Attributes:
        moved: {(share kept, ranking, fill): mean |change of P| by class}; the rows of "random" are means over draws and
            have "least" and "most" of single draws; share 0 has the one row ``NOTHING``.
        by_track: {the same: (tracks,) mean |change of P|}, in the order that was given.
        mean_p: mean P(speaking) of the network, all channels kept.
        frames: how many frames.
    """

    moved: dict[tuple[float, str, str], Moved]
    by_track: dict[tuple[float, str, str], torch.Tensor]
    mean_p: float
    frames: int


@torch.inference_mode()
def trained_sufficiency(
    model: FusionBackbone, x: Sequence[torch.Tensor], shares: Sequence[float], seed: int = 0
) -> TrainedSufficiency:
    """Keep the first channels of every stream by several rankings, take the others away, and see P move.

    What is kept or taken away is the gated activation, as the classifier sees it: a gate that was trained in is part of
    the network, so that P with everything kept is the network's own. A channel taken away becomes zero, or the mean of
    its gated activation over all frames given.

    Args:
        model: with its block.
        x: one (T, C) tensor a track, activations before gating.
        shares: of each stream's channels to keep, in (0, 1].
        seed: of the random draws and of the frames whose gates are borrowed.
    """
    block, widths = model.fusion_gate, list(model.fusion_streams.values())
    gates = [block.excitation(v[None])[0] for v in x]
    seen = [g * v for g, v in zip(gates, x, strict=True)]
    p = torch.cat([p_of(model, v[None])[0] for v in seen])
    joined, all_seen = torch.cat(gates), torch.cat(seen)
    live, mean = live_channels(all_seen), all_seen.mean(0)
    mean_gate = joined.mean(0)
    lengths = [len(g) for g in gates]
    foreign = joined[frames_of_the_other_class(p > 0.5, seed)].split(lengths)
    generator = torch.Generator().manual_seed(seed)
    draws = {share: [random_mask(live, widths, share, generator) for _ in range(DRAWS)] for share in shares}
    parts: list[torch.Tensor] = []
    keys: list[tuple[float, str, str]] = []
    for v, s, g, other in zip(x, seen, gates, foreign, strict=True):
        z = block.standardised(v)
        ranked = rankings(v, z, g) | rankings(v, z, None)
        ranked |= {MEAN_GATE: mean_gate.expand_as(g), OTHER_CLASS: other}
        masks = [(share, name, top_mask(scores, widths, share)) for name, scores in ranked.items() for share in shares]
        masks += [(share, "random", mask) for share in shares for mask in draws[share]]
        masks.append((0.0, NOTHING, torch.zeros(len(mean), dtype=torch.bool)))
        keys = [(share, name, fill) for share, name, _ in masks for fill in FILLS]
        parts.append(p_of(model, torch.stack([kept for _, _, mask in masks for kept in filled(s, mask, mean)])))
    moved = (torch.cat(parts, 1) - p).abs()
    found = TrainedSufficiency({}, {}, float(p.mean()), len(p))
    for key in dict.fromkeys(keys):
        rows = moved[[i for i, k in enumerate(keys) if k == key]]
        row = rows.mean(0)
        found.moved[key] = by_class(row, p > 0.5)
        if len(rows) > 1:
            found.moved[key] |= {"least": float(rows.mean(1).min()), "most": float(rows.mean(1).max())}
        found.by_track[key] = torch.stack([part.mean() for part in row.split(lengths)])
    return found


@torch.inference_mode()
def shares_against_intervention(
    model: FusionBackbone, tracks: Sequence[PooledTrack], conditions: Conditions
) -> dict[str, dict[str, float]]:
    """Do modality shares say what happens when a modality is taken away?

    On each track that has sound, under its own: the audio is replaced by digital silence, or the face by a still. The
    effect is the absolute change, of P(speaking) or of the margin, of the network with its block. Spearman's rank
    correlation over all frames of all tracks, higher is better: of the audio's share with the audio's effect, of the
    face's share with the face's, and of the audio's share with the difference of the two effects. Where a network needs
    both modalities, either's removal takes all of P, and only the difference, and only in frames that were called
    speaking, tells shares that mean something from shares that follow P.

    Args:
        model: with its block attached.
        tracks: of one split.
        conditions: of the same split.

    Returns:
        {kind of shares: {"audio, P, all": correlation, ...}}: three comparisons, P or margin, all or speaking frames.
    """
    audio_share: dict[str, list[torch.Tensor]] = {kind: [] for kind in KINDS}
    effects: dict[tuple[str, str], list[torch.Tensor]] = {(w, e): [] for w in ("audio", "face") for e in EFFECTS}
    speaking: list[torch.Tensor] = []
    for track in tracks:
        if not track.has_audio:
            continue
        silenced, _ = conditions.inputs(track, "silence")
        own, *without = (
            model.fuse({"audio": audio[None], "face": face[None]})
            for audio, face in ((track.audio, track.face), (silenced, track.face), (track.audio, track.still))
        )
        for what, changed in zip(("audio", "face"), without, strict=True):
            effects[what, "P"].append((changed.p_speaking - own.p_speaking)[0].abs())
            effects[what, "margin"].append((changed.margin - own.margin)[0].abs())
        speaking.append(own.p_speaking[0] > 0.5)
        for kind in KINDS:
            names, shares = modality_shares(own, kind)
            audio_share[kind].append(shares[0, :, names.index("audio")])
    effect = {key: torch.cat(values) for key, values in effects.items()}
    spoken = torch.cat(speaking)
    found: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        share = torch.cat(audio_share[kind])
        found[kind] = {}
        for frames, where in (("all", torch.ones_like(spoken)), ("speaking", spoken)):
            for name in EFFECTS:
                audio, face = effect["audio", name][where], effect["face", name][where]
                found[kind] |= {
                    f"audio, {name}, {frames}": rank_correlation(share[where], audio),
                    f"face, {name}, {frames}": rank_correlation(1 - share[where], face),
                    f"difference, {name}, {frames}": rank_correlation(share[where], audio - face),
                }
    return found
