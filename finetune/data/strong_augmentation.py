"""Strong changes of an image that a teacher labeled: the student sees them, the teacher saw the clean image."""

from __future__ import annotations

import math
import os
import random
from typing import NamedTuple

import numpy as np

# Set before the import: otherwise it asks the network for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations

from finetune.data.sample import DepthSample

# Of the image: the share that another image covers, and height over width of that box.
MIN_PASTED, MAX_PASTED, MAX_ASPECT = 0.1, 0.5, 2.0


class Box(NamedTuple):
    """A rectangle of an image, pixels."""

    top: int
    left: int
    height: int
    width: int


class StrongAugmentation:
    """
    Color jitter and blur, for a student to learn more from an image than its teacher knew.

    Source: Yang et al. 2024 (Depth Anything), arXiv:2401.10891, section 3.3; the limits are those that public code for
    semi-supervised segmentation uses: brightness, contrast and saturation by half, hue by a quarter of the circle.
    """

    def __init__(self, *, color: float, blur: float) -> None:
        """
        Args:
            color: probability of color jitter.
            blur: probability of a Gaussian blur of 0.1 to 2 pixels.
        """
        self._transforms = [
            albumentations.ColorJitter(
                brightness=(0.5, 1.5), contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=(-0.25, 0.25), p=color
            ),
            albumentations.GaussianBlur(sigma_limit=(0.1, 2.0), blur_limit=0, p=blur),
        ]

    def __call__(self, sample: DepthSample, seed: tuple[int, ...]) -> DepthSample:
        """
        Args:
            sample: at the size the network sees.
            seed: all the randomness there is.
        """
        image = sample.image
        children = np.random.SeedSequence(seed).generate_state(len(self._transforms))
        for transform, child in zip(self._transforms, children, strict=True):
            if transform.p:
                transform.set_random_state(np.random.default_rng(int(child)), random.Random(int(child)))
                image = transform(image=image)["image"]
        return sample.changed(image=image)


def draw_box(height: int, width: int, draw: np.random.Generator) -> Box:
    """A box of ``MIN_PASTED`` to ``MAX_PASTED`` of an image, anywhere in it."""
    share, aspect = draw.uniform(MIN_PASTED, MAX_PASTED), math.exp(draw.uniform(-1, 1) * math.log(MAX_ASPECT))
    rows = min(height, max(1, round(math.sqrt(share * height * width * aspect))))
    columns = min(width, max(1, round(share * height * width / rows)))
    top, left = (int(draw.integers(spare + 1)) for spare in (height - rows, width - columns))
    return Box(top, left, rows, columns)


def paste_box(sample: DepthSample, other: DepthSample, box: Box) -> DepthSample:
    """
    A sample with a box of another one of the same size: image, depth, ``valid`` and weights.

    Source: CutMix, Yun et al. 2019, arXiv:1905.04899.
    """
    inside = np.s_[box.top : box.top + box.height, box.left : box.left + box.width]
    changed = {}
    for name in ("image", "depth_m", "valid"):
        values = getattr(sample, name).copy()
        values[inside] = getattr(other, name)[inside]
        changed[name] = values
    if sample.weight is not None or other.weight is not None:
        weight, others = (
            np.ones(sample.valid.shape, np.float32) if found.weight is None else found.weight
            for found in (sample, other)
        )
        weight = weight.copy()
        weight[inside] = others[inside]
        changed["weight"] = weight
    return sample.changed(**changed, source=f"{sample.source} with a part of {other.source}")
