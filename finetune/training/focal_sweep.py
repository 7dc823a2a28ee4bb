"""What another lens costs a model: the same frames, cropped and resized to other focal lengths; the meters stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader
from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import evaluate, predict_with_network
from finetune.evaluation.protocols import Protocol
from finetune.inference.frame_cameras import UNKNOWN_CAMERAS, FrameCameras
from finetune.inference.predictor import Predictor
from finetune.recipe.schema import Recipe
from finetune.training.data_loading import choose_loading
from finetune.training.environment import make_accelerator
from finetune.training.startup import make_protocols, readers_of

# Factors of the focal length. Below 1 all of a frame is seen, smaller, which takes more pixels than the network sees.
LONGER, SHORTER = (1.0, 1.1, 1.2, 1.3, 1.4, 1.6), (0.7, 0.85)


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """A model on the frames at one focal length.

    Attributes:
        zoom: factor of the frames' own focal length.
        focal_px: the median at the network's size, pixels; None where no camera is known.
        abs_rel: of the model.
        median_ratio: median over the images of exp(mean(ln target - ln prediction)).
        images: how many have a pixel that counts.
    """

    zoom: float
    focal_px: float | None
    abs_rel: float
    median_ratio: float
    images: int

    def to_mapping(self) -> dict[str, float | None]:
        """Plain values, for JSON."""
        return asdict(self)


def sweep_focal_lengths(
    recipe: Recipe, predictor: Predictor, cameras: FrameCameras = UNKNOWN_CAMERAS
) -> list[SweepPoint]:
    """
    Args:
        recipe: its ``data.val`` is scored by its first protocol, without crops, which are for whole frames.
        predictor: what is evaluated. A canonical model is given the focal length of each crop.
        cameras: of frames whose reader gives none.

    Returns:
        One point for each focal length, shortest first.
    """
    try:
        accelerator, _ = make_accelerator(recipe, trains=False)
        return list(_sweep(recipe, accelerator, predictor, cameras))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def _sweep(
    recipe: Recipe, accelerator: Accelerator, predictor: Predictor, cameras: FrameCameras
) -> Iterator[SweepPoint]:
    readers = readers_of(recipe.scored_entries.values())
    network = predictor.network.to(accelerator.device).eval()
    predict = predict_with_network(
        network, assume_training_camera=cameras.assume_training, precision=predictor.precision
    )
    protocol = without_crops(make_protocols(recipe)[0])
    for zoom in sorted(_find_zooms(readers, predictor.preprocessing)):
        samples = ValidationSamples(
            readers, predictor.preprocessing, names=list(recipe.scored_entries), cameras=cameras.options, zoom=zoom
        )
        (found,) = evaluate(
            accelerator,
            samples,
            {"finetuned": predict},
            [protocol],
            workers=choose_loading(recipe.data, accelerator.device).workers,
            batch_size=recipe.run.batch_size,
        )
        focals_px = [image.focal_px for image in found.images if image.focal_px is not None]
        yield SweepPoint(
            zoom=zoom,
            focal_px=float(np.median(focals_px)) if focals_px else None,
            abs_rel=found.rows["finetuned"]["abs_rel"],
            median_ratio=float(np.median([np.exp(-image.mean_logs["finetuned"]) for image in found.images])),
            images=found.images_used,
        )


def format_sweep(points: Sequence[SweepPoint]) -> str:
    """The points as lines for a terminal."""
    heads = "focal length  factor  AbsRel  target / prediction"
    lines = [
        f"{'unknown' if point.focal_px is None else f'{point.focal_px:.0f} px':>12}  {point.zoom:6.2f}  "
        f"{point.abs_rel:.4f}  {point.median_ratio:19.3f}"
        for point in points
    ]
    return "\n".join(["focal sweep: the same frames seen by longer and shorter lenses", heads, *lines])


def without_crops(protocol: Protocol) -> Protocol:
    """The protocol over all of what it is shown."""
    settings = protocol.settings
    if settings.image_crop == settings.crop == "none":
        return protocol
    base, *changes = protocol.name.split("+")
    kept = [change for change in changes if change.partition("=")[0] not in ("image_crop", "crop")]
    return Protocol(
        name="+".join([base, *kept, "image_crop=none", "crop=none"]),
        min_depth_m=protocol.min_depth_m,
        max_depth_m=protocol.max_depth_m,
        kind=protocol.kind,
    )


def _find_zooms(readers: Sequence[Reader], preprocessing: Preprocessing) -> Iterator[float]:
    yield from LONGER
    sizes = [reader[0].depth_m.shape for reader in readers]
    seen = [preprocessing.network_size(*size) for size in sizes]
    if all(rows <= size[0] and columns <= size[1] for (rows, columns), size in zip(seen, sizes, strict=True)):
        yield from SHORTER
