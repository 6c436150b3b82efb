"""The training loop: resumable, logged, on one processor or several, with averaged weights."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from asd_explain.errors import OptionError
from asd_explain.training._tables import FromTable
from asd_explain.training.folder import CHECKPOINT, INSTEAD, LOG, read_checkpoint, save_checkpoint, trim_log
from asd_explain.training.objective import Objective
from asd_explain.training.sampler import Batch, Sampler

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopConfig(FromTable):
    """How the loop runs.

    Attributes:
        steps: batches altogether.
        lr: peak learning rate of AdamW.
        warmup: share of the steps during which the rate rises to it; afterwards it falls along a cosine to 2 % of it.
        weight_decay: of AdamW.
        clip_norm: largest norm of the gradient.
        average: decay of the weights' exponential moving average, which is what is kept in the end.
        precision: "float32" or "bfloat16" (autocast in the visual encoders).
        workers: processes that prepare batches, 0 for none.
        log_every, check_every, save_every: steps.
    """

    _table = "loop"

    steps: int = 3000
    lr: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip_norm: float = 5.0
    average: float = 0.998
    precision: str = "bfloat16"
    workers: int = 1
    log_every: int = 20
    check_every: int = 500
    save_every: int = 100

    def __post_init__(self) -> None:
        self._check_number(("workers",), 0, 1000)
        self._check_number(("steps", "log_every", "check_every", "save_every"), 1, 10**9)
        self._check_number(("lr", "clip_norm"), 1e-9, 1e3)
        self._check_number(("warmup", "weight_decay", "average"), 0, 1)
        if self.precision not in ("float32", "bfloat16"):
            raise OptionError(f"[loop] precision = {self.precision!r} is neither 'float32' nor 'bfloat16'")

    @property
    def dtype(self) -> torch.dtype | None:
        """Type for autocast, or None for none."""
        return torch.bfloat16 if self.precision == "bfloat16" else None


def learning_rate(step: int, config: LoopConfig) -> float:
    """The rate of a step: linear warm-up, then a cosine to 2 % of the peak."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return config.lr * (step + 1) / warm
    done = (step - warm) / max(1, config.steps - warm)
    return config.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class Trainer:
    """Trains an objective and keeps everything needed to go on in one folder.

    Args:
        objective: network and loss, on its device.
        sampler: draws this process's batches.
        config: how.
        folder: for the checkpoint and the log.
        check: called with the averaged network every ``check_every`` steps and at the end; what it returns is logged.
        progress: whether to show a progress bar.
    """

    def __init__(
        self,
        objective: Objective,
        sampler: Sampler,
        config: LoopConfig,
        folder: Path,
        check: Callable[[nn.Module], dict[str, float]] | None = None,
        progress: bool = False,
    ) -> None:
        self.objective, self.sampler, self.config = objective, sampler, config
        self.folder, self.check, self.progress = Path(folder), check, progress
        self.device = next(objective.parameters()).device
        self.optimiser = torch.optim.AdamW(_groups(objective, config.weight_decay), lr=config.lr)
        self.average = {k: v.detach().clone() for k, v in objective.model.state_dict().items()}
        self.step = 0
        self._random: dict[str, torch.Tensor] = {}
        self._main = not dist.is_initialized() or dist.get_rank() == 0
        self._wrapped: nn.Module = objective
        if dist.is_initialized():
            ids = [self.device.index] if self.device.type == "cuda" else None
            self._wrapped = nn.parallel.DistributedDataParallel(objective, ids, find_unused_parameters=True)

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one.

        Raises:
            OptionError: it is of another network or other [loop] options, or cannot be read.
        """
        path = self.folder / CHECKPOINT
        parts = ("config", "objective", "optimiser", "average", "step")
        stored = read_checkpoint(path, parts, self.device, "a training")
        if stored is None:
            return False
        if stored["config"] != asdict(self.config):
            changed = sorted(k for k, v in asdict(self.config).items() if stored["config"].get(k) != v)
            raise OptionError(f"{path} was made with other [loop] options ({', '.join(changed)}); {INSTEAD}")
        try:
            self.objective.load_state_dict(stored["objective"])
            self.optimiser.load_state_dict(stored["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise OptionError(f"{path} is of another network; {INSTEAD}") from error
        self.average, self.step = stored["average"], stored["step"]
        self._random = stored.get("random", {})
        return True

    def save(self) -> None:
        """Write the checkpoint, at once or not at all."""
        if not self._main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        stored = {
            "objective": self.objective.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "step": self.step,
            "config": asdict(self.config),
            # What dropout draws next, so that going on is exact.
            "random": {"cpu": torch.get_rng_state()},
        }
        if self.device.type == "cuda":
            stored["random"]["cuda"] = torch.cuda.get_rng_state(self.device)
        save_checkpoint(stored, self.folder / CHECKPOINT)

    def run(self) -> None:
        """Train to the last step.

        Raises:
            FloatingPointError: the loss is no longer finite; the last checkpoint is from before that.
        """
        bar = tqdm(
            total=self.config.steps, initial=self.step, desc="training", unit="step",
            disable=None if self.progress and self._main else True,
        )  # fmt: skip
        sums: dict[str, float] = {}
        began, frames, counted = time.perf_counter(), 0, 0
        if self._main:
            trim_log(self.folder / LOG, lambda step: step <= self.step)
        self.objective.train()
        with bar:
            for batch in self._batches():
                parts = self._one(batch.to(self.device))
                frames += batch.face.shape[0] * batch.face.shape[1]
                for name, value in parts.items():
                    sums[name] = sums.get(name, 0.0) + value
                self.step += 1
                counted += 1
                bar.update()
                last = self.step == self.config.steps
                if self.step % self.config.log_every == 0 or last:
                    seconds = time.perf_counter() - began
                    row = {name: value / counted for name, value in sums.items()}
                    self._log(row | {"frames_per_s": frames / seconds, "lr": self.optimiser.param_groups[0]["lr"]})
                    bar.set_postfix(loss=f"{row['loss']:.3f}")
                    sums, began, frames, counted = {}, time.perf_counter(), 0, 0
                if self.check is not None and self._main and (self.step % self.config.check_every == 0 or last):
                    self._log({f"dev_{k}": v for k, v in self.check(self.averaged()).items()})
                    began = time.perf_counter()
                if self.step % self.config.save_every == 0 or last:
                    self.save()

    def averaged(self) -> nn.Module:
        """A copy of the network with the averaged weights, in evaluation mode."""
        from copy import deepcopy

        model = deepcopy(self.objective.model)
        model.load_state_dict(self.average)
        return model.eval()

    def _one(self, batch: Batch) -> dict[str, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        self.optimiser.zero_grad(set_to_none=True)
        loss, parts = self._wrapped(batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {float(loss.detach())} at step {self.step}; try a smaller [loop] lr")
        loss.backward()
        nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.clip_norm)
        self.optimiser.step()
        self._update_average()
        return parts | {"loss": float(loss.detach())}

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average follows quickly, so that it does not remember the random beginning.
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        for key, value in self.objective.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def _batches(self) -> Iterator[Batch]:
        """The batches still to come, prepared by processes of their own (or here with ``workers`` 0)."""
        loader = DataLoader(
            _Batches(self.sampler, self.step, self.config.steps),
            batch_size=None,
            num_workers=self.config.workers,
            prefetch_factor=2 if self.config.workers else None,
            pin_memory=self.device.type == "cuda",
            multiprocessing_context="fork" if self.config.workers else None,
        )
        batches = iter(loader)  # draws a number itself
        if dist.is_initialized():
            # Each process drops out other units, after a resume as well.
            torch.manual_seed(1_000_003 * self.sampler.seed + 1009 * self.step + dist.get_rank())
        elif self._random:
            torch.set_rng_state(self._random["cpu"].cpu())
            if "cuda" in self._random and self.device.type == "cuda":
                torch.cuda.set_rng_state(self._random["cuda"].cpu(), self.device)
        yield from batches

    def _log(self, row: dict[str, float]) -> None:
        if not self._main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / LOG
        new = not path.is_file()
        with path.open("a", newline="") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(["step", "name", "value"])
            writer.writerows([self.step, name, f"{value:.6g}"] for name, value in row.items())
        log.info("step %d: %s", self.step, ", ".join(f"{k} {v:.3f}" for k, v in row.items()))


class _Batches(Dataset):
    """The batches of some steps, by number."""

    def __init__(self, sampler: Sampler, first: int, end: int) -> None:
        self.sampler, self.first, self.end = sampler, first, end

    def __len__(self) -> int:
        return self.end - self.first

    def __getitem__(self, index: int) -> Batch:
        return self.sampler.batch(self.first + index)


def _groups(objective: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay acts on matrices and kernels, not on biases, norms and the absent states."""
    decayed = [p for p in objective.parameters() if p.dim() >= 2]
    others = [p for p in objective.parameters() if p.dim() < 2]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
