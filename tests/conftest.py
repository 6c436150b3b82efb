"""Fixtures every area shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The shared material, or a skip that says what is absent."""
    folder = Path(os.environ.get("ASD_EXPLAIN_SHARED") or ROOT.parent / "shared")
    if not (folder / "SHA256SUMS").exists() and not (folder / "weights").is_dir():
        pytest.skip(f"shared material not found at {folder}; set ASD_EXPLAIN_SHARED")
    return folder
