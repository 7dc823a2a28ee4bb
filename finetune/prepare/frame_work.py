"""What a worker process does: load a frame and write it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune.prepare.depth_unit import DepthRange
from finetune.prepare.frame_record import FrameRecord
from finetune.prepare.recording import FrameLeftOut, FrameSource
from finetune.prepare.writer import DepthLimits, keep_depth, write_depth, write_frame
from finetune.utils.errors import FileFault
from finetune.utils.files import explain_write_errors

UNREADABLE = "they cannot be read"
NO_USE = "the recording has no use for them"


@dataclass(frozen=True, kw_only=True)
class FrameTask:
    """A frame to load and write.

    Attributes:
        index, name: of the frame.
        known: the range of frames that are written.
        record: of the frame, if its image is written, and only its depth has to be written again, in the unit of
            ``known``; else None.
    """

    index: int
    name: str
    known: DepthRange
    record: FrameRecord | None = None


@dataclass(frozen=True, kw_only=True)
class FrameWork:
    """Loads and writes frames; pickled into the processes.

    Attributes:
        source: of the frames.
        folder: to write into.
        output: the folder that errors name.
        limits: of the depth that is kept.
        skip_bad: leave out frames that cannot be read.
    """

    source: FrameSource
    folder: Path
    output: Path
    limits: DepthLimits
    skip_bad: bool = False

    def __call__(self, task: FrameTask) -> FrameRecord:
        """
        The record of the frame, which is written or left out.

        Raises:
            DataError: it cannot be read, unless ``skip_bad``.
            FileFault: it cannot be written.
        """
        try:
            frame = self.source.load_frame(task.index)
        except FrameLeftOut as reason:
            return FrameRecord(index=task.index, source=task.name, left_out=str(reason))
        except FileFault as fault:
            if not self.skip_bad:
                raise
            return FrameRecord(index=task.index, source=fault.cause, left_out=UNREADABLE)
        if frame is None:
            return FrameRecord(index=task.index, source=task.name, left_out=NO_USE)
        with explain_write_errors(self.output):
            if task.record is not None:
                return write_depth(self.folder, task.record, keep_depth(frame, self.limits), task.known.unit)
            return write_frame(self.folder, task.index, task.name, frame, self.limits, task.known)
