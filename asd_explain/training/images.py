"""The loop of a training on pictures: epochs, validation after each, one folder with everything needed to go on.

Every draw is a function of the seed, the epoch and the picture's number: both arms see the same pictures, cut alike and
in the same order, however many processes load them; and a training that was cut off and goes on, on the CPU, ends with
the same bits. The folder:

* ``checkpoint.pt`` to go on from;
* ``last.safetensors``, ``best.safetensors``: the network after the last epoch, and after that with the highest score
  (accuracy; of attributes the mean average precision) on the pictures of the validation, each with a card (``.toml``);
* ``log.csv``: a row an epoch; ``config.json``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from asd_explain.datasets.images import ImageSet
from asd_explain.errors import OptionError
from asd_explain.evaluate.classification import attribute_scores, class_scores
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
from asd_explain.training.image_config import ImageLoopConfig, ImageTraining
from asd_explain.weights.images import ImageClassifier

_STORED = {"network", "optimiser", "progress", "batches"}
_TEST_BATCH = 250


class _Drawn(Dataset):
    """The pictures of an epoch, each cut and mirrored by a seed of its own."""

    def __init__(self, images: ImageSet, seed: int, epoch: int) -> None:
        self.images, self.seed, self.epoch = images, seed, epoch

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int | torch.Tensor]:
        draw = np.random.SeedSequence([self.seed, self.epoch, index, 0xD2A3]).generate_state(1, np.uint64)
        torch.default_generator.manual_seed(int(draw[0] >> np.uint64(1)))
        return self.images[index]


@torch.inference_mode()
def logits_of(
    classifier: ImageClassifier, images: ImageSet, device: torch.device, workers: int = 0, progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """((N, C) float32 logits, targets) of all pictures, in evaluation mode."""
    classifier.eval()
    loader = DataLoader(images, _TEST_BATCH, num_workers=workers)
    found = []
    for pictures, _ in tqdm(loader, desc="pictures", leave=False, disable=None if progress else True):
        found.append(classifier(pictures.to(device)).float().cpu().numpy())
    return np.concatenate(found), images.targets


def scores_of(logits: np.ndarray, images: ImageSet) -> dict[str, float]:
    """The scores that fit the set's kind of targets."""
    return (attribute_scores if images.multilabel else class_scores)(logits, images.targets)


def main_score(scores: dict[str, float]) -> float:
    """The one by which an epoch is best: mean average precision of attributes, else accuracy."""
    value = scores.get("mean_ap", scores["accuracy"])
    return scores["accuracy"] if math.isnan(value) else value


