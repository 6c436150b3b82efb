"""A recipe: how a network of the field is trained on annotated entities, as one TOML file.

A recipe differs from a configuration of :mod:`asd_explain.training.config` (distillation on local clips) by its table
``[model]``, where that has a line ``model = "..."``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from asd_explain.errors import OptionError
from asd_explain.training._tables import FromTable, check_tables, options_of, seed_of
from asd_explain.training.config import read_tables

SETS = ("ava", "wasd")
STREAMS = ("audio", "face", "body")


@dataclass(frozen=True)
class ModelConfig(FromTable):
    """Which network.

    Attributes:
        name: of the backbone, see :func:`asd_explain.models.registry.list_models`.
        gates: whether a squeeze-and-excitation block at the fusion point is trained with the rest, in a network that
            has none of its own.
        reduction, scope: of that block, see :class:`asd_explain.models.se.SqueezeExcite`.
        options: (key, value) pairs, arguments of the backbone's constructor.
    """

    _table = "model"

    name: str = ""
    gates: bool = False
    reduction: int = 16
    scope: str = "frame"
    options: tuple[tuple[str, object], ...] = ()

    def __post_init__(self) -> None:
        self._check_number(("reduction",), 1, 10**6)
        if type(self.gates) is not bool:
            raise OptionError(f"[model] gates = {self.gates!r} is neither true nor false")
        if not (isinstance(self.name, str) and self.name):
            raise OptionError('[model] does not say which, for instance name = "light_asd"')


@dataclass(frozen=True)
class DataConfig(FromTable):
    """What is learnt from.

    Attributes:
        set: "ava" or "wasd".
        train, val: names of its splits.
    """

    _table = "data"

    set: str = "ava"
    train: str = "train"
    val: str = "val"

    def __post_init__(self) -> None:
        if self.set not in SETS:
            raise OptionError(f"[data] set = {self.set!r}; choose from {', '.join(SETS)}")


@dataclass(frozen=True)
class BatchConfig(FromTable):
    """How entities are put together.

    Attributes:
        frames: about so many in a batch: entities are sorted by length, and a batch takes as many as this holds of the
            longest of them. All are cut to the shortest.
        entities: so many in a batch, however long; 0: as many as ``frames`` says.
        clip: only so many frames of an entity count, from its first; 0: all.
    """

    _table = "batches"

    frames: int = 2000
    entities: int = 0
    clip: int = 0

    def __post_init__(self) -> None:
        self._check_number(("frames",), 1, 10**7)
        self._check_number(("entities", "clip"), 0, 10**7)


@dataclass(frozen=True)
class AugmentConfig(FromTable):
    """How entities are disturbed, see :mod:`asd_explain.training.recipe_augment`.

    Attributes:
        view: whether crops are mirrored, cut or turned.
        crop: smallest and largest side of what a cut leaves, share of the crop's.
        rotate_deg: largest turn to either side, degrees.
        voice: probability that another entity is heard as well.
        voices: where that one is from, the "batch" or the whole "set".
        snr_db: smallest and largest signal-to-noise ratio then.
        absent: probability that a batch lacks one stream altogether; for networks that know of absence.
    """

    _table = "augment"

    view: bool = True
    crop: tuple[float, float] = (0.7, 1.0)
    rotate_deg: float = 15.0
    voice: float = 0.5
    voices: str = "batch"
    snr_db: tuple[float, float] = (-5.0, 5.0)
    absent: float = 0.0

    def __post_init__(self) -> None:
        self._check_number(("voice", "absent"), 0, 1)
        self._check_number(("rotate_deg",), 0, 180)
        self._check_range("crop", 0.1, 1)
        self._check_range("snr_db", -60, 60)
        if self.voices not in ("batch", "set"):
            raise OptionError(f"[augment] voices = {self.voices!r} is neither 'batch' nor 'set'")


@dataclass(frozen=True)
class RecipeLoss(FromTable):
    """Weights of the cross-entropies of the network's logits and of its heads on single streams.

    Attributes:
        fused: of the logits that count.
        audio, face, body: of the head on one stream; 0 leaves it out.
        face_to_fused: so much of the weight moves from ``face`` to ``fused`` every epoch.
        temperature: divides all logits in the first epoch, ``temperature_step`` is added every epoch.
    """

    _table = "loss"

    fused: float = 1.0
    audio: float = 0.0
    face: float = 0.0
    body: float = 0.0
    face_to_fused: float = 0.0
    temperature: float = 1.0
    temperature_step: float = 0.0

    def __post_init__(self) -> None:
        self._check_number(("fused", *STREAMS, "face_to_fused"), 0, 100)
        self._check_number(("temperature",), 0.01, 100)
        self._check_number(("temperature_step",), -100, 100)

    def weights(self, epoch: int) -> dict[str, float]:
        """{"fused" or stream: weight} in an epoch, counted from 1."""
        moved = min(self.face, self.face_to_fused * (epoch - 1))
        now = {"fused": self.fused + moved, "audio": self.audio, "face": self.face - moved, "body": self.body}
        return {name: value for name, value in now.items() if name == "fused" or getattr(self, name)}

    def temperature_of(self, epoch: int) -> float:
        """What divides the logits in an epoch, counted from 1."""
        return self.temperature + self.temperature_step * (epoch - 1)


@dataclass(frozen=True)
class RecipeLoop(FromTable):
    """How long and how fast.

    Attributes:
        epochs: times that every batch is seen.
        lr: rate of Adam in the first epoch, ``decay`` multiplies it every epoch.
        precision: "float32" or "bfloat16" (autocast in the encoders).
        save_every: batches between checkpoints within an epoch; there is one after every epoch anyway.
    """

    _table = "loop"

    epochs: int = 30
    lr: float = 1e-3
    decay: float = 0.95
    precision: str = "float32"
    save_every: int = 500

    def __post_init__(self) -> None:
        self._check_number(("epochs", "save_every"), 1, 10**9)
        self._check_number(("lr", "decay"), 1e-9, 1e3)
        if self.precision not in ("float32", "bfloat16"):
            raise OptionError(f"[loop] precision = {self.precision!r} is neither 'float32' nor 'bfloat16'")

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1."""
        return self.lr * self.decay ** (epoch - 1)


