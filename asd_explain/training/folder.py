"""The folder of a training, the processes that share it, and the weights it begins with."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import torch
import torch.distributed as dist
from torch import nn

from asd_explain.errors import OptionError, OutputError, WeightsError
from asd_explain.options import pick_device
from asd_explain.outputs import whole_file, write_text
from asd_explain.weights.store import read_state, sha256_of

log = logging.getLogger(__name__)

CONFIG, CHECKPOINT, LOG = "config.json", "checkpoint.pt", "log.csv"
INSTEAD = "give another --out, or --overwrite to begin anew"


@dataclass
class Progress:
    """Where a training in epochs stands.

    Attributes:
        epoch: that is going on, from 1.
        done: batches of it.
        sums: of the loss and of what else the log tells, over those batches.
        best: highest score on the validation so far, and the epoch it was reached in.
    """

    epoch: int = 1
    done: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best: tuple[float, int] = (-1.0, 0)


def check_config(
    config: object, out: Path, weights: Path | None = None, marks: Mapping[str, str] | None = None
) -> None:
    """See that a training that is to go on was begun with the same configuration and the same first weights.

    Args:
        config: a data class.
        out: the training's folder.
        weights: that it begins with.
        marks: {name: text} of what else has to be the same.

    Raises:
        OptionError: it was not, or what it was begun with cannot be read.
    """
    if (out / CHECKPOINT).is_file() and (out / CONFIG).is_file():
        check_same(config, out, weights, marks)


def check_same(
    config: object,
    out: Path,
    weights: Path | None = None,
    marks: Mapping[str, str] | None = None,
    instead: str = INSTEAD,
) -> None:
    """As :func:`check_config`, of a folder that holds a training, finished or not; ``instead`` ends the message."""
    now = json.loads(_as_json(config, weights, marks))
    try:
        then = dict(json.loads((out / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise OptionError(f"{out / CONFIG} cannot be read as a configuration ({error}); {instead}") from error
    if changed := [name for name in now | then if then.get(name) != now.get(name)]:
        raise OptionError(f"{out / CONFIG}: the training there was begun with another {', '.join(changed)}; {instead}")


def write_config(
    config: object, out: Path, weights: Path | None = None, marks: Mapping[str, str] | None = None
) -> None:
    """Leave the configuration in the folder, as a whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(out / CONFIG, _as_json(config, weights, marks))


def save_checkpoint(stored: dict, path: Path) -> None:
    """Write what a training goes on from, as a whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with whole_file(path) as partial:
        try:
            torch.save(stored, partial)
        except RuntimeError as error:  # what its writer makes of a full disk
            raise OutputError(f"{path} cannot be written: {error}; is the disk full?") from error


def read_checkpoint(path: Path, device: torch.device, needed: Iterable[str], kind: str) -> dict:
    """What :func:`save_checkpoint` wrote, its tensors on a device.

    Args:
        path: of the file.
        device: for the tensors.
        needed: keys that it has to have.
        kind: of training, for the message.

    Raises:
        OptionError: it cannot be read, or lacks a key.
    """
    try:
        stored = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        # torch.load raises whatever a damaged archive makes its unpickler raise; all of them mean the same here.
        raise OptionError(f"{path} cannot be read as a checkpoint; {INSTEAD}") from error
    if not isinstance(stored, dict) or not set(stored) >= set(needed):
        raise OptionError(f"{path} is no checkpoint of a {kind}; {INSTEAD}")
    return stored


def trim_log(path: Path, keep: Callable[[int], bool]) -> None:
    """Leave out of a csv log what was written after the checkpoint: that much is done again. As a whole or not at all.

    Args:
        path: of the log; nothing happens where there is none.
        keep: whether a row stays, by the whole number in its first column.

    Raises:
        OptionError: it is no such log.
        OutputError: it cannot be written.
    """
    if not path.is_file():
        return
    try:
        head, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
        kept = head + "".join(row for row in rows if keep(int(row.split(",")[0])))
    except ValueError as error:
        raise OptionError(f"{path} is damaged ({error}): move it away, the training goes on without it") from error
    write_text(path, kept)


def append_log(path: Path, head: Iterable[str], rows: Iterable[Iterable[float | str]]) -> None:
    """Add rows to a csv log, which gets its head where it is new.

    Numbers get six digits, whole ones all they have. Lines end in a line feed alone, as :func:`trim_log` leaves them.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            if new:
                writer.writerow(head)
            writer.writerows([v if isinstance(v, int | str) else f"{v:.6g}" for v in row] for row in rows)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; give another place") from error


def log_row(path: Path, row: Mapping[str, float]) -> None:
    """Add a row to a csv log, with its heads where it is new, and tell it.

    Raises:
        OutputError: it cannot be written.
    """
    append_log(path, row, [row.values()])
    log.info("%s", ", ".join(f"{k} {v:.4g}" for k, v in row.items()))


def _as_json(config: object, weights: Path | None, marks: Mapping[str, str] | None) -> str:
    first = {} if weights is None else {"first_weights_sha256": sha256_of(weights)}
    return json.dumps(asdict(config) | first | dict(marks or {}), indent=1, default=str) + "\n"


def begin_with(model: nn.Module, path: Path) -> list[str]:
    """Put what fits of a weights file, by name and shape, into a network; returns the names of what begins afresh.

    A file of the network's ``begun_part`` alone, with names of its own, is taken too.

    Raises:
        WeightsError: the file cannot be read, or nothing of it fits.
    """
    wanted, state = model.state_dict(), read_state(path)
    part = getattr(model, "begun_part", "")
    for prefix in ("", f"{part}.") if part else ("",):
        fits = {
            f"{prefix}{name}": values.to(wanted[f"{prefix}{name}"].dtype)
            for name, values in state.items()
            if f"{prefix}{name}" in wanted and values.shape == wanted[f"{prefix}{name}"].shape
        }
        if fits:
            break
    if not fits:
        raise WeightsError(f"{path}: nothing in it fits this network; give weights that were trained for it")
    model.load_state_dict(fits, strict=False)
    return sorted(set(wanted) - set(fits))


def join_processes(device_name: str, threads: int) -> tuple[torch.device, int, int]:
    """Meet the other processes that ``torchrun`` started, if any: (this one's device, its rank, how many there are).

    Args:
        device_name: see :func:`asd_explain.options.pick_device`.
        threads: of torch, 0 for this process's share of the cores.
    """
    ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = pick_device(device_name)
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // ranks))
    cv2.setNumThreads(1)
    if ranks > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
    return device, rank, ranks
