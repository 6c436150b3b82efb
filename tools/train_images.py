"""Train a classifier of pictures with the squeeze-and-excitation block and without: the same recipe, the same seeds.

    python tools/train_images.py cifar10_short --data cifar10.zip --out runs/cifar10 --seeds 0 1 2
    python tools/train_images.py cifar10_resnet18 --data CIFAR --out runs/gpu --workers 8
    python tools/train_images.py celeba_resnet18 --data CELEBA --out runs/celeba --arms block
    python tools/train_images.py folder_resnet50 --data FOLDER --out runs/mine --weights resnet50.pth

The first argument is the name of a configuration of the package or a TOML file. DATA is a folder or a zip, see
``asd_explain/datasets/images.py``; nothing is downloaded. OUT gets a folder ARM.seedN for each arm ("plain", "block")
and seed with ``best.safetensors`` and ``last.safetensors``, their cards, ``log.csv``, ``config.json`` and
``checkpoint.pt``, and at last ``summary.json``: scores on the split test and, of both arms, their difference seed by
seed. The same command again goes on where it was cut off and leaves alone what is finished; with other ``--arms`` or
``--seeds`` it adds to the summary. OUT holds trainings with one configuration and on the same pictures only.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from asd_explain.datasets.images import ImageSet, open_images
from asd_explain.errors import AsdExplainError, OptionError, WeightsError
from asd_explain.evaluate.json_report import write_report
from asd_explain.options import DEVICES, pick_device
from asd_explain.outputs import write_text
from asd_explain.running import changes_of, command_text, run_tool, seed_everything
from asd_explain.training.config import find_config
from asd_explain.training.export import export_weights
from asd_explain.training.folder import CHECKPOINT, CONFIG, LOG, begin_with, check_config, check_same, write_config
from asd_explain.training.image_config import ImageTraining, read_image_config
from asd_explain.training.images import ImageTrainer, logits_of, parameters_of, scores_of
from asd_explain.weights.card_writing import classifier_card_text
from asd_explain.weights.images import ImageClassifier, PictureFacts, build_network, load_classifier
from asd_explain.weights.store import sha256_of

log = logging.getLogger("asd_explain.tools.train_images")

ARMS = {"both": (False, True), "plain": (False,), "block": (True,)}
NAMES = {False: "plain", True: "block"}
BEST, LAST, TEST, SUMMARY = "best.safetensors", "last.safetensors", "test.json", "summary.json"
_FILES = (CHECKPOINT, LOG, CONFIG, BEST, LAST, TEST, "best.toml", "last.toml")
#: What helps where a training that was not asked for, and so is never overwritten, stands in the way.
_ELSEWHERE = "give another --out: a folder holds trainings with one configuration and of the same pictures only"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("config", help="name of a configuration of the package, or a TOML file")
    p.add_argument("--data", type=Path, required=True, help="where the pictures lie")
    p.add_argument("--out", type=Path, required=True, help="folder for everything that is written")
    p.add_argument("--arms", choices=ARMS, default="both", help="with the block, without, or both (default)")
    p.add_argument("--seeds", type=int, nargs="+", default=[0], help="one training a seed and arm (default: 0)")
    p.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change the configuration")
    p.add_argument(
        "--weights", type=Path, metavar="FILE", help="begin with what fits of these weights; the rest begins afresh"
    )
    p.add_argument("--device", default="auto", choices=DEVICES)
    p.add_argument("--threads", type=int, default=0, help="threads of torch, 0 for all cores (default)")
    p.add_argument("--workers", type=int, default=0, help="processes that load pictures (default: 0)")
    p.add_argument("--overwrite", action="store_true", help="begin anew where OUT holds a training already")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def splits_of(config: ImageTraining, args: argparse.Namespace) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Pictures to learn from, of the validation, and of the test."""
    data = config.data

    def opened(split: str, train_transform: bool = False) -> ImageSet:
        return open_images(
            data.set, args.data, split, train_transform=train_transform, size=data.size, hold_out=data.hold_out,
            progress=not args.quiet,
        )  # fmt: skip

    train, test = opened("train", data.augment), opened("test")
    try:
        val = opened("val")
    except AsdExplainError as error:
        log.warning("no pictures of a split val (%s): 'best' is chosen on test; only 'last' is a fair score", error)
        val = test
    for other in (val, test):
        if other.classes != train.classes:
            raise OptionError(f"{args.data}: train has the classes {train.classes[:3]}..., another split others")
        if other[0][0].shape != train[0][0].shape:
            shapes = " and ".join("{1} x {0}".format(*one[0][0].shape[1:]) for one in (train, other))
            raise OptionError(f"{args.data}: pictures of {shapes} px; bring all to one size ([data] size)")
    if not train.multilabel and len(train.classes) < 2:
        raise OptionError(
            f"{args.data}: {', '.join(train.classes)} is the only class; a classifier needs two or more (train/CLASS/*)"
        )
    if data.part and data.part < len(train):
        train = train.part(np.linspace(0, len(train) - 1, data.part).round().astype(int))
    return train, val, test