class ImageTrainer:
    """Trains a classifier.

    Args:
        classifier: on its device.
        train, val: the pictures.
        config: how.
        folder: for everything that is written.
        keep: called with (name, row of the log) to write weights named "last" or "best".
        workers: processes that load, 0 for none.
        progress: whether to show a progress bar.
    """

    def __init__(
        self,
        classifier: ImageClassifier,
        train: ImageSet,
        val: ImageSet,
        config: ImageTraining,
        folder: Path,
        keep: Callable[[str, dict[str, float]], None],
        workers: int = 0,
        progress: bool = False,
    ) -> None:
        loop: ImageLoopConfig = config.loop
        if loop.batch > len(train):
            raise OptionError(
                f"[loop] batch = {loop.batch}, but there are {len(train)} pictures to learn from; give more, or "
                f"make it smaller (--set loop.batch={len(train)})"
            )
        self.classifier, self.train, self.val, self.config = classifier, train, val, config
        self.folder, self.keep, self.workers, self.progress = Path(folder), keep, workers, progress
        self.device = next(classifier.parameters()).device
        self.batches = len(train) // loop.batch
        weights = [p for p in classifier.parameters() if p.dim() > 1]
        others = [p for p in classifier.parameters() if p.dim() <= 1]
        groups = [{"params": weights, "weight_decay": loop.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.SGD(groups, lr=loop.lr, momentum=loop.momentum, nesterov=loop.momentum > 0)
        self.state = Progress()

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one.

        Raises:
            OptionError: it is of another network or other pictures, or cannot be read.
        """
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return False
        stored = read_checkpoint(path, self.device, _STORED, "training on pictures")
        if stored["batches"] != self.batches:
            raise OptionError(f"{path}: {stored['batches']} batches an epoch then, {self.batches} now; {INSTEAD}")
        try:
            self.classifier.network.load_state_dict(stored["network"])
            self.optimiser.load_state_dict(stored["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise OptionError(f"{path} is of another network; {INSTEAD}") from error
        self.state = Progress(**stored["progress"])
        return True

    def run(self) -> None:
        """Train to the end of the last epoch.

        Raises:
            FloatingPointError: the loss is no longer finite; the last checkpoint is from before that.
        """
        trim_log(self.folder / LOG, lambda epoch: epoch < self.state.epoch)
        while self.state.epoch <= self.config.loop.epochs:
            began = time.perf_counter()
            self._epoch()
            row = self._row()
            logits, _ = logits_of(self.classifier, self.val, self.device, self.workers, self.progress)
            scores = scores_of(logits, self.val)
            row |= {f"val_{name}": value for name, value in scores.items()}
            row["seconds"] = time.perf_counter() - began
            if main_score(scores) > self.state.best[0]:
                self.state.best = (main_score(scores), self.state.epoch)
                self.keep("best", row)
            self.keep("last", row)
            log_row(self.folder / LOG, row)
            self.state = Progress(self.state.epoch + 1, best=self.state.best)
            self._save()

    def _epoch(self) -> None:
        state, loop = self.state, self.config.loop
        self.classifier.train()
        bar = tqdm(
            total=self.batches, initial=state.done, desc=f"epoch {state.epoch} of {loop.epochs}", unit="batch",
            disable=None if self.progress else True,
        )  # fmt: skip
        with bar:
            for pictures, targets in self._loaded():
                self._one(pictures.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True))
                state.done += 1
                bar.update()
                bar.set_postfix(loss=f"{state.sums['loss'] / state.sums['pictures']:.3f}", refresh=False)
                if state.done % loop.save_every == 0 and state.done < self.batches:
                    self._save()

    def _loaded(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        state, loop, seed = self.state, self.config.loop, self.config.seed
        order = np.random.default_rng([seed, state.epoch, 0x0D37]).permutation(len(self.train))
        chosen = order[: self.batches * loop.batch].reshape(self.batches, loop.batch)[state.done :]
        drawn = _Drawn(self.train, seed, state.epoch)
        cuda = self.device.type == "cuda"
        return iter(DataLoader(drawn, batch_sampler=chosen.tolist(), num_workers=self.workers, pin_memory=cuda))

    def _one(self, pictures: torch.Tensor, targets: torch.Tensor) -> None:
        state, loop = self.state, self.config.loop
        step = (state.epoch - 1) * self.batches + state.done
        for group in self.optimiser.param_groups:
            group["lr"] = loop.rate(step, loop.epochs * self.batches)
        # What dropout draws follows from where we are: nothing of it has to be kept.
        draw = np.random.SeedSequence([self.config.seed, state.epoch, state.done]).generate_state(1, np.uint64)
        torch.manual_seed(int(draw[0] >> np.uint64(1)))
        half = self.device.type == "cuda" and loop.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            logits = self.classifier(pictures)
        logits = logits.float()
        if self.train.multilabel:
            loss = functional.binary_cross_entropy_with_logits(logits, targets)
            right = ((logits > 0) == (targets > 0.5)).float().mean(1).sum()
        else:
            loss = functional.cross_entropy(logits, targets, label_smoothing=loop.smoothing)
            right = (logits.argmax(1) == targets).sum()
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss {float(loss.detach())} in epoch {state.epoch}, batch {state.done}; try a smaller [loop] lr"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        sums = {"loss": float(loss.detach()) * len(pictures), "right": float(right), "pictures": len(pictures)}
        for name, value in sums.items():
            state.sums[name] = state.sums.get(name, 0.0) + value

    def _row(self) -> dict[str, float]:
        sums, loop = self.state.sums, self.config.loop
        return {
            "epoch": self.state.epoch,
            "lr": loop.rate(self.state.epoch * self.batches - 1, loop.epochs * self.batches),
            "loss": sums["loss"] / sums["pictures"],
            "accuracy": sums["right"] / sums["pictures"],
            "pictures": int(sums["pictures"]),
        }

    def _save(self) -> None:
        """Write the checkpoint, at once or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stored = {
            "network": self.classifier.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "progress": asdict(self.state),
            "batches": self.batches,
        }
        save_checkpoint(stored, self.folder / CHECKPOINT)


def parameters_of(network: nn.Module) -> int:
    """How many numbers are learnt."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
