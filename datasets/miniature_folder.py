"""The folder of a miniature data set: made as a whole, known by its mark, replaced only where it is one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asd_explain.errors import OutputError
from asd_explain.outputs import whole_folder

MARK = "miniature.json"


@contextmanager
def miniature_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """A hidden folder to make the miniature in; it is ``out`` when the block ends without an error.

    Args:
        out: of the miniature.
        overwrite: whether a miniature that is there is replaced.

    Raises:
        OutputError: ``out`` exists and is not to be replaced, or is no miniature, or cannot be written.
    """
    if out.exists() and not (overwrite and (out / MARK).is_file()):
        if not (out / MARK).is_file():
            raise OutputError(f"{out} exists and is no miniature; give another name")
        raise OutputError(f"{out} exists; give another name, or --overwrite to make it anew")
    with whole_folder(out) as part:
        yield part


def write_mark(folder: Path, told: dict) -> None:
    """Leave beside the data what they are."""
    (folder / MARK).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def read_mark(folder: Path) -> dict:
    """What :func:`write_mark` left."""
    return json.loads((folder / MARK).read_text(encoding="utf-8"))
