"""The index of packed frames."""

from __future__ import annotations

import pytest

from finetune.data.packing.pack_info import FramePlace, PackIndex
from finetune.utils.errors import DataError

PLACES = [
    FramePlace(shard=0, start=1024, length=5, checksum=7, source="a/é.png"),
    FramePlace(shard=0, start=2**40, length=2**33, checksum=2**32 - 1, source=""),
    FramePlace(shard=3, start=0, length=1, checksum=0, source="\udcff.png"),
]


def test_places_come_back_from_one_index_and_from_joined_ones() -> None:
    whole = PackIndex.of_places(PLACES)
    joined = PackIndex.joined([PackIndex.of_places(PLACES[:1]), PackIndex.of_places(PLACES[1:])])
    for index in (whole, joined, PackIndex.from_bytes(joined.to_bytes(), "index.npz")):
        assert len(index) == 3
        assert [index[i] for i in range(3)] == PLACES
        assert index[-1] == PLACES[2]
        assert index.to_bytes() == whole.to_bytes()


@pytest.mark.parametrize("keep", [0, 10, 700, -1])
def test_a_damaged_index_is_named(keep: int) -> None:
    content = PackIndex.of_places(PLACES).to_bytes()
    with pytest.raises(DataError, match=r"^there/index\.npz: is damaged"):
        PackIndex.from_bytes(content[:keep], "there/index.npz")
