"""``finetune prepare lidar IMAGES POINTS``: a camera and the sweeps of a LiDAR that is mounted with it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.prepare.recording import FrameSource
from finetune.utils.errors import FinetuneError, ListError
from finetune.utils.number_arguments import number, whole_number
from finetune.utils.paths import expand_path, is_folder, list_folder, missing

if TYPE_CHECKING:
    from finetune.prepare.lidar_frames import SweepPoses
    from finetune.prepare.sweep_pairs import SweepPairs

_CALIBRATION = (
    "Give --calibration FILE: KITTI's calib.txt, ROS' camera_info with --extrinsics, or JSON with color and "
    "color_from_lidar"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare IMAGES, POINTS and the options of sweeps."""
    parser.add_argument("images", type=expand_path, metavar="IMAGES", help="a folder of images")
    parser.add_argument(
        "points",
        type=expand_path,
        metavar="POINTS",
        help="a folder of sweeps: .bin, .pcd, .ply, .npy, .npz, .las, .laz",
    )
    group = parser.add_argument_group("calibration")
    group.add_argument(
        "--calibration",
        type=expand_path,
        metavar="FILE",
        help="KITTI's calib.txt, ROS' camera_info (YAML), or JSON; or a folder with one for each image, by its stem",
    )
    group.add_argument(
        "--extrinsics", type=expand_path, metavar="FILE", help="JSON or YAML with color_from_lidar: 4x4, meters"
    )
    group.add_argument(
        "--kitti-camera", choices=("P0", "P1", "P2", "P3"), default="P2", help="which of KITTI's cameras (default: P2)"
    )
    group.add_argument("--undistort", action="store_true", help="write the images without the distortion of their lens")
    group = parser.add_argument_group("points")
    group.add_argument(
        "--columns", type=_names, metavar="X,Y,Z,...", help="columns of .bin, .npy, .npz; u,v,z: pixel and depth"
    )
    group.add_argument("--points-key", metavar="NAME", help="the array of .npz that holds the points")
    group.add_argument(
        "--meters-per-unit",
        type=number("a number above 0"),
        default=1.0,
        metavar="M",
        help="a coordinate times this is meters",
    )
    group.add_argument("--keep-hidden", action="store_true", help="keep points that nearer ones hide from the camera")
    group = parser.add_argument_group("times")
    group.add_argument("--image-times", type=expand_path, metavar="FILE", help="rows: TIME, or TIME NAME; seconds")
    group.add_argument("--points-times", type=expand_path, metavar="FILE", help="the same for the sweeps")
    group.add_argument(
        "--tolerance",
        type=number("a number above 0"),
        metavar="SECONDS",
        help="between image and sweep; default: half a frame interval",
    )
    group = parser.add_argument_group("several sweeps")
    group.add_argument(
        "--accumulate",
        type=whole_number("a number of sweeps from 1 up"),
        default=1,
        metavar="N",
        help="draw the N sweeps around each image",
    )
    group.add_argument("--poses", type=expand_path, metavar="FILE", help="rows of TUM or of KITTI; for --accumulate")
    group.add_argument(
        "--poses-of", choices=("lidar", "camera"), help="what the poses are of; default: camera for KITTI's, else lidar"
    )
    group.add_argument("--drop-moving", action="store_true", help="leave out what moved between the sweeps")


def open_source(arguments: argparse.Namespace) -> FrameSource:
    """
    Pair images with sweeps, read calibration and poses, and look at the first frame.

    Raises:
        FinetuneError: a file is missing, nothing pairs up, an option is missing, or the transform does not put the
            points into the image.
    """
    from finetune.data.readers.files import IMAGE_SUFFIXES
    from finetune.prepare.lidar_frames import LidarFrames
    from finetune.prepare.point_files import POINT_SUFFIXES, PointFormat
    from finetune.prepare.sweep_pairs import pair_sweeps

    _require_options(arguments)
    options = PointFormat(
        columns=arguments.columns, key=arguments.points_key, meters_per_unit=arguments.meters_per_unit
    )
    images = _list_files(arguments.images, IMAGE_SUFFIXES, "images")
    sweeps = _list_files(arguments.points, POINT_SUFFIXES, "sweeps")
    pairs = pair_sweeps(
        images, sweeps, times=(arguments.image_times, arguments.points_times), tolerance_s=arguments.tolerance
    )
    if arguments.calibration is None and not options.is_projected:
        raise FinetuneError(f"--calibration is missing, so nothing says where a point is in the image. {_CALIBRATION}.")
    source = LidarFrames(
        recording=arguments.images.name,
        pairs=pairs,
        calibrations=_list_calibrations(arguments.calibration, pairs),
        extrinsics=arguments.extrinsics,
        kitti_camera=arguments.kitti_camera,
        points=options,
        poses=_read_poses(arguments, pairs),
        keep_hidden=arguments.keep_hidden or options.is_projected,
        undistort=arguments.undistort,
    )
    source.require_view(0)
    return source


