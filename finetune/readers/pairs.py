"""Frames of your own sensor: images beside depth maps, as a list file or as two folders."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.errors import RecipeError
from finetune.readers.files import DepthCoding, Intrinsics, read_frame, read_intrinsics, require_depth_range
from finetune.readers.listing import (
    ListedFrames,
    Listing,
    locate,
    match_by_stem,
    read_list,
    require_file,
    require_folder,
)
from finetune.sample import DepthSample


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Pairs(ListedFrames):
    """Images and depth maps of one size, registered to each other, in any folders.

    A list file names a frame a line, ``image depth``, paths below ``root``; without a list, the files of ``image_dir``
    and ``depth_dir`` that have one stem are a frame. Frames stand in the order of the list, or sorted by stem: the same
    each time. Making the reader opens nothing; the list is read at first use, a frame when it is asked for.

    A pixel is valid where its raw value is finite, none of ``invalid``, and its depth is above ``min_depth_m`` and at
    most ``max_depth_m``. Values beyond ``max_depth_m`` stay in ``depth_m``, not valid.
    """

    root: str  # folder that the paths of the list, and the two folders, start from
    meters_per_unit: float  # raw depth times this is meters: 0.001 for millimeters, 1.0 for meters, 0.0002 for TUM
    list: str | None = None  # list file, below root or from the current directory
    image_dir: str | None = None  # folder of the images below root, when there is no list
    depth_dir: str | None = None  # folder of the depth maps below root, when there is no list
    invalid: tuple[float, ...] = (0.0,)  # raw values that mean "nothing measured"; often 0, sometimes 65535 too
    min_depth_m: float = 0.0  # depths up to this are not valid: the near end of the sensor
    max_depth_m: float | None = None  # depths beyond this are not valid: the far end of the sensor; null for no limit
    depth_is: Literal["z", "range", "disparity"] = "z"  # z: along the optical axis; the other two come later
    intrinsics: str | None = None  # JSON with width, height, fx, fy, cx, cy in pixels, below root or from here

    def __post_init__(self) -> None:
        if not 0.0 < self.meters_per_unit < math.inf:
            raise RecipeError("meters_per_unit", self.meters_per_unit, "a number above 0; 0.001 for millimeters")
        require_depth_range(self.min_depth_m, self.max_depth_m)
        if self.depth_is != "z":
            raise RecipeError(
                "depth_is", self.depth_is, "z, depth along the optical axis; range and disparity come later"
            )
        for key, folder in (("image_dir", self.image_dir), ("depth_dir", self.depth_dir)):
            if self.list is None and folder is None:
                raise RecipeError(key, None, "a folder below root, since there is no list; or give a list file as list")
            if self.list is not None and folder is not None:
                raise RecipeError(key, folder, "nothing, since list names the pairs; leave out one of the two")

    def check_paths(self) -> None:
        """
        Raises:
            RecipeError: a folder or file that the options name is missing. Only existence is looked at.
        """
        require_folder("root", self.root)
        if self.list is not None:
            require_file("list", self.root, self.list)
        for key, folder in (("image_dir", self.image_dir), ("depth_dir", self.depth_dir)):
            if folder is not None and not Path(self._root, folder).is_dir():
                raise RecipeError(key, folder, f"an existing folder below {self.root}")
        if self.intrinsics is not None:
            require_file("intrinsics", self.root, self.intrinsics)

    def __getitem__(self, index: int) -> DepthSample:
        """
        Raises:
            ListError: the list or the folders do not give pairs, or a file of this frame is missing.
            DataError: a file of this frame cannot be decoded, or sizes differ.
        """
        image_path, depth_path = self._listing.files(index)
        return read_frame(image_path, depth_path, self._coding, self._intrinsics)

    @property
    def _root(self) -> str:
        return str(Path(self.root).expanduser())

    @property
    def _coding(self) -> DepthCoding:
        return DepthCoding(
            meters_per_unit=self.meters_per_unit,
            invalid=self.invalid,
            min_depth_m=self.min_depth_m,
            max_depth_m=self.max_depth_m,
        )

    @cached_property
    def _intrinsics(self) -> Intrinsics | None:
        return None if self.intrinsics is None else read_intrinsics(locate(self.root, self.intrinsics))

    @cached_property
    def _listing(self) -> Listing:
        if self.list is not None:
            path = locate(self.root, self.list)
            return Listing.of_list(path, read_list(path), self._root, self._root)
        assert self.image_dir is not None and self.depth_dir is not None
        image_root, depth_root = str(Path(self._root, self.image_dir)), str(Path(self._root, self.depth_dir))
        return Listing(pairs=match_by_stem(image_root, depth_root), image_root=image_root, depth_root=depth_root)
