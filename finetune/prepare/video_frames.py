"""Any frame of a video, read in the order of the frames where possible: most codecs can only be decoded forward."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.inference.video import Frame, VideoFrames
from finetune.utils.errors import DataError


class IndexedVideo:
    """
    The frames of a video by their number.

    A frame after the last one that was read is found by decoding those between; one before it, by starting again. It is
    pickled as its path alone, so every worker process opens the video for itself.

    Attributes:
        path: of the video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._video: VideoFrames | None = None
        self._frames: Iterator[Frame] = iter(())
        self._next = 0

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)  # type: ignore[misc]

    def frame(self, index: int) -> NDArray[np.uint8]:
        """
        Args:
            index: from 0.

        Returns:
            (H, W, 3) uint8, RGB.

        Raises:
            DataError: the video cannot be decoded, or has fewer frames.
        """
        if self._video is None or index < self._next:
            self._video, self._next = VideoFrames(self.path), 0
            self._frames = iter(self._video)
        self._next += self._video.skip(index - self._next)
        frame = next(self._frames, None) if self._next == index else None
        if frame is None:
            raise DataError(
                self.path,
                f"ends after {self._next} frames, and frame {index} has a depth map",
                "Copy the video again; if it is all there is, leave out the depth maps beyond its end",
            )
        self._next += 1
        return frame.image
