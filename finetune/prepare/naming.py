"""Names of the files of each frame, which every file system and list file takes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from finetune.prepare.recording import FrameKey

# A space would separate the columns of a list.
_NOT_IN_NAMES = re.compile(r"[^\w.\-]+", re.ASCII)


def name_frames(keys: Sequence[FrameKey]) -> list[str]:
    """
    Returns:
        For each frame its path below ``image/`` and ``depth/``, without the ending: ``STEM``, or ``RECORDING/STEM``
        where there are several recordings. No two are equal, also where upper and lower case are not told apart.
    """
    several = len({key.recording for key in keys}) > 1
    taken: set[str] = set()
    names = []
    for key in keys:
        folders = [part for part in key.recording.split("/") if part] if several else []
        clean = "/".join(map(clean_name, [*folders, key.stem]))
        name, number = clean, 1
        while name.lower() in taken:
            number += 1
            name = f"{clean}_{number}"
        taken.add(name.lower())
        names.append(name)
    return names


def clean_name(part: str) -> str:
    """A name with no character but ASCII letters, digits, ``_``, ``-`` and ``.``, and no ``.`` in front."""
    return _NOT_IN_NAMES.sub("_", part).lstrip(".") or "_"


def number_equal_names(names: Sequence[str]) -> list[str]:
    """The names of recordings as they are, or with their number where two are equal, so that no two are."""
    return [name if names.count(name) == 1 else f"{name}_{number}" for number, name in enumerate(names)]
