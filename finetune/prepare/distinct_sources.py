"""Sources that a user names: each frame comes from one of them."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from finetune.utils.errors import ListError
from finetune.utils.indices import evenly_spread
from finetune.utils.paths import is_folder, real_path

# A copy is told by this many pieces of this size, evenly spread over a file; bags are too large to be read twice.
_PIECES, _PIECE_BYTES = 16, 65536
_FILES = 16  # files of a folder that are looked into


def require_distinct(sources: Sequence[Path]) -> None:
    """
    Frames that are read twice would train, and be evaluated as if they were new.

    Args:
        sources: files and folders, as the user names them.

    Raises:
        ListError: two are one file or folder, by links too, one is inside another, or one is a copy of another.
    """
    real = [real_path(source) for source in sources]
    for i, source in enumerate(sources):
        for j, other in enumerate(sources):
            if j < i and real[i] == real[j]:
                named = "is named twice" if source == other else f"is the same as {other}, which is named too"
                raise ListError(source, f"{named}, so its frames would count twice", "Name it once")
            if i != j and real[j] in real[i].parents:
                found = f"is inside {other}, which is named too, so its frames would count twice"
                raise ListError(source, found, "Name one of the two")
    sizes = [_list_sizes(path) for path in real]
    for i, source in enumerate(sources):
        for j, other in enumerate(sources[:i]):
            if sizes[i] and sizes[i] == sizes[j] and _sum_content(real[i], sizes[i]) == _sum_content(real[j], sizes[j]):
                found = f"holds the same as {other}, which is named too, so its frames would count twice"
                raise ListError(source, found, "Name one of the two")


def _list_sizes(path: Path) -> dict[str, int]:
    """Path below ``path`` -> bytes, of all files in a folder, or of a file; empty where nothing can be read."""
    if not is_folder(path):
        try:
            return {".": path.stat().st_size}
        except OSError:
            return {}  # whoever opens it says why
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder, name)
            try:
                found[file.relative_to(path).as_posix()] = file.stat().st_size
            except OSError:
                continue
    return dict(sorted(found.items()))


def _sum_content(path: Path, sizes: dict[str, int]) -> list[int]:
    """Check sums of pieces of some of the files."""
    names = list(sizes)
    sums = []
    for name in (names[i] for i in evenly_spread(len(names), min(_FILES, len(names)))):
        try:
            with (path if name == "." else path / name).open("rb") as file:
                for i in range(_PIECES):
                    file.seek(i * max(0, sizes[name] - _PIECE_BYTES) // (_PIECES - 1))
                    sums.append(zlib.crc32(file.read(_PIECE_BYTES)))
        except OSError:
            sums.append(-1)
    return sums
