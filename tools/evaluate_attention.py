"""Is the heat true? Measure explanations on clips: faithful, well placed, steady, and dependent on what was learned.

    python tools/evaluate_attention.py talk.mp4 --out attention
    python tools/evaluate_attention.py folder/of/clips --model squeeze_asd lr_asd --photos test --out attention
    python tools/evaluate_attention.py talk.mp4 --weights runs/light/best.safetensors --out attention

Every method and control is measured by the same protocol on the same frames: where the network hears speech most and
where least, in each clip. OUT gets ``report.html`` (begin there), ``metrics.csv``, ``metrics.json`` and the figures of
each clip in ``parts/``; the same command again goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import io
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from asd_explain import __version__
from asd_explain.datasets.shared_clips import SPLITS
from asd_explain.datasets.talking_corpus import CORPUS_VERSION, talking_entries
from asd_explain.errors import AsdExplainError, OptionError
from asd_explain.evaluate.assumptions import distribution_rows, selection_rows
from asd_explain.evaluate.attention import METHODS, SEEDED, Settings, measure, warm_up
from asd_explain.evaluate.attention_material import CutTrack, clip_names, clip_paths, corpus_tracks, cut_clip
from asd_explain.evaluate.attention_networks import load_networks, settings_for, untrained_rows, weights_record
from asd_explain.evaluate.attention_picking import MIN_FRAMES, pick_segments
from asd_explain.evaluate.attention_pictures import method_sheet
from asd_explain.evaluate.attention_report import report_html
from asd_explain.evaluate.attention_store import ClipFigures, Store, fingerprint
from asd_explain.evaluate.attention_summary import rows_for_csv, summarise
from asd_explain.evaluate.attention_words import BLIND
from asd_explain.evaluate.faithfulness import Protocol
from asd_explain.evaluate.intervention import agreement_rows, correlation_rows, decisive_rows, effects
from asd_explain.evaluate.json_report import write_report
from asd_explain.evaluate.sanity import CascadeRow, by_depth, cascading_randomisation, layers_from_the_logits
from asd_explain.evaluate.segments import Segment, Smoothing, inputs_of
from asd_explain.explain.base import create_explainer
from asd_explain.explain.fullgrad import completeness
from asd_explain.options import DEVICES, pick_device
from asd_explain.outputs import check_new, write_text
from asd_explain.running import bounded_threads, command_text, run_tool, seed_everything
from asd_explain.tracks.detect import DETECTORS, create_detector
from asd_explain.weights.store import sha256_of

log = logging.getLogger(__name__)

_DEPTHS = 7
_PICTURES = 8


@dataclass(frozen=True)
class Clip:
    """A clip by name, what it is made from, and how to get its face tracks."""

    name: str
    source: str
    cut: Callable[[], list[CutTrack]]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clips", nargs="*", type=Path, metavar="CLIP_OR_FOLDER", help="video files, folders of them")
    p.add_argument("--photos", choices=SPLITS, help="also the generated talking photographs of a split (exact truth)")
    p.add_argument("--first", type=int, metavar="N", help="of the talking photographs only the first N")
    p.add_argument("--out", type=Path, default=Path("attention"), help="folder for the results (default: attention)")
    p.add_argument("--model", nargs="+", default=["auto"], help="networks: auto, a backbone, or a card (default: auto)")
    p.add_argument("--weights", type=Path, metavar="FILE", help="read the one network from this file, as trained")
    p.add_argument("--explainers", default=",".join(METHODS), metavar="A,B,...", help="default: %(default)s")
    p.add_argument("--boxes", type=Path, metavar="CSV", help="faces in AVA's or WASD's format instead of detections")
    p.add_argument("--labels", type=Path, metavar="CSV", help="labels in AVA's format, matched by time and overlap")
    p.add_argument("--detector", default="auto", choices=DETECTORS)
    p.add_argument("--start", type=float, default=0.0, metavar="S", help="begin here, seconds")
    p.add_argument("--end", type=float, metavar="S", help="end here, seconds")
    p.add_argument("--seconds", type=float, default=60.0, help="look at most at so much of a clip (default: 60)")
    p.add_argument("--frames", type=int, default=20, help="grid frames a segment, 25 a second (default: 20)")
    p.add_argument("--segments", type=int, default=2, help="segments a clip, speaking and silent in turn (default: 2)")
    p.add_argument("--steps", type=int, default=10, help="steps of deletion and insertion (default: 10)")
    p.add_argument("--baselines", default="blur", metavar="A,B", help="blur, mean or both (default: blur)")
    p.add_argument("--smooth", type=float, default=0.2, help="seconds of smoothing, all methods alike (default: 0.2)")
    p.add_argument("--cells", type=float, default=1.0, help="cells of smoothing, all methods alike (default: 1)")
    p.add_argument(
        "--full", action="store_true", help="both baselines, 20 steps, 50 frames, four segments, whatever else is given"
    )
    p.add_argument("--no-variants", action="store_true", help="leave out the variants of the published recipe")
    p.add_argument("--sanity-clips", type=int, default=1, metavar="N", help="clips for the cascade (default: 1)")
    p.add_argument("--device", default="auto", choices=DEVICES)
    p.add_argument("--threads", type=int, default=0, help="0 for all cores (default)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--overwrite", action="store_true", help="replace an older report; clips measured already stay so")
    p.add_argument("--fresh", action="store_true", help="measure all clips anew")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def settings_of(args: argparse.Namespace) -> Settings:
    """What is measured.

    Raises:
        OptionError: a value cannot be used.
    """
    if args.full:
        args.steps, args.frames, args.segments, args.baselines = 20, 50, 4, "blur,mean"
    if not (math.isfinite(args.smooth) and 0 <= args.smooth <= 10 and 0 <= args.cells <= 10):
        raise OptionError(f"--smooth {args.smooth} and --cells {args.cells} must lie between 0 and 10")
    if args.frames < MIN_FRAMES or args.segments < 1:
        raise OptionError(f"--frames must be at least {MIN_FRAMES} and --segments at least 1")
    if args.first is not None and args.first < 1:
        raise OptionError(f"--first {args.first} must be at least 1")
    smoothing = Smoothing(args.smooth, args.cells)
    protocol = Protocol(steps=args.steps, baselines=tuple(args.baselines.split(",")), seed=args.seed)
    return Settings(
        explainers=tuple(args.explainers.split(",")),
        protocol=protocol,
        smoothing=smoothing,
        smoothings=tuple(dict.fromkeys((*Settings().smoothings, smoothing))),
        variants=not args.no_variants,
        seed=args.seed,
    )


def clips_of(args: argparse.Namespace) -> list[Clip]:
    """All clips that were asked for.

    Raises:
        OptionError: there are none, or something is not there.
    """
    clips = []
    if args.clips or not args.photos:
        paths = clip_paths(args.clips)
        for path, name in zip(paths, clip_names(paths), strict=True):
            state = path.stat()
            source = f"{path.resolve()}, {state.st_size} bytes, {state.st_mtime_ns}"
            clips.append(Clip(name, source, partial(_cut, path, name, args)))
    if args.photos:
        source = f"talking photographs, version {CORPUS_VERSION}"
        entries = talking_entries(args.photos)[: args.first]
        clips += [Clip(entry.name, source, partial(corpus_tracks, entry)) for entry in entries]
    return clips


def _cut(path: Path, name: str, args: argparse.Namespace) -> list[CutTrack]:
    return cut_clip(
        path,
        detector=create_detector(args.detector),
        boxes_csv=args.boxes,
        labels_csv=args.labels,
        start_s=args.start,
        end_s=args.end,
        max_seconds=args.seconds,
        name=name,
    )


def figures_of(
    model: nn.Module,
    clip: str,
    segments: Sequence[Segment],
    settings: Settings,
    sanity: bool,
    progress: Callable[[], None],
) -> ClipFigures:
    """Everything of one clip and one network."""
    found = ClipFigures(clip)
    for segment in segments:
        got = measure(model, segment, settings, progress)
        found.records.append(got.record)
        gates = {k.removeprefix("gates."): v for k, v in got.arrays.items() if k.startswith("gates.")}
        found.gates.append(gates if model.maps_are_gated else {})
        found.effects.append(effects(model, segment))
        found.pooled.append(got.arrays["pooled"])
        if segment.decisive is not None:
            found.decisive[segment.name] = segment.decisive
        if got.record["speaking_frames"]:
            frame = int(np.argmax(got.arrays["p"]))
            caption = f"{segment.name}, P(speaking) {got.arrays['p'][frame]:.2f}"
            time_s = 0.0 if segment.times_s is None else float(segment.times_s[frame])
            found.pictures.append((caption, time_s, method_sheet(segment, got.heat, frame)))
    if segments and "fullgrad" in settings.explainers:
        equation = completeness(model, inputs_of(model, segments[0]))
        found.residual = {
            "clip": clip,
            "logit": equation.logit,
            "attributed": equation.attributed,
            "residual": equation.residual,
        }
    if sanity and segments:
        seed = {"seed": settings.seed}
        explainers = {
            n: create_explainer(n, **(seed if n in SEEDED else {})) for n in settings.explainers if n not in BLIND
        }
        deepest = len(layers_from_the_logits(model))
        at = sorted({round(depth) for depth in np.linspace(0, deepest, _DEPTHS)})
        rows = cascading_randomisation(model, segments[:1], explainers, seeds=(settings.seed,), at=at)
        found.sanity = [asdict(row) for row in rows]
        progress()
    return found


def network_summary(model: nn.Module, found: Sequence[ClipFigures], seed: int) -> dict:
    """The report's part about one network."""
    records = [record for figures in found for record in figures.records]
    summary = summarise(records, seed)
    gates = [{s: torch.from_numpy(g).float() for s, g in one.items()} for figures in found for one in figures.gates]
    together = [one for figures in found for one in figures.effects]
    sanity = [CascadeRow(**row) for figures in found for row in figures.sanity]
    for row in by_depth(sanity):
        name = row.pop("explainer")
        summary["methods"][name].setdefault("sanity", []).append(row)
    summary["fullgrad_residual"] = [figures.residual for figures in found if figures.residual]
    summary["shares"] = correlation_rows(together, draws=0, seed=seed) if together else []
    summary["agreement"] = agreement_rows(together, seed=seed) if together else []
    decisive = {name: values for figures in found for name, values in figures.decisive.items()}
    summary["decisive"] = decisive_rows(together, decisive, seed=seed) if decisive else []
    summary["assumptions"] = {
        "distribution": distribution_rows(gates) if gates else [],
        "selection": selection_rows(gates) if gates else [],
        "variants": summary.pop("variants"),
    }
    summary["untrained_gates"] = untrained_rows(model, [p for figures in found for p in figures.pooled])
    return summary


