"""The reader of packed entries: what it refuses, where its files may be, and how damage is named."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from finetune.data.packing.pack_info import shard_name
from finetune.data.readers.packed import Packed
from finetune.data.samplers import WeightedMixSampler
from finetune.prepare.packing.pack_plan import PackChoice
from finetune.recipe.load import load_recipe
from finetune.utils.errors import DataError, FinetuneError, ListError, RecipeError, RecipeFaults
from tests.prepare.packing.small_packs import assert_same_frames, pack, recipe_of

SCENES = {"reader": "scenes", "count": 3, "size": [42, 56], "objects": [1, 2]}


def example(folder: Path) -> dict[str, object]:
    """Packs three drawn frames; the options that read them."""
    folder.mkdir(parents=True, exist_ok=True)
    return {"root": pack(recipe_of(folder, SCENES), folder / "out").root}


@pytest.fixture(scope="module")
def packed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(str(example(tmp_path_factory.mktemp("once"))["root"]))


@pytest.fixture
def root(packed_once: Path, tmp_path: Path) -> Path:
    """A packed entry that a test may damage."""
    return Path(shutil.copytree(packed_once, tmp_path / "train_0"))


def change_byte(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


def test_a_shard_is_a_plain_tar_of_plain_files(root: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(root / shard_name(0), tmp_path / "plain", "tar")
    names = sorted(path.name for path in (tmp_path / "plain").iterdir())
    assert names[:3] == ["000000000.depth.zst", "000000000.json", "000000000.png"]
    assert names[-1] == "pack.json"
    about = json.loads((tmp_path / "plain" / "000000001.json").read_text())
    assert about["source"] == "scenes:seed=0#1"
    assert about["size"] == [42, 56]


def test_frames_are_in_any_file_system_that_fsspec_opens(root: Path, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.put(str(root), "/bucket/train_0", recursive=True)
    try:
        there = Packed(root="memory://bucket/train_0")
        there.check_paths()
        assert_same_frames(Packed(root=str(root)), there)
        name = shard_name(0)
        files.pipe_file(f"/bucket/train_0/{name}", (root / name).read_bytes()[:-2000])
        with pytest.raises(DataError, match=rf"^memory://bucket/train_0/{name}: is cut off: \d+ bytes, and pack.json"):
            there.check_paths()
        files.rm_file(f"/bucket/train_0/{name}")
        for ask in (there.check_paths, lambda: there[0]):
            with pytest.raises(ListError, match=rf"^memory://bucket/train_0/{name}: does not exist"):
                ask()
        with pytest.raises(RecipeError, match=r"root is 'memory://bucket/val_0'; expected a folder .*does not exist"):
            Packed(root="memory://bucket/val_0").check_paths()
    finally:
        files.rm("/bucket", recursive=True)


def test_a_url_of_an_unknown_store_is_one_sentence() -> None:
    with pytest.raises(RecipeError, match=r"expected a folder .* \(cannot be read \(Protocol not known: nosuchstore"):
        Packed(root="nosuchstore://bucket/train_0").check_paths()


def test_libraries_that_are_missing_are_named_with_the_command(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(RecipeError, match="needs the package fsspec, which is not installed"):
        Packed(root="s3://bucket/train_0").check_paths()
    Packed(root=str(root)).check_paths()  # a local folder needs none
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(FinetuneError, match=r"zstandard, which is not installed\. Run `pip install -e '\.\[packed\]'`"):
        Packed(root=str(root)).check_paths()


def test_a_truncated_shard_is_named_before_a_run_and_in_it(root: Path) -> None:
    path = root / shard_name(0)
    whole = path.stat().st_size
    reader = Packed(root=str(root))
    path.write_bytes(path.read_bytes()[: whole - 5000])
    for ask in (Packed(root=str(root)).check_paths, lambda: reader[2]):
        with pytest.raises(DataError) as caught:
            ask()
        found = f"is cut off: {whole - 5000} bytes, and pack.json says {whole}"
        assert str(caught.value) == f"{path}: {found}. Copy the shard again, or pack again."
    reader[0]  # what is left is good
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(DataError, match="is cut off: 10 bytes"):
        reader[0]


def test_a_damaged_byte_anywhere_in_a_frame_is_found(root: Path) -> None:
    path = root / shard_name(0)
    reader = Packed(root=str(root))
    place = reader._index[1]
    for position in (place.start, place.start + 600, place.start + place.length - 1):
        change_byte(path, position)
        with pytest.raises(DataError, match=r"shard-00000\.tar: is damaged: the checksum of frame scenes:seed=0#1"):
            reader[1]
        change_byte(path, position)
    assert reader[1].valid.any()


def test_a_shard_of_another_index_is_called_that(root: Path, tmp_path: Path) -> None:
    other = pack(recipe_of(tmp_path, {**SCENES, "seed": 7}), tmp_path / "other")
    reader = Packed(root=str(root))
    path, size = root / shard_name(0), (root / shard_name(0)).stat().st_size
    content = Path(other.root, shard_name(0)).read_bytes()
    # Of the same size, so that only what is in it tells.
    path.write_bytes(content[:size].ljust(size, b"\0"))
    with pytest.raises(DataError, match=r"belongs to another packed entry than the pack\.json next to it"):
        reader[0]
    shutil.copy(Path(other.root, "index.npz"), root)
    with pytest.raises(DataError, match=r"index\.npz: is damaged, or does not belong to the pack\.json next to it"):
        len(Packed(root=str(root))._index)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda info: "no JSON", "is damaged"),
        (lambda info: "[]", "is damaged"),
        (lambda info: json.dumps({**info, "frames": None, "more": 1}), "is damaged"),
        (lambda info: json.dumps({**info, "version": 2}), "is of version 2, and this program reads 1"),
        (
            lambda info: json.dumps({**info, "shard_bytes": [*info["shard_bytes"], 5]}),
            "shard-00001.tar: does not exist",
        ),
    ],
)
def test_a_damaged_description_is_named(root: Path, change: Any, expected: str) -> None:
    path = root / "pack.json"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(FinetuneError) as caught:
        Packed(root=str(root)).check_paths()
    assert expected in str(caught.value) and str(root) in str(caught.value) and "\n" not in str(caught.value)


def test_the_folder_of_all_entries_is_told_from_one_of_them(root: Path, tmp_path: Path) -> None:
    (tmp_path / "packed.json").write_text("{}")
    with pytest.raises(
        RecipeError, match=rf"root is '{tmp_path}'; expected one of the folders in it, such as .*train_0"
    ):
        Packed(root=str(tmp_path)).check_paths()


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeFaults) as caught:
        load_recipe(path, overrides)
    (fault,) = caught.value.faults
    return fault


def test_a_recipe_that_sees_more_than_was_packed_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {**SCENES, "size": [112, 154]}, {**SCENES, "seed": 1})
    pack(recipe, tmp_path / "out", PackChoice())
    path = tmp_path / "out" / "recipe.yaml"
    assert load_recipe(path).data.train[0].source[0].image.shape == (70, 98, 3)
    load_recipe(path, ["data.input_size=[56,84]"])
    fault = refusal(path, "data.input_size=[84,84]")
    named = re.search(r"recipe\.yaml:(\d+): ", fault)
    assert named and "train_0" in path.read_text().splitlines()[int(named[1]) - 1]
    assert "expected frames that were packed for data.input_size [84, 84], or more: these are for" in fault
    assert "data.input_size [70, 84]; pack again by this recipe." in fault
    assert "packed for data.input_size [70, 84] and augment.zoom up to 1.5" in refusal(path, "augment.zoom=[1.0,1.5]")
    # What is scored must be as it was read.
    root = load_recipe(path).data.train[0].source.root
    assert "these are smaller than they were, which would change the tables" in refusal(path, f"data.val.0.root={root}")
    levels = ["data.image_black=0", "data.image_white=100"]
    assert "these have none, and the run {'black': 0.0, 'white': 100.0}" in refusal_of_levels(path, levels)


def refusal_of_levels(path: Path, overrides: list[str]) -> str:
    """Both entries have them."""
    with pytest.raises(RecipeFaults) as caught:
        load_recipe(path, overrides)
    train, val = caught.value.faults
    assert train.replace("train", "val").split("; ")[1] == val.replace("train", "val").split("; ")[1]
    return train


def test_frames_that_lost_nothing_serve_any_recipe(tmp_path: Path) -> None:
    pack(recipe_of(tmp_path, SCENES), tmp_path / "out")
    load_recipe(tmp_path / "out" / "recipe.yaml", ["data.input_size=[140,140]", "augment.zoom=[1.0,3.0]"])


def test_compressed_frames_of_full_size_are_not_scored(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, SCENES, {**SCENES, "seed": 1})
    packed = pack(recipe, tmp_path / "out", PackChoice(size="full"))
    found = refusal(tmp_path / "out" / "recipe.yaml", f"data.val.0.root={packed.root}")
    assert "these are compressed again, with losses" in found
    load_recipe(tmp_path / "out" / "recipe.yaml", ["data.input_size=[140,140]"])


def test_the_order_of_samples_depends_on_no_more_than_their_number(root: Path) -> None:
    mix = WeightedMixSampler(sizes=(len(Packed(root=str(root))),), weights=(1.0,), seed=0)
    reader = Packed(root=str(root))
    assert [reader.source(mix(k)[1]) for k in range(3)] == [f"scenes:seed=0#{mix(k)[1]}" for k in range(3)]
    assert len({mix(k)[1] for k in range(3)}) == 3
    with pytest.raises(IndexError):
        reader[3]
    assert np.array_equal(reader[-1].depth_m, reader[2].depth_m)
