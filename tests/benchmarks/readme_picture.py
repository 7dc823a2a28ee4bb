"""Draw the README's picture: image, measured, base with its fit, fine-tuned, error, points, of three validation frames.

    python tests/benchmarks/readme_picture.py runs/room_tiny data/room_tiny.png

Reads the run folder alone: its recipe, from the directory that it was launched from, and its ``best/``. The base is the
recipe's checkpoint with the scale and shift of ``base_fitted_scale``. Colors end at ``--far`` and ``--error`` meters.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from finetune.assembly import make_protocols, start
from finetune.batches import evenly_spread
from finetune.environment import make_accelerator
from finetune.evaluation import ValidationSamples, network_answer, one_answer
from finetune.pictures import ComparedFrame, comparison
from finetune.predictor import load_model
from finetune.recipe import load_recipe
from finetune.weights import whole_network


def compared_frames(run: Path, count: int) -> list[ComparedFrame]:
    """Validation frames of a run, evenly picked, with what its base and its best weights say of them."""
    recipe = load_recipe(run / "recipe.yaml")
    accelerator, _ = make_accelerator(recipe)
    begin = start(recipe, accelerator)
    if begin.checkpoint is None or begin.baselines is None:
        sys.exit(f"{run}: has no base, or no meters, to draw; name the run of a metric head on a checkpoint.")
    base_answer = network_answer(whole_network(begin.checkpoint).to(accelerator.device))
    predictor, protocol = load_model(str(run)), make_protocols(recipe)[0]
    validation = ValidationSamples([entry.source for entry in recipe.data.val], begin.preprocessing)
    frames = []
    for place in evenly_spread(len(validation), count):
        found = validation[place]
        sample = found.sample
        base = one_answer(base_answer, found.image, (sample.depth_m.shape[0], sample.depth_m.shape[1]))
        frames.append(
            ComparedFrame(
                image=sample.image,
                target_m=sample.depth_m,
                valid=protocol.usable(sample.depth_m, sample.valid),
                base_m=begin.baselines.base_depth_m(base, protocol.min_depth_m, protocol.max_depth_m),
                finetuned_m=predictor.predict(sample.image),
                camera=sample.camera,
            )
        )
    return frames


def main() -> int:
    """Draw, write, and say what stands in the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run folder, such as runs/room_tiny")
    parser.add_argument("output", type=Path, help="the PNG to write")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--far", type=float, default=5.0, metavar="METERS", help="end of the depth colors")
    parser.add_argument("--error", type=float, default=0.5, metavar="METERS", help="end of the error colors")
    parser.add_argument("--width", type=int, default=900, metavar="PIXELS")
    arguments = parser.parse_args()
    frames = compared_frames(arguments.run, arguments.frames)
    for frame in frames:
        target_m = frame.target_m[frame.valid]
        base, finetuned = (
            np.mean(np.abs(answer_m[frame.valid] - target_m) / target_m)
            for answer_m in (frame.base_m, frame.finetuned_m)
        )
        print(f"AbsRel of base, fitted {base:.4f}, of fine-tuned {finetuned:.4f}; up to {target_m.max():.1f} m")
    page = comparison(frames, far_m=arguments.far, most_error_m=arguments.error, width=arguments.width)
    _, packed = cv2.imencode(".png", page[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    arguments.output.write_bytes(packed.tobytes())
    print(f"{arguments.output}: {page.shape[1]}x{page.shape[0]}, {len(packed) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
