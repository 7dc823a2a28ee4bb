"""The 1,449 labeled frames of NYU Depth V2 in one file, as the authors publish them: MATLAB 7.3, which is HDF5."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune.data.readers.splits import split_frames
from finetune.utils.errors import DataError

if TYPE_CHECKING:
    import h5py

FRAMES = 1449


def labeled_frame_numbers(split: str) -> list[int]:
    """Numbers, from 0, of the 795 frames of ``train`` or the 654 of ``test``, sorted."""
    test = {frame for _, frame in split_frames("nyuv2_test")}
    return sorted(test) if split == "test" else [frame for frame in range(FRAMES) if frame not in test]


@dataclass(kw_only=True)
class LabeledFile:
    """Reads frames by their number. Each process opens the file for itself, at first use.

    Attributes:
        path: ``nyu_depth_v2_labeled.mat``.
        filled: read depth with its holes filled (``depths``); else as measured (``rawDepths``), 0 where nothing was.
    """

    path: str
    filled: bool
    _file: h5py.File | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_file": None}

    def read(self, frame: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """
        Returns:
            Image (480, 640, 3) uint8, RGB, and depth (480, 640), meters. Both are transposed, since MATLAB stores
            columns first.

        Raises:
            DataError: the file cannot be read, or holds something else.
        """
        fix = "Download nyu_depth_v2_labeled.mat again, and install h5py: pip install -e '.[hdf5]'"
        try:
            import h5py

            if self._file is None:
                self._file = h5py.File(self.path, "r")
            image = np.asarray(self._file["images"][frame])
            depth_m = np.asarray(self._file["depths" if self.filled else "rawDepths"][frame])
        except (OSError, KeyError, ValueError, ImportError) as error:
            raise DataError(f"{self.path}#{frame}", f"cannot be read ({error})", fix) from error
        if image.ndim != 3 or image.shape[0] != 3 or image.dtype != np.uint8 or depth_m.shape != image.shape[1:]:
            found = f"its image is {image.dtype} of shape {image.shape}, its depth of shape {depth_m.shape}"
            raise DataError(f"{self.path}#{frame}", found, fix)
        return np.ascontiguousarray(image.transpose(2, 1, 0)), np.ascontiguousarray(depth_m.T, dtype=np.float32)
