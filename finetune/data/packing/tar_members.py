"""The members of one frame in a tar archive: a stretch of bytes that is read at once and taken apart here."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping

_BLOCK = tarfile.BLOCKSIZE
ARCHIVE_END = bytes(2 * _BLOCK)


def join_members(name: str, parts: Mapping[str, bytes]) -> bytes:
    """
    Args:
        name: of the frame.
        parts: ending -> content; each becomes the member ``name.ending``.

    Returns:
        The bytes of the members as they are in an archive, in whole blocks.
    """
    joined: list[bytes] = []
    for ending, content in parts.items():
        member = tarfile.TarInfo(f"{name}.{ending}")
        member.size = len(content)
        joined += [member.tobuf(tarfile.USTAR_FORMAT), content, bytes(-len(content) % _BLOCK)]
    return b"".join(joined)


def split_members(data: bytes) -> dict[str, memoryview]:
    """
    The inverse of ``join_members``.

    Raises:
        ValueError: these are no whole members.
    """
    view, parts, start = memoryview(data), {}, 0
    while start < len(data):
        # tarfile would check and decode every field of a header, which takes longer than the small members.
        name = data[start : start + 100].rstrip(b"\0").decode("ascii")
        size = int(data[start + 124 : start + 135], 8)
        begin = start + _BLOCK
        start = begin + size + -size % _BLOCK
        if start > len(data):
            raise ValueError("a member is cut off")
        parts[name.partition(".")[2]] = view[begin : begin + size]
    return parts