def run(args: argparse.Namespace) -> str:
    """Everything; returns the text for standard output."""
    settings = settings_of(args)
    clips = clips_of(args)
    report = args.out / "report.html"
    check_new(report, args.overwrite)
    seed_everything(args.seed)
    device = pick_device(args.device)
    networks = load_networks(args.model, args.weights, device)
    own = {name: settings_for(model, settings) for name, model in networks.items()}
    given = {
        **{key: getattr(args, key) for key in ("start", "end", "seconds", "detector", "frames", "segments", "threads")},
        **{key: None if getattr(args, key) is None else sha256_of(getattr(args, key)) for key in ("boxes", "labels")},
        "version": __version__,
        "device": str(device),
    }
    if args.weights is not None:
        given |= {"geometry": next(iter(networks.values())).card.geometry}
    stores = {
        name: Store(args.out / "parts", {**given, "measured": asdict(own[name]), "network": fingerprint(model)})
        for name, model in networks.items()
    }
    found: dict[str, list[ClipFigures]] = {name: [] for name in networks}
    left_out = []
    # One step a method and segment, and one for the variants.
    each = {name: args.segments * (len(one.explainers) + one.variants) for name, one in own.items()}
    bar = tqdm(total=len(clips) * sum(each.values()), unit="step", disable=True if args.quiet else None, smoothing=0.05)
    with bar, bounded_threads(args.threads):
        torch.set_num_threads(args.threads or os.cpu_count() or 1)
        warm: set[str] = set()
        for clip in clips:
            bar.set_description(clip.name)
            stored = {n: None if args.fresh else stores[n].get(n, clip.name, clip.source) for n in networks}
            tracks = []
            if any(part is None for part in stored.values()):
                try:
                    tracks = clip.cut()
                except AsdExplainError as error:
                    log.warning("left out: %s", error)
                    left_out.append({"name": clip.name, "why": str(error)})
                    bar.update(sum(each.values()))
                    continue
            for name, model in networks.items():
                before = bar.n
                if stored[name] is None:
                    if name not in warm:
                        warm_up(model, own[name])
                        warm.add(name)
                    segments = pick_segments(model, tracks, model.card.geometry, args.frames, args.segments)
                    sanity = sum(bool(figures.sanity) for figures in found[name]) < args.sanity_clips
                    stored[name] = figures_of(model, clip.name, segments, own[name], sanity, bar.update)
                    stores[name].put(name, stored[name], clip.source)
                bar.update(before + each[name] - bar.n)
                found[name].append(stored[name])
    if not any(figures.records for parts in found.values() for figures in parts):
        raise OptionError(
            "nothing could be measured: no face is seen for half a second, or with --segments 1 nobody is called "
            "speaking, in any of the clips"
        )
    summary = {
        "settings": _settings_summary(args, settings, found) | {"left_out": left_out},
        "networks": {
            name: {
                "weights": weights_record(model),
                "left_out": [method for method in settings.explainers if method not in own[name].explainers],
                **network_summary(model, found[name], args.seed),
            }
            for name, model in networks.items()
        },
    }
    pictures = [
        {"network": name, "clip": clip, "time_s": time_s, "caption": caption, "png": png}
        for name, parts in found.items()
        for clip, caption, time_s, png in _some_pictures(parts)
    ]
    table = [row for name, parts in found.items() for row in rows_for_csv(name, [r for f in parts for r in f.records])]
    page, rows = report_html(summary, pictures), _csv(table)
    write_report(summary, args.out / "metrics.json")
    write_text(args.out / "metrics.csv", rows)
    write_text(report, page)
    return f"{report}\n"


