"""Read and write videos frame by frame, so that memory does not grow with their length."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.inference.video_metadata import read_frame_times, read_orientation
from finetune.utils.errors import DataError, FinetuneError
from finetune.utils.files import NAME_A_FOLDER, atomic_write, explain_write_errors
from finetune.utils.paths import require_regular

# FFmpeg prints its own lines about damaged files; silence it. OpenCV reads this when it opens its first video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# VP9 in .mp4, which browsers play. They do not play MPEG-4 Part 2, which OpenCV writes as mp4v.
CODEC = "vp09"
# The rate of a file that does not give one.
DEFAULT_FRAMES_PER_SECOND = 25.0
# A video with a smaller share of the frames that its file announces is cut off. Some containers estimate the count.
CUT_OFF_SHARE = 0.9
# A mean rate this much off the announced one is that of a variable rate. Matroska rounds times to milliseconds.
VARIABLE_RATE_SHARE = 0.02


class Frame(NamedTuple):
    """A decoded frame.

    Attributes:
        image: (H, W, 3) uint8, RGB; upright, as the rotation in the file's metadata says.
        seconds: its presentation time stamp; 0 where the file holds none.
    """

    image: NDArray[np.uint8]
    seconds: float


class VideoFrames:
    """
    The frames of a video.

    OpenCV decodes them. PyAV, where it is installed, adds the times that the container holds and mirrored orientations.

    Attributes:
        count: the number of frames that the file announces, which may be wrong; 0 where it announces none.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            DataError: OpenCV cannot decode it as a video.
        """
        self._path = path
        try:
            require_regular(path)  # OpenCV would wait for a pipe forever
            path.open("rb").close()  # and call a closed file damaged
        except OSError as error:
            raise DataError(path, f"cannot be read ({error.strerror})", "Name a video file") from None
        # It turns the frames of phones upright by itself (CAP_PROP_ORIENTATION_AUTO).
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise DataError(path, "cannot be decoded as a video", "Convert it, for example to H.264 in .mp4")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self._announced_rate = rate if 0 < rate < 1000 else DEFAULT_FRAMES_PER_SECOND
        self.count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self._skipped = 0

    @cached_property
    def frames_per_second(self) -> float:
        """The rate that the file announces; with PyAV installed, the mean of a variable one."""
        times = self._container_times
        if times is None or len(times) < 2:
            return self._announced_rate
        mean = (len(times) - 1) / times[-1]
        return mean if abs(mean / self._announced_rate - 1) > VARIABLE_RATE_SHARE else self._announced_rate

    @cached_property
    def _container_times(self) -> list[float] | None:
        return read_frame_times(self._path)

    def __iter__(self) -> Iterator[Frame]:
        """
        Raises:
            DataError: not a single frame can be decoded.
        """
        turn = read_orientation(self._path)
        if turn is not None:
            # OpenCV leaves out the mirror of a display matrix.
            self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        frames = 0
        try:
            while True:
                decoded, bgr = self._capture.read()
                if not decoded:
                    break
                frames += 1
                seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                image = bgr[..., ::-1]
                yield Frame(np.ascontiguousarray(turn(image) if turn else image), seconds)
        finally:
            self._capture.release()
        if not frames and not self._skipped:
            raise DataError(self._path, "has no frame that can be decoded", "Convert it, for example to H.264 in .mp4")

    def skip(self, count: int) -> int:
        """Pass over the next ``count`` frames, which are decoded but not converted; returns how many there were."""
        passed = next((passed for passed in range(count) if not self._capture.grab()), max(0, count))
        self._skipped += passed
        return passed

    def frame_times(self, stamps: Sequence[float]) -> list[float]:
        """
        Args:
            stamps: ``seconds`` of every decoded frame.

        Returns:
            The times in the container, if PyAV read one for each frame. Else the stamps, if they increase. Those of
            some AVI files do not, since AVI holds a constant rate and no time stamps: then each frame's number divided
            by the rate.
        """
        if self._container_times is not None and len(self._container_times) == len(stamps):
            return self._container_times
        if all(earlier < later for earlier, later in pairwise(stamps)):
            return list(stamps)
        return [number / self._announced_rate for number in range(len(stamps))]

    def is_cut_off(self, times: Sequence[float]) -> bool:
        """
        Whether frames at the end are missing: both the number of decoded frames and the time that they span are short.

        Matroska and WebM files hold a duration and no count, so that a low frame rate alone looks like missing frames.

        Args:
            times: of every decoded frame, as ``frame_times`` gives them.
        """
        announced = CUT_OFF_SHARE * self.count
        return len(times) < announced and times[-1] * self._announced_rate + 1 < announced


class _Encoder:
    """Writes a video file. Each frame is encoded in a thread while the next one is predicted."""

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self._path = path
        self._rate = frames_per_second
        self._writer: cv2.VideoWriter | None = None
        self._pool = ThreadPoolExecutor(1)
        self._encoding: Future[None] | None = None
        self._frames = 0

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame, (H, W, 3) uint8, RGB. All must have one size."""
        # The codec stores color at half the resolution, so it takes even sides only.
        even = np.ascontiguousarray(frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2, ::-1])
        if self._writer is None:
            codec = cv2.VideoWriter.fourcc(*CODEC)
            self._writer = cv2.VideoWriter(str(self._path), codec, self._rate, (even.shape[1], even.shape[0]))
        self._wait()
        self._encoding = self._pool.submit(self._encode, even)
        self._frames += 1

    def close(self) -> None:
        """Finish the file."""
        self._wait()
        self._pool.shutdown()
        if self._writer is not None:
            self._writer.release()

    def frames_missing(self) -> int:
        """The number of frames that cannot be read back. OpenCV reports no error when the disk is full."""
        if not _is_whole(self._path):
            return self._frames
        capture = cv2.VideoCapture(str(self._path))
        found = 0
        while capture.grab():
            found += 1
        capture.release()
        return self._frames - found

    def _encode(self, frame: NDArray[np.uint8]) -> None:
        assert self._writer is not None, "opened by write()"
        self._writer.write(frame)

    def _wait(self) -> None:
        if self._encoding is not None:
            self._encoding.result()


def _is_whole(path: Path) -> bool:
    """Whether an MP4 file ends where its last box ends. Every box begins with its size: ISO/IEC 14496-12, 4.2."""
    end, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position < end:
            file.seek(position)
            size = int.from_bytes(file.read(4), "big")
            if size == 1:  # the size is in the 64 bits after the box's name
                size = int.from_bytes(file.read(12)[4:], "big")
            if size < 8:
                return False
            position += size
    return position == end


@contextmanager
def open_video_writer(path: Path, frames_per_second: float) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """
    Write a video that browsers play. It gets its name when the block ends.

    Returns:
        The function that adds a frame, (H, W, 3) uint8, RGB, all of one size. An odd side loses its last pixels.

    Raises:
        FinetuneError: it cannot be written there.
    """
    with explain_write_errors(path), atomic_write(path, ending=path.suffix) as unfinished:
        # OpenCV prints messages of its own if it cannot open a file; this raises instead.
        unfinished.touch()
        encoder = _Encoder(unfinished, frames_per_second)
        try:
            yield encoder.write
        finally:
            encoder.close()
        missing = encoder.frames_missing()
        if missing:
            raise FinetuneError(f"{path}: {missing} of its frames cannot be read back. {NAME_A_FOLDER}.")
