"""The times of frames and mirrored orientations, which PyAV, the extra ``video``, reads better than OpenCV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.container import InputContainer

T = TypeVar("T")
Turn = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def read_frame_times(path: Path) -> list[float] | None:
    """
    Read the time of every frame from the container, without decoding.

    Returns:
        Seconds in the order in which frames are shown, the first at 0; None where PyAV is not installed or cannot
        read the file, or where frames have no time or share one.
    """
    return _read_container(path, _find_frame_times)


def read_orientation(path: Path) -> Turn | None:
    """
    Read how stored frames are to be turned or mirrored to be upright.

    Returns:
        A function from a stored frame, (H, W, 3), to the upright one; None where PyAV is not installed or cannot read
        the file, or where the file has no display matrix, or one that is no combination of quarter turns and mirrors.
    """
    return _read_container(path, _find_orientation)


def _read_container(path: Path, find: Callable[[InputContainer], T | None]) -> T | None:
    try:
        # Imported for videos alone: it brings an FFmpeg of its own.
        import av
    except ImportError:
        return None
    try:
        with av.open(str(path)) as container:
            return find(container) if container.streams.video else None
    except av.FFmpegError:
        return None


def _find_frame_times(container: InputContainer) -> list[float] | None:
    stream = container.streams.video[0]
    stamps = []
    for packet in container.demux(stream):
        # The last packet is empty: it makes a decoder give out the frames that it holds back.
        if not packet.size or packet.is_discard:
            continue
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None:
            return None
        stamps.append(stamp)
    if not stamps or not stream.time_base or len(set(stamps)) < len(stamps):
        return None
    # Packets are in the order of decoding. AVI numbers them in that order, so their sorted times are those of frames.
    stamps.sort()
    return [float((stamp - stamps[0]) * stream.time_base) for stamp in stamps]


def _find_orientation(container: InputContainer) -> Turn | None:
    """The matrix maps a stored point (p, q) to (a p + c q, b p + d q), see libavutil/display.h of FFmpeg."""
    frame = next(container.decode(container.streams.video[0]), None)
    if frame is None or "DISPLAYMATRIX" not in frame.side_data:
        return None
    # PyAV's types know motion vectors alone.
    matrix = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), dtype=np.int32)  # type: ignore[typeddict-item]
    a, b, _, c, d, *_ = (int(number) for number in matrix)
    if a and d and not b and not c:
        return lambda image: image[:: np.sign(d), :: np.sign(a)]
    if b and c and not a and not d:
        return lambda image: image.swapaxes(0, 1)[:: np.sign(b), :: np.sign(c)]
    return None
