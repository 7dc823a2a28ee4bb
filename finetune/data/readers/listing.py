"""Which image belongs to which depth map, by list files and folders, without opening any frame."""

from __future__ import annotations

import os
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune.data.reader import Reader
from finetune.data.readers.arrays import ARCHIVE_SUFFIXES, holds_several
from finetune.data.readers.list_lines import is_number, read_rows
from finetune.utils.errors import ListError, RecipeError
from finetune.utils.paths import expand_path, if_closed, is_file, is_folder, list_folder, missing, path_exists

# Names of the first two columns of a list.
PATHS = ("image", "depth")
_FIX = "Write `image depth`, two paths a line; quotes around a path with spaces, or a tab between the two"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Image and depth file of every frame, always in the same order.

    Attributes:
        pairs: (image, depth), below the two roots unless absolute.
        image_root, depth_root: folders that the paths start from.
        list_path: the list file that names the frames, if there is one.
        lines: for each frame, its line in that file.
    """

    pairs: list[tuple[str, str]]
    image_root: str
    depth_root: str
    list_path: str | None = None
    lines: array[int] = field(default_factory=lambda: array("L"))

    @classmethod
    def of_list(cls, path: str, rows: Iterable[tuple[int, str, str]], image_root: str, depth_root: str) -> Listing:
        """
        Args:
            path: the list file.
            rows: (line, image, depth) of its frames.
            image_root, depth_root: folders that the paths start from.

        Raises:
            ListError: there is no frame, or the image and the depth of one are the same path.
        """
        pairs: list[tuple[str, str]] = []
        lines = array("L")
        for line, image, depth in rows:
            # An archive may hold both arrays; reading the frame shows whether it does.
            if image == depth and image_root == depth_root and not image.lower().endswith(ARCHIVE_SUFFIXES):
                fix = "Name the file of each"
                raise ListError(f"{path}:{line}", f"its image and its depth map are one file, {image}", fix)
            pairs.append((image, depth))
            lines.append(line)
        if not pairs:
            raise ListError(path, "names no frame", _FIX)
        return cls(pairs=pairs, image_root=image_root, depth_root=depth_root, list_path=path, lines=lines)

    def __len__(self) -> int:
        return len(self.pairs)

    def depth_path(self, index: int) -> str:
        """The depth file of a frame, which may not exist."""
        return str(Path(self.depth_root, expand_path(self.pairs[index][1])))

    def files(self, index: int) -> tuple[str, str]:
        """
        Returns:
            The image and the depth file of a frame; both exist.

        Raises:
            ListError: one of them is missing, or both are one file; names the line of the list.
        """
        image_path = str(Path(self.image_root, expand_path(self.pairs[index][0])))
        depth_path = self.depth_path(index)
        for path in (image_path, depth_path):
            if path_exists(path):
                continue
            found = "does not exist" if (why := missing(path)) == "no such file" else f"cannot be found: {why}"
            if self.list_path is None:
                raise ListError(path, found, "Restore it, or name the frames you have in a list file")
            fix = "Correct the line, or the folder its paths start from"
            raise ListError(self.place(index), f"{path} {found}", fix)
        require_other_file(image_path, depth_path, self.place(index), "its image and its depth map")
        return image_path, depth_path

    def place(self, index: int) -> str:
        """Where a user finds the frame: its line of the list, or else its depth map."""
        return self.depth_path(index) if self.list_path is None else f"{self.list_path}:{self.lines[index]}"


def require_other_file(path: str | Path, other: str | Path, place: str, what: str) -> None:
    """
    Args:
        path, other: two files that exist.
        place: where a user finds them named.
        what: what they are meant to be, such as "its image and its depth map".

    Raises:
        ListError: they are one file, by name or by links, and not an archive of several arrays.
    """
    if same_file(path, other):
        if str(path).lower().endswith(ARCHIVE_SUFFIXES) and holds_several(path):
            return
        raise ListError(place, f"{what} are one file, {path}", "Name the file of each")


def same_file(path: str | Path, other: str | Path) -> bool:
    """Whether two paths lead to one file, also by links; False if one cannot be found."""
    try:
        return os.path.samefile(path, other)  # noqa: PTH121 - Path.samefile raises for what is not a path
    except (OSError, ValueError):
        return False


class ListedFrames(Reader):
    """A reader of files: it makes its listing at first use, as ``_listing``."""

    @property
    @abstractmethod
    def _listing(self) -> Listing:
        """The frames; a reader makes it once, as a cached property."""

    def __len__(self) -> int:
        return len(self._listing)

    def source(self, index: int) -> str:
        """The depth file of a frame, not opened."""
        return self._listing.depth_path(index)

    def files(self, index: int) -> tuple[str, str] | None:
        """
        The image and the depth file of a frame, not opened.

        Raises:
            ListError: one of them is missing.
        """
        return self._listing.files(index)


def locate(root: str, name: str) -> str:
    """The path of a file that a recipe names: below ``root`` if it exists there, else from the current directory."""
    below = expand_path(root) / name
    return str(below if path_exists(below) else expand_path(name))


def require_folder(key: str, value: str) -> None:
    """
    Raises:
        RecipeError: the value of ``key`` is not an existing folder.
    """
    if not is_folder(expand_path(value)):
        closed = if_closed(expand_path(value))
        start = f"here {expand_path(value)}" if value.startswith("~") else f"from {Path.cwd()} unless it starts with /"
        raise RecipeError(key, value, f"an existing folder ({start}){closed}")


def require_file(key: str, root: str, name: str) -> None:
    """
    Raises:
        RecipeError: the value of ``key`` is not an existing file, below ``root`` or from the current directory.
    """
    if not is_file(found := locate(root, name)):
        other = f"; {found} {missing(found)}" if path_exists(found) else ""
        raise RecipeError(key, name, f"an existing file, {describe_places(root, name)}{other}")


def require_folder_below(key: str, root: str, name: str) -> None:
    """
    Raises:
        RecipeError: the value of ``key`` is not an existing folder below ``root``.
    """
    path = expand_path(root) / expand_path(name)
    if not is_folder(path):
        raise RecipeError(key, name, f"an existing folder below {root}{if_closed(path)}")


def describe_places(root: str, name: str) -> str:
    """Where ``locate`` looked for a file in vain, and which folder there may not be entered."""
    closed = if_closed(expand_path(root) / name) or if_closed(expand_path(name))
    return f"below {root} or from {Path.cwd()}{closed}"


def list_entries(folder: str | Path) -> list[Path]:
    """
    Returns:
        The paths in a folder, sorted by name.

    Raises:
        ListError: it cannot be listed.
    """
    try:
        return list_folder(folder)
    except OSError as error:
        raise _not_listed(folder, error) from None


def list_tree(root: Path) -> list[Path]:
    """
    Returns:
        All paths below a folder, sorted. ``Path.rglob`` would leave out what is in a closed folder without a word.

    Raises:
        ListError: a folder cannot be listed.
    """
    found: list[Path] = []
    for folder, folders, files in os.walk(root, onerror=raise_closed):
        found += [Path(folder, name) for name in (*folders, *files)]
    return sorted(found)


def raise_closed(error: OSError) -> None:
    """
    For ``os.walk``, which leaves out what it may not list. Folders of the system, at the root of a disk, are left out.

    Raises:
        ListError: names the folder.
    """
    name = Path(os.fsdecode(error.filename)).name
    if name != "lost+found" and not name.startswith((".", "$")):
        raise _not_listed(error.filename, error) from None


def _not_listed(folder: str | Path, error: OSError) -> ListError:
    return ListError(folder, f"cannot be listed ({error.strerror})", "Make it a folder that this user may read")


def read_list(path: str) -> Iterator[tuple[int, str, str]]:
    """
    Args:
        path: text that ``read_rows`` reads, with a frame per line: image, depth, and further columns that are ignored
            (lists of BTS have the focal length there).

    Returns:
        (line number, image, depth), in the order of the file.

    Raises:
        ListError: the file cannot be read, or a line is not of this form; names the line.
    """
    for number, (image, depth, *_) in read_columns(path, PATHS):
        yield number, image, depth


def read_columns(path: str, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """
    Args:
        path, names: see ``read_rows``; the first two names are ``PATHS``.

    Returns:
        (line number, columns), in the order of the file; the first two columns are paths.

    Raises:
        ListError: the file cannot be read, or a line does not begin with two paths; names the line.
    """
    for number, columns in read_rows(path, names):
        if len(columns) < 2:
            raise ListError(f"{path}:{number}", f"has one column, {columns[0]!r}", _FIX)
        image, depth = columns[:2]
        if not image or not depth:
            raise ListError(f"{path}:{number}", f"lacks {'a depth map' if image else 'an image'}", _FIX)
        if is_number(image) or is_number(depth):
            raise ListError(f"{path}:{number}", f"has a number where a path belongs, {' '.join(columns)!r}", _FIX)
        yield number, columns
