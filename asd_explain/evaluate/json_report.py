"""Reports as JSON files, without importing anything heavy."""

from __future__ import annotations

import json
import math
from pathlib import Path

from asd_explain.outputs import write_text


def _plain(value: object) -> object:
    """JSON knows no NaN and no infinity: None in their place."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_report(report: dict, path: Path) -> None:
    """The report as JSON, there as a whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, json.dumps(_plain(report), indent=1, allow_nan=False) + "\n")
