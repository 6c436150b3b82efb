"""Measure the gates of a network that was trained with them: how they are spread, what they rank, how shares react.

    python tools/report_gates.py --model squeeze_asd --weights runs/best.safetensors --out runs/gates.test.json

On real clips and on talking photos, apart:

* **distribution** over channels, time and tracks; whether "mean + 1.2816 std" keeps 10 % and gates are normal
  (``asd_explain/evaluate/gate_distribution.py``);
* **sufficiency**: P(speaking) when only the first 10, 20, 50 % of each stream's channels are kept, by gate, at random,
  by activation (``trained_sufficiency`` in ``asd_explain/evaluate/gate_report.py``);
* **reactions** of the modality shares to silence, hidden, absent and tiny faces and bodies, each with the direction
  that was expected before and what came; and whether shares say how far P moves without a stream
  (``asd_explain/evaluate/gate_reactions.py``).

A quick look at a checkpoint: ``--limit 4 --no-cache --bootstrap 100``.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from asd_explain.datasets.shared_clips import SPLITS, ClipEntry, list_clips
from asd_explain.datasets.talking_corpus import TalkingClipCache, talking_entries
from asd_explain.errors import AsdExplainError, OptionError
from asd_explain.evaluate.gate_distribution import distribution
from asd_explain.evaluate.gate_reactions import (
    OWN,
    Intervention,
    importance,
    interventions,
    mean_with_interval,
    pooled_under,
    react,
    removals,
    summarise,
)
from asd_explain.evaluate.gate_report import FILLS, NOTHING, trained_sufficiency
from asd_explain.evaluate.json_report import check_report, write_report
from asd_explain.evaluate.stream_views import TINY, Scorer, ViewCache, ViewedTrack, view_clip
from asd_explain.explain.shares import KINDS
from asd_explain.memory import keep_large_blocks
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.running import run_tool
from asd_explain.tools.evaluate_networks import add_report_options, load_network
from asd_explain.weights.cards import cards
from asd_explain.weights.store import cache_dir, load, needed_shared_dir

log = logging.getLogger(__name__)

MATERIALS = ("clips", "photos")
SHARES = (0.1, 0.2, 0.5)
VIEWS = (*TINY, "hidden")
MIN_FRAMES = 25
#: What sufficiency is measured under, beside pictures that stand still.
LOOKS = (OWN, Intervention("other", "other"), Intervention("silence", "silence"))


def gated_network(name: str, weights: Path | None) -> FusionBackbone:
    """A network with its gates: those of its card, or those in the file.

    Raises:
        OptionError: it has none, or the name is unknown.
    """
    network = cards().get(name)
    published = weights is None and network is not None and network.kind == "network"
    model = load(name) if published else load_network(name, weights)
    if model.fusion_gate is None:
        raise OptionError(f"{model.card.name} has no gates, so there is nothing to report; take one trained with them")
    return model


def some(entries: Sequence[ClipEntry], limit: int | None) -> list[ClipEntry]:
    """At most ``limit`` entries, spaced over all of them."""
    if limit is None or len(entries) <= limit:
        return list(entries)
    return [entries[i] for i in np.linspace(0, len(entries) - 1, limit).round().astype(int)]


def gather(model: FusionBackbone, material: str, args: argparse.Namespace) -> list[ViewedTrack]:
    """All tracks of a material of at least a second, encoded under all views."""
    folder, off = args.cache or cache_dir() / "corpus", True if args.quiet else None
    if material == "photos":
        cache, entries = TalkingClipCache(folder), some(talking_entries(args.split), args.limit)
        bar = tqdm(entries, "photos", disable=off, leave=False)
        tracks = [view_clip(model, clip, model.card.geometry, VIEWS) for entry in bar for clip in cache.get(entry)]
    else:
        shared = needed_shared_dir(args.shared, ", or --materials photos")
        listed = [e for e in list_clips(shared, per_speaker=args.per_speaker) if e.split == args.split]
        views = ViewCache(folder, model, model.card.geometry, VIEWS, keep=not args.no_cache)
        tracks = views.collect(tqdm(some(listed, args.limit), "clips", disable=off, leave=False))
    return [t for t in tracks if len(t.pooled) >= MIN_FRAMES]


@torch.inference_mode()
def vectors(
    model: FusionBackbone, scorer: Scorer, tracks: Sequence[ViewedTrack], looks: Sequence[Intervention]
) -> tuple[list[torch.Tensor], list[str]]:
    """(one (T, C) vector before gating for each track and look, the clip of each); impossible looks are left out."""
    found, clips = [], []
    for track in tracks:
        for look in looks:
            pooled = pooled_under(model, scorer, track, look)
            if pooled is not None:
                whole = model.fuse(pooled).pooled
                found.append(torch.cat(list(model.at_fusion(whole).values()), -1)[0])
                clips.append(track.pooled.name.split("#")[0])
    return found, clips


def sufficiency(
    model: FusionBackbone, x: Sequence[torch.Tensor], clips: Sequence[str], args: argparse.Namespace
) -> dict:
    """Mean |change of P| by share kept, ranking and fill, and its difference to random channels, ready for JSON."""
    kept = trained_sufficiency(model, x, SHARES, args.seed)
    found: dict = {"frames": kept.frames, "mean_p": kept.mean_p, "expected": "gate below random", "kept": {}}
    for (share, ranking, fill), moved in kept.moved.items():
        row = dict(moved)
        if ranking not in ("random", NOTHING):
            less = kept.by_track[share, ranking, fill] - kept.by_track[share, "random", fill]
            row["minus_random"] = mean_with_interval(less.numpy(), clips, draws=args.bootstrap, seed=args.seed)
        found["kept"].setdefault(f"{share:g}", {}).setdefault(ranking, {})[fill] = row
    return found


def measure(model: FusionBackbone, tracks: list[ViewedTrack], args: argparse.Namespace) -> dict:
    """Everything on one material, ready for JSON."""
    scorer = Scorer(model, tracks, args.seed)
    streams, options = dict(model.fusion_streams), {"draws": args.bootstrap, "seed": args.seed}
    own, _ = vectors(model, scorer, tracks, (OWN,))
    with torch.inference_mode():
        gates = [model.fusion_gate.excitation(v[None])[0] for v in own]
    still = Intervention("still", views={s: "still" for s in streams if s != "audio"})
    looks = (*LOOKS, still)
    x, clips = vectors(model, scorer, tracks, looks)
    asked = interventions(tuple(streams), model.learned_absence)
    bar = tqdm(tracks, "reactions", disable=True if args.quiet else None, leave=False)
    reactions = [react(model, scorer, track, asked) for track in bar]
    return {
        "clips": len({r.clip for r in reactions}),
        "tracks": len(tracks),
        "frames": sum(len(t.pooled) for t in tracks),
        "distribution": distribution(gates, streams),
        "sufficiency": {"under": [look.name for look in looks], **sufficiency(model, x, clips, args)},
        "reactions": summarise(reactions, asked, **options),
        "importance": importance(reactions, removals(tuple(streams), model.learned_absence), **options),
    }


def _number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:{'+' if sign else ''}.{digits}f}"


def _interval(figures: Mapping[str, float], key: str = "mean", digits: int = 3) -> str:
    text = _number(figures[key], digits, sign=True)
    if math.isnan(figures["low"]):
        return text
    return f"{text} ({_number(figures['low'], digits, sign=True)} to {_number(figures['high'], digits, sign=True)})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    line, rule = "| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)
    return "\n".join([line, rule, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _distribution_tables(found: Mapping[str, dict]) -> list[str]:
    keys = ("mean", "std_of_mean_gates", "closed", "open", "within_track", "across_tracks")
    head = ["gates", "mean", "std over channels", "< 0.1", "> 0.9", "std within a track", "std across tracks"]
    parts = ["**Spread** (channels below 0.1 and above 0.9 by their mean gate)\n"]
    parts.append(_table(head, [[name, *(_number(f[k]) for k in keys)] for name, f in found.items()]))
    head = ["gates", "one distribution", "passing", "5 % - 95 %", "none passes", "skewness", "excess kurtosis"]
    head += ["KS distance", "limit", "not normal"]
    rows = []
    for name, figures in found.items():
        for what, title in (("frames", "a frame"), ("tracks", "a track's mean")):
            f = figures[what]
            rows.append([name, title, _number(f["passing"]), f"{f['passing_p5']:.3f} - {f['passing_p95']:.3f}"])
            rows[-1] += [_number(f["none_passes"]), _number(f["skewness"], 2), _number(f["excess_kurtosis"], 2)]
            rows[-1] += [_number(f["ks_distance"]), _number(f["ks_limit"]), _number(f["not_normal"])]
    parts.append(
        "**Is mean + 1.2816 std the top 10 %, and are gates normal?** Expected: passing 0.100, not normal 0.05\n"
    )
    parts.append(_table(head, rows))
    return parts


def _sufficiency_table(found: Mapping) -> list[str]:
    rows = []
    for share, rankings in found["kept"].items():
        for ranking, fills in rankings.items():
            for fill in FILLS:
                row = fills[fill]
                less = row.get("minus_random")
                rows.append([f"{float(share):.0%}", ranking, fill])
                rows[-1] += [_number(row[c]) for c in ("all", "speaking", "silent")]
                rows[-1].append("-" if less is None else _interval(less))
    title = (
        "**Mean change of P when only the first channels of each stream are kept** (lower is better; expected: gate "
    )
    title += f"below random; mean P is {found['mean_p']:.3f})\n"
    return [title, _table(["kept", "ranking", "others become", "all", "speaking", "silent", "minus random"], rows)]


def _reaction_tables(found: Mapping[str, dict]) -> list[str]:
    parts = []
    for kind in KINDS:
        rows = []
        for name, f in found.items():
            watched = f["P"] if f["watched"] == "P" else f["shares"][kind][f["watched"]]
            way = {1: "rises", -1: "falls", 0: "-"}[f["expected"]]
            said = watched.get("verdict", "-") + (" (by definition)" if watched.get("by_definition") else "")
            rows.append(
                [name, f"{f['watched']} {way}", _interval(watched), _number(watched.get("moved_as_expected"), 2)]
            )
            rows[-1] += [said, _number(f["P"]["mean"], sign=True), _number(f["P_moved"]), str(f["tracks"])]
            rows[-1] += [_number(share["mean"], sign=True) for share in f["shares"][kind].values()]
        streams = next(iter(found.values()))["shares"][kind] if found else {}
        head = ["intervention", "expected", "measured", "tracks that did", "verdict", "P", "abs. change of P", "tracks"]
        parts += [f"**Reactions of the shares, {kind}** (95 % interval over clips)\n"]
        parts.append(_table([*head, *(f"{s} share" for s in streams)], rows))
    return parts


def _importance_tables(found: Mapping) -> list[str]:
    if not found["tracks"]:
        return ["**Importance by intervention**: there is no track on which every stream could be taken away.\n"]
    rows = []
    for s in found["effect"]:
        rows.append([s, found["removed_by"][s], _interval(found["effect"][s]), _number(found["part"][s])])
        for kind in KINDS:
            rho = found["correlation"][kind][s]
            rows[-1] += [_number(found["share"][kind][s]), _interval(rho["effect, P"], "rho", 2)]
            rows[-1].append(_interval(rho["part, margin"], "rho", 2))
    head = ["stream", "removed by", "abs. change of P", "its part"]
    for kind in KINDS:
        head += [f"share, {kind}", "rank correlation with the effect on P", "with the part of the margin"]
    lines = [
        f"The largest share is of the stream with the largest effect on the margin, {kind}: {f['agreement']:.0%} of "
        f"tracks; always naming one stream: {f['constant']:.0%}.\n"
        for kind, f in found["same_first"].items()
    ]
    title = f"**Importance by intervention** ({found['tracks']} tracks; expected: correlations above 0)\n"
    return [title, _table(head, rows), *lines]


def tables(report: dict) -> str:
    """The report as markdown."""
    parts = [f"# {report['network']}, split {report['split']}\n"]
    for name, found in report["materials"].items():
        parts.append(f"## {name}: {found['clips']} clips, {found['tracks']} tracks, {found['frames']} frames\n")
        parts += _distribution_tables(found["distribution"])
        parts += _sufficiency_table(found["sufficiency"])
        parts += _reaction_tables(found["reactions"])
        parts += _importance_tables(found["importance"])
    return "\n".join(parts)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="squeeze_asd", metavar="NAME", help="card or registered model (squeeze_asd)")
    p.add_argument("--weights", type=Path, help="file to read the network from instead of the card's")
    p.add_argument("--split", default="test", choices=SPLITS, help="clips to report on (default test)")
    p.add_argument("--materials", nargs="+", default=list(MATERIALS), choices=MATERIALS, help="default both")
    p.add_argument("--limit", type=int, help="at most so many clips, and so many photo clips, spaced over all")
    p.add_argument("--out", type=Path, help="JSON report")
    add_report_options(p, seed="of voices, random channels and resamples")
    return p


def run(args: argparse.Namespace) -> str:
    """Everything, as markdown; writes the report where ``--out`` says."""
    counts = [args.per_speaker, args.bootstrap, args.threads, *([] if args.limit is None else [args.limit])]
    if min(counts) < 1:
        raise OptionError("--limit, --per-speaker, --bootstrap and --threads must be at least 1")
    if args.out:
        check_report(args.out, args.overwrite)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    model = gated_network(args.model, args.weights)
    report: dict = {
        "network": model.card.name,
        "model": model.card.model,
        "weights_sha256": model.weights_sha256,
        "streams": dict(model.fusion_streams),
        "split": args.split,
        "limit": args.limit,
        "seed": args.seed,
        "bootstrap": {"draws": args.bootstrap, "level": 0.95, "unit": "clip"},
        "materials": {},
    }
    for material in dict.fromkeys(args.materials):
        try:
            tracks = gather(model, material, args)
        except AsdExplainError as error:
            if material == "photos" and report["materials"]:
                log.warning("talking photos are left out: %s", error)
                continue
            raise
        if not tracks:
            raise OptionError(f"no faces of a second or more in {material} of split {args.split}; raise --limit")
        report["materials"][material] = measure(model, tracks, args)
    if args.out:
        write_report(report, args.out)
    return tables(report)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    keep_large_blocks()
    return run_tool(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
