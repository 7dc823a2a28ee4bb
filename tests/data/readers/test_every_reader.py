"""What each reader of the registry must hold; a new one is found here by itself.

A reader of files has ``example(folder)`` in its own test, ``test_<name>.py``: it writes a few frames below the folder
and returns the options that read them. A reader that has no such function is made with its defaults.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from finetune.data.sample import DepthSample
from finetune.utils import registry
from finetune.utils.errors import DataError, FinetuneError, ListError, RecipeError

NAMES = sorted(registry.READERS)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def kind(name: str) -> Any:
    return registry.find(registry.READERS, name)


@pytest.fixture
def options(name: str, tmp_path: Path) -> dict[str, object]:
    path = Path(__file__).parent / f"test_{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_of_{name}", path)
    assert path.exists() and spec is not None and spec.loader is not None, f"{name} has no {path.name}"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.example(tmp_path / "data") if hasattr(module, "example") else {}


@pytest.fixture
def reader(kind: Any, options: dict[str, object]) -> Any:
    return kind(**options)


def test_options_are_a_frozen_record_and_unknown_ones_are_refused(kind: Any, options: dict[str, object]) -> None:
    reader = kind(**options)
    assert dataclasses.is_dataclass(reader)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(reader, dataclasses.fields(reader)[0].name, None)
    with pytest.raises(ValidationError, match="not_an_option"):
        kind(**options, not_an_option=1)
    # Keys of an entry of the recipe, not of the reader.
    assert not {"reader", "weight"} & {field.name for field in dataclasses.fields(reader)}


def test_class_and_options_are_documented(kind: Any) -> None:
    assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(")
    source = inspect.getsource(kind)
    for field in dataclasses.fields(kind):
        commented = re.search(rf"^    {field.name}: .*  # \S", source, re.MULTILINE)
        assert commented or re.search(rf"\b{field.name}\b", kind.__doc__), f"option {field.name} has no comment"


def test_frames_are_samples_with_a_source_and_the_same_each_time(reader: Any) -> None:
    if hasattr(reader, "root"):
        reader.check_paths()
    assert len(reader) >= 2
    for index in (0, 1, len(reader) - 1):
        sample = reader[index]
        assert isinstance(sample, DepthSample)
        assert sample.source == reader.source(index)
        again = reader[index]
        np.testing.assert_array_equal(sample.image, again.image)
        np.testing.assert_array_equal(sample.depth_m, again.depth_m)
        np.testing.assert_array_equal(sample.valid, again.valid)
        assert sample.camera == again.camera
        # NaN at a pixel that is not valid would come through a product with the mask. Infinity is for what is known to
        # be farther than any measurement.
        assert not np.isnan(sample.depth_m).any() and np.isfinite(sample.depth_m[~sample.valid]).all()
        assert (sample.depth_m[sample.valid] > 0).all()
    assert reader[0].valid.any()
    assert reader.source(0) != reader.source(1)


def test_a_worker_process_can_be_given_one(reader: Any) -> None:
    reader[0]
    copy = pickle.loads(pickle.dumps(reader))
    assert copy == reader
    np.testing.assert_array_equal(copy[1].depth_m, reader[1].depth_m)


def test_the_same_options_are_made_from_a_written_recipe(kind: Any, reader: Any) -> None:
    assert kind(**dataclasses.asdict(reader)) == reader


def test_making_one_opens_nothing_and_a_missing_root_is_named(kind: Any, options: dict[str, object]) -> None:
    if "root" not in {field.name for field in dataclasses.fields(kind)}:
        pytest.skip("has no root")
    reader = kind(**{**options, "root": "/nowhere/at/all"})
    with pytest.raises(RecipeError) as caught:
        reader.check_paths()
    assert caught.value.key == "root"


def test_a_damaged_and_a_missing_file_are_named(reader: Any) -> None:
    path = Path(reader.source(1))
    if not path.is_file():
        pytest.skip("has no files")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError) as damaged:
        reader[1]
    path.unlink()
    with pytest.raises(ListError) as missing:
        reader[1]
    for caught in (damaged, missing):
        assert isinstance(caught.value, FinetuneError)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    reader[0]


def test_reading_needs_no_torch() -> None:
    code = (
        "import sys; from finetune.utils import registry; "
        "[registry.find(registry.READERS, name) for name in registry.READERS]; "
        "sys.exit(', '.join(sorted({'torch', 'timm', 'albumentations', 'accelerate', 'cv2'} & set(sys.modules))) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert (result.returncode, result.stderr) == (0, "")
