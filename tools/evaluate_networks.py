"""Measure active speaker detectors on the local clips of the shared folder, all by one protocol.

    python tools/evaluate_networks.py --model squeeze_asd --weights runs/best.safetensors \
        --compare lr_asd.pretrain_AVA light_asd.pretrain_AVA_CVPR --out runs/asd.test.json

Average precision as in the official AVA evaluation, against the decision of the published ensemble and against labels
that are certain (own voice against silence, a held picture, another person's voice, faces that do not talk), with
bootstrap intervals over clips; by streams and size of the face; calibration with a temperature fitted on dev. What each
section is: ``asd_explain/evaluate/asd_protocol.py``. Csv files are measured by ``tools/evaluate_asd.py``. LoCoNet sees
a face beside the others of its clip, ASDnB beside the person's body.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from asd_explain.datasets.shared_clips import SPLITS, ClipEntry, list_clips
from asd_explain.datasets.talking_corpus import TalkingClipCache, talking_entries
from asd_explain.errors import AsdExplainError, OptionError, WeightsError
from asd_explain.evaluate.asd_protocol import (
    Labels,
    Material,
    ensemble_of,
    label_tracks,
    looks,
    materials,
    members_against_ensemble,
    photo_material,
    section,
)
from asd_explain.evaluate.asd_report import calibration, draw_reliability, tables
from asd_explain.evaluate.json_report import check_report, write_report
from asd_explain.evaluate.pooled import PooledCache
from asd_explain.evaluate.stream_views import TINY, Scorer, ViewCache, ViewedTrack, view_clip
from asd_explain.memory import give_back_large_blocks
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.registry import create_model, list_models
from asd_explain.outputs import check_new
from asd_explain.running import run_tool
from asd_explain.scoring import classify
from asd_explain.training.teacher import TEACHERS
from asd_explain.weights.cards import Card, cards
from asd_explain.weights.choice import PREFERRED, choose
from asd_explain.weights.store import cache_dir, load, load_state, needed_shared_dir, read_state, sha256_of

log = logging.getLogger(__name__)


def load_network(name: str, weights: Path | None = None) -> FusionBackbone:
    """A card's network without fitted gates, or a registered model with the weights of a file.

    Args:
        name: a card's name, or that of a registered model.
        weights: file to read instead of the card's.

    Raises:
        OptionError: unknown name, or a model that no card has, without a file.
        WeightsError: the file does not fit.
    """
    networks = [c.name for c in cards().values() if c.kind == "network"]
    if name not in networks and name not in list_models():
        raise OptionError(f"unknown model {name!r}; choose one of {', '.join(list_models() + networks)}")
    if name not in networks and weights is None:
        name = PREFERRED.get(name) or next((n for n in networks if cards()[n].model == name), name)
        if name not in networks:
            raise OptionError(f"no weights of {name} are published; give a file with --weights")
    if name in networks and weights is None:
        return load(name, gates=False)
    path = Path(weights)
    state = read_state(path)
    model_name = cards()[name].model if name in networks else name
    model = create_model(model_name)
    # Gates that are trained in belong to the network; where a file has none, it is the same network without.
    block = next((f"{key}." for key, m in model.named_modules() if m is model.fusion_gate), "fusion_gate.")
    if model.fusion_gate is not None and not any(key.startswith(block) for key in state):
        model.attach_gates(None)
    load_state(model, state, str(path))
    sha256 = sha256_of(path)
    known = next((c for c in cards().values() if c.kind == "network" and c.sha256 == sha256), None)
    fed_as = cards()[choose(name, path)]
    model.card = known or Card(
        name=f"{model_name}.{path.stem}",
        kind="network",
        file=path.name,
        sha256=sha256,
        size_bytes=path.stat().st_size,
        licence="",
        source="a file",
        model=model_name,
        geometry=fed_as.geometry,
        audio=fed_as.audio,
    )
    model.weights_sha256 = sha256
    return model.requires_grad_(False).eval()


@torch.inference_mode()
def teacher_margins(entries: list[ClipEntry], folder: Path, quiet: bool) -> dict[str, dict[str, np.ndarray]]:
    """{member: {track: (T,) margin under the own sound}} of the published ensemble."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, geometry in TEACHERS:
        model = load(name, gates=False)
        cache = PooledCache(folder, model, geometry)
        margins = found.setdefault(f"{name}, {geometry}", {})
        for entry in tqdm(entries, f"teacher {name} {geometry}", disable=True if quiet else None, leave=False):
            for t in cache.get(entry):
                logits = classify(model, {"audio": t.audio[None], "face": t.face[None]})[0].double().numpy()
                margins[t.name] = logits[:, 1] - logits[:, 0]
    return found


def talking_photos(model: FusionBackbone, split: str, folder: Path, quiet: bool) -> dict[str, list[ViewedTrack]]:
    """{kind of clip: tracks with their truth} of the talking photographs of a split; empty where none can be made."""
    cache, found = TalkingClipCache(folder), {}
    bar = tqdm(talking_entries(split), f"{model.card.name}: photos", disable=True if quiet else None, leave=False)
    try:
        for entry in bar:
            for clip in cache.get(entry):
                found.setdefault(clip.kind, []).append(view_clip(model, clip, model.card.geometry))
    except AsdExplainError as error:
        log.warning("talking photos are left out: %s", error)
        return {}
    return found