@dataclass(frozen=True)
class Recipe:
    """Everything that makes the weights what they are, beside the data.

    Attributes:
        model, data, batches, augment, loss, loop: the tables of the same names.
        seed: of initialisation and of all draws.
    """

    model: ModelConfig
    data: DataConfig = field(default_factory=DataConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: RecipeLoss = field(default_factory=RecipeLoss)
    loop: RecipeLoop = field(default_factory=RecipeLoop)
    seed: int = 0

    def __post_init__(self) -> None:
        last = self.loss.temperature_of(self.loop.epochs)
        if last <= 0:
            raise OptionError(
                f"[loss] temperature falls to {last:g} in epoch {self.loop.epochs}; take another "
                "temperature_step, or fewer [loop] epochs"
            )


_TABLES = {
    "model": ModelConfig,
    "data": DataConfig,
    "batches": BatchConfig,
    "augment": AugmentConfig,
    "loss": RecipeLoss,
    "loop": RecipeLoop,
}


def is_recipe(path: Path) -> bool:
    """Whether a TOML file is a recipe; raises OptionError where it cannot be read."""
    return isinstance(read_tables(path).get("model"), dict)


def read_recipe(path: Path, changes: list[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: TOML file.
        changes: "table.key=value" or "seed=value" with a TOML value, applied on top.

    Raises:
        OptionError: the file or a change cannot be used.
    """
    content = read_tables(path, changes)
    check_tables(content, path, _TABLES, ("seed",))
    if "model" not in content:
        raise OptionError(f'{path}: it has no table [model] with name = "..."')
    seed = seed_of(content, path)
    options = content["model"].get("options", {})
    if not isinstance(options, dict):
        raise OptionError(f"{path}: options of [model] = {options!r} is not a table")
    content["model"]["options"] = tuple(options.items())
    return Recipe(**options_of(content, _TABLES), seed=seed)
