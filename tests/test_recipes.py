"""Every recipe that ships, found here by itself."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from finetune.data.readers.pairs import Pairs
from finetune.recipe.load import load_recipe, recipe_mapping, recipe_text
from finetune.recipe.schema import AugmentOptions, EvaluationOptions, ModelOptions, OptimOptions, RunOptions
from finetune.utils.errors import RecipeFaults

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def test_there_are_recipes() -> None:
    assert "room_tiny" in {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_opens_with_its_launch_line(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    # The labels of room_tiny_student are made first, by the command in its header.
    recipe = load_recipe(path, check_files=path.stem in ("room_tiny", "room_tiny_lora"))
    assert recipe.name == path.stem
    launch = path.read_text().splitlines()[1]
    found = re.fullmatch(
        rf"# Launch: accelerate launch (?:--config_file (\S+) )?finetune/train\.py recipes/{path.name}", launch
    )
    assert found, launch
    assert not found[1] or (ROOT / found[1]).is_file()
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(recipe_text(recipe))
    assert load_recipe(resolved, check_files=False) == recipe


def keys_of(value: Any) -> set[str]:
    """Names of all keys, at any depth."""
    if isinstance(value, dict):
        return set(value) | {key for one in value.values() for key in keys_of(one)}
    return {key for one in value for key in keys_of(one)} if isinstance(value, list) else set()


def test_custom_names_every_key_there_is() -> None:
    path = ROOT / "recipes" / "custom.yaml"
    recipe = load_recipe(path, check_files=False)
    written = set(re.findall(r"[\s{,-]*\b([a-z0-9_]+):(?:\s|$)", path.read_text()))
    missing = keys_of(recipe_mapping(recipe)) - written
    assert not missing
    # What is said to be the default is.
    assert {field.name for field in dataclasses.fields(Pairs)} <= written
    assert recipe.optim == OptimOptions()
    assert recipe.augment == AugmentOptions()
    assert recipe.evaluation == EvaluationOptions(protocols=("plain",))
    assert recipe.model == ModelOptions(checkpoint=recipe.model.checkpoint, max_depth_m=10.0)
    assert recipe.run == RunOptions(steps=2000)


def test_each_says_its_data_its_hardware_and_what_it_compares_with() -> None:
    for path in RECIPES:
        if path.stem.startswith(("room_", "scenes_")):
            continue
        head = path.read_text().partition("\nname:")[0]
        for word in ("# Data: ", "# Hardware: ", "# Compares with: ", "measured here"):
            assert word.lower() in head.lower(), f"{path.name} does not say {word}"


def test_an_entry_must_begin_within_the_range_that_all_share() -> None:
    path = ROOT / "recipes" / "custom.yaml"
    with pytest.raises(
        RecipeFaults, match=r"data\.train\.0\.min_depth_m is 12.*; expected less than the max depth of the model"
    ):
        load_recipe(path, ["data.train.0.min_depth_m=12"], check_files=False)
    load_recipe(path, ["data.train.0.min_depth_m=12", "data.train.0.out_of_range=ceiling"], check_files=False)
    load_recipe(path, ["data.train.0.min_depth_m=12", "model.max_depth_m=20"], check_files=False)
