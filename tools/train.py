"""Train a backbone from a TOML file: resumable, seeded, logged; one process or several (torchrun).

    python tools/train.py light_asd_ava --data AVA --out runs/light_asd
    torchrun --nproc-per-node 4 tools/train.py bias_wasd --data WASD --out runs/bias
    python tools/train.py light_asd_ava --data AVA --out runs/gated --set model.gates=true
    python tools/train.py loconet_ava --data AVA --out runs/loconet --weights vggish-10086976.pth
    python tools/train.py squeeze_asd --out runs/squeeze_asd

The argument is the name of a configuration of the package or a path. One with a table ``[model]`` is a recipe: a
network of the field is trained on the annotated entities of DATA, and OUT gets ``best.safetensors`` and
``last.safetensors`` (float32) with a card each (``.toml``), rewritten after every epoch. The others (``squeeze_asd``,
``squeeze_asd_more``, ``squeeze_asd_short``) distil our own network on local clips; OUT gets ``weights.safetensors``
(float16) in the end. Either way it gets ``checkpoint.pt`` (to go on from), ``log.csv`` and ``config.json`` (the
configuration with all its defaults). The same command again goes on where it was cut off. ``--weights FILE`` begins
with trained weights; LoCoNet's published training begins with those of its VGGish alone.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch.distributed as dist
from tqdm import tqdm

from asd_explain.datasets.face_clips import FaceClipCache
from asd_explain.datasets.shared_clips import list_clips
from asd_explain.datasets.talking_corpus import TalkingClipCache, talking_entries
from asd_explain.errors import OptionError, WeightsError
from asd_explain.memory import keep_large_blocks
from asd_explain.models.registry import create_model
from asd_explain.options import DEVICES
from asd_explain.running import run_tool, seed_everything
from asd_explain.training.check import QuickCheck
from asd_explain.training.config import TrainConfig, find_config, read_config
from asd_explain.training.corpus import TrainTrack, load_tracks
from asd_explain.training.engine import CHECKPOINT, LOG, Trainer
from asd_explain.training.export import export_weights
from asd_explain.training.folder import CONFIG, begin_with, check_config, join_processes, write_config
from asd_explain.training.objective import Objective
from asd_explain.training.prepare import prepare
from asd_explain.training.recipe_config import is_recipe
from asd_explain.training.recipe_run import train_recipe
from asd_explain.training.sampler import Sampler
from asd_explain.training.teacher import Teacher
from asd_explain.weights.store import cache_dir, needed_shared_dir

log = logging.getLogger("asd_explain.tools.train")

WEIGHTS = "weights.safetensors"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("config", help="name of a configuration of the package, or a TOML file")
    p.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log and weights")
    p.add_argument("--data", type=Path, help="folder of AVA-ActiveSpeaker or WASD, for a recipe")
    p.add_argument("--workers", type=int, default=2, help="processes that load entities, of a recipe (default 2)")
    p.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change the configuration")
    p.add_argument(
        "--weights", type=Path, metavar="FILE", help="begin with what fits of these weights; the rest begins afresh"
    )
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
    cache = args.cache or cache_dir() / "corpus"
    real = tuple(g for g in config.data.groups if g != "talking_photos")
    tracks = []
    bar = partial(tqdm, desc=f"{split}: clips", disable=True if args.quiet else None, leave=False)
    if real:
        shared = needed_shared_dir(args.shared)
        number = config.data.per_speaker if split == "fit" else config.data.dev_per_speaker
        entries = [e for e in list_clips(shared, groups=real, per_speaker=number) if e.split == split]
        tracks += load_tracks(entries, FaceClipCache(cache), Teacher(cache), bar)
    if "talking_photos" in config.data.groups:
        tracks += load_tracks(talking_entries(split), TalkingClipCache(cache), None, bar)
    return tracks


def run(args: argparse.Namespace) -> Path:
    """Train, or go on; returns the path of the weights."""
    path = find_config(args.config)
    if is_recipe(path):
        return train_recipe(path, args)
    if args.data is not None:
        raise OptionError(
            f"--data: {args.config} learns from the shared clips; give it with a recipe, as light_asd_ava"
        )
    config = read_config(path, args.set)
    weights = args.out / WEIGHTS
    if args.out.exists() and not args.out.is_dir():
        raise OptionError(f"--out {args.out} is not a folder; name one, it is made when needed")
    if args.overwrite:
        for name in (CHECKPOINT, LOG, CONFIG, WEIGHTS):
            (args.out / name).unlink(missing_ok=True)
    if weights.exists():
        raise OptionError(f"{weights} is there already; give another --out, or --overwrite to begin anew")
    if args.weights is not None and not args.weights.is_file():
        raise WeightsError(f"--weights {args.weights}: there is no such file")
    check_config(config, args.out, args.weights)
    device, rank, ranks = join_processes(args.device, args.threads)
    keep_large_blocks()
    seed_everything(config.seed)
    try:
        model = create_model(config.model, **config.options).train()
    except TypeError as error:
        raise OptionError(f"[options] do not fit {config.model}: {error}") from error
    if args.weights is not None:
        afresh = begin_with(model, args.weights)
        log.info("begins with %s; afresh: %s", args.weights, ", ".join(afresh) or "nothing")
    objective = Objective(model, config.loss, config.loop.dtype)
    fit, dev = tracks_of(config, "fit", args), tracks_of(config, "dev", args)
    frames = sum(map(len, fit))
    log.info("fit: %d face tracks, %d frames; dev: %d, %d", len(fit), frames, len(dev), sum(map(len, dev)))
    sampler = Sampler(
        fit, config.sampler, config.view, config.sound, seed=config.seed, rank=rank, ranks=ranks,
        body="body" in model.streams, absence=model.learned_absence,
    )  # fmt: skip
    prepare(objective, fit)
    if rank == 0:
        write_config(config, args.out, args.weights)
    check = QuickCheck(dev)
    trainer = Trainer(objective.to(device), sampler, config.loop, args.out, check, progress=not args.quiet)
    if trainer.resume():
        log.info("going on from step %d", trainer.step)
    trainer.run()
    if rank == 0:
        trained = trainer.averaged()
        if hasattr(trained, "scale_logits") and dev:
            temperature = check.temperature(trained)
            trained.scale_logits(1 / temperature)
            log.info("temperature %.3f, fitted on dev, is folded into the last layer", temperature)
        export_weights(trained, weights)
    if ranks > 1:
        dist.destroy_process_group()
    return weights


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)

    def told() -> str:
        path = run(args)
        return f"{path}\n" if os.environ.get("RANK", "0") == "0" else ""

    return run_tool(told, "interrupted; the same command goes on from the last checkpoint")


if __name__ == "__main__":
    raise SystemExit(main())
