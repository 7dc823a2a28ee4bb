"""Frames of your own sensor: images and depth maps of one size, named by a list file or found in two folders."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.data.reader import DepthIs
from finetune.data.readers.bits import Bits
from finetune.data.readers.channels import DepthChannels
from finetune.data.readers.depth_numbers import DepthNumbers, default_invalid
from finetune.data.readers.files import read_stored_frame
from finetune.data.readers.frame_files import FrameFiles
from finetune.data.readers.intrinsics import Intrinsics
from finetune.data.readers.listing import ListedFrames, Listing
from finetune.data.readers.masks import erode_edges, read_mask, require_mask_levels
from finetune.data.readers.middlebury import require_disparity_offset
from finetune.data.readers.orientation import ExifTurns, Turn
from finetune.data.readers.sensors import SENSORS, Sensor, sensor_note
from finetune.data.readers.z_buffer import ZBufferRange
from finetune.data.sample import DepthSample
from finetune.utils.errors import DataError, ListError, RecipeError
from finetune.utils.text import percent


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Pairs(ListedFrames):
    """Images and depth maps of one size, registered to each other, in any folders.

    A list file names one frame per line, ``image depth``, with paths below ``root``. Without a list, a file of
    ``image_dir`` and a file of ``depth_dir`` with the same stem are a frame. Their stems may also differ in a word for
    their kind, as in ``0412_color`` and ``0412_depth``; then both may be in one folder. Frames keep the order of the
    list, or are sorted by stem. Making the reader opens nothing; the list is read at first use, a frame when asked for.

    ``bits`` says what the 16 bits of a file mean if they are not a plain number: ``rotated`` by three places (SUN
    RGB-D, SUN3D), ``float16`` (Mid-Air; its unit is 1.0), ``android_confidence`` in the three highest bits, where
    pixels of confidence 0 % are not valid, or ``swapped``, low byte first in a PGM. ``invalid`` is compared with the
    numbers that the bits mean.

    A pixel is valid if its raw value is finite and none of ``invalid``, and its depth is above ``min_depth_m`` and at
    most ``max_depth_m``. Values beyond ``max_depth_m`` stay in ``depth_m``, but are not valid.

    Distance along the ray becomes depth by ``Camera.depth_from_ray``, or by the rays of the lens if the intrinsics
    describe one. Disparity of a rectified pair of cameras becomes depth as focal length times baseline over disparity;
    a disparity of 0 or less is infinitely far or no match, and not valid. ``disparity_offset_px`` is added first: it is
    Middlebury's ``doffs``, the distance between the principal points of the two cameras. Inverse depth becomes depth as
    one over it. ``affine_inverse`` is inverse depth of unknown scale and shift, as a relative model predicts it: each
    map becomes depth from 1 to 10, without a unit, for a relative head and a loss that ignores scale and shift.
    ``z_buffer`` is a renderer's depth buffer between the planes ``z_near_m`` and ``z_far_m``. ``z_buffer_range`` says
    its numbers at both. At the far plane nothing was drawn, and a pixel is not valid.

    ``depth_channels`` says which channel of several is depth (``z`` of points x, y, z; ``r``, the first; ``gray``,
    whose alpha is ignored), or that three channels of 8 bits make up one number: ``rgb24``, red lowest, as CARLA and
    SYNTHIA write it; ``bgr24``, blue lowest. ``depth_key`` names the array of a ``.npz`` or an HDF5 file, or the
    channel of an OpenEXR file; without it, depth is the only one, or the one that is named so. An image in the same
    file is its array ``rgb`` or ``image``.

    An image with an EXIF tag is turned upright together with its depth map, mask and intrinsics, as ``predict`` turns
    it. Depth that already has the size of the upright image stays as it is. Where sizes do not tell, for a turn by 180
    degrees or a square image, ``exif_turns`` does. A good ``mask_at_least`` is 1 or 2 for ARKit's confidence, 1 or 255
    for Polycam's.

    Files of intrinsics and masks are below ``root`` or in the current directory. Intrinsics for each image are JSON
    objects by its path below ``root``, its file name or its stem; with ``intrinsics: list`` they are the four columns
    fx, fy, cx, cy after the two paths. Sky is valid and infinitely far: ``out_of_range: ceiling`` teaches it,
    ``ignore`` leaves it out.
    """

    root: str  # folder that the paths of the list, and the two folders, start from
    sensor: Sensor | None = None  # fills in meters_per_unit and invalid if they are not given, and prints them
    meters_per_unit: float | None = None  # raw depth times this is meters: 0.001 for millimeters, 1.0 for meters
    list: str | None = None  # list file, below root or from the current directory
    image_dir: str | None = None  # folder of the images below root, when there is no list
    depth_dir: str | None = None  # folder of the depth maps below root, when there is no list
    invalid: tuple[float, ...] | None = None  # raw values that mean "nothing measured"; null: [0], or sensor's
    min_depth_m: float = 0.0  # depths up to this are not valid: the near end of the sensor
    max_depth_m: float | None = None  # depths beyond this are not valid: the far end of the sensor; null for no limit
    depth_is: DepthIs = "z"  # z along the axis; range along the ray; inverse: 1/m; affine_inverse: no unit; z_buffer
    intrinsics: str | None = None  # JSON with width, height, fx, fy, cx, cy, in pixels, or one for each image; or: list
    bits: Bits | None = None  # how the 16 bits of a file hold a number; null: as a plain number
    px_per_unit: float | None = None  # raw disparity times this is pixels: 1.0 (null) for pixels, 0.00390625 for 1/256
    disparity_offset_px: float | None = None  # added to the disparity, pixels: Middlebury's doffs; null: 0
    baseline_m: float | None = None  # for disparity: meters between the two cameras
    focal_px: float | None = None  # pixels; of disparity; null: fx of intrinsics
    inverse_per_unit: float | None = None  # for inverse depth: raw value times this is 1 / meters
    z_near_m: float | None = None  # for z_buffer: near plane of the renderer's camera, meters
    z_far_m: float | None = None  # for z_buffer: its far plane, meters; .inf for none
    z_buffer_range: ZBufferRange | None = None  # numbers at the near and the far plane; null: zero_to_one
    z_buffer_per_unit: float | None = None  # raw value times this is the buffer's: 1.0 (null), or 1 / 65535 of 16 bits
    depth_channels: DepthChannels | None = None  # which of several is depth, or rgb24 | bgr24: 24 bits of three
    depth_key: str | None = None  # array of .npz and .h5, or channel of .exr, that holds depth; null: the one named so
    allow_8_bit: bool = False  # also read depth in 256 steps, if its unit is known; prints how large a step is
    mask: str | None = None  # one file for all frames; a folder; *_mask.png by stem; or: list. 0 is not valid
    mask_at_least: float | None = None  # for a mask of confidence: lower values are not valid; null: 0 is not
    mask_at_most: float | None = None  # higher values are not valid, as for ZED, whose 100 is the least sure
    sky_mask: str | None = None  # like mask; what is not 0 is sky, farther than any measurement
    exif_turns: ExifTurns | None = None  # what an image's EXIF tag turns: both or image; null: the sizes decide
    min_valid_share: float = 0.0  # share of valid pixels; a frame with fewer cannot be read: see data.on_bad_sample
    edge_erosion_px: int = 0  # leave out pixels this near to a hole or a jump of depth, which dense depth blurs
    reduce_image: bool = False  # shrink larger images to the size of their depth map; both must show the same view

    def __post_init__(self) -> None:
        self._fill_defaults()
        self._numbers.require_options(has_intrinsics=self.intrinsics is not None)
        if not 0 <= self.min_valid_share < 1:
            raise RecipeError("min_valid_share", self.min_valid_share, "a share from 0 to below 1, such as 0.05")
        if not 0 <= self.edge_erosion_px <= 50:
            raise RecipeError("edge_erosion_px", self.edge_erosion_px, "pixels from 0 to 50, such as 2")
        require_mask_levels(self.mask, self.mask_at_least, self.mask_at_most)
        self._files.require_options()

    def _fill_defaults(self) -> None:
        """Write out what ``sensor`` and the defaults leave open; what is given wins."""
        usual = default_invalid(self.depth_is, self.z_buffer_range)
        unit, invalid, _ = SENSORS[self.sensor] if self.sensor else (None, usual, "")
        # A sensor's unit is meters, so it says nothing of disparity and inverse depth.
        if self.meters_per_unit is None and self.depth_is in ("z", "range"):
            object.__setattr__(self, "meters_per_unit", unit)
        if self.invalid is None:
            object.__setattr__(self, "invalid", usual if self.depth_is == "affine_inverse" else invalid)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a sensor's name stands for, how coarse 8 bits are, and where disparity begins, to be printed."""
        named = (sensor_note(self.root, self.sensor, self.meters_per_unit, self.invalid or ()),) if self.sensor else ()
        return (*named, *self._numbers.notes(self.root))

    def check_paths(self) -> None:
        """
        Raises:
            RecipeError: a folder or file that the options name is missing. Only existence is looked at.
        """
        self._files.check_paths()

    def __getitem__(self, index: int) -> DepthSample:
        """
        Raises:
            ListError: the list or the folders do not give pairs, or a file of this frame is missing.
            DataError: a file of this frame cannot be decoded, or sizes differ.
        """
        image_path, depth_path = self._listing.files(index)
        mask, sky_mask = (self._files.mask_file(key, index, image_path, depth_path) for key in ("mask", "sky_mask"))
        intrinsics = self._files.intrinsics_of(index, image_path)
        if self.depth_is == "disparity":
            self._require_rectified(intrinsics, image_path, depth_path)
        sample, turn = read_stored_frame(
            image_path,
            depth_path,
            self._numbers.coding,
            intrinsics,
            reduce_image=self.reduce_image,
            along_rays=self.depth_is == "range",
            levels=self.image_levels,
            network=self.network,
            exif_turns=self.exif_turns,
        )
        return turn.apply(self._apply_masks(self._numbers.to_axis(sample), turn, mask, sky_mask))

    def _require_rectified(self, intrinsics: Intrinsics | None, image_path: str, depth_path: str) -> None:
        """
        Raises:
            ListError: the intrinsics are not those of rectified images, or a calibration file next to the frame names
                an offset of the disparity that the options do not.
        """
        if intrinsics and intrinsics.lens:
            found = "describes a lens with distortion, but disparity belongs to rectified images"
            raise ListError(intrinsics.source, found, "Name the intrinsics of the rectified images, or focal_px alone")
        if self.disparity_offset_px is None:
            calibration = self._files.intrinsics_file
            require_disparity_offset(depth_path, image_path, *([calibration] if calibration else []))

    def _apply_masks(self, sample: DepthSample, turn: Turn, mask: Path | None, sky_mask: Path | None) -> DepthSample:
        """
        The sample without what masks and edges take away, and with sky.

        Raises:
            DataError: a mask is missing or has another size, or too little is left.
        """
        if mask is None and sky_mask is None and not (self.edge_erosion_px or self.min_valid_share):
            return sample  # whose depth may not have become meters yet
        depth_m, valid = sample.depth_m, sample.valid
        if self.edge_erosion_px:
            valid = erode_edges(valid, depth_m, self.edge_erosion_px)
        if mask is not None:
            valid = valid & read_mask(mask, valid.shape, turn, self.mask_at_least, self.mask_at_most)
        share = np.count_nonzero(valid) / valid.size
        if share < self.min_valid_share:
            raise DataError(
                sample.source,
                f"{percent(share, 2)} of it was measured, less than min_valid_share {self.min_valid_share:g}",
                "Leave the frame out of the list, or set data.on_bad_sample: skip",
            )
        if sky_mask is not None:
            sky = read_mask(sky_mask, valid.shape, turn)
            depth_m, valid = np.where(sky, np.float32(np.inf), depth_m), valid | sky
        return sample.changed(depth_m=depth_m, valid=valid)

    def stored_number(self, depth_m: float) -> float | None:
        """The number in a file that becomes this depth, meters; None where it differs between pixels or maps."""
        return self._numbers.stored_number(depth_m)

    @property
    def _listing(self) -> Listing:
        return self._files.listing

    @cached_property
    def _files(self) -> FrameFiles:
        return FrameFiles(
            root=self.root,
            list_file=self.list,
            image_dir=self.image_dir,
            depth_dir=self.depth_dir,
            intrinsics=self.intrinsics,
            mask=self.mask,
            sky_mask=self.sky_mask,
        )

    @cached_property
    def _numbers(self) -> DepthNumbers:
        assert self.invalid is not None, "filled when the reader was made"
        return DepthNumbers(
            depth_is=self.depth_is,
            meters_per_unit=self.meters_per_unit,
            px_per_unit=self.px_per_unit,
            disparity_offset_px=self.disparity_offset_px,
            baseline_m=self.baseline_m,
            focal_px=self.focal_px,
            inverse_per_unit=self.inverse_per_unit,
            z_near_m=self.z_near_m,
            z_far_m=self.z_far_m,
            z_buffer_range=self.z_buffer_range,
            z_buffer_per_unit=self.z_buffer_per_unit,
            invalid=self.invalid,
            bits=self.bits,
            channels=self.depth_channels,
            key=self.depth_key,
            allow_8_bit=self.allow_8_bit,
            min_depth_m=self.min_depth_m,
            max_depth_m=self.max_depth_m,
        )
