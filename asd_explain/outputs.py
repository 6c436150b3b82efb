"""What holds for every file that is written, without importing anything heavy."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from asd_explain.errors import OutputError


def write_text(path: Path, text: str) -> None:
    """A text file (UTF-8, line ends as they are), there as a whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def check_new(path: Path, overwrite: bool) -> None:
    """Refuse a path that exists and may not be replaced.

    Raises:
        OutputError: naming it.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a directory; give a file name")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; choose another name or allow overwriting (--overwrite)")


def check_writable(path: Path) -> None:
    """Find out before the work that a file could be written; its folder is made.

    Raises:
        OutputError: it cannot; names ``path``.
    """
    probe = path.with_name(f".{path.stem}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; give another place") from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden name beside ``path`` to write under; the file gets its own name when the block ends without an error.

    The folder is made. Whatever goes wrong, nothing half-written stays behind.

    Raises:
        OutputError: it cannot be written (no right to, no space, a file where a folder should be); names ``path``.
    """
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; give another place") from error
    finally:
        with suppress(OSError):  # where the folder could not be made, there is nothing to remove either
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path`` to write into; it gets its own name when the block ends without an error.

    What was there under that name (or where it leads, of a link) is replaced then, and not before. Whatever goes wrong,
    nothing half-made stays behind, and what was there stays; should even putting it back fail, under a hidden name.

    Raises:
        OutputError: it cannot be written (no right to, no space, a file where a folder should be); names ``path``.
    """
    place = path.resolve()
    if place.exists() and not place.is_dir():
        raise OutputError(f"{path} is a file; give another folder")
    hidden, old = (place.with_name(f".{place.name}.{kind}-{secrets.token_hex(4)}") for kind in ("part", "old"))
    try:
        hidden.mkdir(parents=True)
        yield hidden
        if place.exists():
            place.rename(old)
        try:
            hidden.rename(place)
        except OSError:
            if old.exists():
                old.rename(place)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; give another place") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
