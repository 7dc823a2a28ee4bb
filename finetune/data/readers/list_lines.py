"""Read the columns of text files: lists of frames, splits, recordings, images to predict and known distances."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence

from finetune.utils.errors import ListError
from finetune.utils.paths import require_regular

# Not shlex: a quote counts only around a whole column, and a backslash is part of a path, as on Windows. Only ASCII
# white space separates columns, since a name may contain a no-break or an ideographic space.
_COLUMN = re.compile(r""""([^"]+)"(?=\s|$)|'([^']+)'(?=\s|$)|(\S+)""", re.ASCII)
_NUMBER = re.compile(r"[-+]?\d+\.?\d*(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_SPACES = " \t\v\f\r\n"
_SPACE = re.compile(f"[{_SPACES}]+")
_WORD = re.compile(r"[A-Za-z][\w ()\[\]-]*")
# Endings of a column's name that add nothing, as in image_path and depth file.
_OF_FILES = re.compile(r"_?(path|file|filename|filepath|name|px|m)$")
# Other names that a header may use for a column.
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
        path: text in UTF-8, or in UTF-16 as PowerShell writes it. Columns are separated by white space, by tabs alone
            if a line has one, or by commas or semicolons as in CSV; a path with spaces may be quoted. Blank lines and
            lines that begin with ``#`` are skipped. The first line may be a header that names the columns.
        names: of the columns that are wanted, in their order in a file without a header.
        optional: further columns, appended if the header names all of them.
        fix: what to do if the file is not such a list; None: what fits most lists.

    Returns:
        (line number, columns) of each line. If there is a header, they are the wanted columns in the order of
        ``names``; else all columns as they come, which may be fewer than names.

    Raises:
        ListError: the file cannot be read, its header lacks one of ``names``, or a line has fewer columns than the
            header; names the line.
    """
    split: Callable[[str], list[str]] | None = None
    wanted: list[int] | None = None
    for number, line in _read_lines(path, fix):
        if split is None:
            split = _choose_splitter(line, path)
            header = split(line)
            if _is_header(header, names, split is not _split_by_space):
                wanted = _find_columns(header, names, f"{path}:{number}", fix)
                others = [_find_column(header, name) for name in optional]
                wanted += [] if None in others else [column for column in others if column is not None]
                continue
        columns = split(line)
        if wanted is None:
            yield number, columns
            continue
        if len(columns) <= max(wanted):
            expected = fix or f"Write a value for each of {', '.join(names)}"
            raise ListError(f"{path}:{number}", f"has fewer columns than the header, {line!r}", expected)
        yield number, [columns[i] for i in wanted]


def _read_lines(path: str, fix: str | None) -> Iterator[tuple[int, str]]:
    """(number, line) of each line that is neither blank nor a comment. It is a generator: a list may have millions.

    Raises:
        ListError: the file cannot be read.
    """
    try:
        require_regular(path)
        with open(path, "rb") as raw:  # noqa: PTH123 - like require_regular, it takes what Path refuses
            encoding = "utf-16" if raw.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        number = 0
        # open() ends lines as on Unix, Windows or the old Mac; splitlines() also at form feeds and Unicode separators.
        with open(path, encoding=encoding) as file:  # noqa: PTH123
            for text in file:
                # Those separators are not printable, so most lines need no search for them.
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


def _choose_splitter(first: str, path: str) -> Callable[[str], list[str]]:
    """The function that splits the lines of a list into columns, chosen by its first line."""
    if "\t" in first:
        return _split_by_space
    columns = _split_by_space(first)
    for mark in (",", ";"):
        fields = _split_by_mark(first, mark)
        # A comma may be part of a path, but hardly its last character, and hardly comes between a path and a number.
        is_csv = (
            path.lower().endswith(".csv")
            or len(columns) == 1
            or columns[0].endswith(mark)
            or f'"{mark}' in first
            or (is_number(fields[-1]) and not is_number(columns[-1]))
            or all(map(_WORD.fullmatch, fields))
        )
        if len(fields) > 1 and is_csv:
            return lambda line: _split_by_mark(line, mark) if mark in line else _split_by_space(line)
    return _split_by_space


def is_number(text: str) -> bool:
    """Whether a column holds a number and no path."""
    return _NUMBER.fullmatch(text) is not None


def _split_by_mark(line: str, mark: str) -> list[str]:
    (fields,) = csv.reader([line], delimiter=mark, skipinitialspace=True)
    return [field.strip(_SPACES).strip("'") for field in fields]


def _split_by_space(line: str) -> list[str]:
    if "\t" in line:
        return [column.strip(_SPACES).strip("\"'") for column in line.split("\t") if column.strip(_SPACES)]
    if '"' in line or "'" in line:
        return ["".join(groups) for groups in _COLUMN.findall(line)]
    return line.split() if line.isascii() else _SPACE.split(line)


def _is_header(columns: Sequence[str], names: Sequence[str], is_csv: bool) -> bool:
    """Whether a line names columns: all are words, neither path nor number, and with spaces two are wanted."""
    if not all(map(_WORD.fullmatch, columns)):
        return False
    found = sum(_find_column(columns, name) is not None for name in names)
    return found >= (1 if is_csv else min(2, len(names)))


def _find_columns(header: Sequence[str], names: Sequence[str], source: str, fix: str | None) -> list[int]:
    columns = [_find_column(header, name) for name in names]
    for name, column in zip(names, columns, strict=True):
        if column is None:
            found = f"the header names {', '.join(header)}, and no {name}"
            raise ListError(source, found, fix or f"Name the column {name}")
    return [column for column in columns if column is not None]


def _find_column(header: Sequence[str], name: str) -> int | None:
    """Index of a column, by its own name before others that mean the same; None if the header has none of them."""
    words = [re.sub(r"\W+", "_", word.lower()).strip("_") for word in header]
    for wanted in (name, *_ALIASES.get(name, ())):
        for i, word in enumerate(words):
            if wanted in (word, _OF_FILES.sub("", word)):
                return i
    return None
