"""NYU Depth V2 in the PNG layout of BTS and ZoeDepth: folders of scenes, color JPEG beside 16-bit depth."""

from __future__ import annotations

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

# The values that UniDepth and Metric3D use for this layout, for 480x640 images.
_INTRINSICS = Intrinsics(
    camera=Camera(fx_px=518.8579, fy_px=519.46961, cx_px=325.58245, cy_px=253.73617),
    height=480,
    width=640,
    source="NYU Depth V2",
    fix="Take the files as they were published; read resized or cropped copies with reader pairs and their intrinsics",
)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class NyuV2(ListedFrames):
    """NYU Depth V2, ``<scene>/rgb_NNNNN.jpg`` with ``<scene>/sync_depth_NNNNN.png``: uint16 millimeters, 0 = invalid.

    ``split: train`` is the 24,231 frames of BTS and ZoeDepth (root: the unpacked ``sync``), ``split: test`` the 654
    of Eigen et al. (root: ``official_splits/test``). Frames are sorted by scene and number; those of a list stand in
    the order of the list: the same each time. Training images have a white border, test images a black one; it is
    handed out as it is. Making the reader opens nothing.
    """

    root: str  # folder that holds the folders of the scenes
    split: Literal["train", "test"] | None = None  # official split; needed unless list is given
    list: str | None = None  # list of BTS form instead of the split: `rgb depth focal`, a leading slash means root
    min_depth_m: float = 0.0  # depths up to this are not valid
    max_depth_m: float | None = 10.0  # depths beyond this are not valid; null for no limit

    def __post_init__(self) -> None:
        if self.split is None and self.list is None:
            raise RecipeError("split", None, "train or test, or a list file as list")
        require_depth_range(self.min_depth_m, self.max_depth_m)

    def check_paths(self) -> None:
        """
        Raises:
            RecipeError: root or list is missing. Only existence is looked at.
        """
        require_folder("root", self.root)
        if self.list is not None:
            require_file("list", self.root, self.list)

    def __getitem__(self, index: int) -> DepthSample:
        """
        Raises:
            ListError: the list is malformed, or a scene or a file of this frame is missing.
            DataError: a file of this frame cannot be decoded, or is not of the size published.
        """
        image_path, depth_path = self._listing.files(index)
        coding = DepthCoding(meters_per_unit=0.001, min_depth_m=self.min_depth_m, max_depth_m=self.max_depth_m)
        return read_frame(image_path, depth_path, coding, _INTRINSICS)

    @cached_property
    def _listing(self) -> Listing:
        root = str(Path(self.root).expanduser())
        if self.list is not None:
            path = locate(self.root, self.list)
            rows = ((line, image.lstrip("/"), depth.lstrip("/")) for line, image, depth in read_list(path))
            return Listing.of_list(path, rows, root, root)
        frames = split_frames(f"nyuv2_{self.split}")
        scenes = sorted({scene for scene, _ in frames})
        missing = [scene for scene in scenes if not Path(root, scene).is_dir()]
        if missing:
            raise ListError(
                root,
                f"{len(missing)} of the {len(scenes)} scenes of split {self.split} are missing, {missing[0]} first",
                "Set root to the folder that holds the scenes, or name the frames you have in a list file",
            )
        pairs = [(f"{scene}/rgb_{frame:05}.jpg", f"{scene}/sync_depth_{frame:05}.png") for scene, frame in frames]
        return Listing(pairs=pairs, image_root=root, depth_root=root)
