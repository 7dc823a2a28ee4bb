"""The lists of a recording in the layout of TUM RGB-D: time stamps and files, or the pairs that a program made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finetune.data.readers.list_lines import read_rows
from finetune.utils.errors import ListError

# The file that the tool of the data set's authors writes, and the two that it reads.
PAIRS_FILE = "associations.txt"
STAMP_FILES = ("rgb.txt", "depth.txt")
_COLUMNS = ("timestamp", "filename")
_PAIR_COLUMNS = ("color_timestamp", "color", "depth_timestamp", "depth")


@dataclass(frozen=True, kw_only=True)
class Association:
    """A line of ``associations.txt``: two files with their times in seconds, and its number from 1."""

    line: int
    color_s: float
    color: str
    depth_s: float
    depth: str


def read_associations(path: str) -> list[Association]:
    """
    Args:
        path: of a file with time, color, time, depth per line, or depth first.

    Raises:
        ListError: it cannot be read, or a line is malformed; names the line.
    """
    return [_parse_pair(path, number, columns) for number, columns in _read_columns(path, _PAIR_COLUMNS)]


def read_stamps(path: str) -> list[tuple[float, str]]:
    """
    Returns:
        (seconds, file) of each line.

    Raises:
        ListError: the list cannot be read, or a line is malformed; names the line.
    """
    return [(_parse_seconds(path, number, columns[0]), columns[1]) for number, columns in _read_columns(path, _COLUMNS)]


def _parse_pair(path: str, number: int, columns: list[str]) -> Association:
    """Programs write either of the two first; a name with depth in it tells."""
    first_s, second_s = (_parse_seconds(path, number, columns[i]) for i in (0, 2))
    first, second = columns[1], columns[3]
    if "depth" in first.lower() and "depth" not in second.lower():
        return Association(line=number, color_s=second_s, color=second, depth_s=first_s, depth=first)
    return Association(line=number, color_s=first_s, color=first, depth_s=second_s, depth=second)


def _parse_seconds(path: str, number: int, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ListError(f"{path}:{number}", f"{text!r} is no time stamp", "Write seconds, then the file") from None


def _read_columns(path: str, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(line number, columns) of each line; a line has as many columns as names, or more."""
    for number, row in read_rows(path, names, fix="Restore it from the recording"):
        columns = [part for column in row for part in column.split()]  # a line may mix tabs and spaces
        if len(columns) < len(names):
            found = f"has {len(columns)} columns, {' '.join(columns)!r}"
            raise ListError(f"{path}:{number}", found, f"Write {len(names)}: time and file of each")
        yield number, columns