def _require_options(arguments: argparse.Namespace) -> None:
    """
    Raises:
        FinetuneError: options that need one another are not given together.
    """
    if (arguments.image_times is None) != (arguments.points_times is None):
        given, lacking = ("--image-times", "--points-times")
        if arguments.image_times is None:
            given, lacking = lacking, given
        raise FinetuneError(f"{given} is given without {lacking}. Give the times of both, or of neither.")
    if arguments.accumulate > 1 and arguments.poses is None:
        raise FinetuneError("--accumulate needs the way of the sensor. Give --poses FILE with rows of TUM or of KITTI.")
    if arguments.poses is not None and arguments.accumulate == 1:
        raise FinetuneError("--poses is for --accumulate N, which is not given. Add it, or leave --poses out.")
    if arguments.drop_moving and arguments.accumulate == 1:
        raise FinetuneError("--drop-moving compares sweeps. Give --accumulate N, or leave it out.")


def _list_files(folder: Path, suffixes: Sequence[str], what: str) -> list[Path]:
    """The files in a folder that end so; what begins with a dot is hidden.

    Raises:
        ListError: there are none.
    """
    fix = f"Name the folder of the {what}"
    if not is_folder(folder):
        raise ListError(folder, missing(folder, "folder"), fix)
    found = [path for path in list_folder(folder) if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    if not found:
        raise ListError(folder, f"holds no {', '.join(suffixes)}", fix)
    return found


def _list_calibrations(path: Path | None, pairs: SweepPairs) -> list[Path]:
    """
    The calibration of each frame; one for all is listed once.

    Raises:
        ListError: the folder has none of an image.
    """
    if path is None:
        return []
    if not is_folder(path):
        return [path]
    by_stem = {file.stem: file for file in list_folder(path)}
    for image in pairs.images:
        if image.stem not in by_stem:
            raise ListError(path, f"has no calibration of {image.name}", "Name the file that all images share")
    return [by_stem[image.stem] for image in pairs.images]


def _read_poses(arguments: argparse.Namespace, pairs: SweepPairs) -> SweepPoses | None:
    if arguments.poses is None:
        return None
    from finetune.prepare.accumulate import poses_of_sweeps, read_poses
    from finetune.prepare.lidar_frames import SweepPoses

    poses = read_poses(arguments.poses)
    world_from_body, known = poses_of_sweeps(poses, len(pairs.all_sweeps), pairs.sweep_times_s)
    if not known[list(pairs.sweeps)].any():
        raise ListError(arguments.poses, "covers the time of no sweep", "Give the poses of this recording")
    of_camera = arguments.poses_of == "camera" or (arguments.poses_of is None and poses.times_s is None)
    return SweepPoses(
        world_from_body=world_from_body,
        known=known,
        of_camera=of_camera,
        count=arguments.accumulate,
        drop_moving=arguments.drop_moving,
        source=poses.source,
    )


def _names(text: str) -> Sequence[str]:
    names = tuple(part.strip() for part in text.split(","))
    if len(set(names)) != len(names) or not all(names):
        raise argparse.ArgumentTypeError(f"{text} is not names of columns, each once, such as x,y,z,intensity")
    if not ({"x", "y", "z"} <= set(names) or {"u", "v", "z"} <= set(names)):
        raise argparse.ArgumentTypeError(f"{text} names neither x, y and z nor u, v and z")
    return names
