"""The loop of a recipe: epochs over batches, validation after each, one folder with everything needed to go on.

Every draw is a function of the seed, the epoch and the batch (dropout's generator is seeded anew for every batch), so a
training that was cut off and goes on, on the same device with as many processes, ends with the same bits. The folder:

* ``checkpoint.pt`` to go on from;
* ``last.safetensors``, ``best.safetensors``: the network after the last epoch, and after that with the highest average
  precision on the validation split, each with a card (``.toml``);
* ``log.csv``: a row an epoch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from asd_explain.datasets.entities import EntitySet
from asd_explain.errors import OptionError
from asd_explain.evaluate.detection import average_precision
from asd_explain.training.folder import (
    CHECKPOINT,
    INSTEAD,
    LOG,
    Progress,
    log_row,
    read_checkpoint,
    save_checkpoint,
    trim_log,
)
from asd_explain.training.recipe_config import Recipe
from asd_explain.training.recipe_data import RecipeBatch, RecipeBatches, loaded
from asd_explain.training.recipe_objective import RecipeObjective
from asd_explain.training.recipe_scoring import score_entities, share_of

log = logging.getLogger(__name__)

_STORED = {"objective", "optimiser", "progress", "batches", "ranks"}


class RecipeTrainer:
    """Trains an objective.

    Args:
        objective: on its device.
        batches: this process's shares.
        val: entities for the validation.
        recipe: how.
        folder: for everything that is written.
        keep: called by the first process with (name, network, row of the log) to write weights named "last" or "best".
        workers: processes that load, 0 for none.
        progress: whether to show a progress bar.
    """

    def __init__(
        self,
        objective: RecipeObjective,
        batches: RecipeBatches,
        val: EntitySet,
        recipe: Recipe,
        folder: Path,
        keep: Callable[[str, nn.Module, dict[str, float]], None],
        workers: int = 0,
        progress: bool = False,
    ) -> None:
        self.objective, self.batches, self.val, self.recipe = objective, batches, val, recipe
        self.folder, self.keep, self.workers, self.progress = Path(folder), keep, workers, progress
        self.device = next(objective.parameters()).device
        self.optimiser = torch.optim.Adam(objective.parameters(), lr=recipe.loop.lr)
        self.state = Progress()
        self.rank, self.ranks = batches.rank, batches.ranks
        self._wrapped: nn.Module = objective
        if self.ranks > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            # Published networks hold layers that nothing calls.
            self._wrapped = nn.parallel.DistributedDataParallel(objective, ids, find_unused_parameters=True)

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one.

        Raises:
            OptionError: it is of another network, recipe or number of processes, or cannot be read.
        """
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return False
        stored = read_checkpoint(path, self.device, _STORED, "recipe")
        if stored["batches"] != len(self.batches):
            raise OptionError(f"{path}: {stored['batches']} batches an epoch then, {len(self.batches)} now; {INSTEAD}")
        if stored["ranks"] != self.ranks:
            log.warning("%s: begun with %d processes, goes on with %d", path, stored["ranks"], self.ranks)
        try:
            self.objective.load_state_dict(stored["objective"])
            self.optimiser.load_state_dict(stored["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise OptionError(f"{path} is of another network; {INSTEAD}") from error
        self.state = Progress(**stored["progress"])
        if self.rank:
            self.state.sums = {}  # the first process goes on with those of all
        return True

    def run(self) -> None:
        """Train to the end of the last epoch.

        Raises:
            FloatingPointError: the loss is no longer finite; the last checkpoint is from before that.
        """
        if self.rank == 0:
            trim_log(self.folder / LOG, lambda epoch: epoch < self.state.epoch)
        while self.state.epoch <= self.recipe.loop.epochs:
            began = time.perf_counter()
            self._epoch()
            row = self._row()
            row["val_ap"] = self._validate()
            row["seconds"] = time.perf_counter() - began
            if self.rank == 0:
                if row["val_ap"] > self.state.best[0]:
                    self.state.best = (row["val_ap"], self.state.epoch)
                    self.keep("best", self.objective.model, row)
                self.keep("last", self.objective.model, row)
                log_row(self.folder / LOG, row)
            best = self.state.best
            self.state = Progress(self.state.epoch + 1, best=best)
            self._save()

    def _epoch(self) -> None:
        state, loop = self.state, self.recipe.loop
        self.objective.train()
        for group in self.optimiser.param_groups:
            group["lr"] = loop.rate(state.epoch)
        order = self.batches.order(state.epoch)[state.done :]
        bar = tqdm(
            total=len(self.batches), initial=state.done, desc=f"epoch {state.epoch} of {loop.epochs}", unit="batch",
            disable=None if self.progress and self.rank == 0 else True,
        )  # fmt: skip

        def make(place: int) -> RecipeBatch:
            return self.batches.batch(state.epoch, int(order[place]))

        with bar:
            shares = loaded(make, len(order), self.workers, pin=self.device.type == "cuda")
            for number, share in zip(order, shares, strict=True):
                self._one(share.to(self.device), int(number))
                state.done += 1
                bar.update()
                bar.set_postfix(loss=f"{state.sums['loss'] / max(1, state.sums['frames']):.3f}", refresh=False)
                if state.done % loop.save_every == 0 and state.done < len(self.batches):
                    self._save()

    def _one(self, share: RecipeBatch, number: int) -> None:
        state = self.state
        # What dropout draws follows from where we are: nothing of it has to be kept.
        draw = np.random.SeedSequence([self.recipe.seed, state.epoch, number, self.rank]).generate_state(1, np.uint64)
        torch.manual_seed(int(draw[0] >> np.uint64(1)))
        self.optimiser.zero_grad(set_to_none=True)
        loss, sums = self._wrapped(share, state.epoch)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {float(loss.detach())} in epoch {state.epoch}, batch {number}; try a smaller [loop] lr"
            )
        loss.backward()
        self.optimiser.step()
        for name, value in sums.items():
            state.sums[name] = state.sums.get(name, 0.0) + float(value)

    def _row(self) -> dict[str, float]:
        """The epoch's row of the log, over all processes."""
        sums = self._joint_sums()
        epoch, frames = self.state.epoch, sums["frames"]
        return {
            "epoch": epoch,
            "lr": self.recipe.loop.rate(epoch),
            "temperature": self.recipe.loss.temperature_of(epoch),
            "loss": sums["loss"] / frames,
            **{f"loss_{name}": sums.get(name, 0.0) / frames for name in self.recipe.loss.weights(epoch)},
            "accuracy": sums["right"] / frames,
            "frames": frames,
        }

    def _joint_sums(self) -> dict[str, float]:
        """The sums of all processes together."""
        if self.ranks == 1:
            return self.state.sums
        parts: list[dict[str, float]] = [{}] * self.ranks
        dist.all_gather_object(parts, self.state.sums)
        return {name: sum(part.get(name, 0.0) for part in parts) for name in dict.fromkeys(k for p in parts for k in p)}

    def _validate(self) -> float:
        """Average precision on the validation split, of all processes' shares together, in [0, 1]."""
        model = self.objective.model.eval()
        if self.ranks > 1:
            # Each process has followed the statistics of its own shares; those of the first are kept.
            for values in model.buffers():
                dist.broadcast(values, 0)
        bar = tqdm(
            total=len(share_of(model, self.val, self.rank, self.ranks)), desc="validation", unit="entity", leave=False,
            disable=None if self.progress and self.rank == 0 else True,
        )  # fmt: skip
        mine = []
        with bar:
            for index, margin, labels in score_entities(
                model, self.val, self.device, self.workers, self.rank, self.ranks
            ):
                mine.append((index, margin, labels))
                bar.update()
        shares = [mine]
        if self.ranks > 1:
            shares = [None] * self.ranks
            dist.all_gather_object(shares, mine)
        scored = sorted((one for share in shares for one in share), key=lambda one: one[0])
        _, margins, labels = zip(*scored, strict=True)
        return average_precision(np.concatenate(margins), np.concatenate(labels))

    def _save(self) -> None:
        """Write the checkpoint, at once or not at all."""
        sums = self._joint_sums()
        if self.rank:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        stored = {
            "objective": self.objective.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "progress": asdict(self.state) | {"sums": sums},
            "batches": len(self.batches),
            "ranks": self.ranks,
        }
        save_checkpoint(stored, self.folder / CHECKPOINT)
