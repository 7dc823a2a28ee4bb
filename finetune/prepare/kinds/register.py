"""``finetune prepare register IMAGES DEPTH``: a depth camera whose color camera looks from another place."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.prepare.kinds import frames
from finetune.prepare.recording import FrameKey, FrameSource, RecordedFrame
from finetune.utils.errors import FinetuneError, ListError
from finetune.utils.paths import expand_path, is_file, missing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.prepare.calibration import CalibratedCamera, Rig
    from finetune.prepare.devices import Device
    from finetune.prepare.kinds.frames import FileFrames
    from finetune.prepare.registration import Registration

_DEVICES = ("realsense", "kinect_v2", "azure", "7scenes")
_PARTS = (
    ("color", ("color",), "the color camera with width, height, fx, fy, cx, cy"),
    ("depth", ("depth",), "the depth camera with the same"),
    (
        "color_from_depth",
        ("color_from_depth", "depth_from_color", "color_from_lidar", "lidar_from_color"),
        "four rows of four numbers, meters, that take points of the depth camera into the color camera",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``frames`` takes, the calibration, and the direction."""
    frames.add_arguments(parser)
    group = parser.add_argument_group("the two cameras")
    group.add_argument(
        "--calibration",
        type=expand_path,
        metavar="FILE",
        help='JSON {"color": {...}, "depth": {...}, "color_from_depth": 4x4 rows, meters}, see data/README.md',
    )
    group.add_argument("--device", choices=_DEVICES, help="fills in what is known of it, and says what to export")
    group.add_argument(
        "--color-to-depth", action="store_true", help="bring color into the view of depth instead of the other way"
    )


def open_source(arguments: argparse.Namespace) -> FrameSource:
    """
    List the frames, read the calibration, and try it on a few frames.

    Raises:
        FinetuneError: see ``frames``; or the calibration is missing or incomplete, is for other sizes, or does not
            bring depth to its place.
    """
    from finetune.prepare.devices import DEVICES
    from finetune.prepare.registration import Registration

    if arguments.intrinsics is not None:
        raise FinetuneError("--intrinsics is of one camera: give --calibration FILE, which describes both.")
    device = DEVICES[arguments.device] if arguments.device else None
    rig = read_two_cameras(arguments.calibration, device)
    # Lengths of rays become depth by the calibration of the depth camera, not by intrinsics of images.
    along_rays = arguments.depth_is == "range"
    plain = argparse.Namespace(**vars(arguments) | ({"depth_is": "z"} if along_rays else {}))
    notes = [f"{arguments.calibration}: depth is brought into the view of color"]
    if arguments.color_to_depth:
        notes = [f"{arguments.calibration}: color is brought into the view of depth"]
    if device is not None:
        notes.append(_fill_in(plain, arguments.device, device))
    inner = frames.open_source(plain)
    assert isinstance(inner, frames.FileFrames), "what frames opens"
    source = RegisteredFrames(
        inner=inner,
        registration=Registration(rig),
        color_to_depth=arguments.color_to_depth,
        along_rays=along_rays,
        lines=notes,
    )
    from finetune.prepare.rig_checks import require_working_rig

    require_working_rig(source.registration, [source.load_views(i) for i in source.examples()])
    return source


def read_two_cameras(path: Path | None, device: Device | None) -> Rig:
    """
    The calibration, with the depth camera of a device where it is known and the file lacks it.

    Raises:
        FinetuneError: it is missing or incomplete; says what to write and where to find it.
    """
    from finetune.data.readers.intrinsics import parse_camera_file
    from finetune.prepare.calibration import read_rig
    from finetune.prepare.rig_checks import require_sound_rig

    export = f" {device.export}." if device else ""
    listed = "; ".join(f"{key}: {text}" for key, _, text in _PARTS)
    if path is None:
        raise FinetuneError(
            f"--calibration is missing: without it nobody knows where depth belongs in the images.{export} Write JSON "
            f"with {listed}."
        )
    if not is_file(path):
        raise ListError(path, missing(path), f"Write JSON with {listed}")
    content = parse_camera_file(path)
    known = ("depth",) if device and device.depth else ()
    if not isinstance(content, dict):
        raise ListError(path, "is no calibration", f"Write JSON with {listed}")
    lacking = [part for part in _PARTS if not set(part[1]) & content.keys() and part[0] not in known]
    if lacking:
        add = "; ".join(f"{key}: {text}" for key, _, text in lacking)
        keys = ", ".join(key for key, _, _ in lacking)
        raise ListError(path, f"has no {keys}", f"{device.export}. Add {add}" if device else f"Add {add}")
    rig = read_rig(path)
    if rig.depth is None:
        assert device is not None and device.depth is not None, "a file without depth is refused otherwise"
        rig = replace(rig, depth=device.depth)
    require_sound_rig(rig)
    return rig


