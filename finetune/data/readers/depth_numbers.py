"""How the numbers in a depth file become meters: their kind, their unit, their bits, and the options that say so."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from finetune.data.reader import DepthIs
from finetune.data.readers.bits import Bits
from finetune.data.readers.channels import DepthChannels
from finetune.data.readers.files import DepthCoding, require_depth_range
from finetune.data.readers.z_buffer import DEFAULT_RANGE, ZBuffer, ZBufferRange
from finetune.data.sample import DepthSample
from finetune.utils.errors import RecipeError

# Keys that belong to some kinds of ``depth_is`` alone.
_KEYS_OF: dict[tuple[str, ...], tuple[str, ...]] = {
    ("z", "range"): ("meters_per_unit",),
    ("disparity",): ("px_per_unit", "disparity_offset_px", "baseline_m", "focal_px"),
    ("inverse",): ("inverse_per_unit",),
    ("z_buffer",): ("z_near_m", "z_far_m", "z_buffer_range", "z_buffer_per_unit"),
}
# The key that gives the unit of each kind.
_UNIT_OF = {
    "z": "meters_per_unit",
    "range": "meters_per_unit",
    "disparity": "px_per_unit",
    "inverse": "inverse_per_unit",
    "z_buffer": "z_buffer_per_unit",
}


def default_invalid(depth_is: DepthIs, z_buffer_range: ZBufferRange | None) -> tuple[float, ...]:
    """Stored numbers that mean "nothing measured" if neither a sensor nor the user says: 0, if no depth is 0."""
    # In inverse depth of unknown shift, and halfway between -1 and 1, 0 is a number like any other.
    return () if depth_is == "affine_inverse" or z_buffer_range == "minus_one_to_one" else (0.0,)


@dataclass(frozen=True, kw_only=True)
class DepthNumbers:
    """What the numbers in the depth files of ``pairs`` mean.

    The attributes are the options of ``Pairs`` with the same names, which documents them; ``channels`` is its
    ``depth_channels`` and ``key`` its ``depth_key``.
    """

    depth_is: DepthIs
    meters_per_unit: float | None
    px_per_unit: float | None
    disparity_offset_px: float | None
    baseline_m: float | None
    focal_px: float | None
    inverse_per_unit: float | None
    z_near_m: float | None = None
    z_far_m: float | None = None
    z_buffer_range: ZBufferRange | None = None
    z_buffer_per_unit: float | None = None
    invalid: tuple[float, ...]
    bits: Bits | None
    channels: DepthChannels | None
    key: str | None
    allow_8_bit: bool
    min_depth_m: float
    max_depth_m: float | None

    def require_options(self, *, has_intrinsics: bool) -> None:
        """
        Args:
            has_intrinsics: whether the entry names intrinsics.

        Raises:
            RecipeError: an option is missing, out of range, or belongs to another ``depth_is``.
        """
        self._require_own_keys()
        if self.depth_is == "disparity":
            self._require_stereo(has_intrinsics)
        elif self.depth_is == "inverse":
            self._require_above_0("inverse_per_unit", "a number above 0: raw value times this is 1 / meters")
        elif self.depth_is == "affine_inverse":
            self._require_no_limits()
        elif self.depth_is == "z_buffer":
            self._require_planes()
        else:
            self._require_above_0("meters_per_unit", "a number above 0; 0.001 for millimeters")
            if self.depth_is == "range" and not has_intrinsics:
                raise RecipeError(
                    "intrinsics", None, "a JSON file, since depth_is is range: each ray has its own length"
                )
        require_depth_range(self.min_depth_m, self.max_depth_m)

    def _require_own_keys(self) -> None:
        for kinds, keys in _KEYS_OF.items():
            for key in keys:
                if self.depth_is not in kinds and getattr(self, key) is not None:
                    unit = _UNIT_OF.get(self.depth_is)
                    instead = f"write {unit}" if unit and key in _UNIT_OF.values() else "leave it out"
                    raise RecipeError(key, getattr(self, key), f"nothing, since depth_is is {self.depth_is}; {instead}")

    def _require_above_0(self, key: str, expected: str) -> None:
        value = getattr(self, key)
        if value is None or not 0.0 < value < math.inf:
            raise RecipeError(key, value, expected)

    def _require_no_limits(self) -> None:
        """Numbers without a unit have no distance that a limit could be compared with."""
        for key, given in (("min_depth_m", self.min_depth_m > 0), ("max_depth_m", self.max_depth_m is not None)):
            if given:
                no_meters = f"nothing, since depth_is is {self.depth_is}, which has no meters; leave it out"
                raise RecipeError(key, getattr(self, key), no_meters)

    def _require_planes(self) -> None:
        self._require_above_0("z_near_m", "meters above 0: the near plane of the renderer's camera")
        if self.z_far_m is None:
            raise RecipeError("z_far_m", None, "meters: the far plane of the renderer's camera, or .inf for none")
        self._z_buffer.require_options()

    @property
    def _z_buffer(self) -> ZBuffer:
        assert self.z_near_m is not None and self.z_far_m is not None, "required when the reader was made"
        return ZBuffer(
            near_m=self.z_near_m,
            far_m=self.z_far_m,
            per_unit=1.0 if self.z_buffer_per_unit is None else self.z_buffer_per_unit,
            range=self.z_buffer_range or DEFAULT_RANGE,
        )

    def _require_stereo(self, has_intrinsics: bool) -> None:
        self._require_above_0("baseline_m", "a number of meters above 0")
        if self.px_per_unit is not None:
            self._require_above_0("px_per_unit", "a number above 0, or nothing")
        if self.disparity_offset_px is not None and not math.isfinite(self.disparity_offset_px):
            raise RecipeError("disparity_offset_px", self.disparity_offset_px, "a number of pixels, or nothing")
        if self.focal_px is None and not has_intrinsics:
            raise RecipeError("focal_px", None, "pixels above 0, or intrinsics: disparity is in pixels of that camera")
        if self.focal_px is not None:
            self._require_above_0("focal_px", "pixels above 0, or intrinsics instead")

    @property
    def coding(self) -> DepthCoding:
        """What ``read_stored_frame`` has to do with the numbers: for ``z`` all of it, else what comes before meters."""
        unit = {
            "disparity": self.px_per_unit or 1.0,
            "inverse": self.inverse_per_unit,
            "affine_inverse": 1.0,
            "z_buffer": self._z_buffer.nearness_per_unit if self.depth_is == "z_buffer" else None,
        }.get(self.depth_is, self.meters_per_unit)
        assert unit is not None, "required when the reader was made"
        coding = DepthCoding(
            meters_per_unit=unit,
            offset=self._z_buffer.nearness_offset if self.depth_is == "z_buffer" else self.disparity_offset_px or 0.0,
            invalid=self.invalid,
            bits=self.bits,
            channels=self.channels,
            key=self.key,
            allow_8_bit=self.allow_8_bit,
            affine_inverse=self.depth_is == "affine_inverse",
        )
        # The limits are limits of depth. Only for z does the file hold depth itself.
        if self.depth_is != "z":
            return coding
        return replace(coding, min_depth_m=self.min_depth_m, max_depth_m=self.max_depth_m)

    def to_axis(self, sample: DepthSample) -> DepthSample:
        """The sample with depth along the axis, where ``coding`` left another number that grows or falls with it."""
        if self.depth_is == "z":
            return sample
        depth_m = sample.depth_m
        if self.depth_is == "z_buffer":
            self._z_buffer.require_numbers(depth_m, sample.valid, sample.source)
        if self.depth_is in ("disparity", "inverse", "z_buffer"):
            focal_px = self.focal_px or (sample.camera.fx_px if sample.camera else None)
            meters = self._depth_of(np.where(sample.valid, depth_m, 1.0), focal_px)
            depth_m = np.where(sample.valid, meters, 0.0).astype(np.float32)
        in_range = depth_m > self.min_depth_m
        if self.max_depth_m is not None:
            in_range &= depth_m <= self.max_depth_m
        # A camera places points in space by meters, which affine_inverse does not have.
        camera = None if self.depth_is == "affine_inverse" else sample.camera
        return replace(sample, depth_m=depth_m, valid=sample.valid & in_range, camera=camera)

    def _depth_of(self, numbers: NDArray[np.floating], focal_px: float | None) -> NDArray[np.floating]:
        """Meters from disparities in pixels, inverse depths in 1/m or nearness; all of them are above 0."""
        if self.depth_is == "z_buffer":
            return self._z_buffer.to_meters(numbers)
        if self.depth_is == "inverse":
            return 1.0 / numbers
        assert focal_px is not None and self.baseline_m is not None, "required when the reader was made"
        return focal_px * self.baseline_m / numbers

    def stored_number(self, depth_m: float) -> float | None:
        """The number in a file that becomes this depth, meters; None where it differs between pixels or maps."""
        if self.depth_is == "z":
            return depth_m / (self.meters_per_unit or 1.0)
        if self.depth_is == "inverse":
            return 1.0 / depth_m / (self.inverse_per_unit or 1.0)
        if self.depth_is == "disparity" and self.focal_px is not None and self.baseline_m is not None:
            disparity_px = self.focal_px * self.baseline_m / depth_m
            return (disparity_px - (self.disparity_offset_px or 0.0)) / (self.px_per_unit or 1.0)
        if self.depth_is == "z_buffer":
            return self._z_buffer.stored_number(depth_m)
        return None

    def notes(self, root: str) -> tuple[str, ...]:
        """Sentences to print about the entry ``root``: how coarse 8 bits are, and where disparity begins."""
        return (*self._note_on_8_bits(root), *self._note_on_offset(root))

    def _note_on_8_bits(self, root: str) -> tuple[str, ...]:
        if not self.allow_8_bit:
            return ()
        if self.depth_is in ("z", "range"):
            step = f"{self.meters_per_unit:g} m, the farthest of 255 of them {255 * (self.meters_per_unit or 0):.4g} m"
        elif self.depth_is == "affine_inverse":
            step = "1/255 of the inverse depth of each map"
        elif self.depth_is == "z_buffer":
            step = f"{self._z_buffer.per_unit:g} of the depth buffer: a step of depth grows with its square"
        else:
            unit = f"{self.px_per_unit or 1.0:g} px" if self.depth_is == "disparity" else f"{self.inverse_per_unit:g}/m"
            step = f"{unit}: a step of depth grows with its square"
        return (f"{root}: allow_8_bit: 8-bit depth has 255 steps, each {step}",)

    def _note_on_offset(self, root: str) -> tuple[str, ...]:
        if self.depth_is != "disparity" or self.disparity_offset_px is not None:
            return ()
        return (
            f"{root}: without disparity_offset_px, a disparity of 0 is infinitely far; if the calibration names an "
            "offset (doffs), depth is too large without it",
        )
