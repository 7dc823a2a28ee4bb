"""Augmentation of one sample by albumentations, which moves image, depth, valid and camera together."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

# Set before the import: otherwise it asks the network for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations

from finetune.data.sample import DepthSample


class Augmentation:
    """
    Mirror, color changes, and what cameras do to an image.

    No zoom and no rotation: both would teach a wrong scale for this camera. Nothing is covered up either: the model
    would be asked for the depth of what it cannot see.
    """

    def __init__(self, *, flip: float, color: float, color_strength: float = 1.0, degrade: float = 0.0) -> None:
        """
        Args:
            flip: probability of mirroring left to right.
            color: probability of changing brightness, contrast, gamma, hue and saturation together.
            color_strength: multiplies the limits of these changes. All but hue and saturation stop growing between 1
                and 2.5, where an image would turn black or white.
            degrade: probability of spoiling the image by one to three of light, tint, blur, coarser pixels, noise and
                compression.
        """
        self._pipeline = albumentations.Compose(
            [
                albumentations.HorizontalFlip(p=flip),
                albumentations.Sequential(_color_changes(color_strength), p=color),
                _degradation(p=degrade),
            ],
            additional_targets={"depth_m": "mask", "valid": "mask", "weight": "mask"},
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
        # A transform made of others passes its seed on to each of them, with the same effect. So it gets generators,
        # and they draw from them one after the other.
        children = np.random.SeedSequence(seed).generate_state(len(self._pipeline.transforms))
        camera = sample.camera
        points = [] if camera is None else [[camera.cx_px, camera.cy_px, 0.0, 0.0, 0.0]]  # albumentations' own form
        out: dict[str, Any] = {
            "image": sample.image,
            "depth_m": sample.depth_m,
            "valid": sample.valid,
            "keypoints": np.array(points, dtype=np.float64).reshape(-1, 5),
        }
        if sample.weight is not None:
            out["weight"] = sample.weight
        # One by one: called as a whole, the pipeline checks and converts for 0.3 ms, as much as a mirror takes.
        for transform, child in zip(self._pipeline.transforms, children, strict=True):
            if transform.p:
                transform.set_random_state(np.random.default_rng(int(child)), random.Random(int(child)))
                out = transform(**out)
        if camera is not None:
            cx_px, cy_px = (float(value) for value in out["keypoints"][0, :2])
            camera = replace(camera, cx_px=cx_px, cy_px=cy_px)
        return sample.changed(
            **{name: out.get(name) for name in ("image", "depth_m", "valid", "weight")}, camera=camera
        )


def _color_changes(strength: float) -> list[albumentations.BasicTransform]:
    """Limits stop growing because brightness, contrast, gamma and value add up: no image may turn black or white."""
    gamma = min(strength, 2.5)
    return [
        albumentations.RandomBrightnessContrast(
            brightness_limit=min(0.2 * strength, 0.2), contrast_limit=min(0.2 * strength, 0.4), p=1.0
        ),
        # Powers keep darker and brighter equally far from 100, which changes nothing.
        albumentations.RandomGamma(gamma_limit=(100 * 0.8**gamma, 100 * 1.25**gamma), p=1.0),
        albumentations.HueSaturationValue(
            hue_shift_limit=10 * strength, sat_shift_limit=30 * strength, val_shift_limit=min(10 * strength, 15), p=1.0
        ),
    ]


def _degradation(p: float) -> albumentations.OneOf:
    """One to three of the groups below, in the order in which light becomes a file. Within a group, p is a weight.

    Sizes are in pixels of what the network sees. Slow transforms weigh less: Defocus and ISONoise take near 1 ms each
    at 112x154, the others at most 0.3.
    """
    light = [
        albumentations.RandomShadow(
            shadow_roi=(0, 0, 1, 1), num_shadows_limit=(1, 2), shadow_intensity_range=(0.2, 0.6), p=1.0
        ),
        albumentations.PlasmaShadow(shadow_intensity_range=(0.3, 0.7), plasma_size=64, p=0.5),
        *(albumentations.Illumination(mode=mode, intensity_range=(0.1, 0.2), p=0.7) for mode in ("linear", "gaussian")),
    ]
    tint = [
        albumentations.ToGray(p=1.0),
        albumentations.MultiplicativeNoise(multiplier=(0.7, 1.35), per_channel=True, p=1.0),
        albumentations.PlanckianJitter(p=0.7),
        albumentations.RandomToneCurve(scale=0.3, per_channel=True, p=0.7),
    ]
    blur = [
        albumentations.GaussianBlur(sigma_limit=(0.4, 1.5), p=1.0),
        albumentations.MotionBlur(blur_limit=(3, 7), p=0.7),
        albumentations.Defocus(radius=(1, 2), p=0.3),
    ]
    coarser = [
        albumentations.Downscale(
            scale_range=(0.4, 0.8), interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": interpolation}, p=1.0
        )
        for interpolation in (cv2.INTER_LINEAR, cv2.INTER_NEAREST)
    ]
    noise = [
        albumentations.GaussNoise(std_range=(0.01, 0.08), per_channel=True, p=1.0),
        albumentations.GaussNoise(std_range=(0.01, 0.08), per_channel=False, p=0.5),
        albumentations.ISONoise(color_shift=(0.01, 0.05), intensity=(0.1, 0.5), p=0.4),
    ]
    compression = [albumentations.ImageCompression(quality_range=(20, 80), p=1.0)]
    groups = [albumentations.OneOf(group, p=1.0) for group in (light, tint, blur, coarser, noise, compression)]
    return albumentations.OneOf([albumentations.SomeOf(groups, n=count) for count in (1, 2, 3)], p=p)
