"""Frames of your own sensor: images beside depth maps, as a list file or as two folders."""

from __future__ import annotations

import builtins
import math
import os
from array import array
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.data.camera import Camera
from finetune.data.reader import DepthIs
from finetune.data.readers.bits import Bits
from finetune.data.readers.channels import DepthChannels
from finetune.data.readers.files import DepthCoding, read_stored_frame, require_depth_range
from finetune.data.readers.intrinsics import Intrinsics, read_intrinsics_of_images
from finetune.data.readers.listing import (
    PATHS,
    ListedFrames,
    Listing,
    locate,
    read_columns,
    read_list,
    require_file,
    require_folder,
    require_other_file,
)
from finetune.data.readers.masks import STEM, eroded, read_mask, side_file
from finetune.data.readers.matching import match_frames
from finetune.data.readers.middlebury import require_offset_told
from finetune.data.readers.orientation import ExifTurns, Turn
from finetune.data.readers.sensors import SENSORS, Sensor, sensor_note
from finetune.data.sample import DepthSample
from finetune.utils.errors import DataError, ListError, RecipeError
from finetune.utils.paths import expand_path, is_file, is_folder, path_exists
from finetune.utils.text import percent

# What is a key of one ``depth_is`` alone, and which key says the unit of each.
_KEYS_OF: dict[tuple[str, ...], tuple[str, ...]] = {
    ("z", "range"): ("meters_per_unit",),
    ("disparity",): ("px_per_unit", "disparity_offset_px", "baseline_m", "focal_px"),
    ("inverse",): ("inverse_per_unit",),
}
_UNIT_OF = {
    "z": "meters_per_unit",
    "range": "meters_per_unit",
    "disparity": "px_per_unit",
    "inverse": "inverse_per_unit",
}
# The value of ``intrinsics`` that means columns of the list.
IN_LIST = "list"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Pairs(ListedFrames):
    """Images and depth maps of one size, registered to each other, in any folders.

    A list file names a frame a line, ``image depth``, paths below ``root``; without a list, the files of ``image_dir``
    and ``depth_dir`` that have one stem are a frame, or stems that differ in a word for their kind, as ``0412_color``
    and ``0412_depth``; then they may be one folder. Frames stand in the order of the list, or sorted by stem: the same
    each time. Making the reader opens nothing; the list is read at first use, a frame when it is asked for.

    ``bits`` says what the 16 bits of a file mean where they are no plain number: ``rotated`` by three places (SUN
    RGB-D, SUN3D), ``float16`` (Mid-Air; its unit is 1.0), or ``android_confidence`` in the three highest, of which
    pixels of confidence 0 % are not valid. ``invalid`` is of the numbers that they mean.

    A pixel is valid where its raw value is finite, none of ``invalid``, and its depth is above ``min_depth_m`` and at
    most ``max_depth_m``. Values beyond ``max_depth_m`` stay in ``depth_m``, not valid.

    Distance along the ray becomes depth by ``Camera.depth_from_ray``, or, where the intrinsics describe a lens, by its
    rays. Disparity becomes depth by focal length times baseline over disparity, as of a rectified pair of cameras; a
    disparity of 0 or less is infinitely far or no match, and not valid. ``disparity_offset_px`` is added before: the
    ``doffs`` of Middlebury, by which the principal points of the two cameras lie apart. Inverse depth becomes depth by
    one over it. ``affine_inverse`` is inverse depth of unknown scale and shift, as a relative model answers: each map
    becomes depth from 1 to 10, of no unit, for a relative head and a loss that scale and shift do not change.

    ``depth_channels`` says which channel of several is depth (``z`` of points x, y, z; ``r``, the first; ``gray``, with
    an alpha that is left aside), or that three of 8 bits make up one number: ``rgb24``, red lowest, as CARLA and
    SYNTHIA write it; ``bgr24``, blue lowest.

    An image with an EXIF tag is turned upright with its depth map, mask and intrinsics, as ``predict`` turns it. Depth
    that has the size of the upright image already is left as it is; where sizes do not tell, of a turn by 180 degrees
    or a square image, ``exif_turns`` does. ``mask_at_least`` is 1 or 2 of ARKit's confidence, 54 or 255 of Polycam's.

    Files of intrinsics and masks lie below ``root`` or in the current directory. Intrinsics of each image are JSON
    objects by its path below ``root``, file name or stem, or, as ``intrinsics: list``, the four columns fx, fy, cx, cy
    after the two paths. Sky is valid and infinitely far: ``out_of_range: ceiling`` teaches it, ``ignore`` leaves out.
    """

    root: str  # folder that the paths of the list, and the two folders, start from
    sensor: Sensor | None = None  # fills meters_per_unit and invalid where these are not given, and says so
    meters_per_unit: float | None = None  # raw depth times this is meters: 0.001 for millimeters, 1.0 for meters
    list: str | None = None  # list file, below root or from the current directory
    image_dir: str | None = None  # folder of the images below root, when there is no list
    depth_dir: str | None = None  # folder of the depth maps below root, when there is no list
    invalid: tuple[float, ...] | None = (
        None  # raw values that mean "nothing measured", [0, 65535]; null: [0], or sensor's
    )
    min_depth_m: float = 0.0  # depths up to this are not valid: the near end of the sensor
    max_depth_m: float | None = None  # depths beyond this are not valid: the far end of the sensor; null for no limit
    depth_is: DepthIs = "z"  # along the axis; the ray; disparity, with baseline_m; inverse, 1/m; inverse of no unit
    intrinsics: str | None = None  # JSON with width, height, fx, fy, cx, cy, in pixels, or one for each image; or: list
    bits: Bits | None = (
        None  # of 16-bit files: rotated, as SUN RGB-D; float16, as Mid-Air; android_confidence; null: plain
    )
    px_per_unit: float | None = None  # raw disparity times this is pixels: 1.0 (null) for pixels, 0.00390625 for 1/256
    disparity_offset_px: float | None = None  # added to the disparity, pixels: Middlebury's doffs; null: 0
    baseline_m: float | None = None  # meters between the two cameras that the disparity is of
    focal_px: float | None = None  # pixels; of disparity; null: fx of intrinsics
    inverse_per_unit: float | None = None  # of inverse: raw value times this is 1 / meters
    depth_channels: DepthChannels | None = None  # which of several is depth, or rgb24 | bgr24: 24 bits of three
    allow_8_bit: bool = False  # also read depth in 256 steps, whose unit is known; says how large a step is
    mask: str | None = None  # file for all frames; folder; *_mask.png by stem; or: list. What is 0 is not valid
    mask_at_least: float | None = None  # of a mask of confidence: lower values are not valid; null: 0 is not
    mask_at_most: float | None = None  # higher values are not valid, as of ZED, whose 100 is the least sure
    sky_mask: str | None = None  # as mask; what is not 0 is sky, farther than any measurement
    exif_turns: ExifTurns | None = None  # what an image's EXIF tag turns, both or image; null: told by the sizes
    min_valid_share: float = 0.0  # of a frame's pixels; one with fewer cannot be read: see data.on_bad_sample
    edge_erosion_px: int = 0  # leave out pixels so near to a hole or a jump of depth: of dense depth, whose edges fly
    reduce_image: bool = False  # bring larger images to the size of their depth map; both must show the same view

    def __post_init__(self) -> None:
        self._fill()
        self._require_own_keys()
        if self.depth_is == "disparity":
            self._require_stereo()
        elif self.depth_is == "inverse":
            self._require_above_0("inverse_per_unit", "a number above 0: raw value times this is 1 / meters")
        elif self.depth_is == "affine_inverse":
            self._require_no_limits()
        else:
            self._require_meters()
        require_depth_range(self.min_depth_m, self.max_depth_m)
        if not 0 <= self.min_valid_share < 1:
            raise RecipeError("min_valid_share", self.min_valid_share, "a share from 0 to below 1, such as 0.05")
        if not 0 <= self.edge_erosion_px <= 50:
            raise RecipeError("edge_erosion_px", self.edge_erosion_px, "pixels from 0 to 50, such as 2")
        if self.intrinsics == IN_LIST and self.list is None:
            raise RecipeError("intrinsics", IN_LIST, "a JSON file, since there is no list")
        self._require_masks()
        for key, folder in (("image_dir", self.image_dir), ("depth_dir", self.depth_dir)):
            if self.list is None and folder is None:
                raise RecipeError(key, None, "a folder below root, since there is no list; or give a list file as list")
            if self.list is not None and folder is not None:
                raise RecipeError(key, folder, "nothing, since list names the pairs; leave out one of the two")

    def _require_masks(self) -> None:
        for key in ("mask", "sky_mask"):
            if getattr(self, key) == IN_LIST and self.list is None:
                raise RecipeError(key, IN_LIST, f"a file or folder, or a name with {STEM}, since there is no list")
        for key in ("mask_at_least", "mask_at_most"):
            level = getattr(self, key)
            if level is not None and (self.mask is None or not math.isfinite(level)):
                raise RecipeError(key, level, "a number, beside mask; or leave it out")
        if None not in (self.mask_at_least, self.mask_at_most) and self.mask_at_least > self.mask_at_most:  # type: ignore[operator]
            raise RecipeError("mask_at_least", self.mask_at_least, f"at most mask_at_most, {self.mask_at_most:g}")

    def _fill(self) -> None:
        """Write out what ``sensor`` and the defaults leave open; what is given wins."""
        unit, invalid, _ = SENSORS[self.sensor] if self.sensor else (None, (0.0,), "")
        # Not filled for what is no meters.
        if self.meters_per_unit is None and self.depth_is in ("z", "range"):
            object.__setattr__(self, "meters_per_unit", unit)
        if self.invalid is None:
            # Of inverse depth of unknown shift, 0 may be as far as any other number.
            object.__setattr__(self, "invalid", () if self.depth_is == "affine_inverse" else invalid)

    def _require_own_keys(self) -> None:
        """Keys that say what the numbers of another ``depth_is`` are."""
        for kinds, keys in _KEYS_OF.items():
            for key in keys:
                if self.depth_is not in kinds and getattr(self, key) is not None:
                    other = _UNIT_OF.get(self.depth_is)
                    instead = f"write {other}" if other and key in _UNIT_OF.values() else "leave it out"
                    raise RecipeError(key, getattr(self, key), f"nothing, since depth_is is {self.depth_is}; {instead}")

    def _require_above_0(self, key: str, expected: str) -> None:
        value = getattr(self, key)
        if value is None or not 0.0 < value < math.inf:
            raise RecipeError(key, value, expected)

    def _require_no_limits(self) -> None:
        """Numbers without a unit lie at no distance."""
        for key, given in (("min_depth_m", self.min_depth_m > 0), ("max_depth_m", self.max_depth_m is not None)):
            if given:
                no_meters = f"nothing, since depth_is is {self.depth_is}, which has no meters; leave it out"
                raise RecipeError(key, getattr(self, key), no_meters)

    def _require_meters(self) -> None:
        self._require_above_0("meters_per_unit", "a number above 0; 0.001 for millimeters")
        if self.depth_is == "range" and self.intrinsics is None:
            raise RecipeError("intrinsics", None, "a JSON file, since depth_is is range: each ray has its own length")

    def _require_stereo(self) -> None:
        self._require_above_0("baseline_m", "a number of meters above 0")
        if self.px_per_unit is not None:
            self._require_above_0("px_per_unit", "a number above 0, or nothing")
        if self.disparity_offset_px is not None and not math.isfinite(self.disparity_offset_px):
            raise RecipeError("disparity_offset_px", self.disparity_offset_px, "a number of pixels, or nothing")
        if self.focal_px is None and self.intrinsics is None:
            raise RecipeError("focal_px", None, "pixels above 0, or intrinsics: disparity is in pixels of that camera")
        if self.focal_px is not None:
            self._require_above_0("focal_px", "pixels above 0, or intrinsics instead")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a sensor's name stands for, how coarse 8 bits are, and what disparity begins at, to be printed."""
        return (*self._note_on_sensor(), *self._note_on_8_bits(), *self._note_on_offset())

    def _note_on_offset(self) -> tuple[str, ...]:
        if self.depth_is != "disparity" or self.disparity_offset_px is not None:
            return ()
        return (
            f"{self.root}: disparity without disparity_offset_px is taken as 0 infinitely far; where a calibration "
            "names an offset (doffs), depth is too large without it",
        )

    def _note_on_8_bits(self) -> tuple[str, ...]:
        if not self.allow_8_bit:
            return ()
        if self.depth_is in ("z", "range"):
            step = f"{self.meters_per_unit:g} m, the farthest of 255 of them {255 * (self.meters_per_unit or 0):.4g} m"
        elif self.depth_is == "affine_inverse":
            step = "1/255 of the inverse depth of each map"
        else:
            unit = f"{self.px_per_unit or 1.0:g} px" if self.depth_is == "disparity" else f"{self.inverse_per_unit:g}/m"
            step = f"{unit}: a step of depth grows with its square"
        return (f"{self.root}: allow_8_bit: 8-bit depth has 255 steps, each {step}",)

    def _note_on_sensor(self) -> tuple[str, ...]:
        if self.sensor is None:
            return ()
        return (sensor_note(self.root, self.sensor, self.meters_per_unit, self.invalid or ()),)

    def check_paths(self) -> None:
        """
        Raises:
            RecipeError: a folder or file that the options name is missing. Only existence is looked at.
        """
        require_folder("root", self.root)
        if self.list is not None:
            require_file("list", self.root, self.list)
        for key, folder in (("image_dir", self.image_dir), ("depth_dir", self.depth_dir)):
            if folder is not None and not is_folder(Path(self._root, expand_path(folder))):
                raise RecipeError(key, folder, f"an existing folder below {self.root}")
        if self.intrinsics not in (None, IN_LIST):
            require_file("intrinsics", self.root, str(self.intrinsics))
        for key in ("mask", "sky_mask"):
            place = getattr(self, key)
            if place is None or place == IN_LIST:
                continue
            there = os.path.split(place)[0] if STEM in place else place
            if there and not path_exists(locate(self.root, there)):
                raise RecipeError(key, place, f"an existing file or folder, below {self.root} or from {Path.cwd()}")

    def __getitem__(self, index: int) -> DepthSample:
        """
        Raises:
            ListError: the list or the folders do not give pairs, or a file of this frame is missing.
            DataError: a file of this frame cannot be decoded, or sizes differ.
        """
        image_path, depth_path = self._listing.files(index)
        sides = {key: self._side_file(key, index, image_path, depth_path) for key in ("mask", "sky_mask")}
        intrinsics = self._intrinsics_of(index, image_path)
        if self.depth_is == "disparity" and intrinsics and intrinsics.lens:
            found = "describes a lens that bends rays, and disparity is of images that were rectified"
            raise ListError(intrinsics.source, found, "Name the intrinsics of the rectified images, or focal_px alone")
        if self.depth_is == "disparity" and self.disparity_offset_px is None:
            calibration = [locate(self.root, self.intrinsics)] if self.intrinsics not in (None, IN_LIST) else []
            require_offset_told(depth_path, image_path, *calibration)
        sample, turn = read_stored_frame(
            image_path,
            depth_path,
            self._coding,
            intrinsics,
            reduce_image=self.reduce_image,
            along_rays=self.depth_is == "range",
            levels=self.image_levels,
            exif_turns=self.exif_turns,
        )
        if self.depth_is != "z":
            sample = self._along_the_axis(sample)
        return turn.apply(self._masked(sample, turn, sides["mask"], sides["sky_mask"]))

    def _along_the_axis(self, sample: DepthSample) -> DepthSample:
        """The sample with depth where the files hold distance along the ray, disparity or inverse depth."""
        depth_m = sample.depth_m
        if self.depth_is in ("disparity", "inverse"):
            focal_px = self.focal_px or (sample.camera.fx_px if sample.camera else None)
            meters = self._depth_of(np.where(sample.valid, depth_m, 1.0), focal_px)
            depth_m = np.where(sample.valid, meters, 0.0).astype(np.float32)
        in_range = depth_m > self.min_depth_m
        if self.max_depth_m is not None:
            in_range &= depth_m <= self.max_depth_m
        # Without a unit there are no places in space, for which a camera would be.
        camera = None if self.depth_is == "affine_inverse" else sample.camera
        return replace(sample, depth_m=depth_m, valid=sample.valid & in_range, camera=camera)

    def _side_file(self, key: str, index: int, image_path: str, depth_path: str) -> Path | None:
        """
        The mask of a frame, if the entry has masks.

        Raises:
            ListError: it is the image or the depth map, or the list names none.
            DataError: there is none for this frame.
        """
        place: str | None = getattr(self, key)
        if place is None:
            return None
        if place != IN_LIST:
            path = side_file(place, self.root, image_path, depth_path)
        else:
            path = Path(self._root, expand_path(self._side_columns[key][index]))
            if not is_file(path):
                raise ListError(self._listing.place(index), f"{path} is no file", f"Correct the column of {key}")
        for other, what in ((image_path, "image"), (depth_path, "depth map")):
            require_other_file(path, other, self._listing.place(index), f"its {what} and its {key}")
        return path

    def _masked(self, sample: DepthSample, turn: Turn, mask: Path | None, sky_mask: Path | None) -> DepthSample:
        """
        The sample without what masks and edges take, and with sky.

        Raises:
            DataError: a mask is missing or of another size, or too little is left.
        """
        depth_m, valid = sample.depth_m, sample.valid
        if self.edge_erosion_px:
            valid = eroded(valid, depth_m, self.edge_erosion_px)
        if mask is not None:
            valid = valid & read_mask(mask, valid.shape, turn, self.mask_at_least, self.mask_at_most)
        share = float(valid.mean())
        if share < self.min_valid_share:
            raise DataError(
                sample.source,
                f"{percent(share, 2)} of it was measured, less than min_valid_share {self.min_valid_share:g}",
                "Leave the frame out of the list, or set data.on_bad_sample: skip",
            )
        if sky_mask is not None:
            sky = read_mask(sky_mask, valid.shape, turn)
            depth_m, valid = np.where(sky, np.float32(np.inf), depth_m), valid | sky
        return replace(sample, depth_m=depth_m, valid=valid)

    def _intrinsics_of(self, index: int, image_path: str) -> Intrinsics | None:
        """
        Raises:
            ListError: a file that holds those of each image has none of this one.
        """
        found = self._intrinsics
        if found is None or isinstance(found, Intrinsics):
            return found
        if isinstance(found, array):
            fx, fy, cx, cy = found[4 * index : 4 * index + 4]
            camera = Camera(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy)
            # A line says no size, so they are those of the image as it is, which is not decoded for that.
            return Intrinsics(camera=camera, height=None, width=None, source=image_path)
        image = Path(image_path)
        below = image.relative_to(self._root).as_posix() if image.is_relative_to(self._root) else image.name
        for name in (below, image.name, image.stem):
            if name in found:
                return found[name]
        raise ListError(str(self.intrinsics), f"holds no intrinsics of {below}", "Add them by this path, name or stem")

    def _depth_of(self, numbers: NDArray[Any], focal_px: float | None) -> NDArray[Any]:
        """Meters of disparities in pixels, or of inverse depths in 1/m, all above 0."""
        if self.depth_is == "inverse":
            return 1.0 / numbers
        assert focal_px is not None and self.baseline_m is not None, "disparity is refused without the two"
        return focal_px * self.baseline_m / numbers

    def stored_number(self, depth_m: float) -> float | None:
        """The number in a file that becomes this depth, meters; None where that differs from pixel to pixel or map to
        map."""
        if self.depth_is == "z":
            return depth_m / (self.meters_per_unit or 1.0)
        if self.depth_is == "inverse":
            return 1.0 / depth_m / (self.inverse_per_unit or 1.0)
        if self.depth_is == "disparity" and self.focal_px is not None and self.baseline_m is not None:
            disparity_px = self.focal_px * self.baseline_m / depth_m
            return (disparity_px - (self.disparity_offset_px or 0.0)) / (self.px_per_unit or 1.0)
        return None

    @property
    def _root(self) -> str:
        return str(expand_path(self.root))

    @property
    def _coding(self) -> DepthCoding:
        if self.depth_is == "z":
            limits: dict[str, float | None] = {"min_depth_m": self.min_depth_m, "max_depth_m": self.max_depth_m}
        else:
            limits = {}  # which are of depth, and not of what the file holds
        unit = {
            "disparity": self.px_per_unit or 1.0,
            "inverse": self.inverse_per_unit,
            "affine_inverse": 1.0,
        }.get(self.depth_is, self.meters_per_unit)
        assert unit is not None and self.invalid is not None, "filled or refused when it was made"
        return DepthCoding(
            meters_per_unit=unit,
            offset=self.disparity_offset_px or 0.0,
            invalid=self.invalid,
            bits=self.bits,
            channels=self.depth_channels,
            allow_8_bit=self.allow_8_bit,
            affine_inverse=self.depth_is == "affine_inverse",
            **limits,  # type: ignore[arg-type]
        )

    @cached_property
    def _intrinsics(self) -> Intrinsics | Mapping[str, Intrinsics] | array[float] | None:
        """Of all images, of each by name, or fx, fy, cx, cy of one frame after the other."""
        if self.intrinsics is None:
            return None
        if self.intrinsics != IN_LIST:
            return read_intrinsics_of_images(locate(self.root, self.intrinsics))
        assert self.list is not None
        path = locate(self.root, self.list)
        numbers = array("d")
        for line, columns in read_columns(path, self._columns):
            try:
                fx, fy, cx, cy = (float(column) for column in columns[2:6])
            except ValueError:
                fix = "Write `image depth fx fy cx cy`, pixels, or intrinsics: a JSON file"
                raise ListError(f"{path}:{line}", "has no fx, fy, cx, cy after its two paths", fix) from None
            if not (0 < fx < math.inf and 0 < fy < math.inf):
                raise ListError(f"{path}:{line}", f"has fx {fx:g}, fy {fy:g}", "Write focal lengths above 0, in pixels")
            numbers.extend((fx, fy, cx, cy))
        return numbers

    @property
    def _columns(self) -> tuple[str, ...]:
        """Names of the columns of the list that are read."""
        intrinsics = ("fx", "fy", "cx", "cy") if self.intrinsics == IN_LIST else ()
        return (*PATHS, *intrinsics, *(key for key in ("mask", "sky_mask") if getattr(self, key) == IN_LIST))

    @cached_property
    def _side_columns(self) -> dict[str, builtins.list[str]]:
        """Key -> the file of each frame, of the keys that are columns of the list."""
        assert self.list is not None
        path, names = locate(self.root, self.list), self._columns
        found: dict[str, builtins.list[str]] = {key: [] for key in ("mask", "sky_mask") if key in names}
        for line, columns in read_columns(path, names):
            for key, files in found.items():
                place = names.index(key)
                if len(columns) <= place or not columns[place]:
                    fix = f"Write {' '.join(names)} in each line"
                    raise ListError(f"{path}:{line}", f"has no {key}", fix)
                files.append(columns[place])
        return found

    @cached_property
    def _listing(self) -> Listing:
        if self.list is not None:
            path = locate(self.root, self.list)
            return Listing.of_list(path, read_list(path), self._root, self._root)
        assert self.image_dir is not None and self.depth_dir is not None
        image_root, depth_root = (str(Path(self._root, expand_path(name))) for name in (self.image_dir, self.depth_dir))
        return Listing(pairs=match_frames(image_root, depth_root), image_root=image_root, depth_root=depth_root)
