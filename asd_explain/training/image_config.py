"""A training on pictures, as one TOML file: the same for both arms, with the block and without."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from asd_explain.errors import OptionError
from asd_explain.training._tables import FromTable, check_tables, options_of
from asd_explain.training.config import read_tables

_SETS = ("cifar10", "cifar100", "celeba", "folder")


@dataclass(frozen=True)
class ImageModelConfig(FromTable):
    """Which classifier.

    Attributes:
        arch: "cifar_resnet18", "cifar_resnet50" or the name of a torchvision classifier.
        width: channels of the first stage, of a cifar_resnet.
        reduction: of the block, see :class:`asd_explain.models.se.SqueezeExcite`.
    """

    _table = "model"

    arch: str = "cifar_resnet18"
    width: int = 64
    reduction: int = 16

    def __post_init__(self) -> None:
        self._check_number(("width", "reduction"), 1, 10**4)
        if not (isinstance(self.arch, str) and self.arch):
            raise OptionError('[model] does not say which, for instance arch = "cifar_resnet18"')


@dataclass(frozen=True)
class ImageDataConfig(FromTable):
    """What is learnt from.

    Attributes:
        set: "cifar10", "cifar100", "celeba" or "folder".
        size: side in px that pictures are brought to; 0 leaves them.
        hold_out: so many pictures of train, or below 1 that share of them, are kept for the validation; 0: the set's
            own val, or test without one.
        part: at most so many pictures to learn from (spread evenly over the files); 0 for all.
        augment: whether pictures are cut and mirrored at random.
    """

    _table = "data"

    set: str = "cifar10"
    size: int = 0
    hold_out: float = 0.0
    part: int = 0
    augment: bool = True

    def __post_init__(self) -> None:
        self._check_number(("size", "hold_out", "part"), 0, 10**9)
        if self.hold_out > 1 and self.hold_out != int(self.hold_out):
            raise OptionError(f"[data] hold_out = {self.hold_out!r} is neither a whole number nor a share below 1")
        if self.set not in _SETS:
            raise OptionError(f"[data] set = {self.set!r}; choose from {', '.join(_SETS)}")


@dataclass(frozen=True)
class ImageLoopConfig(FromTable):
    """Stochastic gradient descent with Nesterov's momentum.

    The rate rises linearly to ``lr`` over the share ``warmup`` of all steps, then falls along half a cosine to 0.

    Attributes:
        epochs: times that every picture is seen.
        batch: pictures in a batch; what is left over at an epoch's end is left out.
        lr: largest rate.
        warmup: share of the steps.
        momentum: of the descent.
        weight_decay: of convolutions and matrices; not of biases and norms.
        smoothing: label smoothing (one class a picture).
        precision: "float32" or "bfloat16" (autocast, on a GPU only).
        save_every: batches between checkpoints within an epoch; there is one after every epoch anyway.
    """

    _table = "loop"

    epochs: int = 30
    batch: int = 128
    lr: float = 0.1
    warmup: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    smoothing: float = 0.0
    precision: str = "float32"
    save_every: int = 1000

    def __post_init__(self) -> None:
        self._check_number(("epochs", "batch", "save_every"), 1, 10**9)
        self._check_number(("lr",), 1e-9, 1e3)
        self._check_number(("warmup", "momentum", "smoothing"), 0, 0.999)
        self._check_number(("weight_decay",), 0, 10)
        if self.precision not in ("float32", "bfloat16"):
            raise OptionError(f"[loop] precision = {self.precision!r} is neither 'float32' nor 'bfloat16'")

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, counted from 0, of so many."""
        rising = self.warmup * steps
        if step < rising:
            return self.lr * (step + 1) / (math.floor(rising) + 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1e-9, steps - rising)))


@dataclass(frozen=True)
class ImageTraining:
    """Everything that makes the weights what they are, beside the pictures.

    Attributes:
        model, data, loop: the tables of the same names.
        block: whether the squeeze-and-excitation block is trained in.
        seed: of initialisation and of all draws.
    """

    model: ImageModelConfig = field(default_factory=ImageModelConfig)
    data: ImageDataConfig = field(default_factory=ImageDataConfig)
    loop: ImageLoopConfig = field(default_factory=ImageLoopConfig)
    block: bool = True
    seed: int = 0


_TABLES = {"model": ImageModelConfig, "data": ImageDataConfig, "loop": ImageLoopConfig}


def read_image_config(path: Path, changes: list[str] = ()) -> ImageTraining:
    """Read a configuration; arm and seed are the command's.

    Args:
        path: TOML file.
        changes: "table.key=value" with a TOML value, applied on top.

    Raises:
        OptionError: the file or a change cannot be used.
    """
    content = read_tables(path, changes)
    check_tables(content, path, _TABLES)
    return ImageTraining(**options_of(content, _TABLES))
