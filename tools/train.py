"""Train a backbone from a TOML file: resumable, seeded, logged; one process or several (torchrun).

    python tools/train.py squeeze_asd --out runs/squeeze_asd
    torchrun --nproc-per-node 4 tools/train.py squeeze_asd --out runs/squeeze_asd

The argument is the name of a configuration of the package or a path. OUT gets ``checkpoint.pt`` (to go on from),
``log.csv``, the configuration, and in the end ``weights.safetensors`` (float16). The same command again goes on where
it was cut off.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import torch
import torch.distributed as dist
from tqdm import tqdm

from asd_explain.datasets.shared_clips import FaceClipCache, list_clips
from asd_explain.datasets.talking_corpus import TalkingClipCache, talking_entries
from asd_explain.errors import AsdExplainError, OptionError
from asd_explain.memory import keep_large_blocks
from asd_explain.models.registry import create_model
from asd_explain.options import DEVICES, pick_device
from asd_explain.running import seed_everything
from asd_explain.training.check import quick_check
from asd_explain.training.config import TrainConfig, find_config, read_config
from asd_explain.training.corpus import TrainTrack, load_tracks
from asd_explain.training.engine import Trainer
from asd_explain.training.export import export_weights
from asd_explain.training.objective import Objective
from asd_explain.training.prepare import prepare
from asd_explain.training.sampler import Sampler
from asd_explain.training.teacher import Teacher
from asd_explain.weights.store import cache_dir, shared_dir

log = logging.getLogger("asd_explain.tools.train")

WEIGHTS = "weights.safetensors"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("config", help="name of a configuration of the package, or a TOML file")
    p.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log and weights")
    p.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change the configuration")
    p.add_argument("--shared", type=Path, help="shared folder (default: ASD_EXPLAIN_SHARED, else ../shared)")
    p.add_argument(
        "--cache", type=Path, help="folder for crops and teacher's labels (default: the user's cache folder)"
    )
    p.add_argument("--device", default="auto", choices=DEVICES)
    p.add_argument("--threads", type=int, default=0, help="threads of torch, 0 for all cores (default)")
    p.add_argument("--overwrite", action="store_true", help="begin anew where OUT holds a training already")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def tracks_of(config: TrainConfig, split: str, args: argparse.Namespace) -> list[TrainTrack]:
    """The face tracks of one split, with labels."""
    shared, cache = args.shared or shared_dir(), args.cache or cache_dir() / "corpus"
    real = tuple(g for g in config.data.groups if g != "talking_photos")
    tracks = []
    bar = partial(tqdm, desc=f"{split}: clips", disable=True if args.quiet else None, leave=False)
    if real:
        if shared is None:
            raise OptionError("no shared folder found; give it with --shared or ASD_EXPLAIN_SHARED")
        number = config.data.per_speaker if split == "fit" else config.data.dev_per_speaker
        entries = [e for e in list_clips(shared, groups=real, per_speaker=number) if e.split == split]
        tracks += load_tracks(entries, FaceClipCache(cache), Teacher(cache), bar)
    if "talking_photos" in config.data.groups:
        tracks += load_tracks(talking_entries(split), TalkingClipCache(cache), None, bar)
    return tracks


def run(args: argparse.Namespace) -> Path:
    """Train, or go on; returns the path of the weights."""
    config = read_config(find_config(args.config), args.set)
    weights = args.out / WEIGHTS
    if args.overwrite:
        shutil.rmtree(args.out, ignore_errors=True)
    if weights.exists():
        raise OptionError(f"{weights} is there already; give another --out, or --overwrite to begin anew")
    ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = pick_device(args.device)
    cores = args.threads or max(1, (os.cpu_count() or 1) // ranks)
    torch.set_num_threads(cores)
    cv2.setNumThreads(1)
    if ranks > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
    keep_large_blocks()
    seed_everything(config.seed)
    model = create_model(config.model, **config.options).train()
    objective = Objective(model, config.loss, config.loop.dtype)
    fit, dev = tracks_of(config, "fit", args), tracks_of(config, "dev", args)
    frames = sum(map(len, fit))
    log.info("fit: %d face tracks, %d frames; dev: %d, %d", len(fit), frames, len(dev), sum(map(len, dev)))
    prepare(objective, fit)
    sampler = Sampler(
        fit, config.sampler, config.view, config.sound, seed=config.seed, rank=rank, ranks=ranks,
        body="body" in model.streams, absence=model.learned_absence,
    )  # fmt: skip
    trainer = Trainer(objective.to(device), sampler, config.loop, args.out, quick_check(dev), progress=not args.quiet)
    if trainer.resume():
        log.info("going on from step %d", trainer.step)
    trainer.run()
    if rank == 0:
        export_weights(trainer.averaged(), weights)
    if ranks > 1:
        dist.destroy_process_group()
    return weights


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        path = run(args)
    except AsdExplainError as error:
        log.error("%s", error)
        return 2
    except KeyboardInterrupt:
        log.error("interrupted; the same command goes on from the last checkpoint")
        return 130
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
