"""Measure the explanations of a classifier of pictures, and what its block costs.

    python tools/evaluate_images.py --weights runs/cifar10/block.seed0/last.safetensors \\
        --plain runs/cifar10/plain.seed0/last.safetensors --set cifar10 --root cifar10.zip --out runs/images

``--weights`` is a checkpoint of ``tools/train_images.py``. Where it has no block, ``--fit N`` puts one before its
pooling and fits it to N pictures of the split train, without labels; without ``--fit`` only the rivals are measured.

In the folder ``--out``: ``metrics.csv`` (every figure of every picture), ``report.json``, ``report.md``, ``grid.png``.
Accuracy is of the whole split (or ``--accuracy-pictures``), faithfulness of ``--pictures`` of it, ablations of
``--ablation-pictures``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from asd_explain.errors import OptionError
from asd_explain.evaluate.assumptions import distribution_rows, selection_rows
from asd_explain.evaluate.image_inputs import check_classes, side_for
from asd_explain.evaluate.image_report import csv_text, grid, markdown
from asd_explain.evaluate.images import (
    AGAINST,
    RIVALS,
    SE_METHODS,
    PictureRow,
    ablations,
    chosen,
    measure,
    methods_for,
    reference_for,
    right,
    seen,
    subset,
    table,
)
from asd_explain.evaluate.json_report import write_report
from asd_explain.evaluate.paired import mean_interval, paired
from asd_explain.explain.gate_fitting import FitOptions
from asd_explain.explain.image_fitting import fit
from asd_explain.explain.images import STREAM, explain_batch, predicted
from asd_explain.models.images import block_of, blocks_in, squeeze
from asd_explain.options import DEVICES, pick_device
from asd_explain.outputs import check_new, check_writable, whole_file, write_text
from asd_explain.running import command_text, public_words, run_tool

if TYPE_CHECKING:
    from asd_explain.datasets.images import ImageSet
    from asd_explain.weights.images import ImageClassifier

log = logging.getLogger(__name__)

FILES = ("metrics.csv", "report.json", "report.md", "grid.png")


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    # Options spelt out, so that the ones with folders are known.
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    p.add_argument("--weights", type=Path, required=True, help="checkpoint of tools/train_images.py, card beside it")
    p.add_argument("--plain", type=Path, help="checkpoint trained without the block, for the accuracy")
    p.add_argument("--set", required=True, help="cifar10, cifar100, celeba or folder")
    p.add_argument("--root", type=Path, required=True, help="where the set lies")
    p.add_argument("--split", default="test", help="default test")
    p.add_argument("--size", type=int, help="side pictures are brought to, px, 0 for none (default: as in training)")
    p.add_argument("--out", type=Path, required=True, help="folder for the results")
    p.add_argument("--fit", type=int, default=0, metavar="N", help="fit a block to N pictures of train, without labels")
    p.add_argument("--fit-steps", type=int, default=FitOptions().steps, help="steps of the fit (default %(default)s)")
    p.add_argument("--pictures", type=int, default=200, help="of which faithfulness is measured (default 200)")
    p.add_argument("--ablation-pictures", type=int, default=100, help="for ablations; 0 for none (default 100)")
    p.add_argument("--accuracy-pictures", type=int, default=0, help="for accuracy and gates (default: all)")
    p.add_argument("--grid-pictures", type=int, default=6, help="rows of the figure (default 6)")
    p.add_argument("--steps", type=int, default=10, help="intervals of a curve (default 10)")
    p.add_argument("--seed", type=int, default=0, help="of the choice of pictures, and of the fit (default 0)")
    p.add_argument("--workers", type=int, default=0, help="processes that read pictures (default 0)")
    p.add_argument("--device", default="cpu", choices=DEVICES, help="default cpu")
    p.add_argument("--overwrite", action="store_true", help="replace results that are there")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def prepare(model: nn.Module, network: nn.Module, train: Dataset | None, args: argparse.Namespace) -> dict | None:
    """Make sure that there is a block, and fit it where that is asked for; returns what the fit did."""
    if not blocks_in(model):
        squeeze(network).eval()
        block_of(model).to(args.device)
    if not args.fit:
        return None
    if block_of(model).learnt:
        raise OptionError(f"the block of {args.weights} has been trained; leave --fit out")
    pictures = DataLoader(subset(train, chosen(train, args.fit, args.seed)), 64)
    multilabel = bool(getattr(train, "multilabel", False))
    options = replace(FitOptions(), steps=args.fit_steps)
    with tqdm(total=args.fit_steps, desc="fit", disable=True if args.quiet else None, leave=False) as bar:
        done = fit(
            model, pictures, multilabel=multilabel, options=options, seed=args.seed, progress=lambda *_: bar.update()
        )
    log.info("fitted without labels: answers moved by %.4f, %.1f %% agree", done.drift, 100 * done.agreement)
    return vars(done)


def faithfulness(
    model: nn.Module, data: Dataset, numbers: np.ndarray, multilabel: bool, args: argparse.Namespace
) -> tuple[list[PictureRow], list[PictureRow]]:
    """(rows of the methods, rows of the ablations)."""
    methods = methods_for(model)
    variants = ablations() if block_of(model).learnt and args.ablation_pictures else []
    wanted = set(chosen(numbers, min(args.ablation_pictures, len(numbers)), args.seed).tolist()) if variants else set()
    labels = {label for label, *_ in variants}
    rows: list[PictureRow] = []
    for i, number in enumerate(tqdm(numbers, desc="faithfulness", disable=True if args.quiet else None, leave=False)):
        picture = data[int(number)][0].to(args.device)
        more = variants if i in wanted else ()
        rows += measure(model, picture, int(number), methods, more=more, multilabel=multilabel, steps=args.steps)
    ablated = {row.picture for row in rows if row.method in labels}
    base = [row for row in rows if row.method == AGAINST and row.picture in ablated]
    return [r for r in rows if r.method not in labels], [*base, *(r for r in rows if r.method in labels)]


def draw(model: nn.Module, data: Dataset, numbers: np.ndarray, path: Path, device: torch.device) -> None:
    """The figure grid of the first pictures."""
    classes = getattr(data, "classes", None)
    pictures, titles, heats = [], [], []
    methods = [m for m in ("se", *SE_METHODS[:2], *RIVALS, "centre") if m in methods_for(model)]
    for number in numbers:
        picture, target = data[int(number)]
        batch = picture[None].to(device)
        with torch.inference_mode():
            said = predicted(model(batch)[0])
        name = str(said) if classes is None else classes[said]
        true = "" if np.ndim(target) else f"(is {classes[int(target)] if classes is not None else int(target)})"
        pictures.append(picture.permute(1, 2, 0).numpy())
        titles.append(f"{name}\n{true}")
        heats.append({m: explain_batch(model, batch, m)[0] for m in methods})
    grid(path, pictures, titles, heats)


def accuracies(
    answers: dict[str, np.ndarray], plain: dict[str, np.ndarray] | None, learnt: bool
) -> tuple[dict[str, dict], dict | None]:
    """({what: accuracy with its interval}, with the block minus without, picture by picture, or None)."""
    names = {"with the block" if learnt else "without a block": right(answers["logits"], answers["targets"])}
    if learnt:
        names["the same network, its block bypassed"] = right(answers["bypassed"], answers["targets"])
    if plain is not None:
        names["trained without the block"] = right(plain["logits"], plain["targets"])
    values = {name: {str(i): float(v) for i, v in enumerate(some)} for name, some in names.items()}
    found = {name: mean_interval(some)._asdict() | {"pictures": len(some)} for name, some in values.items()}
    if plain is None:
        return found, None
    c = paired(next(iter(values.values())), values["trained without the block"])
    return found, {"difference": c.difference, "low": c.low, "high": c.high}


def check_numbers(args: argparse.Namespace) -> None:
    """Refuse numbers that cannot be, before anything is read.

    Raises:
        OptionError: naming the option.
    """
    at_least = {"pictures": 1, "steps": 1, "grid_pictures": 1, "fit_steps": 1}
    at_least |= dict.fromkeys(("fit", "ablation_pictures", "accuracy_pictures", "workers", "seed", "size"), 0)
    for name, least in at_least.items():
        if (given := getattr(args, name)) is not None and given < least:
            raise OptionError(f"--{name.replace('_', '-')} must be at least {least}, not {given}")


def load_classifier(path: Path, device: str | torch.device) -> ImageClassifier:
    """See :func:`asd_explain.weights.images.load_classifier`."""
    from asd_explain.weights import images

    return images.load_classifier(path, device)


def open_images(name: str, root: Path, split: str, **options: object) -> ImageSet:
    """See :func:`asd_explain.datasets.images.open_images`."""
    from asd_explain.datasets import images

    return images.open_images(name, root, split, **options)


def run(args: argparse.Namespace, command: str) -> str:
    """Measure, write, and return the page."""
    for name in FILES:
        check_new(args.out / name, args.overwrite)
    check_numbers(args)
    args.device = pick_device(args.device)
    classifier = load_classifier(args.weights, args.device)
    size = side_for(args.size, classifier.facts, lambda side: open_images(args.set, args.root, args.split, size=side))
    data = open_images(args.set, args.root, args.split, size=size)
    check_classes(args.weights, classifier.facts, data)
    other = None
    if args.plain is not None:
        other = load_classifier(args.plain, args.device)
        check_classes(args.plain, other.facts, data)
        if args.size is None and other.facts.size != classifier.facts.size:
            raise OptionError(
                f"{args.plain} was trained on pictures of another size than {args.weights}; give the one trained "
                "beside it, or the --size at which both are asked"
            )
        if not blocks_in(other):
            squeeze(other.network).to(args.device).eval()
    for name in FILES:
        check_writable(args.out / name)
    train = open_images(args.set, args.root, "train", size=size) if args.fit else None
    fitted = prepare(classifier, classifier.network, train, args)
    part = subset(data, chosen(data, args.accuracy_pictures or len(data), args.seed))

    def look(model: nn.Module, what: str) -> dict[str, np.ndarray]:
        with tqdm(total=len(part), desc=what, disable=True if args.quiet else None, leave=False) as bar:
            return seen(model, part, workers=args.workers, progress=bar.update)

    answers = look(classifier, "accuracy")
    plain = None if other is None else look(other, "accuracy, plain")
    learnt = block_of(classifier).learnt
    accuracy, drop = accuracies(answers, plain, learnt)
    numbers = chosen(data, args.pictures, args.seed)
    rows, ablated = faithfulness(classifier, data, numbers, bool(data.multilabel), args)
    # One picture is one track of one frame.
    gates = [{STREAM: torch.from_numpy(answers["gates"])}] if learnt else []
    report = {
        "command": command,
        "network": args.weights.name if classifier.card is None else classifier.card.name,
        "data": f"{args.set}, split {args.split}",
        "accuracy": accuracy,
        "drop": drop,
        "fit": fitted,
        "against": reference_for(classifier),
        "faithfulness": table(rows, reference_for(classifier)),
        "ablations_against": AGAINST,
        "ablations": table(ablated),
        "gates": distribution_rows(gates),
        "selection": selection_rows(gates) if gates else [],
    }
    page = markdown(report)
    spread = numbers[np.unique(np.linspace(0, len(numbers) - 1, args.grid_pictures).round().astype(int))]
    every = list(dict.fromkeys([*rows, *ablated]))
    write_text(args.out / "metrics.csv", csv_text(every))
    with whole_file(args.out / "grid.png") as partial:
        draw(classifier, data, spread, partial, args.device)
    write_report(report, args.out / "report.json")
    write_text(args.out / "report.md", page + "\n![grid](grid.png)\n")
    return page


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    words = public_words(
        sys.argv[1:] if argv is None else argv, {"--root": 1, "--out": 1, "--weights": 2, "--plain": 2}
    )
    return run_tool(lambda: run(args, command_text("evaluate_images", *words)))


if __name__ == "__main__":
    raise SystemExit(main())