def facts_of(config: ImageTraining, train: ImageSet) -> PictureFacts:
    """What the card says of the network and its pictures."""
    mean, std = train.mean_std()
    return PictureFacts(
        set=config.data.set,
        arch=config.model.arch,
        width=config.model.width,
        block=config.block,
        reduction=config.model.reduction,
        classes=train.classes,
        multilabel=train.multilabel,
        size=tuple(train[0][0].shape[1:]),
        mean=mean,
        std=std,
        side=config.data.size,
    )


def trainer_of(
    config: ImageTraining,
    facts: PictureFacts,
    sets: tuple[ImageSet, ImageSet, ImageSet],
    out: Path,
    device: torch.device,
    command: str,
    args: argparse.Namespace,
) -> ImageTrainer:
    """A training at its beginning; nothing is written.

    Raises:
        AsdExplainError: the network, its first weights or the pictures do not go together.
    """
    train, val, _ = sets
    seed_everything(config.seed)
    network = build_network(facts)
    if args.weights is not None:
        afresh = begin_with(network, args.weights)
        log.info("begins with %s; afresh: %s", args.weights, ", ".join(afresh) or "nothing")
    classifier = ImageClassifier(network, facts).to(device).channels_last()
    keep = _keeper(config, facts, classifier, train, val, out, command)
    return ImageTrainer(classifier, train, val, config, out, keep, workers=args.workers, progress=not args.quiet)


def train_one(
    config: ImageTraining,
    facts: PictureFacts,
    sets: tuple[ImageSet, ImageSet, ImageSet],
    out: Path,
    device: torch.device,
    command: str,
    args: argparse.Namespace,
    marks: dict[str, str],
) -> None:
    """Train one arm with one seed, or go on; leaves the scores of best and last on the split test."""
    test = sets[2]
    if not (out / CHECKPOINT).is_file() and (there := [n for n in (BEST, LAST, LOG) if (out / n).exists()]):
        raise OptionError(f"{out / there[0]} is there already; give another --out, or --overwrite to begin anew")
    check_config(config, out, args.weights, marks)
    if (out / TEST).is_file():
        return
    trainer = trainer_of(config, facts, sets, out, device, command, args)
    write_config(config, out, args.weights, marks)
    if trainer.resume():
        log.info("%s: going on from epoch %d, batch %d", out.name, trainer.state.epoch, trainer.state.done)
    began = time.perf_counter()
    trainer.run()
    result: dict[str, object] = {
        "arm": NAMES[config.block],
        "seed": config.seed,
        "parameters": parameters_of(trainer.classifier),
        "seconds": round(time.perf_counter() - began, 1),
    }
    for name in ("last", "best"):
        kept = load_classifier(out / f"{name}.safetensors", device).channels_last()
        if name == "best" and kept.card.sha256 == sha256_of(out / LAST):
            result[name] = result["last"]
            continue
        logits, _ = logits_of(kept, test, device, args.workers, not args.quiet)
        result[name] = scores_of(logits, test)
    write_report(result, out / TEST)
    log.info("%s: test, last epoch: %s", out.name, result["last"])


def _keeper(
    config: ImageTraining,
    facts: PictureFacts,
    classifier: ImageClassifier,
    train: ImageSet,
    val: ImageSet,
    out: Path,
    command: str,
) -> Callable[[str, dict[str, float]], None]:
    def keep(name: str, row: dict[str, float]) -> None:
        path = out / f"{name}.safetensors"
        export_weights(classifier.network, path, half=False)
        results = {
            "command": command,
            "epoch": row["epoch"],
            "epochs_of_training": config.loop.epochs,
            "val_pictures": len(val),
            **{key: round(value, 6) for key, value in row.items() if key.startswith("val_")},
            "seed": config.seed,
        }
        text = classifier_card_text(
            f"{facts.arch}.{out.name}.{name}", facts.arch, path, source=f"trained by {command}",
            training_data=f"{config.data.set}: {len(train)} pictures",
            limits=("its terms of use follow from those of the pictures",),
            tables={"pictures": facts.table(), "results": results},
        )  # fmt: skip
        write_text(out / f"{name}.toml", text)

    return keep


