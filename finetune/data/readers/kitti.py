"""KITTI raw color images with the annotated depth of the depth benchmark, as their archives unpack."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.data.camera import Camera
from finetune.data.crops import KB_HEIGHT, KB_WIDTH, crop_kb
from finetune.data.readers.files import DepthCoding, read_frame, require_depth_range
from finetune.data.readers.intrinsics import Intrinsics
from finetune.data.readers.listing import (
    ListedFrames,
    Listing,
    list_entries,
    locate,
    read_list,
    require_file,
    require_folder,
)
from finetune.data.readers.splits import split_frames
from finetune.data.sample import DepthSample
from finetune.utils.errors import ListError, RecipeError
from finetune.utils.paths import expand_path, is_file, is_folder, read_text

_METERS_PER_UNIT = 1.0 / 256.0  # the depth benchmark's unit; 0 = no return

# From P_rect_02 and S_rect_02 of each day's calibration; P_rect_03 has the same focal lengths and center.
# day -> focal_px, cx_px, cy_px, height, width
_CALIBRATIONS = {
    "2011_09_26": (721.5377, 609.5593, 172.8540, 375, 1242),
    "2011_09_28": (707.0493, 604.0814, 180.5066, 370, 1224),
    "2011_09_29": (718.3351, 600.3891, 181.5122, 374, 1238),
    "2011_09_30": (707.0912, 601.8873, 183.1104, 370, 1226),
    "2011_10_03": (718.8560, 607.1928, 185.2157, 376, 1241),
}
_AS_PUBLISHED = "Take the files as they were published; read resized or cropped copies with reader pairs and intrinsics"
# A folder of the archive data_depth_selection.
_BENCHMARK = "depth_selection/val_selection_cropped"
_DAY_OF_DRIVE = re.compile(r"(\d{4}_\d\d_\d\d)_drive_\d{4}")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Kitti(ListedFrames):
    """KITTI with annotated depth: uint16 PNG, value / 256 = meters, 0 = invalid; about a fifth of the pixels valid.

    Layout: ``raw/<day>/<drive>/image_02/data/N.png`` and, below ``train``, ``val`` or nothing of
    ``data_depth_annotated``, ``<drive>/proj_depth/groundtruth/image_02/N.png``. The Eigen split takes frames from both
    folders: 491 of its 652 test frames are in ``train``, 161 in ``val``.

    ``split: eigen_train`` is the 23,158 frames of BTS and ZoeDepth, ``split: eigen_test`` the 652 of 697 that have
    annotated depth. Frames are sorted by drive and number; those of a list keep its order. The camera is that of
    ``<image root>/<day>/calib_cam_to_cam.txt`` if the file exists, else that of the day in a table. Making the reader
    opens nothing.

    ``split: benchmark_val`` is ``val_selection_cropped`` of the depth benchmark, 1,000 frames of 352x1216, each with
    a file of intrinsics; ``root`` then holds its ``depth_selection``.

    ``crop: kb`` cuts the bottom 352 rows and the middle 1216 columns out of every frame; the camera moves along.
    """

    root: str  # folder that holds raw and data_depth_annotated
    image_root: str | None = None  # folder of the days, if it is not <root>/raw
    depth_root: str | None = None  # folder of the annotated depth, if it is not <root>/data_depth_annotated
    split: Literal["eigen_train", "eigen_test", "benchmark_val"] | None = None  # needed unless list is given
    crop: Literal["none", "kb"] = "none"  # kb: 352x1216 of each frame; protocols crop by themselves
    list: str | None = None  # list of Eigen form instead of the split: `rgb depth focal`, depth None is left out
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
        if self.split == "benchmark_val" and self.list is None:
            if not is_folder(Path(self._benchmark, "groundtruth_depth")):
                raise RecipeError("root", self.root, f"a folder that holds {_BENCHMARK}, as the archive unpacks")
            return
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
        intrinsics = self._intrinsics_of(index, image_path)
        sample = read_frame(image_path, depth_path, coding, intrinsics, levels=self.image_levels, network=self.network)
        return sample if self.crop == "none" else crop_kb(sample, fix="Set crop: none, or take larger frames")

    def _intrinsics_of(self, index: int, image_path: str) -> Intrinsics | None:
        if self.split == "benchmark_val" and self.list is None:
            return _benchmark_intrinsics(Path(image_path))
        name = self._listing.pairs[index][0]
        match = _DAY_OF_DRIVE.search(name)
        if match is None:
            return None
        camera = 3 if "image_03" in name else 2
        return self._read_calibration(match[1], camera) or _intrinsics_of_day(name)

    def _read_calibration(self, day: str, camera: int) -> Intrinsics | None:
        """From the calibration file of the day; None if it does not exist."""
        if (day, camera) not in self._calibrations:
            path = Path(self._image_root, day, "calib_cam_to_cam.txt")
            self._calibrations[day, camera] = _parse_calibration(path, camera) if is_file(path) else None
        return self._calibrations[day, camera]

    @cached_property
    def _calibrations(self) -> dict[tuple[str, int], Intrinsics | None]:
        """(day, camera) -> intrinsics, of those asked for so far."""
        return {}

    @property
    def _benchmark(self) -> str:
        root = expand_path(self.root)
        return str(root if root.name == Path(_BENCHMARK).name else root / _BENCHMARK)

    @property
    def _image_root(self) -> str:
        return str(expand_path(self.image_root or Path(self.root, "raw")))

    @property
    def _depth_root(self) -> str:
        return str(expand_path(self.depth_root or Path(self.root, "data_depth_annotated")))

    @cached_property
    def _listing(self) -> Listing:
        if self.list is not None:
            path = locate(self.root, self.list)
            rows = ((line, image.lstrip("/"), depth.lstrip("/")) for line, image, depth in read_list(path))
            rows_below = ((line, image, self._below_split(depth)) for line, image, depth in rows if depth != "None")
            return Listing.of_list(path, rows_below, self._image_root, self._depth_root)
        if self.split == "benchmark_val":
            return self._benchmark_listing()
        frames = split_frames(f"kitti_{self.split}")
        self._require_drives({drive for drive, _ in frames})
        # All frames of the published lists are of the left color camera.
        pairs = [
            (
                f"{drive[:10]}/{drive}/image_02/data/{frame:010}.png",
                self._below_split(f"{drive}/proj_depth/groundtruth/image_02/{frame:010}.png"),
            )
            for drive, frame in frames
        ]
        return Listing(pairs=pairs, image_root=self._image_root, depth_root=self._depth_root)

    def _benchmark_listing(self) -> Listing:
        """
        Raises:
            ListError: the folder of depth maps holds none.
        """
        folder = Path(self._benchmark, "groundtruth_depth")
        depths = sorted(path.name for path in folder.glob("*_groundtruth_depth_*.png"))
        if not depths:
            raise ListError(folder, "holds no *_groundtruth_depth_*.png", f"Unpack {_BENCHMARK} there")
        pairs = [
            (f"image/{name.replace('_groundtruth_depth_', '_image_')}", f"groundtruth_depth/{name}") for name in depths
        ]
        return Listing(pairs=pairs, image_root=self._benchmark, depth_root=self._benchmark)

    def _below_split(self, depth: str) -> str:
        """A depth path with ``train/`` or ``val/`` before it, if its drive is in that folder."""
        return self._split_folders.get(depth.partition("/")[0], "") + depth

    @cached_property
    def _split_folders(self) -> dict[str, str]:
        """Drive -> ``train/`` or ``val/``."""
        return {
            drive.name: f"{folder}/"
            for folder in ("train", "val")
            if is_folder(Path(self._depth_root, folder))
            for drive in list_entries(Path(self._depth_root, folder))
        }

    def _require_drives(self, drives: set[str]) -> None:
        """
        Raises:
            ListError: a drive of the split is missing, among the images or the depth maps.
        """
        images = {drive for drive in drives if is_folder(Path(self._image_root, drive[:10], drive))}
        depths = {drive for drive in drives if is_folder(Path(self._depth_root, self._below_split(drive)))}
        for folder, found in ((self._image_root, images), (self._depth_root, depths)):
            missing = sorted(drives - found)
            if missing:
                raise ListError(
                    folder,
                    f"{len(missing)} of the {len(drives)} drives of split {self.split} are missing, {missing[0]} first",
                    "Unpack them there, or name the frames you have in a list file as list",
                )


def _intrinsics_of_day(image_path: str) -> Intrinsics | None:
    """The camera of the day with which the drive's name begins; None if the path names no known day."""
    match = _DAY_OF_DRIVE.search(image_path)
    if match is None or match[1] not in _CALIBRATIONS:
        return None
    focal_px, cx_px, cy_px, height, width = _CALIBRATIONS[match[1]]
    return Intrinsics(
        camera=Camera(fx_px=focal_px, fy_px=focal_px, cx_px=cx_px, cy_px=cy_px),
        height=height,
        width=width,
        source=f"KITTI of {match[1]}",
        fix=_AS_PUBLISHED,
    )


