"""Does the squeeze-and-excitation block cost accuracy? The same network with and without it, over several seeds.

    python tools/ablate_gates.py --out runs/ablation [--config squeeze_asd_short] [--seeds 0 1 2]

Each run is a training of its own in OUT/SEED.gated and OUT/SEED.plain, from the same seed and so from the same batches;
one that is finished is not repeated, one that was cut off goes on. Average precision is that of the quick check
(asd_explain/training/check.py) on dev and on test. The table gives the mean over seeds, the least and the most, and of
the differences gated - plain the mean and the standard error over seeds.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from asd_explain.errors import OptionError, WeightsError
from asd_explain.memory import keep_large_blocks
from asd_explain.models.registry import create_model
from asd_explain.outputs import write_text
from asd_explain.running import run_tool, seed_everything
from asd_explain.tools.train import tracks_of
from asd_explain.training.check import QuickCheck
from asd_explain.training.config import TrainConfig, find_config, read_config
from asd_explain.training.corpus import TrainTrack
from asd_explain.training.engine import Trainer
from asd_explain.training.folder import check_config, write_config
from asd_explain.training.objective import Objective
from asd_explain.training.prepare import prepare
from asd_explain.training.sampler import Sampler
from asd_explain.weights.store import read_state, sha256_of

log = logging.getLogger("asd_explain.tools.ablate_gates")

VARIANTS = {"gated": True, "plain": False}
RESULT = "result.json"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, help="folder for the runs and the table")
    p.add_argument("--config", default="squeeze_asd_short", help="configuration of the package, or a TOML file")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    p.add_argument(
        "--encoders",
        type=Path,
        metavar="FILE",
        help="weights whose encoders every run begins with (a small budget then goes into the rest); default: afresh",
    )
    p.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change the configuration")
    p.add_argument("--shared", type=Path, help="shared folder (default: ASD_EXPLAIN_SHARED, else ../shared)")
    p.add_argument("--cache", type=Path, help="folder for crops and labels (default: the user's cache folder)")
    p.add_argument("--threads", type=int, default=0, help="threads of torch, 0 for all cores (default)")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def one_run(
    config: TrainConfig,
    seed: int,
    gated: bool,
    tracks: dict[str, list[TrainTrack]],
    out: Path,
    quiet: bool,
    encoders: Path | None = None,
) -> dict[str, dict[str, float]]:
    """Train one variant; {split: {condition: average precision}}."""
    seed_everything(seed)
    model = create_model(config.model, **{**config.options, "gated": gated}).train()
    objective = Objective(model, config.loss, config.loop.dtype)
    prepare(objective, tracks["fit"])
    if encoders is not None:
        load_encoders(model, encoders)
    sampler = Sampler(
        tracks["fit"], config.sampler, config.view, config.sound, seed=seed,
        body="body" in model.streams, absence=model.learned_absence,
    )  # fmt: skip
    trainer = Trainer(objective, sampler, config.loop, out, progress=not quiet)
    trainer.resume()
    trainer.run()
    return {split: QuickCheck(tracks[split])(trainer.averaged()) for split in ("dev", "test")}


def load_encoders(model: nn.Module, path: Path) -> None:
    """Put the encoders of a weights file into a network; what follows the fusion point stays as it is.

    Raises:
        WeightsError: the file cannot be read or has no encoders of this network.
    """
    state = {k: v.float() for k, v in read_state(path).items() if "_encoder." in k}
    wanted = {k for k in model.state_dict() if "_encoder." in k}
    if not wanted or set(state) != wanted:
        raise WeightsError(f"{path} does not hold the encoders of this network")
    model.load_state_dict(state, strict=False)


def table(results: dict[str, dict[str, dict[str, dict[str, float]]]], seeds: list[int]) -> str:
    """Markdown: a row a split and condition."""
    lines = [
        "| split | average precision | with the block | without | difference (standard error) |",
        "|---|---|---:|---:|---:|",
    ]
    first = results[f"{seeds[0]}.gated"]
    for split, conditions in first.items():
        for condition in conditions:
            values = {v: [100 * results[f"{s}.{v}"][split][condition] for s in seeds] for v in VARIANTS}
            shown = [f"{statistics.mean(x):.1f} ({min(x):.1f} to {max(x):.1f})" for x in values.values()]
            apart = [a - b for a, b in zip(values["gated"], values["plain"], strict=True)]
            error = statistics.stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else float("nan")
            lines.append(
                f"| {split} | {condition} | {shown[0]} | {shown[1]} | {statistics.mean(apart):+.1f} ({error:.1f}) |"
            )
    return "\n".join(lines) + "\n"


def run(args: argparse.Namespace) -> str:
    """Everything, as markdown."""
    config = read_config(find_config(args.config), args.set)
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_large_blocks()
    results, tracks = {}, {}
    settings = json.loads(json.dumps(asdict(config)))
    settings["encoders"] = None if args.encoders is None else sha256_of(args.encoders)
    for seed in args.seeds:
        for variant, gated in VARIANTS.items():
            folder = args.out / f"{seed}.{variant}"
            path = folder / RESULT
            if not path.is_file():
                check_config(config, folder)
                tracks = tracks or {split: tracks_of(config, split, args) for split in ("fit", "dev", "test")}
                write_config(config, folder)
                found = one_run(config, seed, gated, tracks, folder, args.quiet, args.encoders)
                write_text(path, json.dumps({"config": settings, "result": found}, indent=1))
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["config"] != settings:
                raise OptionError(f"{path} is of another configuration; give another --out")
            results[folder.name] = stored["result"]
            log.info("%s: %s", folder.name, results[folder.name])
    budget = (
        f"{config.loop.steps} steps of {config.sampler.chunks} x {config.sampler.frames} frames, seeds {args.seeds}"
    )
    if args.encoders is not None:
        budget += f", encoders from {args.encoders.name}"
    text = f"{budget}; average precision in %, mean (least to most) over seeds.\n\n{table(results, args.seeds)}"
    write_text(args.out / "table.md", text)
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parser().parse_args(argv)
    return run_tool(lambda: run(args), "interrupted; the same command goes on where it was cut off")


if __name__ == "__main__":
    raise SystemExit(main())
