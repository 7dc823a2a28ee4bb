"""Every recipe that ships, found here by itself."""

from pathlib import Path

import pytest

from finetune.recipe import load_recipe, recipe_text

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def test_there_are_recipes() -> None:
    assert "room_tiny" in {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_opens_with_its_launch_line(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    recipe = load_recipe(path, check_files=path.stem.startswith("room_"))
    assert recipe.name == path.stem
    head = path.read_text().splitlines()[:6]
    assert f"# Launch: accelerate launch finetune/train.py recipes/{path.name}" in head
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(recipe_text(recipe))
    assert load_recipe(resolved, check_files=False) == recipe
