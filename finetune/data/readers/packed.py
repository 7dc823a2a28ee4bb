"""Frames that ``finetune pack`` wrote: tar shards with an index, in a folder or in an object store."""

from __future__ import annotations

import json
import zlib
from functools import cached_property
from typing import TYPE_CHECKING, Self

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.data.packing.frames import decode_frame
from finetune.data.packing.pack_info import INDEX, INFO, SUMMARY, FramePlace, PackIndex, PackInfo, shard_name
from finetune.data.packing.shards import read_shard_id
from finetune.data.packing.store import Store
from finetune.data.packing.tar_members import split_members
from finetune.data.packing.zstd import require_zstandard
from finetune.data.reader import Reader
from finetune.data.sample import DepthSample
from finetune.utils.errors import DataError, FinetuneError, ListError, RecipeError

if TYPE_CHECKING:
    from finetune.data.preprocessing import Preprocessing

_AGAIN = "Copy the shard again, or pack again"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Packed(Reader):
    """An entry that ``finetune pack`` wrote once, frame by frame as its reader gave them.

    Frame k is frame k of the entry that was packed, with its name, so that a run draws the same samples, skips the same
    bad frames, and shows the same names in its tables. All options of the first reader are in the frames already: their
    unit, what is valid, masks, sky, cameras, turns by EXIF tags, black and white of images of more than 8 bits.

    Frames of ``data.train`` are at most as large as the network of the recipe saw them; those of ``data.val`` are as
    they were read. A recipe that needs more is refused. Making the reader opens nothing; a frame is one read of one
    file, and its checksum is compared.
    """

    root: str  # folder of the packed entry, or its URL, such as s3://bucket/nyu/train_0, for fsspec

    def check_paths(self) -> None:
        """
        Raises:
            RecipeError: the folder is missing, or holds something else.
            FileFault: a shard is missing or cut off. Sizes alone are looked at.
        """
        require_zstandard()
        try:
            sizes = self._store.sizes()
        except ListError as error:
            raise RecipeError("root", self.root, f"a folder that finetune pack wrote ({error.found})") from error
        if sizes is None:
            return
        if INFO not in sizes:
            inside = f"one of the folders in it, such as {self.root}/train_0" if SUMMARY in sizes else ""
            raise RecipeError("root", self.root, inside or f"a folder with a {INFO}, which finetune pack writes")
        for number, expected in enumerate(self._info.shard_bytes):
            name = shard_name(number)
            if name not in sizes:
                raise ListError(self._store.place(name), "does not exist", _AGAIN)
            self._require_size(name, sizes[name], expected)

    def check_detail(self, input_size: tuple[int, int], zoom: float, *, trains: bool) -> None:
        """
        Raises:
            RecipeError: the recipe sees more of the frames than was packed, or scores frames that were changed, or
                reads images by other levels.
        """
        info = self._info
        if not trains and not info.is_whole:
            changed = "smaller than they were" if info.reduced else "compressed again, with losses"
            raise RecipeError(
                "root",
                self.root,
                f"frames as they were read, as finetune pack writes those of data.val: these are {changed}, which "
                "would change the tables",
            )
        if info.reduced and any(
            new * zoom > old * info.zoom for new, old in zip(input_size, info.input_size, strict=True)
        ):
            asked, kept = (_describe_size(*size) for size in ((input_size, zoom), (info.input_size, info.zoom)))
            raise RecipeError(
                "root",
                self.root,
                f"frames that were packed for {asked}, or more: these are for {kept}; pack again by this recipe",
            )
        if self.image_levels is not None or info.image_levels is not None:
            self._require_levels()

    def decoded_for(self, network: Preprocessing) -> Self:
        """
        This reader.

        Raises:
            RecipeError: images were packed as another ``data.decode`` reads them, or for another size.
        """
        info = self._info
        if (info.decode, info.input_size) == (network.decode, network.input_size) or (
            info.decode == network.decode == "full"
        ):
            return self
        asked, packed = (
            f"data.decode: {decode}" + ("" if decode == "full" else f" at data.input_size {size[0]}x{size[1]}")
            for decode, size in ((network.decode, network.input_size), (info.decode, info.input_size))
        )
        expected = f"frames that were packed with {asked}: these were with {packed}; pack again, or change the key"
        raise RecipeError("root", self.root, expected)

    def __len__(self) -> int:
        return self._info.frames

    @property
    def has_pseudo_labels(self) -> bool:
        """What the first reader said."""
        return self._info.pseudo_labels

    def source(self, index: int) -> str:
        """The name that the frame had before it was packed."""
        return self._index.source(index)

    def __getitem__(self, index: int) -> DepthSample:
        """
        Raises:
            ListError: a file of the entry is missing.
            DataError: the frame is damaged, could not be read when it was packed, or has other image levels.
        """
        if self.image_levels is not None:
            self._require_levels()
        place = self._index[index]
        data = self._store.read_stretch(shard_name(place.shard), place.start, place.length)
        if len(data) != place.length or zlib.crc32(data) != place.checksum:
            raise self._explain(place, len(data))
        try:
            return decode_frame(split_members(data))
        except ValueError as error:
            found = f"its frame {place.source} cannot be decoded ({error})"
            raise DataError(self._store.place(shard_name(place.shard)), found, _AGAIN) from error

    def _require_levels(self) -> None:
        """
        Raises:
            RecipeError: images were read by other levels than the run asks for.
        """
        asked = None if self.image_levels is None else self.image_levels.to_mapping()
        if json.loads(json.dumps(asked)) != self._info.image_levels:
            raise RecipeError(
                "root",
                self.root,
                "images that were packed with the same data.image_black, image_white and image_percentiles: these "
                f"have {_describe_levels(self._info.image_levels)}, and the run {_describe_levels(asked)}",
            )

    def _explain(self, place: FramePlace, found_bytes: int) -> FinetuneError:
        """Why the bytes of a frame are not those that were packed."""
        name = shard_name(place.shard)
        path = self._store.place(name)
        sizes = self._store.sizes() or {}
        try:
            self._require_size(name, sizes.get(name, place.start + found_bytes), self._info.shard_bytes[place.shard])
        except DataError as error:
            return error
        other = read_shard_id(self._store, name)
        if other is not None and other != self._info.id:
            return DataError(path, f"belongs to another packed entry than the {INFO} next to it", _AGAIN)
        return DataError(path, f"is damaged: the checksum of frame {place.source} differs", _AGAIN)

    def _require_size(self, name: str, found: int, expected: int) -> None:
        if found != expected:
            path, how = self._store.place(name), "is cut off" if found < expected else "is longer than it was"
            raise DataError(path, f"{how}: {found} bytes, and {INFO} says {expected}", _AGAIN)

    @cached_property
    def _store(self) -> Store:
        return Store(self.root)

    @cached_property
    def _info(self) -> PackInfo:
        return PackInfo.from_json(self._store.read(INFO), self._store.place(INFO))

    @cached_property
    def _index(self) -> PackIndex:
        place = self._store.place(INDEX)
        index = PackIndex.from_bytes(self._store.read(INDEX), place, self._info.index_checksum)
        if len(index) != self._info.frames:
            raise DataError(place, f"has {len(index)} frames, and {INFO} says {self._info.frames}", _AGAIN)
        return index


def _describe_size(input_size: tuple[int, int], zoom: float) -> str:
    enlarged = f" and augment.zoom up to {zoom:g}" if zoom > 1 else ""
    return f"data.input_size {list(input_size)}{enlarged}"


def _describe_levels(levels: object) -> str:
    return "none" if levels is None else str(levels)
