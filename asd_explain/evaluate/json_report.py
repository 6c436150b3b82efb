"""Reports as JSON files, without importing anything heavy."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

from asd_explain.errors import OutputError


def _plain(value: object) -> object:
    """JSON knows no NaN: None in its place."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_report(report: dict, path: Path) -> None:
    """The report as JSON, there as a whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(_plain(report), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror}); give another place with --out") from None
    finally:
        partial.unlink(missing_ok=True)