def _parse_calibration(path: Path, camera: int) -> Intrinsics:
    """
    Args:
        path: ``calib_cam_to_cam.txt``, a line ``P_rect_02: `` and twelve numbers, row by row, ``S_rect_02: `` and two.
        camera: 2, left, or 3, right.

    Raises:
        ListError: it has no such lines.
    """
    try:
        lines = (line.partition(":") for line in read_text(path).splitlines())
        values = {key: text.split() for key, _, text in lines}
        projection = [float(number) for number in values[f"P_rect_{camera:02}"]]
        width, height = (int(float(number)) for number in values[f"S_rect_{camera:02}"])
        found = Camera(fx_px=projection[0], fy_px=projection[5], cx_px=projection[2], cy_px=projection[6])
    except (OSError, ValueError, KeyError, IndexError) as error:
        fix = "Unpack the calibration of the day again, or remove the file"
        raise ListError(path, f"has no P_rect and S_rect of camera {camera} ({error})", fix) from error
    return Intrinsics(camera=found, height=height, width=width, source=str(path), fix=_AS_PUBLISHED)


def _benchmark_intrinsics(image: Path) -> Intrinsics | None:
    """From the file of nine numbers, row by row, that the benchmark has for each image; None if it is missing."""
    path = image.parent.parent / "intrinsics" / f"{image.stem}.txt"
    if not is_file(path):
        return None
    try:
        fx, _, cx, _, fy, cy, *_ = (float(number) for number in read_text(path).split())
    except (OSError, ValueError) as error:
        raise ListError(path, f"is no file of nine numbers ({error})", "Unpack the benchmark again") from error
    camera = Camera(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy)
    return Intrinsics(camera=camera, height=KB_HEIGHT, width=KB_WIDTH, source=str(path), fix=_AS_PUBLISHED)
