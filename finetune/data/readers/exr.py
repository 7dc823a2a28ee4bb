"""OpenEXR, by the package of that name, which is an extra: OpenCV's wheels are built without it."""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.readers.decoder_words import with_words
from finetune.utils.errors import DataError

# What the library writes to stderr, beside the exception that it raises.
_WORDS = re.compile(r".*\(EXR_ERR_")
_COLORS = ("R", "G", "B", "A")
# Names that programs give to depth, in lower case; the last part of a layered name counts.
_DEPTH_NAMES = ("z", "depth", "d", "v", "y", "distance", "depthplanar")


def read_exr(path: str | os.PathLike[str]) -> NDArray[Any]:
    """
    Args:
        path: an OpenEXR file.

    Returns:
        (H, W) of the one channel, or of the one whose name says depth; (H, W, C), red, green, blue and perhaps alpha,
        where there are no others.

    Raises:
        DataError: OpenEXR is not installed, the file is damaged, or no channel is depth by its name.
    """
    try:
        import OpenEXR
    except ImportError:
        fix = "Run `pip install -e '.[exr]'` in the folder of this repository, or write depth as .npy"
        raise DataError(path, "is OpenEXR, and the package OpenEXR is not installed", fix) from None

    def decode() -> dict[str, NDArray[Any]]:
        # It prints that it raised.
        with redirect_stdout(io.StringIO()), OpenEXR.File(os.fspath(path), separate_channels=True) as file:
            return {name: np.array(channel.pixels) for name, channel in file.channels().items()}

    try:
        channels, _ = with_words(decode, _WORDS)  # a damaged file has it say a line for each chunk
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, MemoryError) as error:
        found = " ".join(str(error).split())[:120]
        raise DataError(
            path, f"is a damaged OpenEXR file ({found})", "Write it again, or leave the frame out"
        ) from None
    if len(channels) == 1:
        return next(iter(channels.values()))
    named = [name for name in channels if name.rpartition(".")[2].lower() in _DEPTH_NAMES]
    # Blender's layers hold depth as "Depth.Z" or "ViewLayer.Depth.V" beside colors.
    named = named if len(named) < 2 else [name for name in named if "depth" in name.lower() or name == "Z"]
    if len(named) == 1:
        return channels[named[0]]
    colors = [name for name in _COLORS if name in channels]
    if set(channels) == set(colors) and len({channels[name].shape for name in colors}) == 1:
        return np.stack([channels[name] for name in colors], axis=-1)
    listed = ", ".join(sorted(channels)) or "none"
    raise DataError(path, f"has the channels {listed}", "Write depth alone, as channel Z, or as .npy")
