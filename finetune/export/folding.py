"""A canonical model for one camera: its factor becomes part of the max depth, for formats that hold no camera."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from finetune.models.training_camera import TrainingCamera

if TYPE_CHECKING:
    from finetune.inference.predictor import Predictor

FOR_CAMERA = "for_camera"


def fold_camera(predictor: Predictor, focal_px: float, image_size: tuple[int, int]) -> Predictor:
    """
    Args:
        predictor: a canonical model.
        focal_px: (fx + fy) / 2 of the camera, pixels of its images.
        image_size: (height, width) of these images, pixels.

    Returns:
        The model that predicts the meters of this camera, and of no other.
    """
    import torch

    from finetune.models.depth_model import DepthModel

    canonical = predictor.canonical
    assert canonical is not None and predictor.max_depth_m is not None
    height, width = image_size
    rows, columns = predictor.preprocessing.network_size(height, width)
    seen_px = focal_px * (rows / height + columns / width) / 2
    network = predictor.network
    max_depth_m = predictor.max_depth_m * canonical.meters_factor(seen_px)
    if math.isclose(max_depth_m, round(max_depth_m), rel_tol=1e-9):
        max_depth_m = float(round(max_depth_m))  # transformers takes whole meters
    folded = DepthModel(
        network.encoder_name,
        max_depth_m,
        version=network.version,
        position_offset=network.position_offset,
        camera=TrainingCamera(
            mode="none", focal_px=seen_px, seen_px=(seen_px, seen_px), max_depth_m=canonical.max_depth_m
        ),
        activation=network.activation,
    )
    folded.load_state_dict(network.state_dict())
    folded.to(predictor.device).to(memory_format=torch.channels_last)
    about = {"focal_px": focal_px, "width": width, "height": height}
    metadata = {key: value for key, value in predictor.metadata.items() if key != "camera"}
    return replace(predictor, network=folded.eval(), metadata={**metadata, FOR_CAMERA: about})
