"""Members of a frame, against the tar of the standard library."""

from __future__ import annotations

import io
import tarfile

import pytest

from finetune.data.packing.tar_members import ARCHIVE_END, join_members, split_members

PARTS = {"json": b"{}", "jpg": bytes(range(256)) * 5, "depth.zst": b"", "valid.zst": b"x" * 512}


def test_they_are_the_members_that_tar_knows_and_come_back() -> None:
    data = join_members("000000012", PARTS)
    with tarfile.open(fileobj=io.BytesIO(data + ARCHIVE_END)) as archive:
        found = {member.name: archive.extractfile(member) for member in archive}
        contents = {name: file.read() for name, file in found.items() if file}
    assert contents == {f"000000012.{ending}": content for ending, content in PARTS.items()}
    assert {ending: bytes(part) for ending, part in split_members(data).items()} == PARTS


@pytest.mark.parametrize("length", [1, 511, 512, 1500])
def test_a_stretch_that_is_cut_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"cut off|invalid literal"):
        split_members(join_members("0", {"jpg": bytes(1600)})[:length])
