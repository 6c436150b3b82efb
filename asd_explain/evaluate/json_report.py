"""Reports as JSON files, without importing anything heavy."""

from __future__ import annotations

import json
import math
from pathlib import Path

from asd_explain.errors import OptionError
from asd_explain.outputs import check_new, write_text


def _plain(value: object) -> object:
    """JSON knows no NaN and no infinity: None in their place."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_report(path: Path, overwrite: bool) -> None:
    """See before the work that a report could be written under a name.

    Raises:
        OptionError: the name does not end in ``.json``.
        OutputError: the file exists, and may not be replaced.
    """
    if path.suffix != ".json":
        raise OptionError(f"--out {path}: the report is JSON; give a name that ends in .json")
    check_new(path, overwrite)


def write_report(report: dict, path: Path) -> None:
    """The report as JSON, there as a whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, json.dumps(_plain(report), indent=1, allow_nan=False) + "\n")
