"""How a run uses the machine: seeds, threads, progress.

PyTorch and OpenCV are imported where they are used: tools that need neither start without them.
"""

from __future__ import annotations

import logging
import os
import random
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from asd_explain.errors import AsdExplainError

if TYPE_CHECKING:
    from asd_explain.media.probing import ClipInfo
    from asd_explain.options import Options

log = logging.getLogger(__name__)


def seed_everything(seed: int) -> None:
    """Seed Python's and PyTorch's generators; nothing here draws from NumPy's global one."""
    import torch

    random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def bounded_threads(threads: int) -> Iterator[None]:
    """Set the CPU threads of the libraries in use, for as long as this lasts.

    One core is left to decoding and detection, which run beside the network: parallel regions wait for their slowest
    thread, so that a network on all cores is hardly faster and burns the other stages' time.

    Args:
        threads: 0 for all cores.
    """
    import cv2
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    cores = threads or os.cpu_count() or 1
    torch.set_num_threads(max(1, cores - 1))
    # OpenCV's operations here are small; its pool would only wait for a core. The stages themselves run side by side.
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def progress_bar(stage: str, info: ClipInfo, options: Options, total: int | None = None) -> tqdm:
    """A progress bar on stderr, silent when that is no terminal or none is wanted."""
    if total is None and info.duration_s is not None:
        end = info.duration_s if options.end_s is None else min(info.duration_s, options.end_s)
        total = max(1, round((end - (options.start_s or 0.0)) * float(info.fps)))
    hidden = None if options.progress else True
    return tqdm(total=total, desc=f"{info.path.name}: {stage}", unit="frame", disable=hidden, leave=False)


def command_text(tool: str, *words: str) -> str:
    """The command line of a tool as cards and reports tell it: whatever stands in a word, it can be pasted."""
    return shlex.join(["python", f"tools/{tool}.py", *words])


def public_words(given: Sequence[str], private: Mapping[str, int]) -> list[str]:
    """The words of a command without the caller's folders, which do not belong into a report.

    Args:
        given: as on the command line; "--option=value" counts as two words.
        private: {option: how many parts of the end of its path are kept}.
    """
    words = [part for word in given for part in (word.split("=", 1) if word.startswith("--") else [word])]
    kept = [private.get(before, 0) for before in ("", *words[:-1])]
    return ["/".join(Path(word).parts[-keep:]) if keep else word for word, keep in zip(words, kept, strict=True)]


def changes_of(changes: Sequence[str]) -> list[str]:
    """The words of a command that change a configuration."""
    return [word for change in changes for word in ("--set", change)]


def run_tool(work: Callable[[], str], interrupted: str = "interrupted") -> int:
    """Run a command and print what it returns; returns the exit code.

    Errors that a user can act on, a loss that is no longer finite among them, are told in one line.

    Args:
        work: does it all, and returns the text for standard output.
        interrupted: what is said after Ctrl-C.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        sys.stdout.write(work())
    except (AsdExplainError, FloatingPointError) as error:
        log.error("%s", error)
        return 2
    except OSError as error:  # a name that is too long, a disk that is gone: what nobody asked about before
        log.error("%s: %s", error.filename or "the system says", error.strerror or error)
        return 2
    except KeyboardInterrupt:
        log.error("%s", interrupted)
        return 130
    return 0
