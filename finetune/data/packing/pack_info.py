"""What a packed entry says about itself, and where each of its frames is."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.utils.errors import DataError

INFO, INDEX = "pack.json", "index.npz"
# Of the folder that holds the packed entries of a recipe.
SUMMARY = "packed.json"
_VERSION = 1
_COLUMNS = ("shards", "starts", "lengths", "checksums", "names", "name_ends")
_AGAIN = "Copy it again, or pack again"


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"shard-{number:05d}.tar"


@dataclass(frozen=True, kw_only=True)
class PackInfo:
    """A packed entry as a whole.

    Attributes:
        id: of what was packed; each shard holds it too.
        frames: how many there are.
        shard_bytes: of each shard, in order.
        index_checksum: of the index file.
        input_size: of the recipe, (height, width), pixels.
        zoom: the largest by which the recipe enlarges frames.
        reduced: how many frames are smaller than they were.
        lossy: how many images are not those that were read, at their size.
        image_levels: black and white by which images were read; None: none were set.
        pseudo_labels: depth is what a teacher predicted.
        decode: ``data.decode`` of the recipe.
    """

    id: str
    frames: int
    shard_bytes: Sequence[int]
    index_checksum: int
    input_size: tuple[int, int]
    zoom: float
    reduced: int
    lossy: int
    image_levels: Mapping[str, object] | None
    pseudo_labels: bool = False
    decode: str = "full"

    @property
    def is_whole(self) -> bool:
        """Whether every frame is as it was read, at full size and to the last bit."""
        return not self.reduced and not self.lossy

    def to_json(self) -> str:
        """The text of its file."""
        values = {"version": _VERSION, **asdict(self)}
        # Earlier versions do not know these keys.
        if not self.pseudo_labels:
            del values["pseudo_labels"]
        if self.decode == "full":
            del values["decode"]
        return json.dumps(values, indent=1) + "\n"

    @classmethod
    def from_json(cls, content: bytes, place: str) -> PackInfo:
        """
        The inverse of ``to_json``.

        Raises:
            DataError: it is damaged, or of a later version; names ``place``.
        """
        try:
            found = json.loads(content)
            version = found.pop("version")
            if version != _VERSION:
                raise DataError(
                    place,
                    f"is of version {version}, and this program reads {_VERSION}",
                    "Update this program, or pack again",
                )
            found["input_size"] = tuple(found["input_size"])
            return cls(**found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(place, "is damaged", _AGAIN) from error


@dataclass(frozen=True, kw_only=True)
class FramePlace:
    """Where the members of a frame are.

    Attributes:
        shard: number of the shard.
        start, length: bytes in it.
        checksum: CRC-32 of these bytes.
        source: name of the frame.
    """

    shard: int
    start: int
    length: int
    checksum: int
    source: str


@dataclass(frozen=True, kw_only=True, eq=False)
class PackIndex:
    """The place of every frame, in arrays: for millions of frames, objects would take gigabytes.

    Attributes:
        shards, starts, lengths, checksums: see ``FramePlace``.
        names: the sources, one after the other, as UTF-8.
        name_ends: where in ``names`` each of them ends.
    """

    shards: NDArray[np.uint32]
    starts: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    checksums: NDArray[np.uint32]
    names: NDArray[np.uint8]
    name_ends: NDArray[np.uint64]

    @classmethod
    def of_places(cls, places: Sequence[FramePlace]) -> PackIndex:
        """The index of frames in their order."""
        names = [_encode(place.source) for place in places]
        return cls(
            shards=np.array([place.shard for place in places], np.uint32),
            starts=np.array([place.start for place in places], np.uint64),
            lengths=np.array([place.length for place in places], np.uint64),
            checksums=np.array([place.checksum for place in places], np.uint32),
            names=np.frombuffer(b"".join(names), np.uint8),
            name_ends=np.cumsum([len(name) for name in names], dtype=np.uint64),
        )

    @classmethod
    def joined(cls, indices: Iterable[PackIndex]) -> PackIndex:
        """One index of several, in order."""
        parts = list(indices)
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS[:-1]}
        offsets = np.cumsum([0, *(part.names.size for part in parts[:-1])], dtype=np.uint64)
        ends = [part.name_ends + offset for part, offset in zip(parts, offsets, strict=True)]
        return cls(**columns, name_ends=np.concatenate(ends))

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> FramePlace:
        return FramePlace(
            shard=int(self.shards[index]),
            start=int(self.starts[index]),
            length=int(self.lengths[index]),
            checksum=int(self.checksums[index]),
            source=self.source(index),
        )

    def source(self, index: int) -> str:
        """The name of a frame."""
        index = range(len(self))[index]
        begin = int(self.name_ends[index - 1]) if index else 0
        return self.names[begin : int(self.name_ends[index])].tobytes().decode("utf-8", "surrogateescape")

    def to_bytes(self) -> bytes:
        """The content of its file; the same for the same index."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name in _COLUMNS:
                column = io.BytesIO()
                np.save(column, getattr(self, name))
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), column.getvalue())
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, place: str, checksum: int | None = None) -> PackIndex:
        """
        The inverse of ``to_bytes``.

        Args:
            content: of the file.
            place: of the file, for errors.
            checksum: CRC-32 of the file; None: it is not compared.

        Raises:
            DataError: it is damaged, or another file.
        """
        if checksum is not None and zlib.crc32(content) != checksum:
            raise DataError(place, f"is damaged, or does not belong to the {INFO} next to it", _AGAIN)
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return cls(**{name: arrays[name] for name in _COLUMNS})
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(place, "is damaged", _AGAIN) from error


def _encode(source: str) -> bytes:
    return source.encode("utf-8", "surrogateescape")
