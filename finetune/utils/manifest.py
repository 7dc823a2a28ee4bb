"""Folders that say what they hold, byte for byte: what a power cut or a bad disk spoils is found."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.utils.paths import is_file

MANIFEST_FILE = "run_state.json"
_OF_SIZES = {"bytes", "recipe_sha256"}  # what stands in a seal of an older version beside its other content
_PIECE = 1 << 23  # bytes that are read at once


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """
    Write down what a folder holds, as the last of its files.

    Every file gets the mode that the umask leaves: PyTorch and safetensors make some that only their owner may read.

    Args:
        folder: of files; what ``MANIFEST_FILE`` would say of itself is a checksum in it.
        content: plain values, kept in the seal.
    """
    umask = os.umask(0)
    os.umask(umask)
    files = {}
    for path in sorted(folder.iterdir()):
        path.chmod(0o666 & ~umask)
        files[path.name] = {"bytes": path.stat().st_size, "crc32": checksum(path)}
    sealed_content = {"content": dict(content), "files": files}
    text = json.dumps({**sealed_content, "crc32": _checksum_of(sealed_content)})
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def verify_manifest(folder: Path) -> dict[str, Any]:
    """
    Returns:
        What ``seal`` was given. Of a seal without checksums (``has_checksums``) only the sizes are known to be right.

    Raises:
        ValueError: a file is missing, not of its size, or does not hold what was written; says which.
    """
    try:
        seal_of_folder = _read(folder)
        content: dict[str, Any]
        if has_checksums(folder):
            if seal_of_folder.pop("crc32", None) != _checksum_of(seal_of_folder):
                raise ValueError(f"{MANIFEST_FILE} does not hold what was written")
            content = seal_of_folder["content"]
            files = {name: (of_file["bytes"], of_file["crc32"]) for name, of_file in seal_of_folder["files"].items()}
        else:
            files = {name: (size, None) for name, size in seal_of_folder.pop("bytes").items()}
            content = seal_of_folder
    except (OSError, KeyError, AttributeError, TypeError, RecursionError, ValueError) as error:
        ours = type(error) is ValueError and str(error).startswith(MANIFEST_FILE)
        raise ValueError(str(error) if ours else f"{MANIFEST_FILE} is missing or unreadable") from error
    for name, (size, crc32) in files.items():
        path = folder / name
        there = path.stat().st_size if is_file(path) else None
        if there != size:
            raise ValueError(f"{name} is missing" if there is None else f"{name} has {there} bytes of {size}")
        if crc32 is not None and checksum(path) != crc32:
            raise ValueError(f"{name} does not hold what was written")
    return content


def has_checksums(folder: Path) -> bool:
    """
    Whether the seal is of a kind that has them; those of older versions have sizes alone.

    Raises:
        OSError, ValueError, AttributeError, RecursionError: there is no seal, or it cannot be read.
    """
    return not _read(folder).keys() >= _OF_SIZES


def _read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    return content


def checksum(path: Path) -> str:
    """CRC-32 of a file, as hexadecimal digits: it finds every flipped bit, and misses other damage once in 4e9.

    It is for accidents. Of what hashlib and zlib have it is the fastest beside Adler-32, which is weak on short files:
    twice SHA-256 with the processor's own instructions, six times without.
    """
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            crc = zlib.crc32(piece, crc)
    return f"{crc:08x}"


def _checksum_of(content: Any) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"
