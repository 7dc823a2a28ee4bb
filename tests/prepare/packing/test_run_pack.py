"""Packing a recipe: what training sees of it, going on, refusals, and frames that cannot be read."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from finetune.data.augmentation import Augmentation
from finetune.data.packing import shards
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader
from finetune.data.readers.packed import Packed
from finetune.data.readers.pairs import Pairs
from finetune.data.sample import DepthSample
from finetune.data.training_dataset import DepthRangePolicy, TrainingSamples
from finetune.prepare.packing import pack_entry
from finetune.prepare.packing.encode_frames import PackFormat
from finetune.prepare.packing.pack_plan import PackChoice, plan_packs
from finetune.prepare.packing.run_pack import PackOptions, pack_recipe
from finetune.recipe.load import load_recipe
from finetune.utils.errors import DataError, FileFault, FinetuneError
from tests.prepare.packing.small_packs import WHOLE, assert_same_frames, assert_same_sample, pack, recipe_of

SMALL = (70, 84)


@pytest.fixture
def entry(tmp_path: Path) -> dict[str, Any]:
    """Six frames of 105x140: photographs as JPEG, and depth up to 5 m with holes."""
    rng, lines = np.random.default_rng(2), []
    for i in range(6):
        image = cv2.resize(rng.integers(0, 255, (12, 16, 3), np.uint8), (140, 105), interpolation=cv2.INTER_CUBIC)
        depth = cv2.resize(rng.integers(500, 5000, (6, 8)).astype(np.float32), (140, 105)).astype(np.uint16)
        depth[rng.random(depth.shape) < 0.1] = 0
        cv2.imwrite(str(tmp_path / f"{i}.jpg"), image)
        cv2.imwrite(str(tmp_path / f"{i}.png"), depth)
        lines.append(f"{i}.jpg {i}.png {100 + i} {101 + i} 70 52\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    (tmp_path / "val.txt").write_text(lines[0])
    return {
        "reader": "pairs",
        "root": str(tmp_path),
        "list": "list.txt",
        "meters_per_unit": 0.001,
        "intrinsics": "list",
    }


@pytest.fixture
def val(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "list": "val.txt"}


def seen_in_training(reader: Reader, count: int = 12, **options: Any) -> list[DepthSample]:
    samples = TrainingSamples(
        [reader],
        [1.0],
        preprocessing=Preprocessing(input_size=SMALL),
        augmentation=Augmentation(flip=0.5, color=0.5),
        ranges=[DepthRangePolicy(max_depth_m=10.0)],
        seed=0,
        **options,
    )
    return [item.sample for item in samples.__getitems__(range(count))]


def test_training_sees_the_same_bits_of_frames_packed_whole(entry: dict[str, Any], tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, entry)
    packed = pack(recipe, tmp_path / "out")
    pairs = zip(seen_in_training(recipe.data.train[0].source), seen_in_training(packed), strict=True)
    for sample, again in pairs:
        assert_same_sample(sample, again)


@pytest.mark.parametrize("scan", [False, True])
def test_frames_of_the_working_size_teach_the_same_depth_and_nearly_the_same_image(
    entry: dict[str, Any], tmp_path: Path, scan: bool
) -> None:
    if scan:  # as a LiDAR measures: single points
        for i in range(6):
            depth = cv2.imread(str(tmp_path / f"{i}.png"), cv2.IMREAD_UNCHANGED)
            assert depth is not None
            depth[np.random.default_rng(i).random(depth.shape) < 0.8] = 0
            cv2.imwrite(str(tmp_path / f"{i}.png"), depth)
    recipe = recipe_of(tmp_path, entry)
    packed = pack(recipe, tmp_path / "out", PackChoice(images="png"))
    assert packed[0].image.shape == (70, 98, 3)  # 105x140 times 2/3 is 70 x 93.3, and 98 is a multiple of 14
    pairs = zip(seen_in_training(recipe.data.train[0].source), seen_in_training(packed), strict=True)
    for sample, again in pairs:
        np.testing.assert_array_equal(sample.depth_m, again.depth_m)
        np.testing.assert_array_equal(sample.valid, again.valid)
        assert sample.camera is not None and again.camera is not None
        assert dataclasses.astuple(sample.camera) == pytest.approx(dataclasses.astuple(again.camera), rel=1e-12)
        # Colors are changed after the resize, which multiplies a difference of 1.
        off = np.abs(sample.image.astype(int) - again.image)
        assert off.max() <= 2 and off.mean() < 0.2


def test_frames_that_are_smaller_than_the_network_sees_them_stay_as_they_are() -> None:
    form = PackFormat(input_size=SMALL, zoom=1.0, reduces=True, images="png", quality=95, keeps_faults=False)
    for shape, expected in {
        (48, 64): (48, 64),
        (70, 84): (70, 84),
        (140, 168): (70, 84),
        (250, 84): (250, 84),  # the network would see it 252 high
        (253, 85): (252, 84),
        (700, 90): (280, 42),  # 9.3 times as elongated as the input: at most 4 times its height
    }.items():
        depth_m = np.ones(shape, np.float32)
        sample = DepthSample(image=np.zeros((*shape, 3), np.uint8), depth_m=depth_m, valid=depth_m > 0, source="frame")
        assert form.reduce(sample).depth_m.shape == expected, shape
        # What is packed is seen at the size of what was packed.
        seen = Preprocessing(input_size=SMALL)
        assert seen.network_size(*expected) == seen.network_size(*shape)
    zoomed = dataclasses.replace(form, zoom=1.5)
    depth_m = np.ones((280, 336), np.float32)
    sample = DepthSample(image=np.zeros((280, 336, 3), np.uint8), depth_m=depth_m, valid=depth_m > 0, source="frame")
    assert zoomed.reduce(sample).depth_m.shape == (105, 126)
    assert form.reduce(sample).depth_m.shape == (70, 84)


def test_equal_entries_are_written_once(entry: dict[str, Any], tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {**entry, "weight": 2.0, "out_of_range": "ceiling"}, entry)
    (both,) = plan_packs(recipe, WHOLE)
    assert (both.name, both.keys) == ("train_0", ("data.train.0", "data.val.0"))
    assert [plan.name for plan in plan_packs(recipe, PackChoice())] == ["train_0", "val_0"]
    pack(recipe, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["packed.json", "recipe.yaml", "train_0"]
    again = load_recipe(tmp_path / "out" / "recipe.yaml")
    root = str(tmp_path / "out" / "train_0")
    assert [entry.source.root for entry in (*again.data.train, *again.data.val)] == [root, root]
    assert (again.data.train[0].weight, again.data.train[0].out_of_range) == (2.0, "ceiling")


def test_the_recipe_is_the_one_that_was_packed_but_for_its_data(
    entry: dict[str, Any], val: dict[str, Any], tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path, entry, val, "optim.lr=1e-4", "augment.flip=0.25")
    pack(recipe, tmp_path / "out", PackChoice())
    again = load_recipe(tmp_path / "out" / "recipe.yaml")
    assert again.name == "packs_packed"
    data = dataclasses.replace(again.data, train=recipe.data.train, val=recipe.data.val)
    assert dataclasses.replace(again, name=recipe.name, data=data) == recipe
    assert_same_frames(recipe.data.val[0].source, again.data.val[0].source)


def test_the_file_of_a_jpeg_that_keeps_its_size_is_kept(entry: dict[str, Any], tmp_path: Path) -> None:
    packed = pack(recipe_of(tmp_path, entry), tmp_path / "out", PackChoice(size="full"))
    with tarfile.open(Path(packed.root, "shard-00000.tar")) as shard:
        member = shard.extractfile("000000003.jpg")
        assert member is not None and member.read() == (tmp_path / "3.jpg").read_bytes()
    info = json.loads(Path(packed.root, "pack.json").read_text())
    assert (info["reduced"], info["lossy"]) == (0, 0)


def stop_after(monkeypatch: pytest.MonkeyPatch, frames: int, error: BaseException) -> None:
    """Let writing end by an error once so many frames are written."""
    add, left = shards.ShardWriter.add, [frames]

    def add_or_stop(writer: shards.ShardWriter, *arguments: Any) -> None:
        if not left[0]:
            raise error
        left[0] -= 1
        add(writer, *arguments)

    monkeypatch.setattr(shards.ShardWriter, "add", add_or_stop)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two frames fill a shard."""
    monkeypatch.setattr(pack_entry, "SHARD_BYTES", 30_000)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_a_call_that_was_stopped_goes_on_and_ends_with_the_same_bytes(
    entry: dict[str, Any], val: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    recipe = recipe_of(tmp_path, entry, val)
    pack(recipe, tmp_path / "whole" / "out")
    expected = {name: data for name, data in content(tmp_path / "whole/out").items() if name != "recipe.yaml"}
    assert len([name for name in expected if name.startswith("train_0/shard")]) == 3
    output, hidden = tmp_path / "out", tmp_path / ".out.packing"
    with monkeypatch.context() as patch:
        stop_after(patch, 5, stop)
        with pytest.raises(KeyboardInterrupt if isinstance(stop, KeyboardInterrupt) else FileFault) as caught:
            pack(recipe, output)
    if isinstance(stop, OSError):
        assert str(caught.value).startswith(f"{output}: cannot be written (No space left on device). Name an --output")
    left = content(hidden / "out")
    assert sorted(left) == ["train_0/shard-00000.tar", "train_0/shard-00001.tar"]  # and nothing half written
    assert not output.exists()
    # A kill leaves what no error leaves.
    (hidden / "out/train_0/.shard-00002.tar.writing").write_bytes(b"half")
    read: list[int] = []
    get = Pairs.__getitem__

    def get_and_note(reader: Pairs, index: int) -> DepthSample:
        read.append(index)
        return get(reader, index)

    monkeypatch.setattr(Pairs, "__getitem__", get_and_note)
    pack(recipe, output)
    assert read == [4, 5, 0]  # the frame in the half shard, those after it, and data.val
    assert {name: data for name, data in content(output).items() if name != "recipe.yaml"} == expected
    assert not hidden.exists()


@pytest.mark.usefixtures("small_shards")
def test_shards_that_a_power_cut_spoiled_are_packed_again(
    entry: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tmp_path, entry)
    whole = content(Path(pack(recipe, tmp_path / "whole" / "out").root))
    hidden = tmp_path / ".out.packing"
    for spoil in ("out/train_0/shard-00001.tar", "shards/train_0/1.npz", "shards/train_0/1.json"):
        with monkeypatch.context() as patch:
            stop_after(patch, 5, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                pack(recipe, tmp_path / "out", overwrite=True)
        (hidden / spoil).write_bytes((hidden / spoil).read_bytes()[:-7])
        assert content(Path(pack(recipe, tmp_path / "out", overwrite=True).root)) == whole


def test_what_was_begun_otherwise_is_not_gone_on_with(
    entry: dict[str, Any], val: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_entry, "SHARD_BYTES", 1)
    recipe = recipe_of(tmp_path, entry, val)
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            pack(recipe, tmp_path / "out", PackChoice())
    larger, nearer = recipe_of(tmp_path, entry, val, "data.input_size=[84,84]"), {**entry, "max_depth_m": 3.0}
    for other, choice in (
        (larger, PackChoice()),
        (recipe_of(tmp_path, nearer, val), PackChoice()),
        (recipe, PackChoice(quality=80)),
        (recipe, WHOLE),
    ):
        with pytest.raises(FileFault) as caught:
            pack(other, tmp_path / "out", choice)
        found = "was begun by a recipe with other data, another size or other options; what was done then is in"
        assert str(caught.value).startswith(f"{tmp_path}/out: {found} {tmp_path}/.out.packing. Call as before to go on")
    # What a recipe says besides its data may change.
    pack(recipe_of(tmp_path, entry, val, "optim.lr=1e-4"), tmp_path / "out", PackChoice())


def test_an_output_is_replaced_only_if_asked_and_packed(entry: dict[str, Any], tmp_path: Path) -> None:
    recipe, output = recipe_of(tmp_path, entry), tmp_path / "out"
    pack(recipe, output)
    with pytest.raises(FileFault, match=r"out: exists\. Name another folder as --output, or add --overwrite"):
        pack(recipe, output)
    (output / "train_0" / "left.txt").write_text("old")
    pack(recipe, output, overwrite=True)
    assert not (output / "train_0" / "left.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("text")
    with pytest.raises(FileFault, match="holds files that finetune pack did not write"):
        pack(recipe, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "text"
    with pytest.raises(FileFault, match="another process is packing it"), Locked(tmp_path / ".new.packing"):
        pack(recipe, tmp_path / "new")


class Locked:
    """As if another process were packing into the folder."""

    def __init__(self, hidden: Path) -> None:
        self.hidden = hidden

    def __enter__(self) -> None:
        import fcntl

        self.hidden.mkdir()
        self.file = (self.hidden / "lock").open("wb")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self.file.close()


def test_frames_that_cannot_be_read_stop_or_are_packed_as_such(
    entry: dict[str, Any], val: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "2.png").write_bytes(b"")
    (tmp_path / "4.jpg").unlink()
    with pytest.raises(DataError, match=r"2\.png: is empty"):
        pack(recipe_of(tmp_path, entry, val), tmp_path / "out", PackChoice())
    assert not list(tmp_path.glob(".out*"))
    recipe = recipe_of(tmp_path, entry, val, on_bad_sample="skip")
    reader = recipe.data.train[0].source
    packed = pack(recipe, tmp_path / "out", PackChoice(size="full"))
    assert len(packed) == 6
    for index in (2, 4):
        with pytest.raises(FileFault) as before:
            reader[index]
        with pytest.raises(type(before.value)) as after:
            packed[index]
        assert vars(after.value) == vars(before.value)
        assert reader.source(index) == packed.source(index)
    # So the same frames replace them.
    for sample, again in zip(
        seen_in_training(reader, skip_bad=True), seen_in_training(packed, skip_bad=True), strict=True
    ):
        assert_same_sample(sample, again)
    # A frame that is scored is never replaced.
    (tmp_path / "val.txt").write_text("2.jpg 2.png 100 100 70 52\n")
    with pytest.raises(DataError, match=r"2\.png: is empty"):
        pack(recipe_of(tmp_path, entry, val, on_bad_sample="skip"), tmp_path / "other", PackChoice())


def test_too_many_bad_frames_stop(entry: dict[str, Any], val: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(
        "".join(f"{i}.jpg gone{i}.png 9 9 9 9\n" for i in range(12)) + "0.jpg 0.png 100 100 70 52\n"
    )
    with pytest.raises(DataError, match="10 others of 13 cannot be read, more than 10 and more than 1 %"):
        pack(recipe_of(tmp_path, entry, val, on_bad_sample="skip"), tmp_path / "out", PackChoice())


@pytest.mark.slow
def test_several_processes_write_the_same_bytes(
    entry: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.prepare.workers._FEW", 2)
    one, two = (pack(recipe_of(tmp_path, entry), tmp_path / str(count), workers=count) for count in (1, 2))
    assert content(Path(one.root)) == content(Path(two.root))


def test_results_of_processes_are_put_in_order() -> None:
    made = [pack_entry.EncodedFrame(index=i, source="", parts={}, files={}) for i in (4, 3, 6, 5, 7)]
    ordered: Callable[..., Iterator[pack_entry.EncodedFrame]] = pack_entry._in_order
    assert [frame.index for frame in ordered(made, 3)] == [3, 4, 5, 6, 7]


def test_a_frame_that_would_change_is_never_written(
    entry: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.prepare.packing.encode_frames.encode_frame", wrong_encoding)
    with pytest.raises(FinetuneError, match=r"0\.png: what was packed is not what was read"):
        pack(recipe_of(tmp_path, entry), tmp_path / "out")


def wrong_encoding(sample: DepthSample, *others: Any) -> dict[str, bytes]:
    from finetune.data.packing.frames import encode_frame

    return encode_frame(dataclasses.replace(sample, valid=np.zeros_like(sample.valid)), *others)


def test_the_summary_says_what_was_packed(entry: dict[str, Any], val: dict[str, Any], tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, entry, val)
    train, scored = pack_recipe(recipe, PackOptions(output=tmp_path / "out", choice=PackChoice()))
    files = sum((tmp_path / f"{i}.{kind}").stat().st_size for i in range(6) for kind in ("jpg", "png"))
    assert (train.frames, train.files_bytes, train.reduced, train.lossy) == (6, files, 6, 6)
    assert (scored.frames, scored.reduced, scored.lossy, scored.levels_off) == (1, 0, 0, 0.0)
    assert 0 < train.levels_off < 5
    assert train.packed_bytes == sum(
        path.stat().st_size for path in (tmp_path / "out/train_0").iterdir() if path.name != "pack.json"
    )
    summary = json.loads((tmp_path / "out" / "packed.json").read_text())
    assert summary["train_0"]["request"]["entry"]["list"] == "list.txt"
    assert yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["data"]["train"] == [
        {"reader": "packed", "root": str(tmp_path / "out" / "train_0")}
    ]
    assert Packed(root=str(tmp_path / "out" / "val_0"))[0].image.shape == (105, 140, 3)
