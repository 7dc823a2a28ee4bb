"""Frames of a camera and a LiDAR: the points of a sweep, drawn into the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune.prepare.accumulate import find_moved, neighbors_of
from finetune.prepare.calibration import CalibratedCamera, Rig, read_rig, require_size
from finetune.prepare.occlusion import find_hidden
from finetune.prepare.point_files import PointFormat, read_points
from finetune.prepare.projection import draw_nearest, nearest_pixels, project_points, transform_points
from finetune.prepare.recording import FrameKey, FrameLeftOut, FrameSource, RecordedFrame
from finetune.prepare.rig_checks import require_sound_rig
from finetune.prepare.sweep_pairs import SweepPairs
from finetune.utils.errors import DataError, ListError
from finetune.utils.text import percent

if TYPE_CHECKING:
    from finetune.data.camera import Camera

# Files that are copied as they are.
_COPIED = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
# A transform whose inverse puts more than this times as many points into the image is taken for the inverse.
_INVERSE_WINS = 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepPoses:
    """
    Attributes:
        world_from_body: (S, 4, 4) of each sweep, meters.
        known: (S,) bool.
        of_camera: the body is the color camera; else the LiDAR.
        count: how many sweeps are drawn together.
        drop_moving: leave out points whose place is empty in the sweep of the image.
        source: the file.
    """

    world_from_body: NDArray[np.float64]
    known: NDArray[np.bool_]
    of_camera: bool
    count: int
    drop_moving: bool
    source: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cloud:
    """Points in the frame of the color camera, meters, and for each the place of the sensor that measured it."""

    points_m: NDArray[np.float64]
    origins_m: NDArray[np.float64]
    moved: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class LidarFrames(FrameSource):
    """
    Attributes:
        recording: its name.
        pairs: images and their sweeps.
        calibrations: the file of each frame, or one for all; none for points that are projected already.
        extrinsics, kitti_camera: see ``read_rig``.
        points: what the point files do not say.
        poses: of the sweeps, to draw several together; None for one sweep an image.
        keep_hidden: keep points that nearer ones hide from the camera.
        undistort: write pinhole images.
    """

    recording: str
    pairs: SweepPairs
    calibrations: Sequence[Path]
    extrinsics: Path | None
    kitti_camera: str
    points: PointFormat
    poses: SweepPoses | None
    keep_hidden: bool
    undistort: bool

    @property
    def keys(self) -> Sequence[FrameKey]:
        """All frames, in order of time."""
        times = self.pairs.times_s
        return [
            FrameKey(recording=self.recording, stem=image.stem, time_s=None if times is None else times[i])
            for i, image in enumerate(self.pairs.images)
        ]

    @property
    def notes(self) -> Sequence[str]:
        """How images and sweeps were paired, and what is done with points."""
        notes = [self.pairs.rule]
        if self.poses is not None:
            body = "camera" if self.poses.of_camera else "LiDAR"
            notes.append(f"{self.poses.source}: poses of the {body}; {self.poses.count} sweeps are drawn together")
        if self.keep_hidden and not self.points.is_projected:
            notes.append("points that nearer ones hide from the camera are kept, as --keep-hidden asks")
        return notes

    def describe_counts(self, totals: Mapping[str, int]) -> Sequence[str]:
        """What the rules dropped."""
        lines = []
        drawn, hidden = totals.get("drawn", 0), totals.get("hidden", 0)
        if drawn and not self.keep_hidden:
            share = percent(hidden / drawn, 1)
            lines.append(f"{share} of {drawn} drawn pixels are dropped: nearer points hide theirs from the camera")
        if totals.get("moved"):
            lines.append(f"{totals['moved']} points of other sweeps are dropped: their place was empty at the image")
        if totals.get("distorted"):
            lines.append(
                "the images keep the distortion of their lens, so no intrinsics are written; --undistort writes "
                "pinhole images with intrinsics"
            )
        return lines

    def load_frame(self, index: int) -> RecordedFrame:
        """
        Raises:
            FrameLeftOut: the pose of its sweep is not known.
            DataError: a file cannot be read, or no point is in the image.
            ListError: the calibration is wrong, or for images of another size.
        """
        from finetune.data.readers.files import read_stored_image
        from finetune.data.readers.orientation import UPRIGHT, turn_upright

        path = self.pairs.images[index]
        stored = read_stored_image(path)
        image = turn_upright(*stored)
        copied = stored[1] == UPRIGHT and path.suffix.lower() in _COPIED
        sweep = self.pairs.all_sweeps[self.pairs.sweeps[index]]
        height, width = image.shape[:2]
        if self.points.is_projected:
            pixels = read_points(sweep, self.points)
            depth_m = draw_nearest(nearest_pixels(pixels[:, :2], height, width), pixels[:, 2], height, width)
            _require_drawn(depth_m, sweep, len(pixels))
            return RecordedFrame(
                image=image, depth_m=depth_m, camera=None, source=str(sweep), image_file=path if copied else None
            )
        rig = self._rig(index, height, width)
        camera, pinhole = rig.color, self._pinhole(rig)
        if pinhole is not None:
            from finetune.prepare.undistortion import undistort_image

            image = undistort_image(image, rig.color, pinhole)
            camera = CalibratedCamera(camera=pinhole, height=height, width=width)
        cloud = self._gather(index, rig)
        depth_m, counts = _draw(cloud, camera, keep_hidden=self.keep_hidden)
        _require_drawn(depth_m, sweep, len(cloud.points_m))
        return RecordedFrame(
            image=image,
            depth_m=depth_m,
            camera=camera.camera if camera.lens is None else None,
            source=str(sweep),
            image_file=path if copied and pinhole is None else None,
            counts={**counts, "moved": cloud.moved, "distorted": int(camera.lens is not None)},
        )

    def camera_pose(self, index: int) -> NDArray[np.float64] | None:
        """The pose of the camera, where those of the camera are given."""
        if self.poses is None or not self.poses.of_camera or not self.poses.known[self.pairs.sweeps[index]]:
            return None
        return np.asarray(self.poses.world_from_body[self.pairs.sweeps[index]])

    def require_view(self, index: int) -> None:
        """
        Look at one frame before anything is written.

        Raises:
            ListError: its calibration is wrong, or is that of the inverse transform.
            DataError: a file cannot be read, or no point is in the image.
        """
        from finetune.data.readers.files import read_stored_image
        from finetune.data.readers.orientation import turn_upright

        if self.points.is_projected:
            return
        height, width = turn_upright(*read_stored_image(self.pairs.images[index])).shape[:2]
        rig = self._rig(index, height, width)
        sweep = self.pairs.all_sweeps[self.pairs.sweeps[index]]
        _require_transform(rig, read_points(sweep, self.points), sweep, str(self.extrinsics or rig.source))

    def _rig(self, index: int, height: int, width: int) -> Rig:
        """
        Raises:
            ListError: the calibration is wrong, or for images of another size.
        """
        path = self.calibrations[index if len(self.calibrations) > 1 else 0]
        rig = read_rig(path, size=(height, width), extrinsics=self.extrinsics, kitti_camera=self.kitti_camera)
        require_size(rig.color, height, width, str(self.pairs.images[index]), rig.source)
        require_sound_rig(rig)
        return rig

    def _pinhole(self, rig: Rig) -> Camera | None:
        if not self.undistort or rig.color.lens is None:
            return None
        from finetune.prepare.undistortion import choose_pinhole

        return choose_pinhole(rig.color, keep_all=False, source=rig.source)

    def _gather(self, index: int, rig: Rig) -> _Cloud:
        """
        The points of the sweep, and of those around it, as they are when the image is taken.

        Raises:
            FrameLeftOut: the pose of the sweep is not known.
        """
        own = self.pairs.sweeps[index]
        sweep_m = read_points(self.pairs.all_sweeps[own], self.points)
        to_color = rig.color_from_sensor
        points = [transform_points(sweep_m, to_color)]
        origins = [np.broadcast_to(to_color[:3, 3], points[0].shape)]
        moved = 0
        if self.poses is not None:
            if not self.poses.known[own]:
                raise FrameLeftOut("their pose is not known")
            poses = self.poses.world_from_body
            if self.poses.of_camera:
                poses = poses @ to_color
            for other in neighbors_of(own, len(self.pairs.all_sweeps), self.poses.count)[1:]:
                if not self.poses.known[other]:
                    continue
                own_from_other = np.linalg.inv(poses[own]) @ poses[other]
                others_m = transform_points(read_points(self.pairs.all_sweeps[other], self.points), own_from_other)
                if self.poses.drop_moving:
                    gone = find_moved(others_m, sweep_m)
                    moved += int(gone.sum())
                    others_m = others_m[~gone]
                points.append(transform_points(others_m, to_color))
                origins.append(np.broadcast_to((to_color @ own_from_other)[:3, 3], points[-1].shape))
        return _Cloud(points_m=np.concatenate(points), origins_m=np.concatenate(origins), moved=moved)


def _draw(cloud: _Cloud, camera: CalibratedCamera, *, keep_hidden: bool) -> tuple[NDArray[np.float32], dict[str, int]]:
    """(H, W) meters, and how many pixels are drawn and how many of them are dropped as hidden."""
    height, width = camera.height, camera.width
    pixels = project_points(cloud.points_m, camera)
    flat = nearest_pixels(pixels, height, width)
    every_m = draw_nearest(flat, cloud.points_m[:, 2], height, width)
    drawn = int(np.count_nonzero(every_m))
    if keep_hidden or not drawn:
        return every_m, {"drawn": drawn}
    hidden = find_hidden(cloud.points_m, cloud.origins_m, pixels, camera)
    kept_m = draw_nearest(np.where(hidden, -1, flat), cloud.points_m[:, 2], height, width)
    return kept_m, {"drawn": drawn, "hidden": int(np.count_nonzero(every_m != kept_m))}


def _require_drawn(depth_m: NDArray[np.float32], sweep: Path, count: int) -> None:
    """
    Raises:
        DataError: no point is in the image.
    """
    if not depth_m.any():
        raise DataError(
            sweep,
            f"has {count} points, and none is in the image",
            "Look at the calibration: which sensor and which camera it is for, and which way its transform goes",
        )


def _require_transform(rig: Rig, points_m: NDArray[np.float64], sweep: Path, source: str) -> None:
    """
    Raises:
        ListError: far more points would be in the image by the inverse of the transform.
        DataError: none is in it either way.
    """
    seen, behind = _count_in_view(points_m, rig.color_from_sensor, rig.color)
    inverse_matrix = np.linalg.inv(rig.color_from_sensor).astype(np.float64)
    inverse, _ = _count_in_view(points_m, inverse_matrix, rig.color)
    if inverse > _INVERSE_WINS * seen:
        where = f"puts {percent(behind / len(points_m))} of the points of {sweep.name} behind the camera"
        if 2 * behind < len(points_m):
            where = f"puts {percent(seen / len(points_m))} of the points of {sweep.name} into the image"
        raise ListError(
            source,
            f"{where}, and its inverse {percent(inverse / len(points_m))} into the image: it seems to be "
            "lidar-from-camera where camera-from-lidar is expected",
            "Rename the key to lidar_from_color, or write the inverse",
        )
    if not seen:
        raise DataError(
            sweep,
            f"has {len(points_m)} points, {percent(behind / max(1, len(points_m)))} of them behind the camera and none "
            "in the image",
            "Look at the calibration: which sensor and which camera it is for, and which way its transform goes",
        )


def _count_in_view(
    points_m: NDArray[np.float64], matrix: NDArray[np.float64], camera: CalibratedCamera
) -> tuple[int, int]:
    """How many points are in the image, and how many behind the camera."""
    points = transform_points(points_m, matrix)
    flat = nearest_pixels(project_points(points, camera), camera.height, camera.width)
    return int(np.count_nonzero(flat >= 0)), int(np.count_nonzero(points[:, 2] <= 0))
