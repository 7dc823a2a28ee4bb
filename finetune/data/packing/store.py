"""Files of a packed entry: in a local folder, or wherever ``fsspec`` opens them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from finetune.data.packing.zstd import INSTALL
from finetune.utils.errors import ListError, first_line
from finetune.utils.paths import expand_path, if_closed, is_file, list_folder, read_bytes, require_regular

_SCHEME = "://"


@dataclass(frozen=True)
class Store:
    """A folder, by its path or its URL. Making it opens nothing.

    Each read opens its file anew: a process of a loader shares no open file and no connection with the one that it was
    forked from, for which many libraries of object stores are not made.
    """

    root: str

    @property
    def is_local(self) -> bool:
        """Whether the root is a path."""
        return _SCHEME not in self.root

    def place(self, name: str) -> str:
        """The path or the URL of a file, for errors."""
        return str(expand_path(self.root) / name) if self.is_local else f"{self.root.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """
        The content of a file.

        Raises:
            ListError: it is missing or cannot be read.
        """
        if self.is_local:
            try:
                return read_bytes(self.place(name))
            except OSError as error:
                raise self._local_fault(name, error) from None
        return self._ask(name, lambda files, path: files.cat_file(path))

    def read_stretch(self, name: str, start: int, length: int) -> bytes:
        """
        The bytes from ``start``, ``length`` of them or fewer where the file ends.

        Raises:
            ListError: the file is missing or cannot be read.
        """
        if not self.is_local:
            return self._ask(name, lambda files, path: files.cat_file(path, start=start, end=start + length))
        try:
            require_regular(self.place(name))
            with open(self.place(name), "rb", buffering=0) as file:  # noqa: PTH123 - Path.open is slower
                file.seek(start)
                return file.read(length)
        except OSError as error:
            raise self._local_fault(name, error) from None

    def sizes(self) -> dict[str, int] | None:
        """
        Name -> bytes of each file; None where the store does not tell, as web servers.

        Raises:
            ListError: the folder is missing or cannot be listed.
        """
        if self.is_local:
            try:
                return {path.name: path.stat().st_size for path in list_folder(expand_path(self.root)) if is_file(path)}
            except OSError as error:
                raise self._local_fault("", error) from None
        if self.root.startswith(("http://", "https://")):
            return None
        found = self._ask("", lambda files, path: files.ls(path, detail=True, refresh=True))
        return {entry["name"].rstrip("/").rpartition("/")[2]: entry["size"] or 0 for entry in found}

    def _ask(self, name: str, question: Callable[[Any, str], Any]) -> Any:
        """What a file system of fsspec answers about a path; fsspec has no types."""
        place = self.place(name).rstrip("/")
        try:
            import fsspec
        except ImportError:
            raise ListError(place, "needs the package fsspec, which is not installed", INSTALL) from None
        try:
            # Made again for each question: fsspec keeps one for each process, and none across a fork.
            return question(*fsspec.core.url_to_fs(place))
        except Exception as error:
            # Each store has errors of its own; a missing file is FileNotFoundError in all of them.
            if isinstance(error, FileNotFoundError):
                raise _missing(place) from error
            fix = "Correct the URL, or install the package for it and log in as it asks"
            raise ListError(place, f"cannot be read ({first_line(error)})", fix) from error

    def _local_fault(self, name: str, error: OSError) -> ListError:
        place = self.place(name) if name else str(expand_path(self.root))
        if isinstance(error, FileNotFoundError):
            return _missing(place)
        fix = "Let this user read it"
        return ListError(place, f"cannot be read ({error.strerror}){if_closed(place)}", fix)


def _missing(place: str) -> ListError:
    return ListError(place, "does not exist", "Correct root, copy it again, or pack again")
