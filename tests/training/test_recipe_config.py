"""Recipes: the package's own say what was published, mistakes are named in one line."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from asd_explain.errors import OptionError
from asd_explain.models.registry import list_models
from asd_explain.training.config import find_config
from asd_explain.training.recipe_config import is_recipe, read_recipe
from asd_explain.training.recipe_objective import RecipeObjective, build, sees_body

CONFIGS = sorted(Path(str(files("asd_explain.training") / "configs")).glob("*.toml"))
RECIPES = [path.stem for path in CONFIGS if is_recipe(path)]

# Batch frames, epochs, first rate: FIELD.md section 5 and the published training scripts.
PUBLISHED = {
    "talknet_ava": (2500, 25, 1e-4),
    "light_asd_ava": (2000, 30, 1e-3),
    "lr_asd_ava": (2000, 40, 1e-3),
    "bias_wasd": (2500, 25, 1e-4),
    "asdnb_wasd": (2000, 30, 1e-3),
    "loconet_ava": (2000, 25, 5e-5),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_packages_recipes_fit_their_networks(name: str) -> None:
    recipe = read_recipe(find_config(name))
    assert name.startswith(recipe.model.name)
    assert name.endswith(recipe.data.set)
    if recipe.model.name not in list_models():
        pytest.skip(f"{recipe.model.name} is not in this checkout")
    model = build(recipe.model)
    RecipeObjective(model, recipe.loss)
    assert recipe.data.set == "wasd" or sees_body(model) != "needed", "AVA has no bodies"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name: str) -> None:
    recipe = read_recipe(find_config(name))
    frames, epochs, rate = PUBLISHED[name]
    assert (recipe.batches.frames, recipe.loop.epochs, recipe.loop.rate(1)) == (frames, epochs, rate)
    assert recipe.loop.rate(3) == pytest.approx(rate * 0.95 * 0.95)
    assert recipe.augment.view
    assert (recipe.augment.crop, recipe.augment.rotate_deg) == ((0.7, 1.0), 15)
    assert (recipe.augment.voice, recipe.augment.snr_db, recipe.augment.absent) == (0.5, (-5, 5), 0)
    assert not recipe.model.gates
    # LoCoNet: four processes of one track of at most 200 frames, the other voice from anywhere in the set.
    own = (4, 200, "set") if name == "loconet_ava" else (0, 0, "batch")
    assert (recipe.batches.entities, recipe.batches.clip, recipe.augment.voices) == own


def test_published_losses() -> None:
    loss = {name: read_recipe(find_config(name)).loss for name in PUBLISHED}
    assert loss["loconet_ava"].weights(9) == {"fused": 1, "audio": 0.4, "face": 0.4}
    assert loss["talknet_ava"].weights(9) == {"fused": 1, "audio": 0.4, "face": 0.4}
    assert loss["bias_wasd"].weights(9) == {"fused": 1, "audio": 0.4, "face": 0.4, "body": 0.4}
    for name in ("light_asd_ava", "lr_asd_ava"):
        assert loss[name].weights(9) == {"fused": 1, "face": 0.5}
        assert loss[name].temperature_of(1) == 1.3
        assert loss[name].temperature_of(30) == pytest.approx(1.3 - 0.02 * 29)
    for epoch in (1, 7, 30):
        moved = (epoch - 1) / 60
        assert loss["asdnb_wasd"].weights(epoch) == pytest.approx({"fused": 0.5 + moved, "face": 0.5 - moved})
    assert loss["asdnb_wasd"].weights(60)["face"] == 0, "it does not turn negative"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text('seed = 3\n[model]\nname = "lr_asd"\n[loop]\nepochs = 2\n[model.options]\na = 1\n')
    return file


def test_reads_what_is_stated_and_changes_go_on_top(path: Path) -> None:
    recipe = read_recipe(path, ["model.gates=true", "augment.snr_db=[0, 3]", "seed=4"])
    assert (recipe.seed, recipe.model.name, recipe.model.gates) == (4, "lr_asd", True)
    assert recipe.model.options == (("a", 1),)
    assert recipe.augment.snr_db == (0, 3)
    assert recipe.loop.epochs == 2
    assert read_recipe(path).seed == 3
    assert hash(recipe), "what is read stays as it is"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("loop.epochz=3", r"\[loop\] has no option 'epochz'"),
        ("loop.epochs=2.5", r"\[loop\] epochs = 2.5 is not a whole number"),
        ("loop.epochs=0", r"\[loop\] epochs = 0 is not from 1"),
        ('loop.precision="half"', "neither 'float32' nor 'bfloat16'"),
        ('data.set="columbia"', "choose from ava, wasd"),
        ("model.gates=1", "neither true nor false"),
        ('model.name=""', "does not say which"),
        ("augment.view=1", r"\[augment\] view = 1 is not true or false"),
        ("augment.crop=[1, 0.7]", r"\[augment\] crop"),
        ("loss.temperature_step=-1", "temperature falls to"),
        ("batches=3", "is not a table"),
        ("steps=3", "unknown steps"),
        ("seed=-1", "seed = -1"),
    ],
)
def test_changes_that_cannot_be_used(path: Path, change: str, says: str) -> None:
    with pytest.raises(OptionError, match=says) as caught:
        read_recipe(path, [change])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ('model.name="no_net"', "choose one of"),
        ("model.gates=false", r"\[model\] options do not fit lr_asd"),
        ("model={name='squeeze_asd', gates=true}", "has a block of its own"),
    ],
)
def test_networks_that_cannot_be_built(path: Path, change: str, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        build(read_recipe(path, [change]).model)


def test_a_loss_on_a_stream_that_is_not_there() -> None:
    recipe = read_recipe(find_config("light_asd_ava"), ["loss.body=0.1"])
    with pytest.raises(OptionError, match="body: the network has no such stream"):
        RecipeObjective(build(recipe.model), recipe.loss)
    recipe = read_recipe(find_config("light_asd_ava"), ["loss.audio=0.1"])
    with pytest.raises(OptionError, match="audio: the network has no head"):
        RecipeObjective(build(recipe.model), recipe.loss)