def measure(
    model: FusionBackbone, entries: dict[str, list[ClipEntry]], labels: dict[str, Labels], args: argparse.Namespace
) -> dict:
    """Everything about one network, ready for JSON."""
    folder, geometry, split = args.cache or cache_dir() / "corpus", model.card.geometry, args.split
    name = model.card.name
    found_by_split: dict[str, dict[str, Material]] = {}
    found_looks: dict[str, dict[str, dict]] = {}
    options = {"draws": args.bootstrap, "seed": args.seed}
    for part in dict.fromkeys(("dev", split)):
        wanted = () if part != split or args.plain else (*TINY, "hidden")
        cache = ViewCache(folder, model, geometry, wanted, keep=not args.no_cache)
        bar = tqdm(entries[part], f"{name}: {part}", disable=True if args.quiet else None, leave=False)
        tracks = cache.collect(bar)
        scorer = Scorer(model, tracks, args.seed)
        found_by_split[part] = materials(scorer, tracks, labels[part])
        if part != split:
            continue
        photos = {} if args.no_photos else talking_photos(model, split, folder, args.quiet)
        if photos:
            found_by_split[part]["talking_photos"] = photo_material(model, photos)
        if not args.plain:
            for title, look in tqdm(
                looks(tuple(model.streams)).items(),
                f"{name}: looks",
                disable=True if args.quiet else None,
                leave=False,
            ):
                scored = materials(scorer, tracks, labels[part], look)
                if photos and look.view == "own":
                    scored["talking_photos"] = photo_material(model, photos, look)
                found_looks[title] = {key: section(value, **options) for key, value in scored.items() if value.parts}
    return {
        "weights_sha256": model.weights_sha256,
        "model": model.card.model,
        "geometry": geometry,
        "streams": list(model.streams),
        "crops": list(model.crops),
        "scored_together": model.scored_together,
        "sections": {key: section(value, **options) for key, value in found_by_split[split].items() if value.parts},
        "looks": found_looks,
        "calibration": calibration(found_by_split["dev"], found_by_split[split]),
    }


def add_report_options(p: argparse.ArgumentParser, seed: str) -> None:
    """The options of a report on the shared folder's clips; ``seed`` says what is drawn by ``--seed``."""
    p.add_argument("--shared", type=Path, help="shared folder (default: ASD_EXPLAIN_SHARED, else ../shared)")
    p.add_argument("--cache", type=Path, help="folder for crops and embeddings (default: the user's cache folder)")
    p.add_argument("--no-cache", action="store_true", help="store no embeddings (for checkpoints looked at once)")
    p.add_argument("--per-speaker", type=int, default=1000, help="clips of each speaker of clips/tracks (default all)")
    p.add_argument("--bootstrap", type=int, default=1000, help="resamples of the clips (default 1000)")
    p.add_argument("--seed", type=int, default=0, help=seed)
    p.add_argument("--overwrite", action="store_true", help="replace an existing report")
    p.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    p.add_argument("--quiet", action="store_true", help="no progress bar")


def parser() -> argparse.ArgumentParser:
    names = [c.name for c in cards().values() if c.kind == "network"]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="lr_asd.pretrain_AVA", metavar="NAME", help=f"card or model: {' '.join(names)}")
    p.add_argument("--weights", type=Path, help="file to read the network from instead of the card's")
    p.add_argument("--compare", nargs="+", default=[], metavar="CARD", help="further networks, in the same tables")
    p.add_argument("--split", default="test", choices=SPLITS, help="clips to report on (default test)")
    p.add_argument("--out", type=Path, help="JSON report; the reliability diagram goes beside it as PNG")
    p.add_argument("--plain", action="store_true", help="leave out the looks: streams taken away, tiny faces")
    p.add_argument("--no-photos", action="store_true", help="leave out the talking photographs")
    add_report_options(p, seed="of voices, noises, shifts and resamples")
    return p


def run(args: argparse.Namespace) -> str:
    """Everything, as markdown; writes the report where ``--out`` says."""
    if min(args.per_speaker, args.bootstrap, args.threads) < 1:
        raise OptionError("--per-speaker, --bootstrap and --threads must be at least 1")
    shared = needed_shared_dir(args.shared)
    if args.out:
        check_report(args.out, args.overwrite)
        check_new(args.out.with_suffix(".png"), args.overwrite)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    # Before anything long: a mistyped name is an error now, not in ten minutes.
    networks = [load_network(args.model, args.weights), *(load_network(name) for name in args.compare)]
    if len({m.card.name for m in networks}) < len(networks):
        raise WeightsError("--model and --compare name one network twice; give each once")
    listed = list_clips(shared, per_speaker=args.per_speaker)
    entries = {s: [e for e in listed if e.split == s] for s in dict.fromkeys(("dev", args.split))}
    if empty := [s for s, chosen in entries.items() if not chosen]:
        raise OptionError(f"no clips of split {', '.join(empty)} below {shared}")
    folder = args.cache or cache_dir() / "corpus"
    labels, members = {}, {}
    name, geometry = TEACHERS[-1]
    shared_tracks = PooledCache(folder, load(name, gates=False), geometry)  # boxes, voices: what all networks share
    for part, chosen in entries.items():
        margins = teacher_margins(chosen, folder, args.quiet)
        labels[part] = label_tracks(shared_tracks.collect(chosen), ensemble_of(margins))
        if part == args.split:
            members = members_against_ensemble(margins, draws=args.bootstrap, seed=args.seed)
    report = {
        "split": args.split,
        "seed": args.seed,
        "bootstrap": {"draws": args.bootstrap, "level": 0.95, "unit": "clip"},
        "clips": {s: len(chosen) for s, chosen in entries.items()},
        "people": len({e.person for e in entries[args.split]}),
        "talking_tracks": len(labels[args.split].talking),
        "left_out": labels[args.split].left_out,
        "teachers": list(members),
        "members": members,
        "networks": {m.card.name: measure(m, entries, labels, args) for m in networks},
    }
    if args.out:
        write_report(report, args.out)
        draw_reliability(report, args.out.with_suffix(".png"))
    return tables(report)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    give_back_large_blocks()
    return run_tool(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
