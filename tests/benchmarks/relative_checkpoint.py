"""How well a relative checkpoint knows shapes that it was not trained on, and print the figures of its card.

    DEPTH_SAMPLES=/path/to/samples python tests/benchmarks/relative_checkpoint.py [--checkpoint FILE]

Protocol ``plain+align=scale_shift_inverse`` over all frames of ``data/room`` and of two real sequences; and of 1,000
random pairs of pixels a frame more than 20 % of depth apart, the share whose nearer one is found. A constant and
the mean inverse depth of all frames at each pixel, a layout prior, are shown next to them. Exits 1 where a target is
missed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.data.preprocessing import Preprocessing
from finetune.data.readers.pairs import Pairs
from finetune.data.sample import DepthSample
from finetune.evaluation.evaluator import predict_one, predict_with_network
from finetune.evaluation.protocols import Protocol
from finetune.models.checkpoints.fill import whole_network
from finetune.models.checkpoints.load import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PAIRS, APART = 1000, 1.2
MIN_ORDERED = 0.85


@dataclass(frozen=True)
class Data:
    """Frames to judge by, and the AbsRel that a checkpoint may have there at most."""

    name: str
    root: Path
    lists: tuple[str, ...]
    most_abs_rel: float

    def samples(self) -> list[DepthSample]:
        """All frames."""
        readers = [
            Pairs(root=str(self.root), list=name, meters_per_unit=0.001, invalid=(0, 65535)) for name in self.lists
        ]
        return [reader[index] for reader in readers for index in range(len(reader))]


def ordered_share(inverse: NDArray[np.floating], sample: DepthSample, seed: int) -> float:
    """Of random pairs of valid pixels with depths more than 20 % apart, the share whose nearer one has more inverse."""
    depth_m, prediction = sample.depth_m[sample.valid], inverse[sample.valid]
    draws = np.random.default_rng(seed)
    first, second = draws.integers(0, len(depth_m), (2, 50 * PAIRS))
    ratio = depth_m[first] / depth_m[second]
    apart = np.flatnonzero((ratio > APART) | (ratio < 1 / APART))[:PAIRS]
    nearer = depth_m[first[apart]] < depth_m[second[apart]]
    return float(np.mean(nearer == (prediction[first[apart]] > prediction[second[apart]])))


def abs_rel(protocol: Protocol, inverse: NDArray[np.floating], sample: DepthSample) -> float:
    """Of one frame, after scale and shift were fitted."""
    usable = protocol.usable(sample.depth_m, sample.valid)
    return protocol.score(protocol.depth_m(inverse, sample.depth_m, usable), sample.depth_m, usable)["abs_rel"]


def layout_prior(samples: Sequence[DepthSample]) -> NDArray[np.floating]:
    """Mean inverse depth at each pixel over all frames of one size: what is known without looking."""
    valid = np.stack([one.valid for one in samples])
    inverse = np.where(valid, 1 / np.where(valid, np.stack([one.depth_m for one in samples]), 1), 0)
    count = valid.sum(axis=0)
    return np.where(count > 0, inverse.sum(axis=0) / np.maximum(count, 1), inverse.sum() / valid.sum())


def judge(data: Data, checkpoint: str, input_size: tuple[int, int]) -> bool:
    """Print the line of one data set; whether its targets are met."""
    samples, preprocessing = data.samples(), Preprocessing(input_size=input_size)
    predict = predict_with_network(whole_network(read_checkpoint(checkpoint)))
    protocol = Protocol(name="plain+align=scale_shift_inverse", min_depth_m=0.001, max_depth_m=10.0, kind="relative")
    inverses = [
        predict_one(
            predict, torch.from_numpy(preprocessing(one.image))[None], (one.depth_m.shape[0], one.depth_m.shape[1])
        )
        for one in samples
    ]
    prior = layout_prior(samples)
    rows = {
        "network": np.mean([abs_rel(protocol, inverse, one) for inverse, one in zip(inverses, samples, strict=True)]),
        "layout prior": np.mean([abs_rel(protocol, prior, one) for one in samples]),
        "constant": np.mean([abs_rel(protocol, np.ones_like(prior), one) for one in samples]),
    }
    ordered = np.mean(
        [ordered_share(i, one, seed) for seed, (i, one) in enumerate(zip(inverses, samples, strict=True))]
    )
    print(
        f"{data.name:22} {input_size[0]}x{input_size[1]} AbsRel "
        + ", ".join(f"{name} {value:.4f}" for name, value in rows.items())
        + f"; ordered {ordered:.4f}; {len(samples)} frames",
        flush=True,
    )
    return bool(rows["network"] <= data.most_abs_rel and ordered >= MIN_ORDERED)


def main() -> int:
    """Judge on each data set at each size; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(ROOT / "data" / "tiny_relative.safetensors"))
    parser.add_argument("--size", type=int, nargs=2, default=(112, 154), metavar=("HEIGHT", "WIDTH"))
    arguments = parser.parse_args()
    samples = Path(os.environ["DEPTH_SAMPLES"])
    every = ("train.txt", "val.txt")
    judged = [
        judge(data, arguments.checkpoint, tuple(arguments.size))
        for data in (
            Data("data/room", ROOT / "data" / "room", every, 0.10),
            Data("realsense_lab_seq", samples / "realsense_lab_seq", every, 0.14),
            Data("sevenscenes_seq", samples / "sevenscenes_seq", every, 0.16),
        )
    ]
    return 0 if all(judged) else 1


if __name__ == "__main__":
    sys.exit(main())
