"""What the how-to pages show is what runs: their python samples, and the tools and options that their commands name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from asd_explain.explain import base
from asd_explain.models import registry

DOCS = Path(__file__).parents[1] / "docs"


def _samples() -> Iterator[tuple[str, str]]:
    for page in sorted(DOCS.glob("*.md")):
        for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)):
            yield f"{page.stem}-{i}", code


@pytest.mark.parametrize(("name", "code"), list(_samples()), ids=[name for name, _ in _samples()])
def test_python_samples_run(name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a sample registers is forgotten after it.
    registry.list_models()
    base.list_explainers()
    monkeypatch.setattr(registry, "_FACTORIES", dict(registry._FACTORIES))
    monkeypatch.setattr(base, "_EXPLAINERS", dict(base._EXPLAINERS))
    exec(compile(code, name, "exec"), {"__name__": "sample"})


def _commands() -> list[tuple[str, str]]:
    pages = [*sorted(DOCS.glob("*.md")), DOCS.parent / "README.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [re.match(r"python tools/(\w+)\.py([^#]*)", line) for line in lines]
    return sorted({(match[1], match[2]) for match in found if match})


@pytest.mark.parametrize(("tool", "rest"), _commands())
def test_commands_name_tools_and_options_that_exist(tool: str, rest: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = rest.split()
    # The help of a subcommand lists its options; of other tools the first words are files.
    sub = words[:1] if tool == "evaluate_asd" else []
    with pytest.raises(SystemExit):
        import_module(f"asd_explain.tools.{tool}").main([*sub, "--help"])
    known = capsys.readouterr().out
    for option in [word for word in words if word.startswith("--")]:
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", known), f"{tool} has no {option}"
