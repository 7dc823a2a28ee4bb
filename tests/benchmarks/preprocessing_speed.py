"""Time of one training sample, 1242x375 to a 518x518 crop: ours against the original's order, decoding aside.

    pip install --no-deps jkp-depth-anything-v2
    python tests/benchmarks/preprocessing_speed.py

The original resizes the whole image in float64, normalizes it, and crops; ours cuts the window first, stays in uint8,
and leaves the normalization to the device. Both run in turn in one process on one thread; the ratio is of medians.
Exits 1 where it is above 0.30.
"""

from __future__ import annotations

import statistics
import sys
import time

import cv2
import numpy as np
from depth_anything_v2.util.transform import NormalizeImage, PrepareForNet, Resize

from finetune.data.preprocessing import Preprocessing
from finetune.data.sample import DepthSample

MAX_OF_ORIGINAL = 0.30


def original(image: np.ndarray, depth_m: np.ndarray, valid: np.ndarray) -> None:
    """The reference training pipeline: resize all, normalize all, crop."""
    sample = {"image": image / 255.0, "depth": depth_m, "mask": valid}
    for step in (
        Resize(518, 518, True, True, 14, "lower_bound", cv2.INTER_CUBIC),
        NormalizeImage(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        PrepareForNet(),
    ):
        sample = step(sample)
    for values in sample.values():
        np.ascontiguousarray(values[..., 600:1118])


def main() -> int:
    """Print both medians and their ratio; 1 where it is beyond the bound."""
    cv2.setNumThreads(1)
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (375, 1242, 3), dtype=np.uint8)
    depth_m = generator.uniform(1, 80, (375, 1242)).astype(np.float32)
    valid = generator.uniform(size=(375, 1242)) < 0.2
    sample = DepthSample(image=image, depth_m=depth_m, valid=valid, source="noise")
    preprocessing = Preprocessing(input_size=(518, 518))
    seconds: dict[str, list[float]] = {"original": [], "ours": []}
    for _ in range(31):
        started = time.perf_counter()
        original(image, depth_m, valid)
        between = time.perf_counter()
        preprocessing.window(375, 1242, 0.5, 0.5)(sample)
        seconds["original"].append(between - started)
        seconds["ours"].append(time.perf_counter() - between)
    medians = {name: 1000 * statistics.median(values[1:]) for name, values in seconds.items()}
    print(", ".join(f"{name} {value:.1f} ms" for name, value in medians.items()), end=", ")
    ratio = medians["ours"] / medians["original"]
    print(f"ratio {ratio:.2f}")
    if ratio <= MAX_OF_ORIGINAL:
        return 0
    print(f"The ratio {ratio:.4f} is above {MAX_OF_ORIGINAL:.2f}.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
