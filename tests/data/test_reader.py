"""The contract of a reader: its defaults, what its fields mean, and what of it a recipe hears."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from finetune.data.reader import BadSamples, Reader, list_sources, read_frames, set_image_levels, too_many_bad, try_read
from finetune.data.readers.image_levels import ImageLevels
from finetune.data.readers.scenes import Scenes
from finetune.data.sample import DepthSample
from finetune.recipe.load import load_recipe
from finetune.utils import registry
from finetune.utils.errors import DataError, RecipeFaults
from tests.synthetic import Holed, Planes, tilted_plane

OPTIONS = ConfigDict(extra="forbid")


@pytest.mark.parametrize("name", sorted(registry.READERS))
def test_every_registered_reader_is_one(name: str) -> None:
    assert issubclass(registry.find(registry.READERS, name), Reader)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Least(Reader):
    """No more than a reader has to write."""

    count: int = 2

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> DepthSample:
        return replace(tilted_plane(), source=f"least {index}")


def test_defaults_say_that_nothing_is_known() -> None:
    reader = Least()
    assert (reader.root, reader.meters_per_unit, reader.invalid, reader.max_depth_m) == (None, None, None, None)
    assert (reader.min_depth_m, reader.depth_is, reader.bits, reader.depth_channels) == (0.0, "z", None, None)
    assert (reader.disparity_offset_px, reader.image_levels, reader.notes) == (None, None, ())
    assert reader.files(0) is None
    reader.require_files(0)
    reader.check_paths()
    # Without a unit, the number in a file is the depth itself.
    assert reader.stored_number(2.5) == 2.5
    assert list_sources(reader) == ["least 0", "least 1"]
    assert reader.has_option("count") and not reader.has_option("meters_per_unit")
    assert not Planes(1).has_option("count")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Millimeters(Least):
    """Its fields bear names that the contract has defaults for."""

    root: str
    meters_per_unit: float = 0.001
    files_opened: int = 0

    def files(self, index: int) -> tuple[str, str] | None:
        raise DataError(f"{self.root}/{index}", "does not exist", "Restore it")


def test_a_field_without_a_default_stays_needed_where_the_contract_has_one() -> None:
    with pytest.raises(ValidationError, match="root"):
        Millimeters()  # type: ignore[call-arg]
    reader = Millimeters(root="a")
    assert (reader.root, reader.meters_per_unit, reader.stored_number(2.0)) == ("a", 0.001, 2000.0)
    assert reader.has_option("root") and reader.has_option("meters_per_unit")


def test_files_are_required_by_looking_for_them() -> None:
    with pytest.raises(DataError, match="a/1: does not exist"):
        Millimeters(root="a").require_files(1)


def test_frames_are_read_in_the_order_asked_for_and_none_is_none() -> None:
    assert [sample.source for sample in read_frames(Planes(4), [3, 1])] == ["plane#3", "plane#1"]
    assert read_frames(Planes(4), []) == []
    drawn = Scenes(size=(16, 24), count=3)
    for together, alone in zip(read_frames(drawn, [2, 0]), (drawn[2], drawn[0]), strict=True):
        np.testing.assert_array_equal(together.image, alone.image)
        np.testing.assert_array_equal(together.depth_m, alone.depth_m)
    assert read_frames(drawn, []) == []


def test_a_frame_that_cannot_be_read_is_its_fault() -> None:
    reader = Holed(3, bad={1})
    found = [try_read(reader, index) for index in range(3)]
    assert isinstance(found[1], DataError) and found[1].cause == "plane#1: is empty (0 bytes)"
    assert [one.source for one in found if isinstance(one, DepthSample)] == ["plane#0", "plane#2"]


def test_levels_belong_to_the_readers_they_are_set_on() -> None:
    levels = ImageLevels(black=100.0, white=900.0)
    readers = [Least(), Least()]
    set_image_levels(readers, None)
    assert readers[0].image_levels is None
    set_image_levels(readers[:1], levels)
    assert [reader.image_levels for reader in readers] == [levels, None]
    assert not readers[0].has_option("image_levels")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class LikeAReader:
    """As readers were before they inherited anything."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> DepthSample:
        return tilted_plane()

    def source(self, index: int) -> str:
        return f"plane {index}"


def test_a_recipe_says_what_a_reader_must_inherit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table: dict[str, Any] = registry.READERS
    monkeypatch.setitem(table, "like_a_reader", f"{__name__}:LikeAReader")
    monkeypatch.setitem(table, "least", f"{__name__}:Least")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        """\
name: x
model: {checkpoint: null, encoder: tiny, max_depth_m: 10.0}
data:
  input_size: [56, 70]
  train: [{reader: like_a_reader}]
  val: [{reader: least}]
"""
    )
    with pytest.raises(RecipeFaults) as caught:
        load_recipe(recipe)
    assert str(caught.value) == (
        f"{recipe}:5: data.train.0.reader is 'like_a_reader'; expected a reader that inherits "
        f"finetune.data.reader.Reader: {__name__}.LikeAReader does not."
    )


def test_few_bad_samples_are_ten_or_a_hundredth() -> None:
    assert [too_many_bad(bad, asked) for bad, asked in [(10, 10), (11, 1099), (11, 1100), (12, 1100)]] == [
        False,
        True,
        False,
        True,
    ]


def test_bad_samples_are_counted_each_time_and_the_first_ten_different_ones_named_in_their_order() -> None:
    bad = BadSamples()
    # For sample 7 two stand-ins were bad too.
    skipped = [(7, "c: is empty"), (7, "a: is empty"), (7, "b: is empty"), (2, "a: is empty"), (9, "b: is empty")]
    assert bad.add(skipped) == ["a: is empty", "c: is empty", "b: is empty"]
    assert bad.count == 3
    assert bad.add([(k, f"{k % 12:02}: is empty") for k in range(20, 32)]) == [
        f"{name:02}: is empty" for name in (8, 9, 10, 11, 0, 1, 2)
    ]
    assert bad.add([(40, "late: is empty")]) == []
    assert bad.count == 16
    assert bad.summary(2000).startswith("16 of the 2000 training samples asked for could not be read; the first: a: is")
