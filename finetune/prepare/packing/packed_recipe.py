"""The recipe that trains from packed entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from finetune.prepare.packing.pack_plan import OF_RUN, PlannedEntry
from finetune.recipe.load import recipe_mapping
from finetune.recipe.schema import DataEntry, Recipe
from finetune.recipe.validate import plain_values
from finetune.recipe.yaml_source import yaml_text
from finetune.utils.plain import PlainValue


def format_packed_recipe(recipe: Recipe, planned: Sequence[PlannedEntry], output: Path) -> str:
    """
    Args:
        recipe: that was packed.
        planned: its packed entries.
        output: the folder that they will be in.

    Returns:
        The text of a recipe that is equal but for the readers, the root of each, and the name.
    """
    mapping = recipe_mapping(recipe)
    data = cast(dict[str, PlainValue], mapping["data"])
    values = cast(dict[str, PlainValue], {**data, **packed_entries(recipe, planned, output)})
    text = yaml_text({**mapping, "name": f"{recipe.name}_packed", "data": values})
    path = output / "recipe.yaml"
    return (
        f"# Trains from the frames that finetune pack wrote into {output}. Launch: accelerate launch finetune/train.py "
        f"{path}\n# If the folder moves, or is copied into an object store, change each root: a path, or a URL that "
        f"fsspec opens.\n{text}"
    )


def packed_entries(recipe: Recipe, planned: Sequence[PlannedEntry], output: Path) -> dict[str, PlainValue]:
    """``train`` and ``val``: the entries of the recipe, read from where they are packed."""
    roots = {key: str(output / entry.name) for entry in planned for key in entry.keys}
    parts: Mapping[str, Sequence[DataEntry]] = {"train": recipe.data.train, "val": recipe.data.val}
    return {
        part: [_describe_entry(entry, roots[f"data.{part}.{i}"]) for i, entry in enumerate(entries)]
        for part, entries in parts.items()
    }


def _describe_entry(entry: DataEntry, root: str) -> dict[str, PlainValue]:
    plain = plain_values(entry)
    of_run: dict[str, PlainValue] = {name: plain[name] for name in OF_RUN}
    defaults = {"weight": 1.0, "out_of_range": "ignore", "loss": None}
    changed = {name: value for name, value in of_run.items() if value != defaults[name]}
    return {"reader": "packed", "root": root, **changed}
