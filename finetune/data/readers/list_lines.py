"""The lines and columns of list files, read in one way by training, prediction and calibration."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence

from finetune.utils.errors import ListError
from finetune.utils.paths import require_regular

# A quote counts only around a whole column, and a backslash is a character of a path, as on Windows: not shlex. Only
# ASCII white space parts columns: a name may hold a no-break or an ideographic space.
_COLUMN = re.compile(r""""([^"]+)"(?=\s|$)|'([^']+)'(?=\s|$)|(\S+)""", re.ASCII)
_NUMBER = re.compile(r"[-+]?\d+\.?\d*(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_SPACES = " \t\v\f\r\n"
_SPACE = re.compile(f"[{_SPACES}]+")
_WORD = re.compile(r"[A-Za-z][\w ()\[\]-]*")
# Endings of a column's name that say nothing: image_path, depth file.
_OF_FILES = re.compile(r"_?(path|file|filename|filepath|name|px|m)$")
# The names of columns under which a header may give what is read, besides their own.
_ALIASES = {
    "image": ("img", "rgb", "color", "colour", "photo", "picture", "left", "input", ""),
    "depth": ("depth_map", "depthmap", "gt", "gt_depth", "depth_gt", "ground_truth", "groundtruth", "target", "label"),
    "mask": ("valid", "valid_mask", "depth_mask", "confidence", "conf"),
    "sky_mask": ("sky",),
    "meters": ("m", "distance", "depth", "z"),
}


def read_rows(
    path: str, names: Sequence[str], optional: Sequence[str] = (), fix: str | None = None
) -> Iterator[tuple[int, list[str]]]:
    """
    Args:
        path: text in UTF-8, or in UTF-16 as PowerShell writes it. Columns are parted by white space, by tabs where
            there is one, or by commas or semicolons as in CSV; a path with spaces may stand in quotes. Blank lines,
            and lines that begin with ``#``, are left out. The first line may be a header that names the columns.
        names: of the columns that are wanted, in the order in which they come without a header.
        optional: further ones, which follow if the header names all of them.
        fix: what to do about a file that cannot be read as such a list; None: what fits most lists.

    Returns:
        (line number, columns) of each line. Under a header they are the wanted ones, in the order of ``names``; without
        one all, as they come, of which there may be fewer than names.

    Raises:
        ListError: the file cannot be read, or its header lacks a name that is wanted; names the line.
    """
    split: Callable[[str], list[str]] | None = None
    places: list[int] | None = None
    for number, line in _lines(path, fix):
        if split is None:
            split = _splitter(line, path)
            header = split(line)
            if _is_header(header, names, split is not _by_space):
                places = _places(header, names, f"{path}:{number}", fix)
                others = [_place(header, name) for name in optional]
                places += [] if None in others else [place for place in others if place is not None]
                continue
        columns = split(line)
        if places is None:
            yield number, columns
            continue
        if len(columns) <= max(places):
            expected = fix or f"Write a value for each of {', '.join(names)}"
            raise ListError(f"{path}:{number}", f"has fewer columns than the header, {line!r}", expected)
        yield number, [columns[place] for place in places]


def _lines(path: str, fix: str | None) -> Iterator[tuple[int, str]]:
    """(number, line) of what is neither blank nor a comment, one by one: a list may have millions.

    Raises:
        ListError: the file cannot be read.
    """
    try:
        require_regular(path)
        with open(path, "rb") as raw:  # noqa: PTH123 - as require_regular, it takes what Path cannot be made of
            encoding = "utf-16" if raw.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        number = 0
        # Lines end as on Unix, Windows or the old Mac; splitlines() finds form feeds and the separators of Unicode.
        with open(path, encoding=encoding) as file:  # noqa: PTH123
            for text in file:
                # The separators are no printable characters; most lines are spared the search for them.
                text = text.rstrip("\n")
                for line in (text,) if text.isprintable() else text.splitlines():
                    number += 1
                    line = line.strip(_SPACES)
                    if line and line[0] != "#":
                        yield number, line
    except UnicodeError:
        raise ListError(path, "is not UTF-8 text", fix or "Save the list as UTF-8") from None
    except OSError as error:
        expected = fix or "Name a text file that can be read"
        raise ListError(path, f"cannot be read ({error.strerror})", expected) from None


def _splitter(first: str, path: str) -> Callable[[str], list[str]]:
    """What parts the columns of a list, told from its first line."""
    if "\t" in first:
        return _by_space
    columns = _by_space(first)
    for mark in (",", ";"):
        fields = _by_mark(first, mark)
        # A comma may be a character of a path, but hardly its last one, or one between a path and a number.
        is_csv = (
            path.lower().endswith(".csv")
            or len(columns) == 1
            or columns[0].endswith(mark)
            or f'"{mark}' in first
            or (is_number(fields[-1]) and not is_number(columns[-1]))
            or all(map(_WORD.fullmatch, fields))
        )
        if len(fields) > 1 and is_csv:
            return lambda line: _by_mark(line, mark) if mark in line else _by_space(line)
    return _by_space


def is_number(text: str) -> bool:
    """Whether a column holds a number and no path."""
    return _NUMBER.fullmatch(text) is not None


def _by_mark(line: str, mark: str) -> list[str]:
    (fields,) = csv.reader([line], delimiter=mark, skipinitialspace=True)
    return [field.strip(_SPACES).strip("'") for field in fields]


def _by_space(line: str) -> list[str]:
    if "\t" in line:
        return [column.strip(_SPACES).strip("\"'") for column in line.split("\t") if column.strip(_SPACES)]
    if '"' in line or "'" in line:
        return ["".join(groups) for groups in _COLUMN.findall(line)]
    return line.split() if line.isascii() else _SPACE.split(line)


def _is_header(columns: Sequence[str], names: Sequence[str], is_csv: bool) -> bool:
    """Whether a line names columns: words that are no path and no number; parted by spaces, two that are wanted."""
    if not all(map(_WORD.fullmatch, columns)):
        return False
    found = sum(_place(columns, name) is not None for name in names)
    return found >= (1 if is_csv else min(2, len(names)))


def _places(header: Sequence[str], names: Sequence[str], source: str, fix: str | None) -> list[int]:
    places = [_place(header, name) for name in names]
    for name, place in zip(names, places, strict=True):
        if place is None:
            found = f"the header names {', '.join(header)}, and no {name}"
            raise ListError(source, found, fix or f"Name the column {name}")
    return [place for place in places if place is not None]


def _place(header: Sequence[str], name: str) -> int | None:
    """Where a column stands, by its own name before others that mean the same."""
    words = [re.sub(r"\W+", "_", word.lower()).strip("_") for word in header]
    for wanted in (name, *_ALIASES.get(name, ())):
        for place, word in enumerate(words):
            if wanted in (word, _OF_FILES.sub("", word)):
                return place
    return None
