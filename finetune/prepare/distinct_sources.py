"""Sources that a user names: each frame comes from one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finetune.utils.errors import ListError
from finetune.utils.paths import real_path


def require_distinct(sources: Sequence[Path]) -> None:
    """
    Frames that are read twice would train, and be evaluated as if they were new.

    Args:
        sources: files and folders, as the user names them.

    Raises:
        ListError: two are one file or folder, by links too, or one is inside another.
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
