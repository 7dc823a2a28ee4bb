"""Zip archives that torch writes: their kind, and whether their bytes are intact. Runs nothing in them."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_CHUNK_BYTES = 1 << 20
# What zipfile raises for damaged bytes.
_BROKEN = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError)


@dataclass(frozen=True, kw_only=True)
class Archive:
    """What the table of a zip archive says.

    Attributes:
        kind: ``weights``, ``TorchScript``, ``exported`` (a program of ``torch.export``), or ``other``.
        compressed: whether a record is compressed, so that it cannot be used in place.
        fault: what is wrong with its records; "" where they are intact.
    """

    kind: str
    compressed: bool
    fault: str


def inspect_archive(path: Path) -> Archive | None:
    """The kind and state of a zip archive; None where its table cannot be read, as in one that is cut short."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            names = [record.filename for record in records]
            return Archive(
                kind=_kind_of(names),
                compressed=any(record.compress_type != zipfile.ZIP_STORED for record in records),
                fault=_fault_of(archive, names) if _kind_of(names) == "weights" else "",
            )
    except _BROKEN:
        return None


def _kind_of(names: list[str]) -> str:
    last = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in last or any("/code/" in f"/{name}" for name in names):
        return "TorchScript"
    if "archive_format" in last or "serialized_exported_program.json" in last:
        return "exported"
    return "weights" if "data.pkl" in last else "other"


def _fault_of(archive: zipfile.ZipFile, names: list[str]) -> str:
    """
    Names the first damaged record, as torch itself checks none; "" where all are intact.

    torch can write archives without checksums; they are 0 then.
    """
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        return f"two records are called {twice}"
    for record in archive.infolist():
        try:
            with archive.open(record) as content:
                while content.read(_CHUNK_BYTES):
                    pass
        except _BROKEN as error:
            if record.CRC or "CRC" not in str(error):
                return f"record {record.filename} is damaged"
    return ""
