"""OpenEXR files, read by the package OpenEXR, which is an extra: OpenCV's wheels are built without the format."""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune.data.readers.arrays import choose_name
from finetune.data.readers.decoder_messages import capture_messages
from finetune.utils.errors import DataError

if TYPE_CHECKING:
    import OpenEXR

# What the library writes to stderr, in addition to the exception that it raises.
_ERROR_LINE = re.compile(r".*\(EXR_ERR_")
_COLORS = ("R", "G", "B", "A")
# Names that programs give to depth, in lower case; of a layered name, the last part counts.
_DEPTH_NAMES = ("z", "depth", "d", "v", "y", "distance", "depthplanar")


def read_exr(path: str | os.PathLike[str], key: str | None = None) -> NDArray[np.number]:
    """
    Args:
        path: an OpenEXR file, of one part or several.
        key: name of the channel to take, such as ``ViewLayer.Depth.Z``; None: by the rules below.

    Returns:
        (H, W): the channel of the key, the only channel, or the one whose name says depth; (H, W, C): red, green, blue
        and perhaps alpha, if there are no others.

    Raises:
        DataError: OpenEXR is not installed, the file is damaged, or no channel's name says depth.
    """
    try:
        import OpenEXR
    except ImportError:
        fix = "Run `pip install -e '.[exr]'` in the folder of this repository, or write depth as .npy"
        raise DataError(path, "is OpenEXR, and the package OpenEXR is not installed", fix) from None

    def decode() -> dict[str, NDArray[np.number]]:
        # The package prints its errors as well as raising them; they are caught here.
        with redirect_stdout(io.StringIO()), OpenEXR.File(os.fspath(path), separate_channels=True) as file:
            return _collect_channels(file)

    try:
        channels, _ = capture_messages(
            decode, _ERROR_LINE
        )  # for a damaged file, the library writes a line for each chunk
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, MemoryError) as error:
        found = " ".join(str(error).split())[:120]
        raise DataError(
            path, f"is a damaged OpenEXR file ({found})", "Write it again, or leave the frame out"
        ) from None
    if key is not None:
        return channels[choose_name(sorted(channels), (), key, path)]
    if len(channels) == 1:
        return next(iter(channels.values()))
    named = [name for name in channels if name.rpartition(".")[2].lower() in _DEPTH_NAMES]
    # Blender stores depth as "Depth.Z" or "ViewLayer.Depth.V" next to colors.
    named = named if len(named) < 2 else [name for name in named if "depth" in name.lower() or name == "Z"]
    if len(named) == 1:
        return channels[named[0]]
    colors = [name for name in _COLORS if name in channels]
    if set(channels) == set(colors) and len({channels[name].shape for name in colors}) == 1:
        return np.stack([channels[name] for name in colors], axis=-1)
    listed = ", ".join(sorted(channels)) or "none"
    raise DataError(path, f"has the channels {listed}", "Set depth_key in pairs to the one that holds depth")


def _collect_channels(file: OpenEXR.File) -> dict[str, NDArray[np.number]]:
    """Name -> (H, W) of the channels of all parts; ``part.name`` where an earlier part has a channel of that name."""
    file.channels()  # raises for a damaged file, whose parts are an empty list
    found: dict[str, NDArray[np.number]] = {}
    for number, part in enumerate(file.parts):
        for name, channel in part.channels.items():
            unique = name if name not in found else f"{part.name() or number}.{name}"
            found[unique] = np.array(channel.pixels)
    return found
