"""A recipe from its file to trained weights with their card."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from asd_explain.datasets.entities import EntitySet
from asd_explain.datasets.opening import open_entities
from asd_explain.errors import OptionError, WeightsError
from asd_explain.memory import keep_large_blocks
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.outputs import write_text
from asd_explain.running import changes_of, command_text, seed_everything
from asd_explain.training.export import export_weights
from asd_explain.training.folder import CONFIG, begin_with, check_config, join_processes, write_config
from asd_explain.training.recipe_company import CompanyBatches
from asd_explain.training.recipe_config import Recipe, read_recipe
from asd_explain.training.recipe_data import SPEAKING, RecipeBatches, checked_clip, entity_sound
from asd_explain.training.recipe_objective import build, objective_of, sees_body
from asd_explain.training.recipe_trainer import CHECKPOINT, LOG, RecipeTrainer
from asd_explain.weights.card_writing import network_card_text

log = logging.getLogger(__name__)

BEST, LAST = "best.safetensors", "last.safetensors"
_CARDS = ("best.toml", "last.toml")
#: Entities from which a network that standardises its MFCC takes their statistics.
_STATISTICS_OF = 200
_LIMITS = (
    "trained and validated on crops of the annotated boxes, at each entity's own frame rate, with windows of sound "
    "scaled by 25/fps; the explaining tools feed it 25 frames a second",
    "its terms of use follow from those of the data set",
)


def train_recipe(path: Path, args: argparse.Namespace) -> Path:
    """Train by a recipe, or go on; returns the path of the best weights.

    Args:
        path: the recipe.
        args: ``config`` (as typed), ``set``, ``data``, ``out``, ``weights``, ``device``, ``threads``, ``workers``,
            ``overwrite``, ``quiet``.

    Raises:
        AsdExplainError: an option, the data set or a file in it cannot be used.
    """
    recipe = read_recipe(path, args.set)
    out: Path = args.out
    if args.data is None:
        raise OptionError(f"{args.config} trains on a data set; say where it lies with --data")
    if out.exists() and not out.is_dir():
        raise OptionError(f"--out {out} is not a folder; name one, it is made when needed")
    if args.weights is not None and not args.weights.is_file():
        raise WeightsError(f"--weights {args.weights}: there is no such file")
    if args.overwrite:
        for name in (CHECKPOINT, LOG, CONFIG, BEST, LAST, *_CARDS):
            (out / name).unlink(missing_ok=True)
    if not (out / CHECKPOINT).is_file() and (there := [n for n in (BEST, LAST, LOG) if (out / n).exists()]):
        raise OptionError(f"{out / there[0]} is there already; give another --out, or --overwrite to begin anew")
    check_config(recipe, out, args.weights)
    model = build(recipe.model)  # a mistake in the recipe is told before the data are read
    body = sees_body(model)
    splits = (recipe.data.train, recipe.data.val)
    train, val = (open_entities(recipe.data.set, args.data, split, body != "no") for split in splits)
    if body == "needed" and not (train.with_body and val.with_body):
        raise OptionError(f"{recipe.model.name} looks at bodies, and {recipe.data.set} at {args.data} has none")
    _check_classes(val, recipe.data.val)
    device, rank, ranks = join_processes(args.device, args.threads)
    keep_large_blocks()
    seed_everything(recipe.seed)
    model = build(recipe.model).train()
    if args.weights is not None:
        afresh = begin_with(model, args.weights)
        log.info("begins with %s; afresh: %s", args.weights, ", ".join(afresh) or "nothing")
    precision = torch.bfloat16 if recipe.loop.precision == "bfloat16" else None
    objective = objective_of(model, recipe.loss, precision, ranks)
    begins = not (out / CHECKPOINT).is_file()
    if begins and rank == 0 and args.weights is None:
        take_statistics(model, train, recipe.seed)
    batches = batches_of(model, train, recipe, rank, ranks)
    frames = sum(len(row.labels) for row in train.rows)
    log.info("%d entities, %d frames, %d batches; validation: %d", len(train), frames, len(batches), len(val))
    command = command_text("train", Path(args.config).name, *changes_of(args.set))
    learnt_from = f"{recipe.data.set} {recipe.data.train}: {len(train)} entities, {frames} frames"
    keep = _keeper(recipe, out, command, learnt_from, val)
    trainer = RecipeTrainer(
        objective.to(device), batches, val, recipe, out, keep, workers=args.workers, progress=not args.quiet
    )
    if rank == 0:
        write_config(recipe, out, args.weights)
    if trainer.resume():
        log.info("going on from epoch %d, batch %d", trainer.state.epoch, trainer.state.done)
    trainer.run()
    if ranks > 1:
        dist.barrier()  # the first process may be the one that the others meet through
        dist.destroy_process_group()
    return out / BEST


def batches_of(
    model: FusionBackbone, entities: EntitySet, recipe: Recipe, rank: int = 0, ranks: int = 1
) -> RecipeBatches:
    """The batches that go with a network; see :class:`RecipeBatches`."""
    given = (entities, recipe, sees_body(model), list(model.streams), rank, ranks, model.audio_feature)
    if model.scored_together > 1:
        return CompanyBatches(*given, places=model.scored_together)
    return RecipeBatches(*given)


def take_statistics(model: FusionBackbone, entities: EntitySet, seed: int) -> None:
    """Set mean and deviation of MFCC in a network that standardises them; others are left alone."""
    encoder = getattr(model, "audio_encoder", None)
    if encoder is None or not hasattr(encoder, "mean"):
        return
    chosen = np.random.default_rng([seed, 0x57A7]).permutation(len(entities))[:_STATISTICS_OF]
    clips = [checked_clip(entities, int(i)) for i in chosen]
    rows = encoder.audible(torch.cat([entity_sound(clip.waveform, clip.fps, len(clip.face)) for clip in clips]))
    encoder.mean.copy_(rows.mean(0))
    # A set of silence alone has no deviation.
    encoder.std.copy_(rows.std(0, correction=0).clamp_min(1e-3))


def _check_classes(entities: EntitySet, split: str) -> None:
    speaking = sum(int((np.asarray(row.labels) == SPEAKING).sum()) for row in entities.rows)
    frames = sum(len(row.labels) for row in entities.rows)
    if not 0 < speaking < frames:
        raise OptionError(
            f"split {split}: {speaking} of {frames} frames are labelled speaking; average precision needs both classes"
        )


def _keeper(
    recipe: Recipe, out: Path, command: str, training_data: str, val: EntitySet
) -> Callable[[str, nn.Module, dict[str, float]], None]:
    labels = np.concatenate([np.asarray(row.labels) == SPEAKING for row in val.rows])

    def keep(name: str, model: nn.Module, row: dict[str, float]) -> None:
        path = out / f"{name}.safetensors"
        export_weights(model, path, half=False)
        tables: dict[str, dict[str, object]] = {}
        if recipe.model.gates:
            tables["gate"] = {"reduction": recipe.model.reduction, "scope": recipe.model.scope}
        tables["results"] = {
            "command": command,
            "meaning": "average precision over all frames of the split val; see asd_explain/evaluate/detection.py",
            "epoch": row["epoch"],
            "epochs_of_recipe": recipe.loop.epochs,
            "val_ap": round(row["val_ap"], 6),
            "val_base_rate": round(float(labels.mean()), 6),
            "val_frames": len(labels),
            "val_entities": len(val),
            "seed": recipe.seed,
        }
        text = network_card_text(
            f"{recipe.model.name}.{out.resolve().name}.{name}", recipe.model.name, path,
            licence="that of whoever trained it", source=f"trained by {command}", training_data=training_data,
            geometry="box", audio=model.audio_feature, limits=_LIMITS, tables=tables,
        )  # fmt: skip
        write_text(out / f"{name}.toml", text)

    return keep
