"""Fit the gains of a classifier's squeeze-and-excitation heat: how much each channel's map counts for each class.

    python tools/fit_image_gains.py --weights runs/cifar10/block.seed0/last.safetensors \\
        --set cifar10 --root cifar10.zip --out runs/cifar10/block.seed0/gains.safetensors

Each of N pictures of the split train is shown to the network blurred but for one patch, wherever that may lie; gains
are the weights by which its gated maps go with what each patch does to the log odds of the class that it says. No
labels. Written are the same weights with gains in them, and a card beside; ``tools/evaluate_images.py`` and ``explain``
use them by themselves. Method: ``asd_explain/explain/image_gains.py``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch.utils.data import DataLoader
from tqdm import tqdm

from asd_explain.datasets.images import open_images
from asd_explain.errors import OptionError
from asd_explain.evaluate.image_inputs import check_classes, side_for
from asd_explain.evaluate.images import chosen, subset
from asd_explain.explain.image_gains import GainsFit, fit_gains
from asd_explain.models.images import blocks_in
from asd_explain.options import DEVICES, pick_device
from asd_explain.outputs import check_new, check_writable, write_text
from asd_explain.running import command_text, public_words, run_tool
from asd_explain.training.export import export_weights
from asd_explain.weights.card_writing import classifier_card_text
from asd_explain.weights.images import ImageClassifier, load_classifier


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    # Options spelt out, so that the ones with folders are known.
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    p.add_argument("--weights", type=Path, required=True, help="checkpoint of tools/train_images.py, card beside it")
    p.add_argument("--set", required=True, help="cifar10, cifar100, celeba or folder")
    p.add_argument("--root", type=Path, required=True, help="where the set lies")
    p.add_argument("--out", type=Path, required=True, help="FILE.safetensors; its card becomes FILE.toml")
    p.add_argument("--pictures", type=int, default=1000, help="of the split train (default 1000)")
    p.add_argument("--size", type=int, help="side pictures are brought to, px, 0 for none (default: as in training)")
    p.add_argument("--seed", type=int, default=0, help="of the choice of pictures (default 0)")
    p.add_argument("--device", choices=DEVICES, default="auto", help="default auto")
    p.add_argument("--overwrite", action="store_true", help="replace what is there")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def fit(classifier: ImageClassifier, args: argparse.Namespace) -> GainsFit:
    """Fit to the set that is asked for; the gains are in the classifier's block then."""
    facts = classifier.facts
    side = side_for(args.size, facts, lambda side: open_images(args.set, args.root, "train", size=side))
    data = open_images(args.set, args.root, "train", size=side)
    check_classes(args.weights, facts, data)
    some = subset(data, chosen(data, args.pictures, args.seed))
    with tqdm(total=len(some), desc="gains", disable=True if args.quiet else None, leave=False) as bar:
        return fit_gains(classifier, DataLoader(some, 64), multilabel=facts.multilabel, progress=bar.update)


def run(args: argparse.Namespace, command: str) -> str:
    """Everything; returns the text for standard output."""
    if args.out.suffix != ".safetensors":
        raise OptionError(f"--out {args.out}: must end in .safetensors")
    if args.pictures < 1 or (args.size or 0) < 0 or args.seed < 0:
        raise OptionError("--pictures must be at least 1, --size and --seed at least 0")
    card_path = args.out.with_suffix(".toml")
    for path in (args.out, card_path):
        check_new(path, args.overwrite)
        check_writable(path)
    classifier = load_classifier(args.weights, pick_device(args.device))
    if not blocks_in(classifier):
        raise OptionError(f"{args.weights} has no block; gains weigh what a block's gates weigh (--arms block)")
    found = fit(classifier, args)
    export_weights(classifier.network, args.out, half=False)
    card = classifier.card
    results = card.results | {"gains_command": command} | {f"gains_{k}": _short(v) for k, v in asdict(found).items()}
    text = classifier_card_text(
        f"{card.name.removesuffix('.gains')}.gains",
        card.model,
        args.out,
        source=card.source,
        training_data=card.training_data,
        limits=card.limits,
        tables={"pictures": classifier.facts.table(), "results": results},
    )
    write_text(card_path, text)
    return (
        f"Correlation with what patches reveal, on the pictures held back: gate times map {found.without:.3f}, with "
        f"the gains of all classes {found.shared:.3f}, of each class {found.own:.3f} ({found.classes} classes said, "
        f"{found.pictures} pictures).\n\nWritten: {args.out} and {card_path}\n"
    )


def _short(value: float) -> float:
    return round(value, 4) if isinstance(value, float) else value


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    words = public_words(sys.argv[1:] if argv is None else argv, {"--root": 1, "--out": 1, "--weights": 2})
    return run_tool(lambda: run(args, command_text("fit_image_gains", *words)))


if __name__ == "__main__":
    raise SystemExit(main())
