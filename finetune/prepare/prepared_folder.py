"""Frames of a folder that ``finetune prepare`` wrote before, as ``prepare.json`` describes them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import cast

from finetune.data.readers.depth_numbers import DepthNumbers
from finetune.data.readers.intrinsics import read_intrinsics_of_images
from finetune.prepare.kinds.frames import FileFrames
from finetune.prepare.kinds.pairs import PairedFiles
from finetune.prepare.output_folder import INTRINSICS, SUMMARY
from finetune.prepare.recording import FrameKey
from finetune.utils.errors import ListError
from finetune.utils.paths import is_file, read_bytes


def is_prepared(folder: Path) -> bool:
    """Whether ``finetune prepare`` wrote the folder."""
    return is_file(folder / SUMMARY)


def open_prepared(folder: Path) -> FileFrames:
    """
    The frames of the folder, in their order, with recordings and times, so that they are split as before.

    Raises:
        ListError: ``prepare.json`` cannot be read, or a file is missing.
    """
    path = folder / SUMMARY
    broken = "is not what finetune prepare writes"
    fix = "Prepare the folder again, or name the folder that it was made from"
    try:
        content = json.loads(read_bytes(path))
        unit = float(content["meters_per_unit"])
        frames = [(folder / frame["image"], folder / frame["depth"]) for frame in content["frames"]]
        keys = [_read_key(cast("dict[str, object]", frame)) for frame in content["frames"]]
    except OSError as error:
        raise ListError(path, f"cannot be read ({error.strerror})", fix) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ListError(path, broken, fix) from error
    if not frames or not 0 < unit < math.inf:
        raise ListError(path, broken, fix)
    gone = next((file for pair in frames for file in pair if not is_file(file)), None)
    if gone is not None:
        raise ListError(path, f"names {gone}, which is missing", fix)
    cameras = {folder: read_intrinsics_of_images(folder / INTRINSICS)} if is_file(folder / INTRINSICS) else {}
    numbers = DepthNumbers(
        depth_is="z",
        meters_per_unit=unit,
        px_per_unit=None,
        disparity_offset_px=None,
        baseline_m=None,
        focal_px=None,
        inverse_per_unit=None,
        invalid=(0.0,),
        bits=None,
        channels=None,
        key=None,
        allow_8_bit=False,
        min_depth_m=0.0,
        max_depth_m=None,
    )
    return PairedFiles(
        frame_keys=keys,
        images=[image for image, _ in frames],
        depths=[depth for _, depth in frames],
        numbers=numbers,
        intrinsics=None,
        lines=[f"{folder}: {len(frames)} frames and their unit, {unit:.6g} m, are those of {SUMMARY}"],
        cameras=cameras,
        roots=[folder],
    )


def _read_key(frame: dict[str, object]) -> FrameKey:
    time_s = frame["time_s"]
    return FrameKey(
        recording=str(frame["recording"]),
        stem=Path(str(frame["image"])).stem,
        time_s=None if time_s is None else float(cast(float, time_s)),
    )
