"""Fill real LiDAR frames of which most points are held back, and print the table of data/README.md.

    DEPTH_SAMPLES=/path/to/samples python tests/benchmarks/complete_depth.py [--model data/tiny_relative.safetensors]

All LiDAR frames of the samples: two of ``kitti_depth``, one of ``kitti_object``, two of ``ddad_rig``. Kept are 50 % and
5 % of the measured pixels and 200 of them, at random, with each of ``--seeds``; and every second of 72 bands of rows,
each about as high as a scan line. AbsRel at the held-back pixels of what ``finetune prepare complete`` fills, of the
nearest kept pixel, and of linear interpolation of the kept ones in depth and in inverse depth (the nearest one outside
of their hull). ``filled`` are the pixels that ``complete`` fills, the same for all four; at ``all`` held-back pixels
the guesses are scored that it does not write.

Exits 1 where, at 50 % or 5 %, it is not better than the nearest pixel and than linear interpolation: as a mean over the
seeds, on each frame, both on the pixels that it fills and on all that were held back.

In finetune/inference/anchoring.py, the share that is trusted, the number of nodes and how depth is interpolated were
chosen on drawn rooms and streets and on ``kitti_object`` and ``ddad_rig``; ``kitti_depth`` had no part in it. The other
constants, such as the stiffness, were once chosen on all of these frames.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

from finetune.data.readers.files import read_depth, read_image
from finetune.inference.anchoring import AnchoringOptions, AnchoringRefused, anchor_depth
from finetune.inference.predictor import load_model

ROOT = Path(__file__).resolve().parents[2]
UNITS_PER_METER = 256.0
BANDS = 72
METHODS = ("complete", "nearest", "linear", "inverse")
DRIVE = "2011_09_26_drive_0013_sync"


def find_frames(samples: Path) -> dict[str, tuple[Path, Path]]:
    """Name -> image and depth file of every LiDAR frame in the samples."""
    found = {}
    truth = samples / "kitti_depth" / "data_depth_annotated" / "val" / DRIVE / "proj_depth" / "groundtruth" / "image_02"
    images = samples / "kitti_depth" / "raw" / "2011_09_26" / DRIVE / "image_02" / "data"
    for depth in sorted(truth.glob("*.png")):
        found[f"kitti_depth {int(depth.stem)}"] = images / depth.name, depth
    training = samples / "kitti_object" / "training"
    for depth in sorted((training / "depth_projected_2").glob("*.png")):
        found[f"kitti_object {int(depth.stem)}"] = training / "image_2" / depth.name, depth
    scene = samples / "ddad_rig" / "scene_01"
    for depth in sorted((scene / "depth_projected").rglob("*.png")):
        camera = depth.parent.name
        found[f"ddad_rig {camera[-2:]}"] = scene / "rgb" / camera / f"{depth.stem}.jpg", depth
    return found


def choose_kept(measured: NDArray[np.bool_], seeds: list[int]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """What is kept -> (H, W) bool, once for each seed."""
    pixels = np.argwhere(measured)
    for name, count in (("50 %", len(pixels) // 2), ("5 %", len(pixels) // 20), ("200 points", 200)):
        for seed in seeds:
            chosen = np.random.default_rng(seed).permutation(len(pixels))[:count]
            kept = np.zeros_like(measured)
            kept[tuple(pixels[chosen].T)] = True
            yield name, kept
    band = np.arange(len(measured)) * BANDS // len(measured)
    yield "half the lines", measured & (band % 2 == 0)[:, None]


def score_frame(
    relative: NDArray[np.float32], depth_m: NDArray[np.float32], kept: NDArray[np.bool_]
) -> tuple[float, dict[str, float], dict[str, float]] | None:
    """Share of the held-back pixels that is filled, and AbsRel of each method at those and at all; None if refused."""
    rows, columns = np.nonzero(kept)
    points_m = depth_m[rows, columns]
    try:
        anchored = anchor_depth(relative, rows, columns, points_m, AnchoringOptions())
    except AnchoringRefused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return None
    held = (depth_m > 0) & ~kept
    target_m = depth_m[held].astype(np.float64)
    at, places = np.argwhere(held), np.stack([rows, columns], axis=1)
    nearest = NearestNDInterpolator(places, points_m)(at)
    linear = LinearNDInterpolator(places, points_m)(at)
    inverse = 1.0 / LinearNDInterpolator(places, 1.0 / points_m)(at)
    predictions = {
        "complete": anchored.depth_m[held],
        "nearest": nearest,
        "linear": np.where(np.isnan(linear), nearest, linear),
        "inverse": np.where(np.isnan(inverse), nearest, inverse),
    }
    errors = {name: np.abs(pred_m - target_m) / target_m for name, pred_m in predictions.items()}
    filled = anchored.confidence[held] > 0
    return (
        float(filled.mean()),
        {name: float(error[filled].mean()) for name, error in errors.items()},
        {name: float(error.mean()) for name, error in errors.items()},
    )


def main() -> int:
    """Print the table; 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "data" / "tiny_relative.safetensors"))
    parser.add_argument("--frames", nargs="+", default=[""], help="only frames whose name begins with one of these")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    predictor = load_model(arguments.model)
    print("| kept | frame | filled | " + " | ".join(f"{name}: filled (all)" for name in METHODS) + " |")
    print("| --- |" + " --- |" * (2 + len(METHODS)))
    missed = []
    for frame, (image, depth) in find_frames(Path(os.environ["DEPTH_SAMPLES"])).items():
        if not frame.startswith(tuple(arguments.frames)):
            continue
        depth_m = (read_depth(depth) / UNITS_PER_METER).astype(np.float32)
        relative = predictor.predict(read_image(image))
        scores: dict[str, list[tuple[float, dict[str, float], dict[str, float]]]] = {}
        for name, kept in choose_kept(depth_m > 0, arguments.seeds):
            scores.setdefault(name, [])
            scored = score_frame(relative, depth_m, kept)
            if scored is not None:
                scores[name].append(scored)
        for name, of_seeds in scores.items():
            if not of_seeds:
                print(f"| {name} | {frame} | refused |" + " |" * len(METHODS), flush=True)
                continue
            share = np.mean([filled for filled, _, _ in of_seeds])
            means = {
                method: (np.mean([at[method] for _, at, _ in of_seeds]), np.mean([at[method] for *_, at in of_seeds]))
                for method in METHODS
            }
            cells = " | ".join(f"{at_filled:.4f} ({at_all:.4f})" for at_filled, at_all in means.values())
            print(f"| {name} | {frame} | {share:.0%} | {cells} |", flush=True)
            # Not `at least`: a NaN is neither.
            others = [means[other][i] - means["complete"][i] for other in ("nearest", "linear") for i in (0, 1)]
            if "%" in name and not all(more > 0 for more in others):
                missed.append(f"{name} of {frame}")
    for name in missed:
        print(f"{name}: complete is not better than the nearest pixel and linear interpolation", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
