"""Bags of ROS 1, ROS 2 and RealSense, with a topic of color and one of depth."""

from __future__ import annotations

import argparse

from finetune.prepare.distinct_sources import require_distinct
from finetune.prepare.recording import FrameSource
from finetune.utils.number_arguments import number
from finetune.utils.paths import expand_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare BAG and the options of topics, times and cameras."""
    parser.add_argument(
        "bags",
        nargs="+",
        type=expand_path,
        metavar="BAG",
        help="a .bag of ROS 1 or RealSense, or a folder, .mcap or .db3 of ROS 2; several are several recordings",
    )
    topics = parser.add_argument_group("topics; without --color and --depth, those of the bag are listed")
    topics.add_argument("--color", metavar="TOPIC", help="Image or CompressedImage")
    topics.add_argument("--depth", metavar="TOPIC", help="Image, CompressedImage or compressedDepth")
    topics.add_argument("--color-info", metavar="TOPIC", help="camera_info of color; default: the one next to it")
    topics.add_argument("--depth-info", metavar="TOPIC", help="camera_info of depth; default: the one next to it")
    topics.add_argument(
        "--color-encoding", metavar="NAME", help="such as bayer_rggb8, where the messages of color say it wrong"
    )
    times = parser.add_argument_group("times")
    times.add_argument(
        "--clock",
        choices=("header", "log"),
        default="header",
        help="pair by the times in headers (default), or by those of recording",
    )
    times.add_argument(
        "--tolerance",
        type=number("a number of seconds above 0"),
        metavar="SECONDS",
        help="how far apart a pair may be; default: half an interval",
    )
    depth = parser.add_argument_group("depth and cameras")
    depth.add_argument(
        "--meters-per-unit",
        type=number("a number of meters above 0"),
        metavar="METERS",
        help="default: what a RealSense bag says; else millimeters for whole numbers, meters for floats (REP 118)",
    )
    depth.add_argument("--aligned", action="store_true", help="depth is in the view of color, whatever the frames say")
    depth.add_argument(
        "--calibration", type=expand_path, metavar="FILE", help="both cameras, instead of camera_info and transforms"
    )
    depth.add_argument("--undistort", action="store_true", help="make the frames those of a pinhole camera")


def open_source(arguments: argparse.Namespace) -> FrameSource:
    """
    List the messages of both topics and pair them; no pixel is decoded but those of the first pair.

    Raises:
        FinetuneError: the package rosbags is missing, a bag cannot be read, or its topics do not fit together.
    """
    from finetune.prepare.bag.messages import require_rosbags

    require_rosbags()
    from finetune.prepare.bag.options import BagOptions
    from finetune.prepare.bag.source import open_bags
    from finetune.prepare.bag.topics import TopicsNotNamed

    require_distinct(arguments.bags)
    options = BagOptions(
        color=arguments.color,
        depth=arguments.depth,
        color_info=arguments.color_info,
        depth_info=arguments.depth_info,
        clock=arguments.clock,
        tolerance_s=arguments.tolerance,
        meters_per_unit=arguments.meters_per_unit,
        encoding=arguments.color_encoding,
        aligned=arguments.aligned,
        calibration=arguments.calibration,
        undistort=arguments.undistort,
    )
    try:
        return open_bags(arguments.bags, options)
    except TopicsNotNamed as error:
        print("\n".join(error.lines), flush=True)
        raise
