"""Images or a video with depth maps of the same view, whose lens bends rays: as a pinhole camera would show them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finetune.prepare.kinds import frames
from finetune.prepare.recording import FrameKey, FrameSource, RecordedFrame
from finetune.utils.errors import FinetuneError, ListError
from finetune.utils.number_arguments import number
from finetune.utils.paths import expand_path

if TYPE_CHECKING:
    from finetune.data.camera import Camera
    from finetune.prepare.calibration import CalibratedCamera


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``frames`` takes, and the view of the result."""
    frames.add_arguments(parser, of_each_image=False)
    view = parser.add_mutually_exclusive_group()
    view.add_argument(
        "--keep-all", action="store_true", help="show all that the lens sees, black where it sees nothing"
    )
    view.add_argument(
        "--new-focal-px",
        type=number("a focal length in pixels"),
        metavar="PX",
        help="focal length of the result; default: what fills the image",
    )


def open_source(arguments: argparse.Namespace) -> FrameSource:
    """
    List the frames and choose the camera of the result.

    Raises:
        FinetuneError: see ``frames``; or the intrinsics are missing, or describe no lens.
    """
    from finetune.data.camera import Camera
    from finetune.data.readers.intrinsics import make_intrinsics, parse_camera_file
    from finetune.prepare.calibration import CalibratedCamera
    from finetune.prepare.rig_checks import require_sound_camera
    from finetune.prepare.undistortion import choose_pinhole

    if arguments.intrinsics is None:
        raise FinetuneError(
            "--intrinsics is missing: name a file with width, height, fx, fy, cx, cy and the coefficients of the lens, "
            "as JSON or as ROS' camera_info."
        )
    path = str(expand_path(arguments.intrinsics))
    content = parse_camera_file(path)
    if isinstance(content, dict) and content and all(isinstance(one, dict) and "fx" in one for one in content.values()):
        fix = f"Write that of {next(iter(content))} alone, and call once for the images of each camera"
        raise ListError(path, "holds a camera for each image, and undistort takes one for all of them", fix)
    found = make_intrinsics(content, path, keep_lens=True)
    if found.lens is None:
        fix = "Add distortion_model and distortion_coefficients, or take finetune prepare frames"
        raise ListError(path, "describes a pinhole, so there is nothing to undistort", fix)
    assert found.height and found.width, "required of a file"
    camera = CalibratedCamera(camera=found.camera, height=found.height, width=found.width, lens=found.lens)
    require_sound_camera(camera, path)
    if arguments.new_focal_px is None:
        pinhole = choose_pinhole(camera, keep_all=arguments.keep_all, source=path)
    else:
        ratio = found.camera.fy_px / found.camera.fx_px
        pinhole = Camera(
            fx_px=arguments.new_focal_px,
            fy_px=arguments.new_focal_px * ratio,
            cx_px=(found.width - 1) / 2,
            cy_px=(found.height - 1) / 2,
        )
    return UndistortedFrames(inner=frames.open_source(arguments), camera=camera, pinhole=pinhole, calibration=path)


@dataclass(frozen=True, kw_only=True)
class UndistortedFrames(FrameSource):
    """The frames of another source without the distortion of their lens.

    Attributes:
        inner: the source.
        camera: of its frames.
        pinhole: of the result.
        calibration: the file of ``camera``.
    """

    inner: FrameSource
    camera: CalibratedCamera
    pinhole: Camera
    calibration: str

    @property
    def keys(self) -> Sequence[FrameKey]:
        """Those of the source."""
        return self.inner.keys

    @property
    def notes(self) -> Sequence[str]:
        """Those of the source, and the view of the result."""
        width, height = self.camera.width, self.camera.height
        across, down = (
            math.degrees(2 * math.atan(side / 2 / focal_px))
            for side, focal_px in ((width, self.pinhole.fx_px), (height, self.pinhole.fy_px))
        )
        model = "fisheye" if self.camera.lens and self.camera.lens.fisheye else "polynomial"
        view = (
            f"{self.calibration}: a {model} lens, undistorted to a pinhole camera of fx {self.pinhole.fx_px:.6g}, fy "
            f"{self.pinhole.fy_px:.6g}, {across:.0f} by {down:.0f} degrees"
        )
        return [*self.inner.notes, view]

    def load_frame(self, index: int) -> RecordedFrame | None:
        """
        Raises:
            DataError: a file cannot be read.
            ListError: the camera was calibrated for images of another size.
        """
        from finetune.prepare.calibration import require_size
        from finetune.prepare.undistortion import undistort_depth, undistort_image

        frame = self.inner.load_frame(index)
        if frame is None:
            return None
        height, width = frame.image.shape[:2]
        require_size(self.camera, height, width, frame.source, self.calibration)
        return replace(
            frame,
            image=undistort_image(frame.image, self.camera, self.pinhole),
            depth_m=undistort_depth(frame.depth_m, self.camera, self.pinhole),
            camera=self.pinhole,
            image_file=None,
        )
