"""The folder of the labels: begun once, filled by any number of processes, and completed by the one that ends last.

Each finished image leaves a line of its own in a hidden folder, written after its files, so that a later call, or
another process, sees what is done. There is no lock: a file gets its name only when it is whole, and two processes that
do the same image write the same bytes.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from finetune.data.label_files import SUMMARY, TABLE
from finetune.inference.pseudo_labels.label_table import LabelRow, format_table
from finetune.utils.errors import FileFault
from finetune.utils.files import move_into_place, remove
from finetune.utils.paths import is_file, is_folder, list_folder, path_exists

LABELS, CONFIDENCE, IMAGES = "labels", "confidence", "images"
_AT_WORK = ".labeling"  # in the folder, until it is complete


@dataclass(frozen=True, kw_only=True)
class VideoFramesDone:
    """The frames of a video that were labeled; ``refused`` says why there is none."""

    numbers: tuple[int, ...]
    refused: str = ""


@dataclass(kw_only=True)
class LabelFolder:
    """A folder of labels.

    Attributes:
        folder: its path.
        request: what decides the labels, as JSON takes it; ``labels.json`` begins with it.
        is_complete: the folder has a label, or the reason why there is none, for each input.
    """

    folder: Path
    request: Mapping[str, object]
    is_complete: bool = field(default=False, init=False)

    @property
    def _hidden(self) -> Path:
        return self.folder / _AT_WORK

    def open(self) -> None:
        """
        Begin, or go on with what an earlier call or another process did with the same request.

        Raises:
            FileFault: the folder holds something else, or was begun with another request.
            OSError: it cannot be made.
        """
        begun = self._read_json(self._hidden / "request.json")
        done = self._read_json(self.folder / SUMMARY)
        fix = "Name another folder as --output, call as before, or add --overwrite to make it again"
        if done is not None:
            if {name: done.get(name) for name in self.request} != self._plain_request():
                raise FileFault(self.folder, f"was made {self._name_difference(done)}", fix)
            self.is_complete = True
            self._discard_hidden()  # a call may have ended just before it did
        elif begun is not None:
            if begun != self._plain_request():
                raise FileFault(self.folder, f"was begun {self._name_difference(begun)}", fix)
        else:
            require_output(self.folder)
            self._write(self._hidden / "request.json", json.dumps(self.request, indent=1) + "\n")

    def discard(self) -> None:
        """
        Remove what ``finetune label`` wrote, for ``--overwrite``.

        Raises:
            FileFault: the folder holds something else.
            OSError: it cannot be removed.
        """
        require_output(self.folder)
        for name in (SUMMARY, TABLE, LABELS, CONFIDENCE, IMAGES, _AT_WORK):
            remove(self.folder / name)

    def has(self, name: str) -> bool:
        """Whether an image, a frame of a video (``VIDEO/000000``) or a whole video is done."""
        return self.is_complete or is_file(self._row_file(name))

    def add(self, name: str, row: LabelRow, files: Mapping[str, bytes]) -> None:
        """
        Write the files of a label, by their paths in the folder, and then its line.

        Raises:
            OSError: they cannot be written.
        """
        for path, content in files.items():
            self._write(self.folder / path, content)
        self._write(self._row_file(name), row.to_json())

    def end_video(self, name: str, done: VideoFramesDone) -> None:
        """
        Note that all frames of a video are done.

        Raises:
            OSError: it cannot be written.
        """
        self._write(self._row_file(name), json.dumps({"numbers": done.numbers, "refused": done.refused}) + "\n")

    def count_left(self, names: Iterable[str]) -> int:
        """How many of these inputs are not done."""
        left = sum(not self.has(name) for name in names)
        # Another process may have completed it while this one counted, and removed what it looks at.
        self.is_complete = self.is_complete or is_file(self.folder / SUMMARY)
        return 0 if self.is_complete else left

    def finish(self, inputs: Sequence[tuple[str, str, bool]]) -> Mapping[str, object] | None:
        """
        Write the table and ``labels.json`` if all inputs are done.

        Args:
            inputs: name, absolute path, and whether it is a video, of all inputs of all processes and shards.

        Returns:
            ``labels.json``; None where another shard has still something to do.

        Raises:
            OSError: a file cannot be written.
        """
        if not self.is_complete and not self._finish_rows(inputs):
            # Another process may have completed it meanwhile, and removed the lines.
            self.is_complete = is_file(self.folder / SUMMARY)
        return self._read_json(self.folder / SUMMARY) if self.is_complete else None

    def _finish_rows(self, inputs: Sequence[tuple[str, str, bool]]) -> bool:
        """Whether all lines are there: then they are the table now."""
        counts = {"labels": 0, "refused": 0}

        def count(rows: Iterable[LabelRow]) -> Iterator[LabelRow]:
            for row in rows:
                counts["refused" if row.refused else "labels"] += 1
                yield row

        teacher, anchor = self.request["teacher"], self.request["anchor"]
        assert isinstance(teacher, dict) and isinstance(anchor, str)
        unfinished = self._new_file()
        try:
            with unfinished.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                rows = count(self._rows(inputs))
                file.writelines(format_table(rows, teacher=str(teacher["digest"]), anchor=anchor))
            move_into_place(unfinished, self.folder / TABLE)
        except FileNotFoundError:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            return False
        # Write it last: its presence says that the folder is complete.
        self._write(self.folder / SUMMARY, json.dumps({**self.request, **counts}, indent=1) + "\n")
        self.is_complete = True
        self._discard_hidden()
        return True

    def _rows(self, inputs: Sequence[tuple[str, str, bool]]) -> Iterator[LabelRow]:
        """
        Raises:
            FileNotFoundError: an input is not done.
        """
        for name, path, is_video in inputs:
            text = self._row_file(name).read_text(encoding="utf-8")
            if not is_video:
                yield LabelRow.from_json(text)
                continue
            done = json.loads(text)
            if done["refused"]:
                yield LabelRow(image=path, refused=done["refused"])
            for number in done["numbers"]:
                yield LabelRow.from_json(self._row_file(frame_name(name, number)).read_text(encoding="utf-8"))

    def _row_file(self, name: str) -> Path:
        return self._hidden / "rows" / f"{name}.json"

    def _new_file(self) -> Path:
        """A name that no other process has."""
        path = self._hidden / "unfinished" / uuid.uuid4().hex
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write(self, path: Path, content: str | bytes) -> None:
        """Write a file whole or not at all; a killed call leaves its half in the hidden folder."""
        unfinished = self._new_file()
        unfinished.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
        path.parent.mkdir(parents=True, exist_ok=True)
        move_into_place(unfinished, path)

    def _discard_hidden(self) -> None:
        shutil.rmtree(self._hidden, ignore_errors=True)

    def _read_json(self, path: Path) -> dict[str, object] | None:
        """
        Raises:
            FileFault: it is not what this command writes.
        """
        try:
            found = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise FileFault(path, "is damaged", "Add --overwrite to make the folder again")
        return found

    def _plain_request(self) -> dict[str, object]:
        """The request as JSON gives it back: with lists for tuples."""
        plain: dict[str, object] = json.loads(json.dumps(self.request))
        return plain

    def _name_difference(self, found: Mapping[str, object]) -> str:
        """In which keys another request differs."""
        names = [name for name, value in self._plain_request().items() if found.get(name) != value]
        return f"with another {' and another '.join(names)}"


def require_output(folder: Path) -> None:
    """
    Args:
        folder: where the labels go.

    Raises:
        FileFault: something is there that ``finetune label`` did not write.
    """
    if not path_exists(folder) or is_file(folder / SUMMARY):
        return
    if not is_folder(folder):
        raise FileFault(folder, "is a file", "Name a folder as --output")
    ours = (SUMMARY, TABLE, LABELS, CONFIDENCE, IMAGES) if path_exists(folder / _AT_WORK) else ()
    if any(path.name not in (_AT_WORK, *ours) for path in list_folder(folder)):
        found = "exists and holds files that finetune label did not write"
        raise FileFault(folder, found, "Name another folder as --output")


def frame_name(video: str, number: int) -> str:
    """The name of a frame of a video, from 0."""
    return f"{video}/{number:06d}"
