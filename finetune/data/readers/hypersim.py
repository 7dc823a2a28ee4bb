"""Hypersim: rendered rooms, as tone-mapped JPEG images with distances to the camera in HDF5."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.data.camera import Camera
from finetune.data.readers.files import DepthCoding, read_image_file, require_depth_range
from finetune.data.readers.intrinsics import Intrinsics
from finetune.data.readers.list_lines import read_rows
from finetune.data.readers.listing import ListedFrames, Listing, locate, require_file, require_folder
from finetune.data.sample import DepthSample
from finetune.utils.errors import DataError, ListError, RecipeError
from finetune.utils.paths import expand_path

# Every scene is usually read with this camera, 768x1024; a few scenes with a shifted lens differ from it.
_FOCAL_PX, _HEIGHT, _WIDTH = 886.81, 768, 1024
_INTRINSICS = Intrinsics(
    camera=Camera(fx_px=_FOCAL_PX, fy_px=_FOCAL_PX, cx_px=(_WIDTH - 1) / 2, cy_px=(_HEIGHT - 1) / 2),
    height=_HEIGHT,
    width=_WIDTH,
    source="Hypersim",
    fix="Take the files as they were published; read resized copies with reader pairs, depth_is: range and intrinsics",
)
_SPLIT_FILE = "metadata_images_split_scene_v1.csv"
_COLUMNS = ("scene_name", "camera_name", "frame_id", "included_in_public_release", "split_partition_name")
_TAKE_CSV = "Take the CSV of the data set's repository"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Hypersim(ListedFrames):
    """Frames of the published split: ``<scene>/images/scene_<camera>_{final_preview,geometry_hdf5}/frame.NNNN...``.

    The HDF5 files hold the distance to the camera's center, meters, NaN = invalid; it becomes depth along the optical
    axis by ``Camera.depth_from_ray``. Frames keep the order of the split file. Making the reader opens nothing.

    Source: Roberts et al. 2021, arXiv:2011.02523; that the files hold distances: issues of apple/ml-hypersim.
    """

    root: str  # folder that holds the folders of the scenes
    split: Literal["train", "val", "test"]  # as in the split file; no scene is in two splits
    split_file: str = _SPLIT_FILE  # the data set's own CSV, below root or from the current directory
    min_depth_m: float = 0.0  # depths up to this are not valid
    max_depth_m: float | None = None  # depths beyond this are not valid; null for no limit

    def __post_init__(self) -> None:
        require_depth_range(self.min_depth_m, self.max_depth_m)

    def check_paths(self) -> None:
        """
        Raises:
            RecipeError: root or the split file is missing, or HDF5 cannot be read here. Only existence is looked at.
        """
        require_folder("root", self.root)
        require_file("split_file", self.root, self.split_file)
        try:
            import h5py  # noqa: F401
        except ImportError:
            fix = "a machine with h5py, which reads its depth: pip install -e '.[hdf5]'"
            raise RecipeError("reader", "hypersim", fix) from None

    def __getitem__(self, index: int) -> DepthSample:
        """
        Raises:
            ListError: the split file is malformed, or a file of this frame is missing.
            DataError: a file of this frame cannot be decoded, or is not of the size published.
        """
        image_path, depth_path = self._listing.files(index)
        image = read_image_file(image_path, levels=self.image_levels, network=self.network)
        ray_m = _read_hdf5(depth_path)
        camera = _INTRINSICS.camera_of(image.size, image_path)
        if ray_m.shape != image.size:
            raise DataError(depth_path, f"has {ray_m.shape} distances, its image {image.size} pixels", _INTRINSICS.fix)
        known = np.isfinite(ray_m)
        depth_m = camera.depth_from_ray(np.where(known, ray_m, 0.0).astype(np.float32))
        coding = DepthCoding(meters_per_unit=1.0, min_depth_m=self.min_depth_m, max_depth_m=self.max_depth_m)
        depth_m, valid = coding.to_meters(depth_m)
        return DepthSample(
            image=image.pixels,
            depth_m=depth_m,
            valid=valid & known,
            source=depth_path,
            camera=camera,
            image_scale=image.scale,
        )

    @cached_property
    def _listing(self) -> Listing:
        path, root = locate(self.root, self.split_file), str(expand_path(self.root))
        rows = [(number, *files) for number, files in _files_of_split(path, self.split)]
        if not rows:
            raise ListError(path, f"names no frame of split {self.split}", _TAKE_CSV)
        return Listing.of_list(path, rows, root, root)


def _files_of_split(path: str, split: str) -> Iterator[tuple[int, tuple[str, str]]]:
    """(line number, (image, depth) below root) of each frame that was released in a split."""
    for number, (scene, camera, frame_id, released, row_split) in read_rows(path, _COLUMNS, fix=_TAKE_CSV):
        if released != "True":
            continue
        if not frame_id.isdecimal():
            raise ListError(f"{path}:{number}", f"has a frame_id that is no whole number, {frame_id!r}", _TAKE_CSV)
        if row_split == split:
            folder, frame = f"{scene}/images/scene_{camera}", f"frame.{int(frame_id):04}"
            image = f"{folder}_final_preview/{frame}.tonemap.jpg"
            yield number, (image, f"{folder}_geometry_hdf5/{frame}.depth_meters.hdf5")


def _read_hdf5(path: str) -> NDArray[np.float32]:
    """(H, W) distances, the only data set of the file."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return np.asarray(file["dataset"], dtype=np.float32)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            path, f"is damaged, or no HDF5 file with `dataset` ({error})", "Write it again, or leave the frame out"
        ) from None
