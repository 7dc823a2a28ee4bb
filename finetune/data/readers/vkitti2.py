"""Virtual KITTI 2: rendered streets, five scenes in ten variations, depth in centimeters."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.data.readers.files import DepthCoding, read_frame
from finetune.data.readers.intrinsics import Intrinsics, read_intrinsics
from finetune.data.readers.listing import (
    ListedFrames,
    Listing,
    list_entries,
    locate,
    require_file,
    require_folder,
    require_folder_below,
)
from finetune.data.sample import DepthSample
from finetune.utils.errors import ListError, RecipeError
from finetune.utils.paths import expand_path, is_folder

# Splits are whole scenes, since neighboring frames and the variations of a scene are nearly the same picture. Scene20
# is held out, as in Ultralytics.
SPLITS = {"train": ("Scene01", "Scene02", "Scene06", "Scene18"), "val": ("Scene20",)}
_CODING = DepthCoding(meters_per_unit=0.01)
_SKY_M = 655.345  # a raw 65535 is sky; the farthest distance is one unit below it


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Vkitti2(ListedFrames):
    """``<rgb>/SceneNN/<variation>/frames/rgb/Camera_N/rgb_NNNNN.jpg``, and depth likewise: uint16 PNG, centimeters.

    Raw 65535 is sky, farther than any measurement: ``out_of_range: ceiling`` teaches it, ``ignore`` leaves it out.
    Frames are sorted by scene, variation, camera and number. Folders are listed at first use; making the reader opens
    nothing.

    Source: Cabon et al. 2020, arXiv:2001.10773.
    """

    root: str  # folder that rgb and depth start from
    split: Literal["train", "val"] | None = None  # scenes 01, 02, 06, 18, or 20; needed unless scenes is given
    scenes: tuple[str, ...] | None = None  # names of scene folders, in place of a split, such as [Scene01]
    variations: tuple[str, ...] | None = None  # such as [clone, fog]; null: all variations found
    cameras: tuple[Literal[0, 1], ...] = (0, 1)  # left, right
    rgb: str = "."  # folder of the scenes' images below root; vkitti_2.0.3_rgb as the archive unpacks
    depth: str = "."  # folder of the scenes' depth below root; vkitti_2.0.3_depth as the archive unpacks
    intrinsics: str | None = None  # JSON with width, height, fx, fy, cx, cy in pixels, below root or from here

    def __post_init__(self) -> None:
        if self.split is None and not self.scenes:
            raise RecipeError("split", None, "train or val, or scenes such as [Scene01]")
        if self.split is not None and self.scenes is not None:
            raise RecipeError("scenes", list(self.scenes), "nothing, since split names them; leave out one of the two")
        if not self.cameras:
            raise RecipeError("cameras", [], "[0], [1] or [0, 1]")

    def check_paths(self) -> None:
        """
        Raises:
            RecipeError: a folder or file that the options name is missing. Only existence is looked at.
        """
        require_folder("root", self.root)
        for key in ("rgb", "depth"):
            require_folder_below(key, self.root, getattr(self, key))
        if self.intrinsics is not None:
            require_file("intrinsics", self.root, self.intrinsics)

    def __getitem__(self, index: int) -> DepthSample:
        """
        Raises:
            ListError: a scene or a file of this frame is missing.
            DataError: a file of this frame cannot be decoded, or sizes differ.
        """
        image_path, depth_path = self._listing.files(index)
        sample = read_frame(
            image_path, depth_path, _CODING, self._intrinsics, levels=self.image_levels, network=self.network
        )
        return replace(sample, depth_m=np.where(sample.depth_m >= _SKY_M, np.float32(np.inf), sample.depth_m))

    @property
    def _root(self) -> str:
        return str(expand_path(self.root))

    @cached_property
    def _intrinsics(self) -> Intrinsics | None:
        return None if self.intrinsics is None else read_intrinsics(locate(self.root, self.intrinsics))

    @cached_property
    def _listing(self) -> Listing:
        image_root, depth_root = Path(self._root, self.rgb), Path(self._root, self.depth)
        pairs = [
            (
                name,
                name.replace("/frames/rgb/", "/frames/depth/").replace("/rgb_", "/depth_").removesuffix("jpg") + "png",
            )
            for scene in self.scenes or SPLITS[self.split or "train"]
            for folder in self._image_folders(image_root, scene)
            for name in sorted(path.relative_to(image_root).as_posix() for path in folder.glob("rgb_*.jpg"))
        ]
        if not pairs:
            raise ListError(
                image_root, "holds no rgb_*.jpg of these scenes, variations and cameras", "Check rgb and root"
            )
        return Listing(pairs=pairs, image_root=str(image_root), depth_root=str(depth_root))

    def _image_folders(self, image_root: Path, scene: str) -> list[Path]:
        """The image folders of a scene, by variation and camera."""
        if not is_folder(image_root / scene):
            raise ListError(image_root, f"has no {scene}", "Unpack it there, set rgb, or name scenes that exist there")
        found = sorted(path.name for path in list_entries(image_root / scene) if is_folder(path))
        missing = [name for name in self.variations or () if name not in found]
        if missing:
            raise ListError(image_root / scene, f"has no variation {missing[0]}", f"Choose from {', '.join(found)}")
        return [
            image_root / scene / variation / "frames" / "rgb" / f"Camera_{camera}"
            for variation in self.variations or found
            for camera in self.cameras
        ]