def _some_pictures(parts: Sequence[ClipFigures]) -> list[tuple[str, str, float, bytes]]:
    """One picture a clip, of at most ``_PICTURES`` clips spread over all."""
    shown = [(figures.clip, *figures.pictures[0]) for figures in parts if figures.pictures]
    if len(shown) <= _PICTURES:
        return shown
    return [shown[round(i)] for i in np.linspace(0, len(shown) - 1, _PICTURES)]


def _settings_summary(args: argparse.Namespace, settings: Settings, found: dict[str, list[ClipFigures]]) -> dict:
    records = [figures.records for figures in next(iter(found.values()))]
    return {
        "command": command_text("evaluate_attention", *sys.argv[1:]),
        "version": __version__,
        "date": datetime.date.today().isoformat(),
        "clips": [
            {
                "name": own[0]["clip"],
                "kind": own[0]["kind"],
                "segments": len(own),
                "frames": sum(r["frames"] for r in own),
                "speaking_frames": sum(r["speaking_frames"] for r in own),
            }
            for own in records
            if own
        ],
        "steps": settings.protocol.steps,
        "baselines": list(settings.protocol.baselines),
        "moves": list(settings.protocol.moves),
        "road_shares": list(settings.protocol.road_shares),
        "frames_per_segment": args.frames,
        "smoothing": asdict(settings.smoothing),
        "explainers": list(settings.explainers),
        "seed": args.seed,
    }


def _csv(rows: Sequence[dict]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    cv2.setNumThreads(1)
    return run_tool(lambda: run(args), "interrupted; the same command goes on after the last clip")


if __name__ == "__main__":
    raise SystemExit(main())