def _fill_in(arguments: argparse.Namespace, name: str, device: Device) -> str:
    """Set the unit and the invalid numbers of a device where the call does not, and say so."""
    filled = []
    if arguments.meters_per_unit is None and arguments.sensor is None and arguments.depth_is == "z":
        arguments.meters_per_unit = device.meters_per_unit
        filled.append(f"--meters-per-unit {device.meters_per_unit:g}")
    if arguments.invalid is None:
        arguments.invalid = device.invalid
        filled.append(f"--invalid {','.join(f'{value:g}' for value in device.invalid)}")
    if device.depth is not None:
        camera = device.depth.camera
        filled.append(
            f"where the calibration has no depth, fx {camera.fx_px:g}, fy {camera.fy_px:g}, cx {camera.cx_px:g}, cy "
            f"{camera.cy_px:g} at {device.depth.width}x{device.depth.height}"
        )
    return f"--device {name} fills in {', '.join(filled) or 'nothing'} (source: {device.source})"


@dataclass(frozen=True, kw_only=True)
class RegisteredFrames(FrameSource):
    """Frames of two cameras, brought into one view.

    Attributes:
        inner: the files of the frames.
        registration: of the two cameras.
        color_to_depth: whether color is brought into the view of depth.
        along_rays: whether the files hold distances from the depth camera's center.
        lines: further ``notes``.
    """

    inner: FileFrames
    registration: Registration
    color_to_depth: bool = False
    along_rays: bool = False
    lines: Sequence[str] = ()

    @property
    def keys(self) -> Sequence[FrameKey]:
        """All frames, in order."""
        return self.inner.keys

    @property
    def notes(self) -> Sequence[str]:
        """What was paired, and what of the cameras was filled in."""
        rig, camera = self.registration.rig, self.registration.camera
        lines = [*self.inner.notes, *self.lines]
        if not self.color_to_depth and (camera.height, camera.width) != (rig.color.height, rig.color.width):
            lines.append(
                f"depth is written at {camera.width}x{camera.height}, as fine as it was measured; images stay "
                f"{rig.color.width}x{rig.color.height}, and are shrunk as they are read"
            )
        if self._view.lens is not None:
            lines.append(
                "the lens of this view bends rays, so no intrinsics are written; see finetune prepare undistort"
            )
        return lines

    @property
    def _view(self) -> CalibratedCamera:
        rig = self.registration.rig
        if self.color_to_depth:
            assert rig.depth is not None
            return rig.depth
        return rig.color

    def examples(self) -> list[int]:
        """A few frames, spread over all; of a video the first ones, which need not be looked for."""
        count = min(8, len(self.keys))
        if not isinstance(self.inner.images, Sequence):
            return list(range(count))
        return [round(i * (len(self.keys) - 1) / max(1, count - 1)) for i in range(count)]

    def load_views(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """
        (H, W, 3) color and (h, w) depth, meters, 0 where nothing was measured, each in its own view.

        Raises:
            DataError: a file cannot be read.
            ListError: its size is not that of the calibration.
        """
        return self._load_color(index)[0], self._load_depth(index)

    def load_frame(self, index: int) -> RecordedFrame:
        """
        Raises:
            DataError: a file cannot be read.
            ListError: its size is not that of the calibration.
        """
        image, image_file = self._load_color(index)
        depth_m = self._load_depth(index)
        if self.color_to_depth:
            image, depth_m = self.registration.color_in_depth(image, depth_m)
            image_file = None
        else:
            depth_m = self.registration.depth_in_color(depth_m)
        return RecordedFrame(
            image=image,
            depth_m=depth_m,
            camera=None if self._view.lens else self._view.camera,
            source=str(self.inner.depths[index]),
            image_file=image_file,
        )

    def _load_color(self, index: int) -> tuple[NDArray[np.uint8], Path | None]:
        from finetune.data.readers.files import read_stored_image
        from finetune.data.readers.orientation import UPRIGHT
        from finetune.prepare.calibration import require_not_exchanged, require_size

        rig = self.registration.rig
        if isinstance(self.inner.images, Sequence):
            path = self.inner.images[index]
            # Calibrations are of images as the sensor gives them, whatever a tag says.
            image, orientation = read_stored_image(path)
            copied = orientation == UPRIGHT and path.suffix.lower() in frames.COPIED
        else:
            path, copied = self.inner.images.path, False
            image = self.inner.images.frame(self.inner.frames[index])
        require_not_exchanged(rig, image.shape[0], image.shape[1], str(path))
        require_size(rig.color, image.shape[0], image.shape[1], str(path), f"{rig.source}: color")
        return image, path if copied else None

    def _load_depth(self, index: int) -> NDArray[np.float32]:
        from finetune.data.readers.files import combine_frame, read_depth
        from finetune.data.readers.orientation import UPRIGHT
        from finetune.prepare.calibration import require_size
        from finetune.prepare.projection import camera_rays

        rig, numbers, path = self.registration.rig, self.inner.numbers, self.inner.depths[index]
        assert rig.depth is not None
        raw = read_depth(path, numbers.channels, numbers.key)
        require_size(rig.depth, raw.shape[0], raw.shape[1], str(path), f"{rig.source}: depth")
        blank = np.zeros((*raw.shape, 3), np.uint8)
        sample, _ = combine_frame((blank, UPRIGHT), raw, str(path), str(path), numbers.coding, None)
        sample = numbers.to_axis(sample)
        depth_m = np.where(sample.valid, sample.depth_m, np.float32(0.0))
        if self.along_rays:
            lengths = np.sqrt(1.0 + np.square(camera_rays(rig.depth)).sum(axis=-1))
            depth_m = np.nan_to_num(depth_m / lengths).astype(np.float32)
        return depth_m
