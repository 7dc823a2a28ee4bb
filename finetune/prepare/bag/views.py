"""Whether the depth of a bag is in the view of its color, and else how it gets there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.readers.intrinsics import bends_rays
from finetune.prepare.bag.cameras import find_info_topic, list_info_topics, read_camera, require_info_topic
from finetune.prepare.bag.open_bag import Bag
from finetune.prepare.bag.options import BagOptions
from finetune.prepare.bag.realsense import is_sdk_stream, read_sdk_transform
from finetune.prepare.bag.streams import Stream
from finetune.prepare.bag.transforms import read_transforms
from finetune.prepare.calibration import CalibratedCamera, Rig, read_rig, require_not_exchanged, require_size
from finetune.prepare.rig_checks import require_sound_camera, require_sound_rig
from finetune.prepare.undistortion import choose_pinhole
from finetune.utils.errors import ListError

# Cameras whose pixels differ by less than this, and that are nearer than this to each other, have one view.
_SAME_PX = 0.5
_SAME_M = 1e-4
_MAX_OFF_SHAPE = 0.01  # of the ratio of two sides; each is rounded
_Size = tuple[int, int]  # height, width


@dataclass(frozen=True, kw_only=True)
class FoundView:
    """
    Attributes:
        rig: how depth gets into the view of color; None where it is there.
        camera: of the frames, a pinhole; None where color's is not known or bends rays.
        distorted: the camera of color, whose lens the frames are freed from; None where they stay as they are.
        notes: what was found, in words that follow the bag.
    """

    rig: Rig | None
    camera: Camera | None
    distorted: CalibratedCamera | None
    notes: Sequence[str]


def find_view(
    bag: Bag, color: Stream, depth: Stream, color_size: _Size, depth_size: _Size, options: BagOptions
) -> FoundView:
    """
    Args:
        bag: with the two streams.
        color_size, depth_size: (height, width) of their first images, pixels.
        options: what the user says about it.

    Raises:
        ListError: depth has another view, and a camera or the transform between the two is not known.
        DataError: a message is damaged.
    """
    return _Search(bag, color, depth, color_size, depth_size, options).find()


@dataclass
class _Search:
    bag: Bag
    color: Stream
    depth: Stream
    color_size: _Size
    depth_size: _Size
    options: BagOptions
    notes: list[str] = field(default_factory=list)
    faults: dict[str, ListError] = field(default_factory=dict)
    empty: dict[str, str] = field(default_factory=dict)  # image topic -> its camera_info without numbers

    def find(self) -> FoundView:
        if self.options.calibration is not None:
            given = read_rig(self.options.calibration, size=self.color_size)
            rig: Rig | None = self._require_sizes(given)
            camera: CalibratedCamera | None = given.color
        else:
            camera = self._camera(self.color, self.options.color_info)
            rig = None if self.options.aligned else self._find_rig(camera)
            if self.options.aligned:
                self.notes.append("depth is taken as being in the view of color, as --aligned says")
        if self.options.undistort:
            distorted = self._require_camera(camera, self.color, "--color-info")
            if distorted.lens is not None:
                return FoundView(rig=rig, camera=self._undistorted(distorted), distorted=distorted, notes=self.notes)
        return FoundView(rig=rig, camera=self._pinhole(camera), distorted=None, notes=self.notes)

    def _find_rig(self, camera: CalibratedCamera | None) -> Rig | None:
        """The rig; None where depth is in the view of color."""
        names = [stream.topic.topic.name for stream in (self.color, self.depth)]
        frames = [stream.frames[0] for stream in (self.color, self.depth)]
        one_frame = False
        if all(map(is_sdk_stream, names)):
            matrix = read_sdk_transform(self.bag, *names)
        elif not all(frames):
            raise ListError(
                self.bag.path,
                "headers of images name no frame, so nothing says whether depth is in the view of color",
                "Give --aligned if the driver registers depth to color, else --calibration FILE",
            )
        else:
            one_frame = frames[0] == frames[1]
            matrix = np.eye(4) if one_frame else read_transforms(self.bag, *frames)
        depth_camera = self._camera(self.depth, self.options.depth_info)
        if one_frame and (camera is None or depth_camera is None) and _one_shape(self.color_size, self.depth_size):
            self.notes.append(f"depth is in the view of color: both are in the frame {frames[0]}")
            return None
        rig = Rig(
            color=self._require_camera(camera, self.color, "--color-info"),
            depth=self._require_camera(depth_camera, self.depth, "--depth-info"),
            color_from_sensor=matrix,
            source=str(self.bag.path),
        )
        return self._require_sizes(rig)

    def _require_sizes(self, rig: Rig) -> Rig | None:
        """
        The rig; None where it says that both are one view.

        Raises:
            ListError: a camera is for images of another size.
        """
        depth = rig.depth
        if depth is None:
            fix = 'Write "color", "depth" and "color_from_depth", as data/README.md describes it'
            raise ListError(rig.source, "describes no depth camera", fix)
        require_not_exchanged(rig, *self.color_size, f"{self.bag.path}: {self.color.topic.topic.name}")
        for camera, size, stream in ((rig.color, self.color_size, self.color), (depth, self.depth_size, self.depth)):
            require_size(camera, *size, str(self.bag.path), rig.source, f"an image of {stream.topic.topic.name}")
        require_sound_rig(rig)
        if is_one_view(rig.color, depth, rig.color_from_sensor):
            self.notes.append("depth is in the view of color, by the cameras and the transform between them")
            return None
        x, y, z = rig.color_from_sensor[:3, 3] * 1000
        self.notes.append(f"depth is moved into the view of color, {x:.1f}, {y:.1f}, {z:.1f} mm away")
        return rig

    def _camera(self, stream: Stream, info: str | None) -> CalibratedCamera | None:
        """What camera_info says of a stream; None without a message of it, or if the driver wrote zeros."""
        name = stream.topic.topic.name
        topic = find_info_topic(self.bag, name) if info is None else require_info_topic(self.bag, info)
        if topic is None:
            return None
        try:
            camera = read_camera(self.bag, topic, name)
            if camera is not None:
                require_sound_camera(camera, f"{self.bag.path}: {topic}")
        except ListError as error:
            # Depth that is in the view of color needs no camera, so a lens that is not supported does no harm there.
            self.faults[name] = error
            return None
        if camera is None:
            self.empty[name] = topic
        return camera

    def _require_camera(self, camera: CalibratedCamera | None, stream: Stream, option: str) -> CalibratedCamera:
        if camera is not None:
            return camera
        if stream.topic.topic.name in self.faults:
            raise self.faults[stream.topic.topic.name]
        listed = ", ".join(list_info_topics(self.bag)) or "none"
        raise ListError(
            self.bag.path,
            f"has no camera_info with numbers for {stream.topic.topic.name}, needed to move depth or undistort frames",
            f"Name its topic, {option} TOPIC (there are: {listed}), or give --calibration FILE",
        )

    def _pinhole(self, camera: CalibratedCamera | None) -> Camera | None:
        """The camera for the frames, where it is a pinhole of their size; a note says why there is none."""
        name = self.color.topic.topic.name
        if camera is None:
            fault = self.faults.get(name)
            why = f"camera_info of {name} {fault.found}" if fault else f"there is no camera_info of {name}"
            if name in self.empty:
                why = f"camera_info of {name} ({self.empty[name]}) holds no numbers"
            self.notes.append(f"{why}, so the frames have no intrinsics")
            return None
        require_size(camera, *self.color_size, str(self.bag.path), "its camera_info", f"an image of {name}")
        if camera.lens is not None and bends_rays(camera.lens, camera.camera, camera.height, camera.width):
            self.notes.append(
                f"the lens of {name} bends rays, so the frames have no intrinsics: --undistort makes them a pinhole's"
            )
            return None
        return camera.camera

    def _undistorted(self, distorted: CalibratedCamera) -> Camera:
        """The pinhole camera of the frames after undistortion."""
        name = self.color.topic.topic.name
        require_size(distorted, *self.color_size, str(self.bag.path), "its camera_info", f"an image of {name}")
        pinhole = choose_pinhole(distorted, keep_all=False, source=f"{self.bag.path}: {name}")
        self.notes.append(f"the frames are undistorted, to a focal length of {pinhole.fx_px:.6g} px")
        return pinhole


def is_one_view(color: CalibratedCamera, depth: CalibratedCamera, matrix: NDArray[np.float64]) -> bool:
    """Whether two cameras see the same, but for the size of their images: pixels differ by less than half of one."""
    if np.abs(matrix - np.eye(4)).max() > _SAME_M or color.lens != depth.lens:
        return False
    if not _one_shape((color.height, color.width), (depth.height, depth.width)):
        return False
    resized = depth.camera.resized(color.height / depth.height, color.width / depth.width)
    for x in (0, color.width - 1):
        for y in (0, color.height - 1):
            u = (x - color.camera.cx_px) / color.camera.fx_px * resized.fx_px + resized.cx_px
            v = (y - color.camera.cy_px) / color.camera.fy_px * resized.fy_px + resized.cy_px
            if max(abs(u - x), abs(v - y)) > _SAME_PX:
                return False
    return True


def _one_shape(color: _Size, depth: _Size) -> bool:
    return abs(depth[0] / color[0] / (depth[1] / color[1]) - 1) <= _MAX_OFF_SHAPE
