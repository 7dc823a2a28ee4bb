"""The frames that are done, noted one by one in a hidden folder, so that a later call goes on where one stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from finetune.prepare.frame_record import FrameRecord
from finetune.prepare.unfinished_folder import PREPARING, UnfinishedFolder
from finetune.utils.files import remove
from finetune.utils.paths import make_folder, path_exists

_NAME = "frames.jsonl"


class Journal(UnfinishedFolder):
    """The frames that are done: a file with a line for the request and one for each frame.

    Attributes:
        records: the frames that are done, by index.
    """

    def __init__(self, output: Path, request: Mapping[str, object]) -> None:
        """
        Args:
            output: the folder that will be made.
            request: what decides the frames, as JSON takes it.
        """
        super().__init__(output, request, doing=PREPARING, begun="with other options or other files")
        self.records: dict[int, FrameRecord] = {}

    def open(self, *, overwrite: bool) -> None:
        """
        Take over what an earlier call with the same request has done, or begin.

        Args:
            overwrite: discard what was begun with another request.

        Raises:
            FileFault: another request was begun, or another process is at work on it.
            OSError: the folder cannot be made.
        """
        file = self._lock(_NAME)
        request, records = self._read_lines()
        if not self._goes_on(request, overwrite=overwrite):
            file.truncate(0)
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

    def _holds_something(self) -> bool:
        return any(not record.left_out for record in self.records.values())

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
