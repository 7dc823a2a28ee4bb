"""From bags to frames: which messages belong together, and what their numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.prepare.bag.frames import BagFrames, BagRecording, load_color, load_depth
from finetune.prepare.bag.open_bag import Bag, open_bag
from finetune.prepare.bag.options import BagOptions
from finetune.prepare.bag.realsense import is_sdk_stream, read_sdk_unit
from finetune.prepare.bag.streams import Stream, list_stream
from finetune.prepare.bag.topics import choose_topics
from finetune.prepare.bag.views import find_view
from finetune.prepare.calibration import Rig
from finetune.prepare.matching_times import describe_matches, match_times, require_one_clock
from finetune.prepare.registration import Registration
from finetune.prepare.rig_checks import MAX_MEDIAN_M, require_working_rig
from finetune.utils.errors import DataError, ListError
from finetune.utils.indices import evenly_spread
from finetune.utils.text import count_noun, meters

_NAMES = ("color messages", "depth messages")
_TRIED_RIG = 8  # pairs, on which cameras and their transform are tried
_TRIED = 3  # pairs, before a bag is refused for what cannot be decoded


def open_bags(paths: Sequence[Path], options: BagOptions) -> BagFrames:
    """
    Raises:
        FinetuneError: topics are not named, or rosbags is missing.
        ListError: a bag cannot be read, or its topics do not fit together.
        DataError: a message is damaged.
    """
    recordings: list[BagRecording] = []
    notes: list[str] = []
    for path in paths:
        with open_bag(path) as bag:
            notes += bag.notes
            recordings.append(_open_recording(bag, options, notes))
    return BagFrames(recordings, notes)


def _open_recording(bag: Bag, options: BagOptions, notes: list[str]) -> BagRecording:
    """The recording of a bag; what is worth knowing is added to ``notes``."""
    topics = choose_topics(bag, options.color, options.depth)
    color, depth = (list_stream(bag, topic) for topic in topics)
    notes += [
        f"{bag.path}: left out of {stream.topic.topic.name}: {count_noun(stream.damaged, 'damaged message')}."
        for stream in (color, depth)
        if stream.damaged
    ]
    notes += [
        f"{bag.path}: headers of {stream.topic.topic.name} name several frames, {', '.join(stream.frames[:5])}; the "
        "first counts."
        for stream in (color, depth)
        if len(stream.frames) > 1
    ]
    pairs = _pair(bag, color, depth, options, notes)
    times_s = color.times_s(options.clock)
    unit, words = _find_unit(bag, depth, options)
    image_size, depth_size = _measure(bag, color, depth, pairs, unit, options)
    notes.append(f"{bag.path}: {words}.")
    view = find_view(bag, color, depth, image_size, depth_size, options)
    notes += [f"{bag.path}: {note}." for note in view.notes]
    if view.rig is not None:
        _try_rig(bag, color, depth, pairs, view.rig, unit, options)
    return BagRecording(
        path=bag.path,
        color=color,
        depth=depth,
        pairs=pairs,
        times_s=[times_s[i] for i, _ in pairs],
        rig=view.rig,
        camera=view.camera,
        distorted=view.distorted,
        size=image_size,
        meters_per_unit=unit,
        encoding=options.encoding,
    )


def _measure(
    bag: Bag, color: Stream, depth: Stream, pairs: Sequence[tuple[int, int]], unit: float | None, options: BagOptions
) -> tuple[tuple[int, int], tuple[int, int]]:
    """
    (height, width) of color and of depth, pixels: what is wrong with all pairs shows before anything is written.

    Raises:
        DataError: none of a few pairs can be decoded.
    """
    fault: DataError | None = None
    for i in evenly_spread(len(pairs), _TRIED):
        try:
            image = load_color(bag, color, pairs[i][0], options.encoding)
            depth_m = load_depth(bag, depth, pairs[i][1], unit)
        except DataError as error:
            fault = fault or error
        else:
            _require_meters(depth_m, bag, depth)
            return (image.shape[0], image.shape[1]), (depth_m.shape[0], depth_m.shape[1])
    assert fault is not None, "there is a pair"
    raise fault


def _require_meters(depth_m: NDArray[np.float32], bag: Bag, depth: Stream) -> None:
    """
    Raises:
        ListError: the numbers are no meters.
    """
    measured = depth_m[depth_m > 0]
    if measured.size and float(np.median(measured)) > MAX_MEDIAN_M:
        found = f"{depth.topic.topic.name} has half of the depth farther than {meters(float(np.median(measured)))}"
        fix = "For millimeters give --meters-per-unit 0.001"
        raise ListError(bag.path, f"{found}, as millimeters taken for meters are", fix)


def _try_rig(
    bag: Bag,
    color: Stream,
    depth: Stream,
    pairs: Sequence[tuple[int, int]],
    rig: Rig,
    unit: float | None,
    options: BagOptions,
) -> None:
    """
    Raises:
        ListError: the transform is in millimeters, is the inverse, or brings depth out of the view of color.
        DataError: the numbers of depth are no meters.
    """
    assert rig.depth is not None, "find_view asks for both cameras"
    sizes = (rig.color.height, rig.color.width), (rig.depth.height, rig.depth.width)
    views = []
    for i in evenly_spread(len(pairs), _TRIED_RIG):
        try:
            image = load_color(bag, color, pairs[i][0], options.encoding)
            depth_m = load_depth(bag, depth, pairs[i][1], unit)
        except DataError:
            continue  # it is left out and named when its frame is due
        if (image.shape[:2], depth_m.shape) == sizes:
            views.append((image, depth_m))
    if options.calibration is not None:
        require_working_rig(Registration(rig), views)
        return
    require_working_rig(
        Registration(rig),
        views,
        transform="its transform from depth to color",
        fix="Give the right one by --calibration FILE (color_from_depth, meters), or record with a correct /tf_static",
    )


def _pair(bag: Bag, color: Stream, depth: Stream, options: BagOptions, notes: list[str]) -> list[tuple[int, int]]:
    """
    Raises:
        ListError: headers hold no times, times are of other clocks, or none are near enough.
    """
    times = (color.times_s(options.clock), depth.times_s(options.clock))
    for stream, found in zip((color, depth), times, strict=True):
        if len(found) > 1 and len(set(found)) == 1:
            raise ListError(
                bag.path,
                f"all headers of {stream.topic.topic.name} hold the time {found[0]:g} s",
                "Pair by the time of recording: --clock log",
            )
    try:
        require_one_clock(*times, _NAMES, bag.path)
    except ListError as error:
        if options.clock == "log":
            raise
        raise ListError(bag.path, error.found, "Pair by the time of recording: --clock log") from None
    pairs = match_times(*times, options.tolerance_s)
    notes.append(f"{bag.path}: {describe_matches(*times, pairs, _NAMES)}.")
    if not pairs:
        raise ListError(
            bag.path,
            f"no message of {color.topic.topic.name} is near enough in time to one of {depth.topic.topic.name}",
            "Raise --tolerance SECONDS, or pair by the time of recording: --clock log",
        )
    return pairs


def _find_unit(bag: Bag, depth: Stream, options: BagOptions) -> tuple[float | None, str]:
    """Meters per unit of depth, and where it is from."""
    name = depth.topic.topic.name
    if options.meters_per_unit is not None:
        return (
            options.meters_per_unit,
            f"{name} is in units of {options.meters_per_unit:g} m, as --meters-per-unit says",
        )
    if not is_sdk_stream(name):
        return None, f"{name} is {depth.topic.encoding}: whole numbers are millimeters, floats are meters (REP 118)"
    unit = read_sdk_unit(bag, name)
    if unit is not None:
        return unit, f"{name} is in units of {unit:g} m, by the option Depth Units in the bag"
    if depth.meters_per_unit > 0:
        unit = float(f"{depth.meters_per_unit:.7g}")
        return unit, f"{name} is in units of {unit:g} m, as its messages say"
    return None, f"{name} is taken as millimeters, since the bag has no Depth Units; else give --meters-per-unit"
