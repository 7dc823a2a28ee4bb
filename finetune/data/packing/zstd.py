"""Zstandard blocks; the library that reads and writes them is an extra."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from finetune.utils.errors import FinetuneError

if TYPE_CHECKING:
    import zstandard

# Higher levels take several times as long and save a few percent of a depth map.
_LEVEL = 9
INSTALL = "Run `pip install -e '.[packed]'` in the folder of this repository"


def compress(data: bytes | memoryview) -> bytes:
    """One block, which says how long it is when unpacked."""
    return _compressor().compress(data)


def decompress(block: bytes | memoryview) -> bytes:
    """
    Raises:
        ValueError: the block is damaged.
    """
    import zstandard

    try:
        return _decompressor().decompress(block)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def require_zstandard() -> None:
    """
    Raises:
        FinetuneError: the library is not installed.
    """
    try:
        import zstandard  # noqa: F401
    except ImportError:
        raise FinetuneError(f"packed data needs the package zstandard, which is not installed. {INSTALL}.") from None


@lru_cache(maxsize=1)
def _compressor() -> zstandard.ZstdCompressor:
    import zstandard

    return zstandard.ZstdCompressor(level=_LEVEL)


@lru_cache(maxsize=1)
def _decompressor() -> zstandard.ZstdDecompressor:
    import zstandard

    return zstandard.ZstdDecompressor()
