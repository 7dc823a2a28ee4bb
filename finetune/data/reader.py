"""What a reader is, and how its frames are read: at once, one by one, or with another in place of a bad one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from finetune.data.sample import DepthSample
from finetune.utils.errors import FileFault

# Where bad samples are skipped, a run ends once they are more than so many, and more than so much of those asked for.
FEW_BAD_SAMPLES, FEW_BAD_PERCENT = 10, 1
NAMED_BAD_SAMPLES = 10


class Reader(Protocol):
    """What every reader can do; see ``finetune/data/readers``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> DepthSample: ...


def too_many_bad(bad: int, asked: int) -> bool:
    """Whether so many unreadable samples are more than an accident, among all that were asked for."""
    return bad > FEW_BAD_SAMPLES and 100 * bad > FEW_BAD_PERCENT * asked


@dataclass(kw_only=True)
class BadSamples:
    """Training samples of a run that could not be read, from all processes: a function of the steps taken.

    Attributes:
        count: every time that one was asked for; what was to stand in for it does not count again.
        named: what was wrong with the first ten different ones, in the order of the samples.
    """

    count: int = 0
    named: list[str] = field(default_factory=list)

    def add(self, skipped: Sequence[tuple[int, str]]) -> list[str]:
        """
        Args:
            skipped: of the batches of one step, in any order.

        Returns:
            Those that are to be named now.
        """
        causes = dict.fromkeys(cause for _, cause in sorted(skipped, key=lambda one: one[0]))
        new = [cause for cause in causes if cause not in self.named][: NAMED_BAD_SAMPLES - len(self.named)]
        self.count += len({k for k, _ in skipped})
        self.named += new
        return new

    def summary(self, asked: int) -> str:
        """One sentence, without a full stop; ``asked`` is how many samples were asked for so far."""
        return (
            f"{self.count} of the {asked} training samples asked for could not be read; "
            f"the first: {'; '.join(self.named)}"
        )


def read_frames(reader: Reader, frames: Sequence[int]) -> list[DepthSample]:
    """The frames of a reader, at once where it has a way to do so, as one that draws them has."""
    together = getattr(reader, "batch", None)
    return together(frames) if together and frames else [reader[frame] for frame in frames]


def try_read(reader: Reader, frame: int) -> DepthSample | FileFault:
    """A frame of a reader, or why it cannot be read."""
    try:
        return reader[frame]
    except FileFault as fault:
        return fault


def list_sources(reader: Any) -> list[str]:
    """Of all frames of a reader, none of which is opened."""
    return [reader.source(index) for index in range(len(reader))]
