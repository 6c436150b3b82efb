"""A training's configuration: one TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path

from asd_explain.errors import OptionError
from asd_explain.training._tables import FromTable, check_tables, options_of, seed_of
from asd_explain.training.augment_sound import SoundAugment
from asd_explain.training.augment_view import ViewAugment
from asd_explain.training.engine import LoopConfig
from asd_explain.training.objective import LossWeights
from asd_explain.training.sampler import SamplerConfig


@dataclass(frozen=True)
class DataConfig(FromTable):
    """What is learnt from.

    Attributes:
        groups: groups of the shared clips, and "talking_photos".
        per_speaker: at most so many clips of a speaker's folder.
        dev_per_speaker: the same for the quick look at dev.
    """

    _table = "data"

    groups: tuple[str, ...] = ("tracks", "conversations", "single", "listening", "talking_photos")
    per_speaker: int = 1000
    dev_per_speaker: int = 6

    def __post_init__(self) -> None:
        self._check_number(("per_speaker", "dev_per_speaker"), 1, 10**6)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that makes the weights what they are.

    Attributes:
        model: name of the backbone.
        options: arguments of its constructor.
        seed: of initialisation and of all draws.
        data, sampler, view, sound, loss, loop: the tables of the same names.
    """

    model: str
    seed: int = 0
    options: dict = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    view: ViewAugment = field(default_factory=ViewAugment)
    sound: SoundAugment = field(default_factory=SoundAugment)
    loss: LossWeights = field(default_factory=LossWeights)
    loop: LoopConfig = field(default_factory=LoopConfig)


_TABLES = {
    "data": DataConfig,
    "sampler": SamplerConfig,
    "view": ViewAugment,
    "sound": SoundAugment,
    "loss": LossWeights,
    "loop": LoopConfig,
}


def find_config(name: str, folder: str = "configs") -> Path:
    """Path of a configuration: a file, or the name of one of the package's.

    Args:
        name: of either.
        folder: of the package's, within asd_explain/training.

    Raises:
        OptionError: there is none.
    """
    if Path(name).is_file():
        return Path(name)
    with as_file(files("asd_explain.training") / folder) as path:
        known = sorted(p.stem for p in Path(path).glob("*.toml"))
        if name in known:
            return Path(path) / f"{name}.toml"
    raise OptionError(f"{name}: no such file, and no configuration of that name; there are {', '.join(known)}")


def read_tables(path: Path, changes: list[str] = ()) -> dict:
    """What a TOML file holds, with changes on top, unchecked.

    Args:
        path: TOML file.
        changes: "table.key=value" or "key=value" with a TOML value.

    Raises:
        OptionError: the file cannot be read, or a change cannot be applied.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        for change in changes:
            name, found, value = change.partition("=")
            if not found:
                raise OptionError(f"--set {change}: it takes the form table.key=value")
            table, _, key = name.rpartition(".")
            target = content.setdefault(table, {}) if table else content
            if not isinstance(target, dict):
                raise OptionError(f"--set {change}: {table} is not a table")
            target[key] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"{path}: not valid TOML ({error})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} cannot be read ({error})") from error
    return content


def read_config(path: Path, changes: list[str] = ()) -> TrainConfig:
    """Read a configuration.

    Args:
        path: TOML file.
        changes: "table.key=value" or "key=value" with a TOML value, applied on top.

    Raises:
        OptionError: the file or a change cannot be used.
    """
    content = read_tables(path, changes)
    check_tables(content, path, ("options", *_TABLES), ("model", "seed"))
    if "model" not in content:
        raise OptionError(f'{path}: it does not say which model, for instance model = "squeeze_asd"')
    seed = seed_of(content, path)
    tables = options_of({name: _plain(content.get(name, {})) for name in _TABLES}, _TABLES)
    return TrainConfig(content["model"], seed, dict(content.get("options", {})), **tables)


def _plain(table: dict) -> dict:
    """A table within a table as the pairs that a frozen data class keeps."""
    return {k: tuple(v.items()) if isinstance(v, dict) else v for k, v in table.items()}
