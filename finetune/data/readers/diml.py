"""DIML/CVL RGB-D: rooms by Kinect v2, streets by a ZED stereo camera; depth in millimeters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.data.readers.files import DepthCoding, read_depth, read_frame, require_depth_range
from finetune.data.readers.intrinsics import Intrinsics, read_intrinsics
from finetune.data.readers.listing import (
    ListedFrames,
    Listing,
    list_entries,
    locate,
    raise_closed,
    read_list,
    require_file,
    require_folder,
)
from finetune.data.sample import DepthSample
from finetune.utils.errors import DataError, ListError, RecipeError
from finetune.utils.paths import expand_path, is_file, is_folder

_METERS_PER_UNIT = 0.001
MAX_CONFIDENCE = 255


class _Layout(NamedTuple):
    """Names of the image folder and the depth folder in the folder of a scene, and endings of their files."""

    image_dir: str
    image_ending: str
    depth_dir: str
    depth_ending: str | None  # None: any ending after the stem of the image


# Layouts of the sample set, then of the full set, as they are downloaded.
_LAYOUTS = {
    "indoor": (
        _Layout("color", "_c.png", "depth_filled", "_depth_filled.png"),
        _Layout("col", "_c.png", "up_png", None),
    ),
    "outdoor": (_Layout("outleft", ".png", "depthmap", ".png"), _Layout("left", "_left.png", "depth", "_depth.png")),
}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Diml(ListedFrames):
    """Images and depth maps in folders of scenes anywhere below ``root``: uint16 PNG, millimeters, 0 = invalid.

    Indoor: ``color/*_c.png`` and ``depth_filled/*_depth_filled.png`` of the sample set, ``col/*_c.png`` and
    ``up_png`` of the full one. Outdoor: ``outleft`` and ``depthmap``, or ``left/*_left.png`` and
    ``depth/*_depth.png``. A folder next to them whose name begins with ``conf`` holds the confidence of the stereo
    match, 0 to 255; pixels up to the share ``confidence`` of 255 are not valid.

    ``split`` is the folder ``train`` or ``test`` below ``root``, ``quality`` the folder ``HR`` or ``LR`` below that, if
    the archive has them. Frames are sorted by path. Making the reader opens nothing.

    Source: Cho et al. 2021, arXiv:2110.11590; the names of the folders are those in public loaders.
    """

    root: str  # folder of the data set, or of a part of it
    scene: Literal["indoor", "outdoor"]  # which of the two sets
    split: Literal["train", "test"] | None = None  # folder of this name below root; null: all below root
    quality: Literal["HR", "LR"] | None = None  # folder of this name; indoor 756x1344 or 288x512, outdoor 1080x1920 ...
    list: str | None = None  # list file with `image depth` per line, below root, instead of the folders
    confidence: float | None = 0.6  # outdoor: share of 255 that a pixel's confidence must exceed; null: take all pixels
    min_depth_m: float = 0.0  # depths up to this are not valid
    max_depth_m: float | None = None  # depths beyond this are not valid; null for no limit
    intrinsics: str | None = None  # JSON with width, height, fx, fy, cx, cy in pixels, below root or from here

    def __post_init__(self) -> None:
        require_depth_range(self.min_depth_m, self.max_depth_m)
        if self.confidence is not None and not 0 <= self.confidence < 1:
            raise RecipeError("confidence", self.confidence, "a share from 0 to below 1, such as 0.6, or null")

    def check_paths(self) -> None:
        """
        Raises:
            RecipeError: a folder or file that the options name is missing. Only existence is looked at.
        """
        require_folder("root", self.root)
        for key in ("split", "quality"):
            name = getattr(self, key)
            if name is not None and self.list is None and not self._folders(name):
                raise RecipeError(key, name, f"a folder of this name below {self.root}, or null")
        for key in ("list", "intrinsics"):
            if getattr(self, key) is not None:
                require_file(key, self.root, getattr(self, key))

    def __getitem__(self, index: int) -> DepthSample:
        """
        Raises:
            ListError: there is no frame, or a file of this one is missing.
            DataError: a file of this frame cannot be decoded, or sizes differ.
        """
        image_path, depth_path = self._listing.files(index)
        coding = DepthCoding(
            meters_per_unit=_METERS_PER_UNIT, min_depth_m=self.min_depth_m, max_depth_m=self.max_depth_m
        )
        sample = read_frame(
            image_path, depth_path, coding, self._intrinsics, levels=self.image_levels, network=self.network
        )
        if self.scene == "indoor" or self.confidence is None:
            return sample
        confidence = self._read_confidence(Path(depth_path), sample.valid.shape)
        return replace(sample, valid=sample.valid & (confidence > self.confidence * MAX_CONFIDENCE))

    def _read_confidence(self, depth_path: Path, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """
        (H, W), 0 to 255: the confidence map of a depth map.

        Raises:
            DataError: the depth map has none, or it has another size.
        """
        stem = depth_path.stem.removesuffix("_depth")
        scene = depth_path.parent.parent
        folders = [path for path in list_entries(scene) if is_folder(path) and path.name.lower().startswith("conf")]
        names = [f"{stem}.png", f"{stem}_conf.png", f"{depth_path.stem}.png"]
        found = next((folder / name for folder in folders for name in names if is_file(folder / name)), None)
        if found is None:
            raise DataError(
                depth_path,
                f"has no confidence map in a folder conf... below {scene}",
                "Unpack it there, or set confidence: null to take all pixels",
            )
        confidence = read_depth(found)
        if confidence.shape != shape:
            sizes = f"{confidence.shape[0]}x{confidence.shape[1]}, its depth map {shape[0]}x{shape[1]}"
            raise DataError(found, f"is {sizes}", "Unpack both of one quality")
        return np.asarray(confidence, dtype=np.float64)

    @property
    def _root(self) -> str:
        return str(expand_path(self.root))

    @cached_property
    def _intrinsics(self) -> Intrinsics | None:
        return None if self.intrinsics is None else read_intrinsics(locate(self.root, self.intrinsics))

    def _folders(self, name: str) -> Sequence[Path]:
        """Folders of this name, at most two levels below the root."""
        root = Path(self._root)
        return [path for pattern in (name, f"*/{name}") for path in sorted(root.glob(pattern)) if is_folder(path)]

    @cached_property
    def _listing(self) -> Listing:
        if self.list is not None:
            path = locate(self.root, self.list)
            return Listing.of_list(path, read_list(path), self._root, self._root)
        root, wanted = Path(self._root), {name for name in (self.split, self.quality) if name}
        pairs: list[tuple[str, str]] = []
        # A closed folder of what is not asked for is no reason to stop.
        others = {"train", "test"} - wanted if self.split else set()
        others |= {"HR", "LR"} - wanted if self.quality else set()

        def refuse(error: OSError) -> None:
            if not others & set(Path(error.filename).relative_to(root).parts):
                raise_closed(error)

        tree = [Path(name, inner) for name, folders, _ in os.walk(root, onerror=refuse) for inner in folders]
        for layout in _LAYOUTS[self.scene]:
            for folder in sorted(path for path in tree if path.name == layout.image_dir and is_folder(path)):
                if wanted <= set(folder.relative_to(root).parts):
                    pairs += _list_frames(root, folder, layout)
        if not pairs:
            parts = " and ".join(sorted(wanted))
            patterns = [f"{layout.image_dir}/*{layout.image_ending}" for layout in _LAYOUTS[self.scene]]
            raise ListError(
                root,
                f"holds no {' or '.join(patterns)}" + (f" below {parts}" if parts else ""),
                "Check root, scene, split and quality, or name the frames in a list file",
            )
        return Listing(pairs=sorted(pairs), image_root=self._root, depth_root=self._root)


def _list_frames(root: Path, folder: Path, layout: _Layout) -> list[tuple[str, str]]:
    """(image, depth) of each frame in a folder of images; paths below the root."""
    depths = folder.parent / layout.depth_dir
    ending = layout.depth_ending
    if ending is None:
        # The whole folder has the ending of its first file.
        first = next(iter(sorted(depths.glob("*_*.png"))), Path("_.png"))
        ending = f"_{first.name.rpartition('_')[2]}"
    found = []
    for image in sorted(folder.glob(f"*{layout.image_ending}")):
        depth = depths / f"{image.name.removesuffix(layout.image_ending)}{ending}"
        found.append((image.relative_to(root).as_posix(), depth.relative_to(root).as_posix()))
    return found
