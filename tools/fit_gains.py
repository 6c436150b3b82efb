"""Fit the gains of a network's squeeze-and-excitation heat: how much each channel's map counts, found by occlusion.

    python tools/fit_gains.py --model squeeze_asd.distilled --out runs/gains

Of each clip of the shared folder, and of each generated talking photograph, the second in which the network hears
speech most is shown to it blurred but for one patch, wherever that may lie; gains are the weights by which its gated
maps go with what each patch does to the log odds of speaking. No labels. Fitted on ``fit``; the ridge is chosen on
``dev``. Method and sources:
``asd_explain/explain/gains.py``. Written are ``gains.CARD.safetensors`` and its card. Some ten minutes a network.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from asd_explain.datasets.shared_clips import list_clips
from asd_explain.datasets.talking_corpus import GROUP, talking_entries
from asd_explain.errors import AsdExplainError, OptionError, OutputError
from asd_explain.evaluate.attention_material import CutTrack, corpus_tracks, cut_clip
from asd_explain.evaluate.attention_picking import pick_segments
from asd_explain.evaluate.segments import inputs_of, visual_streams
from asd_explain.explain.gains import agreement, at_cells, fit_gains, gated_maps, reveal_map
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.outputs import check_new, write_text
from asd_explain.running import bounded_threads, run_tool, seed_everything
from asd_explain.tracks.detect import create_detector
from asd_explain.training.export import write_tensors
from asd_explain.weights.card_writing import fitted_card_text
from asd_explain.weights.cards import cards
from asd_explain.weights.store import load, needed_shared_dir

log = logging.getLogger(__name__)

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
FRAMES = 25


@dataclass
class Stretches:
    """What one stream's gains are fitted to: a stretch's maps (C, h, w), and its reveal map at their cells (h, w)."""

    maps: list[np.ndarray] = field(default_factory=list)
    targets: list[np.ndarray] = field(default_factory=list)


def tracks_of(split: str, args: argparse.Namespace) -> Iterator[list[CutTrack]]:
    """The tracks of each clip of a split; a clip that cannot be read is left out, with a warning."""
    shared, detector = needed_shared_dir(args.shared), create_detector("auto")
    real = [e for e in list_clips(shared, per_speaker=args.per_speaker) if e.split == split and e.group != "listening"]
    photos = talking_entries(split)[: args.photos]
    for entry in tqdm([*real, *photos], f"{args.model}: {split}", disable=True if args.quiet else None):
        try:
            if entry.group == GROUP:
                yield corpus_tracks(entry)
            else:
                yield cut_clip(entry.path, detector=detector, max_seconds=args.seconds, name=entry.name)
        except AsdExplainError as error:
            log.warning("left out: %s", error)


def collect(model: FusionBackbone, split: str, args: argparse.Namespace) -> dict[str, Stretches]:
    """{visual stream: stretches} of a split."""
    found: dict[str, Stretches] = {}
    for tracks in tracks_of(split, args):
        for segment in pick_segments(model, tracks, model.card.geometry, FRAMES, per_clip=1):
            with torch.inference_mode():
                output = model(**inputs_of(model, segment))
            for stream in visual_streams(model, segment):
                revealed = reveal_map(model, segment, stream, output)
                if revealed is None:
                    continue
                maps = gated_maps(output, stream)
                some = found.setdefault(stream, Stretches())
                some.maps.append(maps)
                some.targets.append(at_cells(revealed, maps.shape[1:], model.map_stride_px, model.map_offset_px))
    return found


SOURCE = "fitted by tools/fit_gains.py, without labels"
TRAINING_DATA = (
    "the second of each local clip and generated talking photograph (split fit) in which the network hears speech "
    "most, blurred but for one patch at a time"
)
LIMITS = (
    "for these weights and these gates only",
    "fitted to stretches called speaking: says nothing about what speaks for silence",
    "fitted to what blurring does: deletion and insertion with a blur measure nearly the same, on other clips",
)


def fit(model: FusionBackbone, args: argparse.Namespace) -> tuple[dict[str, torch.Tensor], dict]:
    """({stream: (C,) gains}, what goes into the card)."""
    data = {split: collect(model, split, args) for split in ("fit", "dev")}
    gains, results = {}, {"command": args.command}
    for stream, some in data["fit"].items():
        if stream not in data["dev"]:
            raise OptionError(f"no clip of the split dev has a stretch called speaking with a {stream} to choose on")
        held_back = data["dev"][stream]
        fitted = {ridge: fit_gains(some.maps, some.targets, ridge) for ridge in RIDGES}
        ridge = max(RIDGES, key=lambda r: agreement(fitted[r], held_back.maps, held_back.targets))
        gains[stream] = torch.from_numpy(fitted[ridge])
        plain = np.ones_like(fitted[ridge])
        results |= {
            f"{stream}_ridge": ridge,
            f"{stream}_channels_used": int((fitted[ridge] > 0).sum()),
            f"{stream}_stretches_fit": len(some.maps),
            f"{stream}_stretches_dev": len(held_back.maps),
        }
        for split, part in (("fit", some), ("dev", held_back)):
            with_gains, without = (agreement(g, part.maps, part.targets) for g in (fitted[ridge], plain))
            results |= {
                f"{stream}_correlation_with_occlusion_{split}": round(with_gains, 3),
                f"{stream}_without_gains_{split}": round(without, 3),
            }
    return gains, results


def parser() -> argparse.ArgumentParser:
    names = [c.name for c in cards().values() if c.kind == "network"]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, choices=names, metavar="CARD", help=" | ".join(names))
    p.add_argument("--shared", type=Path, help="shared folder (default: ASD_EXPLAIN_SHARED, else ../shared)")
    p.add_argument("--out", type=Path, default=Path("runs/gains"), help="folder for gains and card")
    p.add_argument("--per-speaker", type=int, default=4, help="clips of each speaker of clips/tracks (default 4)")
    p.add_argument("--photos", type=int, default=48, help="talking photographs of each split, at most (default 48)")
    p.add_argument("--seconds", type=float, default=10.0, help="look at most at so much of a clip (default 10)")
    p.add_argument("--threads", type=int, default=0, help="0 for all cores (default)")
    p.add_argument("--overwrite", action="store_true", help="replace files of an earlier run")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    return p


def run(args: argparse.Namespace) -> str:
    """Everything; returns the text for standard output."""
    if args.photos < 0 or args.per_speaker < 1:
        raise OptionError("--per-speaker must be at least 1, --photos at least 0")
    path = args.out / f"gains.{args.model}.safetensors"
    card_path = args.out / f"gains.{args.model}.toml"
    for one in (path, card_path):
        check_new(one, args.overwrite)
    try:
        args.out.mkdir(parents=True, exist_ok=True)  # not found out after ten minutes
    except OSError as error:
        raise OutputError(f"cannot write below {args.out} ({error.strerror}); give another folder with --out") from None
    seed_everything(0)
    with bounded_threads(args.threads):
        model = load(args.model)
        gains, results = fit(model, args)
    if not gains:
        raise OptionError(f"{args.model} calls nobody speaking in these clips; there is nothing to fit gains to")
    write_tensors({stream: values.half().contiguous() for stream, values in gains.items()}, path)
    text = fitted_card_text(
        "gains",
        args.model,
        model.card.model,
        path,
        source=SOURCE,
        training_data=TRAINING_DATA,
        limits=LIMITS,
        tables={"results": results},
    )
    write_text(card_path, text)
    return f"{text.partition('[results]')[2].strip()}\n\nWritten: {path} and {card_path}\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    own = {key: getattr(args, key) for key in ("per_speaker", "photos", "seconds")}
    changed = [f"--{k.replace('_', '-')} {v}" for k, v in own.items() if v != parser().get_default(k)]
    args.command = " ".join(["python tools/fit_gains.py --model", args.model, *changed])
    return run_tool(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
