"""Recipes: every shipped one parses; what is wrong is refused by name."""

from pathlib import Path

import pytest

from edgeseg.errors import InputError
from edgeseg.models.registry import build_network
from edgeseg.training.losses import LOSSES
from edgeseg.training.recipe import Recipe
from edgeseg.training.recipe_file import load_recipe, parse_recipe, shipped_recipes

SHIPPED = ["camvid", "camvid-vit", "cityscapes", "street-tiny", "street-vit"]


def test_the_recipes_are_shipped() -> None:
    assert list(shipped_recipes()) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipe_parses_and_names_things_that_exist(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.loss.name in LOSSES
    build_network(recipe.network.name, 11, **recipe.network.options)


def test_recipe_survives_its_dictionary() -> None:
    recipe = load_recipe("camvid", ["cwm.rho=0.25", "sequence.length=7", "sequence.starts=2"])
    assert parse_recipe(recipe.as_dict()) == recipe


def test_own_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[optimiser]\nsteps = 3\n")
    recipe = load_recipe(str(path))
    assert (recipe.name, recipe.optimiser.steps) == ("mine", 3)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optimiser.lr=1e-3", 0.001),
        ("optimiser.lr=1", 1.0),
        ("loss.name=focal", "focal"),
        ("augment.scale=[0.5, 2]", (0.5, 2.0)),
        ("augment.crop_hw=[64, 96]", (64, 96)),
        ("data.stills=false", False),
        ("data.path=/data/set", "/data/set"),
    ],
)
def test_override_takes_the_type_of_its_key(override: str, value: object) -> None:
    table, key = override.partition("=")[0].split(".")
    assert getattr(getattr(load_recipe("camvid", [override]), table), key) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.stepz=1", r"unknown key optimiser.stepz \| known: optimiser.name, optimiser.steps"),
        ("optimizer.steps=1", r"unknown key optimizer \| known: name, data"),
        ("steps=1", r"unknown key steps \| known: name, .* \| did you mean optimiser.steps or qat.steps\?"),
        ("optimiser.steps=many", r"optimiser.steps is of type int \| got 'many'"),
        ("optimiser.steps=true", r"optimiser.steps is of type int \| got True"),
        ("optimiser.name=adam", r"unknown optimiser.name 'adam' \| known: adamw, sgd"),
        ("data.size_hw=[180]", r"data.size_hw is a list of 2 values"),
        ("data.val_split=train", "another split than data.train_split"),
        ("sequence.length=7", r"sequence.length = 7 without a \[cwm\] table"),
        ("cwm.rho=0.25", "sequence.length = 1: the first step computes every channel"),
        ("cwm.rho=2", "cwm.rho out of range"),
        ("augment.scale=[2, 1]", "augment.scale out of range"),
        ("optimiser.min_lr=1", "optimiser.min_lr out of range"),
        ("optimiser.steps", "--set optimiser.steps is not readable"),
        ("name.first=a", "name is a value, not a table"),
    ],
)
def test_wrong_override_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("camvid", ["name=x", override])


def test_more_starts_than_frames_are_refused() -> None:
    with pytest.raises(InputError, match=r"sequence\.starts out of range"):
        load_recipe("camvid", ["cwm.rho=0", "sequence.length=2", "sequence.starts=3"])


def test_unknown_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(InputError, match=r"no recipe 'kitti' \| shipped: camvid, camvid-vit, cityscapes, street-tiny"):
        load_recipe("kitti")


def test_broken_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[optimiser\n")
    with pytest.raises(InputError, match="is not TOML"):
        load_recipe(str(path))


def test_crop_is_the_size_unless_given() -> None:
    assert Recipe("x").crop_hw == (180, 240)
    assert load_recipe("cityscapes").crop_hw == (768, 768)
