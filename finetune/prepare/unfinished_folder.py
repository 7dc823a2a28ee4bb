"""The hidden folder next to an output, in which a call writes until all is done, so that a later call goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from finetune.prepare.file_lock import open_locked
from finetune.utils.errors import FileFault
from finetune.utils.files import remove
from finetune.utils.paths import make_folder, path_exists

# What is done with an output; the end of the hidden folder's name.
PREPARING, PACKING = "preparing", "packing"


def unfinished_folder(output: Path, doing: str) -> Path:
    """The hidden folder of an output."""
    return output.with_name(f".{output.name}.{doing}")


class UnfinishedFolder:
    """
    A hidden folder that one process at a time has, and the request that decides what is written in it.

    Attributes:
        folder: the hidden folder.
        content: the folder in it that becomes the output.
    """

    def __init__(self, output: Path, request: Mapping[str, object], *, doing: str, begun: str) -> None:
        """
        Args:
            output: the folder that will be made.
            request: what decides its content, as JSON takes it.
            doing: what is done with it.
            begun: for the error where another request was begun: by what.
        """
        self.folder = unfinished_folder(output, doing)
        self.content = self.folder / output.name
        self._output = output
        self._request = json.loads(json.dumps(request))
        self._doing = doing
        self._begun = begun
        self._made: list[Path] = []  # folders on the way to it, the innermost first
        self._file: IO[bytes] | None = None

    def discard(self) -> None:
        """Remove all of it, and the folders that were made for it and are empty."""
        remove(self.folder)
        self.close()
        for folder in self._made:
            with suppress(OSError):  # the output is in it
                folder.rmdir()

    def discard_if_empty(self) -> None:
        """``discard`` if nothing in it is done: then no later call has a use for it."""
        if self._file is None or self._holds_something():
            return
        # If the disk is gone, this fails too, and must not hide the first error.
        with suppress(OSError):
            self.discard()

    def close(self) -> None:
        """Let another process have it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _holds_something(self) -> bool:
        raise NotImplementedError

    def _lock(self, name: str) -> IO[bytes]:
        """
        Make the folder, and lock a file in it.

        Raises:
            FileFault: another process is at work on it.
            OSError: the folder cannot be made.
        """
        self._made = [folder for folder in self.folder.parents if not path_exists(folder)]
        make_folder(self.folder)
        self._file = open_locked(self.folder / name, self._output, self._doing)
        return self._file

    def _goes_on(self, found: object, *, overwrite: bool) -> bool:
        """
        Args:
            found: the request that was begun; None where there is none.
            overwrite: discard what was begun with another request.

        Returns:
            Whether the content is of this request; if not, it was removed.

        Raises:
            FileFault: another request was begun, and it may not be discarded.
        """
        if found is not None and found == self._request:
            return True
        if found is not None and not overwrite:
            self.close()  # not of this request: nothing of it may be discarded
            raise FileFault(
                self._output,
                f"was begun {self._begun}; what was done then is in {self.folder}",
                "Call as before to go on, or add --overwrite to begin again",
            )
        remove(self.content)
        return False
