"""Manifests: a file in a folder that lists the other files with their checksums, so that any damage is found."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

from finetune.utils.paths import is_file, read_text
from finetune.utils.plain import PlainValue

MANIFEST_FILE = "run_state.json"
_KEYS_WITHOUT_CHECKSUMS = {"bytes", "recipe_sha256"}  # keys of a manifest that an older version wrote
_CHUNK_BYTES = 1 << 23


def write_manifest(folder: Path, content: Mapping[str, PlainValue]) -> None:
    """
    List the files of a folder with their checksums; call it after all of them are written.

    Every file gets the permissions that the umask asks for: PyTorch and safetensors make files that only their owner
    may read.

    Args:
        folder: of files, without folders in it.
        content: stored in the manifest, and protected by a checksum like the files.
    """
    umask = os.umask(0)
    os.umask(umask)
    files: dict[str, PlainValue] = {}
    for path in sorted(folder.iterdir()):
        path.chmod(0o666 & ~umask)
        files[path.name] = {"bytes": path.stat().st_size, "crc32": checksum(path)}
    manifest: dict[str, PlainValue] = {"content": dict(content), "files": files}
    text = json.dumps({**manifest, "crc32": _checksum_of(manifest)})
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def verify_manifest(folder: Path) -> dict[str, PlainValue]:
    """
    Returns:
        The content that ``write_manifest`` stored. Without checksums (``has_checksums``) only the sizes were compared.

    Raises:
        ValueError: a file is missing, has another size, or is damaged; says which.
    """
    content, files = _parse_manifest(folder)
    for name, (size, crc32) in files.items():
        path = folder / name
        found = path.stat().st_size if is_file(path) else None
        if found != size:
            raise ValueError(f"{name} is missing" if found is None else f"{name} has {found} bytes of {size}")
        if crc32 is not None and checksum(path) != crc32:
            raise ValueError(f"{name} is damaged")
    return content


def has_checksums(folder: Path) -> bool:
    """
    Whether the manifest has checksums; those of older versions have only sizes.

    Raises:
        OSError, ValueError, RecursionError: there is no manifest, or it cannot be read.
    """
    return not _read(folder).keys() >= _KEYS_WITHOUT_CHECKSUMS


def _parse_manifest(folder: Path) -> tuple[dict[str, PlainValue], dict[str, tuple[PlainValue, PlainValue]]]:
    """
    Returns:
        The stored content, and name -> size and checksum of each file; None for a checksum that an older version did
        not write.

    Raises:
        ValueError: the manifest is missing, unreadable or damaged.
    """
    unreadable = f"{MANIFEST_FILE} is missing or unreadable"
    try:
        manifest, with_checksums = _read(folder), has_checksums(folder)
        intact = not with_checksums or manifest.pop("crc32", None) == _checksum_of(manifest)
    except PermissionError as error:
        raise ValueError(f"no permission to read {MANIFEST_FILE}") from error
    except (OSError, RecursionError, ValueError) as error:
        raise ValueError(unreadable) from error
    if not intact:
        raise ValueError(f"{MANIFEST_FILE} is damaged")
    files = manifest.pop("files" if with_checksums else "bytes", None)
    content = manifest.get("content") if with_checksums else manifest
    if not isinstance(files, dict) or not isinstance(content, dict):
        raise ValueError(unreadable)
    if not with_checksums:
        return content, {name: (size, None) for name, size in files.items()}
    if not all(isinstance(entry, dict) and entry.keys() >= {"bytes", "crc32"} for entry in files.values()):
        raise ValueError(unreadable)
    entries = {name: entry for name, entry in files.items() if isinstance(entry, dict)}
    return content, {name: (entry["bytes"], entry["crc32"]) for name, entry in entries.items()}


def _read(folder: Path) -> dict[str, PlainValue]:
    """
    Raises:
        OSError, ValueError, RecursionError: there is no manifest, or it cannot be read.
    """
    manifest = json.loads(read_text(folder / MANIFEST_FILE))
    if not isinstance(manifest, dict):
        raise ValueError(f"{MANIFEST_FILE} is not a mapping")
    return manifest


def checksum(path: Path) -> str:
    """
    CRC-32 of a file, as hexadecimal digits. It finds every flipped bit, and misses other damage once in 4e9.

    It is against accidents, not attacks. In hashlib and zlib only Adler-32 is faster, which is weak on short files:
    CRC-32 is twice as fast as SHA-256 with the processor's own instructions, six times without.
    """
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}"


def _checksum_of(content: object) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"
