"""The frames that are done, noted one by one in a hidden folder, so that a later call goes on where one stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from finetune.prepare.file_lock import open_locked
from finetune.prepare.frame_record import FrameRecord
from finetune.utils.errors import FileFault
from finetune.utils.files import remove
from finetune.utils.paths import make_folder, path_exists

_NAME = "frames.jsonl"


def unfinished_folder(output: Path) -> Path:
    """The hidden folder next to the output, in which a call writes until all is done."""
    return output.with_name(f".{output.name}.preparing")


class Journal:
    """What ``unfinished_folder`` holds of the frames that are done.

    It holds the folder that becomes the output, and a file with a line for the request and one for each frame.

    Attributes:
        folder: the hidden folder.
        content: the folder in it that becomes the output.
        records: the frames that are done, by index.
    """

    def __init__(self, output: Path, request: Mapping[str, object]) -> None:
        """
        Args:
            output: the folder that will be made.
            request: what decides the frames, as JSON takes it.
        """
        self.folder = unfinished_folder(output)
        self.content = self.folder / output.name
        self.records: dict[int, FrameRecord] = {}
        self._request = json.loads(json.dumps(request))
        self._output = output
        self._made: list[Path] = []  # folders on the way to it, the innermost first
        self._file: IO[bytes] | None = None

    def open(self, *, overwrite: bool) -> None:
        """
        Take over what an earlier call with the same request has done, or begin.

        Args:
            overwrite: discard what was begun with another request.

        Raises:
            FileFault: another request was begun, or another process is at work on it.
            OSError: the folder cannot be made.
        """
        self._made = [folder for folder in self.folder.parents if not path_exists(folder)]
        make_folder(self.folder)
        self._file = open_locked(self.folder / _NAME, self._output, "preparing")
        request, records = self._read_lines()
        if request is not None and request != self._request:
            if not overwrite:
                self.close()  # not of this request: nothing of it may be discarded
                raise FileFault(
                    self._output,
                    f"was begun with other options or other files; what was done then is in {self.folder}",
                    "Call as before to go on, or add --overwrite to begin again",
                )
            request = None
        if request is None:
            remove(self.content)
            self._file.truncate(0)
            self._write(self._request)
            records = []
        make_folder(self.content)
        for unfinished in self.content.rglob(".*.writing"):  # of a call that was killed
            remove(unfinished)
        self.records = {record.index: record for record in records if self._is_there(record)}

    def add(self, record: FrameRecord) -> None:
        """
        Note a frame whose files are written.

        Raises:
            OSError: it cannot be written.
        """
        self.records[record.index] = record
        self._write(record.to_mapping())

    def discard(self) -> None:
        """Remove all of it, and the folders that were made for it and are empty."""
        remove(self.folder)
        self.close()
        for folder in self._made:
            with suppress(OSError):  # the output is in it
                folder.rmdir()

    def discard_if_empty(self) -> None:
        """``discard`` if no frame is done: then no later call has a use for it."""
        if self._file is None or any(not record.left_out for record in self.records.values()):
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

    def _read_lines(self) -> tuple[object, list[FrameRecord]]:
        """The request, None where there is none, and the frames that were noted; what follows them is cut off."""
        assert self._file is not None, "opened first"
        self._file.seek(0)
        found: list[dict[str, object]] = []
        end = 0
        for line in self._file:
            try:
                found.append(json.loads(line))
            except ValueError:  # a killed call, or a power cut, leaves the last line unfinished
                break
            end += len(line)
        self._file.truncate(end)
        request = found[0] if found else None
        return request, [FrameRecord.from_mapping(record) for record in found[1:]]

    def _is_there(self, record: FrameRecord) -> bool:
        """Whether the files of a frame have the sizes that were noted: a power cut loses what was not synced."""
        files = (
            (record.image, record.image_bytes),
            (record.depth, record.depth_bytes),
            (record.confidence, record.confidence_bytes),
        )
        return bool(record.left_out) or all(
            path_exists(self.content / name) and (self.content / name).stat().st_size == size
            for name, size in files
            if name
        )

    def _write(self, content: Mapping[str, object]) -> None:
        assert self._file is not None, "opened first"
        self._file.write(json.dumps(content).encode() + b"\n")
        self._file.flush()
