"""NYU Depth V2 in the layout of BTS and ZoeDepth: folders of scenes with color JPEG and 16-bit depth PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.data.camera import Camera
from finetune.data.readers.files import DepthCoding, read_frame, require_depth_range
from finetune.data.readers.intrinsics import Intrinsics
from finetune.data.readers.listing import ListedFrames, Listing, locate, read_list, require_file, require_folder
from finetune.data.readers.nyuv2_labeled import LabeledFile, labeled_frame_numbers
from finetune.data.readers.splits import split_frames
from finetune.data.sample import DepthSample
from finetune.utils.errors import ListError, RecipeError
from finetune.utils.paths import expand_path, is_folder

# The values that UniDepth and Metric3D use for this layout, for 480x640 images.
_INTRINSICS = Intrinsics(
    camera=Camera(fx_px=518.8579, fy_px=519.46961, cx_px=325.58245, cy_px=253.73617),
    height=480,
    width=640,
    source="NYU Depth V2",
    fix="Take the files as they were published; read resized or cropped copies with reader pairs and their intrinsics",
)

# First and last row, first and last column inside the border, half-open: the training crop of zhyever's
# Monocular-Depth-Estimation-Toolbox.
_INSIDE = (45, 472, 43, 608)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class NyuV2(ListedFrames):
    """NYU Depth V2, ``<scene>/rgb_NNNNN.jpg`` with ``<scene>/sync_depth_NNNNN.png``: uint16 millimeters, 0 = invalid.

    ``split: train`` is the 24,231 frames of BTS and ZoeDepth (root: the unpacked ``sync``), ``split: test`` the 654
    of Eigen et al. (root: ``official_splits/test``). Frames are sorted by scene and number; those of a list keep its
    order. Training images have a white border, test images a black one: ``border`` keeps it, ignores its depth, or
    cuts it off. Making the reader opens nothing.

    ``labeled`` reads ``nyu_depth_v2_labeled.mat`` instead, 795 frames to train and 654 to test, meters as floats.
    """

    root: str  # folder that holds the folders of the scenes
    split: Literal["train", "test"] | None = None  # official split; needed unless list is given
    list: str | None = None  # list of BTS form instead of the split: `rgb depth focal`; a leading slash means root
    labeled: str | None = None  # the .mat of labeled frames, below root or from here; needs h5py
    filled: bool = False  # labeled alone: true reads depth with its holes filled, false as measured
    border: Literal["keep", "ignore", "crop"] = "keep"  # ignore: no depth there is valid; crop: keeps 427x565
    min_depth_m: float = 0.0  # depths up to this are not valid
    max_depth_m: float | None = 10.0  # depths beyond this are not valid; null for no limit

    def __post_init__(self) -> None:
        if self.split is None and self.list is None:
            raise RecipeError("split", None, "train or test, or a list file as list")
        if self.labeled is not None and self.list is not None:
            raise RecipeError("list", self.list, "nothing, since the labeled frames are chosen by split")
        if self.filled and self.labeled is None:
            raise RecipeError("filled", True, "false, since only labeled frames have filled depth")
        require_depth_range(self.min_depth_m, self.max_depth_m)

    def check_paths(self) -> None:
        """
        Raises:
            RecipeError: root or list is missing. Only existence is looked at.
        """
        require_folder("root", self.root)
        for key in ("list", "labeled"):
            if getattr(self, key) is not None:
                require_file(key, self.root, getattr(self, key))

    def __len__(self) -> int:
        return len(self._labeled_frames) if self.labeled is not None else super().__len__()

    def source(self, index: int) -> str:
        """The depth file of a frame, or the labeled file and the frame's number in it."""
        if self.labeled is None:
            return super().source(index)
        return f"{locate(self.root, self.labeled)}#{self._labeled_frames[index]}"

    def files(self, index: int) -> tuple[str, str] | None:
        """The image and the depth file of a frame; None for a labeled one, since one file holds them all."""
        return super().files(index) if self.labeled is None else None

    def __getitem__(self, index: int) -> DepthSample:
        """
        Raises:
            ListError: the list is malformed, or a scene or a file of this frame is missing.
            DataError: a file of this frame cannot be decoded, or is not of the size published.
        """
        if self.labeled is not None:
            return self._apply_border(self._read_labeled(index))
        image_path, depth_path = self._listing.files(index)
        coding = DepthCoding(meters_per_unit=0.001, min_depth_m=self.min_depth_m, max_depth_m=self.max_depth_m)
        return self._apply_border(
            read_frame(image_path, depth_path, coding, _INTRINSICS, levels=self.image_levels, network=self.network)
        )

    def _read_labeled(self, index: int) -> DepthSample:
        image, depth_m = self._labeled_file.read(self._labeled_frames[index])
        most_m = np.inf if self.max_depth_m is None else self.max_depth_m
        valid = np.isfinite(depth_m) & (depth_m > self.min_depth_m) & (depth_m <= most_m)
        camera = _INTRINSICS.camera_of((image.shape[0], image.shape[1]), self.source(index))
        return DepthSample(image=image, depth_m=depth_m, valid=valid, source=self.source(index), camera=camera)

    def _apply_border(self, sample: DepthSample) -> DepthSample:
        """The sample with its border kept, ignored or cut off, as ``border`` says."""
        if self.border == "keep":
            return sample
        top, bottom, left, right = _INSIDE
        if self.border == "crop":
            return sample.window(top, left, bottom - top, right - left)
        inside = np.zeros_like(sample.valid)
        inside[top:bottom, left:right] = True
        return replace(sample, valid=sample.valid & inside)

    @cached_property
    def _labeled_frames(self) -> Sequence[int]:
        return labeled_frame_numbers(self.split or "train")

    @cached_property
    def _labeled_file(self) -> LabeledFile:
        assert self.labeled is not None
        return LabeledFile(path=locate(self.root, self.labeled), filled=self.filled)

    @cached_property
    def _listing(self) -> Listing:
        root = str(expand_path(self.root))
        if self.list is not None:
            path = locate(self.root, self.list)
            rows = ((line, image.lstrip("/"), depth.lstrip("/")) for line, image, depth in read_list(path))
            return Listing.of_list(path, rows, root, root)
        frames = split_frames(f"nyuv2_{self.split}")
        scenes = sorted({scene for scene, _ in frames})
        missing = [scene for scene in scenes if not is_folder(Path(root, scene))]
        if missing:
            raise ListError(
                root,
                f"{len(missing)} of the {len(scenes)} scenes of split {self.split} are missing, {missing[0]} first",
                "Set root to the folder that holds the scenes, or name the frames you have in a list file",
            )
        pairs = [(f"{scene}/rgb_{frame:05}.jpg", f"{scene}/sync_depth_{frame:05}.png") for scene, frame in frames]
        return Listing(pairs=pairs, image_root=root, depth_root=root)
