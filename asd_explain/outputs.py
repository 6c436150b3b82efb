"""What holds for every file that is written, without importing anything heavy."""

from __future__ import annotations

from pathlib import Path

from asd_explain.errors import OutputError


def check_new(path: Path, overwrite: bool) -> None:
    """Refuse a path that exists and may not be replaced.

    Raises:
        OutputError: naming it.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a directory; give a file name")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; choose another name or allow overwriting (--overwrite)")
