"""KITTI raw color images with the annotated depth of the depth benchmark, both as their archives unpack."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.camera import Camera
from finetune.errors import ListError, RecipeError
from finetune.readers.files import DepthCoding, Intrinsics, read_frame, require_depth_range
from finetune.readers.listing import ListedFrames, Listing, locate, read_list, require_file, require_folder
from finetune.readers.splits import split_frames
from finetune.sample import DepthSample

_METERS_PER_UNIT = 1.0 / 256.0  # of the depth benchmark; 0 = no return

# Of P_rect_02, whose focal lengths and center are those of P_rect_03 too, and S_rect_02 of each day's calibration:
# day -> focal_px, cx_px, cy_px, height, width.
_CALIBRATIONS = {
    "2011_09_26": (721.5377, 609.5593, 172.8540, 375, 1242),
    "2011_09_28": (707.0493, 604.0814, 180.5066, 370, 1224),
    "2011_09_29": (718.3351, 600.3891, 181.5122, 374, 1238),
    "2011_09_30": (707.0912, 601.8873, 183.1104, 370, 1226),
    "2011_10_03": (718.8560, 607.1928, 185.2157, 376, 1241),
}
_DAY_OF_DRIVE = re.compile(r"(\d{4}_\d\d_\d\d)_drive_\d{4}")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Kitti(ListedFrames):
    """KITTI with annotated depth: uint16 PNG, value / 256 = meters, 0 = invalid; about a fifth of the pixels valid.

    Layout: ``raw/<day>/<drive>/image_02/data/N.png`` and, below ``train``, ``val`` or nothing of
    ``data_depth_annotated``, ``<drive>/proj_depth/groundtruth/image_02/N.png``. The Eigen split takes frames from both
    folders: of its 652 test frames 491 lie in ``train``, 161 in ``val``.

    ``split: eigen_train`` is the 23,158 frames of BTS and ZoeDepth, ``split: eigen_test`` the 652 of 697 that have
    annotated depth. Frames are sorted by drive and number; those of a list stand in the order of the list: the same
    each time. The camera is that of the day, from a table. Making the reader opens nothing.
    """

    root: str  # folder that holds raw and data_depth_annotated
    image_root: str | None = None  # folder of the days, when it is not <root>/raw
    depth_root: str | None = None  # folder of the annotated depth, when it is not <root>/data_depth_annotated
    split: Literal["eigen_train", "eigen_test"] | None = None  # needed unless list is given
    list: str | None = None  # list of Eigen form instead of the split: `rgb depth focal`; depth None is left out
    min_depth_m: float = 0.0  # depths up to this are not valid
    max_depth_m: float | None = 80.0  # depths beyond this are not valid; null for no limit

    def __post_init__(self) -> None:
        if self.split is None and self.list is None:
            raise RecipeError("split", None, "eigen_train or eigen_test, or a list file as list")
        require_depth_range(self.min_depth_m, self.max_depth_m)

    def check_paths(self) -> None:
        """
        Raises:
            RecipeError: root, a folder below it or list is missing. Only existence is looked at.
        """
        require_folder("root", self.root)
        require_folder("image_root", self._image_root)
        require_folder("depth_root", self._depth_root)
        if self.list is not None:
            require_file("list", self.root, self.list)

    def __getitem__(self, index: int) -> DepthSample:
        """
        Raises:
            ListError: the list is malformed, or a drive or a file of this frame is missing.
            DataError: a file of this frame cannot be decoded, or is not of the size published.
        """
        image_path, depth_path = self._listing.files(index)
        coding = DepthCoding(
            meters_per_unit=_METERS_PER_UNIT, min_depth_m=self.min_depth_m, max_depth_m=self.max_depth_m
        )
        return read_frame(image_path, depth_path, coding, _intrinsics_of(self._listing.pairs[index][0]))

    @property
    def _image_root(self) -> str:
        return str(Path(self.image_root or Path(self.root, "raw")).expanduser())

    @property
    def _depth_root(self) -> str:
        return str(Path(self.depth_root or Path(self.root, "data_depth_annotated")).expanduser())

    @cached_property
    def _listing(self) -> Listing:
        if self.list is not None:
            path = locate(self.root, self.list)
            rows = ((line, image.lstrip("/"), depth.lstrip("/")) for line, image, depth in read_list(path))
            placed = ((line, image, self._placed(depth)) for line, image, depth in rows if depth != "None")
            return Listing.of_list(path, placed, self._image_root, self._depth_root)
        frames = split_frames(f"kitti_{self.split}")
        self._require_drives({drive for drive, _ in frames})
        # All frames of the published lists are of the left color camera.
        pairs = [
            (
                f"{drive[:10]}/{drive}/image_02/data/{frame:010}.png",
                self._placed(f"{drive}/proj_depth/groundtruth/image_02/{frame:010}.png"),
            )
            for drive, frame in frames
        ]
        return Listing(pairs=pairs, image_root=self._image_root, depth_root=self._depth_root)

    def _placed(self, depth: str) -> str:
        """A depth path with ``train/`` or ``val/`` before it, by where its drive lies; else as it is."""
        return self._places.get(depth.partition("/")[0], "") + depth

    @cached_property
    def _places(self) -> dict[str, str]:
        """Drive -> ``train/`` or ``val/``."""
        return {
            drive.name: f"{place}/"
            for place in ("train", "val")
            if Path(self._depth_root, place).is_dir()
            for drive in Path(self._depth_root, place).iterdir()
        }

    def _require_drives(self, drives: set[str]) -> None:
        """
        Raises:
            ListError: a drive of the split is missing, among the images or the depth maps.
        """
        images = {drive for drive in drives if Path(self._image_root, drive[:10], drive).is_dir()}
        depths = {drive for drive in drives if Path(self._depth_root, self._placed(drive)).is_dir()}
        for folder, found in ((self._image_root, images), (self._depth_root, depths)):
            missing = sorted(drives - found)
            if missing:
                raise ListError(
                    folder,
                    f"{len(missing)} of the {len(drives)} drives of split {self.split} are missing, {missing[0]} first",
                    "Unpack them there, or name the frames you have in a list file as list",
                )


def _intrinsics_of(image_path: str) -> Intrinsics | None:
    """Of the day that the name of the drive begins with; None where the path names no known day."""
    match = _DAY_OF_DRIVE.search(image_path)
    if match is None or match[1] not in _CALIBRATIONS:
        return None
    focal_px, cx_px, cy_px, height, width = _CALIBRATIONS[match[1]]
    return Intrinsics(
        camera=Camera(fx_px=focal_px, fy_px=focal_px, cx_px=cx_px, cy_px=cy_px),
        height=height,
        width=width,
        source=f"KITTI of {match[1]}",
        fix="Take the files as they were published; read resized or cropped copies with reader pairs and intrinsics",
    )
