"""Recipes for any entry, and what becomes of them when they are packed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from finetune.data.packing.frames import ImageFormat
from finetune.data.reader import Reader
from finetune.data.readers.packed import Packed
from finetune.data.sample import DepthSample
from finetune.prepare.packing.pack_plan import PackChoice
from finetune.prepare.packing.run_pack import PackOptions, pack_recipe
from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe

WHOLE = PackChoice(size="full", images="png")
JPEG: ImageFormat = "jpeg"


def recipe_of(
    folder: Path, train: Mapping[str, Any], val: Mapping[str, Any] | None = None, *overrides: str, **data: Any
) -> Recipe:
    """A recipe with one entry to train and one to validate; without ``val`` the same one."""
    path = folder / "packs.yaml"
    values = {
        "model": {"checkpoint": None, "encoder": "tiny", "max_depth_m": 10.0},
        "data": {"input_size": [70, 84], "train": [dict(train)], "val": [dict(val or train)], **data},
    }
    path.write_text(json.dumps(values))
    return load_recipe(path, overrides)


def pack(recipe: Recipe, output: Path, choice: PackChoice = WHOLE, **options: Any) -> Packed:
    """The first packed entry."""
    pack_recipe(recipe, PackOptions(output=output, choice=choice, **options))
    reader = Packed(root=str(output / "train_0"))
    reader.check_paths()
    return reader


def assert_same_sample(sample: DepthSample, again: DepthSample) -> None:
    np.testing.assert_array_equal(sample.image, again.image)
    np.testing.assert_array_equal(sample.depth_m.view(np.uint32), again.depth_m.view(np.uint32))
    np.testing.assert_array_equal(sample.valid, again.valid)
    assert (sample.depth_m.dtype, sample.valid.dtype) == (again.depth_m.dtype, again.valid.dtype)
    assert (sample.camera, sample.source) == (again.camera, again.source)


def assert_same_frames(reader: Reader, again: Reader) -> None:
    assert len(reader) == len(again)
    for index in range(len(reader)):
        assert reader.source(index) == again.source(index)
        assert_same_sample(reader[index], again[index])
