"""Videos, one frame after the other, so that memory does not grow with their length."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.utils.errors import DataError, FinetuneError
from finetune.utils.files import NAME_A_FOLDER, atomic_write, explain_write_errors
from finetune.utils.paths import require_regular

# FFmpeg prints lines of its own about damaged files, next to our sentences. OpenCV reads this at its first video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# VP9 in .mp4, which browsers play. They do not play MPEG-4 Part 2, which OpenCV writes as mp4v.
CODEC = "vp09"
# Of a file that does not say it.
USUAL_FRAMES_PER_SECOND = 25.0


class VideoFrames:
    """The frames of a video.

    Attributes:
        frames_per_second: as the file says.
        count: how many the file says it has, which may be wrong; 0 where it does not say.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            DataError: it is no video that OpenCV can decode.
        """
        self._path = path
        try:
            require_regular(path)  # OpenCV waits for a pipe for ever
        except OSError as error:
            raise DataError(path, f"cannot be read ({error.strerror})", "Name a video file") from None
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise DataError(path, "cannot be decoded as a video", "Convert it, for example to H.264 in .mp4")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.frames_per_second = rate if 0 < rate < 1000 else USUAL_FRAMES_PER_SECOND
        self.count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """
        (H, W, 3) uint8, RGB, each.

        Raises:
            DataError: there is none.
        """
        frames = 0
        try:
            while True:
                decoded, frame = self._capture.read()
                if not decoded:
                    break
                frames += 1
                yield np.ascontiguousarray(frame[..., ::-1])
        finally:
            self._capture.release()
        if not frames:
            raise DataError(self._path, "has no frame that can be decoded", "Convert it, for example to H.264 in .mp4")


class _Encoder:
    """A video file that is being written; each frame in a thread, while the next one is calculated."""

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self._path = path
        self._rate = frames_per_second
        self._writer: cv2.VideoWriter | None = None
        self._pool = ThreadPoolExecutor(1)
        self._coming: Future[None] | None = None
        self._frames = 0

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame, (H, W, 3) uint8, RGB, all of one size."""
        # Colors have half the resolution in both directions, so there are no odd sides.
        even = np.ascontiguousarray(frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2, ::-1])
        if self._writer is None:
            codec = cv2.VideoWriter.fourcc(*CODEC)
            self._writer = cv2.VideoWriter(str(self._path), codec, self._rate, (even.shape[1], even.shape[0]))
        self._wait()
        self._coming = self._pool.submit(self._encode, even)
        self._frames += 1

    def close(self) -> None:
        """Write the end of the file."""
        self._wait()
        self._pool.shutdown()
        if self._writer is not None:
            self._writer.release()

    def frames_missing(self) -> int:
        """How many frames cannot be read back. OpenCV does not say that a disk is full."""
        if not _is_whole(self._path):
            return self._frames
        capture = cv2.VideoCapture(str(self._path))
        found = 0
        while capture.grab():
            found += 1
        capture.release()
        return self._frames - found

    def _encode(self, frame: NDArray[np.uint8]) -> None:
        assert self._writer is not None, "made with the first frame"
        self._writer.write(frame)

    def _wait(self) -> None:
        if self._coming is not None:
            self._coming.result()


def _is_whole(path: Path) -> bool:
    """Whether an MP4 file ends where its last box ends. Each begins with its size: ISO/IEC 14496-12, 4.2."""
    end, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position < end:
            file.seek(position)
            size = int.from_bytes(file.read(4), "big")
            if size == 1:  # stands for 64 bits behind the name of the box
                size = int.from_bytes(file.read(12)[4:], "big")
            if size < 8:
                return False
            position += size
    return position == end


@contextmanager
def written_video(path: Path, frames_per_second: float) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """
    A video that browsers play, under its name once it is whole.

    Returns:
        What adds a frame, (H, W, 3) uint8, RGB, all of one size. A side that is odd loses its last pixels.

    Raises:
        FinetuneError: it cannot be written there.
    """
    with explain_write_errors(path), atomic_write(path, ending=path.suffix) as unfinished:
        # OpenCV prints lines of its own where it cannot open a file.
        unfinished.touch()
        encoder = _Encoder(unfinished, frames_per_second)
        try:
            yield encoder.write
        finally:
            encoder.close()
        missing = encoder.frames_missing()
        if missing:
            raise FinetuneError(f"{path}: {missing} of its frames cannot be read back. {NAME_A_FOLDER}.")
