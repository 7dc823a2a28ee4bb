"""Augmentation of one sample: albumentations moving image, depth, valid and camera together."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

# Set before the import: otherwise it asks the network for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations

from finetune.sample import DepthSample


class Augmentation:
    """Mirror and color changes. No zoom, no rotation: both would teach a wrong scale for the camera at hand."""

    def __init__(self, *, flip: float, color: float) -> None:
        """
        Args:
            flip: probability of mirroring left to right.
            color: probability of changing brightness, contrast, gamma, hue and saturation together.
        """
        self._pipeline = albumentations.Compose(
            [
                albumentations.HorizontalFlip(p=flip),
                albumentations.Sequential(
                    [
                        albumentations.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=1.0),
                        albumentations.RandomGamma(gamma_limit=(80, 125), p=1.0),
                        albumentations.HueSaturationValue(
                            hue_shift_limit=10, sat_shift_limit=30, val_shift_limit=10, p=1.0
                        ),
                    ],
                    p=color,
                ),
            ],
            additional_targets={"depth_m": "mask", "valid": "mask"},
            # The principal point travels as a keypoint, so the camera moves with whatever the pipeline holds.
            keypoint_params=albumentations.KeypointParams(format="xy", remove_invisible=False),
        )

    def __call__(self, sample: DepthSample, seed: tuple[int, ...]) -> DepthSample:
        """
        Args:
            sample: at the size the network sees.
            seed: all the randomness there is: the same seed gives the same sample, in any worker and process.
        """
        # One seed for the whole pipeline would give every transform the same draw: mirrored if and only if recolored.
        children = np.random.SeedSequence(seed).generate_state(len(self._pipeline.transforms))
        for transform, child in zip(self._pipeline.transforms, children, strict=True):
            transform.set_random_seed(int(child))
        camera = sample.camera
        points = [] if camera is None else [[camera.cx_px, camera.cy_px]]
        out = self._pipeline(
            image=sample.image,
            depth_m=sample.depth_m,
            valid=sample.valid,
            keypoints=np.array(points, dtype=np.float64).reshape(-1, 2),
        )
        if camera is not None:
            cx_px, cy_px = (float(value) for value in out["keypoints"][0])
            camera = replace(camera, cx_px=cx_px, cy_px=cy_px)
        return replace(sample, image=out["image"], depth_m=out["depth_m"], valid=out["valid"], camera=camera)
