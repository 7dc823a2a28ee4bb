"""``finetune prepare phone FOLDER...``: recordings of phones with LiDAR or a depth camera, as apps export them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune.prepare.distinct_sources import require_distinct
from finetune.prepare.naming import number_equal_names
from finetune.prepare.recording import FrameKey, FrameSource, RecordedFrame
from finetune.utils.errors import ListError
from finetune.utils.paths import expand_path, is_file, is_folder, missing

if TYPE_CHECKING:
    from finetune.prepare.phone.phone_recording import Confidence, PhoneRecording

_CONFIDENCES = ("low", "medium", "high")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE and the options of this kind."""
    parser.add_argument(
        "source",
        nargs="+",
        type=expand_path,
        metavar="FOLDER",
        help="exported by Stray Scanner, by Polycam (raw data), or by Record3D ('.r3d' unpacked, or 'EXR + JPG')",
    )
    parser.add_argument(
        "--confidence",
        choices=_CONFIDENCES,
        default="medium",
        metavar="LEVEL",
        help="least confidence of a depth that is kept: low keeps all, medium (default), high",
    )


def open_source(arguments: argparse.Namespace) -> FrameSource:
    """
    Raises:
        ListError: a folder is none that these apps write; says what they write. Or two sources are one.
    """
    require_distinct(arguments.source)
    return PhoneFrames([_open_folder(folder, arguments.confidence) for folder in arguments.source])


def _open_folder(folder: Path, least: Confidence) -> PhoneRecording:
    """
    Raises:
        ListError: it is none that these apps write.
    """
    from finetune.prepare.phone.polycam import Polycam
    from finetune.prepare.phone.record3d import Record3d, require_lzfse
    from finetune.prepare.phone.stray_scanner import VIDEO, StrayScanner

    if is_file(folder) and folder.suffix.lower() in (".r3d", ".zip"):
        raise ListError(folder, "is a ZIP archive", "Unpack it, and name the folder that it was unpacked to")
    if not is_folder(folder):
        raise ListError(folder, missing(folder, "folder"), "Name the folder that the app exported")
    if is_file(folder / VIDEO):
        return StrayScanner(folder, least)
    if is_folder(folder / "keyframes") or (is_folder(folder / "cameras") and is_folder(folder / "depth")):
        return Polycam(folder, least)
    if is_folder(folder / "rgbd") or is_folder(folder / "EXR_RGBD") or is_file(folder / "metadata.json"):
        recording = Record3d(folder, least)
        if recording.is_compressed:
            require_lzfse(folder)
        return recording
    raise ListError(
        folder,
        f"is no export of Stray Scanner ({VIDEO}, depth/), Polycam (keyframes/) or Record3D (rgbd/ or metadata.json)",
        "Name the folder that holds those files; for another app, see `finetune prepare pairs` and `frames`",
    )


class PhoneFrames(FrameSource):
    """The frames of several export folders, of one app or several."""

    def __init__(self, recordings: Sequence[PhoneRecording]) -> None:
        self._recordings = recordings
        self._places = [(recording, i) for recording in recordings for i in range(len(recording.keys))]
        # Apps name folders by themselves, so two recordings may have one name.
        names = number_equal_names([recording.keys[0].recording for recording in recordings])
        self._keys = [
            replace(key, recording=name)
            for name, recording in zip(names, recordings, strict=True)
            for key in recording.keys
        ]

    @property
    def keys(self) -> Sequence[FrameKey]:
        return self._keys

    def load_frame(self, index: int) -> RecordedFrame:
        recording, i = self._places[index]
        return recording.load_frame(i)

    def camera_pose(self, index: int) -> NDArray[np.float64] | None:
        recording, i = self._places[index]
        return recording.camera_pose(i)

    @property
    def notes(self) -> Sequence[str]:
        return [note for recording in self._recordings for note in recording.notes]
