"""A plain (not editable) install, used from another folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built from a copy of the sources and installed into an empty folder; nothing is fetched."""
    folder = tmp_path_factory.mktemp("install")
    source = folder / "source"
    source.mkdir()
    for name in ("asd_explain", "models", "datasets", "tools"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    words = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    done = subprocess.run(
        [sys.executable, "-m", *words, str(folder / "site"), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


def _python(installed: Path, code: str) -> str:
    elsewhere = installed.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=elsewhere, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_three_top_level_folders_are_installed_under_the_package(installed: Path) -> None:
    code = (
        "import asd_explain.models.registry as m, asd_explain.datasets.talking_photos as d, "
        "asd_explain.tools.explain_video as t; print(m.__file__, d.__file__, t.__file__)"
    )
    for path in _python(installed, code).split():
        assert Path(path).is_relative_to(installed)
    assert not (installed / "models").exists(), "no top-level `models` or `datasets` may be installed"
    assert not (installed / "datasets").exists()


def test_cards_and_gates_travel_with_the_package(installed: Path) -> None:
    code = (
        "from asd_explain.weights.cards import cards; from asd_explain.weights.store import locate\n"
        "for c in cards().values():\n"
        "    if c.url is None and not c.by_path_only: assert locate(c.name).is_file(), c.name\n"
        "print(len(cards()))"
    )
    assert int(_python(installed, code)) == len(list((ROOT / "asd_explain/weights/cards").glob("*.toml")))


def test_the_console_command_is_declared_and_prints_help(installed: Path) -> None:
    script = installed / "bin" / "asd-explain"
    assert script.is_file()
    text = _python(
        installed,
        "import sys; from asd_explain.tools.explain_video import main\ntry: main(['--help'])\nexcept SystemExit: pass",
    )
    assert "usage: asd-explain" in text
