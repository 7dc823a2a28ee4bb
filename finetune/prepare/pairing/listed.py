"""Recordings whose files are paired by a list: TUM's lists of times, associations, or lines of image and depth."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.data.readers.list_lines import read_rows
from finetune.data.readers.listing import read_list
from finetune.data.readers.tum_lists import PAIRS_FILE, STAMP_FILES, read_associations, read_stamps
from finetune.prepare.matching_times import describe_matches, match_times, require_one_clock
from finetune.prepare.pairing.recordings import Found, Frame
from finetune.prepare.pairing.rules import list_names, plain_times
from finetune.utils.errors import ListError
from finetune.utils.paths import expand_path, is_file
from finetune.utils.text import count_noun

# Names that programs give to the file of pairs, the usual one first.
_PAIRS_FILES = (PAIRS_FILE, "association.txt", "associate.txt", "assoc.txt", "associated.txt")


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A line: two files, and the time of the image, seconds, where the list has one."""

    image: str
    depth: str
    time_s: float | None


def find_list(folder: Path) -> Path | None:
    """The list that pairs the files of a folder: of pairs, or ``rgb.txt`` where ``depth.txt`` is next to it."""
    for name in _PAIRS_FILES:
        if is_file(folder / name):
            return folder / name
    return folder / STAMP_FILES[0] if all(is_file(folder / name) for name in STAMP_FILES) else None


def read_recording(path: Path, name: str, tolerance_s: float | None) -> Found:
    """
    Args:
        path: a list that ``find_list`` found, or any list of lines ``image depth``.
        name: of the recording.
        tolerance_s: most seconds between color and depth where two lists of times are paired; None: half a frame
            interval.

    Raises:
        ListError: a list is malformed, the clocks never meet, or all files are missing.
    """
    matched: list[str] = []
    if path.name == STAMP_FILES[0]:
        rows, rule, matched = _match_stamps(path, tolerance_s)
    elif path.name in _PAIRS_FILES and _has_times(path):
        rows = [_Row(image=row.color, depth=row.depth, time_s=row.color_s) for row in read_associations(str(path))]
        rule = path.name
    else:
        rows = [_Row(image=image, depth=depth, time_s=None) for _, image, depth in read_list(str(path))]
        rule = f"the lines of {path.name}"
    if not rows:
        raise ListError(path, "pairs no files", "Write a frame on each line, or leave the list out")
    frames, gone = _make_frames(path.parent, rows, name)
    if not frames:
        raise ListError(
            path,
            f"names {count_noun(len(rows), 'frame')}, and the files of none exist, {gone[0]} first",
            "Correct the paths in it",
        )
    notes = [f"{count_noun(len(frames), 'frame')} of {path.parent} paired by {rule}", *matched]
    if gone:
        notes.append(f"{path} names files that do not exist in {count_noun(len(gone), 'line')}: {list_names(gone)}")
    return Found(frames=frames, notes=[*notes, *_describe_left(frames)])


def _match_stamps(path: Path, tolerance_s: float | None) -> tuple[list[_Row], str, list[str]]:
    color, depth = (read_stamps(str(path.parent / name)) for name in STAMP_FILES)
    if not color or not depth:
        raise ListError(path, "and depth.txt pair no files, since one of them is empty", "Restore it")
    times, depth_times = [time for time, _ in color], [time for time, _ in depth]
    require_one_clock(times, depth_times, ("images", "depth maps"), path)
    pairs = match_times(times, depth_times, tolerance_s)
    rows = [_Row(image=color[i][1], depth=depth[k][1], time_s=times[i]) for i, k in pairs]
    matched = describe_matches(times, depth_times, pairs, ("images", "depth maps"))
    return rows, f"the times in {' and '.join(STAMP_FILES)}", [matched]


def _has_times(path: Path) -> bool:
    """Whether lines are time, file, time, file, and not two files."""
    columns = next((columns for _, columns in read_rows(str(path), ("image", "depth"))), [])
    return len([part for column in columns for part in column.split()]) >= 4


def _make_frames(root: Path, rows: Sequence[_Row], name: str) -> tuple[list[Frame], list[Path]]:
    """The frames whose files exist, and the first missing file of each of the others."""
    frames, gone = [], []
    times = plain_times([row.time_s for row in rows])
    for i, row in enumerate(rows):
        image, depth = root / expand_path(row.image), root / expand_path(row.depth)
        missing = [file for file in (image, depth) if not is_file(file)]
        if missing:
            gone.append(missing[0])
        else:
            time_s = times[i] if times else None
            frames.append(Frame(recording=name, stem=image.stem, time_s=time_s, image=image, depth=depth))
    return frames, gone


def _describe_left(frames: Sequence[Frame]) -> Iterable[str]:
    """Which files next to those of the frames no line names."""
    images, depths = {frame.image for frame in frames}, {frame.depth for frame in frames}
    for kind, paths, others in (("image", images, depths), ("depth map", depths, images)):
        suffixes, folders = {path.suffix for path in paths}, {path.parent for path in paths}
        if {path.parent for path in others} & folders:
            continue  # names alone do not tell the two apart in one folder
        near = [folder / name for folder in sorted(folders) for name in sorted(os.listdir(folder))]  # noqa: PTH208 - quick
        left = [path for path in near if path.suffix in suffixes and path not in paths]
        if left:
            yield f"left over, which no line names: {count_noun(len(left), kind)}, {list_names(left)}"
