"""What every kind of recording gives: its frames by number, each an image with the depth measured in its view."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera


@dataclass(frozen=True, kw_only=True)
class FrameKey:
    """What is known of a frame before it is decoded.

    Attributes:
        recording: name of the recording it is from; frames of one recording are never split but by time.
        stem: names its files; unique within the recording.
        time_s: seconds on the clock of the recording; None where only the order is known.
    """

    recording: str
    stem: str
    time_s: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedFrame:
    """A decoded frame.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        depth_m: (h, w) float32, meters along the optical axis of the image's camera; 0 where nothing was measured. It
            shows the same view as the image and may be smaller than it, with the same shape.
        camera: of the image, pixels; None where it is not known.
        source: where a person finds the frame; errors name it.
        image_file: a PNG, JPEG, BMP, TIFF or WebP that holds ``image`` as it is, which is then copied and not encoded
            again; else None.
        counts: name -> whole number, added up over all frames for ``FrameSource.describe_counts``.
        confidence: (h, w) uint8 of a depth that was not measured everywhere: 255 where it was, 0 where there is none.
            It is written next to the depth, as a mask; None where all depth was measured.
        facts: name -> what is to be known of the frame; a row of ``frames.csv``.
    """

    image: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    camera: Camera | None
    source: str
    image_file: Path | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    confidence: NDArray[np.uint8] | None = None
    facts: Mapping[str, str | int | float] = field(default_factory=dict)


class FrameLeftOut(Exception):
    """A frame is left out for a reason that is no fault; its text completes "3 frames are left out: "."""


class FrameSource(ABC):
    """The frames of one or several recordings.

    It is pickled into worker processes, so it opens files when a frame is asked for, and keeps no open handle while it
    is pickled.
    """

    @property
    @abstractmethod
    def keys(self) -> Sequence[FrameKey]:
        """All frames, recording after recording, each in order of time."""

    @abstractmethod
    def load_frame(self, index: int) -> RecordedFrame | None:
        """
        The frame of ``keys[index]``; None where the kind leaves it out without a reason to name.

        It is called in worker processes, so that what it changes in the source is lost.

        Raises:
            FrameLeftOut: the kind leaves it out; frames with one reason are counted together.
            DataError: it cannot be read; the sentence names the file and the fix.
        """

    @property
    def notes(self) -> Sequence[str]:
        """
        Sentences for whoever prepares, known before a frame is loaded: the rule that was taken, what is left over, what
        was filled in.
        """
        return ()

    def describe_counts(self, totals: Mapping[str, int]) -> Sequence[str]:
        """
        Args:
            totals: the ``counts`` of all frames, added up.

        Returns:
            Sentences that are printed at the end and written to ``prepare.json``.
        """
        return ()

    def describe_facts(self, facts: Mapping[str, Mapping[str, str | int | float]]) -> Sequence[str]:
        """
        Args:
            facts: source of each frame -> its ``facts``.

        Returns:
            Sentences that are printed at the end and written to ``prepare.json``.
        """
        return ()

    def camera_pose(self, index: int) -> NDArray[np.float64] | None:
        """(4, 4): points of the camera of ``keys[index]``, in meters, x right, y down, z forward, into the world of its
        recording; None where it is not known. No frame is decoded for it."""
        return None

    @property
    def recipe_options(self) -> dict[str, object]:
        """Keys of ``pairs`` that the recipe needs for these frames, besides those that ``prepare`` fills in."""
        return {}


class RecordingKind(Protocol):
    """A kind that ``finetune prepare KIND`` takes: a module of ``finetune/prepare/kinds`` with these two functions."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare SOURCE and the options of this kind. It imports nothing heavy."""

    def open_source(self, arguments: argparse.Namespace) -> FrameSource:
        """
        Read what is needed to list the frames.

        Raises:
            FinetuneError: SOURCE or an option is wrong; nothing was written.
        """
