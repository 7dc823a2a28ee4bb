"""``finetune predict MODEL PATH... --output DIR``: images, folders of images and videos, to depth."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

from finetune.commands.arguments import add_model_argument, load_from
from finetune.commands.runner import CommandParser, import_without_gc, run_command
from finetune.utils.errors import ResultError
from finetune.utils.files import write_fault
from finetune.utils.paths import expand_path, make_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Understand the call, predict; the exit status is that of ``runner.run_command``."""
    parser = CommandParser(
        prog="finetune predict",
        description="Images to depth: <name>.npy in meters (float32), <name>.png in millimeters (16 bit), "
        "<name>_preview.png in color. A relative model knows no meters: <name>_inverse.npy and the preview. Of a video "
        "<name>_preview.mp4, at its frame rate and in colors of one range, 640 px wide or high at most.",
    )
    add_model_argument(parser)
    parser.add_argument(
        "paths",
        nargs="+",
        type=expand_path,
        metavar="PATH",
        help="an image or a video, a folder of them, a pattern in quotes, or a .txt or .csv list with an image a line",
    )
    parser.add_argument("--output", type=expand_path, required=True, metavar="DIR", help="the folder to write into")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--flip", action="store_true", help="average with the answer to the mirrored image")
    parser.add_argument("--skip-existing", action="store_true", help="leave alone what is done already")
    parser.add_argument(
        "--range",
        type=_range,
        metavar="NEAR,FAR",
        help="meters at the ends of the preview's colors; auto: the 2nd and the 98th percentile of each image, of a "
        "video its first frame; default: 0 and the model's max depth",
    )
    parser.add_argument(
        "--png-units-per-meter",
        type=_positive,
        default=1000.0,
        metavar="N",
        help="of <name>.png: 1000 for millimeters, up to 65.5 m; 256, as KITTI, up to 255 m",
    )
    parser.add_argument("--frames", action="store_true", help="of a video also <name>/000000.npy, ..., a frame each")
    points = parser.add_argument_group("points", "<name>.ply: binary PLY with color, in meters")
    points.add_argument("--points", action="store_true", help="write it; needs a camera, by the next two or a list")
    points.add_argument(
        "--intrinsics",
        type=_numbers(4, "fx,fy,cx,cy in pixels", lambda found: min(found[:2]) > 0),
        metavar="FX,FY,CX,CY",
        help="pixels; a list file may give them for each image in four columns",
    )
    points.add_argument(
        "--intrinsics-size",
        type=_numbers(2, "W,H in pixels", lambda found: min(found) >= 1),
        metavar="W,H",
        help="size of the images that the intrinsics, or those of a list, are for, if another than that of the images",
    )
    points.add_argument(
        "--hfov",
        type=_numbers(1, "degrees above 0 and below 180", lambda found: 0 < found[0] < 180),
        metavar="DEGREES",
        help="horizontal field of view, instead of intrinsics",
    )
    points.add_argument(
        "--edge-filter",
        nargs="?",
        type=_positive,
        const=0.05,
        metavar="SHARE",
        help="leave out pixels where depth jumps by more than this share (0.05), which fly between surfaces",
    )
    points.add_argument("--max-points", type=_count, metavar="N", help="so many for each image at most, evenly drawn")
    arguments = parser.parse_args(argv)
    if arguments.intrinsics and arguments.hfov:
        parser.error("--intrinsics and --hfov say the same thing: give one of them")
    if arguments.intrinsics_size and arguments.hfov:
        parser.error("--intrinsics-size is of intrinsics, and --hfov needs no size: leave out one of them")
    given = [
        name
        for name in ("intrinsics", "intrinsics_size", "hfov", "edge_filter", "max_points")
        if getattr(arguments, name)
    ]
    if given and not arguments.points:
        parser.error(f"--{given[0].replace('_', '-')} is of points: add --points")
    return run_command(
        lambda: _predict(arguments),
        "Images that are done stay; call again for the others.",
        of_memory="Call with --device cpu, or close what else holds memory.",
    )


def _predict(arguments: argparse.Namespace) -> None:
    from finetune.inference.inputs import found_inputs

    inputs = found_inputs(arguments.paths, arguments.output)
    try:
        make_folder(arguments.output)
    except OSError as error:
        raise write_fault(arguments.output, str(error.strerror)) from error
    # Only now what takes seconds to import: a wrong call has been answered.
    with import_without_gc():
        from finetune.data.camera import CameraOptions
        from finetune.inference.batch import PointOptions, PredictOptions, predict_inputs
        from finetune.inference.outputs import MAX_COUNTS

    predictor = load_from(arguments, arguments.device)
    if predictor.kind == "relative":
        print(f"{arguments.model} is relative: inverse depth without a unit, no meters and no millimeter PNG")
    cameras = CameraOptions(
        intrinsics=arguments.intrinsics,
        size=arguments.intrinsics_size and tuple(map(int, arguments.intrinsics_size)),
        hfov_deg=arguments.hfov and arguments.hfov[0],
    )
    points = PointOptions(cameras=cameras, edge_ratio=arguments.edge_filter, max_points=arguments.max_points)
    options = PredictOptions(
        output=arguments.output,
        range_m=arguments.range,
        units_per_meter=arguments.png_units_per_meter,
        flip=arguments.flip,
        skip_existing=arguments.skip_existing,
        frames=arguments.frames,
        points=points if arguments.points else None,
    )
    outcome = predict_inputs(predictor, inputs, options)
    for note in outcome.notes:
        print(note)
    kept = f", {outcome.skipped} were there already" if outcome.skipped else ""
    what = "inputs" if any(one.is_video for one in inputs) else "images"
    print(f"{arguments.output}: {outcome.done} of {len(inputs)} {what} done{kept}")
    faults = outcome.faults
    if outcome.beyond:
        units = arguments.png_units_per_meter
        assert predictor.max_depth_m is not None
        fitting = max(1, math.floor(MAX_COUNTS / predictor.max_depth_m))
        faults.append(
            f"{len(outcome.beyond)} of {len(inputs)} {what}, {outcome.beyond[0]} first, reach beyond "
            f"{MAX_COUNTS / units:g} m, the most that 16 bits of 1/{units:g} m hold: they have no .png. Use their "
            f".npy, which is in meters, or --png-units-per-meter {fitting}."
        )
    if faults:
        raise ResultError("\n".join(faults))


def _numbers(
    count: int, expected: str, holds: Callable[[tuple[float, ...]], bool]
) -> Callable[[str], tuple[float, ...]]:
    """What makes an argument of numbers with commas between them."""

    def parse(text: str) -> tuple[float, ...]:
        try:
            found = tuple(float(part) for part in text.split(","))
        except ValueError:
            found = ()
        if len(found) != count or not all(map(math.isfinite, found)) or not holds(found):
            raise argparse.ArgumentTypeError(f"{text} is not {expected}")
        return found

    return parse


def _range(text: str) -> tuple[float, ...] | str:
    if text == "auto":
        return text
    expected = "NEAR,FAR in meters, NEAR below FAR, or auto"
    return _numbers(2, expected, lambda ends: 0 <= ends[0] < ends[1])(text)


def _positive(text: str) -> float:
    (value,) = _numbers(1, "a number above 0", lambda found: found[0] > 0)(text)
    return value


def _count(text: str) -> int:
    (value,) = _numbers(1, "a whole number above 0", lambda found: found[0] >= 1 and found[0].is_integer())(text)
    return int(value)