def compare(results: Sequence[dict]) -> dict[str, dict[str, float]]:
    """Of both arms, with the block minus without, seed by seed, of the last epoch's scores on test.

    Returns:
        {score: {"plain": mean, "block": mean, "difference": mean, "standard_error": of that mean over seeds (NaN with
        one seed), "seeds": how many}}; empty where no seed was trained in both arms.
    """
    by_arm = {arm: {r["seed"]: r["last"] for r in results if r["arm"] == arm} for arm in NAMES.values()}
    seeds = sorted(by_arm["plain"].keys() & by_arm["block"].keys())
    table = {}
    for score in by_arm["plain"][seeds[0]] if seeds else ():
        # A score that a set does not have (it is null in the files) is NaN here.
        plain, block = (np.array([by_arm[arm][seed][score] for seed in seeds], float) for arm in ("plain", "block"))
        error = float((block - plain).std(ddof=1) / math.sqrt(len(seeds))) if len(seeds) > 1 else math.nan
        table[score] = {
            "plain": float(plain.mean()),
            "block": float(block.mean()),
            "difference": float((block - plain).mean()),
            "standard_error": error,
            "seeds": len(seeds),
        }
    return table


def finished(out: Path) -> dict[tuple[bool, int], Path]:
    """{(with the block, seed): folder} of all trainings below ``out`` that came to their end, seed by seed."""
    blocks = {name: block for block, name in NAMES.items()}
    found = {}
    for path in out.glob(f"*/{TEST}"):
        if match := re.fullmatch(r"(plain|block)\.seed(0|[1-9]\d*)", path.parent.name):
            found[blocks[match[1]], int(match[2])] = path.parent
    return dict(sorted(found.items(), key=lambda one: (one[0][1], one[0][0])))


def read_result(folder: Path) -> dict:
    """What :func:`train_one` left.

    Raises:
        OptionError: it cannot be read.
    """
    path = folder / TEST
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise OptionError(f"{path} cannot be read as scores ({error}); remove it: they are taken anew") from error


def run(args: argparse.Namespace, command: str) -> Path:
    """Train all arms and seeds, or go on; returns the path of the summary."""
    config = read_image_config(find_config(args.config, "image_configs"), args.set)
    out: Path = args.out
    if out.exists() and not out.is_dir():
        raise OptionError(f"--out {out} is not a folder; name one, it is made when needed")
    if args.weights is not None and not args.weights.is_file():
        raise WeightsError(f"--weights {args.weights}: there is no such file")
    if min(args.seeds) < 0 or args.workers < 0 or args.threads < 0:
        raise OptionError("--seeds, --workers and --threads have to be 0 or more")
    device = pick_device(args.device)
    torch.set_num_threads(args.threads or os.cpu_count() or 1)
    sets = splits_of(config, args)
    facts = facts_of(config, sets[0])
    log.info("%d pictures to learn from, %d of validation, %d of test; %d classes", *map(len, sets), len(facts.classes))
    marks = {"pictures": " ".join(one.fingerprint() for one in sets)}
    asked = [(block, seed) for seed in dict.fromkeys(args.seeds) for block in ARMS[args.arms]]
    for (block, seed), folder in finished(out).items():  # all of them go into one summary
        if (block, seed) not in asked:
            read_result(folder)
            check_same(replace(config, block=block, seed=seed), folder, args.weights, marks, _ELSEWHERE)
        elif not args.overwrite:
            check_same(replace(config, block=block, seed=seed), folder, args.weights, marks)
    if args.overwrite:
        for block in ARMS[args.arms]:  # whatever is wrong is told before anything is gone
            one = replace(config, block=block, seed=args.seeds[0])
            trainer_of(one, replace(facts, block=block), sets, out, device, command, args)
        for block, seed in asked:
            for name in _FILES:
                (folder_of(out, block, seed) / name).unlink(missing_ok=True)
        if (out / SUMMARY).exists():
            summarise(out, command)
    for block, seed in asked:
        one = replace(config, block=block, seed=seed)
        train_one(one, replace(facts, block=block), sets, folder_of(out, block, seed), device, command, args, marks)
        summarise(out, command)
    return out / SUMMARY


def summarise(out: Path, command: str) -> None:
    """Write the summary of all that is finished."""
    results = [read_result(folder) for folder in finished(out).values()]
    write_report({"command": command, "runs": results, "comparison": compare(results)}, out / SUMMARY)


def folder_of(out: Path, block: bool, seed: int) -> Path:
    """Where a training of an arm with a seed lies."""
    return out / f"{NAMES[block]}.seed{seed}"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    command = command_text("train_images", Path(args.config).name, *changes_of(args.set))
    return run_tool(lambda: f"{run(args, command)}\n", "interrupted; the same command goes on from the last checkpoint")


if __name__ == "__main__":
    raise SystemExit(main())
