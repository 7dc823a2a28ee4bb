"""Why no images, or no depth, were found in folders, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune.data.readers.files import DEPTH_SUFFIXES, IMAGE_SUFFIXES, read_depth
from finetune.data.readers.matching import describe_foreign
from finetune.prepare.pairing.series import Series
from finetune.utils.errors import DataError, ListError
from finetune.utils.text import count_noun

_LOOKED_AT = 2000  # files of other endings
_NAMED = 4  # series of files


def explain_missing(series: Sequence[Series], folders: Sequence[Path], name: str) -> ListError:
    """
    Args:
        series: of the files that may be images or depth.
        folders: that were searched.
        name: of what was searched, for the sentence.

    Returns:
        The error for a search without images, or without depth.
    """
    images, depths, pictures, others = (
        [one for one in series if one.kind == kind] for kind in ("image", "depth", "picture", "other")
    )
    if not depths and pictures:
        count = count_noun(len(pictures[0].names), "file")
        found = f"is no plain depth: {count} of 8 bits, colors or several channels, as pictures of depth have"
        fix = (
            "Export depth as 16-bit PNG or .npy. If the numbers are packed in channels, give --depth-channels; if "
            "there are no more than 8 bits, of a unit that is known, --allow-8-bit"
        )
        return ListError(pictures[0].label, found, fix)
    if not depths:
        foreign = _explain_unreadable(others) or describe_foreign(list(_list_others(folders)))
        if foreign:
            return ListError(name, f"holds no depth that can be read, but {foreign[0]}", foreign[1])
    if not images and not depths:
        fix = "Name a folder that holds images and depth maps, in itself or in folders in it"
        return ListError(name, "holds no images and no depth maps", fix)
    what, option, there = ("image", "images", depths) if not images else ("depth map", "depth", images)
    counts = ", ".join(f"{one.label} ({count_noun(len(one.names), 'file')})" for one in there[:_NAMED])
    fix = f"Name the folder that holds the {what}s too, or say which files they are with --{option} PATTERN"
    return ListError(name, f"holds no {what} next to {counts}", fix)


def _explain_unreadable(series: Sequence[Series]) -> tuple[str, str] | None:
    """What a file is that has the ending of an image and is none, and what to do."""
    for one in series:
        try:
            read_depth(one.folder / one.names[0])
        except DataError as error:
            folder = one.label.rpartition("/")[0]
            return f"{folder + '/' if folder else ''}{one.names[0]} {error.found}", error.fix
    return None


def _list_others(folders: Sequence[Path]) -> Iterator[Path]:
    """Files of other endings than those of images and depth, the first thousands."""
    count = 0
    for root in folders:
        for name, _, files in os.walk(root):
            for file in sorted(files):
                if file.lower().endswith((*IMAGE_SUFFIXES, *DEPTH_SUFFIXES)):
                    continue
                yield Path(name) / file
                count += 1
                if count == _LOOKED_AT:
                    return
