"""Configurations: the package's own are sound, mistakes are named in one line."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from asd_explain.errors import OptionError
from asd_explain.models.registry import list_models
from asd_explain.training.config import TrainConfig, find_config, read_config
from asd_explain.training.engine import LoopConfig
from asd_explain.training.recipe_config import is_recipe

NAMES = sorted(p.stem for p in Path(str(files("asd_explain.training") / "configs")).glob("*.toml") if not is_recipe(p))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(
        'model = "squeeze_asd"\nseed = 4\n[options]\ngated = false\n[loop]\nsteps = 10\n[view]\nquality = [20, 30]\n'
        "[sampler.groups]\nsingle = 2\nlistening = 0.5\n[data]\ngroups = ['single']\n"
    )
    return file


@pytest.mark.parametrize("name", NAMES)
def test_the_packages_configurations_are_sound(name: str) -> None:
    config = read_config(find_config(name))
    assert config.model in list_models()
    assert set(dict(config.sampler.groups)) >= set(config.data.groups), "every group is drawn as often as stated"
    assert hash(config.sampler), "what is read stays as it is"


def test_there_is_one_for_our_network() -> None:
    assert "squeeze_asd" in NAMES
    assert read_config(find_config("squeeze_asd")).model == "squeeze_asd"


def test_reads_what_is_stated_and_takes_defaults_for_the_rest(path: Path) -> None:
    config = read_config(path)
    assert (config.model, config.seed, config.options) == ("squeeze_asd", 4, {"gated": False})
    assert config.loop == LoopConfig(steps=10)
    assert config.view.quality == (20, 30)
    assert config.sampler.groups == (("single", 2), ("listening", 0.5))
    assert config.data.groups == ("single",)
    assert config.sound == TrainConfig("x").sound


def test_changes_go_on_top(path: Path) -> None:
    changes = [
        "loop.steps=20",
        "seed=7",
        "loss.own=0.5",
        'loop.precision="float32"',
        "view.quality=[1, 2]",
        "options.a='b=c'",
    ]
    config = read_config(path, changes)
    assert (config.loop.steps, config.seed, config.loss.own, config.loop.precision) == (20, 7, 0.5, "float32")
    assert config.view.quality == (1, 2)
    assert config.options == {"gated": False, "a": "b=c"}
    assert read_config(path) == read_config(path, [])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("loop.steps", "--set loop.steps: it takes the form"),
        ("loop.steps=", "not valid TOML"),
        ("loop.precision=half", "not valid TOML"),
        ('loop.precision="half"', r"\[loop\] precision = 'half'"),
        ("loop.stepz=3", r"\[loop\] has no option 'stepz'; choose from steps, lr"),
        ("loop.steps=0", r"\[loop\] steps = 0 is not from 1"),
        ("loop.steps=2.5", r"\[loop\] steps = 2.5 is not a whole number"),
        ("sampler.chunks=2.5", r"\[sampler\] chunks = 2.5 is not a whole number"),
        ("looop.steps=3", "unknown looop; known are model, seed, options, data"),
        ("sampler.groups.single=3", "unknown sampler.groups"),
        ("steps=3", "unknown steps"),
        ("seed.x=3", "--set seed.x=3: seed is not a table"),
        ("seed=1.5", "seed = 1.5 is not a whole number"),
        ("seed=-1", "seed = -1 is not a whole number"),
        ("loop=3", "loop = 3 is not a table"),
        ("options=[1]", r"options = \[1\] is not a table"),
        ("view.flip={a=1}", r"\[view\] flip = "),
        ("data.per_speaker=0", r"\[data\] per_speaker = 0"),
        ("sampler.groups={single=-1}", r"\[sampler\] groups = "),
    ],
)
def test_changes_that_cannot_be_used(path: Path, change: str, says: str) -> None:
    with pytest.raises(OptionError, match=says) as caught:
        read_config(path, [change])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"model = ", "not valid TOML"),
        (b"[loop]\nsteps = 3\n", "does not say which model"),
        (b'model = "x"\n[train]\n', "unknown train"),
        (b'model = "x"\n[loss]\nlips = 1\n', r"\[loss\] has no option 'lips'"),
        (b'model = "\xff"\n', "cannot be read"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: bytes, says: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(text)
    with pytest.raises(OptionError, match=says) as caught:
        read_config(file)
    assert "\n" not in str(caught.value)


def test_finds_files_before_names_and_lists_what_there_is(path: Path) -> None:
    assert find_config(str(path)) == path
    assert find_config(NAMES[0]).name == f"{NAMES[0]}.toml"
    with pytest.raises(OptionError, match=rf"no_such: no such file.*there are .*{NAMES[0]}"):
        find_config("no_such")
